use super::*;
use crate::otlp::{
    schema::{KEY_VALUE, LOGS, METRICS, TRACES},
    wire::{put_bytes, put_varint},
};
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{EntityRef, InstrumentationScope},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    metrics::v1 as metrics,
    resource::v1::Resource,
    trace::v1 as trace,
};
use proptest::{prelude::*, test_runner::TestRng};
use prost::Message as _;
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeSet, fmt::Debug};

fn written(signal: Signal, body: &[u8]) -> io::Result<String> {
    let mut out = Vec::new();
    write(&mut out, signal, body)?;
    assert_eq!(len(signal, body).unwrap(), out.len() as u64);
    Ok(String::from_utf8(out).expect("JSON is UTF-8"))
}

/// A random message of this kind: fields in any order, lists packed or not, messages in parts, unknown fields between.
fn random(kind: &Message, rng: &mut TestRng, depth: usize, out: &mut Vec<u8>) {
    let choices: Vec<u32> = kind.fields.iter().filter(|f| f.count == Count::Choice).map(|f| f.number).collect();
    let chosen = choices.get(rng.random_range(0..=choices.len())).copied();
    let mut todo: Vec<&FieldSchema> = Vec::new();
    for field in kind.fields {
        let times = match field.count {
            Count::Choice => usize::from(chosen == Some(field.number)),
            Count::One | Count::Optional | Count::Always => [0, 1, 1, 2][rng.random_range(0..4)],
            Count::Many(_) => rng.random_range(0..3),
        };
        todo.extend(std::iter::repeat_n(field, times));
    }
    while !todo.is_empty() {
        let field = todo.swap_remove(rng.random_range(0..todo.len()));
        random_field(field, rng, depth, out);
        if rng.random_range(0..8) == 0 {
            out.extend([0xf8, 0x3f, 5]);
        }
    }
}

fn random_field(field: &FieldSchema, rng: &mut TestRng, depth: usize, out: &mut Vec<u8>) {
    const TEXTS: [&str; 5] = ["", "GET /", "\"\\\n\u{1}\u{7f}", "grüße 😀\u{2028}", "k"];
    let number: u64 = [0, 1, 127, 128, u64::MAX, 1 << 63, rng.random()][rng.random_range(0..7)];
    let tag = |wire: u64| u64::from(field.number) << 3 | wire;
    let double = [0.0, -0.0, 1.5, 1e300, -1e-7, 1e16, 0.1, f64::MAX][rng.random_range(0..8)];
    match field.kind {
        Kind::Nested(kind) => {
            let mut inner = Vec::new();
            if depth > 0 {
                random(kind, rng, depth - 1, &mut inner);
            }
            put_bytes(out, field.number, &inner);
        }
        Kind::Text => put_bytes(out, field.number, TEXTS[rng.random_range(0..5)].as_bytes()),
        Kind::Hex => put_bytes(out, field.number, &number.to_be_bytes()),
        Kind::Base64 => put_bytes(out, field.number, &vec![7; rng.random_range(0..5000)]),
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 | Kind::Uint64 => {
            let bits = if matches!(field.kind, Kind::Double) { f64::to_bits(double) } else { number };
            let mut value = Vec::new();
            match field.kind {
                Kind::Uint64 => put_varint(&mut value, bits),
                _ => value.extend(bits.to_le_bytes()),
            }
            let is_list = matches!(field.count, Count::Many(_));
            if is_list && rng.random() {
                put_bytes(out, field.number, &value.repeat(rng.random_range(0..4)));
            } else {
                put_varint(out, tag(if matches!(field.kind, Kind::Uint64) { 0 } else { 1 }));
                out.extend(value);
            }
        }
        Kind::Fixed32 => {
            put_varint(out, tag(5));
            out.extend((number as u32).to_le_bytes());
        }
        Kind::Bool => {
            put_varint(out, tag(0));
            put_varint(out, number & 1);
        }
        Kind::Enum(_) | Kind::Uint32 | Kind::Sint32 | Kind::Int64 => {
            put_varint(out, tag(0));
            put_varint(out, number);
        }
    }
}

