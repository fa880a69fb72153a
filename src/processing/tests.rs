//! Processing against a slow reference over decoded messages, and word for word where the words are the promise.

mod reference;

use super::*;
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    metrics::v1::{
        Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
        NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, metric::Data,
    },
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span},
};
use proptest::prelude::*;
use prost::Message;
use reference::Reference;
use regex::Regex;
use std::sync::LazyLock;

const RANDOM: u64 = 7;

fn keys(keys: &[&str]) -> Keys {
    Keys::new(keys.iter().map(|key| (*key).to_owned()))
}

fn settings() -> ProcessingSettings {
    ProcessingSettings {
        drop: keys(&["secret", "http.request.header.*"]),
        hash: keys(&["user.id"]),
        hash_key: None,
        masks: vec![
            Mask::word(Words::Email),
            Mask::word(Words::CnMobile),
            Mask::new(Some(keys(&["note"])), Regex::new("[a-z]{3}-[0-9]+").unwrap()),
        ],
        resource: vec![("k8s.cluster.name".into(), "prod".into()), ("user.id".into(), "x".into())],
    }
}

fn text(text: &str) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(text.into())) }
}

fn pair(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.into(), value: Some(value), ..Default::default() }
}

fn key() -> impl Strategy<Value = String> {
    const KEYS: &[&str] = &["secret", "http.request.header.cookie", "user.id", "note", "k8s.cluster.name", "other", ""];
    prop::sample::select(KEYS).prop_map(str::to_owned)
}

fn words() -> impl Strategy<Value = String> {
    const WORDS: &[&str] =
        &["", "plain", "of bob@shop.example now", "手机13812345678。", "abc-12 and abc-13", "a@b.c 13812345678"];
    prop_oneof![prop::sample::select(WORDS).prop_map(str::to_owned), "[a-z0-9@. -]{0,200}"]
}

fn value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        Just(None),
        words().prop_map(|words| Some(Value::StringValue(words))),
        any::<bool>().prop_map(|value| Some(Value::BoolValue(value))),
        prop_oneof![any::<i64>(), Just(13_812_345_678)].prop_map(|value| Some(Value::IntValue(value))),
        any::<f64>().prop_map(|value| Some(Value::DoubleValue(value))),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(|bytes| Some(Value::BytesValue(bytes))),
    ];
    leaf.prop_map(|value| AnyValue { value }).prop_recursive(4, 24, 4, |inner| {
        let pair = (key(), inner.clone()).prop_map(|(key, value)| pair(&key, value));
        prop_oneof![
            prop::collection::vec(inner, 0..4)
                .prop_map(|values| AnyValue { value: Some(Value::ArrayValue(ArrayValue { values })) }),
            prop::collection::vec(pair, 0..4)
                .prop_map(|values| AnyValue { value: Some(Value::KvlistValue(KeyValueList { values })) }),
        ]
    })
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let value = prop_oneof![8 => value().prop_map(Some), 1 => Just(None)];
    let pair = (key(), value).prop_map(|(key, value)| KeyValue { key, value, ..Default::default() });
    prop::collection::vec(pair, 0..4)
}

/// What a request is filled with, from the last to the first.
#[derive(Clone, Debug)]
struct Filling {
    attributes: Vec<Vec<KeyValue>>,
    texts: Vec<String>,
    value: AnyValue,
    has_resource: bool,
}

impl Filling {
    fn attributes(&mut self) -> Vec<KeyValue> {
        self.attributes.pop().unwrap_or_default()
    }

    fn text(&mut self) -> String {
        self.texts.pop().unwrap_or_default()
    }

    fn resource(&mut self) -> Option<Resource> {
        self.has_resource.then(|| Resource { attributes: self.attributes(), ..Default::default() })
    }

    fn scope(&mut self) -> Option<InstrumentationScope> {
        Some(InstrumentationScope { name: "a@b.example".into(), attributes: self.attributes(), ..Default::default() })
    }
}

fn filling() -> impl Strategy<Value = Filling> {
    let attributes = prop::collection::vec(attributes(), 0..14);
    (attributes, prop::collection::vec(words(), 0..5), value(), any::<bool>())
        .prop_map(|(attributes, texts, value, has_resource)| Filling { attributes, texts, value, has_resource })
}

fn traces(mut filling: Filling) -> ExportTraceServiceRequest {
    let fill = &mut filling;
    let event = span::Event { name: fill.text(), attributes: fill.attributes(), ..Default::default() };
    let link = span::Link { trace_state: "a=a@b.example".into(), attributes: fill.attributes(), ..Default::default() };
    let span = Span {
        name: fill.text(),
        attributes: fill.attributes(),
        events: vec![event],
        links: vec![link],
        status: Some(Status { message: fill.text(), code: 2 }),
        ..Default::default()
    };
    let scope_spans = ScopeSpans { scope: fill.scope(), spans: vec![span], ..Default::default() };
    let group = ResourceSpans {
        resource: fill.resource(),
        scope_spans: vec![scope_spans],
        schema_url: "https://x@y.example/schema".into(),
    };
    let bare = ResourceSpans { resource: fill.resource(), ..Default::default() };
    ExportTraceServiceRequest { resource_spans: vec![group, bare] }
}

