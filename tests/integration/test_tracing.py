"""A job's trace: from the client's traceparent to the object store, as an OTLP receiver sees it."""

import secrets

import pytest

from support import messages
from support.otlp_receiver import OtlpReceiver
from support.processes import wait_until

RECEIVER = OtlpReceiver().start()
STACK = {"settings": {"OTEL_EXPORTER_OTLP_ENDPOINT": RECEIVER.endpoint,
                      "OTEL_EXPORTER_OTLP_HEADERS": "x-key=a%20secret",
                      "OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_BSP_EXPORT_TIMEOUT": "1500"}}
SMALL = {"width": 64, "height": 64, "steps": 2}
# Every span of a job that goes well, with its parent.
TREE = {"POST /v1/generations": ("gateway", None),
        "send requests": ("gateway", "POST /v1/generations"),
        "process requests": ("router", "send requests"),
        "send queue": ("router", "process requests"),
        "queue wait": ("router", "send requests"),
        "process queue": ("router", "send requests"),
        "send jobs": ("router", "process queue"),
        "process jobs": ("worker", "send requests"),
        "draw picture": ("worker", "process jobs"),
        "encode text": ("worker", "draw picture"),
        "denoise": ("worker", "draw picture"),
        "decode latents": ("worker", "draw picture"),
        "encode PNG": ("worker", "draw picture"),
        "send results": ("worker", "process jobs"),
        "process results": ("uploader", "send requests"),
        "store picture": ("uploader", "process results"),
        "PUT": ("uploader", "store picture"),
        "SET": ("uploader", "process results"),
        "send status": ("uploader", "process results")}


@pytest.fixture(scope="module", autouse=True)
def receiver():
    yield RECEIVER
    RECEIVER.stop()


def post(client, prompt, flags="01", **headers):
    """(trace id, answer) of an order whose client is a span of a trace."""
    trace_id = secrets.token_hex(16)
    traceparent = f"00-{trace_id}-00f067aa0ba902b7-{flags}"
    return trace_id, client.post({"prompt": prompt, "seed": 1, **SMALL}, traceparent=traceparent,
                                 **headers)


def lines_about(stack, job_id):
    """(service, line) of every line that has the job's id."""
    return [(name, line) for name, service in stack.services.items()
            for line in service.log().splitlines() if job_id in line]


def test_one_trace_shows_a_job_from_the_request_to_the_upload(stack, client, receiver):
    trace_id, answer = post(client, "a traced helmet", tracestate="vendor=a1,other=b2")
    assert answer.headers["traceresponse"].split("-")[1] == trace_id
    job = client.wait(answer.json()["id"])
    wait_until(lambda: len(receiver.trace(trace_id)) >= len(TREE), 15,
               lambda: pytest.fail(f"only {receiver.trace(trace_id)}"))
    spans = receiver.trace(trace_id)
    by_name = {span.name: span for span in spans}
    assert len(spans) == len(by_name) == len(TREE), spans
    for name, (service, parent) in TREE.items():
        span = by_name[name]
        assert span.service == f"crafterse-{service}"
        assert span.parent_id == (by_name[parent].span_id if parent else "00f067aa0ba902b7"), name
        assert not span.failed and span.start <= span.end
    server, put = by_name["POST /v1/generations"], by_name["PUT"]
    assert server.attributes["http.response.status_code"] == 202
    assert server.attributes["crafterse.job.id"] == job["id"]
    assert put.attributes["http.response.status_code"] == 200
    assert by_name["process jobs"].attributes["crafterse.attempt"] == 1
    assert by_name["process jobs"].attributes["messaging.system"] == "kafka"
    assert receiver.headers[-1]["x-key"] == "a secret"
    # The context travels in Kafka's headers as well, the client's tracestate with it.
    headers = stack.topics.headers("jobs.default", job["id"])
    assert headers["traceparent"].split("-")[1:3] == [trace_id, by_name["send requests"].span_id]
    assert headers["tracestate"] == "vendor=a1,other=b2"
    # And every line about the job, in every service, can be found by either id.
    lines = lines_about(stack, job["id"])
    assert {name for name, _ in lines} == {"gateway", "router", "worker1", "uploader"}
    for _, line in lines:
        assert f" job={job['id']} " in line and f" trace_id={trace_id} " in line, line
    # The same order again is answered from the cache: one span says all.
    trace_id, answer = post(client, "a traced helmet")
    assert answer.json()["state"] == "succeeded"
    hit = wait_until(lambda: receiver.trace(trace_id), 5)
    assert [span.name for span in hit] == ["POST /v1/generations"]
    assert hit[0].attributes["crafterse.cache"] == "hit"


def test_attempts_to_store_a_picture_are_spans_of_their_own(stack, client, receiver):
    stack.s3.fault = "slow_down"
    trace_id, answer = post(client, "a late helmet")
    wait_until(lambda: any(span.failed for span in receiver.trace(trace_id)), 10)
    stack.s3.fault = None
    assert client.wait(answer.json()["id"])["state"] == "succeeded"
    spans = wait_until(lambda: any(span.name == "send status" for span in receiver.trace(trace_id))
                       and receiver.trace(trace_id), 5)
    attempts = sorted((s for s in spans if s.name == "store picture"), key=lambda s: s.start)
    assert len(attempts) > 1
    assert [span.failed for span in attempts] == [True] * (len(attempts) - 1) + [False]
    refused = next(s for s in spans if s.parent_id == attempts[0].span_id)
    assert (refused.name, refused.attributes["http.response.status_code"]) == ("PUT", 503)
    assert refused.attributes["error.type"] == "503" and refused.failed


def test_what_is_not_sampled_or_has_no_receiver_costs_no_job(stack, client, receiver):
    trace_id, answer = post(client, "a quiet helmet", flags="00")
    assert client.wait(answer.json()["id"])["state"] == "succeeded"
    statuses = stack.topics.statuses(answer.json()["id"])
    assert {status.envelope.traceparent.split("-")[3] for status in statuses} == {"00"}
    assert "traceresponse" not in answer.headers
    receiver.stop()
    _, lost = post(client, "a lost helmet")
    assert client.wait(lost.json()["id"])["state"] == "succeeded"
    for name, service in stack.services.items():
        wait_until(lambda s=service: s.metric("crafterse_trace_dropped_spans_total") > 0, 10)
        assert service.is_ready(), name
    assert not receiver.trace(trace_id)
    assert messages.State.STATE_SUCCEEDED in {
        status.state for status in stack.topics.statuses(lost.json()["id"])}
