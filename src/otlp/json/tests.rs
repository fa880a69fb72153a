//! Holds the tables and the writer against `opentelemetry-proto` and its own JSON form.

use super::*;

use crate::otlp::schema;
use crate::trace::Signal;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList, any_value,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar, metric,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::prelude::*;
use prost::Message as _;

fn write(signal: Signal, protobuf: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    super::write(&mut out, signal, protobuf).map(|()| out)
}

fn convert(signal: Signal, json: &[u8]) -> Result<Vec<u8>, String> {
    read(signal, json, Vec::new()).map_err(|unread| match unread {
        Unread::Json(error) => error.to_string(),
        Unread::Full(never) => match never {},
    })
}

fn traces(json: &str) -> ExportTraceServiceRequest {
    let protobuf = convert(Signal::Traces, json.as_bytes()).unwrap();
    ExportTraceServiceRequest::decode(&protobuf[..]).unwrap()
}

/// A request of one span, made of the given JSON fields.
fn span(fields: &str) -> Result<Span, String> {
    let json = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{fields}}}]}}]}}]}}"#);
    let protobuf = convert(Signal::Traces, json.as_bytes())?;
    let mut request = ExportTraceServiceRequest::decode(&protobuf[..]).unwrap();
    Ok(request.resource_spans.remove(0).scope_spans.remove(0).spans.remove(0))
}

fn value(json: &str) -> Option<any_value::Value> {
    let span = span(&format!(r#""attributes":[{{"key":"k","value":{json}}}]"#)).unwrap();
    span.attributes[0].value.clone().and_then(|value| value.value)
}

fn attributes() -> Vec<KeyValue> {
    use any_value::Value::*;
    let any = |value| AnyValue { value: Some(value) };
    let pair = |key: &str, value| KeyValue { key: key.to_owned(), value: Some(any(value)), ..Default::default() };
    vec![
        pair("text", StringValue("a \"quoted\" \u{1f600} line\n".to_owned())),
        pair("no text", StringValue(String::new())),
        pair("bool", BoolValue(false)),
        pair("int", IntValue(i64::MIN)),
        pair("double", DoubleValue(-0.5)),
        pair("array", ArrayValue(self::ArrayValue { values: vec![any(IntValue(0)), any(StringValue("x".into()))] })),
        pair("map", KvlistValue(KeyValueList { values: vec![pair("inner", BoolValue(true))] })),
        pair("bytes", BytesValue(vec![0, 255, 7])),
    ]
}

fn resource() -> Option<Resource> {
    let entity_refs = vec![EntityRef {
        schema_url: "schema".into(),
        r#type: "service".into(),
        id_keys: vec!["service.name".into(), "text".into()],
        description_keys: vec!["bool".into()],
    }];
    Some(Resource { attributes: attributes(), dropped_attributes_count: 1, entity_refs })
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: "scope".into(),
        version: "1".into(),
        attributes: attributes(),
        dropped_attributes_count: 300,
    })
}

fn every_span_field() -> ExportTraceServiceRequest {
    let link = Link {
        trace_id: vec![0x4b; 16],
        span_id: vec![0xf1; 8],
        trace_state: "a=b".into(),
        attributes: attributes(),
        dropped_attributes_count: 4,
        flags: 0x301,
    };
    let event =
        Event { time_unix_nano: 5, name: "event".into(), attributes: attributes(), dropped_attributes_count: 6 };
    let span = Span {
        trace_id: vec![0xab; 16],
        span_id: vec![1; 8],
        trace_state: "ot=th:8".into(),
        parent_span_id: vec![2; 8],
        flags: 0x101,
        name: "GET /".into(),
        kind: 3,
        start_time_unix_nano: u64::MAX,
        end_time_unix_nano: 1_700_000_000_123_456_789,
        attributes: attributes(),
        dropped_attributes_count: 7,
        events: vec![event, Event::default()],
        dropped_events_count: 8,
        links: vec![link],
        dropped_links_count: 9,
        status: Some(Status { message: "m".into(), code: 2 }),
    };
    let spans = vec![span, Span::default()];
    let scope_spans = vec![ScopeSpans { scope: scope(), spans, schema_url: "s".into() }, ScopeSpans::default()];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource: resource(), scope_spans, schema_url: "r".into() }],
    }
}

