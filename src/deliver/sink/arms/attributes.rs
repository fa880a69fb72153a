//! Adds the attributes that ARMS reads where they are missing, on the bytes: what is not touched is
//! copied verbatim, unknown fields too.
//!
//! - `host.name` on a resource, from its `k8s.node.name` or from the configuration;
//! - `acs.cms.workspace` on a resource, for endpoints of CloudMonitor 2.0;
//! - `sample.reason` on a span that says by `tailkeep.reason` why its trace was kept.

use crate::{
    otlp::attributes::{ResourceAttributes, add_to_resources, attribute, put_attribute, rewrite},
    trace::{Reason, Signal},
};
use bytes::Bytes;
use memchr::memmem;

const REASON: &str = "tailkeep.reason";
const SAMPLE_REASON: &str = "sample.reason";
const HOST: &str = "host.name";
const NODE: &str = "k8s.node.name";
const WORKSPACE: &str = "acs.cms.workspace";

/// Field numbers of `opentelemetry/proto`.
const RESOURCE_SPANS: u32 = 1;
const SCOPE_SPANS: u32 = 2;
const SPANS: u32 = 2;
const RESOURCE_ATTRIBUTES: u32 = 1;
const SPAN_ATTRIBUTES: u32 = 9;

/// What to add.
#[derive(Clone, Debug, Default)]
pub(super) struct MissingAttributes {
    host_name: Option<String>,
    workspace: Option<String>,
}

impl MissingAttributes {
    pub(super) fn new(host_name: Option<String>, workspace: Option<String>) -> MissingAttributes {
        MissingAttributes { host_name, workspace }
    }

    /// The request with what it lacked; itself if it lacks nothing or is no protobuf.
    pub(super) fn add_to(&self, signal: Signal, body: Bytes) -> Bytes {
        let completed = add_to_resources(&body, &mut |resource| self.missing(resource)).map_or(body, Bytes::from);
        let has_reasons = signal == Signal::Traces && says_reason(&completed);
        let with_reasons = has_reasons.then(|| give_reasons(&completed)).flatten();
        with_reasons.map_or(completed, Bytes::from)
    }

    /// The attribute fields that a resource lacks.
    fn missing(&self, resource: &ResourceAttributes) -> Vec<u8> {
        let mut missing = Vec::new();
        if !resource.has(HOST) {
            let node = resource.attribute(NODE).flatten().map(str::to_owned);
            if let Some(host) = node.or_else(|| self.host_name.clone()) {
                put_attribute(&mut missing, RESOURCE_ATTRIBUTES, HOST, &host);
            }
        }
        if let Some(workspace) = self.workspace.as_ref().filter(|_| !resource.has(WORKSPACE)) {
            put_attribute(&mut missing, RESOURCE_ATTRIBUTES, WORKSPACE, workspace);
        }
        missing
    }
}

fn says_reason(message: &[u8]) -> bool {
    memmem::find(message, REASON.as_bytes()).is_some()
}

/// The request with a reason on each span that needs one; none if none does.
fn give_reasons(request: &[u8]) -> Option<Vec<u8>> {
    rewrite(request, &mut |number, group| {
        if number != RESOURCE_SPANS || !says_reason(group) {
            return None;
        }
        rewrite(group, &mut |number, scope| {
            if number != SCOPE_SPANS || !says_reason(scope) {
                return None;
            }
            rewrite(scope, &mut |number, span| if number == SPANS { give_reason(span) } else { None })
        })
    })
}

/// A span with the sampling reason in ARMS's words; none if it says none or has one.
fn give_reason(span: &[u8]) -> Option<Vec<u8>> {
    let word = attribute(span, SPAN_ATTRIBUTES, REASON)??;
    if attribute(span, SPAN_ATTRIBUTES, SAMPLE_REASON).is_some() {
        return None;
    }
    let mut out = span.to_vec();
    put_attribute(&mut out, SPAN_ATTRIBUTES, SAMPLE_REASON, arms_reason(word));
    Some(out)
}

