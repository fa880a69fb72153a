//! The messages of OTLP and the kinds of their fields.
//! Source: opentelemetry-proto 1.10, `common/v1`, `resource/v1`, `trace/v1`, `metrics/v1`, `logs/v1`
//! and the request messages of `collector`.

use crate::otlp::DEPTH_MAX;
use crate::trace::Signal;

/// A message of OTLP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageType {
    TracesRequest,
    ResourceSpans,
    ScopeSpans,
    Span,
    Event,
    Link,
    Status,
    MetricsRequest,
    ResourceMetrics,
    ScopeMetrics,
    Metric,
    Gauge,
    Sum,
    Histogram,
    ExponentialHistogram,
    Summary,
    NumberPoint,
    HistogramPoint,
    ExponentialPoint,
    Buckets,
    SummaryPoint,
    ValueAtQuantile,
    Exemplar,
    LogsRequest,
    ResourceLogs,
    ScopeLogs,
    LogRecord,
    Resource,
    EntityRef,
    Scope,
    KeyValue,
    AnyValue,
    ArrayValue,
    KeyValueList,
}

/// What a field holds.
pub enum FieldKind {
    Text,
    Bytes,
    Varint,
    Fixed32,
    Fixed64,
    /// Repeated numbers, packed or not.
    Varints,
    Fixed64s,
    Message(MessageType),
}

impl FieldKind {
    /// Whether it is an item, or leads to items.
    pub fn holds_items(&self) -> bool {
        matches!(self, FieldKind::Message(shape) if shape.is_part())
    }
}

use FieldKind::{Bytes, Fixed32, Fixed64, Fixed64s, Message, Text, Varint, Varints};

impl MessageType {
    /// The request of a signal.
    pub fn request(signal: Signal) -> MessageType {
        match signal {
            Signal::Traces => MessageType::TracesRequest,
            Signal::Metrics => MessageType::MetricsRequest,
            Signal::Logs => MessageType::LogsRequest,
        }
    }

    /// How many levels there may be from this message on, in its usual place in a request.
    pub const fn depth(self) -> usize {
        match self {
            MessageType::TracesRequest | MessageType::MetricsRequest | MessageType::LogsRequest => DEPTH_MAX + 1,
            MessageType::ResourceSpans | MessageType::ResourceMetrics | MessageType::ResourceLogs => DEPTH_MAX,
            MessageType::ScopeSpans | MessageType::ScopeMetrics | MessageType::ScopeLogs => DEPTH_MAX - 1,
            _ => DEPTH_MAX - 2,
        }
    }

    /// A span, a data point or a log record.
    pub fn is_item(self) -> bool {
        use MessageType::{ExponentialPoint, HistogramPoint, LogRecord, NumberPoint, Span, SummaryPoint};
        matches!(self, Span | LogRecord | NumberPoint | HistogramPoint | ExponentialPoint | SummaryPoint)
    }

    /// An item, or what holds items.
    pub fn is_part(self) -> bool {
        use MessageType::{ExponentialHistogram, Gauge, Histogram, Sum, Summary};
        self.is_separable() || matches!(self, Gauge | Sum | Histogram | ExponentialHistogram | Summary)
    }

    /// A part that can be refused while the rest of the request is taken.
    pub fn is_separable(self) -> bool {
        use MessageType::{Metric, ResourceLogs, ResourceMetrics, ResourceSpans, ScopeLogs, ScopeMetrics, ScopeSpans};
        self.is_item()
            || matches!(self, ResourceSpans | ResourceMetrics | ResourceLogs | ScopeSpans | ScopeMetrics | ScopeLogs)
            || self == Metric
    }

    /// The kind of a field; none for fields that this version of OTLP does not know.
    pub fn field(self, number: u32) -> Option<FieldKind> {
        match self {
            MessageType::TracesRequest
            | MessageType::ResourceSpans
            | MessageType::ScopeSpans
            | MessageType::Span
            | MessageType::Event
            | MessageType::Link
            | MessageType::Status => self.trace_field(number),
            MessageType::LogsRequest | MessageType::ResourceLogs | MessageType::ScopeLogs | MessageType::LogRecord => {
                self.log_field(number)
            }
            MessageType::Resource
            | MessageType::EntityRef
            | MessageType::Scope
            | MessageType::KeyValue
            | MessageType::AnyValue
            | MessageType::ArrayValue
            | MessageType::KeyValueList => self.common_field(number),
            _ => self.metric_field(number),
        }
    }

