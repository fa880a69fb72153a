use super::*;
use crate::deliver::sink::Batch;
use crate::otlp::wire::{self, put_bytes};
use crate::trace::Signal;
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::InstrumentationScope,
    metrics::v1::{
        Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data,
    },
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use proptest::prelude::*;
use prost::Message;

/// Resources, their scopes, the sizes of their spans.
type Shape = Vec<Vec<Vec<usize>>>;

fn shapes() -> impl Strategy<Value = Shape> {
    let scope = prop::collection::vec(0usize..300, 0..5);
    prop::collection::vec(prop::collection::vec(scope, 0..4), 0..4)
}

fn request(shape: &Shape) -> ExportTraceServiceRequest {
    let mut id = 0u64;
    let mut span = |size: &usize| {
        id += 1;
        Span { span_id: id.to_be_bytes().to_vec(), name: "x".repeat(*size), ..Default::default() }
    };
    let mut scope = |(at, sizes): (usize, &Vec<usize>)| ScopeSpans {
        scope: Some(InstrumentationScope { name: format!("scope-{at}"), ..Default::default() }),
        spans: sizes.iter().map(&mut span).collect(),
        schema_url: format!("https://schema.test/{at}"),
    };
    let resource = |(at, scopes): (usize, &Vec<Vec<usize>>)| ResourceSpans {
        resource: Some(Resource { dropped_attributes_count: at as u32 + 1, ..Default::default() }),
        scope_spans: scopes.iter().enumerate().map(&mut scope).collect(),
        schema_url: format!("https://resource.test/{at}"),
    };
    ExportTraceServiceRequest { resource_spans: shape.iter().enumerate().map(resource).collect() }
}

type Placed = (Option<Resource>, String, Option<InstrumentationScope>, String, Span);

/// Each span with all of its context, in order.
fn flat(request: &ExportTraceServiceRequest) -> Vec<Placed> {
    let mut spans = Vec::new();
    for resource in &request.resource_spans {
        for scope in &resource.scope_spans {
            for span in &scope.spans {
                spans.push((
                    resource.resource.clone(),
                    resource.schema_url.clone(),
                    scope.scope.clone(),
                    scope.schema_url.clone(),
                    span.clone(),
                ));
            }
        }
    }
    spans
}

fn batch(signal: Signal, body: Vec<u8>, items: u64) -> Batch {
    Batch { signal, body: body.into(), items }
}

fn decode(batch: &Batch) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest::decode(batch.body.as_ref()).unwrap()
}

fn limits(bytes: usize, items: u64) -> BatchLimits {
    BatchLimits { bytes, items, ..BatchLimits::default() }
}

fn divided(batch: Batch, limits: &BatchLimits) -> Vec<Batch> {
    let mut parts = Vec::new();
    divide(batch, limits, &mut |part| parts.push(part));
    parts
}

fn halve(batch: &Batch) -> Option<Vec<Batch>> {
    Some(Piece::new(batch.clone()).halves()?.iter().map(Piece::batch).collect())
}

