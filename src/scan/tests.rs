use super::*;
use crate::otlp::wire::put_bytes;
use crate::trace::question::{Condition, EntryAttribute, Pattern, Range, SpanScope, Test, ValuePattern, ValueTest};
use crate::trace::{SpanKind, Status};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status as SpanStatus, span};
use proptest::prelude::*;
use prost::Message;

const SPAN_MAX: u32 = 1 << 20;

fn no_questions() -> Questions {
    Questions::compile(&[], &[], 1).expect("none")
}

fn scan(body: &[u8], questions: &Questions) -> Result<Scan, Malformed> {
    let mut scan = Scan::new(Keyed::new(7));
    scan.read(body, questions, SpanBounds::of_bytes(SPAN_MAX))?;
    Ok(scan)
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

fn text(value: &str) -> any_value::Value {
    any_value::Value::StringValue(value.into())
}

fn plain_span() -> Span {
    Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        name: "GET /".into(),
        kind: 2,
        start_time_unix_nano: 1_000,
        end_time_unix_nano: 5_000,
        ..Default::default()
    }
}

fn request(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![attribute("service.name", text(service))],
                ..Default::default()
            }),
            scope_spans: vec![ScopeSpans { spans, ..Default::default() }],
            schema_url: "https://example.test/1".into(),
        }],
    }
}

fn facts_of(span: Span, tests: Vec<Test>) -> bool {
    let questions = Questions::compile(&[Condition { scope: SpanScope::Any, tests }], &[], 1).expect("few");
    let body = request("shop", vec![span]).encode_to_vec();
    scan(&body, &questions).expect("well formed").spans[0].facts.has(0)
}

#[test]
fn a_span_is_read_in_place() {
    let body = request("shop", vec![plain_span()]).encode_to_vec();
    let scan = scan(&body, &no_questions()).unwrap();
    let span = scan.spans[0];
    assert_eq!(span.raw.of(&body), plain_span().encode_to_vec());
    assert_eq!(
        (span.name.of(&body), span.kind, span.standing),
        (b"GET /".as_slice(), SpanKind::Server, Standing::Root)
    );
    assert_eq!((span.start, span.duration()), (1_000, 4_000));
    assert_eq!(scan.resources[0].service.of(&body), b"shop");
}

/// Values that limits count by: alike where they read alike, and zero where nothing can be read.
#[test]
fn entry_values_are_of_the_span_or_of_its_resource() {
    let attributes = [("tenant", false), ("service.name", true)]
        .map(|(key, of_resource)| EntryAttribute { of_resource, keys: vec![key.to_owned()] });
    let questions = no_questions().counting_by(&attributes);
    let values = |service: &str, key: &str, value: any_value::Value| {
        let span = Span { attributes: vec![attribute(key, value)], ..plain_span() };
        let body = request(service, vec![span]).encode_to_vec();
        let walked = scan(&body, &questions).expect("well formed");
        let (span, header) = (walked.spans[0], walked.resources[0].header.of(&walked.arena));
        let again = Rereading::default().read((1, header), span.raw.of(&body), &questions, &Keyed::new(7));
        assert_eq!(again.span.entry_values, span.entry_values);
        span.entry_values
    };
    let [tenant, service] = values("shop", "tenant", text("5"));
    assert!(tenant != 0 && service != 0);
    assert_eq!(values("shop", "tenant", any_value::Value::IntValue(5)), [tenant, service]);
    let [other_tenant, other_service] = values("pay", "tenant", text("6"));
    assert!(other_tenant != tenant && other_tenant != 0 && other_service != service);
    assert_eq!(values("shop", "tenant", text("")), [0, service]);
    assert_eq!(values("shop", "tenant", any_value::Value::BytesValue(vec![1])), [0, service]);
    assert_eq!(values("shop", "service.name", text("5")), [0, service]);
}

