"""A fixed corpus of OTLP: every kind, status, attribute type, odd id, odd time and odd text.

Names of spans, bodies of records and attributes `n` of points are unique: results are compared by them.
"""

import math
import pathlib
import random
import time

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

SECOND = 10**9
TEXTS = ["", "plain", "Grüße", "日本語 ☃ 😀", "<a href=\"x\">&amp;</a>", "tab\tline\nback\\slash", "\u2028\u0001\u007f", "a|b#$#c"]


def value(given):
    made = AnyValue()
    if isinstance(given, bool):
        made.bool_value = given
    elif isinstance(given, int):
        made.int_value = given
    elif isinstance(given, float):
        made.double_value = given
    elif isinstance(given, str):
        made.string_value = given
    elif isinstance(given, bytes):
        made.bytes_value = given
    elif isinstance(given, list):
        made.array_value.values.extend(value(item) for item in given)
        made.array_value.SetInParent()
    elif isinstance(given, dict):
        made.kvlist_value.values.extend(attributes(given))
        made.kvlist_value.SetInParent()
    return made


def attributes(given):
    return [KeyValue(key=key, value=value(item)) for key, item in given.items()]


def zoo(rng):
    """Attributes of every type."""
    return {
        "text": rng.choice(TEXTS), "empty": "", "none": None, "true": True, "false": False,
        "int": rng.randrange(-(2**63), 2**63), "zero": 0, "negative.zero": -0.0,
        "double": rng.uniform(-1e6, 1e6), "whole": float(rng.randrange(1000)), "tiny": 1e-7, "huge": 1e21,
        "bytes": bytes(rng.randrange(256) for _ in range(rng.randrange(9))),
        "array": [1, "two", 3.5, True, None, [b"x"]], "no items": [],
        "map": {"inner": {"deep": [1.0, {"er": "<&>"}]}, "": 1}, "no members": {},
        "Ünïcode.kéy": "v", "http.response.status_code": rng.choice([200, 404, 500]),
    }


