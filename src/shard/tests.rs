mod recount;

use super::*;
use crate::ring::index::TraceStatus;
use crate::scan::SpanBounds;
use crate::scan::tracestate::Sampling;
use crate::shard::count::Spans;
use crate::shard::survey::{Survey, SurveyQuestions};
use crate::trace::question::{Condition, Pattern, SpanScope, Test};
use crate::trace::{Reason, Threshold};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status as SpanStatus};
use proptest::prelude::*;
use prost::Message;
use std::collections::BTreeMap;

const ERRORS: RuleId = RuleId(10);
const SHARE: RuleId = RuleId(11);

/// Keeps traces with an error, keeps half of those whose id's first byte is odd (is it 7, only
/// while they are small), drops the rest.
struct Errors;

impl Judge for Errors {
    fn judge(&self, case: &Case<'_>, trigger: Trigger, _: Tick) -> Verdict {
        let half = Threshold::from_share(0.5);
        let (decision, rule, threshold) = if case.summary.error() {
            (Decision::KeepAll, ERRORS, Some(Threshold::ALL))
        } else if case.id.0[0].is_multiple_of(2) || case.id.0[0] == 7 && case.summary.spans > 8 {
            (Decision::DropNone, RuleId::OTHERWISE, None)
        } else if case.summary.randomness(case.id).0.passes(half) {
            (Decision::KeepShare, SHARE, Some(half))
        } else {
            (Decision::DropShare, SHARE, None)
        };
        Verdict { decision, rule, policy: 1, threshold, trigger, charged: None }
    }

    fn may_change(&self, before: &Summary, after: &Summary) -> bool {
        before.error() != after.error() || after.spans > 8
    }

    fn reason(&self, rule: RuleId) -> Reason {
        if rule == ERRORS { Reason::Failed } else { Reason::Share }
    }

    fn wait(&self) -> WaitTicks {
        WaitTicks { after_root: 60, idle: 120, longest: 300, settle: 300 }
    }
}

/// A shard with simulated time, and everything that left it.
struct Harness {
    shard: Shard,
    scan: Scan,
    questions: Questions,
    now: Tick,
    out: Outbox,
}

impl Harness {
    fn new(bytes: usize) -> Harness {
        let keyed = Keyed::new(3);
        let questions = Questions::compile(&[], &[], 1).expect("none");
        let (shard, scan) = (Shard::new(bytes, keyed.clone()), Scan::new(keyed));
        Harness { shard, scan, questions, now: 1, out: Outbox::default() }
    }

    fn with<R>(&mut self, act: impl FnOnce(&mut Shard, &Turn<'_, Errors>, &mut Scan, &mut Outbox) -> R) -> R {
        let rules = RuleNames::default();
        let turn = Turn { now: self.now, judge: &Errors, questions: &self.questions, rules: &rules };
        act(&mut self.shard, &turn, &mut self.scan, &mut self.out)
    }

    fn send(&mut self, service: &str, spans: Vec<Span>) {
        let body = request(service, spans).encode_to_vec();
        self.with(|shard, turn, scan, out| {
            scan.read(&body, turn.questions, SpanBounds::of_bytes(shard.span_bytes_max())).expect("well formed");
            let all: Vec<u32> = (0..scan.spans.len() as u32).collect();
            let mut rest = all.as_slice();
            while !rest.is_empty() {
                let taken = shard.append(turn, scan, &body, rest, out);
                rest = &rest[taken..];
            }
        });
        self.check();
    }

    fn pass(&mut self, ticks: Tick) {
        for _ in 0..ticks {
            self.now += 1;
            while self.with(|shard, turn, _, out| shard.tick(turn, true, out)) == Progress::More {
                self.check();
            }
        }
        self.check();
    }

    fn drain_pass(&mut self, pass: DrainPass) {
        while self.with(|shard, turn, _, out| shard.drain(turn, pass, out)) == Progress::More {
            self.check();
        }
        self.check();
    }

    fn drain(&mut self) {
        self.drain_pass(DrainPass::Kept);
        self.drain_pass(DrainPass::Rest);
        assert_eq!(self.totals().held, 0);
        assert!(self.shard.index().is_empty());
    }

    fn totals(&self) -> Spans {
        let mut sum = Spans::default();
        self.shard.counts.services.iter().for_each(|spans| sum.add(spans));
        sum
    }

    fn check(&self) {
        assert!(self.shard.counts.services.iter().all(Spans::is_balanced), "{:?}", self.shard.counts.services);
        assert_eq!(self.totals().kept, self.out.spans);
    }

    /// Spans that left, by trace.
    fn left(&self) -> BTreeMap<Vec<u8>, Vec<Span>> {
        let mut traces: BTreeMap<Vec<u8>, Vec<Span>> = BTreeMap::new();
        let request = ExportTraceServiceRequest::decode(self.out.body.as_slice()).expect("what leaves is OTLP");
        for span in request.resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans) {
            traces.entry(span.trace_id.clone()).or_default().push(span);
        }
        traces
    }

