use super::*;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::InstrumentationScope,
    resource::v1::Resource as OtlpResource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use proptest::prelude::*;
use prost::Message;

/// For each resource its number, its scopes with theirs, and how many spans each has.
type Shape = Vec<(u32, Vec<(u32, usize)>)>;

fn shape() -> impl Strategy<Value = Shape> {
    let scopes = prop::collection::vec((0..3u32, 0..4usize), 0..4);
    prop::collection::vec((0..3u32, scopes), 0..4)
}

fn request(shape: &Shape, first_id: u64) -> ExportTraceServiceRequest {
    let mut id = first_id;
    let mut spans = |count: usize| -> Vec<Span> {
        let span = |_| {
            id += 1;
            Span { span_id: id.to_be_bytes().to_vec(), ..Default::default() }
        };
        (0..count).map(span).collect()
    };
    let mut scope = |&(number, count): &(u32, usize)| ScopeSpans {
        scope: (number > 0).then(|| InstrumentationScope { name: format!("scope-{number}"), ..Default::default() }),
        spans: spans(count),
        schema_url: format!("https://schema.test/{number}"),
    };
    let resource = |(number, scopes): &(u32, Vec<(u32, usize)>)| ResourceSpans {
        resource: Some(OtlpResource { dropped_attributes_count: *number, ..Default::default() }),
        scope_spans: scopes.iter().map(&mut scope).collect(),
        schema_url: String::new(),
    };
    ExportTraceServiceRequest { resource_spans: shape.iter().map(resource).collect() }
}

fn piece(body: Vec<u8>) -> Batch {
    Batch { signal: Signal::Traces, body: body.into(), items: 0 }
}

/// Each span with all of its context, as bytes, by its id.
fn placed(bodies: &[&[u8]]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut spans = Vec::new();
    for body in bodies {
        let request = ExportTraceServiceRequest::decode(*body).unwrap();
        for resource in request.resource_spans {
            for mut scope in resource.scope_spans.clone() {
                for span in std::mem::take(&mut scope.spans) {
                    let context = ResourceSpans { scope_spans: vec![scope.clone()], ..resource.clone() };
                    spans.push((span.span_id, context.encode_to_vec()));
                }
            }
        }
    }
    spans.sort();
    spans
}

fn grow(bodies: &[Vec<u8>]) -> (Growing, usize) {
    let mut growing = Growing::new(Instant::now());
    let grown = bodies.iter().map(|body| growing.append(&piece(body.clone()))).sum();
    (growing, grown)
}

proptest! {
    #[test]
    fn what_is_put_together_says_the_same(shapes in prop::collection::vec(shape(), 0..5)) {
        let bodies: Vec<Vec<u8>> =
            shapes.iter().enumerate().map(|(at, shape)| request(shape, at as u64 * 1000).encode_to_vec()).collect();
        let (growing, grown) = grow(&bodies);
        let bytes = growing.bytes();
        prop_assert_eq!(grown, bytes);
        let sealed = growing.seal(Signal::Traces).body;
        prop_assert!(sealed.len() <= bytes && bytes <= bodies.iter().map(Vec::len).sum());
        if let [body] = &bodies[..]
            && shapes[0].iter().all(|(_, scopes)| scopes.len() < 2)
            && shapes[0].len() < 2
        {
            prop_assert_eq!(&sealed[..], &body[..], "what nothing is added to stays as it was");
        }
        let parts: Vec<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(placed(&[&sealed]), placed(&parts));
        let merged = ExportTraceServiceRequest::decode(&*sealed).unwrap();
        let mut resources: Vec<_> = merged.resource_spans.iter().map(|r| r.resource.clone().unwrap()).collect();
        let count = resources.len();
        resources.sort_by_key(|resource| resource.dropped_attributes_count);
        resources.dedup();
        prop_assert_eq!(count, resources.len(), "each resource stands once");
    }

    /// Unknown fields, split messages, any order of fields: nothing is lost of what is protobuf.
    #[test]
    fn fields_may_stand_anywhere(shuffled in Just(vec![
        (2u32, b"\x12\x02\x0a\x00".to_vec()), (1, vec![0x10, 3]), (2, b"\x12\x00".to_vec()), (99, b"unknown".to_vec()),
        (3, b"schema".to_vec()),
    ]).prop_shuffle()) {
        use crate::otlp::wire::put_bytes;
        let mut resource = Vec::new();
        shuffled.iter().for_each(|(number, payload)| put_bytes(&mut resource, *number, payload));
        let mut body = Vec::new();
        put_bytes(&mut body, 1, &resource);
        put_bytes(&mut body, 7, b"beside the resources");
        let (growing, _) = grow(&[body.clone(), body.clone()]);
        let sealed = growing.seal(Signal::Traces).body;
        let count = |needle: &[u8]| sealed.windows(needle.len()).filter(|window| *window == needle).count();
        prop_assert_eq!((count(b"unknown"), count(b"schema"), count(b"beside the resources")), (1, 1, 2));
        let spans = |body: &[u8]| placed(&[body]).len();
        prop_assert_eq!(spans(&sealed), 2 * spans(&body));
    }
}

#[test]
fn a_large_resource_leaves_once() {
    let resource = OtlpResource {
        attributes: vec![opentelemetry_proto::tonic::common::v1::KeyValue {
            key: "k".repeat(100_000),
            ..Default::default()
        }],
        ..Default::default()
    };
    let body = |id: u64| {
        let spans = vec![Span { span_id: id.to_be_bytes().to_vec(), ..Default::default() }];
        let scope_spans = vec![ScopeSpans { spans, ..Default::default() }];
        let resource_spans = ResourceSpans { resource: Some(resource.clone()), scope_spans, ..Default::default() };
        ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
    };
    let bodies: Vec<Vec<u8>> = (0..500).map(body).collect();
    let (growing, _) = grow(&bodies);
    assert!(growing.bytes() < 120_000, "{}", growing.bytes());
    assert_eq!(placed(&[&growing.seal(Signal::Traces).body]).len(), 500);
}

/// Whoever sends thousands of contexts pays for their bytes, not for places where they are found again.
#[test]
fn contexts_beyond_the_bound_stay_as_they_are() {
    let shape: Shape = (0..3000).map(|number| (number, vec![(number, 1)])).collect();
    let body = request(&shape, 0).encode_to_vec();
    let (growing, _) = grow(&[body.clone(), body.clone()]);
    assert!(growing.contexts.places.len() <= CONTEXTS_MAX);
    let sealed = growing.seal(Signal::Traces).body;
    assert_eq!(placed(&[&sealed]), placed(&[&body, &body]));
}