fn same<T: prost::Message + Default + DeserializeOwned + PartialEq + Debug>(signal: Signal, body: &[u8]) {
    let text = written(signal, body).unwrap();
    let read: T = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let decoded = T::decode(body).unwrap();
    // By bytes, for a NaN is unlike itself.
    assert_eq!(read.encode_to_vec(), decoded.encode_to_vec(), "{text}\n{decoded:?}");
}

proptest! {
    /// opentelemetry-proto's own JSON reads back what prost decodes from the bytes.
    #[test]
    fn it_says_what_the_bytes_say(seed: u64) {
        let seed: Vec<u8> = seed.to_be_bytes().repeat(4);
        let mut rng = TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &seed);
        for signal in Signal::ALL {
            let mut body = Vec::new();
            random(Message::request(signal), &mut rng, 9, &mut body);
            match signal {
                Signal::Traces => same::<ExportTraceServiceRequest>(signal, &body),
                Signal::Metrics => same::<ExportMetricsServiceRequest>(signal, &body),
                Signal::Logs => same::<ExportLogsServiceRequest>(signal, &body),
            }
        }
    }

    /// Cut and changed bytes: an error, or JSON.
    #[test]
    fn damaged_bytes_are_an_error_or_json(seed: u64, at: prop::sample::Index, byte: u8) {
        let seed: Vec<u8> = seed.to_be_bytes().repeat(4);
        let mut rng = TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &seed);
        for signal in Signal::ALL {
            let mut body = Vec::new();
            random(Message::request(signal), &mut rng, 6, &mut body);
            if !body.is_empty() {
                let at = at.index(body.len());
                body[at] = byte;
            }
            match written(signal, &body) {
                Ok(text) => prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text),
                Err(error) => prop_assert_eq!(error.kind(), io::ErrorKind::InvalidData),
            }
        }
    }
}

/// Each scope with what is around it.
fn scopes(requests: impl IntoIterator<Item = ExportTraceServiceRequest>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let resources = requests.into_iter().flat_map(|request| request.resource_spans);
    let scopes = resources.flat_map(|mut spans| {
        let scopes = std::mem::take(&mut spans.scope_spans);
        scopes.into_iter().map(move |scope| (spans.encode_to_vec(), scope.encode_to_vec()))
    });
    scopes.collect()
}

fn list_of(pieces: &[Vec<u8>]) -> ExportTraceServiceRequest {
    let (mut list, mut out) = (SpanList::default(), Vec::new());
    pieces.iter().try_for_each(|piece| list.write(&mut out, piece)).unwrap();
    list.end(&mut out).unwrap();
    serde_json::from_slice(&out).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out)))
}

proptest! {
    #[test]
    fn pieces_say_together_what_each_of_them_says(seed: u64, order in prop::collection::vec(0..3usize, 0..6)) {
        let seed: Vec<u8> = seed.to_be_bytes().repeat(4);
        let mut rng = TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &seed);
        let messages: [Vec<u8>; 3] = std::array::from_fn(|_| {
            let mut body = Vec::new();
            random(&TRACES, &mut rng, 6, &mut body);
            body
        });
        let pieces: Vec<Vec<u8>> = order.into_iter().map(|at| messages[at].clone()).collect();
        let decoded = pieces.iter().map(|piece| ExportTraceServiceRequest::decode(piece.as_slice()).unwrap());
        prop_assert_eq!(scopes([list_of(&pieces)]), scopes(decoded));
    }
}

