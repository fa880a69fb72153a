"""Prometheus text as numbers, and the accounting identity over them."""

import re
from collections import defaultdict

# `name{labels} value`, a label's text with its escapes.
_LINE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)(?: \d+)?$")
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')
_ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


class Scrape:
    """One answer of /metrics."""

    def __init__(self, text):
        self.samples = []  # (name, labels, value)
        self.types = {}
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ", 3)
                self.types[name] = kind
            elif line and not line.startswith("#"):
                self.samples.append(_sample(line))

    def sum(self, name, **labels):
        return sum(value for _, value in self.named(name, **labels))

    def named(self, name, **labels):
        for found, its_labels, value in self.samples:
            if found == name and labels.items() <= its_labels.items():
                yield its_labels, value

    def by(self, label, name):
        """The sums of a metric, one for each value of a label."""
        sums = defaultdict(float)
        for labels, value in self.named(name):
            sums[labels.get(label, "")] += value
        return sums


def _sample(line):
    match = _LINE.match(line)
    if not match:
        raise ValueError(f"not Prometheus text: {line}")
    labels = {
        key: re.sub(r'\\[\\"n]', lambda escape: _ESCAPES[escape[0]], text)
        for key, text in _LABEL.findall(match["labels"] or "")
    }
    return match["name"], labels, float(match["value"])


RECEIVED = "tailkeep_spans_received_total"
ACCEPTED = "tailkeep_spans_accepted_total"
REJECTED = "tailkeep_spans_rejected_total"
# What becomes of an accepted span, as counters; the rest is held.
OUTCOMES = [f"tailkeep_spans_{outcome}_total" for outcome in ("kept", "dropped", "over_limit", "duplicate", "invalid")]
HELD = "tailkeep_spans_held"
# Per sink and signal: what was handed over, and what became of it.
SINK_IN = "tailkeep_sink_items_total"
# Part of it that a former process left on disk.
SINK_RECOVERED = "tailkeep_sink_recovered_total"
SINK_OUT = ["tailkeep_sink_delivered_total", "tailkeep_sink_queued", "tailkeep_sink_discarded_total"]


def identity(scrape):
    """Where the accounting identity does not hold, as lines; empty if it holds."""
    lines = []
    received, accepted = scrape.sum(RECEIVED), scrape.sum(ACCEPTED)
    rejected = scrape.sum(REJECTED)
    if received != accepted + rejected:
        lines.append(f"received {received:g} ≠ accepted {accepted:g} + rejected {rejected:g}")
    outcomes = {name: scrape.by("service", name) for name in [*OUTCOMES, HELD]}
    for service, count in scrape.by("service", ACCEPTED).items():
        parts = {name: sums.get(service, 0) for name, sums in outcomes.items()}
        if count != sum(parts.values()):
            lines.append(f"service {service}: accepted {count:g} ≠ {parts}")
    kept = scrape.sum(OUTCOMES[0])
    for labels, count in scrape.named(SINK_IN):
        key = {"sink": labels["sink"], "signal": labels["signal"]}
        fresh = count - scrape.sum(SINK_RECOVERED, **key)
        if labels["signal"] == "traces" and fresh != kept:
            lines.append(f"sink {labels['sink']}: kept {kept:g} ≠ handed over {fresh:g}")
        parts = {name: scrape.sum(name, **key) for name in SINK_OUT}
        if count != sum(parts.values()):
            lines.append(f"sink {key}: {count:g} ≠ {parts}")
    return lines