fn logs(mut filling: Filling) -> ExportLogsServiceRequest {
    let fill = &mut filling;
    let record = LogRecord {
        severity_text: "a@b.example".into(),
        body: Some(fill.value.clone()),
        attributes: fill.attributes(),
        ..Default::default()
    };
    let scope_logs = ScopeLogs { scope: fill.scope(), log_records: vec![record], ..Default::default() };
    let group = ResourceLogs { resource: fill.resource(), scope_logs: vec![scope_logs], ..Default::default() };
    ExportLogsServiceRequest { resource_logs: vec![group] }
}

fn metrics(mut filling: Filling) -> ExportMetricsServiceRequest {
    let fill = &mut filling;
    let exemplars = vec![Exemplar { filtered_attributes: fill.attributes(), ..Default::default() }];
    let number = NumberDataPoint { attributes: fill.attributes(), exemplars: exemplars.clone(), ..Default::default() };
    let data = [
        Data::Gauge(Gauge { data_points: vec![number.clone()] }),
        Data::Sum(Sum { data_points: vec![number], ..Default::default() }),
        Data::Histogram(Histogram {
            data_points: vec![HistogramDataPoint { attributes: fill.attributes(), exemplars, ..Default::default() }],
            ..Default::default()
        }),
        Data::ExponentialHistogram(ExponentialHistogram {
            data_points: vec![ExponentialHistogramDataPoint { attributes: fill.attributes(), ..Default::default() }],
            ..Default::default()
        }),
        Data::Summary(Summary {
            data_points: vec![SummaryDataPoint { attributes: fill.attributes(), ..Default::default() }],
        }),
    ];
    let metric = |data| Metric { name: "a@b.example".into(), data: Some(data), ..Default::default() };
    let metrics = data.into_iter().map(metric).collect();
    let scope_metrics = ScopeMetrics { scope: fill.scope(), metrics, ..Default::default() };
    let group = ResourceMetrics { resource: fill.resource(), scope_metrics: vec![scope_metrics], ..Default::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![group] }
}

/// The bytes of one request, the same memory if nothing changed.
fn check<Request: Message + Default + std::fmt::Debug>(
    processing: &Processing,
    signal: Signal,
    request: Request,
    want: Request,
) {
    let body = request.encode_to_vec();
    let processed = processing.apply(signal, Cow::Borrowed(&body));
    if request.encode_to_vec() == want.encode_to_vec() {
        assert!(matches!(processed, Cow::Borrowed(_)), "nothing is written where nothing changes");
    }
    let decoded = Request::decode(&*processed).expect("valid OTLP");
    // Doubles that are no number are equal in their bytes alone.
    assert_eq!(decoded.encode_to_vec(), want.encode_to_vec(), "{decoded:#?}\n{want:#?}");
    assert_eq!(processed.len(), want.encoded_len(), "lengths are written as short as they can be");
}

/// Without a key for hashes, and with one.
static BOTH: LazyLock<[(Processing, Reference); 2]> = LazyLock::new(|| {
    [None, Some(HashKey(Box::from(*b"key")))].map(|hash_key| {
        let settings = || ProcessingSettings { hash_key: hash_key.clone(), ..settings() };
        (Processing::new(settings(), RANDOM), Reference::new(settings()))
    })
});

proptest! {
    #[test]
    fn every_request_is_what_the_reference_makes_of_it(filling in filling(), has_key in any::<bool>()) {
        let (processing, reference) = &BOTH[usize::from(has_key)];
        let request = traces(filling.clone());
        check(processing, Signal::Traces, request.clone(), reference.traces(request));
        let request = logs(filling.clone());
        check(processing, Signal::Logs, request.clone(), reference.logs(request));
        let request = metrics(filling);
        check(processing, Signal::Metrics, request.clone(), reference.metrics(request));
    }

    #[test]
    fn what_ends_early_never_panics_and_stays_valid_where_it_was(filling in filling(), part in 0.0..1.0f64) {
        let body = traces(filling).encode_to_vec();
        let cut = &body[..(body.len() as f64 * part) as usize];
        let processed = BOTH[0].0.apply(Signal::Traces, Cow::Borrowed(cut));
        let is_valid = |body: &[u8]| ExportTraceServiceRequest::decode(body).is_ok();
        prop_assert!(!is_valid(cut) || is_valid(&processed));
    }
}

fn one_span(attributes: Vec<KeyValue>) -> Vec<u8> {
    let span = Span { attributes, ..Default::default() };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..Default::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }] }
        .encode_to_vec()
}

fn processed(settings: ProcessingSettings, key: &str, value: AnyValue) -> Option<AnyValue> {
    let body = Processing::new(settings, RANDOM).apply(Signal::Traces, one_span(vec![pair(key, value)]).into());
    let request = ExportTraceServiceRequest::decode(&*body).unwrap();
    request.resource_spans[0].scope_spans[0].spans[0].attributes.first().and_then(|pair| pair.value.clone())
}

