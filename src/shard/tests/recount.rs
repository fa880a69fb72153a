//! A policy that counts other spans as errors than the one before it: what is in the ring is counted again.

use super::*;
use crate::trace::Failures;
use crate::trace::question::{Condition, ErrorFacts, SpanScope, Test, ValuePattern, ValueTest};

/// One of four traces, a root, a span from elsewhere or one inside, its status, and its status of HTTP.
type Sketch = (u8, u8, bool, u16);

fn sketches() -> impl Strategy<Value = Vec<Sketch>> {
    let code = prop_oneof![Just(200u16), Just(404), Just(503)];
    prop::collection::vec((1..5u8, 0..3u8, any::<bool>(), code), 1..25)
}

fn spans_of(number: usize, &(trace, place, is_failed, code): &Sketch) -> Vec<Span> {
    let mut span = span(trace, number as u8 + 1, if place > 0 { 99 } else { 0 });
    span = if is_failed { failed(span) } else { span };
    span.flags = if place == 1 { 0x300 } else { 0x100 };
    let value = AnyValue { value: Some(any_value::Value::IntValue(i64::from(code))) };
    span.attributes.push(KeyValue { key: "code".into(), value: Some(value), ..KeyValue::default() });
    vec![span]
}

/// Question set `number`; `except` and `also` name codes. It counts otherwise than the one before it.
fn questions(number: u32, except: u16, also: u16) -> Questions {
    let is = |code: u16| {
        let values = ValueTest::OneOf(vec![ValuePattern::Number(f64::from(code))]);
        Condition { scope: SpanScope::Any, tests: vec![Test::Attribute { keys: vec!["code".into()], values }] }
    };
    let errors = ErrorFacts { except: crate::trace::Facts::one(0), also: crate::trace::Facts::one(1) };
    let mut questions = Questions::compile(&[is(except), is(also)], &[], number).expect("few").counting_errors(errors);
    questions.errors_since = Some(number);
    questions
}

/// What is known of each trace once all of them are judged, and what has left.
fn judged(mut harness: Harness) -> (Vec<Option<Failures>>, usize) {
    harness.pass(130);
    let known = (1..5).map(|trace| {
        let id = TraceId([trace; 16]);
        let slot = harness.shard.index.find(harness.shard.hash(id), id)?;
        Some(Failures::of(&harness.shard.index.entry(slot).summary))
    });
    (known.collect(), harness.left().len())
}

proptest! {
    #[test]
    fn after_a_reload_errors_are_those_of_the_new_policy(
        sketches in sketches(),
        first in (0..25usize, 0..3usize, 0..3usize),
        last in (0..25usize, 0..3usize, 0..3usize),
    ) {
        let code = |place: usize| [404, 503, 1][place];
        let set = |number, (_, except, also): (usize, usize, usize)| questions(number, code(except), code(also));
        let (mut reloaded, mut from_start) = (Harness::new(8 << 20), Harness::new(8 << 20));
        from_start.questions = set(3, last);
        for (number, sketch) in sketches.iter().enumerate() {
            if number == first.0 {
                reloaded.questions = set(2, first);
            }
            if number == first.0 + last.0 {
                reloaded.questions = set(3, last);
            }
            reloaded.send("shop", spans_of(number, sketch));
            from_start.send("shop", spans_of(number, sketch));
        }
        reloaded.questions = set(3, last);
        prop_assert_eq!(judged(reloaded), judged(from_start));
    }
}

/// A set that counts as the one before it leaves alone what cannot be counted again.
#[test]
fn a_reload_that_counts_alike_forgets_no_error_that_was_not_stored() {
    for since in [None, Some(1), Some(2)] {
        let mut harness = Harness::new(4 << 20);
        (1..60).for_each(|id| harness.send("shop", vec![fat(span(8, id, 99), 8_000)]));
        harness.send("shop", vec![failed(fat(span(8, 60, 99), 8_000))]);
        assert!(harness.totals().over_limit > 1, "{:?}", harness.totals());
        harness.questions = Questions::compile(&[], &[], 2).expect("none");
        harness.questions.errors_since = since;
        harness.pass(130);
        assert_eq!(harness.left().len(), 1, "{since:?}");
    }
}

/// A walk that is put down counts from 0 again when another set comes meanwhile, though that one counts alike.
#[test]
fn a_reload_in_the_middle_of_a_count_leaves_nothing_out() {
    let mut harness = Harness::new(8 << 20);
    let sketch = |id: usize| spans_of(id, &(1, 2, true, if id < 250 { 200 } else { 404 }));
    (0..250).for_each(|id| harness.send("shop", sketch(id)));
    (0..250).for_each(|id| harness.send("shop", vec![Span { name: "more".into(), ..sketch(id).remove(0) }]));
    harness.questions = questions(2, 404, 1);
    while harness.shard.walk.is_none() {
        harness.now += 1;
        harness.with(|shard, turn, _, out| shard.tick(turn, true, out));
    }
    harness.questions = questions(3, 404, 1);
    harness.questions.errors_since = Some(2);
    let (failures, left) = judged(harness);
    assert_eq!((failures[0].map(|failures| failures.errors), left), (Some(500), 1));
}
