//! Decoded traces, and what is known of them: the plain counterpart of scan and summary keeping.

use super::{answer, formats};
use crate::otlp::json;
use crate::policy::Policy;
use crate::trace::question::Condition;
use crate::trace::{
    Facts, Randomness, Signal, SpanId, SpanKind, SpanView, Standing, Status, Summary, Threshold, TraceId, between,
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::collections::{BTreeMap, HashSet};

/// A decoded span with the resource it came from.
#[derive(Clone, Debug)]
pub struct DecodedSpan {
    pub resource: Vec<KeyValue>,
    pub span: Span,
    pub standing: Standing,
}

/// A decoded trace and its summary.
#[derive(Clone, Debug)]
pub struct DecodedTrace {
    pub id: TraceId,
    pub spans: Vec<DecodedSpan>,
    pub summary: Summary,
}

/// Bits of `Span.flags` (opentelemetry/proto/trace/v1/trace.proto, SpanFlags).
const FLAG_RANDOM: u32 = 0x2;
const FLAG_HAS_REMOTE: u32 = 0x100;
const FLAG_IS_REMOTE: u32 = 0x200;

impl DecodedSpan {
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

impl DecodedTrace {
    /// Builds the summary of `spans` as the process would, by the policy's questions.
    pub fn of(id: TraceId, mut spans: Vec<DecodedSpan>, policy: &Policy) -> DecodedTrace {
        let here: HashSet<SpanId> = spans.iter().map(DecodedSpan::id).collect();
        let mut summary = Summary::default();
        for span in &mut spans {
            span.standing = standing(&span.span, span.kind(), &here);
            summary.observe(&span.view(id, facts_of(&policy.conditions, span)), 0, &policy.masks);
        }
        DecodedTrace { id, spans, summary }
    }

    /// The one entry span that was chosen.
    pub fn entry(&self) -> Option<&DecodedSpan> {
        let entry = &self.summary.entry;
        let is_entry =
            |span: &&DecodedSpan| span.id() == entry.span_id && span.span.start_time_unix_nano == entry.start;
        self.summary.has_entry().then(|| self.spans.iter().find(is_entry)).flatten()
    }
}

/// Which conditions hold for the span, whatever their scope.
pub fn facts_of(conditions: &[Condition], span: &DecodedSpan) -> Facts {
    let mut facts = Facts::EMPTY;
    for (bit, condition) in conditions.iter().enumerate() {
        if condition.tests.iter().all(|test| answer::of_test(test, span).holds) {
            facts.set(bit);
        }
    }
    facts
}

fn standing(span: &Span, kind: SpanKind, here: &HashSet<SpanId>) -> Standing {
    let Some(parent) = span_id(&span.parent_span_id) else { return Standing::Root };
    let is_entry = if span.flags & FLAG_HAS_REMOTE != 0 {
        span.flags & FLAG_IS_REMOTE != 0
    } else {
        matches!(kind, SpanKind::Server | SpanKind::Consumer) && !here.contains(&parent)
    };
    if is_entry { Standing::Entry } else { Standing::Inner }
}

/// `None` for no id.
fn span_id(bytes: &[u8]) -> Option<SpanId> {
    let id = SpanId::from_be_bytes(bytes.try_into().ok()?);
    (id != 0).then_some(id)
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The spans of OTLP/JSON by trace; several documents may follow each other, or be a list. The error says
/// what is wrong.
pub(super) fn decode(json: &[u8]) -> Result<BTreeMap<TraceId, Vec<DecodedSpan>>, String> {
    let json = json.strip_prefix(BYTE_ORDER_MARK).unwrap_or(json);
    let read = json::read_all(Signal::Traces, json).map_err(|error| format!("this is not OTLP/JSON: {error}"));
    let traces = read.and_then(|request| by_trace(&request));
    let error = match traces {
        Ok(traces) if !traces.is_empty() => return Ok(traces),
        Ok(_) => format!("no span in it; it must be {READABLE}"),
        Err(error) => error,
    };
    let recognised = formats::recognise(json);
    Err(recognised.map_or(error, |name| format!("this is {name}; `explain` reads {READABLE}")))
}

const READABLE: &str = "OTLP/JSON, an object with `resourceSpans`, as `/traces/{id}`, the file sink and the \
    Collector's file exporter write it";

fn by_trace(request: &[u8]) -> Result<BTreeMap<TraceId, Vec<DecodedSpan>>, String> {
    let request = ExportTraceServiceRequest::decode(request)
        .map_err(|error| format!("this is OTLP/JSON that no receiver takes: {error}"))?;
    let mut traces: BTreeMap<TraceId, Vec<DecodedSpan>> = BTreeMap::new();
    for group in request.resource_spans {
        let resource = group.resource.map(|resource| resource.attributes).unwrap_or_default();
        for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let id = span.trace_id.as_slice().try_into().map(TraceId);
            let id = id.map_err(|_| format!("the span \"{}\" has no trace id of 32 digits", span.name))?;
            let span = DecodedSpan { resource: resource.clone(), span, standing: Standing::Inner };
            traces.entry(id).or_default().push(span);
        }
    }
    Ok(traces)
}