#[test]
fn hashes_are_those_of_the_collector_or_have_a_key() {
    let hash = |key: Option<&[u8]>, value| {
        let hash_key = key.map(|key| HashKey(key.into()));
        let settings = ProcessingSettings { hash: keys(&["id"]), hash_key, ..Default::default() };
        processed(settings, "id", value)
    };
    // `printf abc | sha256sum`, and the second test case of RFC 4231.
    let sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(hash(None, text("abc")), Some(text(sha)));
    let hmac = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    assert_eq!(hash(Some(b"Jefe"), text("what do ya want for nothing?")), Some(text(hmac)));
    let number = AnyValue { value: Some(Value::IntValue(-4711)) };
    assert_eq!(hash(None, number), hash(None, text("-4711")), "one user, whatever the type");
    assert_eq!(hash(None, text("")), Some(text("")), "nothing stays nothing");
}

#[test]
fn words_mask_what_they_name_and_no_more() {
    let masked = |word, given: &str| {
        let settings = ProcessingSettings { masks: vec![Mask::word(word)], ..Default::default() };
        let Some(AnyValue { value: Some(Value::StringValue(masked)) }) = processed(settings, "k", text(given)) else {
            panic!("a text")
        };
        masked
    };
    for (word, given, want) in [
        (Words::Email, "to bob.lee+x@mail.shop.example, now", "to ****, now"),
        (Words::Email, "user@host", "user@host"),
        (Words::Card, "pay 4111 1111 1111 1111!", "pay ****!"),
        (Words::Card, "pay 4111-1111-1111-1112!", "pay 4111-1111-1111-1112!"),
        (Words::Card, "卡号6222020000000000007。", "卡号6222020000000000007。"),
        (Words::CnMobile, "手机号13812345678。", "手机号****。"),
        (Words::CnMobile, "+86 138 1234 5678", "+****"),
        (Words::CnMobile, "1381234567 and 138123456789", "1381234567 and 138123456789"),
        (Words::CnId, "身份证11010519491231002X。", "身份证****。"),
        (Words::CnId, "110105194913310021", "110105194913310021"),
    ] {
        assert_eq!(masked(word, given), want, "{given}");
    }
}

#[test]
fn series_stay_apart_and_show_nothing() {
    let processing = Processing::new(settings(), RANDOM);
    let series = |id: &str, note: &str| {
        let attributes = vec![pair("secret", text(id)), pair("note", text(note))];
        let point = NumberDataPoint { attributes, ..Default::default() };
        let data = Some(Data::Gauge(Gauge { data_points: vec![point] }));
        let metrics = vec![Metric { data, ..Default::default() }];
        let group = ResourceMetrics {
            scope_metrics: vec![ScopeMetrics { metrics, ..Default::default() }],
            ..Default::default()
        };
        let body = ExportMetricsServiceRequest { resource_metrics: vec![group] }.encode_to_vec();
        String::from_utf8_lossy(&processing.apply(Signal::Metrics, body.into())).into_owned()
    };
    let all = [series("one", "a@b.example"), series("two", "a@b.example"), series("one", "c@b.example")];
    assert!(all.iter().all(|series| !series.contains("b.example") && !series.contains("one")), "{all:?}");
    assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2]);
    assert_eq!(all[0], series("one", "a@b.example"));
    let other_process = Processing::new(settings(), RANDOM + 1);
    assert_ne!(other_process.apart.of(b"one"), processing.apart.of(b"one"), "nobody finds it by trying");
}

#[test]
fn all_that_was_done_is_counted() {
    let processing = Processing::new(settings(), RANDOM);
    let attributes = ["secret", "http.request.header.x", "user.id", "other", "other"];
    let attributes = attributes.map(|key| pair(key, text("a@b.example 13812345678"))).to_vec();
    processing.apply(Signal::Traces, one_span(attributes).into());
    let counts = Action::ALL.map(|action| processing.done(Signal::Traces, action));
    assert_eq!(counts, [2, 1, 2, 2]);
    assert_eq!(Action::ALL.map(|action| processing.done(Signal::Logs, action)), [0; 4]);
}

#[test]
fn what_grows_beyond_its_limit_is_none_and_costs_no_more() {
    let processing = Processing::new(settings(), RANDOM);
    let body = one_span(vec![pair("user.id", AnyValue { value: Some(Value::IntValue(1)) }); 1000]);
    let apply = |most| processing.apply_within(Signal::Traces, Cow::Borrowed(&body), most).map(|body| body.len());
    let len = apply(usize::MAX).expect("no limit");
    assert!(len > 3 * body.len());
    assert_eq!((apply(len), apply(len - 1)), (Some(len), None));
    let mut walk = Rewriting::new(&processing, Signal::Traces, body.len());
    walk.request(&body);
    assert!(walk.out.len() < body.len() + 200, "it stops where it is too large");
}