proptest! {
    #[test]
    fn halves_hold_the_same_spans_in_the_same_places(shape in shapes()) {
        let request = request(&shape);
        let spans = flat(&request);
        let whole = batch(Signal::Traces, request.encode_to_vec(), spans.len() as u64);
        prop_assert_eq!(count_items(Signal::Traces, &whole.body), Some(whole.items));
        match halve(&whole) {
            None => prop_assert!(spans.len() < 2),
            Some(parts) => {
                prop_assert!(parts.len() <= 3);
                for part in &parts {
                    prop_assert_eq!(part.items, flat(&decode(part)).len() as u64);
                }
                prop_assert_eq!(parts.iter().flat_map(|part| flat(&decode(part))).collect::<Vec<_>>(), spans);
            }
        }
    }

    /// Whatever is around them, and whether they are made at once or when they are needed.
    #[test]
    fn single_items_are_the_items_in_their_places(shape in shapes(), around in 0usize..2000) {
        let mut request = request(&shape);
        for resource in &mut request.resource_spans {
            resource.schema_url = "x".repeat(around);
        }
        let spans = flat(&request);
        let mut waiting = vec![Piece::new(batch(Signal::Traces, request.encode_to_vec(), spans.len() as u64))];
        let mut found = Vec::new();
        while let Some(piece) = waiting.pop() {
            match piece.halves() {
                Some(parts) => waiting.extend(parts.into_iter().rev()),
                None => {
                    let made = piece.batch();
                    let mut spans = flat(&decode(&made));
                    prop_assert_eq!((piece.items(), made.items), (spans.len() as u64, spans.len() as u64));
                    found.append(&mut spans);
                }
            }
        }
        prop_assert_eq!(found, spans);
    }

    #[test]
    fn no_part_is_too_large_unless_it_is_one_span(shape in shapes(), bytes in 400usize..2000, items in 1u64..9) {
        let request = request(&shape);
        let spans = flat(&request);
        let whole = batch(Signal::Traces, request.encode_to_vec(), spans.len() as u64);
        let parts = divided(whole, &limits(bytes, items));
        prop_assert!(parts.iter().all(|part| part.body.len() <= bytes || part.items <= 1));
        prop_assert_eq!(parts.iter().flat_map(|part| flat(&decode(part))).collect::<Vec<_>>(), spans);
    }

    /// The sums of items are the queue's, whatever the bytes are.
    #[test]
    fn bytes_that_are_no_request_stay_whole_and_others_lose_no_item(
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            // Bytes of which requests are made, so that many can be read.
            prop::collection::vec(prop_oneof![Just(10u8), Just(18), Just(58), Just(2), Just(4), Just(0)], 0..60),
        ],
        items in 0u64..9,
    ) {
        for signal in Signal::ALL {
            let whole = batch(signal, body.clone(), items);
            let parts = divided(whole.clone(), &limits(8, 2));
            prop_assert_eq!(parts.iter().map(|part| part.items).sum::<u64>(), items);
            match count_items(signal, &body) {
                None => prop_assert_eq!(&parts[0].body, &whole.body),
                Some(found) => {
                    let counts = parts.iter().map(|part| count_items(signal, &part.body));
                    prop_assert_eq!(counts.sum::<Option<u64>>(), Some(found));
                }
            }
        }
    }
}

/// A length-delimited field.
fn field(number: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, number, payload);
    out
}

/// What takes hours where a part is taken off at a time.
#[test]
fn work_grows_with_the_request_and_no_faster() {
    let empty = |number, times: usize| field(number, b"").repeat(times);
    let scope = |inside: &[u8]| field(1, &field(2, inside));
    let point = field(5, &field(1, b"value"));
    let long = field(1, &field(1, &vec![b'a'; 30_000]));
    const MANY: usize = 60_000;
    let requests = [
        ("empty records", Signal::Logs, scope(&empty(2, MANY))),
        ("empty spans", Signal::Traces, scope(&empty(2, MANY))),
        ("empty metrics and a point", Signal::Metrics, scope(&[field(2, &point), empty(2, MANY)].concat())),
        (
            "metrics of empty data",
            Signal::Metrics,
            scope(&[field(2, &point), field(2, &empty(7, 50)).repeat(900)].concat()),
        ),
        ("empty points", Signal::Metrics, scope(&field(2, &field(7, &empty(1, MANY))))),
        ("a metric for each point", Signal::Metrics, scope(&field(2, &point).repeat(MANY / 8))),
        ("empty scopes and a record", Signal::Logs, field(1, &[field(2, &empty(2, 1)), empty(2, MANY)].concat())),
        ("empty resources and a record", Signal::Logs, [scope(&empty(2, 1)), empty(1, MANY)].concat()),
        ("a resource for each span", Signal::Traces, scope(&empty(2, 1)).repeat(MANY / 6)),
        ("a long resource", Signal::Logs, field(1, &[long, field(2, &empty(2, MANY / 2))].concat())),
        ("unknown fields", Signal::Logs, [scope(&empty(2, 1)), empty(9, MANY)].concat()),
    ];
    for (what, signal, body) in requests {
        let (bytes, items) = (body.len(), count_items(signal, &body).unwrap());
        let before = wire::work::done();
        let parts = divided(batch(signal, body, items), &limits(16 << 10, 1000));
        let visits = wire::work::done() - before;
        let written: usize = parts.iter().map(|part| part.body.len()).sum();
        assert!(visits <= 6 * bytes as u64, "{what}: {visits} fields of {bytes} bytes");
        assert!(written <= 6 * bytes, "{what}: {written} of {bytes} bytes");
        let counted: Option<u64> = parts.iter().map(|part| count_items(signal, &part.body)).sum();
        assert_eq!(counted, Some(items), "{what}");
        assert_eq!(parts.iter().map(|part| part.items).sum::<u64>(), items, "{what}");
    }
}