def traces(seed, now=None, spans=120, plain=False):
    """`plain` leaves out what the exporter gets wrong, for use as ordinary load."""
    rng = random.Random(seed)
    now = now or time.time_ns()
    request = ExportTraceServiceRequest()
    number = 0
    for resource_number in range(4):
        resource = request.resource_spans.add(schema_url="https://opentelemetry.io/schemas/1.30.0")
        if resource_number != 3:
            given = {"service.name": f"shop-{resource_number}", "process.pid": 42, "ratio": 0.5, **zoo(rng)}
            if resource_number != 1:
                given["host.name"] = TEXTS[3] if resource_number else "node-1"
            resource.resource.attributes.extend(attributes(given))
        for scope_number in range(2):
            scope = resource.scope_spans.add()
            if scope_number or resource_number != 2:
                scope.scope.name, scope.scope.version = f"scope-{scope_number}", "1.2.3-ß"
                scope.scope.attributes.extend(attributes({"dropped": True}))
            for _ in range(spans // 8):
                fill_span(scope.spans.add(), rng, now, f"span {seed} {number}")
                number += 1
    if not plain:
        odd_spans(request.resource_spans[0].scope_spans[0], seed, now)
    return request


def fill_span(span, rng, now, name):
    span.name = name
    span.trace_id, span.span_id = rng.randbytes(16), rng.randbytes(8)
    span.parent_span_id = rng.choice([b"", rng.randbytes(8)])
    span.kind = rng.randrange(6)
    span.trace_state = rng.choice(["", "ot=th:fd70a4;rv:0123456789abcd,vendor=x"])
    span.end_time_unix_nano = now - rng.randrange(3600 * SECOND)
    span.start_time_unix_nano = span.end_time_unix_nano - rng.randrange(5 * SECOND)
    span.attributes.extend(attributes(zoo(rng)))
    span.status.code = rng.randrange(3)
    span.status.message = rng.choice(TEXTS)
    for _ in range(rng.randrange(3)):
        span.events.add(name=rng.choice(TEXTS), time_unix_nano=span.start_time_unix_nano + 7,
                        attributes=attributes(zoo(rng)))
        link = span.links.add(trace_id=rng.randbytes(16), span_id=rng.randbytes(8), trace_state="a=b")
        link.attributes.extend(attributes({"link": rng.choice(TEXTS)}))


def odd_spans(scope, seed, now):
    """One oddity a span, named after it."""
    def add(name, **fields):
        span = scope.spans.add(name=f"{name} {seed}", trace_id=b"\1" * 16, span_id=b"\2" * 8,
                               start_time_unix_nano=now - SECOND, end_time_unix_nano=now)
        for key, given in fields.items():
            setattr(span, key, given)
        return span

    add("no ids", trace_id=b"", span_id=b"")
    add("zero parent", parent_span_id=bytes(8))
    add("no times", start_time_unix_nano=0, end_time_unix_nano=0)
    add("no end", end_time_unix_nano=0)
    add("ends before it starts", start_time_unix_nano=now, end_time_unix_nano=now - SECOND)
    add("of last year", start_time_unix_nano=now - 365 * 86400 * SECOND, end_time_unix_nano=now - 364 * 86400 * SECOND)
    add("of next year", end_time_unix_nano=now + 365 * 86400 * SECOND)
    add("unknown kind", kind=77)
    add("big attribute").attributes.extend(attributes({"big": "x" * 1_000_000}))
    add("not a number").attributes.extend(attributes({"nan": math.nan, "inf": math.inf, "other": 1}))
    twice = add("same key twice")
    twice.attributes.extend(attributes({"key": "first"}) + attributes({"key": "last"}))
    add("link without ids").links.add()
    add("event without anything").events.add()
    scope.spans.add(name=f"nothing but a name {seed}")


def logs(seed, now=None):
    rng = random.Random(seed)
    now = now or time.time_ns()
    request = ExportLogsServiceRequest()
    number = 0
    for resource_number in range(2):
        resource = request.resource_logs.add()
        given = {"service.name": "shop", "host.name": "node", **zoo(rng)} if resource_number else {}
        resource.resource.attributes.extend(attributes(given))
        scope = resource.scope_logs.add()
        scope.scope.name = "logger"
        for body in [*TEXTS[1:], 7, -1.5, True, b"\0\xff", ["a", 1], {"k": {"n": [1.0]}}, None]:
            record = scope.log_records.add()
            record.severity_number, record.severity_text = rng.randrange(25), rng.choice(["", "INFO", "ERROR"])
            record.time_unix_nano = now - rng.randrange(3600 * SECOND)
            record.flags = rng.randrange(512)
            record.attributes.extend(attributes({**zoo(rng), "n": f"{seed} {number}"}))
            if body is not None:
                record.body.CopyFrom(value(body))
            if rng.random() < 0.7:
                record.trace_id, record.span_id = rng.randbytes(16), rng.randbytes(8)
            number += 1
    timeless = request.resource_logs[0].scope_logs[0].log_records.add(observed_time_unix_nano=now)
    timeless.body.string_value = "timeless"
    timeless.attributes.extend(attributes({"n": f"{seed} timeless"}))
    return request


def metrics(seed, now=None):
    rng = random.Random(seed)
    now = now or time.time_ns()
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.extend(attributes({"service.name": "shop", "k8s.pod.name": "p-1", "flag": True}))
    scope = resource.scope_metrics.add()
    number = 0

    def point(points):
        nonlocal number
        number += 1
        made = points.add(time_unix_nano=now - rng.randrange(60) * SECOND, start_time_unix_nano=now - 60 * SECOND)
        labels = {"n": f"{seed}-{number}", "Http.Method": "GET", "1st": "x", "_under": "y", "ratio": 0.25}
        made.attributes.extend(attributes(labels))
        return made

    for given in (0, -7, 123_456, 1_000_000, 2**62):
        point(scope.metrics.add(name="shop.orders/open").gauge.data_points).as_int = given
    for given in (0.0, 0.1, 1e-7, 12_345_678.9, 1e21, math.nan, math.inf, -math.inf):
        point(scope.metrics.add(name="shop.ratio").gauge.data_points).as_double = given
    total = scope.metrics.add(name="shop.orders", unit="1")
    total.sum.is_monotonic, total.sum.aggregation_temporality = True, 2
    point(total.sum.data_points).as_int = 99
    summary = point(scope.metrics.add(name="shop.wait").summary.data_points)
    summary.count, summary.sum = 10, 55.5
    for quantile in (0.5, 0.99):
        summary.quantile_values.add(quantile=quantile, value=quantile * 10)
    histogram = scope.metrics.add(name="shop.duration", unit="ms")
    histogram.histogram.aggregation_temporality = 2
    made = point(histogram.histogram.data_points)
    made.count, made.sum = 6, 321.5
    made.explicit_bounds.extend([0.005, 1, 2.5, 1_000_000])
    made.bucket_counts.extend([3, 2, 0, 0, 1])
    piped = point(scope.metrics.add(name="shop.piped").gauge.data_points)
    piped.as_int = 1
    piped.attributes.extend(attributes({"path": "a|b"}))
    return request


def write(folder, name, request):
    kind = {"Trace": "traces", "Metrics": "metrics", "Logs": "logs"}[
        type(request).__name__.removeprefix("Export").removesuffix("ServiceRequest")
    ]
    path = pathlib.Path(folder) / f"{name}.{kind}.pb"
    path.write_bytes(request.SerializeToString())
    return str(path)
