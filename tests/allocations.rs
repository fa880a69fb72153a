//! Scan and shard allocate nothing per span or attribute, and what writes a batch in another form holds little of it:
//! counted, in a binary of its own, because the allocator is the whole process's.

#[path = "../benches/drop_all.rs"]
mod drop_all;

use drop_all::DropAll;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;
use tailkeep::deliver::{Batch, batch::Piece};
use tailkeep::otlp::{json, wire::put_bytes};
use tailkeep::ring::wheel::Tick;
use tailkeep::scan::{Keyed, LabelReader, Questions, Scan, SpanBounds};
use tailkeep::shard::{Outbox, Progress, Shard, Turn};
use tailkeep::store::{SIZE_MIN, StoreFile};
use tailkeep::trace::question::{
    Condition, EntryAttribute, ErrorFacts, Pattern, SpanScope, Test, ValuePattern, ValueTest,
};
use tailkeep::trace::{Facts, RuleNames, Signal};

struct Counting;

/// What a thread has allocated: each test runs on one of its own.
#[derive(Clone, Copy)]
struct Counts {
    allocations: usize,
    /// Bytes of all of them.
    allocated: usize,
    /// Bytes that are not freed, and the most that there were.
    live: isize,
    peak: isize,
}

thread_local! {
    static COUNTS: Cell<Counts> = const { Cell::new(Counts { allocations: 0, allocated: 0, live: 0, peak: 0 }) };
}

fn count(bytes: isize) {
    let Counts { allocations, allocated, live, peak } = COUNTS.get();
    let live = live + bytes;
    let allocated = allocated + usize::try_from(bytes).unwrap_or_default();
    COUNTS.set(Counts { allocations: allocations + usize::from(bytes > 0), allocated, live, peak: peak.max(live) });
}

// SAFETY: it only counts, and leaves everything to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps to the contract of this same method.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bytes that `work` held at most, and those that it left behind.
fn held(work: impl FnOnce()) -> (isize, isize) {
    let before = COUNTS.get().live;
    COUNTS.set(Counts { peak: before, ..COUNTS.get() });
    work();
    let Counts { live, peak, .. } = COUNTS.get();
    (peak - before, live - before)
}

const SPANS: usize = 512;
const ATTRIBUTES: usize = 8;
/// A ring of 8 MiB is full after 40 of them.
const WARM_UP: u64 = 100;
const COUNTED: u64 = 50;