#[test]
fn bad_ids_cost_the_span_alone() {
    let bad = [
        Span { trace_id: vec![0; 16], ..plain_span() },
        Span { trace_id: vec![1; 8], ..plain_span() },
        Span { span_id: vec![0; 8], ..plain_span() },
        Span { span_id: vec![], ..plain_span() },
        Span { parent_span_id: vec![1; 4], ..plain_span() },
    ];
    let spans = bad.into_iter().chain([plain_span()]).collect();
    let scan = scan(&request("shop", spans).encode_to_vec(), &no_questions()).unwrap();
    assert_eq!((scan.spans.len(), scan.rejected), (1, Rejected { bad_id: 5, ..Default::default() }));
}

#[test]
fn a_span_of_the_wrong_wire_type_costs_itself_and_a_torn_frame_the_request() {
    let mut bad = plain_span().encode_to_vec();
    bad.extend([0x28, 0x01]); // name (5) as a varint
    let mut scope = Vec::new();
    put_bytes(&mut scope, 2, &bad);
    put_bytes(&mut scope, 2, &plain_span().encode_to_vec());
    let (mut resource, mut body) = (Vec::new(), Vec::new());
    put_bytes(&mut resource, 2, &scope);
    put_bytes(&mut body, 1, &resource);
    let walked = scan(&body, &no_questions()).unwrap();
    assert_eq!((walked.spans.len(), walked.rejected.malformed), (1, 1));
    for end in 1..body.len() {
        assert!(scan(&body[..end], &no_questions()).is_err(), "cut at {end}");
    }
}

#[test]
fn more_spans_than_a_request_may_hold_are_refused_and_counted() {
    let mut walked = Scan::new(Keyed::new(1));
    let body = request("shop", vec![plain_span(); 3]).encode_to_vec();
    for (spans, taken, refused) in [(4, 3, 0), (3, 3, 0), (2, 2, 1), (0, 0, 3)] {
        walked.read(&body, &no_questions(), SpanBounds { span_bytes: SPAN_MAX, spans }).unwrap();
        assert_eq!((walked.spans.len(), walked.rejected.too_many), (taken, refused));
    }
}

#[test]
fn a_context_has_the_same_bound_as_a_span() {
    let with_context = |bytes: usize| {
        let value = Some(AnyValue { value: Some(any_value::Value::BytesValue(vec![7; bytes])) });
        let mut request = request("shop", vec![plain_span()]);
        let resource = request.resource_spans[0].resource.as_mut().expect("it has one");
        resource.attributes.push(KeyValue { key: "fat".into(), value, ..Default::default() });
        request.encode_to_vec()
    };
    let keyed = Keyed::new(1);
    let mut walked = Scan::new(keyed);
    let fits = with_context(1000);
    walked.read(&fits, &no_questions(), SpanBounds::of_bytes(1 << 20)).unwrap();
    let bound = walked.resources[0].header.len + walked.scopes[0].header.len;
    walked.read(&fits, &no_questions(), SpanBounds::of_bytes(bound)).unwrap();
    assert_eq!((walked.spans.len(), walked.rejected.too_large), (1, 0));
    let over = [with_context(1001), fits].concat();
    walked.read(&over, &no_questions(), SpanBounds::of_bytes(bound)).unwrap();
    assert_eq!((walked.spans.len(), walked.rejected.too_large), (1, 1));
    assert_eq!(walked.spans[0].scope, 0);
}

#[test]
fn unknown_fields_beside_spans_stay() {
    let unknown = [0xfa, 0x07, 0x03, b'n', b'e', b'w'];
    let (mut scope, mut resource, mut body) = (unknown.to_vec(), unknown.to_vec(), Vec::new());
    put_bytes(&mut scope, 2, &plain_span().encode_to_vec());
    put_bytes(&mut resource, 2, &scope);
    resource.extend(unknown);
    put_bytes(&mut body, 1, &resource);
    let walked = scan(&body, &no_questions()).unwrap();
    assert_eq!(walked.scopes[0].header.of(&walked.arena), unknown);
    assert_eq!(walked.resources[0].header.of(&walked.arena), unknown.repeat(2));
}

