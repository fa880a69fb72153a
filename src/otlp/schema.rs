//! The messages of OTLP and their fields: numbers in protobuf, names in OTLP/JSON, and how both write the values.
//!
//! Source: opentelemetry-proto 1.9, `common.proto`, `resource.proto`, `trace.proto`, `metrics.proto`, `logs.proto`;
//! OpenTelemetry specification, "OTLP", "JSON Protobuf Encoding". A field that is added there is added here; until
//! then OTLP/JSON is read and written without it, as the specification asks.

use crate::trace::{Signal, SpanKind, Status};

/// One kind of message.
pub struct Message {
    /// In the order in which OTLP/JSON is written.
    pub fields: &'static [FieldSchema],
}

/// A field of a message.
pub struct FieldSchema {
    pub number: u32,
    /// In OTLP/JSON.
    pub name: &'static str,
    pub kind: Kind,
    pub count: Count,
}

/// How often a field may be there, and what it means if it is there more often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Count {
    /// The last counts; messages are merged. A default value says nothing.
    One,
    /// As `One`, but a default value is a value (`optional`).
    Optional,
    /// As `One`; a text that is not there is written to JSON as an empty one, for some readers insist on it.
    Always,
    /// One of several of which a message has at most one: the last counts. Nor are these messages merged.
    Choice,
    /// A list; it is written to JSON even if it is empty where `true`.
    Many(bool),
}

/// What a value is in JSON, and in protobuf.
#[derive(Clone, Copy)]
pub enum Kind {
    Text,
    /// `bytes` that JSON has in hexadecimal: trace and span ids.
    Hex,
    /// `bytes` that JSON has in base64.
    Base64,
    Bool,
    /// By its names, which stand at their numbers: written as a number, read as either.
    Enum(&'static [&'static str]),
    /// uint32
    Uint32,
    Sint32,
    Fixed32,
    /// 64 bits stand as text, for JSON's numbers have 53.
    Int64,
    Uint64,
    Fixed64,
    Sfixed64,
    Double,
    Nested(&'static Message),
}

use Count::{Always, Choice, Many, One, Optional};
use Kind::{Base64, Bool, Double, Enum, Fixed32, Fixed64, Hex, Int64, Nested, Sfixed64, Sint32, Text, Uint32, Uint64};

const LIST: Count = Many(false);
/// What a reader may miss: a list of values, or of all there is.
const WHOLE_LIST: Count = Many(true);

const fn field(number: u32, name: &'static str, kind: Kind, count: Count) -> FieldSchema {
    FieldSchema { number, name, kind, count }
}

impl Kind {
    /// Whether a list of them is one run of values, as proto3 writes numbers.
    pub fn is_packable(self) -> bool {
        !matches!(self, Text | Hex | Base64 | Nested(_))
    }
}

impl Message {
    /// The request of a signal.
    pub fn request(signal: Signal) -> &'static Message {
        match signal {
            Signal::Traces => &TRACES,
            Signal::Metrics => &METRICS,
            Signal::Logs => &LOGS,
        }
    }

    /// The field of a JSON key; also of its protobuf name, which other protobuf JSON readers accept.
    pub fn field(&self, key: &str) -> Option<&'static FieldSchema> {
        let exact = self.fields.iter().find(|field| field.name == key);
        exact.or_else(|| self.fields.iter().find(|field| key.contains('_') && is_snake_form(key, field.name)))
    }
}

/// Whether `key` is the snake_case form of the lowerCamelCase `name`.
fn is_snake_form(key: &str, name: &str) -> bool {
    let mut key = key.bytes();
    name.bytes().all(|c| match c.is_ascii_uppercase() {
        true => key.next() == Some(b'_') && key.next() == Some(c.to_ascii_lowercase()),
        false => key.next() == Some(c),
    }) && key.next().is_none()
}

pub static TRACES: Message = Message { fields: &[field(1, "resourceSpans", Nested(&RESOURCE_SPANS), WHOLE_LIST)] };
pub static METRICS: Message = Message { fields: &[field(1, "resourceMetrics", Nested(&RESOURCE_METRICS), WHOLE_LIST)] };
pub static LOGS: Message = Message { fields: &[field(1, "resourceLogs", Nested(&RESOURCE_LOGS), WHOLE_LIST)] };

