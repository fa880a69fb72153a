"""The smallest Python service that sends its traces to tailkeep. The endpoint comes
from OTEL_EXPORTER_OTLP_ENDPOINT, for example http://localhost:4318."""

import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("example")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        with tracer.start_as_current_span(f"GET {self.path}", kind=SpanKind.SERVER) as span:
            if self.path == "/fail":
                span.set_status(StatusCode.ERROR, "as asked")
            if self.path == "/slow":
                time.sleep(0.7)
            self.send_response(500 if self.path == "/fail" else 200)
            self.end_headers()

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print("listening", server.server_port, flush=True)
server.serve_forever()
provider.shutdown()  # sends what is still waiting