/// A sink that takes nothing gets every item alone, one halving after the other.
#[test]
fn halving_down_to_single_items_is_no_more_than_a_few_visits_of_each() {
    const MANY: u64 = 4096;
    let body = field(1, &field(2, &field(2, b"").repeat(MANY as usize)));
    let (before, bytes) = (wire::work::done(), body.len() as u64);
    let mut waiting = vec![Piece::new(batch(Signal::Logs, body, MANY))];
    let mut single = 0;
    while let Some(whole) = waiting.pop() {
        match whole.halves() {
            Some(parts) => waiting.extend(parts),
            None => single += whole.batch().items,
        }
    }
    assert_eq!(single, MANY);
    let visits = wire::work::done() - before;
    assert!(visits < 6 * bytes * u64::from(MANY.ilog2()), "{visits}");
}

#[test]
fn truncation_at_every_byte_is_malformed_or_shorter() {
    let body = request(&vec![vec![vec![3, 4], vec![5]], vec![vec![6]]]).encode_to_vec();
    for end in 0..body.len() {
        let count = count_items(Signal::Traces, &body[..end]);
        assert!(count.is_none_or(|spans| spans < 4), "{end}");
    }
}

#[test]
fn unknown_fields_go_to_both_halves_verbatim() {
    let span = |id: u8| vec![0x12, 3, 0x12, 1, id]; // ScopeSpans.spans { span_id }
    let group = [0x93, 0x03, 0x08, 0x01, 0x94, 0x03]; // field 50 as a group
    let fixed = [0xfd, 0x02, 1, 2, 3, 4]; // field 47 as fixed32
    let scope = [span(1), group.to_vec(), span(2)].concat();
    let wrap = |tag: u8, payload: &[u8]| [&[tag, payload.len() as u8], payload].concat();
    let resource = [fixed.to_vec(), wrap(0x12, &scope)].concat();
    let parts = halve(&batch(Signal::Traces, wrap(0x0a, &resource), 2)).unwrap();
    let half = |parts: Vec<u8>| wrap(0x0a, &[fixed.to_vec(), wrap(0x12, &parts)].concat());
    let expected = [1, 2].map(|id| half([group.to_vec(), span(id)].concat()));
    assert_eq!(parts.iter().map(|part| &part.body).collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
}

#[test]
fn metrics_are_counted_and_divided_in_data_points() {
    let gauge = Gauge {
        data_points: vec![NumberDataPoint { start_time_unix_nano: 1, time_unix_nano: 2, ..Default::default() }; 3],
    };
    let data_points = vec![HistogramDataPoint { time_unix_nano: 2, sum: Some(1.0), ..Default::default() }; 2];
    let histogram = Histogram { data_points, aggregation_temporality: 2 };
    let metric = |name: &str, data| Metric { name: name.to_owned(), data: Some(data), ..Default::default() };
    let scope_metrics = vec![ScopeMetrics {
        metrics: vec![metric("gauge", Data::Gauge(gauge)), metric("histogram", Data::Histogram(histogram))],
        ..Default::default()
    }];
    let request =
        ExportMetricsServiceRequest { resource_metrics: vec![ResourceMetrics { scope_metrics, ..Default::default() }] };
    let whole = batch(Signal::Metrics, request.encode_to_vec(), 5);
    assert_eq!(count_items(Signal::Metrics, &whole.body), Some(5));
    let points = |part: &Batch| {
        let request = ExportMetricsServiceRequest::decode(part.body.as_ref()).unwrap();
        let metrics = request.resource_metrics.into_iter().flat_map(|r| r.scope_metrics).flat_map(|s| s.metrics);
        let points = metrics.map(|metric| match metric.data.unwrap() {
            Data::Gauge(gauge) => (metric.name, gauge.data_points.len(), 0),
            Data::Histogram(histogram) => (metric.name, histogram.data_points.len(), histogram.aggregation_temporality),
            other => panic!("{other:?}"),
        });
        points.collect::<Vec<_>>()
    };
    let parts = divided(whole.clone(), &limits(usize::MAX, 2));
    let [a, b, c] = &parts[..] else { panic!("{parts:?}") };
    assert_eq!(points(a), [("gauge".to_owned(), 2, 0)]);
    assert_eq!(points(b), [("gauge".to_owned(), 1, 0), ("histogram".to_owned(), 1, 2)]);
    assert_eq!((points(c), c.items), (vec![("histogram".to_owned(), 1, 2)], 1));
    assert!(halve(&whole).unwrap().iter().all(|part| part.items < 5));
}
