//! Whatever is acknowledged can be delivered: requests of all signals, whole and damaged, through the
//! pipeline to a sink that decodes by prost.

mod bounds;
mod draining;

use super::*;
use crate::deliver::batch::Growing;
use crate::deliver::sink::{SendResult, Sent};
use crate::deliver::{Batch, BatchLimits, DeliverySettings, NamedSink, Sink};
use crate::otlp::wire::put_bytes;
use crate::policy::Policy;
use crate::processing::ProcessingSettings;
use crate::scan::wire::Reader;
use crate::trace::{RuleNames, Slice};
use http::HeaderMap;
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest,
};
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics,
    metric::Data,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::prelude::*;
use prost::Message;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

const KEEP_ALL: &str = "version: 1\nrules: []\notherwise: { keep: all }\n";
/// Stands in texts where bytes that are not UTF-8 shall be, of which the last are a cut character.
const MARK: &str = "QZXQ";
const NOT_UTF8: &[u8; 4] = b"\xcb\xd1\xe6\x90";

/// Remembers what it is sent.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Batch>>>);

impl Sink for Recorder {
    fn takes(&self, _: Signal) -> bool {
        true
    }

    fn send<'a>(&'a mut self, batch: &'a Batch) -> Pin<Box<dyn Future<Output = SendResult> + Send + 'a>> {
        self.0.lock().unwrap().push(batch.clone());
        Box::pin(async { Ok(Sent::default()) })
    }

    fn close<'a>(&'a mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async {})
    }
}

/// What became of one request.
struct Passed {
    answer: Result<Accepted, MalformedRequest>,
    intake: IntakeCounts,
    spans: crate::shard::count::Spans,
    delivered: Vec<Batch>,
}

impl Passed {
    fn accepted(&self, signal: Signal) -> u64 {
        self.intake.accepted[signal as usize]
    }

    fn body(&self) -> Vec<u8> {
        self.delivered.iter().flat_map(|batch| batch.body.to_vec()).collect()
    }
}

fn pass(signal: Signal, body: &[u8]) -> Passed {
    pass_processed(ProcessingSettings::default(), signal, body)
}

fn pass_processed(processing: ProcessingSettings, signal: Signal, body: &[u8]) -> Passed {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let recorder = Recorder::default();
        let sinks = vec![NamedSink { name: "recorder".into(), sink: Box::new(recorder.clone()), rules: None }];
        let settings = DeliverySettings {
            batch: BatchLimits::default(),
            quotas: [8 << 20; 3],
            longest_refusal: Duration::from_secs(3600),
            longest_wait: Duration::from_secs(1),
            spool: None,
            seed: 1,
        };
        let delivery = Arc::new(Delivery::start(settings, sinks).unwrap());
        let mut rules = RuleNames::default();
        let policy = Policy::compile("keep-all", KEEP_ALL, 1, &mut rules).0.expect("it has no error");
        let active_policy = ActivePolicy::new(policy, &[], rules).expect("few questions");
        let pipeline = Pipeline::new(
            4 << 20,
            1,
            active_policy,
            None,
            Processing::new(processing, 1),
            delivery.clone(),
            deliver::HopMemory::default(),
        );
        let answer = pipeline.accept(signal, body, HopHeaders::of(&HeaderMap::new()));
        pipeline.drain(tokio::time::Instant::now() + Duration::from_secs(1)).await;
        delivery.drain(tokio::time::Instant::now() + Duration::from_secs(5)).await;
        let mut spans = crate::shard::count::Spans::default();
        let intake = pipeline.balance(|intake, totals| {
            totals.counts.services.iter().for_each(|service| spans.add(service));
            intake
        });
        let delivered = recorder.0.lock().unwrap().clone();
        Passed { answer, intake, spans, delivered }
    })
}