    fn state(&self, trace: u8) -> Option<TraceStatus> {
        match self.shard.why(TraceId([trace; 16])) {
            Why::InRing(entry) => Some(entry.state),
            _ => None,
        }
    }
}

fn request(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(service.into())) });
    let attributes = vec![KeyValue { key: "service.name".into(), value, ..Default::default() }];
    let resource = Some(Resource { attributes, ..Default::default() });
    let scope_spans = vec![ScopeSpans { spans, ..Default::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource, scope_spans, ..Default::default() }] }
}

fn span(trace: u8, id: u8, parent: u8) -> Span {
    Span {
        trace_id: vec![trace; 16],
        span_id: vec![id; 8],
        parent_span_id: if parent == 0 { vec![] } else { vec![parent; 8] },
        name: format!("span {id}"),
        kind: 1,
        start_time_unix_nano: 1_000 + u64::from(id),
        end_time_unix_nano: 2_000,
        ..Default::default()
    }
}

fn failed(span: Span) -> Span {
    Span { status: Some(SpanStatus { code: 2, ..Default::default() }), ..span }
}

fn fat(span: Span, bytes: usize) -> Span {
    let value = Some(AnyValue { value: Some(any_value::Value::BytesValue(vec![7; bytes])) });
    Span { attributes: vec![KeyValue { key: "fat".into(), value, ..Default::default() }], ..span }
}

fn mark<'a>(spans: &'a [Span], key: &str) -> Vec<&'a str> {
    let text = |attribute: &'a KeyValue| match &attribute.value.as_ref()?.value {
        Some(any_value::Value::StringValue(text)) => Some(text.as_str()),
        _ => None,
    };
    spans.iter().flat_map(|span| &span.attributes).filter(|a| a.key == key).filter_map(text).collect()
}

/// Without what tailkeep adds, in a fixed order.
fn stripped(mut spans: Vec<Span>) -> Vec<Span> {
    for span in &mut spans {
        span.attributes.retain(|attribute| !attribute.key.starts_with("tailkeep."));
        span.trace_state.clear();
    }
    spans.sort_by_key(|span| span.span_id.clone());
    spans
}

#[test]
fn a_failed_trace_leaves_whole_six_seconds_after_its_root() {
    let mut harness = Harness::new(8 << 20);
    let spans = vec![span(2, 1, 0), failed(span(2, 2, 1)), span(2, 3, 2)];
    harness.send("shop", spans.clone());
    harness.send("shop", vec![span(4, 1, 0)]);
    harness.pass(59);
    assert!(harness.left().is_empty());
    harness.pass(1);
    let left = harness.left();
    assert_eq!(left.len(), 1);
    let trace = &left[&vec![2; 16]];
    assert_eq!(mark(trace, "tailkeep.trigger"), ["root"]);
    assert_eq!(mark(trace, "tailkeep.reason"), ["failed"]);
    assert_eq!(trace[0].attributes.len(), 3, "the marks stand on the root alone");
    assert!(trace.iter().all(|span| span.trace_state == "ot=th:0"));
    assert_eq!(stripped(trace.clone()), spans);
    assert_eq!(harness.state(4), Some(TraceStatus::Dropped));
    harness.drain();
    assert_eq!(harness.totals(), Spans { accepted: 4, kept: 3, dropped: 1, ..Default::default() });
}

