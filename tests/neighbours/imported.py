"""Imported policies decide as the Collector does.

One Collector has a tail sampling processor for each policy below; each is imported, and a tailkeep with what was written
gets the same traces. What the import says to be exactly the same must be: one trace in 10,000 may differ, and of these
few none does. Shares are drawn by another hash, so of them only the size is compared.
"""

import json
import random
import subprocess

from suite import otlp, tailkeep
from suite.process import free_ports
from suite.tailkeep import Tailkeep, fresh_folder

from collector import Collector, file_exporter, post, receiver

START = 1_767_225_600_000_000_000
MILLISECOND = 1_000_000
TRACES = 3000
AGREEMENT = 0.9999


def leaf(kind, **settings):
    return {"name": kind, "type": kind, kind: settings}


def denied(policy):
    return {"name": "denied", "type": "not", "not": {"not_sub_policy": policy}}


def nested(kind, *policies):
    named = [policy | {"name": f"{policy['name']}-{number}"} for number, policy in enumerate(policies)]
    return {"name": kind, "type": kind, kind: {f"{kind}_sub_policy": named}}


SEARCH = leaf("string_attribute", key="app.route", values=["/search", "/v1/*"])
PROBE = leaf("string_attribute", key="app.route", values=["/healthz"])
REGEX = leaf("string_attribute", key="app.route", values=["^/v[12]/", "health"], enabled_regex_matching=True)
NO_PROBE = leaf("string_attribute", key="app.route", values=["/healthz"], invert_match=True)
SERVICE = leaf("string_attribute", key="service.name", values=["checkout", "payment"])
CODE = leaf("numeric_attribute", key="app.code", min_value=400, max_value=499)
LARGE = leaf("numeric_attribute", key="app.size", min_value=700)
NOT_LARGE = leaf("numeric_attribute", key="app.size", min_value=700, invert_match=True)
MARKED = leaf("boolean_attribute", key="app.debug", value=True)
SLOW = leaf("latency", threshold_ms=500)
ERRORS = leaf("status_code", status_codes=["ERROR"])
COUNT = leaf("span_count", min_spans=3, max_spans=5)
STATE = leaf("trace_state", key="tenant", values=["gold", "silver"])
OTTL = leaf("ottl_condition", error_mode="ignore", span=[
    'attributes["app.code"] >= 500 and attributes["app.code"] < 600 and kind == SPAN_KIND_SERVER',
    'resource.attributes["app.zone"] == "b" and IsMatch(name, "^step [12]$")',
    "status.code == STATUS_CODE_OK and (end_time_unix_nano - start_time_unix_nano) > 900000000",
], spanevent=['name == "exception"'])

EXACT = {
    "slow": [SLOW],
    "errors": [ERRORS],
    "fine": [leaf("status_code", status_codes=["OK"])],
    "count": [COUNT],
    "texts": [SEARCH],
    "expressions": [REGEX],
    "no-probe": [NO_PROBE],
    "service": [SERVICE],
    "code": [CODE],
    "not-large": [NOT_LARGE],
    "marked": [MARKED],
    "state": [STATE],
    "ottl": [OTTL],
    "fast": [denied(SLOW)],
    "both": [nested("and", SEARCH, CODE)],
    "one-of-a-service": [nested("and", SERVICE, LARGE, SLOW, denied(PROBE))],
    "none-of-these": [nested("and", NO_PROBE, denied(ERRORS), denied(CODE))],
    "many": [ERRORS | {"name": "a"}, nested("and", SERVICE, SLOW), nested("drop", PROBE, denied(ERRORS)), STATE | {"name": "b"}],
    "all-but": [nested("drop", REGEX), leaf("always_sample")],
}
SHARES = {"share": [leaf("probabilistic", sampling_percentage=25)]}


def traces(seed):
    """Requests, each with a part of many traces; every trace is in two that follow each other."""
    source = random.Random(seed)
    all_traces = [trace(source) for _ in range(TRACES)]
    for first in range(0, TRACES, 100):
        for half in (0, 1):
            yield {"resourceSpans": [part for parts in all_traces[first:first + 100] for part in parts[half::2]]}


def trace(source):
    """Resource spans, some of them of one trace."""
    trace_id, root = f"{source.getrandbits(128):032x}", f"{source.getrandbits(64):016x}"
    start = START + source.randrange(10**12)
    state = source.choice(["", "", "", "tenant=gold", "tenant=lead,x=y", "a=b,tenant=silver"])
    parts = []
    for number in range(source.choice([1, 1, 2, 3, 4])):
        spans = [span(source, trace_id, root, start, state, number == 0 and at == 0) for at in range(source.randrange(1, 3))]
        service = source.choice(["shop", "search", "search", "checkout", "payment"])
        attributes = [text("service.name", service)] + some(source, 0.05)
        if source.random() < 0.2:
            attributes.append(text("app.zone", source.choice(["a", "b"])))
        parts.append({"resource": {"attributes": attributes}, "scopeSpans": [{"spans": spans}]})
    return parts