    fn trace_field(self, number: u32) -> Option<FieldKind> {
        Some(match (self, number) {
            (MessageType::TracesRequest, 1) => Message(MessageType::ResourceSpans),
            (MessageType::ResourceSpans, 1) => Message(MessageType::Resource),
            (MessageType::ResourceSpans, 2) => Message(MessageType::ScopeSpans),
            (MessageType::ScopeSpans, 1) => Message(MessageType::Scope),
            (MessageType::ScopeSpans, 2) => Message(MessageType::Span),
            (MessageType::ResourceSpans | MessageType::ScopeSpans, 3) => Text,
            (MessageType::Span, 1 | 2 | 4) => Bytes,
            (MessageType::Span, 3 | 5) => Text,
            (MessageType::Span, 6 | 10 | 12 | 14) => Varint,
            (MessageType::Span, 7 | 8) => Fixed64,
            (MessageType::Span, 9) => Message(MessageType::KeyValue),
            (MessageType::Span, 11) => Message(MessageType::Event),
            (MessageType::Span, 13) => Message(MessageType::Link),
            (MessageType::Span, 15) => Message(MessageType::Status),
            (MessageType::Span, 16) => Fixed32,
            (MessageType::Event, 1) => Fixed64,
            (MessageType::Event, 2) => Text,
            (MessageType::Event, 3) => Message(MessageType::KeyValue),
            (MessageType::Event, 4) => Varint,
            (MessageType::Link, 1 | 2) => Bytes,
            (MessageType::Link, 3) => Text,
            (MessageType::Link, 4) => Message(MessageType::KeyValue),
            (MessageType::Link, 5) => Varint,
            (MessageType::Link, 6) => Fixed32,
            (MessageType::Status, 2) => Text,
            (MessageType::Status, 3) => Varint,
            _ => return None,
        })
    }

    fn metric_field(self, number: u32) -> Option<FieldKind> {
        Some(match (self, number) {
            (MessageType::MetricsRequest, 1) => Message(MessageType::ResourceMetrics),
            (MessageType::ResourceMetrics, 1) => Message(MessageType::Resource),
            (MessageType::ResourceMetrics, 2) => Message(MessageType::ScopeMetrics),
            (MessageType::ScopeMetrics, 1) => Message(MessageType::Scope),
            (MessageType::ScopeMetrics, 2) => Message(MessageType::Metric),
            (MessageType::ResourceMetrics | MessageType::ScopeMetrics, 3) => Text,
            (MessageType::Metric, 1..=3) => Text,
            (MessageType::Metric, 5) => Message(MessageType::Gauge),
            (MessageType::Metric, 7) => Message(MessageType::Sum),
            (MessageType::Metric, 9) => Message(MessageType::Histogram),
            (MessageType::Metric, 10) => Message(MessageType::ExponentialHistogram),
            (MessageType::Metric, 11) => Message(MessageType::Summary),
            (MessageType::Metric, 12) => Message(MessageType::KeyValue),
            (MessageType::Gauge | MessageType::Sum, 1) => Message(MessageType::NumberPoint),
            (MessageType::Histogram, 1) => Message(MessageType::HistogramPoint),
            (MessageType::ExponentialHistogram, 1) => Message(MessageType::ExponentialPoint),
            (MessageType::Summary, 1) => Message(MessageType::SummaryPoint),
            (MessageType::Sum | MessageType::Histogram | MessageType::ExponentialHistogram, 2)
            | (MessageType::Sum, 3) => Varint,
            (MessageType::ValueAtQuantile, 1 | 2) => Fixed64,
            (MessageType::Exemplar, 2 | 3 | 6) => Fixed64,
            (MessageType::Exemplar, 4 | 5) => Bytes,
            (MessageType::Exemplar, 7) => Message(MessageType::KeyValue),
            (MessageType::Buckets, 1) => Varint,
            (MessageType::Buckets, 2) => Varints,
            _ => return self.point_field(number),
        })
    }