#[test]
fn a_trace_without_an_entry_waits_until_it_is_idle_and_says_so() {
    let mut harness = Harness::new(8 << 20);
    harness.send("shop", vec![failed(span(2, 2, 1))]);
    harness.pass(100);
    harness.send("shop", vec![span(2, 3, 1)]);
    harness.pass(119);
    assert!(harness.left().is_empty());
    harness.pass(1);
    let left = harness.left();
    assert_eq!(mark(&left[&vec![2; 16]], "tailkeep.incomplete"), ["no_entry"]);
    assert_eq!(mark(&left[&vec![2; 16]], "tailkeep.trigger"), ["idle"]);
}

#[test]
fn an_endless_trace_is_judged_after_the_longest_wait() {
    let mut harness = Harness::new(8 << 20);
    for second in 0..40 {
        let one = span(2, second + 2, 1);
        harness.send("shop", vec![if second == 0 { failed(one) } else { one }]);
        harness.pass(10);
        assert_eq!(harness.left().is_empty(), second < 29, "at {second} s");
    }
}

#[test]
fn a_late_error_brings_a_dropped_trace_out_whole_and_once() {
    let mut harness = Harness::new(8 << 20);
    harness.send("shop", vec![span(2, 1, 0), span(2, 2, 1)]);
    harness.pass(3000);
    assert_eq!(harness.state(2), Some(TraceStatus::Dropped));
    harness.send("shop", vec![failed(span(2, 3, 1))]);
    harness.pass(11);
    harness.send("shop", vec![span(2, 4, 1)]);
    harness.pass(11);
    let left = harness.left();
    assert_eq!(left[&vec![2; 16]].len(), 4);
    assert_eq!(mark(&left[&vec![2; 16]], "tailkeep.trigger"), ["late", "late"]);
    assert_eq!(mark(&left[&vec![2; 16]], "tailkeep.incomplete"), ["late"], "only the second delivery is late");
    assert!(
        left[&vec![2; 16]].iter().all(|span| span.trace_state == "ot=th:0"),
        "dropped by `none`: the weight is known"
    );
}

#[test]
fn a_share_is_delivered_when_it_has_settled_and_a_later_rescue_has_no_weight() {
    let mut harness = Harness::new(8 << 20);
    let random = |span: Span, low: u8| {
        let mut id = vec![1; 16];
        id[9..].fill(low);
        Span { trace_id: id, ..span }
    };
    harness.send("shop", vec![random(span(1, 1, 0), 0xff), random(span(1, 1, 0), 0x00)]);
    harness.pass(60 + 299);
    assert!(harness.left().is_empty());
    harness.pass(1);
    let kept = harness.left().into_values().next().expect("the upper half of the ids");
    assert_eq!(Sampling::read(kept[0].trace_state.as_bytes()).threshold, Some(Threshold::from_share(0.5)));
    harness.send("shop", vec![random(failed(span(1, 2, 1)), 0x00)]);
    harness.pass(11);
    let left = harness.left();
    assert_eq!(left.len(), 2);
    assert!(left.values().next().unwrap().iter().all(|span| span.trace_state.is_empty()));
}

#[test]
fn what_a_share_once_dropped_has_no_weight_whatever_dropped_it_since() {
    let mut harness = Harness::new(8 << 20);
    let unlucky = |span: Span| Span { trace_id: [[7; 9].as_slice(), &[0; 7]].concat(), ..span };
    harness.send("shop", vec![unlucky(span(1, 1, 0))]);
    harness.pass(60 + 301);
    harness.send("shop", (2..10).map(|n| unlucky(span(1, n, 1))).collect());
    harness.pass(11);
    harness.send("shop", vec![unlucky(failed(span(1, 11, 1)))]);
    harness.pass(11);
    let left = harness.left().into_values().next().expect("it is kept");
    assert_eq!(left.len(), 10);
    assert!(left.iter().all(|span| span.trace_state.is_empty()), "{:?}", left[0].trace_state);
}

