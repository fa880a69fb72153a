//! Decoded traces, and what is known of them: the plain counterpart of scan and summary keeping.

use super::decoded::{DecodedSpan, span_id};
use super::span_condition;
use crate::policy::Policy;
use crate::trace::question::Condition;
use crate::trace::{Facts, SpanId, SpanKind, Standing, Status, Summary, TraceId};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::collections::{BTreeMap, HashSet};

/// A decoded trace and its summary.
#[derive(Clone, Debug)]
pub struct DecodedTrace {
    pub id: TraceId,
    pub spans: Vec<DecodedSpan>,
    pub summary: Summary,
}

/// Bits of `Span.flags` (opentelemetry/proto/trace/v1/trace.proto, SpanFlags).
const FLAG_HAS_REMOTE: u32 = 0x100;
const FLAG_IS_REMOTE: u32 = 0x200;

impl DecodedTrace {
    /// Builds the summary of `spans` as the process would, by the policy's questions.
    pub fn of(id: TraceId, mut spans: Vec<DecodedSpan>, policy: &Policy) -> DecodedTrace {
        let here: HashSet<SpanId> = spans.iter().map(DecodedSpan::id).collect();
        let mut summary = Summary::default();
        for span in &mut spans {
            span.standing = standing(&span.span, span.kind(), &here);
            let mut view = span.view(id, facts_of(&policy.conditions, span));
            view.status = policy.error_facts.status(view.status, view.facts);
            span.is_error = view.status == Status::Error;
            summary.observe(&view, 0, &policy.masks);
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
        if condition.tests.iter().all(|test| span_condition::of_test(test, span).holds) {
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

/// The spans of a request by trace. The error says what is wrong.
pub(crate) fn by_trace(request: &[u8]) -> Result<BTreeMap<TraceId, Vec<DecodedSpan>>, String> {
    let request = ExportTraceServiceRequest::decode(request)
        .map_err(|error| format!("this is a request that no receiver takes: {error}"))?;
    let mut traces: BTreeMap<TraceId, Vec<DecodedSpan>> = BTreeMap::new();
    for group in request.resource_spans {
        let resource = group.resource.map(|resource| resource.attributes).unwrap_or_default();
        for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let id = span.trace_id.as_slice().try_into().map(TraceId);
            let id = id.map_err(|_| format!("the span \"{}\" has no trace id of 32 digits", span.name))?;
            let span = DecodedSpan::new(resource.clone(), span);
            traces.entry(id).or_default().push(span);
        }
    }
    Ok(traces)
}