    fn point_field(self, number: u32) -> Option<FieldKind> {
        Some(match (self, number) {
            (MessageType::NumberPoint, 2 | 3 | 4 | 6) => Fixed64,
            (MessageType::NumberPoint, 5) => Message(MessageType::Exemplar),
            (MessageType::NumberPoint, 7) => Message(MessageType::KeyValue),
            (MessageType::NumberPoint, 8) => Varint,
            (MessageType::HistogramPoint, 2..=5 | 11 | 12) => Fixed64,
            (MessageType::HistogramPoint, 6 | 7) => Fixed64s,
            (MessageType::HistogramPoint, 8) => Message(MessageType::Exemplar),
            (MessageType::HistogramPoint, 9) => Message(MessageType::KeyValue),
            (MessageType::HistogramPoint, 10) => Varint,
            (MessageType::ExponentialPoint, 1) => Message(MessageType::KeyValue),
            (MessageType::ExponentialPoint, 2..=5 | 7 | 12..=14) => Fixed64,
            (MessageType::ExponentialPoint, 6 | 10) => Varint,
            (MessageType::ExponentialPoint, 8 | 9) => Message(MessageType::Buckets),
            (MessageType::ExponentialPoint, 11) => Message(MessageType::Exemplar),
            (MessageType::SummaryPoint, 2..=5) => Fixed64,
            (MessageType::SummaryPoint, 6) => Message(MessageType::ValueAtQuantile),
            (MessageType::SummaryPoint, 7) => Message(MessageType::KeyValue),
            (MessageType::SummaryPoint, 8) => Varint,
            _ => return None,
        })
    }

    fn log_field(self, number: u32) -> Option<FieldKind> {
        Some(match (self, number) {
            (MessageType::LogsRequest, 1) => Message(MessageType::ResourceLogs),
            (MessageType::ResourceLogs, 1) => Message(MessageType::Resource),
            (MessageType::ResourceLogs, 2) => Message(MessageType::ScopeLogs),
            (MessageType::ScopeLogs, 1) => Message(MessageType::Scope),
            (MessageType::ScopeLogs, 2) => Message(MessageType::LogRecord),
            (MessageType::ResourceLogs | MessageType::ScopeLogs, 3) => Text,
            (MessageType::LogRecord, 1 | 11) => Fixed64,
            (MessageType::LogRecord, 2 | 7) => Varint,
            (MessageType::LogRecord, 3 | 12) => Text,
            (MessageType::LogRecord, 5) => Message(MessageType::AnyValue),
            (MessageType::LogRecord, 6) => Message(MessageType::KeyValue),
            (MessageType::LogRecord, 8) => Fixed32,
            (MessageType::LogRecord, 9 | 10) => Bytes,
            _ => return None,
        })
    }

    fn common_field(self, number: u32) -> Option<FieldKind> {
        Some(match (self, number) {
            (MessageType::Resource, 1) => Message(MessageType::KeyValue),
            (MessageType::Resource, 2) => Varint,
            (MessageType::Resource, 3) => Message(MessageType::EntityRef),
            (MessageType::EntityRef, 1..=4) => Text,
            (MessageType::Scope, 1 | 2) => Text,
            (MessageType::Scope, 3) => Message(MessageType::KeyValue),
            (MessageType::Scope, 4) => Varint,
            (MessageType::KeyValue, 1) => Text,
            (MessageType::KeyValue, 2) => Message(MessageType::AnyValue),
            (MessageType::KeyValue, 3) => Varint,
            (MessageType::AnyValue, 1) => Text,
            (MessageType::AnyValue, 2 | 3 | 8) => Varint,
            (MessageType::AnyValue, 4) => Fixed64,
            (MessageType::AnyValue, 5) => Message(MessageType::ArrayValue),
            (MessageType::AnyValue, 6) => Message(MessageType::KeyValueList),
            (MessageType::AnyValue, 7) => Bytes,
            (MessageType::ArrayValue, 1) => Message(MessageType::AnyValue),
            (MessageType::KeyValueList, 1) => Message(MessageType::KeyValue),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