#[test]
fn an_error_before_the_share_settles_makes_it_a_must_keep() {
    let mut harness = Harness::new(8 << 20);
    harness.send("shop", vec![span(1, 1, 0)]);
    harness.pass(200);
    harness.send("shop", vec![failed(span(1, 2, 1))]);
    harness.pass(11);
    let left = harness.left();
    assert!(left[&vec![1; 16]].iter().all(|span| span.trace_state == "ot=th:0"));
    assert_eq!(left[&vec![1; 16]].len(), 2);
}

#[test]
fn equal_spans_leave_once_also_when_the_first_has_left() {
    let mut harness = Harness::new(8 << 20);
    harness.send("shop", vec![failed(span(2, 1, 0)), failed(span(2, 1, 0)), span(2, 2, 1)]);
    harness.pass(60);
    harness.send("shop", vec![span(2, 2, 1), span(2, 3, 1)]);
    harness.pass(11);
    assert_eq!(harness.left()[&vec![2; 16]].len(), 3);
    assert_eq!(harness.totals().duplicate, 2);
}

#[test]
fn when_memory_is_needed_the_oldest_are_judged_and_late_spans_still_follow() {
    let mut harness = Harness::new(2 << 20);
    harness.send("shop", vec![failed(fat(span(2, 1, 0), 20_000)), span(2, 2, 1)]);
    for n in 0..200 {
        harness.send("shop", vec![fat(Span { trace_id: vec![100 + n % 50; 16], ..span(1, n, 0) }, 16_000)]);
    }
    assert_eq!(harness.state(2), None);
    let left = harness.left();
    assert_eq!(mark(&left[&vec![2; 16]], "tailkeep.trigger"), ["memory"]);
    assert_eq!(left[&vec![2; 16]].len(), 2);
    harness.send("shop", vec![span(2, 3, 1)]);
    harness.pass(11);
    let trace = &harness.left()[&vec![2; 16]];
    assert_eq!((trace.len(), mark(trace, "tailkeep.incomplete")), (3, vec!["late"]));
    harness.drain();
    assert_eq!(harness.shard.counts.traces[&(ERRORS, true)], 1, "a late part is no trace of its own");
}

#[test]
fn a_trace_that_was_dropped_and_forgotten_is_marked_evicted() {
    let mut harness = Harness::new(2 << 20);
    harness.send("shop", vec![span(2, 1, 0)]);
    harness.pass(60);
    for n in 0..200 {
        harness.send("shop", vec![fat(Span { trace_id: vec![100 + n % 50; 16], ..span(1, n, 0) }, 16_000)]);
    }
    assert!(matches!(harness.shard.why(TraceId([2; 16])), Why::Remembered(Remembered::Dropped { .. })));
    harness.send("shop", vec![failed(span(2, 3, 1))]);
    harness.pass(120);
    let left = harness.left();
    assert_eq!(mark(&left[&vec![2; 16]], "tailkeep.incomplete"), ["evicted"]);
    assert_eq!(left[&vec![2; 16]][0].trace_state, "", "its probability is not known");
}

