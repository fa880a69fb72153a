"""The percentiles that tailkeep computes itself: in the metricstore as gauges, and exact.

The whole program runs here, not the sink alone, and it is told of nothing but spans.
"""

import pathlib
import random
import time
import urllib.request

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from suite.metrics import identity
from suite.process import wait_until
from suite.tailkeep import Tailkeep

import corpus
import product
from checks import check, equal
from truth import Prometheus, held

POLICY = "version: 1\notherwise: { keep: none }\n"
# Median and spread of the logarithm of milliseconds, number of spans.
SERVICES = {"checkout": (3.0, 0.8, 4000), "search": (4.5, 1.0, 700), "payment": (6.0, 0.5, 25)}
QUANTILES = {"0.5": 50, "0.9": 90, "0.99": 99}
GAUGE, BUCKET = "traces_span_metrics_duration_quantile", "traces_span_metrics_duration_bucket"


def spans(service, durations, rng):
    """A request of server spans, every tenth of them failed. They end now."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.extend(corpus.attributes({"service.name": service}))
    scope, now = group.scope_spans.add(), time.time_ns()
    for number, nanos in enumerate(durations):
        span = scope.spans.add(name="GET /|x", kind=2, start_time_unix_nano=now - nanos, end_time_unix_nano=now)
        span.trace_id, span.span_id = rng.randbytes(16), rng.randbytes(8)
        span.status.code = 2 if number % 10 == 0 else 0
    return request


def send(port, request):
    headers = {"Content-Type": "application/x-protobuf"}
    url = f"http://127.0.0.1:{port}/v1/traces"
    urllib.request.urlopen(urllib.request.Request(url, request.SerializeToString(), headers), timeout=10).close()


def export_of(emulator, total):
    """The logs of one export that speaks of all `total` spans, once its percentiles are there; else None."""
    exports = {}
    for log in emulator.logs("otel-metrics"):
        contents = {content.Key: content.Value for content in log.Contents}
        exports.setdefault(contents["__time_nano__"], []).append((contents, log))
    for logs in exports.values():
        calls = sum(float(c["__value__"]) for c, _ in logs if c["__name__"] == "traces_span_metrics_calls")
        gauges = sum(c["__name__"] == GAUGE for c, _ in logs)
        if calls == total and gauges == len(SERVICES) * len(QUANTILES):
            return [log for _, log in logs]
    return None


def measured(emulator, folder, durations):
    """What lands in the metricstore when the program is sent spans of these durations."""
    sink = (f"  - name: sls\n    sls: {{ endpoint: 'http://cn-hangzhou.log.test:{emulator.port}', project: demo-proj, "
            f"metrics: otel-metrics, connect_to: '127.0.0.1:{emulator.port}', auth: {{ type: environment }} }}\n")
    rng = random.Random(8)
    with Tailkeep(folder, POLICY, sinks=sink, config="measure: { every: 1s }\n", env=product.environment()) as tailkeep:
        for service, of_service in durations.items():
            for start in range(0, len(of_service), 500):
                send(tailkeep.http, spans(service, of_service[start:start + 500], rng))
        # A minute has at least 50 s.
        logs = wait_until(30, lambda: export_of(emulator, sum(map(len, durations.values()))))
        assert logs, f"no export of all spans; refused: {emulator.refused}; {tailkeep.stderr()[-800:]}"
        equal(identity(tailkeep.scrape()), [])
        equal(tailkeep.stop(), 0)
    equal(emulator.refused, [])
    return logs


def are_true(prometheus, query, at, durations):
    """Whether each answer to `query` is within 1 % of the duration at its rank."""
    ok = True
    for quantile, percent in QUANTILES.items():
        answers = prometheus.ask(query.format(quantile=quantile), at)
        equal(sorted(answers), sorted(SERVICES))
        for service, answer in answers.items():
            exact = sorted(durations[service])[-(-len(durations[service]) * percent // 100) - 1] / 1e6
            ok &= abs(answer / exact - 1) <= 0.01
    return ok


def bounds_of(logs):
    """Upper bounds of the buckets in seconds or milliseconds as they were written, ascending."""
    labels = [c.Value for log in logs for c in log.Contents if c.Key == "__labels__" and "le#$#" in c.Value]
    written = {part.split("#$#")[1] for text in labels for part in text.split("|") if part.startswith("le#$#")}
    return sorted(float(bound) for bound in written)


def are_in_their_bucket(prometheus, logs, at, durations):
    bounds = bounds_of(logs)
    assert len(bounds) > 5, bounds
    for quantile, percent in QUANTILES.items():
        query = f"histogram_quantile({quantile}, sum by (le, service_name) ({BUCKET}))"
        answers = prometheus.ask(query, at)
        equal(sorted(answers), sorted(SERVICES))
        for service, answer in answers.items():
            exact = sorted(durations[service])[-(-len(durations[service]) * percent // 100) - 1] / 1e6
            upper = next(bound for bound in bounds if exact <= bound)
            lower = max((bound for bound in bounds if bound < upper), default=0)
            assert lower <= answer <= upper, f"{service} {quantile}: {answer}, exact is {exact} in ({lower}, {upper}]"


def run(emulator, folder):
    emulator.clear()
    folder = pathlib.Path(folder) / "percentiles"
    folder.mkdir()
    rng = random.Random(9)
    durations = {service: [int(rng.lognormvariate(median, spread) * 1e6) for _ in range(count)]
                 for service, (median, spread, count) in SERVICES.items()}
    logs = []
    with check("metrics truth: the program sends request metrics and percentiles to the metricstore"):
        logs = measured(emulator, folder, durations)
    if not logs:
        return
    prometheus = Prometheus(folder)
    try:
        samples = held(logs)
        prometheus.write(samples)
        at = samples[0][1] / 1000
        with check("metrics truth: gauges are within 1 % of the exact percentiles of all statuses"):
            assert are_true(prometheus, GAUGE + '{{quantile="{quantile}"}}', at, durations)
        with check("metrics truth: histogram_quantile over the program's own buckets is in the exact value's bucket"):
            are_in_their_bucket(prometheus, logs, at, durations)
        with check("metrics truth, control: percentiles interpolated from the buckets are noticed"):
            query = "histogram_quantile({quantile}, sum by (le, service_name) (" + BUCKET + "))"
            assert not are_true(prometheus, query, at, durations)
    finally:
        prometheus.stop()
