//! Names what somebody took for OTLP/JSON.

use serde_json::Value;

/// What is where in the JSON of others, and whose it is.
const JSON: &[(&[&str], &str)] = &[
    (&["/data/0/traceID", "/data/0/spans"], "Jaeger's JSON, without a span"),
    (&["/traceID", "/spans"], "Jaeger's JSON, without a span"),
    (&["/errors/0/msg"], "an error that Jaeger answered, without a trace"),
    (&["/result/resourceSpans"], "Jaeger's JSON, without a span"),
    (&["/batches"], "Tempo's JSON, without a span"),
    (&["/trace/resourceSpans"], "Tempo's JSON, without a span"),
    (&["/trace/batches"], "Tempo's JSON, without a span"),
    (&["/traces/0/traceID"], "an answer of Tempo's search, which has no spans: ask /api/traces/{id}"),
    (&["/0/traceId", "/0/id"], "Zipkin's JSON"),
    (&["/traceId", "/id"], "Zipkin's JSON"),
    (&["/0/0/trace_id", "/0/0/span_id"], "Datadog's JSON"),
    (&["/data/0/attributes/trace_id", "/data/0/attributes/span_id"], "Datadog's JSON"),
    (&["/trace/root_id", "/trace/spans"], "Datadog's JSON"),
    (&["/0/common", "/0/spans"], "New Relic's JSON"),
    (&["/hits/hits"], "an answer of Elasticsearch"),
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
    (
        b"SQLite format 3",
        "a SQLite file: `tailkeep traces --store` reads the store, and `/traces/{id}` gives its traces",
    ),
];

/// What pages and messages begin with, in small letters and without what is blank before it.
const TEXTS: &[(&str, &str)] = &[
    ("<!doctype html", "a page of HTML, maybe of an error or a login"),
    ("<html", "a page of HTML, maybe of an error or a login"),
    ("<?xml", "XML"),
    ("trace not found", "the message that a trace was not found"),
    ("version:", "YAML, maybe the policy: it goes behind `--policy`"),
];

/// The format of a file in which no span was found, if it is a known one.
pub(super) fn recognise(file: &[u8]) -> Option<&'static str> {
    let beginning = BEGINNINGS.iter().find(|(bytes, _)| file.starts_with(bytes)).map(|(_, name)| *name);
    beginning.or_else(|| of_text(file)).or_else(|| of_json(file))
}

fn of_text(file: &[u8]) -> Option<&'static str> {
    let begins =
        |word: &str| file.trim_ascii_start().get(..word.len()).is_some_and(|b| b.eq_ignore_ascii_case(word.as_bytes()));
    TEXTS.iter().find(|(word, _)| begins(word)).map(|(_, name)| *name)
}

fn of_json(file: &[u8]) -> Option<&'static str> {
    let document = serde_json::Deserializer::from_slice(file).into_iter::<Value>().next()?.ok()?;
    let has = |paths: &[&str]| paths.iter().all(|path| document.pointer(path).is_some());
    JSON.iter().find(|(paths, _)| has(paths)).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_others_are_named() {
        let files: &[(&[u8], &str)] = &[
            (br#"{"data":[{"traceID":"5b8e","spans":[],"processes":{}}]}"#, "Jaeger's JSON, without a span"),
            (br#"{"data":null,"errors":[{"code":404,"msg":"trace not found"}]}"#, "an error that Jaeger answered"),
            (br#"{"trace":{"resourceSpans":[]},"message":""}"#, "Tempo's JSON, without a span"),
            (br#"{"traces":[{"traceID":"5b8e","rootServiceName":"shop"}]}"#, "Tempo's search"),
            (b"trace not found", "a trace was not found"),
            (b"\n<!DOCTYPE html><title>502</title>", "HTML"),
            (b"<HTML>", "HTML"),
            (b"version: 1\nrules: []\n", "the policy"),
            (b"SQLite format 3\0", "SQLite"),
            (br#"{"data":[{"type":"span","attributes":{"trace_id":"1","span_id":"2"}}]}"#, "Datadog's"),
            (br#"[{"common":{},"spans":[]}]"#, "New Relic's"),
            (br#"{"took":3,"hits":{"hits":[]}}"#, "Elasticsearch"),
            (br#"[{"traceId":"5b8e","id":"eee1","kind":"SERVER","timestamp":1}]"#, "Zipkin's"),
            (br#"[[{"trace_id":1,"span_id":2,"resource":"/"}]]"#, "Datadog's"),
            (br#"{"Traces":[{"Id":"1-5","Segments":[]}]}"#, "X-Ray"),
            (br#"{"name":"GET /","context":{"trace_id":"0x5b","span_id":"0xee"}}"#, "console exporter"),
            (br#"{"resourceLogs":[]}"#, "logs"),
            (br#"{"resource":{},"scopeSpans":[]}"#, "a part of OTLP/JSON"),
            (b"\xff\xfe{\x00", "UTF-16"),
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