#[test]
fn a_trace_that_is_being_counted_out_cannot_be_kept_any_more() {
    let mut harness = Harness::new(2 << 20);
    // More records than one call works on.
    let span_of = |n: u16| Span { span_id: [[1; 6].as_slice(), &n.to_be_bytes()].concat(), ..span(2, 1, 9) };
    harness.send("shop", (0..600).map(span_of).collect());
    harness.pass(120);
    assert_eq!(harness.state(2), Some(TraceStatus::Dropped));
    for n in 0..1000u16 {
        let id = [[3; 14].as_slice(), &n.to_be_bytes()].concat();
        let body = request("shop", vec![fat(Span { trace_id: id, ..span(1, 1, 0) }, 4_000)]).encode_to_vec();
        harness.with(|shard, turn, scan, out| {
            scan.read(&body, turn.questions, SpanBounds::of_bytes(shard.span_bytes_max())).expect("well formed");
            // One call only, whether or not it took the span.
            shard.append(turn, scan, &body, &[0], out);
        });
        if (1..600).contains(&harness.totals().dropped) {
            break;
        }
    }
    assert!((1..600).contains(&harness.totals().dropped), "the walk was never interrupted");
    assert!(!harness.with(|shard, turn, _, _| shard.keep_by_id(turn, TraceId([2; 16]))));
    harness.pass(1);
    harness.drain();
    assert!(harness.left().is_empty());
    assert_eq!(harness.shard.counts.kept.iter().sum::<u64>(), 0);
}

/// More spans than one call works on.
fn many_spans(trace: &[u8]) -> Vec<Span> {
    let span_of = |n: u16| Span {
        trace_id: trace.to_vec(),
        span_id: [[1; 6].as_slice(), &n.to_be_bytes()].concat(),
        ..span(1, 1, 9)
    };
    (0..600).map(span_of).collect()
}

#[test]
fn what_is_late_while_a_trace_is_counted_out_leaves_as_a_part() {
    let mut harness = Harness::new(2 << 20);
    let id = vec![2; 16];
    harness.send("shop", many_spans(&id));
    harness.pass(120);
    harness.with(|shard, turn, _, out| assert_eq!(shard.drain(turn, DrainPass::Rest, out), Progress::More));
    assert!((1..600).contains(&harness.totals().dropped), "the walk was not interrupted");
    let late = failed(span(2, 200, 9));
    harness.send("shop", vec![late]);
    harness.drain();
    let left = harness.left();
    assert_eq!(left[&id].len(), 1, "the others are counted dropped");
    assert_eq!(mark(&left[&id], "tailkeep.incomplete"), ["evicted"]);
    assert_eq!(left[&id][0].trace_state, "", "its probability is not known");
}

#[test]
fn what_is_late_while_a_share_leaves_follows_with_its_weight() {
    let mut harness = Harness::new(2 << 20);
    let mut id = vec![1; 16];
    id[9..].fill(0xff);
    harness.send("shop", many_spans(&id));
    harness.pass(120);
    for _ in 0..2 {
        harness.with(|shard, turn, _, out| assert_eq!(shard.drain(turn, DrainPass::Rest, out), Progress::More));
        harness.check();
    }
    harness.send("shop", vec![failed(Span { trace_id: id.clone(), ..span(1, 200, 9) })]);
    harness.drain();
    let left = &harness.left()[&id];
    assert_eq!(left.len(), 601);
    assert!(left.iter().all(|span| span.trace_state == "ot=th:8"), "one trace has one weight");
}

/// It has left in part, with its share's weight, and what comes then fails.
#[test]
fn a_trace_that_fails_once_a_share_has_kept_it_leaves_among_the_failed() {
    let mut harness = Harness::new(8 << 20);
    let mut id = vec![1; 16];
    id[9..].fill(0xff);
    harness.send("shop", vec![Span { trace_id: id.clone(), ..span(1, 1, 0) }]);
    harness.pass(400);
    assert_eq!(harness.left()[&id].len(), 1);
    harness.send("shop", vec![failed(Span { trace_id: id.clone(), ..span(1, 2, 1) })]);
    harness.drain_pass(DrainPass::Kept);
    assert_eq!(harness.left()[&id].len(), 2);
}