def span(source, trace_id, root, start, state, is_root):
    # Around the thresholds, to the nanosecond.
    took = source.choice([
        source.randrange(100 * MILLISECOND), source.randrange(1000 * MILLISECOND),
        500 * MILLISECOND, 501 * MILLISECOND - 1, 501 * MILLISECOND,
    ]) if source.random() < 0.4 else source.randrange(50 * MILLISECOND)
    start += 0 if is_root else source.randrange(20) * MILLISECOND
    made = {
        "traceId": trace_id,
        "spanId": root if is_root else f"{source.getrandbits(64):016x}",
        "parentSpanId": "" if is_root else root,
        "traceState": state,
        "name": f"step {source.randrange(4)}",
        "kind": source.randrange(1, 6),
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(start + took),
        "status": {"code": source.choice([0, 0, 0, 0, 1, 2])},
        "attributes": some(source, 0.2),
    }
    if source.random() < 0.1:
        made["events"] = [{"name": source.choice(["exception", "retry"]), "timeUnixNano": str(start)}]
    return made


def text(key, value):
    return {"key": key, "value": {"stringValue": value}}


def some(source, chance):
    """Attributes of the types that the policies name."""
    attributes = [
        text("app.route", source.choice(["/search", "/v1/pay", "/v1/*", "/v2/", "/healthz", "/", ""])),
        {"key": "app.code", "value": {"intValue": str(source.choice([200, 399, 400, 404, 499, 500, 503, 599, 600]))}},
        {"key": "app.size", "value": {"intValue": str(source.randrange(-100, 1000))}},
        {"key": "app.debug", "value": {"boolValue": source.random() < 0.5}},
    ]
    return [attribute for attribute in attributes if source.random() < chance]


def imported_policies(checks):
    folder = fresh_folder("neighbours/imported")
    [into] = free_ports(1)
    cases = EXACT | SHARES
    out = {name: folder / f"collector.{name}.jsonl" for name in cases}
    requests = list(traces(seed=5))
    sent = {found["trace_id"] for request in requests for found in otlp.spans(request)}
    with Collector("sampling", folder, sampling(into, cases, out), [into]) as collector:
        for request in requests:
            post(into, "traces", request)
        # It judges what waits when it ends.
        checks.equal("the sampling Collector ends well", collector.stop(), 0)
    compared = disagreed = 0
    for name in cases:
        found, policy = imported(folder, name)
        kinds = {finding["outcome"] for finding in found["findings"] if finding["kind"] != "setting"}
        theirs, ours = whole_traces(requests_in(out[name])), whole_traces(judged(folder, name, policy, requests))
        if name in EXACT:
            checks.equal(f"{name}: is imported exactly", kinds, {"exactly"})
            differ = sorted(trace_id for trace_id in sent if theirs.get(trace_id) != ours.get(trace_id))
            compared, disagreed = compared + len(sent), disagreed + len(differ)
            checks.check(f"{name}: of {len(sent)} traces {len(theirs)} are kept, by both the same", not differ and theirs,
                         [f"{len(differ)} differ: {differ[:5]}"])
        else:
            checks.equal(f"{name}: is imported nearly", kinds, {"nearly"})
            for whose, kept in (("the Collector", theirs), ("tailkeep", ours)):
                share = len(kept) / len(sent)
                checks.check(f"{name}: {whose} keeps a quarter", 0.22 < share < 0.28, f"{share:.3f}")
    checks.check(f"of {compared} decisions {AGREEMENT:.2%} agree", disagreed <= compared * (1 - AGREEMENT), f"{disagreed} differ")


def sampling(into, cases, out):
    processor = {"decision_wait": "2s", "num_traces": 10 * TRACES}
    return {
        "receivers": {"otlp": receiver(http=into)},
        "processors": {f"tail_sampling/{name}": processor | {"policies": policies} for name, policies in cases.items()},
        "exporters": {f"file/{name}": file_exporter(path) for name, path in out.items()},
        "service": {"pipelines": {
            f"traces/{name}": {
                "receivers": ["otlp"], "processors": [f"tail_sampling/{name}"], "exporters": [f"file/{name}"]
            } for name in cases
        }},
    }


def imported(folder, name):
    """The report and the policy, from the file that the Collector runs with."""
    done = subprocess.run(
        [tailkeep.binary(), "policy", "import", "otel", folder / "sampling.json", "--part", f"tail_sampling/{name}",
         "--format", "json"], capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    return report, report["policy"]


def judged(folder, name, policy, requests):
    config = "drain: { accept: 1s, deadline: 25s }\n"
    with Tailkeep(folder, policy, name=f"imported-{name}", config=config) as running:
        for request in requests:
            post(running.http, "traces", request)
        # It judges what waits when it ends, too.
        if running.stop() != 0:
            raise RuntimeError(f"tailkeep did not drain:\n{running.stderr()}")
        return running.requests()


def requests_in(path):
    return otlp.read_lines(path) if path.exists() else []


def whole_traces(requests):
    """Trace id → how many of its spans came out."""
    counts = {}
    for request in requests:
        for by_resource in request.get("resourceSpans", []):
            for by_scope in by_resource["scopeSpans"]:
                for found in by_scope["spans"]:
                    counts[found["traceId"]] = counts.get(found["traceId"], 0) + 1
    return counts
