"""Known requests in OTLP/JSON: the same in every run, with every field that a span can have."""

import random

START = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z, nanoseconds
MILLISECOND = 1_000_000

SERVER, CLIENT = 2, 3
OK, ERROR = 1, 2

VALUES = [
    {"stringValue": "Grüße, 世界 🌍"},
    {"stringValue": ""},
    {"boolValue": True},
    {"boolValue": False},
    {"intValue": str(2**63 - 1)},
    {"intValue": str(-(2**63))},
    {"intValue": "0"},
    {"doubleValue": 0.1},
    {"doubleValue": 1e308},
    {"doubleValue": -0.5},
    {"bytesValue": "AAH+/w=="},
    {"arrayValue": {"values": [{"stringValue": "a"}, {"intValue": "1"}, {"boolValue": False}, {}]}},
    {"arrayValue": {"values": []}},
    {"kvlistValue": {"values": [{"key": "inner", "value": {"arrayValue": {"values": [{"doubleValue": 1.5}]}}}]}},
    {"kvlistValue": {"values": []}},
    {},
]
# No member `th` of `ot`: the Collector's span metrics would count such a span several times.
TRACE_STATES = ["", "vendor=a1", "a=1,b=2,tenant@system=x y", "ot=rv:6e6d1a75832a2f", "vendor=a1,ot=rv:0123456789abcd;k:v"]


class Corpus:
    """A source of requests whose ids and sizes come from one seed."""

    def __init__(self, seed):
        self._random = random.Random(seed)

    def full_traces(self, count):
        """Requests of one trace each; every field of OTLP's spans is in use in some of them."""
        return [self._full_trace(number) for number in range(count)]

    def _full_trace(self, number):
        trace_id = self._hex(16)
        root = self._span(trace_id, "", number, SERVER)
        children = [self._span(trace_id, root["spanId"], number + i, kind=i) for i in range(6)]
        return request(
            (self._resource("checkout", number), [(self._scope(number), [root] + children[:3])]),
            (self._resource("payment", number), [(self._scope(number + 1), children[3:5]), (None, children[5:])]),
        )

    def _span(self, trace_id, parent_id, number, kind):
        start = START + number * MILLISECOND + self._random.randrange(10**6)
        span = {
            "traceId": trace_id,
            "spanId": self._hex(8),
            "parentSpanId": parent_id,
            "traceState": TRACE_STATES[number % len(TRACE_STATES)],
            "flags": [0, 0x101, 0x301, 0x103][number % 4],
            "name": f"operation {number} «é»",
            "kind": kind,
            "startTimeUnixNano": str(start),
            "endTimeUnixNano": str(start + self._random.randrange(10**9)),
            "attributes": [
                {"key": f"key.{i}", "value": VALUES[(number + i) % len(VALUES)]} for i in range(number % 7)
            ],
            "droppedAttributesCount": number % 3,
            "droppedEventsCount": number % 4,
            "droppedLinksCount": number % 5,
            "status": {"code": number % 3, "message": "refused: “limit”" if number % 3 == ERROR else ""},
            "events": [
                {
                    "timeUnixNano": str(start + i),
                    "name": f"event {i}",
                    "attributes": [{"key": "at", "value": VALUES[(number + i) % len(VALUES)]}],
                    "droppedAttributesCount": i,
                }
                for i in range(number % 3)
            ],
            "links": [
                {
                    "traceId": self._hex(16),
                    "spanId": self._hex(8),
                    "traceState": "linked=1",
                    "flags": 0x301,
                    "attributes": [{"key": "why", "value": {"stringValue": "retry"}}],
                    "droppedAttributesCount": 2,
                }
                for _ in range(number % 2)
            ],
        }
        return span

    def _resource(self, service, number):
        extra = [{"key": "res.value", "value": VALUES[number % len(VALUES)]}] if number % 2 else []
        return {
            "attributes": [{"key": "service.name", "value": {"stringValue": service}}] + extra,
            "droppedAttributesCount": number % 2,
        }

    def _scope(self, number):
        return {
            "name": f"library {number % 3}",
            "version": "1.2.3" if number % 2 else "",
            "attributes": [{"key": "scope.value", "value": VALUES[number % len(VALUES)]}] if number % 3 else [],
            "droppedAttributesCount": number % 2,
        }

    def small_traces(self, count, spans_a_trace):
        """One list a trace, of requests with a single span each; every tenth trace holds a failed span."""
        traces = []
        for number in range(count):
            trace_id, root_id = self._hex(16), self._hex(8)
            requests = []
            for i in range(spans_a_trace):
                failed = number % 10 == 0 and i == spans_a_trace - 1
                span = plain_span(trace_id, root_id if i == 0 else self._hex(8), "" if i == 0 else root_id,
                                  f"step {i}", SERVER if i == 0 else CLIENT, ERROR if failed else 0, 10 * MILLISECOND)
                requests.append(request((plain_resource(f"service-{i % 3}"), [({"name": "corpus"}, [span])])))
            traces.append(requests)
        return traces

    def timed_spans(self, count):
        """Requests for the span metrics: several services, names, kinds and statuses, durations of all sizes."""
        edges = [0, 1, 2 * MILLISECOND, 10 * MILLISECOND, 15_000 * MILLISECOND, 60_000 * MILLISECOND]
        requests = []
        for number in range(count):
            spans = []
            for i in range(8):
                duration = edges[number % len(edges)] if i == 0 else int(10 ** self._random.uniform(2, 10.5))
                name = ["GET /cart", "POST /pay \"now\"", "SELECT\\items"][self._random.randrange(3)]
                spans.append(plain_span(self._hex(16), self._hex(8), "", name, self._random.randrange(6),
                                        self._random.randrange(3), duration))
            # Ends before it starts, as on a host whose clock was set back: counted with no duration.
            spans[-1]["endTimeUnixNano"] = str(START - MILLISECOND)
            resource = plain_resource(["cart", "pay", "search"][number % 3], version=["1", "2"][number % 2])
            requests.append(request((resource, [({"name": "corpus"}, spans)])))
        return requests

    def _hex(self, count):
        return self._random.randbytes(count).hex()