/// Items in a body that prost can decode.
fn decoded(signal: Signal, body: &[u8]) -> Option<u64> {
    let points = |metric: &Metric| match &metric.data {
        None => 0,
        Some(Data::Gauge(data)) => data.data_points.len(),
        Some(Data::Sum(data)) => data.data_points.len(),
        Some(Data::Histogram(data)) => data.data_points.len(),
        Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
        Some(Data::Summary(data)) => data.data_points.len(),
    };
    let items: usize = match signal {
        Signal::Traces => {
            let request = ExportTraceServiceRequest::decode(body).ok()?;
            request.resource_spans.iter().flat_map(|r| &r.scope_spans).map(|s| s.spans.len()).sum()
        }
        Signal::Metrics => {
            let request = ExportMetricsServiceRequest::decode(body).ok()?;
            let scopes = request.resource_metrics.iter().flat_map(|r| &r.scope_metrics);
            scopes.flat_map(|s| &s.metrics).map(points).sum()
        }
        Signal::Logs => {
            let request = ExportLogsServiceRequest::decode(body).ok()?;
            request.resource_logs.iter().flat_map(|r| &r.scope_logs).map(|s| s.log_records.len()).sum()
        }
    };
    Some(items as u64)
}

/// Number, payload and whole.
type Field<'a> = (u32, &'a [u8], &'a [u8]);

/// The fields of a message; none if it is torn.
fn fields(message: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut fields = Reader::whole(message);
    let mut all = Vec::new();
    while let Some(field) = fields.next().ok()? {
        all.push((field.number, field.value.bytes().unwrap_or(Slice::default()).of(message), field.raw.of(message)));
    }
    Some(all)
}

/// Spans, metrics and log records as they are, each with a request of its own around it.
fn leaves(body: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let rest = |all: &[Field]| -> Vec<u8> {
        all.iter().filter(|field| field.0 != 2).flat_map(|field| field.2.to_vec()).collect()
    };
    let mut leaves = Vec::new();
    for resource in fields(body)?.iter().filter(|field| field.0 == 1) {
        let in_resource = fields(resource.1)?;
        for scope in in_resource.iter().filter(|field| field.0 == 2) {
            let in_scope = fields(scope.1)?;
            for leaf in in_scope.iter().filter(|field| field.0 == 2) {
                let (mut scope, mut resource, mut request) = (rest(&in_scope), rest(&in_resource), Vec::new());
                put_bytes(&mut scope, 2, leaf.1);
                put_bytes(&mut resource, 2, &scope);
                put_bytes(&mut request, 1, &resource);
                leaves.push((request, leaf.1.to_vec()));
            }
        }
    }
    Some(leaves)
}

/// A span without its tracestate, which is written anew.
fn but_for_weight(signal: Signal, leaf: Vec<u8>) -> Vec<u8> {
    match fields(&leaf) {
        Some(fields) if signal == Signal::Traces => {
            fields.iter().filter(|field| field.0 != 3).flat_map(|field| field.2.to_vec()).collect()
        }
        _ => leaf,
    }
}

/// Whether prost takes it with an id that scan takes.
fn is_valid(signal: Signal, request: &[u8], leaf: &[u8]) -> bool {
    let is_id = |id: &[u8], len| id.len() == len && id.iter().any(|byte| *byte != 0);
    let has_ids = |span: Span| {
        let parent = &span.parent_span_id;
        is_id(&span.trace_id, 16) && is_id(&span.span_id, 8) && (parent.is_empty() || parent.len() == 8)
    };
    decoded(signal, request).is_some() && (signal != Signal::Traces || Span::decode(leaf).is_ok_and(has_ids))
}

