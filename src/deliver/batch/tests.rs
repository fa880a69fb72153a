use super::*;
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

proptest! {
    #[test]
    fn halves_hold_the_same_spans_in_the_same_places(shape in shapes()) {
        let request = request(&shape);
        let spans = flat(&request);
        let whole = batch(Signal::Traces, request.encode_to_vec(), spans.len() as u64);
        prop_assert_eq!(count_items(Signal::Traces, &whole.body), Some(whole.items));
        match halve(&whole) {
            None => prop_assert!(spans.len() < 2),
            Some((left, right)) => {
                let (first, second) = (flat(&decode(&left)), flat(&decode(&right)));
                prop_assert_eq!(left.items, first.len() as u64);
                prop_assert_eq!(right.items, second.len() as u64);
                prop_assert!(left.items > 0 && right.items > 0);
                prop_assert_eq!([first, second].concat(), spans);
            }
        }
    }

    #[test]
    fn no_part_is_too_large_unless_it_is_one_span(shape in shapes(), limit in 50usize..2000) {
        let request = request(&shape);
        let spans = flat(&request);
        let parts = divide(batch(Signal::Traces, request.encode_to_vec(), spans.len() as u64), limit);
        prop_assert!(parts.iter().all(|part| part.body.len() <= limit || part.items <= 1));
        prop_assert_eq!(parts.iter().flat_map(|part| flat(&decode(part))).collect::<Vec<_>>(), spans);
    }

    #[test]
    fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        halve(&batch(Signal::Metrics, body, 7));
    }
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
    let (left, right) = halve(&batch(Signal::Traces, wrap(0x0a, &resource), 2)).unwrap();
    let half = |parts: Vec<u8>| wrap(0x0a, &[fixed.to_vec(), wrap(0x12, &parts)].concat());
    assert_eq!(left.body, half([span(1), group.to_vec()].concat()));
    assert_eq!(right.body, half([group.to_vec(), span(2)].concat()));
}

#[test]
fn metrics_are_counted_in_data_points() {
    let gauge = Gauge { data_points: vec![NumberDataPoint::default(); 3] };
    let histogram = Histogram { data_points: vec![HistogramDataPoint::default(); 2], ..Default::default() };
    let metric = |data| Metric { data: Some(data), ..Default::default() };
    let scope_metrics = vec![ScopeMetrics {
        metrics: vec![metric(Data::Gauge(gauge)), metric(Data::Histogram(histogram))],
        ..Default::default()
    }];
    let request =
        ExportMetricsServiceRequest { resource_metrics: vec![ResourceMetrics { scope_metrics, ..Default::default() }] };
    let whole = batch(Signal::Metrics, request.encode_to_vec(), 5);
    assert_eq!(count_items(Signal::Metrics, &whole.body), Some(5));
    let (left, right) = halve(&whole).unwrap();
    assert_eq!((left.items, right.items), (3, 2));
}
