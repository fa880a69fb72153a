"""The last service of the SDK suite: takes POST /payments from the api, and fails some of them.

Its spans carry times of their own making, so that a slow request costs no time;
see ../README.md for the variables.
"""

import logging
import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from opentelemetry import metrics, trace
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.propagate import extract
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from record import Recorder

MILLISECOND = 1_000_000
PROTOCOL = os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"]

if PROTOCOL == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
else:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter


def start_telemetry():
    """Installs the global providers and gives them, in the order in which they are stopped."""
    resource = Resource.create(
        {"service.name": "worker", "service.version": "7", "deployment.environment": "suite", "worker.slots": 4},
        schema_url="https://opentelemetry.io/schemas/1.30.0",
    )
    # The failing span has three events, so that one is dropped and counted.
    tracers = TracerProvider(resource=resource, span_limits=SpanLimits(max_events=2), shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    tracers.add_span_processor(Recorder(os.environ["SENT"]))
    meters = MeterProvider(
        [PeriodicExportingMetricReader(OTLPMetricExporter())], resource=resource, shutdown_on_exit=False
    )
    loggers = LoggerProvider(resource=resource, shutdown_on_exit=False)
    loggers.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    trace.set_tracer_provider(tracers)
    metrics.set_meter_provider(meters)
    log.setLevel(logging.INFO)
    log.addHandler(LoggingHandler(logger_provider=loggers))
    log.propagate = False
    return [tracers, meters, loggers]


logging.basicConfig(level=logging.WARNING)  # the SDK's own complaints go to standard error
log = logging.getLogger("suite.worker")
providers = start_telemetry()
tracer = trace.get_tracer(
    "suite/worker",
    "0.9",
    schema_url="https://opentelemetry.io/schemas/1.29.0",
    attributes={"library.language": "python"},
)
requests = metrics.get_meter("suite/worker").create_counter("suite.requests", unit="{request}")


def pay(parent, order, fate):
    """Makes the spans of one payment and gives the status to answer."""
    start = time.time_ns()
    span = tracer.start_span(
        "POST /payments",
        parent,
        SpanKind.SERVER,
        {"http.method": "POST", "http.route": "/payments", "order.number": order, "order.id": 1 << 62},
        start_time=start,
    )
    inside = trace.set_span_in_context(span)
    charge(inside, start + MILLISECOND, fate)
    if fate == "background":
        send_receipt(inside, start + 2 * MILLISECOND)
    status = 500 if fate == "failed" else 200
    if status == 500:
        span.set_status(Status(StatusCode.ERROR, "card refused: “insufficient funds”"))
    span.set_attribute("http.status_code", status)
    with trace.use_span(span):
        log.info("worker took order %d", order)
    requests.add(1, {"fate": fate})
    span.end(start + (650 if fate == "slow" else 5) * MILLISECOND)
    return status


def charge(parent, start, fate):
    span = tracer.start_span(
        "INSERT payments",
        parent,
        SpanKind.CLIENT,
        {"db.system": "postgresql", "db.rows": 1, "db.share": 0.25, "db.tags": ["a", "b"], "db.cached": False},
        start_time=start,
    )
    if fate == "failed":
        for attempt in range(3):
            span.record_exception(ValueError(f"attempt {attempt}"), {"attempt": attempt}, start + attempt)
        span.set_status(StatusCode.ERROR)
    else:
        span.set_status(StatusCode.OK)
    span.end(start + (600 if fate == "slow" else 2) * MILLISECOND)


def send_receipt(parent, start):
    """A job that outlives its request by far: it must not make the trace slow."""
    send = tracer.start_span("send receipts", parent, SpanKind.PRODUCER, start_time=start)
    send.end(start + MILLISECOND)
    job = tracer.start_span(
        "process receipts",
        trace.set_span_in_context(send),
        SpanKind.CONSUMER,
        links=[Link(send.get_span_context(), {"messaging.batch": 1})],
        start_time=start + MILLISECOND,
    )
    job.end(start + 2000 * MILLISECOND)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        self.send_response(pay(extract(self.headers), int(query["order"]), query["fate"]))
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Standard error is for what goes wrong."""


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print("listening", server.server_port, flush=True)
    server.serve_forever()
    for provider in providers:
        provider.shutdown()


main()
