//! The traffic of a case: read from `traffic.json` as README.md describes it, and expanded to
//! requests in the order of their arrival.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use serde::Deserialize;
use std::collections::BTreeMap;
use tailkeep::trace::{SpanKind, Status as StatusWord};

/// 2026-01-01T00:00:00Z, Unix nanoseconds: the span clock when a case begins.
const BEGIN: u64 = 1_767_225_600_000_000_000;
const MILLISECOND: u64 = 1_000_000;

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    #[serde(default = "default_ring")]
    pub ring: String,
    pub traffic: Vec<Template>,
    #[serde(default)]
    pub reloads: Vec<Reload>,
    /// Milliseconds.
    pub drain: Option<u64>,
    /// Milliseconds.
    pub until: u64,
}

fn default_ring() -> String {
    "64MiB".to_owned()
}

fn once() -> u64 {
    1
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Reload {
    /// Milliseconds.
    pub at: u64,
    /// A file of the case's folder.
    pub policy: String,
}

/// Some number of traces that differ by their ids and their time alone.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Template {
    pub trace: String,
    #[serde(default)]
    pub at: u64,
    #[serde(default = "once")]
    pub times: u64,
    #[serde(default)]
    pub every: u64,
    pub spans: Vec<SpanTemplate>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct SpanTemplate {
    pub id: String,
    pub parent: Option<String>,
    pub remote_parent: Option<bool>,
    pub service: String,
    pub name: String,
    #[serde(default = "default_kind")]
    pub kind: String,
    #[serde(default = "default_status")]
    pub status: String,
    #[serde(default)]
    pub after: u64,
    pub start: Option<u64>,
    #[serde(default = "once")]
    pub duration: u64,
    #[serde(default = "once")]
    pub times: u64,
    #[serde(default)]
    pub every: u64,
    #[serde(default)]
    pub attributes: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    pub bytes: usize,
}

fn default_kind() -> String {
    "internal".to_owned()
}

fn default_status() -> String {
    "unset".to_owned()
}

/// A request and when it arrives, in milliseconds.
#[derive(Debug)]
pub struct Arrival {
    pub at: u64,
    pub request: ExportTraceServiceRequest,
}

impl Traffic {
    /// All requests before the drain, earliest first.
    pub fn arrivals(&self) -> Vec<Arrival> {
        let mut spans = BTreeMap::<u64, Vec<(&str, Span)>>::new();
        for template in &self.traffic {
            for number in 0..template.times {
                template.expand(number, |at, service, span| spans.entry(at).or_default().push((service, span)));
            }
        }
        let end = self.drain.unwrap_or(u64::MAX);
        spans
            .into_iter()
            .filter(|(at, _)| *at < end)
            .map(|(at, spans)| Arrival { at, request: request(spans) })
            .collect()
    }

    /// The ring's size in bytes.
    pub fn ring_bytes(&self) -> usize {
        let mebibytes = self.ring.strip_suffix("MiB").and_then(|number| number.parse::<usize>().ok());
        mebibytes.expect("ring is a whole number of MiB") << 20
    }

    /// Every trace's id with the label of its template.
    pub fn labels(&self) -> BTreeMap<Vec<u8>, &str> {
        let traces = |template| trace_labels(template).map(|label| (trace_id(&label), template.trace.as_str()));
        self.traffic.iter().flat_map(traces).collect()
    }
}

fn trace_labels(template: &Template) -> impl Iterator<Item = String> {
    (0..template.times).map(|number| template.trace.replace("{n}", &number.to_string()))
}

impl Template {
    /// Calls `each` with the arrival, the service and the span of every span of one repetition.
    fn expand<'a>(&'a self, number: u64, mut each: impl FnMut(u64, &'a str, Span)) {
        let trace = self.trace.replace("{n}", &number.to_string());
        let begin = self.at + number * self.every;
        for template in &self.spans {
            for i in 0..template.times {
                let shift = i * template.every;
                each(begin + template.after + shift, &template.service, template.span(&trace, i, begin + shift));
            }
        }
    }
}

impl SpanTemplate {
    /// `begin` is the time, in milliseconds, that `start` counts from.
    fn span(&self, trace: &str, number: u64, begin: u64) -> Span {
        let start = BEGIN + (begin + self.start.unwrap_or(self.after)) * MILLISECOND;
        Span {
            trace_id: trace_id(trace),
            span_id: span_id(trace, &self.id.replace("{i}", &number.to_string())),
            parent_span_id: self.parent.as_ref().map(|parent| span_id(trace, parent)).unwrap_or_default(),
            flags: match self.remote_parent {
                None => 0,
                Some(false) => 0x100,
                Some(true) => 0x300,
            },
            name: self.name.clone(),
            kind: word_number(SpanKind::ALL.map(SpanKind::word), &self.kind),
            start_time_unix_nano: start,
            end_time_unix_nano: start + self.duration * MILLISECOND,
            attributes: self.attributes(),
            status: Some(Status {
                code: word_number(StatusWord::ALL.map(StatusWord::word), &self.status),
                ..Status::default()
            }),
            ..Span::default()
        }
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let named = self.attributes.iter().map(|(key, value)| key_value(key, any_value(value)));
        let pad = (self.bytes > 0).then(|| key_value("pad", Value::StringValue("x".repeat(self.bytes))));
        named.chain(pad).collect()
    }
}

/// One resource for each service, spans in the order given.
fn request(spans: Vec<(&str, Span)>) -> ExportTraceServiceRequest {
    let mut by_service = Vec::<(&str, Vec<Span>)>::new();
    for (service, span) in spans {
        match by_service.iter_mut().find(|(known, _)| *known == service) {
            Some((_, spans)) => spans.push(span),
            None => by_service.push((service, vec![span])),
        }
    }
    let resource_spans = by_service.into_iter().map(|(service, spans)| resource_spans(service, spans)).collect();
    ExportTraceServiceRequest { resource_spans }
}

fn resource_spans(service: &str, spans: Vec<Span>) -> ResourceSpans {
    let name = key_value("service.name", Value::StringValue(service.to_owned()));
    ResourceSpans {
        resource: Some(Resource { attributes: vec![name], ..Resource::default() }),
        scope_spans: vec![ScopeSpans {
            scope: Some(InstrumentationScope { name: "reports".to_owned(), ..InstrumentationScope::default() }),
            spans,
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    }
}

fn any_value(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Bool(value) => Value::BoolValue(*value),
        serde_json::Value::String(value) => Value::StringValue(value.clone()),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(integer) => Value::IntValue(integer),
            None => Value::DoubleValue(number.as_f64().expect("a number that is no integer is a double")),
        },
        other => panic!("an attribute is a string, a boolean or a number, not {other}"),
    }
}

fn key_value(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn word_number<const N: usize>(words: [&str; N], word: &str) -> i32 {
    words.iter().position(|known| *known == word).unwrap_or_else(|| panic!("{word} is none of {words:?}")) as i32
}

fn trace_id(label: &str) -> Vec<u8> {
    let hash = fnv1a(label);
    [mix(hash), mix(hash.wrapping_add(1))].map(u64::to_be_bytes).concat()
}

fn span_id(trace: &str, label: &str) -> Vec<u8> {
    mix(fnv1a(&format!("{trace}/{label}"))).to_be_bytes().to_vec()
}

/// FNV-1a, 64 bit.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// SplitMix64's output for a state.
fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
