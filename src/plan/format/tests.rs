use super::*;
use crate::plan::{Compared, Planner, PolicyText};
use crate::trace::RuleNames;
use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use std::io::Write;

const POLICY: &str = "version: 1\nrules: []\notherwise: { keep: all }\n";

fn request(trace: u8) -> Vec<u8> {
    let span = Span { trace_id: vec![trace; 16], span_id: vec![1; 8], name: "GET /".into(), ..Default::default() };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..Default::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }] }
        .encode_to_vec()
}

fn line(trace: u8) -> Vec<u8> {
    let mut line = Vec::new();
    json::write(&mut line, Signal::Traces, &request(trace)).unwrap();
    line.push(b'\n');
    line
}

fn prefixed(record: Vec<u8>) -> Vec<u8> {
    [&(record.len() as u32).to_be_bytes()[..], &record].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn zstd_of(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// Traces that were read, and where it was cut.
fn read_all(file: &[u8]) -> (u64, Option<RecordingCut>) {
    let text = PolicyText { file: "policy", text: POLICY };
    let compared = Compared::compile(text, text, &[], RuleNames::default()).unwrap();
    let questions = compared.questions().unwrap();
    let mut recording = Recording::new(&questions, 100);
    let cut = read(file, &mut recording).err();
    (recording.plan(Planner::new(&compared, 100)).window.traces, cut)
}

fn concat(parts: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    parts.flatten().collect()
}

#[test]
fn every_form_is_read_and_known_by_its_content() {
    let lines = concat((1..=3).map(line));
    let pretty: serde_json::Value = serde_json::from_slice(&line(1)).unwrap();
    let pretty = format!("{pretty:#}\n{pretty:#}\n").into_bytes();
    let binary = concat((1..=3).map(|n| prefixed(request(n))));
    let forms: Vec<(&str, Vec<u8>, u64)> = vec![
        ("lines", lines.clone(), 3),
        ("byte order mark", [BYTE_ORDER_MARK, &lines].concat(), 3),
        ("blank lines", [b"\n\n", &lines[..], b"\n"].concat(), 3),
        ("list", [&b"["[..], &line(1), b",", &line(2), b"]"].concat(), 2),
        ("documents of several lines", pretty, 1),
        ("length and protobuf", binary.clone(), 3),
        ("one request", concat((1..=2).map(request)), 2),
        ("requests that are compressed each", concat((1..=3).map(|n| prefixed(zstd_of(&request(n))))), 3),
        ("lines that are compressed each", concat((1..=3).map(|n| prefixed(zstd_of(&line(n))))), 3),
        ("nothing", Vec::new(), 0),
    ];
    for (name, file, traces) in forms {
        for (packed, file) in [("", file.clone()), ("gzip", gzip(&file)), ("zstd", zstd_of(&file))] {
            let (read, cut) = read_all(&file);
            assert_eq!((read, cut.map(|cut| cut.to_string())), (traces, None), "{name} {packed}");
        }
    }
    let members = [gzip(&line(1)), gzip(&line(2))].concat();
    assert_eq!(read_all(&members).0, 2, "gzip that was appended to");
}

#[test]
fn what_stands_before_a_cut_counts_and_its_place_is_said() {
    let lines = concat((1..=3).map(line));
    let binary = concat((1..=3).map(|n| prefixed(request(n))));
    let alone = concat((1..=3).map(request));
    let record = prefixed(request(1)).len();
    for (file, place) in [
        (&lines[..lines.len() - 9], format!("line 3 (byte {}): the file ends in the middle", line(1).len() * 2)),
        (&binary[..binary.len() - 9], format!("byte {}: the file ends in the middle of a request", record * 2)),
        (&binary[..record * 2 + 2], format!("byte {}: the file ends in the middle of a length", record * 2)),
        (&alone[..alone.len() - 9], format!("byte {}: the file ends in the middle", request(1).len() * 2)),
    ] {
        let (traces, cut) = read_all(file);
        assert_eq!(traces, 2);
        assert!(cut.as_ref().is_some_and(|cut| cut.to_string().contains(&place)), "{cut:?} is not {place}");
    }
    // The compressor holds all of so short a file back until its end.
    let long = concat((0..5000u32).map(|n| line(n as u8 | 1)));
    for packed in [gzip(&long), zstd_of(&long)] {
        let (_, cut) = read_all(&packed[..packed.len() - 5]);
        assert!(cut.is_some_and(|cut| cut.why.contains("ends in the middle") || cut.why.contains("incomplete")));
    }
}

#[test]
fn what_is_no_recording_is_refused() {
    for (file, why) in [
        (&b"version: 1\n"[..], "no recording of traces that is known"),
        (b"{\"resourceSpans\": 5}\n", "not OTLP/JSON"),
        (b"{\"resourceSpans\": [\n 5\n]}\n", "not OTLP/JSON"),
        (b"\x00\x00\x00\x03abc", "no ExportTraceServiceRequest"),
    ] {
        let (traces, cut) = read_all(file);
        assert_eq!(traces, 0);
        assert!(cut.as_ref().is_some_and(|cut| cut.why.contains(why)), "{cut:?}");
    }
}
