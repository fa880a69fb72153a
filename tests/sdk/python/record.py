"""Writes each ended span, as the SDK holds it, as a line of JSON in the spelling of OTLP/JSON.

Shares no code with the exporters, so that they are not their own witness.
"""

import json

from opentelemetry.sdk.trace import SpanProcessor


class Recorder(SpanProcessor):
    def __init__(self, path):
        self._file = open(path, "w", encoding="utf-8")

    def on_end(self, span):
        self._file.write(json.dumps(line(span)) + "\n")

    def shutdown(self):
        self._file.close()


def line(span):
    scope = span.instrumentation_scope
    return {
        "resource": {"attributes": key_values(span.resource.attributes)},
        "resourceSchemaUrl": span.resource.schema_url,
        "scope": {"name": scope.name, "version": scope.version, "attributes": key_values(scope.attributes or {})},
        "scopeSchemaUrl": scope.schema_url or "",
        "span": span_object(span),
    }


def span_object(span):
    context = span.get_span_context()
    return {
        "traceId": f"{context.trace_id:032x}",
        "spanId": f"{context.span_id:016x}",
        "parentSpanId": f"{span.parent.span_id:016x}" if span.parent else "",
        "traceState": ",".join(f"{key}={value}" for key, value in context.trace_state.items()),
        "flags": flags(span.parent),
        "name": span.name,
        "kind": span.kind.value + 1,  # the API starts at INTERNAL
        "startTimeUnixNano": str(span.start_time),
        "endTimeUnixNano": str(span.end_time),
        "attributes": key_values(span.attributes),
        "droppedAttributesCount": span.dropped_attributes,
        "droppedEventsCount": span.dropped_events,
        "droppedLinksCount": span.dropped_links,
        "status": {"code": span.status.status_code.value, "message": span.status.description or ""},
        "events": [
            {
                "name": event.name,
                "timeUnixNano": str(event.timestamp),
                "attributes": key_values(event.attributes),
                "droppedAttributesCount": event.dropped_attributes,
            }
            for event in span.events
        ],
        # Python's OTLP exporter does not send a link's trace state.
        "links": [
            {
                "traceId": f"{link.context.trace_id:032x}",
                "spanId": f"{link.context.span_id:016x}",
                "flags": flags(link.context),
                "attributes": key_values(link.attributes),
                "droppedAttributesCount": link.dropped_attributes,
            }
            for link in span.links
        ],
    }


def flags(context):
    """As OTLP defines them, but without the W3C trace flags: Python's OTLP exporter does not send those."""
    return 0x100 | (0x200 if context and context.is_remote else 0)


def key_values(attributes):
    return [{"key": key, "value": any_value(value)} for key, value in attributes.items()]


def any_value(value):
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case str():
            return {"stringValue": value}
        case tuple() | list():
            return {"arrayValue": {"values": [any_value(item) for item in value]}}
        case _:
            raise TypeError(f"an attribute of type {type(value)} is not recorded yet")