/// 64 traces of 8 spans, with ids that no other request has.
fn request(number: u64) -> Vec<u8> {
    let text = |key: String, value: &str| {
        let value = Some(AnyValue { value: Some(Value::StringValue(value.into())) });
        KeyValue { key, value, ..KeyValue::default() }
    };
    let span = |n: u64| Span {
        trace_id: [(number * 64 + n / 8 + 1).to_be_bytes(), [7; 8]].concat(),
        span_id: (number * SPANS as u64 + n + 1).to_be_bytes().to_vec(),
        parent_span_id: if n.is_multiple_of(8) { vec![] } else { vec![1; 8] },
        name: format!("GET /items/{n}"),
        kind: 2,
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_050_000_000,
        attributes: (0..ATTRIBUTES).map(|a| text(format!("attribute.{a}"), "some ordinary value")).collect(),
        ..Span::default()
    };
    let resource = Some(Resource { attributes: vec![text("service.name".into(), "shop")], ..Resource::default() });
    let scope_spans = vec![ScopeSpans { spans: (0..SPANS as u64).map(span).collect(), ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

#[test]
fn a_span_and_its_attributes_cost_no_allocation() {
    let values = ValueTest::OneOf(vec![ValuePattern::Text(Pattern::Glob("some *".into()))]);
    let tests = vec![Test::Attribute { keys: vec!["attribute.3".to_owned()], values }];
    let conditions = [Condition { scope: SpanScope::Any, tests }];
    let questions = Questions::compile(&conditions, &["attribute.5".to_owned()], 1).expect("few conditions");
    let keys = |key: &str| vec![key.to_owned()];
    let questions = questions.counting_by(&[
        EntryAttribute { of_resource: false, keys: keys("attribute.7") },
        EntryAttribute { of_resource: true, keys: keys("service.name") },
    ]);
    let questions = questions.counting_errors(ErrorFacts { except: Facts::EMPTY, also: Facts::one(0) });
    let (keyed, rules) = (Keyed::new(1), RuleNames::default());
    let (mut shard, mut scan) = (Shard::new(8 << 20, keyed.clone()), Scan::new(keyed));
    let (bodies, all): (Vec<_>, Vec<u32>) =
        ((0..WARM_UP + COUNTED).map(request).collect(), (0..SPANS as u32).collect());
    let mut out = Outbox::default();
    let mut before = 0;
    for (number, body) in (0..).zip(&bodies) {
        if number == WARM_UP {
            before = COUNTS.get().allocations;
        }
        scan.read(body, &questions, SpanBounds::of_bytes(1 << 20)).expect("well formed");
        let turn = Turn { now: number as Tick + 1, judge: &DropAll, questions: &questions, rules: &rules };
        let mut rest = all.as_slice();
        while !rest.is_empty() {
            rest = &rest[shard.append(&turn, &scan, body, rest, &mut out)..];
        }
        while shard.tick(&turn, true, &mut out) == Progress::More {}
    }
    let allocations = COUNTS.get().allocations - before;
    assert!(shard.index().len() < (WARM_UP as usize) * 64, "old traces have left");
    assert!(allocations <= COUNTED as usize, "{allocations} allocations for {} spans", COUNTED as usize * SPANS);
}

fn field(number: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, number, payload);
    out
}

/// A span of this resource, whose fields these are.
fn request_of(resource: &[u8]) -> Vec<u8> {
    let span = [field(1, &[7; 16]), field(2, &[7; 8])].concat();
    field(1, &[resource, &field(2, &field(2, &span))].concat())
}

/// What occurs in parts is not put together, and what is no text not repaired as a whole.
#[test]
fn json_is_written_in_no_memory_that_grows_with_the_message() {
    const MIB: usize = 1 << 20;
    let attribute = |value: &[u8]| field(1, &[field(1, b"key"), field(2, value)].concat());
    let map = |inner: Vec<u8>| attribute(&field(6, &inner).repeat(2));
    let cases = [
        ("a resource in parts", field(1, &attribute(&field(1, &vec![b'x'; MIB]))).repeat(3)),
        ("a text that is none", field(1, &attribute(&field(1, &vec![0xff; MIB])))),
        ("bytes", field(1, &attribute(&field(7, &vec![0xff; MIB])))),
        ("maps in maps, each twice", field(1, &(0..12).fold(attribute(&field(1, b"deep")), |inner, _| map(inner)))),
    ];
    for (what, resource) in cases {
        let body = request_of(&resource);
        let (most, left) = held(|| json::write(&mut io::sink(), Signal::Traces, &body).expect("well formed"));
        assert!(most < 16 << 10 && left == 0, "{what}: {most} bytes were held for {}, {left} are left", body.len());
    }
}

/// SQLite's own memory is not counted: it has a bound by itself.
#[test]
fn the_store_keeps_nothing_of_what_it_has_written() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let mut store = StoreFile::new(folder.path().join("tailkeep.db"), SIZE_MIN);
    let body = |n: usize| {
        let text = format!("{n}{}", "x".repeat(100_000));
        request_of(&field(1, &field(1, &[field(1, b"key"), field(2, &field(1, text.as_bytes()))].concat())))
    };
    store.write(&body(0)).expect("it is stored");
    let bodies: Vec<Vec<u8>> = (1..20).map(body).collect();
    let (most, left) = held(|| bodies.iter().for_each(|body| assert_eq!(store.write(body).expect("it is stored"), 0)));
    assert!(left < 10_000, "{left} bytes are left of {} batches", bodies.len());
    assert!(most < 4 * bodies[0].len() as isize, "{most} bytes were held for {}", bodies[0].len());
}

/// A sink that trips over half of the items: each of those waits alone, with the whole resource when it is sent.
#[test]
fn parts_of_a_batch_that_wait_are_no_more_than_a_few_times_the_batch() {
    let spans: Vec<u8> =
        (0..1000u32).flat_map(|n| field(2, &field(5, &[vec![b'x'; 500], n.to_be_bytes().to_vec()].concat()))).collect();
    let resource = field(1, &field(1, &field(1, &vec![b'x'; 30_000])));
    let body = field(1, &[resource, field(2, &spans)].concat());
    let bytes = body.len() as isize;
    let whole = Batch { signal: Signal::Traces, body: body.into(), items: 1000 };
    let (mut waiting, mut single) = (vec![Piece::new(whole)], Vec::new());
    let (most, _) = held(|| {
        while let Some(piece) = waiting.pop() {
            match piece.halves() {
                Some(parts) => waiting.extend(parts),
                None => single.push(piece),
            }
        }
        assert!(single.iter().all(|piece| piece.batch().body.len() > 30_000));
    });
    assert_eq!(single.len(), 1000);
    assert!(most < 5 * bytes, "{most} bytes were held for {bytes}");
}

/// Of operations that find no room in the table everything is read anew, with each request.
#[test]
fn a_large_resource_is_not_copied_for_each_operation_of_a_request() {
    let large = "v".repeat(100_000);
    let text = |key: &str| KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(Value::StringValue(large.clone())) }),
        ..KeyValue::default()
    };
    let span = |n: usize| Span {
        trace_id: vec![1; 16],
        span_id: (n as u64 + 1).to_be_bytes().to_vec(),
        name: format!("operation {n}"),
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { spans: (0..2000).map(span).collect(), ..ScopeSpans::default() }];
    let resource = Some(Resource { attributes: vec![text("service.name"), text("pod")], ..Resource::default() });
    let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
    let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
    let questions = Questions::compile(&[], &["pod".to_owned()], 1).expect("one dimension");
    let mut scan = Scan::new(Keyed::new(1));
    scan.read(&body, &questions, SpanBounds::of_bytes(1 << 20)).expect("well formed");
    let before = COUNTS.get().allocated;
    let mut labels = LabelReader::new(&scan, &body, &questions);
    for span in &scan.spans {
        let read = labels.read(span);
        assert!(read.service.len() <= 256 && read.dimensions[0].as_ref().is_some_and(|value| value.len() <= 256));
    }
    let allocated = COUNTS.get().allocated - before;
    let most = body.len() + scan.spans.len() * 1024;
    assert!(allocated < most, "{allocated} bytes for a request of {}", body.len());
}