fn every_log_field() -> ExportLogsServiceRequest {
    let log_records = vec![LogRecord {
        time_unix_nano: 1,
        observed_time_unix_nano: 2,
        severity_number: 24,
        severity_text: "FATAL4".into(),
        body: Some(AnyValue { value: Some(any_value::Value::StringValue("body".into())) }),
        attributes: attributes(),
        dropped_attributes_count: 3,
        flags: 1,
        trace_id: vec![9; 16],
        span_id: vec![8; 8],
        event_name: "event".into(),
    }];
    let scope_logs = vec![ScopeLogs { scope: scope(), log_records, schema_url: "s".into() }];
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs { resource: resource(), scope_logs, schema_url: "r".into() }],
    }
}

fn exemplars() -> Vec<Exemplar> {
    let exemplar = |value| Exemplar {
        filtered_attributes: attributes(),
        time_unix_nano: 3,
        span_id: vec![1; 8],
        trace_id: vec![2; 16],
        value: Some(value),
    };
    vec![exemplar(exemplar::Value::AsDouble(0.0)), exemplar(exemplar::Value::AsInt(-4))]
}

fn number_points() -> Vec<NumberDataPoint> {
    let point = |value| NumberDataPoint {
        attributes: attributes(),
        start_time_unix_nano: 1,
        time_unix_nano: 2,
        exemplars: exemplars(),
        flags: 1,
        value: Some(value),
    };
    vec![point(number_data_point::Value::AsInt(-1)), point(number_data_point::Value::AsDouble(2.5))]
}

fn histogram_point() -> HistogramDataPoint {
    HistogramDataPoint {
        attributes: attributes(),
        start_time_unix_nano: 1,
        time_unix_nano: 2,
        count: 3,
        sum: Some(0.0),
        bucket_counts: vec![0, 1, u64::MAX],
        explicit_bounds: vec![-1.5, 0.0],
        exemplars: exemplars(),
        flags: 1,
        min: Some(-2.0),
        max: Some(7.0),
    }
}

fn exponential_point() -> ExponentialHistogramDataPoint {
    ExponentialHistogramDataPoint {
        attributes: attributes(),
        start_time_unix_nano: 1,
        time_unix_nano: 2,
        count: 3,
        sum: Some(4.5),
        scale: -3,
        zero_count: 5,
        positive: Some(Buckets { offset: i32::MIN, bucket_counts: vec![0, 300] }),
        negative: Some(Buckets { offset: i32::MAX, bucket_counts: vec![1] }),
        flags: 1,
        exemplars: exemplars(),
        min: Some(0.0),
        max: Some(8.0),
        zero_threshold: 0.25,
    }
}

fn every_metric_field() -> ExportMetricsServiceRequest {
    let quantile_values = vec![ValueAtQuantile { quantile: 0.99, value: 7.0 }];
    let summary = SummaryDataPoint {
        attributes: attributes(),
        start_time_unix_nano: 1,
        time_unix_nano: 2,
        count: 3,
        sum: 4.0,
        quantile_values,
        flags: 1,
    };
    let data = [
        metric::Data::Gauge(Gauge { data_points: number_points() }),
        metric::Data::Sum(Sum { data_points: number_points(), aggregation_temporality: 2, is_monotonic: true }),
        metric::Data::Histogram(Histogram { data_points: vec![histogram_point()], aggregation_temporality: 1 }),
        metric::Data::ExponentialHistogram(ExponentialHistogram {
            data_points: vec![exponential_point()],
            aggregation_temporality: 1,
        }),
        metric::Data::Summary(Summary { data_points: vec![summary] }),
    ];
    let metrics = data.into_iter().map(|data| Metric {
        name: "n".into(),
        description: "d".into(),
        unit: "u".into(),
        metadata: attributes(),
        data: Some(data),
    });
    let scope_metrics = vec![ScopeMetrics { scope: scope(), metrics: metrics.collect(), schema_url: "s".into() }];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { resource: resource(), scope_metrics, schema_url: "r".into() }],
    }
}