#[test]
fn what_holds_no_span_takes_no_memory() {
    let empty_resources = [0x0a, 0x00].repeat(100_000);
    let mut empty_scopes = Vec::new();
    put_bytes(&mut empty_scopes, 1, &[0x12, 0x00].repeat(100_000));
    let body = [empty_resources, request("shop", vec![plain_span()]).encode_to_vec(), empty_scopes].concat();
    let walked = scan(&body, &no_questions()).unwrap();
    assert_eq!((walked.resources.len(), walked.scopes.len(), walked.spans.len()), (1, 1, 1));
    assert_eq!((walked.spans[0].scope, walked.scopes[0].resource), (0, 0));
}

#[test]
fn a_giant_request_gives_its_memory_back() {
    let body = request("shop", vec![plain_span(); 100_000]).encode_to_vec();
    let mut walked = scan(&body, &no_questions()).unwrap();
    let before = walked.spans.capacity();
    walked.give_back();
    assert!(before >= 100_000 && walked.spans.capacity() <= SPANS_RETAINED, "{}", walked.spans.capacity());
}

#[test]
fn a_parent_is_a_span_of_the_same_trace() {
    let child = Span { parent_span_id: vec![9; 8], flags: 0, kind: 2, ..plain_span() };
    let stranger = Span { trace_id: vec![200; 16], span_id: vec![9; 8], ..plain_span() };
    let body = request("s", vec![child, stranger]).encode_to_vec();
    assert_eq!(scan(&body, &no_questions()).unwrap().spans[0].standing, Standing::Entry);
}

#[test]
fn entries_are_remote_children_and_orphans() {
    let child = |flags: u32, kind: i32| Span { parent_span_id: vec![9; 8], flags, kind, ..plain_span() };
    let standing =
        |spans: Vec<Span>| scan(&request("s", spans).encode_to_vec(), &no_questions()).unwrap().spans[0].standing;
    assert_eq!(standing(vec![child(0x300, 1)]), Standing::Entry);
    assert_eq!(standing(vec![child(0x100, 2)]), Standing::Inner);
    assert_eq!(standing(vec![child(0, 2)]), Standing::Entry);
    assert_eq!(standing(vec![child(0, 3)]), Standing::Inner);
    let parent = Span { span_id: vec![9; 8], ..plain_span() };
    assert_eq!(standing(vec![child(0, 5), parent]), Standing::Inner);
    let zero_parent = Span { parent_span_id: vec![0; 8], ..plain_span() };
    assert_eq!(standing(vec![zero_parent]), Standing::Root);
}

#[test]
fn a_split_resource_and_a_late_schema_url_are_one_header() {
    let resource =
        |key: &str, value: &str| Resource { attributes: vec![attribute(key, text(value))], ..Default::default() };
    let mut message = Vec::new();
    put_bytes(&mut message, 1, &resource("a", "b").encode_to_vec());
    let spans = ScopeSpans { spans: vec![plain_span()], ..Default::default() };
    put_bytes(&mut message, 2, &spans.encode_to_vec());
    put_bytes(&mut message, 1, &resource("service.name", "late").encode_to_vec());
    put_bytes(&mut message, 3, b"url");
    let mut body = Vec::new();
    put_bytes(&mut body, 1, &message);
    let scan = scan(&body, &no_questions()).unwrap();
    assert_eq!(scan.resources[0].service.of(&body), b"late");
    let header = ResourceSpans::decode(scan.resources[0].header.of(&scan.arena)).unwrap();
    assert_eq!(header.resource.unwrap().attributes.len(), 2);
    assert_eq!((header.schema_url.as_str(), header.scope_spans.len()), ("url", 0));
}