def request(*by_resource):
    """An ExportTraceServiceRequest of (resource, [(scope, spans)])."""
    return {
        "resourceSpans": [
            {
                "resource": resource,
                "schemaUrl": "https://opentelemetry.io/schemas/1.30.0",
                "scopeSpans": [
                    {"scope": scope or {}, "schemaUrl": "https://opentelemetry.io/schemas/1.29.0" if scope else "",
                     "spans": spans}
                    for scope, spans in by_scope
                ],
            }
            for resource, by_scope in by_resource
        ]
    }


def plain_resource(service, version="1"):
    return {"attributes": [{"key": "service.name", "value": {"stringValue": service}},
                           {"key": "service.version", "value": {"stringValue": version}}]}


def plain_span(trace_id, span_id, parent_id, name, kind, status, duration):
    return {"traceId": trace_id, "spanId": span_id, "parentSpanId": parent_id, "name": name, "kind": kind,
            "startTimeUnixNano": str(START), "endTimeUnixNano": str(START + duration), "status": {"code": status}}


METRICS = {
    "resourceMetrics": [{
        "resource": plain_resource("checkout"),
        "scopeMetrics": [{
            "scope": {"name": "corpus"},
            "metrics": [
                {"name": "queue.length", "unit": "{item}", "description": "how many wait", "gauge": {"dataPoints": [
                    {"timeUnixNano": str(START), "asDouble": 2.5, "attributes": [
                        {"key": "queue", "value": {"stringValue": "a"}}]}]}},
                {"name": "items", "sum": {"aggregationTemporality": 2, "isMonotonic": True, "dataPoints": [
                    {"startTimeUnixNano": str(START), "timeUnixNano": str(START + 1), "asInt": "9007199254740993"}]}},
                {"name": "size", "histogram": {"aggregationTemporality": 1, "dataPoints": [
                    {"timeUnixNano": str(START), "count": "3", "sum": 6.5, "bucketCounts": ["1", "2"],
                     "explicitBounds": [2.5]}]}},
            ],
        }],
    }]
}
LOGS = {
    "resourceLogs": [{
        "resource": plain_resource("checkout"),
        "scopeLogs": [{
            "scope": {"name": "corpus"},
            "logRecords": [
                {"timeUnixNano": str(START), "severityNumber": 9, "severityText": "INFO",
                 "body": {"stringValue": f"line {number}"}, "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
                 "spanId": "00f067aa0ba902b7", "attributes": [{"key": "n", "value": {"intValue": str(number)}}]}
                for number in range(20)
            ],
        }],
    }]
}
