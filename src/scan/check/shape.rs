//! The messages of OTLP and the kinds of their fields.
//! Source: opentelemetry-proto 1.10, `common/v1`, `resource/v1`, `trace/v1`, `metrics/v1`, `logs/v1`
//! and the request messages of `collector`.

use crate::otlp::DEPTH_MAX;
use crate::trace::Signal;

/// A message of OTLP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
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
    Message(Shape),
}

impl FieldKind {
    /// Whether it is an item, or leads to items.
    pub fn holds_items(&self) -> bool {
        matches!(self, FieldKind::Message(shape) if shape.is_part())
    }
}

use FieldKind::{Bytes, Fixed32, Fixed64, Fixed64s, Message, Text, Varint, Varints};

impl Shape {
    /// The request of a signal.
    pub fn request(signal: Signal) -> Shape {
        match signal {
            Signal::Traces => Shape::TracesRequest,
            Signal::Metrics => Shape::MetricsRequest,
            Signal::Logs => Shape::LogsRequest,
        }
    }

    /// How many levels there may be from this message on, in its usual place in a request.
    pub const fn depth(self) -> usize {
        match self {
            Shape::TracesRequest | Shape::MetricsRequest | Shape::LogsRequest => DEPTH_MAX + 1,
            Shape::ResourceSpans | Shape::ResourceMetrics | Shape::ResourceLogs => DEPTH_MAX,
            Shape::ScopeSpans | Shape::ScopeMetrics | Shape::ScopeLogs => DEPTH_MAX - 1,
            _ => DEPTH_MAX - 2,
        }
    }

    /// A span, a data point or a log record.
    pub fn is_item(self) -> bool {
        use Shape::{ExponentialPoint, HistogramPoint, LogRecord, NumberPoint, Span, SummaryPoint};
        matches!(self, Span | LogRecord | NumberPoint | HistogramPoint | ExponentialPoint | SummaryPoint)
    }

    /// An item, or what holds items.
    pub fn is_part(self) -> bool {
        use Shape::{ExponentialHistogram, Gauge, Histogram, Sum, Summary};
        self.is_separable() || matches!(self, Gauge | Sum | Histogram | ExponentialHistogram | Summary)
    }

    /// A part that can be refused while the rest of the request is taken.
    pub fn is_separable(self) -> bool {
        use Shape::{Metric, ResourceLogs, ResourceMetrics, ResourceSpans, ScopeLogs, ScopeMetrics, ScopeSpans};
        self.is_item()
            || matches!(self, ResourceSpans | ResourceMetrics | ResourceLogs | ScopeSpans | ScopeMetrics | ScopeLogs)
            || self == Metric
    }

    /// The kind of a field; none for fields that this version of OTLP does not know.
    pub fn field(self, number: u32) -> Option<FieldKind> {
        match self {
            Shape::TracesRequest
            | Shape::ResourceSpans
            | Shape::ScopeSpans
            | Shape::Span
            | Shape::Event
            | Shape::Link
            | Shape::Status => self.trace_field(number),
            Shape::LogsRequest | Shape::ResourceLogs | Shape::ScopeLogs | Shape::LogRecord => self.log_field(number),
            Shape::Resource
            | Shape::EntityRef
            | Shape::Scope
            | Shape::KeyValue
            | Shape::AnyValue
            | Shape::ArrayValue
            | Shape::KeyValueList => self.common_field(number),
            _ => self.metric_field(number),
        }
    }

    fn trace_field(self, number: u32) -> Option<FieldKind> {
        Some(match (self, number) {
            (Shape::TracesRequest, 1) => Message(Shape::ResourceSpans),
            (Shape::ResourceSpans, 1) => Message(Shape::Resource),
            (Shape::ResourceSpans, 2) => Message(Shape::ScopeSpans),
            (Shape::ScopeSpans, 1) => Message(Shape::Scope),
            (Shape::ScopeSpans, 2) => Message(Shape::Span),
            (Shape::ResourceSpans | Shape::ScopeSpans, 3) => Text,
            (Shape::Span, 1 | 2 | 4) => Bytes,
            (Shape::Span, 3 | 5) => Text,
            (Shape::Span, 6 | 10 | 12 | 14) => Varint,
            (Shape::Span, 7 | 8) => Fixed64,
            (Shape::Span, 9) => Message(Shape::KeyValue),
            (Shape::Span, 11) => Message(Shape::Event),
            (Shape::Span, 13) => Message(Shape::Link),
            (Shape::Span, 15) => Message(Shape::Status),
            (Shape::Span, 16) => Fixed32,
            (Shape::Event, 1) => Fixed64,
            (Shape::Event, 2) => Text,
            (Shape::Event, 3) => Message(Shape::KeyValue),
            (Shape::Event, 4) => Varint,
            (Shape::Link, 1 | 2) => Bytes,
            (Shape::Link, 3) => Text,
            (Shape::Link, 4) => Message(Shape::KeyValue),
            (Shape::Link, 5) => Varint,
            (Shape::Link, 6) => Fixed32,
            (Shape::Status, 2) => Text,
            (Shape::Status, 3) => Varint,
            _ => return None,
        })
    }

