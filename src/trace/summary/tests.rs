use super::*;
use crate::trace::{Slice, SpanKind};
use proptest::prelude::*;

const SERVICES: [u64; 2] = [11, 22];

fn masks() -> FactMasks {
    FactMasks { any: Facts::one(0) | Facts::one(1), entry: Facts::one(2) | Facts::one(3), root: Facts::one(4) }
}

prop_compose! {
    /// Few ids and starts, so that entries are equal in rank now and then.
    fn span()(
        standing in prop_oneof![Just(Standing::Inner), Just(Standing::Entry), Just(Standing::Root)],
        (span_id, start, duration) in (1..4u64, 0..4u64, 0..4u64),
        (failed, random_flag) in any::<(bool, bool)>(),
        randomness in proptest::option::of(0..9u64),
        name_hash in 1..4u64,
        bits in 0..32usize,
        values in (0..3u32, 0..3u32),
        len in 0..100u32,
        service in 0..2usize,
    ) -> (SpanView, u64) {
        let mut facts = Facts::EMPTY;
        (0..5).filter(|bit| bits >> bit & 1 == 1).for_each(|bit| facts.set(bit));
        let span = SpanView {
            trace_id: TraceId([1; 16]),
            span_id,
            parent_id: 0,
            start,
            end: start + duration,
            raw: Slice { start: 0, len },
            name: Slice::default(),
            scope: 0,
            kind: SpanKind::Server,
            status: if failed { Status::Error } else { Status::Ok },
            standing,
            random_flag,
            head_sampled: false,
            randomness: randomness.map(Randomness::from_bits),
            operation: 0,
            name_hash,
            entry_values: [values.0, values.1],
            facts,
        };
        (span, SERVICES[service])
    }
}

fn summary_of(spans: &[(SpanView, u64)]) -> Summary {
    let mut summary = Summary::default();
    spans.iter().for_each(|(span, service)| summary.observe(span, *service, &masks()));
    summary
}

proptest! {
    #[test]
    fn the_order_of_spans_makes_no_difference(
        (spans, shuffled) in proptest::collection::vec(span(), 0..8)
            .prop_flat_map(|spans| (Just(spans.clone()), Just(spans).prop_shuffle())),
    ) {
        prop_assert_eq!(summary_of(&spans), summary_of(&shuffled));
    }

    #[test]
    fn merged_parts_say_the_same_as_all_spans_in_one_place(
        spans in proptest::collection::vec((span(), 0..3usize), 0..10),
        order in Just([0, 1, 2]).prop_shuffle(),
    ) {
        let part = |number: usize| {
            let dealt = spans.iter().filter(|(_, to)| *to == number);
            summary_of(&dealt.map(|(span, _)| *span).collect::<Vec<_>>())
        };
        let [a, b, c] = order.map(part);
        let all = summary_of(&spans.iter().map(|(span, _)| *span).collect::<Vec<_>>());
        let (mut from_left, mut from_right, mut tail) = (a, a, b);
        from_left.merge(&b, &masks());
        from_left.merge(&c, &masks());
        tail.merge(&c, &masks());
        from_right.merge(&tail, &masks());
        prop_assert_eq!(from_left, all);
        prop_assert_eq!(from_right, all);
    }

    /// As after a reload: the same spans, with other answers.
    #[test]
    fn observed_again_it_says_what_it_would_if_these_had_been_the_questions_at_first(
        spans in proptest::collection::vec((span(), span()), 0..8),
    ) {
        let answered = |(mut span, service): (SpanView, u64), other: SpanView| {
            (span.facts, span.entry_values) = (other.facts, other.entry_values);
            (span, service)
        };
        let again: Vec<_> = spans.iter().map(|(span, (other, _))| answered(*span, *other)).collect();
        let mut summary = summary_of(&spans.iter().map(|(span, _)| *span).collect::<Vec<_>>());
        summary.forget_answers(true);
        again.iter().rev().for_each(|(span, _)| summary.observe_again(span, &masks(), true));
        prop_assert_eq!(summary, summary_of(&again));
    }
}
