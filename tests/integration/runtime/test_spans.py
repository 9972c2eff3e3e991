"""Spans reach a collector, in a process of their own: what sends them is set once a process."""

import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TRACE = "0af7651916cd43dd8448eb211c80319c"
SERVICE = """
import sys
from services.runtime import telemetry
telemetry.configure("actor", level="INFO", otlp_url=sys.argv[1])
with telemetry.span("decide", sys.argv[2]) as header:
    print(header)
"""


def test_spans_go_where_the_settings_say_below_the_trace_that_the_event_came_with() -> None:
    received: list[ExportTraceServiceRequest] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1/traces"
        command = [sys.executable, "-c", SERVICE, url, f"00-{TRACE}-b7ad6b7169203331-01"]
        header = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        server.shutdown()

    [spans] = [resource for request in received for resource in request.resource_spans]
    [span] = spans.scope_spans[0].spans
    assert {a.key: a.value.string_value for a in spans.resource.attributes}["service.name"] == "nightshift-actor"
    assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == ("decide", TRACE, "b7ad6b7169203331")
    assert header == f"00-{TRACE}-{span.span_id.hex()}-01"
