#!/usr/bin/env python3
"""Prints the batch of tests/unit/common/obs/test_otlp.c as OpenTelemetry's own package encodes it.

    pip install opentelemetry-proto==1.45.2 && tests/support/otlp_vector.py
"""

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest, ExportTraceServiceResponse)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status


def add(attributes, key, value):
    pair = attributes.add(key=key)
    if isinstance(value, int):
        pair.value.int_value = value
    else:
        pair.value.string_value = value


def request():
    batch = ExportTraceServiceRequest()
    resource_spans = batch.resource_spans.add()
    add(resource_spans.resource.attributes, "service.name", "crafterse-worker")
    add(resource_spans.resource.attributes, "service.version", "1.2")
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name, scope_spans.scope.version = "crafterse", "1.2"
    first = scope_spans.spans.add(
        trace_id=bytes(range(1, 17)), span_id=bytes(range(0x21, 0x29)), name="process jobs",
        kind=Span.SPAN_KIND_CONSUMER, start_time_unix_nano=1_700_000_000_000_000_000,
        end_time_unix_nano=1_700_000_000_250_000_000, flags=1, dropped_attributes_count=1,
        parent_span_id=bytes(range(0x11, 0x19)))
    for i in range(15):
        add(first.attributes, "n", -i)
    add(first.attributes, "error.type", "engine_error")
    first.status.code, first.status.message = Status.STATUS_CODE_ERROR, "no luck"
    scope_spans.spans.add(
        trace_id=bytes(range(1, 17)), span_id=bytes(range(0x31, 0x39)), name="load model",
        kind=Span.SPAN_KIND_INTERNAL, start_time_unix_nano=1, end_time_unix_nano=500_000_001,
        flags=1)
    return batch


def answer():
    partial = ExportTraceServiceResponse()
    partial.partial_success.rejected_spans = 3
    partial.partial_success.error_message = "too many"
    return partial


if __name__ == "__main__":
    for message in (request(), answer()):
        text = message.SerializeToString(deterministic=True).hex()
        for at in range(0, len(text), 80):
            print(f'    "{text[at:at + 80]}"')
        print()
