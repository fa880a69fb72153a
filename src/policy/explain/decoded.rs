//! A decoded span, and what it says of itself.

use crate::trace::{Facts, Randomness, SpanId, SpanKind, SpanView, Standing, Status, Threshold, TraceId, between};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;

/// A bit of `Span.flags` (opentelemetry/proto/trace/v1/trace.proto, SpanFlags).
const FLAG_RANDOM: u32 = 0x2;

/// A decoded span with the resource it came from.
#[derive(Clone, Debug)]
pub struct DecodedSpan {
    pub resource: Vec<KeyValue>,
    pub span: Span,
    pub standing: Standing,
    /// It counts as an error.
    pub is_error: bool,
}

impl DecodedSpan {
    /// A span by itself: where it stands in its trace, and whether a policy counts it otherwise, is not known.
    pub fn new(resource: Vec<KeyValue>, span: Span) -> DecodedSpan {
        let mut decoded = DecodedSpan { resource, span, standing: Standing::Inner, is_error: false };
        decoded.is_error = decoded.status() == Status::Error;
        decoded
    }

    /// The first `service.name` that is a text and not empty; empty if there is none.
    pub fn service(&self) -> &str {
        let named = self.resource.iter().filter(|kv| kv.key == "service.name").filter_map(|kv| kv.value.as_ref());
        let mut texts = named.filter_map(|value| match &value.value {
            Some(Value::StringValue(name)) => Some(name.as_str()),
            _ => None,
        });
        texts.find(|name| !name.is_empty()).unwrap_or_default()
    }

    pub fn id(&self) -> SpanId {
        span_id(&self.span.span_id).unwrap_or_default()
    }

    pub fn kind(&self) -> SpanKind {
        SpanKind::from_wire(u64::try_from(self.span.kind).unwrap_or_default())
    }

    pub fn status(&self) -> Status {
        let code = self.span.status.as_ref().map_or(0, |status| status.code);
        Status::from_wire(u64::try_from(code).unwrap_or_default())
    }

    /// Empty if it has none.
    pub fn status_message(&self) -> &str {
        self.span.status.as_ref().map_or("", |status| &status.message)
    }

    /// Nanoseconds; zero when the span ends before it starts.
    pub fn duration(&self) -> u64 {
        between(self.span.start_time_unix_nano, self.span.end_time_unix_nano)
    }

    /// The value of a member of the span's tracestate.
    pub fn trace_state(&self, key: &str) -> Option<&str> {
        let members = self.span.trace_state.split(',').filter_map(|member| member.trim().split_once('='));
        members.into_iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// A field of the tracestate's `ot` member.
    fn sampling_field(&self, key: &str) -> Option<&str> {
        let fields = self.trace_state("ot")?.split(';').filter_map(|field| field.split_once(':'));
        fields.into_iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// As scan sees the span, with `facts` for its answers. Hashes are left out.
    pub fn view(&self, trace_id: TraceId, facts: Facts) -> SpanView {
        let threshold = self.sampling_field("th").and_then(|digits| Threshold::parse(digits.as_bytes()));
        SpanView {
            trace_id,
            span_id: self.id(),
            start: self.span.start_time_unix_nano,
            end: self.span.end_time_unix_nano,
            kind: self.kind(),
            status: self.status(),
            standing: self.standing,
            random_flag: self.span.flags & FLAG_RANDOM != 0,
            head_sampled: threshold.is_some_and(|threshold| threshold > Threshold::ALL),
            randomness: self.sampling_field("rv").and_then(|digits| Randomness::parse(digits.as_bytes())),
            facts,
            ..SpanView::default()
        }
    }
}

/// `None` for no id.
pub fn span_id(bytes: &[u8]) -> Option<SpanId> {
    let id = SpanId::from_be_bytes(bytes.try_into().ok()?);
    (id != 0).then_some(id)
}
