//! Traces as services would send them, and how they are compared with what came out.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span, Status,
    span::{Event, Link, SpanKind},
    status::StatusCode,
};
use prost::Message;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

/// `flags` of a span that knows its parent to be elsewhere, with a random trace id.
const REMOTE_PARENT: u32 = 0x302;
const MILLISECOND: u64 = 1_000_000;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// Different at each call; SplitMix64's finalizer, so that the low bits look random.
fn fresh_number() -> u64 {
    let number = NEXT.fetch_add(1, Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

pub fn fresh_trace_id() -> [u8; 16] {
    let halves = [fresh_number().to_be_bytes(), fresh_number().to_be_bytes()];
    halves.concat().try_into().expect("two halves")
}

pub fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

pub fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

/// A span of a trace that ended now.
pub fn span(trace_id: [u8; 16], parent: Option<&Span>, name: &str, millis: u64) -> Span {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    Span {
        trace_id: trace_id.to_vec(),
        span_id: fresh_number().to_be_bytes().to_vec(),
        parent_span_id: parent.map(|parent| parent.span_id.clone()).unwrap_or_default(),
        name: name.to_owned(),
        kind: SpanKind::Server as i32,
        start_time_unix_nano: now - millis * MILLISECOND,
        end_time_unix_nano: now,
        attributes: vec![text("http.route", name), attribute("http.response.status_code", Value::IntValue(200))],
        ..Span::default()
    }
}

pub fn fail(span: &mut Span) {
    span.status = Some(Status { code: StatusCode::Error as i32, message: "it broke".into() });
}

/// One request of one service.
pub fn request(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope { name: "tests".into(), version: "1.2".into(), ..InstrumentationScope::default() };
    let resource =
        Resource { attributes: vec![text("service.name", service), text("host.name", "here")], ..Resource::default() };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans,
                schema_url: "https://opentelemetry.io/schemas/1.27.0".into(),
            }],
            schema_url: "https://opentelemetry.io/schemas/1.26.0".into(),
        }],
    }
}

/// A trace through three services, as each of them reports it.
#[derive(Clone, Debug)]
pub struct Trace {
    pub id: [u8; 16],
    /// By service: gateway (the root), checkout, payment.
    pub requests: [ExportTraceServiceRequest; 3],
}

impl Trace {
    /// Fast and without an error; its root takes `millis`.
    pub fn of(millis: u64) -> Trace {
        Trace::with_id(fresh_trace_id(), millis)
    }

    pub fn with_id(id: [u8; 16], millis: u64) -> Trace {
        let root = span(id, None, "POST /orders", millis);
        let mut call = span(id, Some(&root), "POST", millis / 2);
        call.kind = SpanKind::Client as i32;
        let mut checkout = span(id, Some(&call), "POST /checkout", millis / 2);
        checkout.flags = REMOTE_PARENT;
        checkout.events = vec![Event { name: "cache miss".into(), time_unix_nano: 5, ..Event::default() }];
        let mut payment = span(id, Some(&checkout), "POST /pay", millis / 4);
        payment.flags = REMOTE_PARENT;
        payment.trace_state = "vendor=keeps:this".into();
        payment.links = vec![Link { trace_id: vec![7; 16], span_id: vec![8; 8], ..Link::default() }];
        let requests = [("gateway", vec![root, call]), ("checkout", vec![checkout]), ("payment", vec![payment])];
        Trace { id, requests: requests.map(|(service, spans)| request(service, spans)) }
    }

    pub fn ok() -> Trace {
        Trace::of(20)
    }

    pub fn slow() -> Trace {
        Trace::of(900)
    }

    /// The innermost span fails, the others do not know.
    pub fn failed() -> Trace {
        let mut trace = Trace::ok();
        fail(&mut trace.requests[2].resource_spans[0].scope_spans[0].spans[0]);
        trace
    }

    pub fn hex(&self) -> String {
        hex(&self.id)
    }

    /// All of it in one request, the innermost service first.
    pub fn whole(&self) -> ExportTraceServiceRequest {
        let resource_spans = self.requests.iter().rev().flat_map(|request| request.resource_spans.clone());
        ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
    }

    pub fn body(&self) -> Vec<u8> {
        self.whole().encode_to_vec()
    }

    /// Every span where it belongs.
    pub fn placed(&self) -> Vec<Placed> {
        placed(&self.whole())
    }
}

/// A span with all that it inherits.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    pub resource: Option<Resource>,
    pub resource_schema: String,
    pub scope: Option<InstrumentationScope>,
    pub scope_schema: String,
    pub span: Span,
}

impl Placed {
    pub fn trace_id(&self) -> String {
        hex(&self.span.trace_id)
    }

    /// Its `tailkeep.*` attributes; twice the same key is an error.
    pub fn marks(&self) -> BTreeMap<&str, &str> {
        let mut marks = BTreeMap::new();
        for attribute in &self.span.attributes {
            let Some(key) = attribute.key.strip_prefix("tailkeep.") else { continue };
            let Some(Value::StringValue(value)) = attribute.value.as_ref().and_then(|any| any.value.as_ref()) else {
                panic!("{key} is a text")
            };
            assert!(marks.insert(key, value.as_str()).is_none(), "tailkeep.{key} is there twice");
        }
        marks
    }

    /// The `ot` member of its tracestate.
    pub fn weight(&self) -> Option<&str> {
        self.span.trace_state.split(',').find_map(|member| member.trim().strip_prefix("ot="))
    }

    /// Without what tailkeep adds.
    fn stripped(mut self) -> Placed {
        self.span.attributes.retain(|attribute| !attribute.key.starts_with("tailkeep."));
        let members = self.span.trace_state.split(',').filter(|member| !member.trim().starts_with("ot="));
        self.span.trace_state = members.collect::<Vec<_>>().join(",");
        self
    }
}

/// The spans of a request with what they inherit.
pub fn placed(request: &ExportTraceServiceRequest) -> Vec<Placed> {
    let mut spans = Vec::new();
    for resource in &request.resource_spans {
        for scope in &resource.scope_spans {
            spans.extend(scope.spans.iter().map(|span| Placed {
                resource: resource.resource.clone(),
                resource_schema: resource.schema_url.clone(),
                scope: scope.scope.clone(),
                scope_schema: scope.schema_url.clone(),
                span: span.clone(),
            }));
        }
    }
    spans
}

/// Asserts that exactly these spans came out, each once and as it was sent.
pub fn assert_same(out: &[Placed], sent: &[Placed]) {
    let sorted = |spans: &[Placed]| {
        let mut spans: Vec<Placed> = spans.iter().cloned().map(Placed::stripped).collect();
        spans.sort_by(|a, b| (&a.span.trace_id, &a.span.span_id).cmp(&(&b.span.trace_id, &b.span.span_id)));
        spans
    };
    let names = |spans: &[Placed]| -> Vec<String> {
        spans.iter().map(|placed| format!("{} {}", placed.trace_id(), placed.span.name)).collect()
    };
    let (out, sent) = (sorted(out), sorted(sent));
    assert_eq!(names(&out), names(&sent), "other spans came out than should");
    for (out, sent) in out.iter().zip(&sent) {
        assert_eq!(out, sent, "a span was changed on its way");
    }
}
