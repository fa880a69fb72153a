"""Request metrics as plain values: from OTLP/JSON and from Prometheus text.

A series is known by its metric's name, unit and type and by its attributes. What may differ
between us and the Collector is taken out here, each with its reason:

- `collector.instance.id`: names the process, so it must differ.
- our extra dimensions (`service.version`, deployment environment): two releases can be compared; summed over.
- our percentiles of the last minute (`duration.quantile`): the connector has none. They are held against exact ones
  in `tests/cloud`.
- the resource: the Collector gives each resource its own series, often several with equal attributes, and copies
  no more than its configuration says; a series of ours is one service's. Summed over the resources.
- errors that never were: our calls are 0 from the operation's first span on, the connector has none.
- `job`, `instance`, `otel_scope_*` and `target_info` of the Collector's Prometheus exporter: its own labels.
"""

from collections import defaultdict

from suite import otlp

OTLP_IGNORED = {"collector.instance.id", "service.version", "deployment.environment.name"}
PROMETHEUS_IGNORED = {"collector_instance_id", "service_version", "deployment_environment_name", "job", "instance"}
PREFIX = "traces.span.metrics."
OURS_ALONE = ("traces.span.metrics.duration.quantile", "traces_span_metrics_duration_quantile_milliseconds")


def last_values(requests):
    """The newest cumulative value of each series of the request metrics, added up over what may differ.

    (name, unit, type, attributes) → calls: a number; durations: (count, sum in units, buckets).
    """
    newest = {}
    for number, request in enumerate(requests):
        for place, metric in metrics_of(request):
            for kind in ("sum", "histogram", "exponentialHistogram"):
                for point in metric.get(kind, {}).get("dataPoints", []):
                    check_cumulative(metric, kind)
                    attributes = tuple(sorted((key, val[1]) for key, val in otlp.attributes(point).items()))
                    newest[place, metric["name"], metric.get("unit", ""), kind, attributes] = (number, point)
    series = defaultdict(list)
    for (_, name, unit, kind, attributes), (_, point) in newest.items():
        kept = tuple(item for item in attributes if item[0] not in OTLP_IGNORED)
        series[name, unit, kind, kept].append(point)
    values = {key: ADD[key[2]](points) for key, points in series.items()}
    return {key: value for key, value in values.items() if value != 0}


def metrics_of(request):
    for by_resource in request.get("resourceMetrics", []):
        place = repr(sorted(otlp.attributes(by_resource.get("resource", {})).items()))
        for by_scope in by_resource.get("scopeMetrics", []):
            for metric in by_scope.get("metrics", []):
                if metric["name"].startswith(PREFIX) and metric["name"] not in OURS_ALONE:
                    yield place, metric


def check_cumulative(metric, kind):
    data = metric[kind]
    cumulative = data.get("aggregationTemporality") in (2, "AGGREGATION_TEMPORALITY_CUMULATIVE")
    if not cumulative or (kind == "sum" and not data.get("isMonotonic")):
        raise ValueError(f"{metric['name']} is not cumulative and monotonic: {data}")


def add_sums(points):
    return sum(int(point.get("asInt", point.get("asDouble", 0))) for point in points)


def add_histograms(points):
    counts = [0] * max(len(point.get("bucketCounts", [])) for point in points)
    for point in points:
        for i, count in enumerate(point.get("bucketCounts", [])):
            counts[i] += int(count)
    [bounds] = {tuple(point["explicitBounds"]) for point in points}
    return *count_and_sum(points), (bounds, tuple(counts))


def add_exponential(points):
    """Buckets by index at the coarsest scale among the points; trailing and leading zeros say nothing."""
    scale = min(int(point.get("scale", 0)) for point in points)
    return *count_and_sum(points), (scale, exponential_buckets(points, scale))


def exponential_buckets(points, scale):
    buckets = defaultdict(int)
    for point in points:
        coarser = int(point.get("scale", 0)) - scale
        buckets["zero"] += int(point.get("zeroCount", 0))
        positive = point.get("positive", {})
        for i, count in enumerate(positive.get("bucketCounts", [])):
            buckets[(int(positive.get("offset", 0)) + i) >> coarser] += int(count)
    return {index: count for index, count in buckets.items() if count}


def at_scale(buckets, coarser):
    """Exponential buckets merged pairwise, `coarser` times."""
    merged = defaultdict(int)
    for index, count in buckets.items():
        merged[index if index == "zero" else index >> coarser] += count
    return dict(merged)


def count_and_sum(points):
    return sum(int(point["count"]) for point in points), sum(point.get("sum", 0) for point in points)


ADD = {"sum": add_sums, "histogram": add_histograms, "exponentialHistogram": add_exponential}


def differences(ours, theirs, limit=12):
    """Lines that say where two results of `last_values` differ; empty if nowhere."""
    lines = [f"only the Collector has {key}" for key in sorted(theirs.keys() - ours.keys())]
    lines += [f"only tailkeep has {key}" for key in sorted(ours.keys() - theirs.keys())]
    for key in sorted(ours.keys() & theirs.keys()):
        if not same(ours[key], theirs[key]):
            lines += [f"{key}", f"  ours   {ours[key]}", f"  theirs {theirs[key]}"]
    return lines[:limit] + ([f"… and {len(lines) - limit} more lines"] if len(lines) > limit else [])


def same(ours, theirs):
    if not isinstance(ours, tuple):
        return ours == theirs
    (count, total, buckets), (their_count, their_total, their_buckets) = ours, theirs
    # Both add floating point numbers, in another order.
    if count != their_count or abs(total - their_total) > 1e-9 * max(abs(total), abs(their_total), 1):
        return False
    if isinstance(buckets[1], dict):  # exponential: each side chooses its own scale
        scale = min(buckets[0], their_buckets[0])
        return at_scale(buckets[1], buckets[0] - scale) == at_scale(their_buckets[1], their_buckets[0] - scale)
    return buckets == their_buckets


def is_compared(name):
    """Whether a metric in Prometheus' text is one of those that both have."""
    return name.startswith("traces_span_metrics_") and name not in OURS_ALONE


def prometheus_values(scrape):
    """(name, labels) → value of the request metrics, added up over what may differ; `le` as a number."""
    series = defaultdict(float)
    for name, labels, value in scrape.samples:
        if is_compared(name):
            kept = {key: text for key, text in labels.items()
                    if key not in PROMETHEUS_IGNORED and not key.startswith("otel_scope_")}
            if "le" in kept:
                kept["le"] = float(kept["le"])
            series[name, tuple(sorted(kept.items()))] += value
    return {key: value for key, value in series.items() if value != 0 or not key[0].endswith("_calls_total")}


def prometheus_differences(ours, theirs, limit=12):
    lines = [f"only the Collector has {key}" for key in sorted(theirs.keys() - ours.keys(), key=repr)]
    lines += [f"only tailkeep has {key}" for key in sorted(ours.keys() - theirs.keys(), key=repr)]
    for key in sorted(ours.keys() & theirs.keys(), key=repr):
        if abs(ours[key] - theirs[key]) > 1e-9 * max(abs(ours[key]), abs(theirs[key]), 1):
            lines.append(f"{key}: ours {ours[key]!r}, the Collector's {theirs[key]!r}")
    return lines[:limit] + ([f"… and {len(lines) - limit} more"] if len(lines) > limit else [])