#[test]
fn a_drain_lets_failed_traces_leave_before_shares() {
    let mut harness = Harness::new(8 << 20);
    let mut kept_by_share = vec![1; 16];
    kept_by_share[9..].fill(0xff);
    harness.send("shop", vec![Span { trace_id: kept_by_share.clone(), ..span(1, 1, 0) }, span(4, 1, 0)]);
    harness.pass(100);
    // The first still waits, the second has been told to leave.
    harness.send("shop", vec![failed(span(6, 1, 0)), failed(span(8, 1, 0)), span(10, 1, 0)]);
    harness.with(|shard, turn, _, _| assert!(shard.keep_by_id(turn, TraceId([8; 16]))));
    harness.drain_pass(DrainPass::Kept);
    assert_eq!(harness.left().into_keys().collect::<Vec<_>>(), [vec![6; 16], vec![8; 16]]);
    assert_eq!(harness.totals().held, 3, "the share waits for its turn, and nothing is counted dropped yet");
    harness.drain_pass(DrainPass::Rest);
    assert!(harness.left().contains_key(&kept_by_share));
    assert_eq!((harness.totals().kept, harness.totals().dropped, harness.totals().held), (3, 2, 0));
}

/// One resource of half a megabyte, and five hundred failed traces of it.
#[test]
fn what_leaves_in_one_call_counts_by_what_it_weighs() {
    let mut harness = Harness::new(64 << 20);
    let service = "n".repeat(500_000);
    let id_of = |n: u16| [[3; 14].as_slice(), &n.to_be_bytes()].concat();
    harness.send(&service, (1..=500).map(|n| failed(Span { trace_id: id_of(n), ..span(1, 1, 0) })).collect());
    harness.now += 60;
    let (mut largest, mut left) = (0, 0);
    loop {
        let progress = harness.with(|shard, turn, _, out| shard.tick(turn, true, out));
        let out = std::mem::take(&mut harness.out);
        largest = largest.max(out.body.len());
        left += out.spans;
        if progress == Progress::Done {
            break;
        }
    }
    assert_eq!(left, 500);
    assert!(largest < COPY_MAX + service.len() + 1000, "{largest}");
}

/// A trace whose every span has a large resource of its own is read in pages that are not much larger than
/// what one call may copy.
#[test]
fn a_page_of_a_trace_is_bounded_in_bytes() {
    let mut harness = Harness::new(128 << 20);
    for n in 1..=20 {
        harness.send(&format!("{n}{}", "n".repeat(300_000)), vec![span(2, n, 9)]);
    }
    let (mut page, mut pages, mut spans) = (None, 0, 0);
    loop {
        let next = harness.shard.page_of(TraceId([2; 16]), page.as_ref()).expect("in the ring");
        assert!(next.body.len() < COPY_MAX + 700_000, "{}", next.body.len());
        let request = ExportTraceServiceRequest::decode(next.body.as_slice()).expect("OTLP");
        spans += request.resource_spans.iter().flat_map(|r| &r.scope_spans).map(|s| s.spans.len()).sum::<usize>();
        pages += 1;
        if next.is_last() {
            break;
        }
        page = Some(next);
    }
    assert_eq!(spans, 20);
    assert!((4..=6).contains(&pages), "{pages}");
}

#[test]
fn a_large_resource_makes_no_page_of_every_span() {
    let mut harness = Harness::new(128 << 20);
    let service = "s".repeat(COPY_MAX - 10_000);
    for n in 1..=20 {
        harness.send(&service, vec![fat(span(2, n, 9), 10_000)]);
    }
    let page = harness.shard.page_of(TraceId([2; 16]), None).expect("in the ring");
    let request = ExportTraceServiceRequest::decode(page.body.as_slice()).expect("OTLP");
    assert_eq!(request.resource_spans.len(), 1);
    assert_eq!(request.resource_spans[0].scope_spans[0].spans.len(), 20);
    assert!(page.is_last());
}

#[test]
fn the_largest_span_with_the_largest_context_is_taken() {
    let mut harness = Harness::new(2 << 20);
    let bound = harness.shard.span_bytes_max() as usize;
    for n in 1..100 {
        let name = "n".repeat(bound - 40);
        harness.send(&name, vec![fat(span(n, 1, 0), bound - 100)]);
    }
    assert_eq!(harness.totals().accepted, 99);
    harness.send(&"n".repeat(bound), vec![span(2, 1, 0)]);
    assert_eq!((harness.totals().accepted, harness.scan.rejected.too_large), (99, 1));
    harness.drain();
}