#[test]
fn attributes_match_by_value_and_type() {
    let with = |value: any_value::Value| Span { attributes: vec![attribute("k", value)], ..plain_span() };
    let one_of = |pattern: ValuePattern| {
        vec![Test::Attribute { keys: vec!["old".into(), "k".into()], values: ValueTest::OneOf(vec![pattern]) }]
    };
    let glob = || one_of(ValuePattern::Text(Pattern::Glob("GET /a*".into())));
    assert!(facts_of(with(text("GET /a/b")), glob()));
    assert!(!facts_of(with(text("GET /b")), glob()));
    let range = || one_of(ValuePattern::Range(Range { at_least: Some(500.0), below: Some(600.0) }));
    assert!(facts_of(with(any_value::Value::IntValue(500)), range()));
    assert!(facts_of(with(any_value::Value::DoubleValue(599.9)), range()));
    assert!(!facts_of(with(any_value::Value::IntValue(600)), range()));
    assert!(!facts_of(with(text("500")), range()));
    let array = any_value::Value::ArrayValue(opentelemetry_proto::tonic::common::v1::ArrayValue {
        values: vec![AnyValue { value: Some(text("x")) }, AnyValue { value: Some(text("GET /a")) }],
    });
    assert!(facts_of(with(array), glob()));
    let exists = |there| vec![Test::Attribute { keys: vec!["k".into()], values: ValueTest::Exists(there) }];
    assert!(facts_of(with(text("")), exists(true)) && !facts_of(plain_span(), exists(true)));
    assert!(facts_of(plain_span(), exists(false)) && !facts_of(with(text("")), exists(false)));
}

#[test]
fn tests_of_one_condition_hold_on_the_same_span() {
    let error = Span { status: Some(SpanStatus { code: 2, ..Default::default() }), ..plain_span() };
    let tests = || vec![Test::Status(vec![Status::Error]), Test::Name(vec![Pattern::Exact("GET /".into())])];
    assert!(facts_of(error.clone(), tests()));
    assert!(!facts_of(Span { name: "other".into(), ..error }, tests()));
    assert!(!facts_of(plain_span(), tests()));
    let event = span::Event { name: "exception".into(), ..Default::default() };
    let exception = || vec![Test::Event(vec![Pattern::Exact("exception".into())])];
    assert!(facts_of(Span { events: vec![event], ..plain_span() }, exception()));
    assert!(!facts_of(plain_span(), exception()));
    assert!(facts_of(plain_span(), vec![]), "a condition without tests holds for every span");
}

#[test]
fn a_stored_span_answers_a_new_question() {
    let tests = vec![Test::Service(vec![Pattern::Exact("shop".into())]), Test::SpanKind(vec![SpanKind::Server])];
    let questions = Questions::compile(&[Condition { scope: SpanScope::Any, tests }], &[], 2).unwrap();
    let body = request("shop", vec![plain_span()]).encode_to_vec();
    let walked = scan(&body, &no_questions()).unwrap();
    let header = walked.resources[0].header.of(&walked.arena);
    let (span, keyed) = (walked.spans[0].raw.of(&body), Keyed::new(7));
    let mut rereading = Rereading::default();
    for bytes in [span.len() + header.len(), span.len()] {
        let again = rereading.read((1, header), span, &questions, &keyed);
        assert!(again.span.facts.has(0));
        assert_eq!(again.bytes, bytes, "a resource is read once");
    }
    let again = rereading.read((1, header), span, &no_questions(), &keyed);
    assert_eq!((again.span.facts.has(0), again.bytes), (false, span.len() + header.len()), "for each question set");
}

#[test]
fn dimensions_come_from_the_span_then_from_the_resource() {
    let dimensions = ["service.name".to_owned(), "k".to_owned(), "n".to_owned()];
    let questions = Questions::compile(&[], &dimensions, 1).unwrap();
    let own = Span { attributes: vec![attribute("n", any_value::Value::IntValue(7))], ..plain_span() };
    let body = request("shop", vec![plain_span(), own.clone(), own]).encode_to_vec();
    let walked = scan(&body, &questions).unwrap();
    let read = |index: usize| dimensions_of(&walked, &body, index, &questions);
    assert_eq!(read(0), [Some("shop".into()), None, None]);
    assert_eq!(read(1), [Some("shop".into()), None, Some("7".into())]);
    assert_ne!(walked.spans[0].operation, walked.spans[1].operation);
    assert_eq!(walked.spans[1].operation, walked.spans[2].operation);
}

