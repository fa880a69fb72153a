//! The OTLP messages as tables: what each JSON key is called in protobuf.
//!
//! Source: opentelemetry-proto 1.x (`opentelemetry/proto/{common,resource,trace,metrics,logs}/v1`). A
//! field that is added there is added here; until then it is ignored, as the OTLP specification asks.

use crate::trace::Signal;
use Kind::*;

/// How a value is written in JSON, and in protobuf.
#[derive(Clone, Copy)]
pub enum Kind {
    Text,
    /// `bytes` written in base64.
    Base64,
    /// `bytes` written in hexadecimal: trace and span ids.
    Hex,
    Bool,
    Double,
    Fixed64,
    SFixed64,
    Fixed32,
    UInt64,
    Int64,
    UInt32,
    SInt32,
    /// An enum by its names, which stand at their numbers: written as a number, read as either.
    Enum(&'static [&'static str]),
    Nested(&'static Message),
}

/// How often a field occurs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// At most once; a default value says nothing and is left out.
    Implicit,
    /// At most once; a default value is a value (`optional`).
    Explicit,
    /// As `Explicit`, and it takes the place of the others: a message has one such choice at most.
    OneOf,
    Repeated,
}

pub struct Field {
    /// Its JSON key, in lowerCamelCase.
    pub name: &'static str,
    pub number: u32,
    pub kind: Kind,
    pub presence: Presence,
}

pub struct Message {
    fields: &'static [Field],
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
    pub fn field(&self, key: &str) -> Option<&'static Field> {
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

const fn one(name: &'static str, number: u32, kind: Kind) -> Field {
    Field { name, number, kind, presence: Presence::Implicit }
}

const fn own(name: &'static str, number: u32, kind: Kind) -> Field {
    Field { name, number, kind, presence: Presence::Explicit }
}

const fn either(name: &'static str, number: u32, kind: Kind) -> Field {
    Field { name, number, kind, presence: Presence::OneOf }
}

const fn many(name: &'static str, number: u32, kind: Kind) -> Field {
    Field { name, number, kind, presence: Presence::Repeated }
}

static TRACES: Message = Message { fields: &[many("resourceSpans", 1, Nested(&RESOURCE_SPANS))] };
static METRICS: Message = Message { fields: &[many("resourceMetrics", 1, Nested(&RESOURCE_METRICS))] };
static LOGS: Message = Message { fields: &[many("resourceLogs", 1, Nested(&RESOURCE_LOGS))] };

// Enums.

pub static SPAN_KINDS: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];
pub static STATUS_CODES: [&str; 3] = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];
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

// Common.

static ANY_VALUE: Message = Message {
    fields: &[
        either("stringValue", 1, Text),
        either("boolValue", 2, Bool),
        either("intValue", 3, Int64),
        either("doubleValue", 4, Double),
        either("arrayValue", 5, Nested(&ARRAY_VALUE)),
        either("kvlistValue", 6, Nested(&KEY_VALUE_LIST)),
        either("bytesValue", 7, Base64),
    ],
};
static ARRAY_VALUE: Message = Message { fields: &[many("values", 1, Nested(&ANY_VALUE))] };
static KEY_VALUE_LIST: Message = Message { fields: &[many("values", 1, Nested(&KEY_VALUE))] };
static KEY_VALUE: Message = Message { fields: &[one("key", 1, Text), own("value", 2, Nested(&ANY_VALUE))] };
static SCOPE: Message = Message {
    fields: &[
        one("name", 1, Text),
        one("version", 2, Text),
        many("attributes", 3, Nested(&KEY_VALUE)),
        one("droppedAttributesCount", 4, UInt32),
    ],
};
static RESOURCE: Message = Message {
    fields: &[
        many("attributes", 1, Nested(&KEY_VALUE)),
        one("droppedAttributesCount", 2, UInt32),
        many("entityRefs", 3, Nested(&ENTITY_REF)),
    ],
};
static ENTITY_REF: Message = Message {
    fields: &[
        one("schemaUrl", 1, Text),
        one("type", 2, Text),
        many("idKeys", 3, Text),
        many("descriptionKeys", 4, Text),
    ],
};