static ANY_VALUE: Message = Message {
    fields: &[
        field(1, "stringValue", Text, Choice),
        field(2, "boolValue", Bool, Choice),
        field(3, "intValue", Int64, Choice),
        field(4, "doubleValue", Double, Choice),
        field(5, "arrayValue", Nested(&ARRAY_VALUE), Choice),
        field(6, "kvlistValue", Nested(&KEY_VALUE_LIST), Choice),
        field(7, "bytesValue", Base64, Choice),
    ],
};
static ARRAY_VALUE: Message = Message { fields: &[field(1, "values", Nested(&ANY_VALUE), WHOLE_LIST)] };
static KEY_VALUE_LIST: Message = Message { fields: &[field(1, "values", Nested(&KEY_VALUE), WHOLE_LIST)] };
pub static KEY_VALUE: Message =
    Message { fields: &[field(1, "key", Text, Always), field(2, "value", Nested(&ANY_VALUE), Choice)] };

static RESOURCE: Message = Message {
    fields: &[
        field(1, "attributes", Nested(&KEY_VALUE), LIST),
        field(2, "droppedAttributesCount", Uint32, One),
        field(3, "entityRefs", Nested(&ENTITY_REF), LIST),
    ],
};
static ENTITY_REF: Message = Message {
    fields: &[
        field(1, "schemaUrl", Text, Always),
        field(2, "type", Text, Always),
        field(3, "idKeys", Text, WHOLE_LIST),
        field(4, "descriptionKeys", Text, WHOLE_LIST),
    ],
};
static SCOPE: Message = Message {
    fields: &[
        field(1, "name", Text, One),
        field(2, "version", Text, One),
        field(3, "attributes", Nested(&KEY_VALUE), LIST),
        field(4, "droppedAttributesCount", Uint32, One),
    ],
};

pub static RESOURCE_SPANS: Message = Message {
    fields: &[
        field(1, "resource", Nested(&RESOURCE), One),
        field(2, "scopeSpans", Nested(&SCOPE_SPANS), LIST),
        field(3, "schemaUrl", Text, One),
    ],
};
static SCOPE_SPANS: Message = Message {
    fields: &[
        field(1, "scope", Nested(&SCOPE), One),
        field(2, "spans", Nested(&SPAN), LIST),
        field(3, "schemaUrl", Text, One),
    ],
};
static SPAN: Message = Message {
    fields: &[
        field(1, "traceId", Hex, One),
        field(2, "spanId", Hex, One),
        field(3, "traceState", Text, One),
        field(4, "parentSpanId", Hex, One),
        field(16, "flags", Fixed32, One),
        field(5, "name", Text, One),
        field(6, "kind", Enum(&SPAN_KINDS), One),
        field(7, "startTimeUnixNano", Fixed64, One),
        field(8, "endTimeUnixNano", Fixed64, One),
        field(9, "attributes", Nested(&KEY_VALUE), LIST),
        field(10, "droppedAttributesCount", Uint32, One),
        field(11, "events", Nested(&EVENT), LIST),
        field(12, "droppedEventsCount", Uint32, One),
        field(13, "links", Nested(&LINK), LIST),
        field(14, "droppedLinksCount", Uint32, One),
        field(15, "status", Nested(&STATUS), One),
    ],
};
static EVENT: Message = Message {
    fields: &[
        field(1, "timeUnixNano", Fixed64, One),
        field(2, "name", Text, One),
        field(3, "attributes", Nested(&KEY_VALUE), LIST),
        field(4, "droppedAttributesCount", Uint32, One),
    ],
};
static LINK: Message = Message {
    fields: &[
        field(1, "traceId", Hex, One),
        field(2, "spanId", Hex, One),
        field(3, "traceState", Text, One),
        field(4, "attributes", Nested(&KEY_VALUE), LIST),
        field(5, "droppedAttributesCount", Uint32, One),
        field(6, "flags", Fixed32, One),
    ],
};
static STATUS: Message =
    Message { fields: &[field(2, "message", Text, One), field(3, "code", Enum(&STATUS_CODES), One)] };

