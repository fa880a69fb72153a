//! Traces as Jaeger's user interface and its `/api/traces` have them, translated by OpenTelemetry's specification,
//! "OpenTelemetry to Jaeger Transformation".

use crate::trace::{SpanKind, Status};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status as WireStatus};
use prost::Message;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Trace {
    #[serde(rename = "traceID")]
    trace_id: String,
    spans: Vec<JaegerSpan>,
    #[serde(default)]
    processes: BTreeMap<String, Process>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JaegerSpan {
    #[serde(rename = "spanID")]
    span_id: String,
    #[serde(rename = "parentSpanID", default)]
    parent_span_id: String,
    operation_name: String,
    #[serde(default)]
    references: Option<Vec<Reference>>,
    /// Microseconds, both.
    #[serde(default)]
    start_time: u64,
    #[serde(default)]
    duration: u64,
    #[serde(default)]
    tags: Vec<Tag>,
    #[serde(default)]
    logs: Option<Vec<JaegerLog>>,
    #[serde(rename = "processID", default)]
    process_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    ref_type: String,
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(rename = "spanID")]
    span_id: String,
}

#[derive(Deserialize)]
struct Tag {
    key: String,
    #[serde(rename = "type", default)]
    kind: String,
    value: Value,
}

#[derive(Deserialize)]
struct JaegerLog {
    #[serde(default)]
    timestamp: u64,
    #[serde(default)]
    fields: Vec<Tag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    service_name: String,
    #[serde(default)]
    tags: Vec<Tag>,
}

/// The request in a document; none if it is of another tool.
pub(super) fn read(document: &Value) -> Option<Result<Vec<u8>, String>> {
    let is_trace = |value: &Value| value.get("traceID").is_some() && value.get("spans").is_some();
    let traces: Vec<&Value> = match document.get("data") {
        Some(Value::Array(traces)) if traces.iter().all(is_trace) && !traces.is_empty() => traces.iter().collect(),
        _ if is_trace(document) => vec![document],
        _ => return None,
    };
    let groups = traces.into_iter().map(|trace| {
        let trace = Trace::deserialize(trace).map_err(|error| error.to_string())?;
        trace.spans.iter().map(|span| span.group(&trace)).collect::<Result<Vec<_>, String>>()
    });
    let groups = groups.collect::<Result<Vec<_>, String>>().map(|groups| groups.concat());
    let request = groups.map(|resource_spans| ExportTraceServiceRequest { resource_spans }.encode_to_vec());
    Some(request.map_err(|problem| format!("this looks like Jaeger's JSON, but {problem}")))
}

impl JaegerSpan {
    /// The span, beside what is known of its process.
    fn group(&self, trace: &Trace) -> Result<ResourceSpans, String> {
        let process = trace.processes.get(&self.process_id);
        let service = process
            .map(|process| key_value("service.name", any_value::Value::StringValue(process.service_name.clone())));
        let others = process.map_or(&[][..], |process| &process.tags).iter().map(Tag::attribute);
        let attributes = service.into_iter().chain(others).collect();
        Ok(ResourceSpans {
            resource: Some(Resource { attributes, ..Default::default() }),
            scope_spans: vec![ScopeSpans { spans: vec![self.span(trace)?], ..Default::default() }],
            ..Default::default()
        })
    }

    fn span(&self, trace: &Trace) -> Result<Span, String> {
        let start = self.start_time.saturating_mul(1000);
        let parent = match self.parent(trace) {
            "" => Vec::new(),
            id => bytes(id, 8)?,
        };
        let told = ["span.kind", "error", "otel.status_code", "otel.status_description", "w3c.tracestate"];
        let attributes = self.tags.iter().filter(|tag| !told.contains(&tag.key.as_str()));
        Ok(Span {
            trace_id: bytes(&trace.trace_id, 16)?,
            span_id: bytes(&self.span_id, 8)?,
            trace_state: self.text_of("w3c.tracestate"),
            parent_span_id: parent,
            name: self.operation_name.clone(),
            kind: self.kind() as i32,
            start_time_unix_nano: start,
            end_time_unix_nano: start.saturating_add(self.duration.saturating_mul(1000)),
            attributes: attributes.map(Tag::attribute).collect(),
            events: self.logs.iter().flatten().map(JaegerLog::event).collect(),
            status: Some(WireStatus { code: self.status() as i32, message: self.text_of("otel.status_description") }),
            ..Default::default()
        })
    }

