"""What a metricstore would hold, asked by a real Prometheus: quantiles and rates must be true."""

import json
import pathlib
import random
import socket
import struct
import subprocess
import time
import urllib.parse
import urllib.request

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

import corpus
import product
from checks import check, equal

BOUNDS = [2, 4, 6, 8, 10, 50, 100, 200, 400, 800, 1000, 1400, 2000, 5000, 10_000, 15_000]
STEP, STEPS, WINDOW = 15, 40, 300
SERIES = {"checkout": (3.0, 0.8, 120), "search": (4.5, 1.0, 60), "payment": (6.0, 0.5, 30)}


class Load:
    """Requests of three services: median and spread of the logarithm of milliseconds, number a step."""

    def __init__(self):
        self.rng, self.start = random.Random(7), int(time.time()) - STEP * STEPS
        self.durations = {service: [] for service in SERIES}  # (second, milliseconds)

    def step(self, index):
        """Draws a step's requests and gives the cumulative state at its end."""
        at = self.start + STEP * (index + 1)
        request = ExportMetricsServiceRequest()
        scope = request.resource_metrics.add().scope_metrics.add()
        calls = scope.metrics.add(name="traces.span.metrics.calls")
        calls.sum.is_monotonic, calls.sum.aggregation_temporality = True, 2
        histogram = scope.metrics.add(name="traces.span.metrics.duration", unit="ms")
        histogram.histogram.aggregation_temporality = 2
        for service, (median, spread, count) in SERIES.items():
            drawn = self.durations[service]
            drawn += [(at, self.rng.lognormvariate(median, spread)) for _ in range(count)]
            labels = corpus.attributes({"service.name": service, "span.name": "GET /|x", "span.kind": "SPAN_KIND_SERVER"})
            times = {"time_unix_nano": at * 10**9, "start_time_unix_nano": self.start * 10**9}
            calls.sum.data_points.add(as_int=len(drawn), attributes=labels, **times)
            point = histogram.histogram.data_points.add(
                count=len(drawn), sum=sum(d for _, d in drawn), attributes=labels, explicit_bounds=BOUNDS, **times)
            counts = [0] * (len(BOUNDS) + 1)
            for _, duration in drawn:
                counts[next((i for i, bound in enumerate(BOUNDS) if duration <= bound), len(BOUNDS))] += 1
            point.bucket_counts.extend(counts)
        return request

    @property
    def end(self):
        return self.start + STEP * STEPS

    def window(self, service):
        return sorted(d for at, d in self.durations[service] if at > self.end - WINDOW)


class Prometheus:
    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        folder = pathlib.Path(folder)
        (folder / "prometheus.yml").write_text("{}\n")
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            ["prometheus", "--web.enable-remote-write-receiver", f"--web.listen-address=127.0.0.1:{port}",
             f"--storage.tsdb.path={folder / 'tsdb'}", f"--config.file={folder / 'prometheus.yml'}", "--log.level=error"])
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{self.url}/-/ready", timeout=1)
                return
            except OSError:
                time.sleep(0.1)
        self.stop()
        raise RuntimeError("prometheus does not start")

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=30)

    def write(self, samples):
        """`samples` are (labels, milliseconds, value), in the order of time."""
        series = {}
        for labels, at, value in samples:
            series.setdefault(labels, []).append((at, value))
        body = b"".join(field(1, time_series(labels, points)) for labels, points in series.items())
        headers = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf",
                   "X-Prometheus-Remote-Write-Version": "0.1.0"}
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/api/v1/write", snappy(body), headers), timeout=30)

    def ask(self, query, at):
        arguments = urllib.parse.urlencode({"query": query, "time": at})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{arguments}", timeout=30) as reply:
            rows = json.load(reply)["data"]["result"]
        return {row["metric"].get("service_name", ""): float(row["value"][1]) for row in rows}


def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def time_series(labels, points):
    out = b"".join(field(1, field(1, name.encode()) + field(2, text.encode())) for name, text in labels)
    for at, value in points:
        out += field(2, b"\x09" + struct.pack("<d", value) + b"\x10" + varint(at))
    return out


def snappy(raw):
    """The block format with literals only: valid, and no library is needed."""
    out = [varint(len(raw))]
    for start in range(0, len(raw), 65536):
        piece = raw[start:start + 65536]
        out += [bytes([61 << 2]), (len(piece) - 1).to_bytes(2, "little"), piece]
    return b"".join(out)


def held(logs, decumulate=False):
    """Logs of the metricstore as Prometheus samples."""
    samples, below = [], {}
    for log in logs:
        contents = {content.Key: content.Value for content in log.Contents}
        labels = dict(pair.split("#$#") for pair in contents["__labels__"].split("|"))
        name, value = contents["__name__"], float(contents["__value__"])
        if decumulate and name.endswith("_bucket"):
            of_point = (labels["service_name"], contents["__time_nano__"])
            value, below[of_point] = value - below.get(of_point, 0), value
        key = tuple(sorted({**labels, "__name__": name}.items()))
        samples.append((key, int(contents["__time_nano__"]) // 10**6, value))
    return sorted(samples, key=lambda sample: sample[1])


def bucket_of(duration):
    index = next((i for i, bound in enumerate(BOUNDS) if duration <= bound), len(BOUNDS))
    return (BOUNDS[index - 1] if index else 0), (BOUNDS[index] if index < len(BOUNDS) else float("inf"))


def quantiles_are_true(prometheus, load):
    """Each answer lies in the exact value's bucket, or on the edge to the next."""
    ok = True
    for quantile in (0.5, 0.9, 0.99):
        query = (f"histogram_quantile({quantile}, sum by (le, service_name)"
                 f"(rate(traces_span_metrics_duration_bucket[{WINDOW}s])))")
        answers = prometheus.ask(query, load.end)
        equal(sorted(answers), sorted(SERIES))
        for service, answer in answers.items():
            durations = load.window(service)
            low, high = bucket_of(durations[min(len(durations) - 1, int(quantile * len(durations)))])
            ok &= low * 0.98 <= answer <= high * 1.02
    return ok


def run(emulator, folder):
    emulator.clear()
    load = Load()
    files = [corpus.write(folder, f"red{index:03}", load.step(index)) for index in range(STEPS)]
    with check("metrics truth: the metricstore takes the request metrics"):
        equal(product.sls(emulator, files)["rejected"], 0)
        equal(emulator.refused, [])
    logs = emulator.logs("otel-metrics")
    for is_control in (False, True):
        data = pathlib.Path(folder) / f"prometheus-{is_control}"
        data.mkdir()
        prometheus = Prometheus(data)
        try:
            samples = held(logs, decumulate=is_control)
            for start in range(0, len(samples), 5000):
                prometheus.write(samples[start:start + 5000])
            if is_control:
                with check("metrics truth, control: buckets that are not cumulative are noticed"):
                    assert not quantiles_are_true(prometheus, load)
                continue
            with check("metrics truth: histogram_quantile is within a bucket of the exact percentiles"):
                assert quantiles_are_true(prometheus, load)
            with check("metrics truth: rate is the exact rate"):
                for name in ("calls", "duration_count"):
                    rates = prometheus.ask(f"rate(traces_span_metrics_{name}[{WINDOW}s])", load.end)
                    equal(sorted(rates), sorted(SERIES))
                    for service, rate in rates.items():
                        exact = len(load.window(service)) / WINDOW
                        assert abs(rate / exact - 1) < 0.01, (name, service, rate, exact)
        finally:
            prometheus.stop()
