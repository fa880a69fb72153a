"""OTLP/JSON requests as plain values that can be compared.

A span becomes a dictionary of all its fields, its scope's and its resource's. Two spans
are equal if and only if these are, whatever the spelling (numbers as text, enums as
words, fields left out that have their default).
"""

import json

KINDS = ["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]
STATUSES = ["UNSET", "OK", "ERROR"]


def read_lines(path):
    """The requests of a file of JSON lines; a last line that is still being written is left out."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def spans(request):
    """The spans of one ExportTraceServiceRequest."""
    for by_resource in request.get("resourceSpans", []):
        for by_scope in by_resource.get("scopeSpans", []):
            for span in by_scope.get("spans", []):
                yield flat(
                    {
                        "resource": by_resource.get("resource", {}),
                        "resourceSchemaUrl": by_resource.get("schemaUrl", ""),
                        "scope": by_scope.get("scope", {}),
                        "scopeSchemaUrl": by_scope.get("schemaUrl", ""),
                        "span": span,
                    }
                )


def flat(line):
    """One span with its surroundings, as the programs of the SDK suite record it."""
    span, scope, resource = line["span"], line["scope"], line["resource"]
    return {
        "trace_id": span["traceId"].lower(),
        "span_id": span["spanId"].lower(),
        "parent_id": span.get("parentSpanId", "").lower(),
        "trace_state": span.get("traceState", ""),
        "flags": span.get("flags", 0),
        "name": span.get("name", ""),
        "kind": number(span.get("kind", 0), KINDS),
        "start": int(span.get("startTimeUnixNano", 0)),
        "end": int(span.get("endTimeUnixNano", 0)),
        "status": number(span.get("status", {}).get("code", 0), STATUSES),
        "status_message": span.get("status", {}).get("message", ""),
        "attributes": attributes(span),
        "dropped_attributes": span.get("droppedAttributesCount", 0),
        "dropped_events": span.get("droppedEventsCount", 0),
        "dropped_links": span.get("droppedLinksCount", 0),
        "events": [
            (event.get("name", ""), int(event.get("timeUnixNano", 0)), attributes(event), dropped(event))
            for event in span.get("events", [])
        ],
        "links": [
            (
                link["traceId"].lower(),
                link["spanId"].lower(),
                link.get("traceState", ""),
                link.get("flags", 0),
                attributes(link),
                dropped(link),
            )
            for link in span.get("links", [])
        ],
        "scope": (scope.get("name", ""), scope.get("version", ""), attributes(scope), dropped(scope)),
        "scope_schema": line["scopeSchemaUrl"],
        "resource": (attributes(resource), dropped(resource)),
        "resource_schema": line["resourceSchemaUrl"],
    }


def number(value, words):
    """An enum's number, from its number or from a word such as SPAN_KIND_SERVER."""
    return value if isinstance(value, int) else words.index(value.rsplit("_", 1)[-1])


def dropped(item):
    return item.get("droppedAttributesCount", 0)


def attributes(item):
    return {entry["key"]: value(entry.get("value", {})) for entry in item.get("attributes", [])}


def value(any_value):
    """An attribute's value with its type, so that 1, 1.0, true and "1" stay four values."""
    if not any_value:
        return ("empty",)
    [(kind, content)] = any_value.items()
    match kind:
        case "intValue":
            return ("int", int(content))
        case "doubleValue":
            return ("double", repr(float(content)))
        case "stringValue":
            return ("string", content)
        case "boolValue":
            return ("bool", content)
        case "bytesValue":
            return ("bytes", content)
        case "arrayValue":
            return ("array", [value(item) for item in content.get("values", [])])
        case "kvlistValue":
            return ("map", {entry["key"]: value(entry.get("value", {})) for entry in content.get("values", [])})
    raise ValueError(f"unknown kind of attribute value: {kind}")


def service(span):
    return span["resource"][0].get("service.name", ("string", ""))[1]


def by_trace(all_spans):
    """trace id → span id → span. A span that came twice is an error: it would hide a duplicate."""
    traces = {}
    for span in all_spans:
        trace = traces.setdefault(span["trace_id"], {})
        if span["span_id"] in trace:
            raise ValueError(f"span {span['span_id']} of trace {span['trace_id']} came twice")
        trace[span["span_id"]] = span
    return traces


def without_additions(span):
    """The span as it was sent, and what tailkeep wrote on it: `tailkeep.*` and in `ot` a `th`, seldom an `rv`.

    The member `ot` comes first in the result: who changes a member moves it there (W3C Trace Context).
    """
    span = dict(span)
    added = {key: val[1] for key, val in span["attributes"].items() if key.startswith("tailkeep.")}
    span["attributes"] = {key: val for key, val in span["attributes"].items() if key not in added}
    members = []
    for member in filter(None, span["trace_state"].split(",")):
        key, _, content = member.partition("=")
        if key == "ot":
            fields = dict(field.split(":", 1) for field in content.split(";"))
            if "th" in fields:
                added["th"] = fields.pop("th")
            if looks_like_eagleeye(span["trace_id"]):
                added["rv"] = fields.pop("rv", None)
            content = ";".join(f"{name}:{text}" for name, text in fields.items())
            if content:
                members.insert(0, f"ot={content}")
        else:
            members.append(member)
    span["trace_state"] = ",".join(members)
    return span, added


def looks_like_eagleeye(trace_id):
    """An id without random bits where they should be: tailkeep writes its own for the few that have this shape."""
    millis = trace_id[8:21]
    return millis.isdecimal() and 1_420_070_400_000 <= int(millis) < 2_208_988_800_000


def differences(got, want, limit=12):
    """Lines that say where two maps trace id → span id → span differ; empty if nowhere."""
    lines = []
    for trace_id in sorted(want.keys() - got.keys()):
        lines.append(f"trace {trace_id} is missing")
    for trace_id in sorted(got.keys() - want.keys()):
        lines.append(f"trace {trace_id} should not be here")
    for trace_id in sorted(got.keys() & want.keys()):
        lines.extend(_trace_differences(trace_id, got[trace_id], want[trace_id]))
    return lines[:limit] + ([f"… and {len(lines) - limit} more"] if len(lines) > limit else [])


def _trace_differences(trace_id, got, want):
    for span_id in sorted(want.keys() - got.keys()):
        yield f"trace {trace_id}: span {span_id} ({want[span_id]['name']}) is missing"
    for span_id in sorted(got.keys() - want.keys()):
        yield f"trace {trace_id}: span {span_id} ({got[span_id]['name']}) should not be here"
    for span_id in sorted(got.keys() & want.keys()):
        for field, wanted in want[span_id].items():
            if got[span_id][field] != wanted:
                yield f"trace {trace_id}: span {span_id} ({want[span_id]['name']}): {field}"
                yield f"  got  {got[span_id][field]!r}"
                yield f"  want {wanted!r}"