    fn tag(&self, key: &str) -> Option<&Value> {
        self.tags.iter().find(|tag| tag.key == key).map(|tag| &tag.value)
    }

    /// Empty if there is no such tag.
    fn text_of(&self, key: &str) -> String {
        self.tag(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// The first span of this trace that this one is a child of; else the first that it follows from.
    fn parent<'a>(&'a self, trace: &'a Trace) -> &'a str {
        let here = || self.references.iter().flatten().filter(|reference| reference.trace_id == trace.trace_id);
        let child = here().find(|reference| reference.ref_type == "CHILD_OF").or_else(|| here().next());
        child.map_or(&self.parent_span_id, |reference| &reference.span_id)
    }

    fn kind(&self) -> SpanKind {
        let word = self.tag("span.kind").and_then(Value::as_str).unwrap_or_default();
        SpanKind::ALL.into_iter().find(|kind| kind.word().eq_ignore_ascii_case(word)).unwrap_or_default()
    }

    fn status(&self) -> Status {
        match self.tag("otel.status_code").and_then(Value::as_str) {
            Some(word) if word.eq_ignore_ascii_case("error") => Status::Error,
            Some(word) if word.eq_ignore_ascii_case("ok") => Status::Ok,
            _ if self.tag("error").is_some_and(is_true) => Status::Error,
            _ => Status::Unset,
        }
    }
}

fn is_true(value: &Value) -> bool {
    value.as_bool() == Some(true) || value.as_str() == Some("true")
}

impl JaegerLog {
    fn event(&self) -> Event {
        let name = self.fields.iter().find(|field| field.key == "event").and_then(|field| field.value.as_str());
        let others = self.fields.iter().filter(|field| field.key != "event");
        Event {
            time_unix_nano: self.timestamp.saturating_mul(1000),
            name: name.unwrap_or_default().to_owned(),
            attributes: others.map(Tag::attribute).collect(),
            ..Default::default()
        }
    }
}

impl Tag {
    fn attribute(&self) -> KeyValue {
        key_value(&self.key, self.any_value())
    }

    /// By the type that is named: a whole number may be a text, and a double may have no point.
    fn any_value(&self) -> any_value::Value {
        let text = || self.value.as_str().map_or_else(|| self.value.to_string(), str::to_owned);
        let typed = match self.kind.as_str() {
            "bool" => text().parse().ok().map(any_value::Value::BoolValue),
            "int64" => text().parse().ok().map(any_value::Value::IntValue),
            "float64" => text().parse().ok().map(any_value::Value::DoubleValue),
            "binary" => BASE64_STANDARD.decode(text()).ok().map(any_value::Value::BytesValue),
            "" => match &self.value {
                Value::Bool(value) => Some(any_value::Value::BoolValue(*value)),
                Value::Number(number) => match number.as_i64() {
                    Some(integer) => Some(any_value::Value::IntValue(integer)),
                    None => number.as_f64().map(any_value::Value::DoubleValue),
                },
                _ => None,
            },
            _ => None,
        };
        typed.unwrap_or_else(|| any_value::Value::StringValue(text()))
    }
}

fn key_value(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

/// Leading zeros may be left out.
fn bytes(id: &str, len: usize) -> Result<Vec<u8>, String> {
    let digits = format!("{id:0>width$}", width = 2 * len);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(byte).collect();
    bytes.filter(|bytes| bytes.len() == len).ok_or_else(|| format!("`{id}` is no id of {} hexadecimal digits", 2 * len))
}