#[test]
fn values_that_read_alike_are_one_series() {
    use any_value::Value::{BoolValue, DoubleValue, IntValue};
    let questions = Questions::compile(&[], &["k".to_owned()], 1).unwrap();
    for (value, read) in [(IntValue(-7), "-7"), (DoubleValue(2.5), "2.5"), (BoolValue(true), "true")] {
        let spans = [value, text(read)].map(|value| Span { attributes: vec![attribute("k", value)], ..plain_span() });
        let walked = scan(&request("shop", spans.into()).encode_to_vec(), &questions).unwrap();
        assert_eq!(walked.spans[0].operation, walked.spans[1].operation, "{read}");
    }
}

#[test]
fn an_empty_dimension_is_an_absent_one() {
    let questions = Questions::compile(&[], &["k".to_owned()], 1).unwrap();
    let empty = Span { attributes: vec![attribute("k", text(""))], ..plain_span() };
    let body = request("shop", vec![plain_span(), empty]).encode_to_vec();
    let walked = scan(&body, &questions).unwrap();
    assert_eq!(walked.spans[0].operation, walked.spans[1].operation);
    assert_eq!(dimensions_of(&walked, &body, 1, &questions), [None]);
}

#[test]
fn a_span_that_does_not_say_when_it_began_has_no_duration() {
    let mut summary = crate::trace::Summary::default();
    for (start, end) in [(0, 9_000), (1_000, 5_000), (0, 7_000)] {
        let span = Span { start_time_unix_nano: start, end_time_unix_nano: end, ..plain_span() };
        let walked = scan(&request("shop", vec![span]).encode_to_vec(), &no_questions()).unwrap();
        assert_eq!(walked.spans[0].duration(), if start == 0 { 0 } else { end - start });
        summary.observe(&walked.spans[0], 0, &no_questions().masks);
    }
    assert_eq!((summary.start, summary.envelope()), (1_000, 8_000));
}

fn dimensions_of(walked: &Scan, body: &[u8], index: usize, questions: &Questions) -> Vec<Option<String>> {
    LabelReader::new(walked, body, questions).read(&walked.spans[index]).dimensions
}

fn any_span() -> impl Strategy<Value = Span> {
    let attributes = prop::collection::vec(("[a-c]", "[a-z]{0,9}"), 0..4);
    let ids = (
        prop::collection::vec(1u8.., 16),
        prop::collection::vec(1u8.., 8),
        prop::option::of(prop::collection::vec(1u8.., 8)),
    );
    (ids, "\\PC{0,12}", 0..7i32, any::<u64>(), any::<u64>(), attributes, 0..4i32, any::<u32>()).prop_map(
        |((trace_id, span_id, parent), name, kind, start, end, attributes, code, flags)| Span {
            trace_id,
            span_id,
            parent_span_id: parent.unwrap_or_default(),
            name,
            kind,
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            attributes: attributes.iter().map(|(key, value)| attribute(key, text(value))).collect(),
            status: Some(SpanStatus { code, message: "m".into() }),
            flags,
            ..Default::default()
        },
    )
}

/// The request around one span.
fn framed(span: &[u8]) -> Vec<u8> {
    let (mut scope, mut resource, mut body) = (Vec::new(), Vec::new(), Vec::new());
    put_bytes(&mut scope, 2, span);
    put_bytes(&mut resource, 2, &scope);
    put_bytes(&mut body, 1, &resource);
    body
}

/// Sinks read whole batches: what passes the check must not cost them one.
#[test]
fn what_passes_the_check_is_read_in_a_request_too() {
    let agree = |field: &[u8]| {
        let span = [plain_span().encode_to_vec().as_slice(), field].concat();
        let passes = check::check(check::MessageType::Span, &span) == Ok(true);
        let framed = framed(&span);
        assert_eq!(passes, ExportTraceServiceRequest::decode(framed.as_slice()).is_ok());
        assert_eq!(passes, scan(&framed, &no_questions()).unwrap().spans.len() == 1);
        passes
    };
    let attribute_of = |value: &[u8]| {
        let (mut attribute, mut field) = (Vec::new(), Vec::new());
        put_bytes(&mut attribute, 2, value);
        put_bytes(&mut field, 9, &attribute);
        field
    };
    let nested = |depth: usize| {
        (0..depth).fold(vec![0x10, 0x01], |inner, _| {
            let (mut array, mut value) = (Vec::new(), Vec::new());
            put_bytes(&mut array, 1, &inner);
            put_bytes(&mut value, 5, &array);
            value
        })
    };
    let deepest = (1..60).filter(|&depth| agree(&attribute_of(&nested(depth)))).count();
    assert!((40..50).contains(&deepest), "{deepest}");
    let (groups, ends) = (|depth: usize| [0xa3, 0x06].repeat(depth), |depth: usize| [0xa4, 0x06].repeat(depth));
    let deepest = (1..=100).filter(|&d| agree(&[groups(d), vec![0x08, 0x01], ends(d)].concat())).count();
    assert!((90..100).contains(&deepest), "{deepest}");
    assert!(!agree(&attribute_of(&[0x42, 0x01, 0x00])), "field 8 of a value is a number");
    assert!(!agree(&[0x4a, 0x03, 0x1a, 0x01, 0x00]), "field 3 of an attribute is a number");
}