    fn metric_field(self, number: u32) -> Option<FieldKind> {
        Some(match (self, number) {
            (Shape::MetricsRequest, 1) => Message(Shape::ResourceMetrics),
            (Shape::ResourceMetrics, 1) => Message(Shape::Resource),
            (Shape::ResourceMetrics, 2) => Message(Shape::ScopeMetrics),
            (Shape::ScopeMetrics, 1) => Message(Shape::Scope),
            (Shape::ScopeMetrics, 2) => Message(Shape::Metric),
            (Shape::ResourceMetrics | Shape::ScopeMetrics, 3) => Text,
            (Shape::Metric, 1..=3) => Text,
            (Shape::Metric, 5) => Message(Shape::Gauge),
            (Shape::Metric, 7) => Message(Shape::Sum),
            (Shape::Metric, 9) => Message(Shape::Histogram),
            (Shape::Metric, 10) => Message(Shape::ExponentialHistogram),
            (Shape::Metric, 11) => Message(Shape::Summary),
            (Shape::Metric, 12) => Message(Shape::KeyValue),
            (Shape::Gauge | Shape::Sum, 1) => Message(Shape::NumberPoint),
            (Shape::Histogram, 1) => Message(Shape::HistogramPoint),
            (Shape::ExponentialHistogram, 1) => Message(Shape::ExponentialPoint),
            (Shape::Summary, 1) => Message(Shape::SummaryPoint),
            (Shape::Sum | Shape::Histogram | Shape::ExponentialHistogram, 2) | (Shape::Sum, 3) => Varint,
            (Shape::ValueAtQuantile, 1 | 2) => Fixed64,
            (Shape::Exemplar, 2 | 3 | 6) => Fixed64,
            (Shape::Exemplar, 4 | 5) => Bytes,
            (Shape::Exemplar, 7) => Message(Shape::KeyValue),
            (Shape::Buckets, 1) => Varint,
            (Shape::Buckets, 2) => Varints,
            _ => return self.point_field(number),
        })
    }

    fn point_field(self, number: u32) -> Option<FieldKind> {
        Some(match (self, number) {
            (Shape::NumberPoint, 2 | 3 | 4 | 6) => Fixed64,
            (Shape::NumberPoint, 5) => Message(Shape::Exemplar),
            (Shape::NumberPoint, 7) => Message(Shape::KeyValue),
            (Shape::NumberPoint, 8) => Varint,
            (Shape::HistogramPoint, 2..=5 | 11 | 12) => Fixed64,
            (Shape::HistogramPoint, 6 | 7) => Fixed64s,
            (Shape::HistogramPoint, 8) => Message(Shape::Exemplar),
            (Shape::HistogramPoint, 9) => Message(Shape::KeyValue),
            (Shape::HistogramPoint, 10) => Varint,
            (Shape::ExponentialPoint, 1) => Message(Shape::KeyValue),
            (Shape::ExponentialPoint, 2..=5 | 7 | 12..=14) => Fixed64,
            (Shape::ExponentialPoint, 6 | 10) => Varint,
            (Shape::ExponentialPoint, 8 | 9) => Message(Shape::Buckets),
            (Shape::ExponentialPoint, 11) => Message(Shape::Exemplar),
            (Shape::SummaryPoint, 2..=5) => Fixed64,
            (Shape::SummaryPoint, 6) => Message(Shape::ValueAtQuantile),
            (Shape::SummaryPoint, 7) => Message(Shape::KeyValue),
            (Shape::SummaryPoint, 8) => Varint,
            _ => return None,
        })
    }

    fn log_field(self, number: u32) -> Option<FieldKind> {
        Some(match (self, number) {
            (Shape::LogsRequest, 1) => Message(Shape::ResourceLogs),
            (Shape::ResourceLogs, 1) => Message(Shape::Resource),
            (Shape::ResourceLogs, 2) => Message(Shape::ScopeLogs),
            (Shape::ScopeLogs, 1) => Message(Shape::Scope),
            (Shape::ScopeLogs, 2) => Message(Shape::LogRecord),
            (Shape::ResourceLogs | Shape::ScopeLogs, 3) => Text,
            (Shape::LogRecord, 1 | 11) => Fixed64,
            (Shape::LogRecord, 2 | 7) => Varint,
            (Shape::LogRecord, 3 | 12) => Text,
            (Shape::LogRecord, 5) => Message(Shape::AnyValue),
            (Shape::LogRecord, 6) => Message(Shape::KeyValue),
            (Shape::LogRecord, 8) => Fixed32,
            (Shape::LogRecord, 9 | 10) => Bytes,
            _ => return None,
        })
    }

    fn common_field(self, number: u32) -> Option<FieldKind> {
        Some(match (self, number) {
            (Shape::Resource, 1) => Message(Shape::KeyValue),
            (Shape::Resource, 2) => Varint,
            (Shape::Resource, 3) => Message(Shape::EntityRef),
            (Shape::EntityRef, 1..=4) => Text,
            (Shape::Scope, 1 | 2) => Text,
            (Shape::Scope, 3) => Message(Shape::KeyValue),
            (Shape::Scope, 4) => Varint,
            (Shape::KeyValue, 1) => Text,
            (Shape::KeyValue, 2) => Message(Shape::AnyValue),
            (Shape::KeyValue, 3) => Varint,
            (Shape::AnyValue, 1) => Text,
            (Shape::AnyValue, 2 | 3 | 8) => Varint,
            (Shape::AnyValue, 4) => Fixed64,
            (Shape::AnyValue, 5) => Message(Shape::ArrayValue),
            (Shape::AnyValue, 6) => Message(Shape::KeyValueList),
            (Shape::AnyValue, 7) => Bytes,
            (Shape::ArrayValue, 1) => Message(Shape::AnyValue),
            (Shape::KeyValueList, 1) => Message(Shape::KeyValue),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