fn any_value() -> impl Strategy<Value = AnyValue> {
    let text =
        prop_oneof!["[a-z]{0,9}", Just(MARK.to_owned()), Just(format!("grüße {MARK} {MARK}x")), "[a-z]{120,140}"];
    let plain = prop_oneof![
        text.prop_map(Value::StringValue),
        any::<bool>().prop_map(Value::BoolValue),
        any::<i64>().prop_map(Value::IntValue),
        any::<f64>().prop_map(Value::DoubleValue),
        prop::collection::vec(any::<u8>(), 0..4).prop_map(Value::BytesValue),
    ];
    let any = |value| AnyValue { value };
    prop::option::of(plain).prop_map(any).prop_recursive(3, 12, 3, move |inner| {
        let list = prop::collection::vec(inner.clone(), 0..3);
        let map = prop::collection::vec((text_of(), inner), 0..3);
        prop_oneof![
            list.prop_map(|values| Value::ArrayValue(ArrayValue { values })),
            map.prop_map(|pairs| Value::KvlistValue(KeyValueList { values: pairs.into_iter().map(pair).collect() })),
        ]
        .prop_map(move |value| any(Some(value)))
    })
}

fn text_of() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-z]{0,5}", 1 => Just(MARK.to_owned()), 1 => Just(format!("x{MARK}"))]
}

fn pair((key, value): (String, AnyValue)) -> KeyValue {
    KeyValue { key, value: Some(value), ..KeyValue::default() }
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    prop::collection::vec((text_of(), any_value()).prop_map(pair), 0..3)
}

/// A value in so many lists.
fn nested(depth: usize) -> KeyValue {
    let innermost = AnyValue { value: Some(Value::StringValue(MARK.to_owned())) };
    let wrap = |value, _| AnyValue { value: Some(Value::ArrayValue(ArrayValue { values: vec![value] })) };
    pair(("deep".to_owned(), (0..depth).fold(innermost, wrap)))
}

/// Attributes of which some requests have one that nests deep.
fn maybe_deep() -> impl Strategy<Value = Vec<KeyValue>> {
    (attributes(), prop::option::weighted(0.1, 40..56usize)).prop_map(|(mut attributes, depth)| {
        attributes.extend(depth.map(nested));
        attributes
    })
}

/// What all three signals have around their items.
#[derive(Clone, Debug)]
struct MessageContext {
    resource: Option<Resource>,
    scope: Option<InstrumentationScope>,
    schema_url: String,
}