#[test]
fn pieces_of_one_resource_write_it_once() {
    let piece = |url: &str| {
        let resource_spans = trace::ResourceSpans {
            resource: Some(Resource::default()),
            scope_spans: vec![trace::ScopeSpans::default(); 2],
            schema_url: url.into(),
        };
        ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
    };
    let list = list_of(&["a", "a", "b", "a", "a", "a"].map(piece));
    let found: Vec<_> = list.resource_spans.iter().map(|r| (r.schema_url.as_str(), r.scope_spans.len())).collect();
    assert_eq!(found, [("a", 4), ("b", 2), ("a", 6)]);
}

/// The names in the table of the message that `path` leads to.
fn names_at(root: &'static Message, path: &[&str]) -> BTreeSet<&'static str> {
    let inside = |kind: &'static Message, name: &&str| {
        let field = kind.fields.iter().find(|field| field.name == *name).unwrap_or_else(|| panic!("no {name}"));
        match field.kind {
            Kind::Nested(inner) => inner,
            _ => panic!("{name} is no message"),
        }
    };
    path.iter().fold(root, inside).fields.iter().map(|field| field.name).collect()
}

fn knows_all_of<T: Default + Serialize>(root: &'static Message, path: &[&str]) {
    let value = serde_json::to_value(T::default()).unwrap();
    let names = names_at(root, path);
    for name in value.as_object().unwrap().keys() {
        assert!(names.contains(name.as_str()), "{path:?} lacks {name}");
    }
}