static RESOURCE_METRICS: Message = Message {
    fields: &[
        field(1, "resource", Nested(&RESOURCE), One),
        field(2, "scopeMetrics", Nested(&SCOPE_METRICS), LIST),
        field(3, "schemaUrl", Text, One),
    ],
};
static SCOPE_METRICS: Message = Message {
    fields: &[
        field(1, "scope", Nested(&SCOPE), One),
        field(2, "metrics", Nested(&METRIC), LIST),
        field(3, "schemaUrl", Text, One),
    ],
};
static METRIC: Message = Message {
    fields: &[
        field(1, "name", Text, One),
        field(2, "description", Text, One),
        field(3, "unit", Text, One),
        field(12, "metadata", Nested(&KEY_VALUE), LIST),
        field(5, "gauge", Nested(&GAUGE), Choice),
        field(7, "sum", Nested(&SUM), Choice),
        field(9, "histogram", Nested(&HISTOGRAM), Choice),
        field(10, "exponentialHistogram", Nested(&EXPONENTIAL_HISTOGRAM), Choice),
        field(11, "summary", Nested(&SUMMARY), Choice),
    ],
};
static GAUGE: Message = Message { fields: &[field(1, "dataPoints", Nested(&NUMBER_POINT), LIST)] };
static SUM: Message = Message {
    fields: &[
        field(1, "dataPoints", Nested(&NUMBER_POINT), LIST),
        field(2, "aggregationTemporality", Enum(&TEMPORALITIES), One),
        field(3, "isMonotonic", Bool, One),
    ],
};
static HISTOGRAM: Message = Message {
    fields: &[
        field(1, "dataPoints", Nested(&HISTOGRAM_POINT), LIST),
        field(2, "aggregationTemporality", Enum(&TEMPORALITIES), One),
    ],
};
static EXPONENTIAL_HISTOGRAM: Message = Message {
    fields: &[
        field(1, "dataPoints", Nested(&EXPONENTIAL_POINT), LIST),
        field(2, "aggregationTemporality", Enum(&TEMPORALITIES), One),
    ],
};
static SUMMARY: Message = Message { fields: &[field(1, "dataPoints", Nested(&SUMMARY_POINT), LIST)] };
static NUMBER_POINT: Message = Message {
    fields: &[
        field(7, "attributes", Nested(&KEY_VALUE), LIST),
        field(2, "startTimeUnixNano", Fixed64, One),
        field(3, "timeUnixNano", Fixed64, One),
        field(4, "asDouble", Double, Choice),
        field(6, "asInt", Sfixed64, Choice),
        field(5, "exemplars", Nested(&EXEMPLAR), LIST),
        field(8, "flags", Uint32, One),
    ],
};
static HISTOGRAM_POINT: Message = Message {
    fields: &[
        field(9, "attributes", Nested(&KEY_VALUE), LIST),
        field(2, "startTimeUnixNano", Fixed64, One),
        field(3, "timeUnixNano", Fixed64, One),
        field(4, "count", Fixed64, One),
        field(5, "sum", Double, Optional),
        field(6, "bucketCounts", Fixed64, LIST),
        field(7, "explicitBounds", Double, LIST),
        field(8, "exemplars", Nested(&EXEMPLAR), LIST),
        field(10, "flags", Uint32, One),
        field(11, "min", Double, Optional),
        field(12, "max", Double, Optional),
    ],
};
static EXPONENTIAL_POINT: Message = Message {
    fields: &[
        field(1, "attributes", Nested(&KEY_VALUE), LIST),
        field(2, "startTimeUnixNano", Fixed64, One),
        field(3, "timeUnixNano", Fixed64, One),
        field(4, "count", Fixed64, One),
        field(5, "sum", Double, Optional),
        field(6, "scale", Sint32, One),
        field(7, "zeroCount", Fixed64, One),
        field(8, "positive", Nested(&BUCKETS), One),
        field(9, "negative", Nested(&BUCKETS), One),
        field(10, "flags", Uint32, One),
        field(11, "exemplars", Nested(&EXEMPLAR), LIST),
        field(12, "min", Double, Optional),
        field(13, "max", Double, Optional),
        field(14, "zeroThreshold", Double, One),
    ],
};
static BUCKETS: Message =
    Message { fields: &[field(1, "offset", Sint32, One), field(2, "bucketCounts", Uint64, LIST)] };
