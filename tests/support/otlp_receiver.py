"""An OTLP/HTTP receiver for tests: keeps the spans that services export.

Requests are decoded with proto/otlp.proto, whose numbers tests/unit/common/obs/test_otlp.c compares
with OpenTelemetry's own package.
"""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from support import messages


class Span:
    """One span, its attributes as a dict, ids in hex."""

    def __init__(self, service, span):
        self.service = service
        self.name = span.name
        self.kind = span.kind
        self.trace_id = span.trace_id.hex()
        self.span_id = span.span_id.hex()
        self.parent_id = span.parent_span_id.hex()
        self.start, self.end = span.start_time_unix_nano / 1e9, span.end_time_unix_nano / 1e9
        self.failed = span.status.code == 2
        self.attributes = attributes_of(span)

    def __repr__(self):
        return f"{self.service}: {self.name} {self.span_id} in {self.parent_id or 'nothing'}"


def attributes_of(message):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value"))
            for pair in message.attributes}


class OtlpReceiver:
    """Listens on a free port of loopback."""

    def __init__(self):
        self.spans = []
        self.headers = []
        self.http = None
        self.is_away = False  # stopped: connections that are still open get no answer either

    def start(self):
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                if receiver.is_away:
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.take(self.path, dict(self.headers), body)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self):
        self.is_away = True
        self.http.shutdown()
        self.http.server_close()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def take(self, path, headers, body):
        assert path == "/v1/traces" and headers["Content-Type"] == "application/x-protobuf"
        request = messages.ExportTraceServiceRequest.FromString(body)
        self.headers.append(headers)
        for resource_spans in request.resource_spans:
            resource = attributes_of(resource_spans.resource)
            for scope_spans in resource_spans.scope_spans:
                self.spans += [Span(resource["service.name"], span) for span in scope_spans.spans]

    def trace(self, trace_id):
        return [span for span in self.spans if span.trace_id == trace_id]