#[test]
fn every_field_of_every_message_arrives() {
    let request = every_span_field();
    let json = serde_json::to_vec(&request).unwrap();
    assert_eq!(ExportTraceServiceRequest::decode(&convert(Signal::Traces, &json).unwrap()[..]), Ok(request));
    let request = every_metric_field();
    let json = serde_json::to_vec(&request).unwrap();
    assert_eq!(ExportMetricsServiceRequest::decode(&convert(Signal::Metrics, &json).unwrap()[..]), Ok(request));
    let request = every_log_field();
    let json = serde_json::to_vec(&request).unwrap();
    assert_eq!(ExportLogsServiceRequest::decode(&convert(Signal::Logs, &json).unwrap()[..]), Ok(request));
}

#[test]
fn the_bytes_are_what_an_encoder_writes() {
    // Field order in the JSON is the order on the wire: this one goes by number.
    let span = span(r#""traceId":"AB","name":"n","kind":2,"endTimeUnixNano":"7""#).unwrap();
    let json = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[
        {"traceId":"ab","name":"n","kind":2,"startTimeUnixNano":0,"endTimeUnixNano":7,"attributes":[]}]}]}]}"#;
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..Default::default() }];
    let request =
        ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }] };
    assert_eq!(convert(Signal::Traces, json.as_bytes()), Ok(request.encode_to_vec()));
}

