//! Names what somebody took for OTLP/JSON.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::Value;

/// What is where in the JSON of others, and whose it is.
const JSON: &[(&[&str], &str)] = &[
    (&["/data/0/traceID", "/data/0/spans"], "Jaeger's JSON"),
    (&["/traceID", "/spans"], "Jaeger's JSON"),
    (&["/result/resourceSpans"], "an answer of Jaeger's /api/v3/traces, with OTLP/JSON under `result`"),
    (&["/batches"], "Tempo's JSON"),
    (&["/trace/resourceSpans"], "Tempo's JSON"),
    (&["/trace/batches"], "Tempo's JSON"),
    (&["/0/traceId", "/0/id"], "Zipkin's JSON"),
    (&["/traceId", "/id"], "Zipkin's JSON"),
    (&["/0/0/trace_id", "/0/0/span_id"], "Datadog's JSON"),
    (&["/Traces/0/Segments"], "the JSON of AWS X-Ray"),
    (&["/context/trace_id"], "the output of an SDK's console exporter"),
    (&["/resourceMetrics"], "OTLP/JSON of metrics"),
    (&["/resourceLogs"], "OTLP/JSON of logs"),
    (&["/scopeSpans"], "a part of OTLP/JSON: write `{\"resourceSpans\": [` before it and `]}` after it"),
    (&["/traceId", "/spanId"], "one span out of OTLP/JSON, without the object around it"),
];

/// What files of others begin with.
const BEGINNINGS: &[(&[u8], &str)] = &[
    (b"\xff\xfe", "text in UTF-16: save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16: save it as UTF-8"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: decompress it first"),
    (b"PK\x03\x04", "a zip archive: unpack it first"),
];

/// The format of a file in which no span was found, if it is a known one.
pub(super) fn recognise(file: &[u8]) -> Option<&'static str> {
    let beginning = BEGINNINGS.iter().find(|(bytes, _)| file.starts_with(bytes)).map(|(_, name)| *name);
    beginning.or_else(|| of_json(file)).or_else(|| is_protobuf(file).then_some("OTLP as protobuf"))
}

fn of_json(file: &[u8]) -> Option<&'static str> {
    let document = serde_json::Deserializer::from_slice(file).into_iter::<Value>().next()?.ok()?;
    let has = |paths: &[&str]| paths.iter().all(|path| document.pointer(path).is_some());
    JSON.iter().find(|(paths, _)| has(paths)).map(|(_, name)| *name)
}

/// With or without its length before it.
fn is_protobuf(file: &[u8]) -> bool {
    let has_spans = |bytes| ExportTraceServiceRequest::decode(bytes).is_ok_and(|read| !read.resource_spans.is_empty());
    let prefixed = file.split_first_chunk().and_then(|(len, rest)| rest.get(..u32::from_be_bytes(*len) as usize));
    has_spans(file) || prefixed.is_some_and(has_spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_others_are_named() {
        let request = ExportTraceServiceRequest { resource_spans: vec![Default::default()] }.encode_to_vec();
        let prefixed = [&(request.len() as u32).to_be_bytes()[..], &request].concat();
        let files: &[(&[u8], &str)] = &[
            (br#"{"data":[{"traceID":"5b8e","spans":[{"operationName":"GET /"}],"processes":{}}]}"#, "Jaeger's JSON"),
            (br#"{"result":{"resourceSpans":[]}}"#, "an answer of Jaeger's /api/v3/traces"),
            (br#"{"batches":[{"scopeSpans":[{"spans":[{"traceId":"cgXI6uihz643E6Zqq7Nl4w=="}]}]}]}"#, "Tempo's"),
            (br#"{"trace":{"resourceSpans":[]},"message":""}"#, "Tempo's"),
            (br#"[{"traceId":"5b8e","id":"eee1","kind":"SERVER","timestamp":1}]"#, "Zipkin's"),
            (br#"[[{"trace_id":1,"span_id":2,"resource":"/"}]]"#, "Datadog's"),
            (br#"{"Traces":[{"Id":"1-5","Segments":[]}]}"#, "X-Ray"),
            (br#"{"name":"GET /","context":{"trace_id":"0x5b","span_id":"0xee"}}"#, "console exporter"),
            (br#"{"resourceLogs":[]}"#, "logs"),
            (br#"{"resource":{},"scopeSpans":[]}"#, "a part of OTLP/JSON"),
            (b"\xff\xfe{\x00", "UTF-16"),
            (&request, "protobuf"),
            (&prefixed, "protobuf"),
        ];
        for (file, name) in files {
            let named = recognise(file).unwrap_or("nothing");
            assert!(named.contains(name), "{} is said to be {named}", String::from_utf8_lossy(file));
        }
        for unknown in [&b""[..], b"{}", b"[]", b"{\"name\":\"x\"}", b"text", b"\x00\x00\x00\x00"] {
            assert_eq!(recognise(unknown), None);
        }
    }
}