static SUMMARY_POINT: Message = Message {
    fields: &[
        field(7, "attributes", Nested(&KEY_VALUE), LIST),
        field(2, "startTimeUnixNano", Fixed64, One),
        field(3, "timeUnixNano", Fixed64, One),
        field(4, "count", Fixed64, One),
        field(5, "sum", Double, One),
        field(6, "quantileValues", Nested(&QUANTILE), LIST),
        field(8, "flags", Uint32, One),
    ],
};
static QUANTILE: Message = Message { fields: &[field(1, "quantile", Double, One), field(2, "value", Double, One)] };
static EXEMPLAR: Message = Message {
    fields: &[
        field(7, "filteredAttributes", Nested(&KEY_VALUE), LIST),
        field(2, "timeUnixNano", Fixed64, One),
        field(3, "asDouble", Double, Choice),
        field(6, "asInt", Sfixed64, Choice),
        field(4, "spanId", Hex, One),
        field(5, "traceId", Hex, One),
    ],
};

static RESOURCE_LOGS: Message = Message {
    fields: &[
        field(1, "resource", Nested(&RESOURCE), One),
        field(2, "scopeLogs", Nested(&SCOPE_LOGS), LIST),
        field(3, "schemaUrl", Text, One),
    ],
};
static SCOPE_LOGS: Message = Message {
    fields: &[
        field(1, "scope", Nested(&SCOPE), One),
        field(2, "logRecords", Nested(&LOG_RECORD), LIST),
        field(3, "schemaUrl", Text, One),
    ],
};
static LOG_RECORD: Message = Message {
    fields: &[
        field(1, "timeUnixNano", Fixed64, One),
        field(11, "observedTimeUnixNano", Fixed64, One),
        field(2, "severityNumber", Enum(&SEVERITIES), One),
        field(3, "severityText", Text, One),
        field(5, "body", Nested(&ANY_VALUE), Choice),
        field(6, "attributes", Nested(&KEY_VALUE), LIST),
        field(7, "droppedAttributesCount", Uint32, One),
        field(8, "flags", Fixed32, One),
        field(9, "traceId", Hex, One),
        field(10, "spanId", Hex, One),
        field(12, "eventName", Text, One),
    ],
};

pub static SPAN_KINDS: [&str; 6] = SpanKind::LABELS;
pub static STATUS_CODES: [&str; 3] = Status::LABELS;
pub static TEMPORALITIES: [&str; 3] =
    ["AGGREGATION_TEMPORALITY_UNSPECIFIED", "AGGREGATION_TEMPORALITY_DELTA", "AGGREGATION_TEMPORALITY_CUMULATIVE"];
pub static SEVERITIES: [&str; 25] = [
    "SEVERITY_NUMBER_UNSPECIFIED",
    "SEVERITY_NUMBER_TRACE",
    "SEVERITY_NUMBER_TRACE2",
    "SEVERITY_NUMBER_TRACE3",
    "SEVERITY_NUMBER_TRACE4",
    "SEVERITY_NUMBER_DEBUG",
    "SEVERITY_NUMBER_DEBUG2",
    "SEVERITY_NUMBER_DEBUG3",
    "SEVERITY_NUMBER_DEBUG4",
    "SEVERITY_NUMBER_INFO",
    "SEVERITY_NUMBER_INFO2",
    "SEVERITY_NUMBER_INFO3",
    "SEVERITY_NUMBER_INFO4",
    "SEVERITY_NUMBER_WARN",
    "SEVERITY_NUMBER_WARN2",
    "SEVERITY_NUMBER_WARN3",
    "SEVERITY_NUMBER_WARN4",
    "SEVERITY_NUMBER_ERROR",
    "SEVERITY_NUMBER_ERROR2",
    "SEVERITY_NUMBER_ERROR3",
    "SEVERITY_NUMBER_ERROR4",
    "SEVERITY_NUMBER_FATAL",
    "SEVERITY_NUMBER_FATAL2",
    "SEVERITY_NUMBER_FATAL3",
    "SEVERITY_NUMBER_FATAL4",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protobuf_names_are_accepted_beside_json_names() {
        for key in ["startTimeUnixNano", "start_time_unix_nano"] {
            assert_eq!(SPAN.field(key).map(|field| field.number), Some(7), "{key}");
        }
        for key in ["", "_", "starttimeunixnano", "start_time_unix_nano_", "start_time_unix", "name_"] {
            assert!(SPAN.field(key).is_none(), "{key}");
        }
    }
}