#[test]
fn no_field_is_forgotten() {
    let resource = ["resourceSpans", "resource"];
    knows_all_of::<ExportTraceServiceRequest>(&TRACES, &[]);
    knows_all_of::<trace::ResourceSpans>(&TRACES, &["resourceSpans"]);
    knows_all_of::<Resource>(&TRACES, &resource);
    knows_all_of::<EntityRef>(&TRACES, &["resourceSpans", "resource", "entityRefs"]);
    knows_all_of::<trace::ScopeSpans>(&TRACES, &["resourceSpans", "scopeSpans"]);
    knows_all_of::<InstrumentationScope>(&TRACES, &["resourceSpans", "scopeSpans", "scope"]);
    knows_all_of::<trace::Span>(&TRACES, &["resourceSpans", "scopeSpans", "spans"]);
    knows_all_of::<trace::span::Event>(&TRACES, &["resourceSpans", "scopeSpans", "spans", "events"]);
    knows_all_of::<trace::span::Link>(&TRACES, &["resourceSpans", "scopeSpans", "spans", "links"]);
    knows_all_of::<trace::Status>(&TRACES, &["resourceSpans", "scopeSpans", "spans", "status"]);
    knows_all_of::<opentelemetry_proto::tonic::common::v1::KeyValue>(&KEY_VALUE, &[]);

    let metric = |rest: &[&'static str]| [&["resourceMetrics", "scopeMetrics", "metrics"], rest].concat();
    knows_all_of::<ExportMetricsServiceRequest>(&METRICS, &[]);
    knows_all_of::<metrics::ResourceMetrics>(&METRICS, &["resourceMetrics"]);
    knows_all_of::<metrics::ScopeMetrics>(&METRICS, &["resourceMetrics", "scopeMetrics"]);
    knows_all_of::<metrics::Metric>(&METRICS, &metric(&[]));
    knows_all_of::<metrics::Gauge>(&METRICS, &metric(&["gauge"]));
    knows_all_of::<metrics::Sum>(&METRICS, &metric(&["sum"]));
    knows_all_of::<metrics::Histogram>(&METRICS, &metric(&["histogram"]));
    knows_all_of::<metrics::ExponentialHistogram>(&METRICS, &metric(&["exponentialHistogram"]));
    knows_all_of::<metrics::Summary>(&METRICS, &metric(&["summary"]));
    knows_all_of::<metrics::NumberDataPoint>(&METRICS, &metric(&["gauge", "dataPoints"]));
    knows_all_of::<metrics::Exemplar>(&METRICS, &metric(&["gauge", "dataPoints", "exemplars"]));
    knows_all_of::<metrics::HistogramDataPoint>(&METRICS, &metric(&["histogram", "dataPoints"]));
    let exponential = metric(&["exponentialHistogram", "dataPoints"]);
    knows_all_of::<metrics::ExponentialHistogramDataPoint>(&METRICS, &exponential);
    let buckets = metric(&["exponentialHistogram", "dataPoints", "positive"]);
    knows_all_of::<metrics::exponential_histogram_data_point::Buckets>(&METRICS, &buckets);
    knows_all_of::<metrics::SummaryDataPoint>(&METRICS, &metric(&["summary", "dataPoints"]));
    let quantile = metric(&["summary", "dataPoints", "quantileValues"]);
    knows_all_of::<metrics::summary_data_point::ValueAtQuantile>(&METRICS, &quantile);

    knows_all_of::<ExportLogsServiceRequest>(&LOGS, &[]);
    knows_all_of::<ResourceLogs>(&LOGS, &["resourceLogs"]);
    knows_all_of::<ScopeLogs>(&LOGS, &["resourceLogs", "scopeLogs"]);
    knows_all_of::<LogRecord>(&LOGS, &["resourceLogs", "scopeLogs", "logRecords"]);
}

#[test]
fn no_message_has_more_fields_than_there_are_slots() {
    fn check(kind: &'static Message, depth: usize) {
        assert!(kind.fields.len() <= FIELDS_MAX);
        for field in kind.fields {
            if let (Kind::Nested(inner), true) = (field.kind, depth > 0) {
                check(inner, depth - 1);
            }
        }
    }
    Signal::ALL.into_iter().for_each(|signal| check(Message::request(signal), 9));
}

/// A span with this attribute value, an `AnyValue`, in an otherwise empty request.
fn with_value(any: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    put_bytes(&mut body, 2, any);
    for number in [9, 2, 2, 1] {
        let mut outer = Vec::new();
        put_bytes(&mut outer, number, &body);
        body = outer;
    }
    body
}

fn value_of(text: &str) -> serde_json::Value {
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    value["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"][0]["value"].clone()
}

#[test]
fn doubles_that_json_lacks_are_the_texts_of_protobuf() {
    for (number, text) in [(f64::NAN, "NaN"), (f64::INFINITY, "Infinity"), (f64::NEG_INFINITY, "-Infinity")] {
        let any = [&[0x21][..], &number.to_le_bytes()].concat();
        let value = value_of(&written(Signal::Traces, &with_value(&any)).unwrap());
        assert_eq!(value, serde_json::json!({ "doubleValue": text }));
    }
}

#[test]
fn text_that_is_not_utf8_is_repaired() {
    let value = value_of(&written(Signal::Traces, &with_value(b"\x0a\x03a\xffb")).unwrap());
    assert_eq!(value["stringValue"], "a\u{fffd}b");
}

#[test]
fn deep_values_end_somewhere() {
    let mut any = b"\x0a\x01x".to_vec();
    for _ in 0..5_000 {
        let (mut list, mut outer) = (Vec::new(), Vec::new());
        put_bytes(&mut list, 1, &any);
        put_bytes(&mut outer, 5, &list);
        any = outer;
    }
    let text = written(Signal::Traces, &with_value(&any)).unwrap();
    assert!(text.len() < 10_000 && text.matches("arrayValue").count() > 40, "{}", text.len());
}

/// Two bytes of an attribute become more than twenty of JSON: they go where they are to go at once.
#[test]
fn nothing_is_gathered_on_the_way() {
    struct Largest(usize);
    impl Write for Largest {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.max(bytes.len());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut body = [0x4a, 0x00].repeat(100_000);
    for number in [2, 2, 1] {
        let mut outer = Vec::new();
        put_bytes(&mut outer, number, &body);
        body = outer;
    }
    let mut largest = Largest(0);
    write(&mut largest, Signal::Traces, &body).unwrap();
    assert!(largest.0 < 100, "{}", largest.0);
}