// Traces.

static RESOURCE_SPANS: Message = Message {
    fields: &[
        own("resource", 1, Nested(&RESOURCE)),
        many("scopeSpans", 2, Nested(&SCOPE_SPANS)),
        one("schemaUrl", 3, Text),
    ],
};
static SCOPE_SPANS: Message =
    Message { fields: &[own("scope", 1, Nested(&SCOPE)), many("spans", 2, Nested(&SPAN)), one("schemaUrl", 3, Text)] };
static SPAN: Message = Message {
    fields: &[
        one("traceId", 1, Hex),
        one("spanId", 2, Hex),
        one("traceState", 3, Text),
        one("parentSpanId", 4, Hex),
        one("name", 5, Text),
        one("kind", 6, Enum(&SPAN_KINDS)),
        one("startTimeUnixNano", 7, Fixed64),
        one("endTimeUnixNano", 8, Fixed64),
        many("attributes", 9, Nested(&KEY_VALUE)),
        one("droppedAttributesCount", 10, UInt32),
        many("events", 11, Nested(&EVENT)),
        one("droppedEventsCount", 12, UInt32),
        many("links", 13, Nested(&LINK)),
        one("droppedLinksCount", 14, UInt32),
        own("status", 15, Nested(&STATUS)),
        one("flags", 16, Fixed32),
    ],
};
static EVENT: Message = Message {
    fields: &[
        one("timeUnixNano", 1, Fixed64),
        one("name", 2, Text),
        many("attributes", 3, Nested(&KEY_VALUE)),
        one("droppedAttributesCount", 4, UInt32),
    ],
};
static LINK: Message = Message {
    fields: &[
        one("traceId", 1, Hex),
        one("spanId", 2, Hex),
        one("traceState", 3, Text),
        many("attributes", 4, Nested(&KEY_VALUE)),
        one("droppedAttributesCount", 5, UInt32),
        one("flags", 6, Fixed32),
    ],
};
static STATUS: Message = Message { fields: &[one("message", 2, Text), one("code", 3, Enum(&STATUS_CODES))] };

// Metrics.

