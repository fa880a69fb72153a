//! Spans as the tests write them, choices that make random ones, and the way to a compiled summary.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status as WireStatus, span::Event};
use prost::Message;
use tailkeep::policy::Policy;
use tailkeep::policy::explain::decoded::DecodedSpan;
use tailkeep::policy::explain::observe::{self, DecodedTrace};
use tailkeep::scan::{Keyed, Questions, Scan, SpanBounds};
use tailkeep::trace::{SpanKind, Status, Summary, TraceId};

#[derive(Clone, PartialEq, Debug)]
pub enum Val {
    Text(String),
    Int(i64),
    Double(f64),
    Bool(bool),
    Array(Vec<Val>),
}

#[derive(Clone, Debug)]
pub struct TestSpan {
    pub id: u64,
    /// Zero: none.
    pub parent: u64,
    /// What the flags say of the parent, if anything.
    pub remote: Option<bool>,
    pub service: String,
    pub name: String,
    pub kind: SpanKind,
    pub status: Status,
    /// Empty: none.
    pub message: String,
    /// It counts as an error, as far as somebody has said so.
    pub is_error: bool,
    /// Nanoseconds.
    pub start: u64,
    pub end: u64,
    pub attributes: Vec<(String, Val)>,
    pub resource: Vec<(String, Val)>,
    pub events: Vec<String>,
    pub state: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub struct TestTrace {
    pub id: TraceId,
    pub spans: Vec<TestSpan>,
    pub limited: bool,
    pub forgotten: bool,
    pub stored_bytes: u64,
}

/// The trace with its summary by the compiled policy's questions.
pub fn decoded_of(policy: &Policy, trace: &TestTrace) -> DecodedTrace {
    let decoded = DecodedTrace::of(trace.id, trace.spans.iter().map(|span| decode(trace.id, span)).collect(), policy);
    let mut summary = scanned(policy, &decoded);
    (summary.limited, summary.forgotten) = (trace.limited, trace.forgotten);
    DecodedTrace { summary, ..decoded }
}

/// The summary that a running process keeps of the trace.
fn scanned(policy: &Policy, decoded: &DecodedTrace) -> Summary {
    let resource_spans = |span: &DecodedSpan| ResourceSpans {
        resource: Some(Resource { attributes: span.resource.clone(), ..Resource::default() }),
        scope_spans: vec![ScopeSpans { spans: vec![span.span.clone()], ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    };
    let request = ExportTraceServiceRequest { resource_spans: decoded.spans.iter().map(resource_spans).collect() };
    let questions = Questions::compile(&policy.conditions, &[], policy.number).expect("few questions");
    let questions = questions.counting_by(&policy.entry_attributes).counting_errors(policy.error_facts);
    let mut scan = Scan::new(Keyed::new(7));
    scan.read(&request.encode_to_vec(), &questions, SpanBounds::of_bytes(1 << 20)).expect("well formed");
    assert_eq!(scan.spans.len(), decoded.spans.len());
    let mut summary = Summary::default();
    for (span, decoded) in scan.spans.iter().zip(&decoded.spans) {
        assert_eq!(span.facts, observe::facts_of(&policy.conditions, decoded), "{decoded:?}");
        let resource = scan.scopes[span.scope as usize].resource;
        summary.observe(span, scan.resources[resource as usize].service_hash, &policy.masks);
    }
    summary
}

fn decode(trace: TraceId, span: &TestSpan) -> DecodedSpan {
    let mut resource = key_values(&span.resource);
    resource.push(key_value("service.name", &Val::Text(span.service.clone())));
    let flags = match span.remote {
        None => 0,
        Some(false) => 0x100,
        Some(true) => 0x300,
    };
    let id_bytes = |id: u64| if id == 0 { Vec::new() } else { id.to_be_bytes().to_vec() };
    let state: Vec<String> = span.state.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let span = Span {
        trace_id: trace.0.to_vec(),
        span_id: id_bytes(span.id),
        parent_span_id: id_bytes(span.parent),
        flags,
        name: span.name.clone(),
        kind: span.kind as i32,
        start_time_unix_nano: span.start,
        end_time_unix_nano: span.end,
        attributes: key_values(&span.attributes),
        events: span.events.iter().map(|name| Event { name: name.clone(), ..Event::default() }).collect(),
        trace_state: state.join(","),
        status: Some(WireStatus { code: span.status as i32, message: span.message.clone() }),
        ..Span::default()
    };
    DecodedSpan::new(resource, span)
}

fn key_values(pairs: &[(String, Val)]) -> Vec<KeyValue> {
    pairs.iter().map(|(key, value)| key_value(key, value)).collect()
}

fn key_value(key: &str, value: &Val) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(any_value(value)), ..KeyValue::default() }
}

fn any_value(value: &Val) -> AnyValue {
    let value = match value {
        Val::Text(text) => Value::StringValue(text.clone()),
        Val::Int(value) => Value::IntValue(*value),
        Val::Double(value) => Value::DoubleValue(*value),
        Val::Bool(value) => Value::BoolValue(*value),
        Val::Array(values) => Value::ArrayValue(ArrayValue { values: values.iter().map(any_value).collect() }),
    };
    AnyValue { value: Some(value) }
}

/// Decisions of a generator, one byte each. When they run out, every decision is the first alternative,
/// so a shorter list is a simpler case, which is what shrinking needs.
pub struct Choices<'a>(pub std::slice::Iter<'a, u8>);