#[test]
fn an_error_at_the_tick_of_settling_comes_too_late_for_both_halves_of_a_share() {
    let mut harness = Harness::new(8 << 20);
    let of = |span: Span, low: u8| Span { trace_id: [[1; 9], [low; 9]].concat()[..16].to_vec(), ..span };
    harness.send("shop", vec![of(span(1, 1, 0), 0xff), of(span(1, 1, 0), 0)]);
    harness.pass(60 + 290);
    harness.send("shop", vec![of(failed(span(1, 2, 1)), 0xff), of(failed(span(1, 2, 1)), 0)]);
    harness.pass(10);
    harness.pass(10);
    let states: Vec<String> = harness.left().into_values().flatten().map(|span| span.trace_state).collect();
    assert_eq!(states, ["", "", "ot=th:8", "ot=th:8"], "the kept half stands for the other");
}

#[test]
fn a_giant_trace_holds_no_more_than_its_part_of_the_ring() {
    let mut harness = Harness::new(4 << 20);
    harness.send("shop", vec![failed(span(2, 1, 0))]);
    for n in 0..100 {
        harness.send("shop", vec![fat(span(2, n, 1), 8_000)]);
    }
    let totals = harness.totals();
    assert!(totals.over_limit > 50 && totals.held * 8_000 <= (4 << 20) / 16, "{totals:?}");
    harness.pass(300);
    assert_eq!(mark(&harness.left()[&vec![2; 16]], "tailkeep.incomplete"), ["limit"]);
}

#[test]
fn resources_that_only_one_trace_brings_count_as_its_bytes() {
    let mut harness = Harness::new(4 << 20);
    harness.send("shop", vec![failed(span(2, 1, 0))]);
    for n in 0..100 {
        harness.send(&format!("{n}{}", "r".repeat(8_000)), vec![span(2, n, 1)]);
    }
    let totals = harness.totals();
    assert!(totals.over_limit > 50 && totals.held * 8_000 <= (4 << 20) / 16, "{totals:?}");
}

#[test]
fn a_trace_is_kept_by_its_id_without_a_weight() {
    let mut harness = Harness::new(8 << 20);
    harness.send("shop", vec![span(2, 1, 0)]);
    harness.pass(1000);
    assert!(harness.with(|shard, turn, _, _| shard.keep_by_id(turn, TraceId([2; 16]))));
    assert!(!harness.with(|shard, turn, _, _| shard.keep_by_id(turn, TraceId([3; 16]))));
    harness.pass(1);
    let trace = &harness.left()[&vec![2; 16]];
    assert_eq!((mark(trace, "tailkeep.rule"), trace[0].trace_state.as_str()), (vec!["api"], ""));
}

#[test]
fn a_span_with_invalid_text_leaves_repaired() {
    let mut harness = Harness::new(8 << 20);
    let mut bad = failed(span(2, 2, 1)).encode_to_vec();
    let name = bad.windows(4).position(|window| window == b"span").expect("its name");
    bad[name] = 0xff;
    harness.take_raw(&raw_request(b"\xe6\x90", &[bad, span(2, 1, 0).encode_to_vec()]));
    harness.pass(60);
    let left = &harness.left()[&vec![2; 16]];
    assert_eq!(left.iter().filter(|span| span.name.starts_with("\u{fffd}pan")).count(), 1);
    assert_eq!((left.len(), harness.totals().kept), (2, 2));
}

/// One `ResourceSpans` with that schema URL, and spans as they are.
fn raw_request(schema_url: &[u8], spans: &[Vec<u8>]) -> Vec<u8> {
    use crate::otlp::wire::put_bytes;
    let (mut scope, mut resource, mut body) = (Vec::new(), Vec::new(), Vec::new());
    spans.iter().for_each(|span| put_bytes(&mut scope, 2, span));
    put_bytes(&mut resource, 2, &scope);
    put_bytes(&mut resource, 3, schema_url);
    put_bytes(&mut body, 1, &resource);
    body
}

