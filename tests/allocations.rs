//! Scan and shard allocate nothing per span or attribute: counted, in a binary of its own, because the
//! allocator counts for the whole process.

#[path = "../benches/drop_all.rs"]
mod drop_all;

use drop_all::DropAll;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tailkeep::ring::wheel::Tick;
use tailkeep::scan::{Keyed, Questions, Scan, SpanBounds};
use tailkeep::shard::{Outbox, Progress, Shard, Turn};
use tailkeep::trace::question::{
    Condition, EntryAttribute, ErrorFacts, Pattern, SpanScope, Test, ValuePattern, ValueTest,
};
use tailkeep::trace::{Facts, RuleNames};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: it only counts, and leaves everything to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps to the contract of this same method.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

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
            before = ALLOCATIONS.load(Relaxed);
        }
        scan.read(body, &questions, SpanBounds::of_bytes(1 << 20)).expect("well formed");
        let turn = Turn { now: number as Tick + 1, judge: &DropAll, questions: &questions, rules: &rules };
        let mut rest = all.as_slice();
        while !rest.is_empty() {
            rest = &rest[shard.append(&turn, &scan, body, rest, &mut out)..];
        }
        while shard.tick(&turn, true, &mut out) == Progress::More {}
    }
    let allocations = ALLOCATIONS.load(Relaxed) - before;
    assert!(shard.index().len() < (WARM_UP as usize) * 64, "old traces have left");
    assert!(allocations <= COUNTED as usize, "{allocations} allocations for {} spans", COUNTED as usize * SPANS);
}