/// ARMS's codes: s9 kept for an error, s10 for slowness, s4 by a share, s3 by a rule of one's own.
fn arms_reason(word: &str) -> &'static str {
    let reasons = [Reason::Failed, Reason::Slow, Reason::Share, Reason::Rule];
    match reasons.into_iter().find(|reason| reason.word() == word) {
        Some(Reason::Failed) => "s9",
        Some(Reason::Slow) => "s10",
        Some(Reason::Share) => "s4",
        Some(Reason::Rule) | None => "s3",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::wire::{Fields, put_bytes};
    use opentelemetry_proto::tonic::{
        collector::trace::v1::ExportTraceServiceRequest,
        common::v1::{AnyValue, KeyValue, any_value::Value},
        resource::v1::Resource,
        trace::v1::{ResourceSpans, ScopeSpans, Span},
    };
    use prost::Message;

    fn text(key: &str, value: &str) -> KeyValue {
        let value = Some(AnyValue { value: Some(Value::StringValue(value.into())) });
        KeyValue { key: key.into(), value, ..Default::default() }
    }

    fn group(resource: Option<Vec<KeyValue>>, spans: Vec<Vec<KeyValue>>) -> ResourceSpans {
        let spans = spans.into_iter().map(|attributes| Span { name: "s".into(), attributes, ..Default::default() });
        ResourceSpans {
            resource: resource.map(|attributes| Resource { attributes, ..Default::default() }),
            scope_spans: vec![ScopeSpans { spans: spans.collect(), ..Default::default() }],
            schema_url: "https://example.test/schema".into(),
        }
    }

    /// Completes one group and expects that the result is `want`, field by field.
    fn check(missing: &MissingAttributes, given: ResourceSpans, want: ResourceSpans) {
        let encode = |group| ExportTraceServiceRequest { resource_spans: vec![group] }.encode_to_vec();
        let completed = missing.add_to(Signal::Traces, encode(given).into());
        let completed = ExportTraceServiceRequest::decode(completed).unwrap();
        assert_eq!(completed.resource_spans, vec![want]);
    }

    #[test]
    fn host_name_comes_from_the_node_or_the_configuration_and_is_never_replaced() {
        let missing = MissingAttributes::new(Some("configured".into()), None);
        let node = text(NODE, "node-7");
        let own = text(HOST, "own");
        check(
            &missing,
            group(Some(vec![node.clone()]), vec![vec![]]),
            group(Some(vec![node.clone(), text(HOST, "node-7")]), vec![vec![]]),
        );
        check(&missing, group(Some(vec![]), vec![vec![]]), group(Some(vec![text(HOST, "configured")]), vec![vec![]]));
        check(&missing, group(Some(vec![]), vec![]), group(Some(vec![]), vec![]));
        check(&missing, group(None, vec![vec![]]), group(Some(vec![text(HOST, "configured")]), vec![vec![]]));
        let both = group(Some(vec![own, node]), vec![vec![]]);
        check(&missing, both.clone(), both);
        let nothing = group(None, vec![vec![]]);
        check(&MissingAttributes::default(), nothing.clone(), nothing);
    }

    #[test]
    fn a_workspace_is_added_once() {
        let missing = MissingAttributes::new(None, Some("prod".into()));
        let completed = group(Some(vec![text(WORKSPACE, "prod")]), vec![vec![]]);
        check(&missing, group(None, vec![vec![]]), completed.clone());
        check(&missing, completed.clone(), completed);
        let other = group(Some(vec![text(WORKSPACE, "theirs")]), vec![vec![]]);
        check(&missing, other.clone(), other);
    }

    #[test]
    fn the_reason_is_told_in_the_words_of_arms_on_its_span_alone() {
        for (word, code) in [("failed", "s9"), ("slow", "s10"), ("share", "s4"), ("rule", "s3"), ("new", "s3")] {
            let marked = vec![text(REASON, word), text("x", "y")];
            let given = group(Some(vec![]), vec![vec![text("a", "b")], marked.clone(), vec![]]);
            let want = [marked, vec![text(SAMPLE_REASON, code)]].concat();
            check(&MissingAttributes::default(), given, group(Some(vec![]), vec![vec![text("a", "b")], want, vec![]]));
        }
        let has_one = group(None, vec![vec![text(SAMPLE_REASON, "s1"), text(REASON, "slow")]]);
        check(&MissingAttributes::default(), has_one.clone(), has_one);
        let as_text_only = group(None, vec![vec![text("note", REASON)]]);
        check(&MissingAttributes::default(), as_text_only.clone(), as_text_only);
    }

    #[test]
    fn untouched_bytes_are_the_same_memory_and_unknown_fields_survive() {
        let body = Bytes::from(ExportTraceServiceRequest { resource_spans: vec![group(None, vec![])] }.encode_to_vec());
        let same = MissingAttributes::default().add_to(Signal::Traces, body.clone());
        assert_eq!(same.as_ptr(), body.as_ptr());

        let missing = MissingAttributes::new(Some("h".into()), None);
        let broken = Bytes::from_static(b"\x0a\xff");
        assert_eq!(missing.add_to(Signal::Traces, broken.clone()), broken);

        // Field 15 of the group, after and before the resource.
        let mut inner = Vec::new();
        put_bytes(&mut inner, 15, b"new");
        put_bytes(&mut inner, 1, b"");
        put_bytes(&mut inner, 15, b"newer");
        put_bytes(&mut inner, 2, b"\x12\x00");
        let mut outer = Vec::new();
        put_bytes(&mut outer, 1, &inner);
        let completed = missing.add_to(Signal::Traces, outer.into());
        assert!(memmem::find(&completed, b"newer").is_some());
        let mut want = Vec::new();
        put_bytes(&mut want, 15, b"new");
        let mut resource = Vec::new();
        put_attribute(&mut resource, 1, HOST, "h");
        put_bytes(&mut want, 1, &resource);
        put_bytes(&mut want, 15, b"newer");
        put_bytes(&mut want, 2, b"\x12\x00");
        assert_eq!(Fields::new(&completed).flatten().next().unwrap().payload().unwrap(), want);
    }

    #[test]
    fn a_request_that_ends_early_never_panics_and_valid_ones_stay_valid() {
        let missing = MissingAttributes::new(Some("h".into()), Some("w".into()));
        let full = group(Some(vec![text(NODE, "n")]), vec![vec![text(REASON, "slow")]]);
        let body = ExportTraceServiceRequest { resource_spans: vec![full.clone(), full] }.encode_to_vec();
        for end in 0..body.len() {
            let cut = Bytes::copy_from_slice(&body[..end]);
            let is_valid = ExportTraceServiceRequest::decode(cut.clone()).is_ok();
            let completed = missing.add_to(Signal::Traces, cut.clone());
            assert!(
                if is_valid { ExportTraceServiceRequest::decode(completed).is_ok() } else { completed == cut },
                "{end}"
            );
        }
    }
}