impl Harness {
    fn take_raw(&mut self, body: &[u8]) {
        self.with(|shard, turn, scan, out| {
            scan.read(body, turn.questions, SpanBounds::of_bytes(1 << 20)).expect("well framed");
            let all: Vec<u32> = (0..scan.spans.len() as u32).collect();
            assert_eq!(shard.append(turn, scan, body, &all, out), all.len());
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever comes in whatever order: nothing is lost or doubled without a counter that says so.
    #[test]
    fn spans_leave_once_and_failed_ones_always(
        steps in prop::collection::vec((1u8..9, any::<bool>(), any::<bool>(), prop::sample::select(vec![10usize, 3_000, 20_000]), 0u32..40), 1..160),
    ) {
        let mut harness = Harness::new(2 << 20);
        let mut failures: Vec<Span> = Vec::new();
        let mut twice = 0;
        for (n, (trace, error, again, bytes, ticks)) in steps.into_iter().enumerate() {
            let id = n as u8 + 1;
            let one = fat(span(trace, id, id / 2), bytes);
            let one = if error && id.is_multiple_of(5) { failed(one) } else { one };
            failures.extend(one.status.is_some().then(|| one.clone()));
            let spans = if again { vec![one.clone(), one] } else { vec![one] };
            twice += u64::from(again);
            harness.send(if trace % 2 == 0 { "a" } else { "b" }, spans);
            harness.pass(ticks);
        }
        harness.drain();
        let totals = harness.totals();
        let left: Vec<Span> = harness.left().into_values().flatten().collect();
        let mut ids: Vec<_> = left.iter().map(|span| (&span.trace_id, &span.span_id)).collect();
        ids.sort();
        ids.dedup();
        prop_assert_eq!(ids.len() as u64, totals.kept, "no span left twice");
        prop_assert!(totals.duplicate <= twice);
        if totals.over_limit == 0 {
            let left = stripped(left);
            prop_assert!(failures.iter().all(|failure| left.contains(failure)), "a failed span stayed behind");
        }
    }
}

/// Calls until the traces are judged by new questions, and until a survey has asked them.
fn calls_to_ask_again(services: &[String]) -> [usize; 2] {
    let asking = |number| {
        let tests = vec![Test::Service(vec![Pattern::Exact("shop".into())])];
        Questions::compile(&[Condition { scope: SpanScope::Any, tests }], &[], number).expect("one question")
    };
    let mut harness = Harness::new(512 << 20);
    for (n, service) in services.iter().enumerate() {
        let trace_id = [[2; 14].as_slice(), &(n as u16).to_be_bytes()].concat();
        harness.send(service, vec![Span { trace_id, ..span(2, 1, 0) }]);
    }
    (harness.questions, harness.now) = (asking(2), harness.now + 60);
    let mut judging = 1;
    while harness.with(|shard, turn, _, out| shard.tick(turn, true, out)) == Progress::More {
        judging += 1;
    }
    let sets = [asking(3), asking(4), asking(5)];
    let asked = SurveyQuestions { sets: &sets, answered: None };
    let (mut survey, mut found, mut surveying) = (Survey::default(), Vec::new(), 1);
    while harness.shard.survey(&asked, &mut survey, &mut found) == Progress::More {
        surveying += 1;
    }
    assert_eq!(found.len(), services.len());
    [judging, surveying]
}

/// What is read under the lock counts by its bytes, and a resource is read once for all that share it.
#[test]
fn large_resources_are_read_once_and_in_pieces() {
    let large = |n: usize| format!("{n}{}", "n".repeat(500_000));
    let shared: Vec<String> = (0..100).map(|_| large(0)).collect();
    let own: Vec<String> = (0..100).map(large).collect();
    let [judging, surveying] = calls_to_ask_again(&shared);
    assert!(judging <= 4 && surveying <= 6, "{judging} and {surveying}");
    let [judging, surveying] = calls_to_ask_again(&own);
    assert!(judging >= 30 && surveying >= 90, "{judging} and {surveying}");
}
