//! Files of traces as people have them, read as one OTLP request.

use super::observe::by_trace;
use super::{formats, jaeger, tempo};
use crate::otlp::json;
use crate::trace::Signal;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::Value;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

const READABLE: &str = "OTLP/JSON, an object with `resourceSpans`, as `/traces/{id}`, the file sink and the \
    Collector's file exporter write it, OTLP as protobuf, and the JSON of Jaeger and of Tempo";

/// The traces in a file. Several documents may follow each other, or be a list. The error says what is wrong with the
/// file.
pub(crate) fn read(file: &[u8]) -> Result<Vec<u8>, String> {
    let file = file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file);
    let error = match json::read_all(Signal::Traces, file) {
        Ok(request) if has_span(&request) => return Ok(request),
        Ok(_) => format!("no span in it; it must be {READABLE}"),
        Err(error) => format!("this is not OTLP/JSON: {error}"),
    };
    if let Some(read) = of_others(file) {
        return read;
    }
    if let Some(request) = of_protobuf(file).filter(|request| has_span(request)) {
        return Ok(request);
    }
    Err(formats::recognise(file).map_or(error, |name| format!("this is {name}; `explain` reads {READABLE}")))
}

/// True also of what no receiver takes: [`by_trace`] says so.
fn has_span(request: &[u8]) -> bool {
    by_trace(request).map_or(true, |traces| !traces.is_empty())
}

/// The JSON of tools whose traces can be read; none if it is of no such tool. Requests behind each other are one request.
fn of_others(file: &[u8]) -> Option<Result<Vec<u8>, String>> {
    let documents = serde_json::Deserializer::from_slice(file).into_iter::<Value>();
    let documents = documents.collect::<Result<Vec<Value>, _>>().ok()?;
    let mut all = Vec::new();
    for document in documents.into_iter().flat_map(elements) {
        match jaeger::read(&document).or_else(|| tempo::read(document))? {
            Ok(request) => all.extend(request),
            Err(problem) => return Some(Err(problem)),
        }
    }
    has_span(&all).then_some(Ok(all))
}

fn elements(document: Value) -> Vec<Value> {
    match document {
        Value::Array(items) => items,
        other => vec![other],
    }
}

/// One request, or several with their lengths before them, as the Collector's file exporter writes them.
fn of_protobuf(file: &[u8]) -> Option<Vec<u8>> {
    let is_request = |bytes: &[u8]| ExportTraceServiceRequest::decode(bytes).is_ok();
    if is_request(file) {
        return Some(file.to_vec());
    }
    let (mut rest, mut all) = (file, Vec::new());
    while !rest.is_empty() {
        let (len, behind) = rest.split_first_chunk()?;
        let (request, after) = behind.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        all.extend_from_slice(Some(request).filter(|request| is_request(request))?);
        rest = after;
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};

    fn request(names: &[&str]) -> Vec<u8> {
        let span = |name: &&str| Span {
            trace_id: vec![7; 16],
            span_id: vec![8; 8],
            name: (*name).to_owned(),
            ..Default::default()
        };
        let scope_spans = vec![ScopeSpans { spans: names.iter().map(span).collect(), ..Default::default() }];
        ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }] }
            .encode_to_vec()
    }

    fn prefixed(request: &[u8]) -> Vec<u8> {
        [&(request.len() as u32).to_be_bytes()[..], request].concat()
    }

    fn names(file: &[u8]) -> Vec<String> {
        let request = read(file).unwrap_or_else(|error| panic!("{error}"));
        let spans = by_trace(&request).expect("spans with ids").into_values().flatten();
        spans.map(|span| span.span.name).collect()
    }

    #[test]
    fn protobuf_is_read_with_and_without_lengths() {
        let (one, two) = (request(&["a"]), request(&["b", "c"]));
        assert_eq!(names(&one), ["a"]);
        assert_eq!(names(&prefixed(&two)), ["b", "c"]);
        let both = [prefixed(&one), prefixed(&two)].concat();
        assert_eq!(names(&both), ["a", "b", "c"]);
        let cut = read(&both[..both.len() - 1]).expect_err("cut in the middle");
        assert!(cut.starts_with("this is not OTLP/JSON"), "{cut}");
        assert!(read(&request(&[])).is_err(), "a request without a span");
    }

    #[test]
    fn documents_of_several_tools_may_follow_each_other() {
        let jaeger = r#"{"data":[{"traceID":"1","spans":[{"spanID":"1","operationName":"a"}],"processes":{}}]}"#;
        let tempo = r#"{"batches":[{"scopeSpans":[{"spans":[
            {"traceId":"AAAAAAAAAAAAAAAAAAAAAQ==","spanId":"AAAAAAAAAAI=","name":"b"}]}]}]}"#;
        assert_eq!(names(format!("\u{feff}[{jaeger},{tempo}]\n{jaeger}").as_bytes()), ["a", "b", "a"]);
    }
}