#[test]
fn numbers_come_as_numbers_or_strings() {
    for written in ["1700000000000000001", "\"1700000000000000001\""] {
        let span = span(&format!(r#""startTimeUnixNano":{written}"#)).unwrap();
        assert_eq!(span.start_time_unix_nano, 1_700_000_000_000_000_001);
    }
    assert_eq!(span(r#""startTimeUnixNano":1.5e3,"kind":2.0"#).unwrap().start_time_unix_nano, 1500);
    assert_eq!(value(r#"{"intValue":-1}"#), Some(any_value::Value::IntValue(-1)));
    assert_eq!(value(r#"{"intValue":"9223372036854775807"}"#), Some(any_value::Value::IntValue(i64::MAX)));
    assert_eq!(value(r#"{"doubleValue":3}"#), Some(any_value::Value::DoubleValue(3.0)));
    assert_eq!(
        value(r#"{"doubleValue":8.31632781251592e-112}"#),
        Some(any_value::Value::DoubleValue(8.31632781251592e-112))
    );
    assert_eq!(value(r#"{"doubleValue":"-Infinity"}"#), Some(any_value::Value::DoubleValue(f64::NEG_INFINITY)));
    assert!(matches!(value(r#"{"doubleValue":"NaN"}"#), Some(any_value::Value::DoubleValue(nan)) if nan.is_nan()));
    for bad in [r#""kind":1.5"#, r#""flags":4294967296"#, r#""flags":-1"#, r#""startTimeUnixNano":"soon""#] {
        let error = span(bad).unwrap_err();
        assert!(error.contains("a whole number of 32 bits") || error.contains("64 bits") || error.contains("enum"));
    }
}

#[test]
fn absent_null_and_empty_are_the_same() {
    let bare = span(r#""spanId":"0102030405060708""#).unwrap();
    for fields in [
        r#""parentSpanId":null,"traceState":null,"attributes":null,"status":null,"kind":null,"flags":null"#,
        r#""parentSpanId":"","traceState":"","attributes":[],"events":[],"droppedLinksCount":0"#,
    ] {
        assert_eq!(span(&format!(r#""spanId":"0102030405060708",{fields}"#)).unwrap(), bare);
    }
    assert_eq!(traces("{}"), ExportTraceServiceRequest::default());
    assert_eq!(traces(r#"{"resourceSpans":null}"#), ExportTraceServiceRequest::default());
}

#[test]
fn an_empty_value_keeps_its_place() {
    assert_eq!(value("{}"), None);
    assert_eq!(value(r#"{"someNewValue":[1,{"a":2}]}"#), None, "an unknown value is no error");
    let Some(any_value::Value::ArrayValue(list)) = value(r#"{"arrayValue":{"values":[{},null,{"intValue":1}]}}"#)
    else {
        panic!("a list was sent");
    };
    assert_eq!(list.values.len(), 3);
    assert_eq!(list.values[1], AnyValue::default());
}

#[test]
fn unknown_keys_are_ignored_whatever_they_hold() {
    let fields = r#""name":"n","newField":{"deep":[[{"x":"\ud83d"}],1e5,null]},"":true"#;
    assert_eq!(span(fields).unwrap(), Span { name: "n".into(), ..Default::default() });
}

#[test]
fn text_that_is_no_unicode_is_mended() {
    let cut = span(r#""name":"abc\ud83d""#).unwrap();
    assert!(cut.name.starts_with("abc\u{fffd}"), "{:?}", cut.name);
    let json = [&br#"{"resourceSpans":[{"schemaUrl":"a"#[..], b"\xff", br#""}]}"#].concat();
    let protobuf = convert(Signal::Traces, &json).unwrap();
    let request = ExportTraceServiceRequest::decode(&protobuf[..]).unwrap();
    assert_eq!(request.resource_spans[0].schema_url, "a\u{fffd}");
}

#[test]
fn base64_comes_in_either_alphabet_with_or_without_padding() {
    for written in ["+/+/Bw==", "+/+/Bw", "-_-_Bw==", "-_-_Bw"] {
        let bytes = vec![0xfb, 0xff, 0xbf, 7];
        assert_eq!(value(&format!(r#"{{"bytesValue":"{written}"}}"#)), Some(any_value::Value::BytesValue(bytes)));
    }
}

#[test]
fn errors_say_where_and_what_to_write() {
    for (fields, says) in [
        (r#""traceId":"q/rN7Q==""#, "expected hexadecimal digits for `traceId` at line 1 column"),
        (r#""traceId":"abc""#, "expected hexadecimal digits for `traceId`"),
        (r#""kind":"server""#, "expected the number or the name of an enum value for `kind`"),
        (r#""attributes":{"a":1}"#, "expected a list, each an object, for `attributes`"),
        (r#""name":["n"]"#, "expected text for `name`"),
        (r#""name":7"#, "expected text for `name`"),
        (r#""status":"OK""#, "expected an object for `status`"),
        (r#""events":[3]"#, "expected an object for `events`"),
    ] {
        let error = span(fields).unwrap_err();
        assert!(error.contains(says), "{fields}: {error}");
    }
    let long = span(&format!(r#""kind":"{}""#, "\u{fffd}".repeat(10_000))).unwrap_err();
    assert!(long.len() < 300, "{} bytes of error", long.len());
    for (json, says) in [("", "EOF"), ("[]", "an object"), ("{} {}", "trailing characters"), ("null", "an object")] {
        let error = convert(Signal::Traces, json.as_bytes()).unwrap_err();
        assert!(error.contains(says), "{json}: {error}");
    }
}

#[test]
fn every_truncation_is_malformed() {
    let json = serde_json::to_vec(&every_log_field()).unwrap();
    for cut in 0..json.len() {
        assert!(convert(Signal::Logs, &json[..cut]).is_err(), "at {cut}");
    }
}

/// Deeper than a receiver of protobuf would take it, and not deeper: that is refused, with its item, behind.
#[test]
fn depth_costs_neither_the_request_nor_the_stack() {
    let open = r#"{"arrayValue":{"values":["#;
    let json = |depth: usize| {
        let deep = format!(r#"[{{"value":{}{}}}]"#, open.repeat(depth), "]}}".repeat(depth));
        format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"attributes":{deep}}},{{"name":"n"}}]}}]}}]}}"#)
    };
    for (depth, is_taken) in [(30, true), (48, true), (49, false), (100_000, false)] {
        let protobuf = convert(Signal::Traces, json(depth).as_bytes()).unwrap();
        let checked = crate::scan::check::check(crate::scan::check::MessageType::TracesRequest, &protobuf);
        assert_eq!(checked.is_ok(), is_taken, "{depth}");
        assert_eq!(crate::scan::items::count(Signal::Traces, &protobuf), Ok(2), "{depth}");
    }
}

/// A list in a list nests by two messages, a map in a map by three: so that every depth is reached.
#[test]
fn what_is_taken_is_written_to_its_depth() {
    use crate::otlp::wire::put_bytes;
    let wrap = |bytes: &[u8], numbers: &[u32]| {
        numbers.iter().fold(bytes.to_vec(), |inner, number| {
            let mut outer = Vec::new();
            put_bytes(&mut outer, *number, &inner);
            outer
        })
    };
    for (maps, lists) in [(0, 47), (1, 45), (1, 46)] {
        let mut any = wrap(b"innermost", &[1]);
        (0..lists).for_each(|_| any = wrap(&any, &[1, 5]));
        (0..maps).for_each(|_| any = wrap(&any, &[2, 1, 6]));
        let body = wrap(&any, &[2, 9, 2, 2, 1]);
        assert!(crate::scan::check::check(crate::scan::check::MessageType::TracesRequest, &body).is_ok());
        let json = write(Signal::Traces, &body).unwrap();
        assert!(String::from_utf8(json).unwrap().contains("innermost"), "{maps} maps, {lists} lists");
    }
}

#[test]
fn enums_come_by_name_too() {
    let named = span(r#""kind":"SPAN_KIND_CONSUMER","status":{"code":"STATUS_CODE_ERROR"}"#).unwrap();
    assert_eq!((named.kind, named.status.map(|status| status.code)), (5, Some(2)));
    assert_eq!(span(r#""kind":"2""#).unwrap().kind, 2);
    let logs = br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"severityNumber":"SEVERITY_NUMBER_FATAL4"}]}]}]}"#;
    let logs = ExportLogsServiceRequest::decode(&convert(Signal::Logs, logs).unwrap()[..]).unwrap();
    assert_eq!(logs.resource_logs[0].scope_logs[0].log_records[0].severity_number, 24);
    let metrics = br#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[
        {"sum":{"aggregationTemporality":"AGGREGATION_TEMPORALITY_CUMULATIVE"}}]}]}]}"#;
    let metrics = ExportMetricsServiceRequest::decode(&convert(Signal::Metrics, metrics).unwrap()[..]).unwrap();
    let sum = metrics.resource_metrics[0].scope_metrics[0].metrics[0].data.clone();
    assert_eq!(sum, Some(metric::Data::Sum(Sum { aggregation_temporality: 2, ..Default::default() })));
}

/// Every name of the tables is the one that the specification's own code has for the number.
#[test]
fn enum_names_stand_at_their_numbers() {
    use opentelemetry_proto::tonic::logs::v1::SeverityNumber;
    use opentelemetry_proto::tonic::metrics::v1::AggregationTemporality;
    use opentelemetry_proto::tonic::trace::v1::{span::SpanKind, status::StatusCode};
    let named = |names: &[&str], name: fn(i32) -> Option<&'static str>| {
        for (number, written) in names.iter().enumerate() {
            assert_eq!(name(number as i32), Some(*written));
        }
        assert_eq!(name(names.len() as i32), None);
    };
    named(&schema::SPAN_KINDS, |n| SpanKind::try_from(n).ok().map(|known| known.as_str_name()));
    named(&schema::STATUS_CODES, |n| StatusCode::try_from(n).ok().map(|known| known.as_str_name()));
    named(&schema::SEVERITIES, |n| SeverityNumber::try_from(n).ok().map(|known| known.as_str_name()));
    named(&schema::TEMPORALITIES, |n| AggregationTemporality::try_from(n).ok().map(|known| known.as_str_name()));
}

#[test]
fn requests_follow_each_other_or_stand_in_lists() {
    let one = |name: &str| format!(r#"{{"resourceSpans":[{{"schemaUrl":"{name}"}}]}}"#);
    let text = format!("{}\n[{},{}]\r\n[] {} ", one("a"), one("b"), one("c"), one("d"));
    let request = ExportTraceServiceRequest::decode(&read_all(Signal::Traces, text.as_bytes()).unwrap()[..]).unwrap();
    let names: Vec<&str> = request.resource_spans.iter().map(|group| group.schema_url.as_str()).collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
    assert!(read_all(Signal::Traces, b"{} 7").unwrap_err().to_string().contains("or a list of such objects"));
    assert!(read_all(Signal::Traces, b"{} {").unwrap_err().to_string().contains("EOF"));
}

/// Their JSON of our protobuf: what they leave out or write as a default is the same.
fn assert_written<R>(signal: Signal, request: R)
where
    R: prost::Message + Default + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let protobuf = request.encode_to_vec();
    let json = write(signal, &protobuf).unwrap();
    assert_eq!(serde_json::from_slice::<R>(&json).unwrap(), request, "{}", String::from_utf8_lossy(&json));
    assert_eq!(R::decode(&convert(signal, &json).unwrap()[..]), Ok(request));
}

#[test]
fn every_field_of_every_message_is_written() {
    assert_written(Signal::Traces, every_span_field());
    assert_written(Signal::Metrics, every_metric_field());
    assert_written(Signal::Logs, every_log_field());
}

#[test]
fn what_is_not_finite_is_written_in_words() {
    let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 1e300, 0.1];
    let histogram = HistogramDataPoint { explicit_bounds: values.to_vec(), sum: Some(f64::NAN), ..Default::default() };
    let data = metric::Data::Histogram(Histogram { data_points: vec![histogram], aggregation_temporality: 2 });
    let scope_metrics =
        vec![ScopeMetrics { metrics: vec![Metric { data: Some(data), ..Default::default() }], ..Default::default() }];
    let resource_metrics = vec![ResourceMetrics { scope_metrics, ..Default::default() }];
    let protobuf = ExportMetricsServiceRequest { resource_metrics }.encode_to_vec();
    let json = String::from_utf8(write(Signal::Metrics, &protobuf).unwrap()).unwrap();
    assert_eq!(
        json,
        r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"histogram":{"dataPoints":[{"sum":"NaN","#.to_owned()
            + r#""explicitBounds":["NaN","Infinity","-Infinity",-0.0,1e300,0.1]}],"aggregationTemporality":2}}]}]}]}"#
    );
    assert_eq!(convert(Signal::Metrics, json.as_bytes()).map(|read| read.len()), Ok(protobuf.len()));
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let keys = ["resourceSpans", "scopeSpans", "spans", "attributes", "key", "value", "arrayValue", "values", "name"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-f0-9\"]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(8, 64, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((proptest::sample::select(keys.to_vec()), inner), 0..4).prop_map(|fields| {
                Value::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_is_accepted_decodes(json in any_json()) {
        if let Ok(protobuf) = convert(Signal::Traces, json.to_string().as_bytes()) {
            prop_assert!(ExportTraceServiceRequest::decode(&protobuf[..]).is_ok());
        }
    }

    /// prost says what damaged bytes mean: fields that come again, in any order, packed or not.
    #[test]
    fn what_is_written_means_what_was_read(
        signal in prop::sample::select(Signal::ALL.to_vec()),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..3),
    ) {
        let mut protobuf = match signal {
            Signal::Traces => every_span_field().encode_to_vec(),
            Signal::Metrics => every_metric_field().encode_to_vec(),
            Signal::Logs => every_log_field().encode_to_vec(),
        };
        for (at, byte) in damage {
            let at = at.index(protobuf.len());
            protobuf[at] = byte;
        }
        let meaning = |protobuf: &[u8]| match signal {
            Signal::Traces => ExportTraceServiceRequest::decode(protobuf).map(|read| format!("{read:?}")),
            Signal::Metrics => ExportMetricsServiceRequest::decode(protobuf).map(|read| format!("{read:?}")),
            Signal::Logs => ExportLogsServiceRequest::decode(protobuf).map(|read| format!("{read:?}")),
        };
        if let Ok(meant) = meaning(&protobuf) {
            // Indices into a dictionary that only profiles have: the tables do not know them.
            let plain = meant.matches("strindex: 0,").count() + meant.matches("strindex: 0 ").count();
            if meant.matches("trindex").count() == plain {
                let json = write(signal, &protobuf).expect("prost reads it");
                let read = convert(signal, &json).expect("we write it");
                prop_assert_eq!(meaning(&read).expect("it is protobuf"), meant);
            }
        }
    }
}