static RESOURCE_METRICS: Message = Message {
    fields: &[
        own("resource", 1, Nested(&RESOURCE)),
        many("scopeMetrics", 2, Nested(&SCOPE_METRICS)),
        one("schemaUrl", 3, Text),
    ],
};
static SCOPE_METRICS: Message = Message {
    fields: &[own("scope", 1, Nested(&SCOPE)), many("metrics", 2, Nested(&METRIC)), one("schemaUrl", 3, Text)],
};
static METRIC: Message = Message {
    fields: &[
        one("name", 1, Text),
        one("description", 2, Text),
        one("unit", 3, Text),
        either("gauge", 5, Nested(&GAUGE)),
        either("sum", 7, Nested(&SUM)),
        either("histogram", 9, Nested(&HISTOGRAM)),
        either("exponentialHistogram", 10, Nested(&EXPONENTIAL_HISTOGRAM)),
        either("summary", 11, Nested(&SUMMARY)),
        many("metadata", 12, Nested(&KEY_VALUE)),
    ],
};
static GAUGE: Message = Message { fields: &[many("dataPoints", 1, Nested(&NUMBER_POINT))] };
static SUM: Message = Message {
    fields: &[
        many("dataPoints", 1, Nested(&NUMBER_POINT)),
        one("aggregationTemporality", 2, Enum(&TEMPORALITIES)),
        one("isMonotonic", 3, Bool),
    ],
};
static HISTOGRAM: Message = Message {
    fields: &[many("dataPoints", 1, Nested(&HISTOGRAM_POINT)), one("aggregationTemporality", 2, Enum(&TEMPORALITIES))],
};
static EXPONENTIAL_HISTOGRAM: Message = Message {
    fields: &[
        many("dataPoints", 1, Nested(&EXPONENTIAL_POINT)),
        one("aggregationTemporality", 2, Enum(&TEMPORALITIES)),
    ],
};
static SUMMARY: Message = Message { fields: &[many("dataPoints", 1, Nested(&SUMMARY_POINT))] };
static NUMBER_POINT: Message = Message {
    fields: &[
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        either("asDouble", 4, Double),
        many("exemplars", 5, Nested(&EXEMPLAR)),
        either("asInt", 6, SFixed64),
        many("attributes", 7, Nested(&KEY_VALUE)),
        one("flags", 8, UInt32),
    ],
};
static HISTOGRAM_POINT: Message = Message {
    fields: &[
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        one("count", 4, Fixed64),
        own("sum", 5, Double),
        many("bucketCounts", 6, Fixed64),
        many("explicitBounds", 7, Double),
        many("exemplars", 8, Nested(&EXEMPLAR)),
        many("attributes", 9, Nested(&KEY_VALUE)),
        one("flags", 10, UInt32),
        own("min", 11, Double),
        own("max", 12, Double),
    ],
};
static EXPONENTIAL_POINT: Message = Message {
    fields: &[
        many("attributes", 1, Nested(&KEY_VALUE)),
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        one("count", 4, Fixed64),
        own("sum", 5, Double),
        one("scale", 6, SInt32),
        one("zeroCount", 7, Fixed64),
        own("positive", 8, Nested(&BUCKETS)),
        own("negative", 9, Nested(&BUCKETS)),
        one("flags", 10, UInt32),
        many("exemplars", 11, Nested(&EXEMPLAR)),
        own("min", 12, Double),
        own("max", 13, Double),
        one("zeroThreshold", 14, Double),
    ],
};
static BUCKETS: Message = Message { fields: &[one("offset", 1, SInt32), many("bucketCounts", 2, UInt64)] };
static SUMMARY_POINT: Message = Message {
    fields: &[
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        one("count", 4, Fixed64),
        one("sum", 5, Double),
        many("quantileValues", 6, Nested(&QUANTILE)),
        many("attributes", 7, Nested(&KEY_VALUE)),
        one("flags", 8, UInt32),
    ],
};
static QUANTILE: Message = Message { fields: &[one("quantile", 1, Double), one("value", 2, Double)] };
static EXEMPLAR: Message = Message {
    fields: &[
        one("timeUnixNano", 2, Fixed64),
        either("asDouble", 3, Double),
        one("spanId", 4, Hex),
        one("traceId", 5, Hex),
        either("asInt", 6, SFixed64),
        many("filteredAttributes", 7, Nested(&KEY_VALUE)),
    ],
};

// Logs.

static RESOURCE_LOGS: Message = Message {
    fields: &[
        own("resource", 1, Nested(&RESOURCE)),
        many("scopeLogs", 2, Nested(&SCOPE_LOGS)),
        one("schemaUrl", 3, Text),
    ],
};
static SCOPE_LOGS: Message = Message {
    fields: &[own("scope", 1, Nested(&SCOPE)), many("logRecords", 2, Nested(&LOG_RECORD)), one("schemaUrl", 3, Text)],
};
static LOG_RECORD: Message = Message {
    fields: &[
        one("timeUnixNano", 1, Fixed64),
        one("severityNumber", 2, Enum(&SEVERITIES)),
        one("severityText", 3, Text),
        own("body", 5, Nested(&ANY_VALUE)),
        many("attributes", 6, Nested(&KEY_VALUE)),
        one("droppedAttributesCount", 7, UInt32),
        one("flags", 8, Fixed32),
        one("traceId", 9, Hex),
        one("spanId", 10, Hex),
        one("observedTimeUnixNano", 11, Fixed64),
        one("eventName", 12, Text),
    ],
};

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