fn context() -> impl Strategy<Value = MessageContext> {
    (maybe_deep(), maybe_deep(), text_of(), text_of()).prop_map(|(of_resource, of_scope, a, b)| {
        let entity =
            EntityRef { schema_url: a.clone(), r#type: b.clone(), id_keys: vec![a.clone()], ..Default::default() };
        let entity_refs = vec![entity];
        let resource = Resource { attributes: of_resource, entity_refs, ..Default::default() };
        let scope = InstrumentationScope { name: a.clone(), version: b, attributes: of_scope, ..Default::default() };
        MessageContext { resource: Some(resource), scope: Some(scope), schema_url: a }
    })
}

fn any_span() -> impl Strategy<Value = Span> {
    let texts = (text_of(), text_of(), text_of());
    (1u8..4, any::<u64>(), texts, maybe_deep(), attributes(), attributes(), any::<[u8; 3]>()).prop_map(
        |(trace, id, (name, state, message), own, of_event, of_link, [kind, code, has_status])| Span {
            trace_id: vec![trace; 16],
            span_id: (id | 1).to_be_bytes().to_vec(),
            trace_state: format!("a={state}"),
            name: name.clone(),
            kind: i32::from(kind % 6),
            attributes: own,
            events: vec![Event { name: name.clone(), attributes: of_event, ..Default::default() }],
            links: vec![Link { trace_state: state, attributes: of_link, ..Default::default() }],
            status: (has_status > 127).then_some(Status { message, code: i32::from(code % 3) }),
            ..Default::default()
        },
    )
}

fn any_metric() -> impl Strategy<Value = Metric> {
    (text_of(), text_of(), maybe_deep(), attributes(), attributes(), any::<f64>(), 0..4usize).prop_map(
        |(name, unit, own, of_exemplar, metadata, value, points)| {
            let exemplar = Exemplar { filtered_attributes: of_exemplar, ..Default::default() };
            let gauge =
                |attributes| NumberDataPoint { attributes, exemplars: vec![exemplar.clone()], ..Default::default() };
            let histogram = |attributes| HistogramDataPoint {
                attributes,
                sum: Some(value),
                bucket_counts: vec![1, 2],
                explicit_bounds: vec![value],
                ..Default::default()
            };
            let own = |n: usize| if n == 0 { own.clone() } else { vec![] };
            let data = match points {
                0 => None,
                1 => Some(Data::Histogram(Histogram {
                    data_points: (0..2).map(|n| histogram(own(n))).collect(),
                    aggregation_temporality: 2,
                })),
                _ => Some(Data::Gauge(Gauge { data_points: (0..points).map(|n| gauge(own(n))).collect() })),
            };
            Metric { name: name.clone(), description: name, unit, metadata, data }
        },
    )
}

fn any_record() -> impl Strategy<Value = LogRecord> {
    (any_value(), maybe_deep(), text_of(), text_of()).prop_map(|(body, attributes, severity_text, event_name)| {
        LogRecord { body: Some(body), attributes, severity_text, event_name, severity_number: 9, ..Default::default() }
    })
}

fn any_request() -> impl Strategy<Value = (Signal, Vec<u8>)> {
    let spans = prop::collection::vec((context(), prop::collection::vec(any_span(), 0..4)), 1..3);
    let metrics = prop::collection::vec((context(), prop::collection::vec(any_metric(), 0..4)), 1..3);
    let logs = prop::collection::vec((context(), prop::collection::vec(any_record(), 0..4)), 1..3);
    prop_oneof![
        spans.prop_map(|groups| {
            let group = |(MessageContext { resource, scope, schema_url }, spans)| {
                let scope_spans = vec![ScopeSpans { scope, spans, schema_url: schema_url.clone() }];
                ResourceSpans { resource, scope_spans, schema_url }
            };
            let resource_spans = groups.into_iter().map(group).collect();
            (Signal::Traces, ExportTraceServiceRequest { resource_spans }.encode_to_vec())
        }),
        metrics.prop_map(|groups| {
            let group = |(MessageContext { resource, scope, schema_url }, metrics)| {
                let scope_metrics = vec![ScopeMetrics { scope, metrics, schema_url: schema_url.clone() }];
                ResourceMetrics { resource, scope_metrics, schema_url }
            };
            let resource_metrics = groups.into_iter().map(group).collect();
            (Signal::Metrics, ExportMetricsServiceRequest { resource_metrics }.encode_to_vec())
        }),
        logs.prop_map(|groups| {
            let group = |(MessageContext { resource, scope, schema_url }, log_records)| {
                let scope_logs = vec![ScopeLogs { scope, log_records, schema_url: schema_url.clone() }];
                ResourceLogs { resource, scope_logs, schema_url }
            };
            let resource_logs = groups.into_iter().map(group).collect();
            (Signal::Logs, ExportLogsServiceRequest { resource_logs }.encode_to_vec())
        }),
    ]
}

/// The same bytes with texts that are not UTF-8.
fn with_bad_texts(body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    let places: Vec<usize> = memchr::memmem::find_iter(&body, MARK.as_bytes()).collect();
    places.into_iter().for_each(|at| body[at..at + MARK.len()].copy_from_slice(NOT_UTF8));
    body
}

/// As a batch has it: each resource and scope once.
fn batched(signal: Signal, body: &[u8]) -> Vec<u8> {
    let mut batch = Growing::new(tokio::time::Instant::now());
    batch.append(&Batch { signal, body: body.to_vec().into(), items: 1 });
    batch.seal(signal).body.to_vec()
}

fn holds(signal: Signal, body: &[u8]) -> Result<Passed, TestCaseError> {
    let passed = pass(signal, body);
    let IntakeCounts { received, accepted, rejected } = passed.intake;
    let of = signal as usize;
    prop_assert_eq!(received[of], accepted[of] + rejected[of].total());
    let delivered: u64 = passed.delivered.iter().map(|batch| batch.items).sum();
    prop_assert_eq!(accepted[of], delivered + passed.spans.duplicate + passed.spans.over_limit);
    for batch in &passed.delivered {
        prop_assert_eq!(decoded(signal, &batch.body), Some(batch.items), "a batch that no receiver takes");
    }
    let Ok(answer) = &passed.answer else {
        prop_assert!(decoded(signal, body).is_none(), "refused, and prost takes it");
        return Ok(passed);
    };
    prop_assert_eq!((answer.rejected, answer.message.is_empty()), (rejected[of].total(), answer.rejected == 0));
    let sent = leaves(body).unwrap_or_default();
    if signal != Signal::Metrics {
        prop_assert_eq!(received[of], sent.len() as u64);
    }
    let out = leaves(&passed.body()).expect("it is whole");
    let out: Vec<Vec<u8>> = out.into_iter().map(|(_, leaf)| but_for_weight(signal, leaf)).collect();
    for (request, leaf) in sent {
        // A metric without points is not worth a delivery.
        if is_valid(signal, &request, &leaf) && decoded(signal, &request) != Some(0) {
            // A span may have marks behind its own fields.
            let leaf = but_for_weight(signal, leaf);
            prop_assert!(out.iter().any(|out| out.starts_with(&leaf)), "a valid one is not as it came");
        }
    }
    if signal != Signal::Traces && decoded(signal, body).is_some() && accepted[of] > 0 {
        prop_assert_eq!(passed.body(), batched(signal, body));
    }
    Ok(passed)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_is_acknowledged_can_be_delivered(
        (signal, body) in any_request(),
        bad_texts: bool,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut body = if bad_texts { with_bad_texts(&body) } else { body };
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        holds(signal, &body)?;
    }

    /// A text alone costs nothing, wherever it stands.
    #[test]
    fn a_text_that_is_not_utf8_is_repaired_and_nothing_else((signal, body) in any_request()) {
        let passed = holds(signal, &with_bad_texts(&body))?;
        let whole = holds(signal, &body)?;
        prop_assert_eq!(passed.intake, whole.intake);
        prop_assert_eq!(passed.accepted(signal), whole.accepted(signal));
        // As JSON's readers repair it.
        let repaired = String::from_utf8_lossy(NOT_UTF8);
        let count = |body: Vec<u8>, text: &str| memchr::memmem::find_iter(&body, text.as_bytes()).count();
        prop_assert_eq!(count(passed.body(), &repaired), count(whole.body(), MARK));
    }
}

#[test]
fn a_record_that_is_refused_with_its_scope_counts_once() {
    let (mut scope, mut resource, mut request) = (Vec::new(), Vec::new(), Vec::new());
    put_bytes(&mut scope, 2, &[0x08]);
    put_bytes(&mut scope, 2, &[]);
    put_bytes(&mut scope, 1, &[0x08]);
    put_bytes(&mut resource, 2, &scope);
    put_bytes(&mut request, 1, &resource);
    let passed = pass(Signal::Logs, &request);
    assert_eq!((passed.answer.as_ref().unwrap().rejected, passed.accepted(Signal::Logs)), (2, 0));
}

#[test]
fn the_sender_hears_in_words_what_was_refused() {
    let deep = |depth| vec![nested(depth)];
    let record = |attributes| LogRecord { attributes, ..LogRecord::default() };
    let scope_logs = vec![ScopeLogs { log_records: vec![record(deep(47)), record(deep(48))], ..Default::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..Default::default() }];
    let passed = pass(Signal::Logs, &ExportLogsServiceRequest { resource_logs }.encode_to_vec());
    let message = "log records rejected: 1 with values that nest deeper than 100 messages".to_owned();
    assert_eq!(passed.answer, Ok(Accepted { rejected: 1, message }));
    assert_eq!(passed.accepted(Signal::Logs), 1);
}