impl Choices<'_> {
    pub fn below(&mut self, n: usize) -> usize {
        self.0.next().map_or(0, |byte| usize::from(*byte) % n)
    }

    pub fn of<'t, T>(&mut self, items: &'t [T]) -> &'t T {
        &items[self.below(items.len())]
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }
}

pub const SERVICES: [&str; 3] = ["shop", "pay", "shop-cart"];
pub const NAMES: [&str; 4] = ["GET /a", "GET /a/b", "POST /a", "job"];
/// Pairs of new and old names among them.
pub const KEYS: [&str; 6] =
    ["http.response.status_code", "http.status_code", "app.n", "app.tag", "db.system", "db.system.name"];
pub const DURATIONS_MS: [u64; 5] = [0, 1, 10, 100, 1000];

pub fn random_trace(choices: &mut Choices<'_>) -> TestTrace {
    let mut id = [0; 16];
    id.iter_mut().for_each(|byte| *byte = choices.below(256) as u8);
    // No decimal digit: an id that reads as EagleEye's draws by a hash, which `trace::weight` tests.
    id[4] |= 0xa0;
    let count = 1 + choices.below(4);
    let spans = (1..=count as u64).map(|id| random_span(choices, id)).collect();
    TestTrace {
        id: TraceId(id),
        spans,
        limited: choices.once_in(10),
        forgotten: choices.once_in(10),
        stored_bytes: 100 * choices.below(20) as u64,
    }
}

pub fn random_span(choices: &mut Choices<'_>, id: u64) -> TestSpan {
    let start = 1_000_000_000 + 1_000_000 * choices.of(&DURATIONS_MS);
    // A broken clock ends a span before it starts.
    let end = if choices.once_in(12) { start - 5 } else { start + 1_000_000 * choices.of(&DURATIONS_MS) };
    let mut state = Vec::new();
    if choices.once_in(6) {
        state.push(("vendor".to_owned(), (*choices.of(&["a", "b"])).to_owned()));
    }
    if choices.once_in(6) {
        let rv = choices.of(&["00000000000001", "80000000000000", "f0000000000000"]);
        state.push(("ot".to_owned(), format!("rv:{rv}")));
    }
    TestSpan {
        id,
        parent: choices.below(5) as u64,
        remote: *choices.of(&[None, Some(false), Some(true)]),
        service: (*choices.of(&SERVICES)).to_owned(),
        name: (*choices.of(&NAMES)).to_owned(),
        kind: *choices.of(&SpanKind::ALL),
        status: *choices.of(&[Status::Unset, Status::Ok, Status::Error, Status::Unset]),
        message: (*choices.of(&["", "", "a", "context canceled"])).to_owned(),
        is_error: false,
        start,
        end,
        attributes: random_pairs(choices, &KEYS),
        resource: random_pairs(choices, &["deployment.environment", "deployment.environment.name"]),
        events: (0..choices.below(3)).map(|_| (*choices.of(&["exception", "retry"])).to_owned()).collect(),
        state,
    }
}

/// A key may occur twice.
fn random_pairs(choices: &mut Choices<'_>, keys: &[&str]) -> Vec<(String, Val)> {
    (0..choices.below(4)).map(|_| ((*choices.of(keys)).to_owned(), random_value(choices))).collect()
}

pub const NUMBERS: [f64; 4] = [200.0, 500.0, 0.5, -1.0];
pub const TEXTS: [&str; 4] = ["mysql", "500", "prod", "true"];

fn random_value(choices: &mut Choices<'_>) -> Val {
    match choices.below(6) {
        0 => Val::Int(*choices.of(&[200, 500, 503, -1])),
        1 => Val::Text((*choices.of(&TEXTS)).to_owned()),
        2 => Val::Double(*choices.of(&NUMBERS)),
        3 => Val::Bool(choices.once_in(2)),
        4 => Val::Array((0..choices.below(3)).map(|_| Val::Text((*choices.of(&TEXTS)).to_owned())).collect()),
        _ => Val::Array((0..choices.below(3)).map(|_| Val::Int(*choices.of(&[200, 500]))).collect()),
    }
}