proptest! {
    /// prost is the oracle: what it decodes, scan sees alike.
    #[test]
    fn scan_agrees_with_prost(spans in prop::collection::vec(any_span(), 0..6)) {
        let body = request("shop", spans.clone()).encode_to_vec();
        let walked = scan(&body, &no_questions()).unwrap();
        prop_assert_eq!(walked.spans.len(), spans.len());
        for (view, span) in walked.spans.iter().zip(&spans) {
            prop_assert_eq!(&Span::decode(view.raw.of(&body)).unwrap(), span);
            prop_assert_eq!(view.trace_id.0.as_slice(), &span.trace_id);
            prop_assert_eq!(view.name.of(&body), span.name.as_bytes());
            prop_assert_eq!(view.kind, SpanKind::from_wire(span.kind as u64));
            prop_assert_eq!(view.status, Status::from_wire(span.status.as_ref().unwrap().code as u64));
            prop_assert_eq!((view.start, view.end), (span.start_time_unix_nano, span.end_time_unix_nano));
            prop_assert_eq!(view.standing == Standing::Root, span.parent_span_id.is_empty());
            prop_assert_eq!(check::check(check::MessageType::Span, view.raw.of(&body)), Ok(true));
        }
    }

    /// Whatever prost accepts, scan accepts, and scan never reads past the end of anything.
    #[test]
    fn damaged_bytes_never_panic(spans in prop::collection::vec(any_span(), 1..3), at in any::<prop::sample::Index>(), byte: u8) {
        let mut body = request("shop", spans).encode_to_vec();
        let index = at.index(body.len());
        body[index] = byte;
        let walked = scan(&body, &no_questions());
        if let Ok(decoded) = ExportTraceServiceRequest::decode(body.as_slice()) {
            let walked = walked.expect("prost accepts it");
            let total: usize = decoded.resource_spans.iter().flat_map(|r| &r.scope_spans).map(|s| s.spans.len()).sum();
            prop_assert_eq!(walked.spans.len() as u64 + walked.rejected.bad_id, total as u64);
        }
    }

    #[test]
    fn the_check_agrees_with_prost(span in any_span(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = span.encode_to_vec();
        let index = at.index(bytes.len());
        bytes[index] = byte;
        prop_assert_eq!(check::check(check::MessageType::Span, &bytes) == Ok(true), Span::decode(bytes.as_slice()).is_ok());
    }

    #[test]
    fn splicing_changes_the_tracestate_and_the_marks_alone(span in any_span()) {
        use crate::trace::Threshold;
        let mut marks = splice::Marks::default();
        marks.add("tailkeep.rule", "r");
        let weight = tracestate::Weight { threshold: Some(Threshold::ALL), randomness: None };
        let mut old = span.clone();
        old.attributes.push(attribute("tailkeep.rule", text("upstream")));
        let mut out = Vec::new();
        splice::splice(&old.encode_to_vec(), weight, Some(&marks), &mut out);
        let mut expected = span;
        expected.trace_state = "ot=th:0".into();
        expected.attributes.push(attribute("tailkeep.rule", text("r")));
        prop_assert_eq!(Span::decode(out.as_slice()).unwrap(), expected);
    }
}
