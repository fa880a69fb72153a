//! Rules that share a limit, against two plain truths: together they keep what one rule with all of their conditions
//! would keep, and in no window of time more than the limit lets in.

use proptest::prelude::*;
use tailkeep::policy::{Limits, Policy};
use tailkeep::trace::{Case, RuleNames, Summary, TraceId, Trigger, Verdict};

/// Three rules by the number of spans, then one for all of them.
const SHARING: &str = "version: 1
limits: { calls: RATE }
rules:
  - { name: tiny, when: { span_count: { below: 2 } }, keep: KEEP, limit: calls }
  - { name: small, when: { span_count: { at_least: 2, below: 5 } }, keep: KEEP, limit: calls }
  - { name: large, when: { span_count: { at_least: 5, below: 9 } }, keep: KEEP, limit: calls }
otherwise: { keep: none }
";
const TOGETHER: &str = "version: 1
rules:
  - { name: any, when: { span_count: { below: 9 } }, keep: KEEP, limit: RATE }
otherwise: { keep: none }
";

fn policy(text: &str, rate: &str, keep: &str) -> Policy {
    let text = text.replace("RATE", rate).replace("KEEP", keep);
    Policy::compile("p", &text, 1, &mut RuleNames::default()).0.expect("a policy")
}

/// A trace that is due so long after the one before it, with so many spans and this randomness.
type Arrival = (u64, u32, u8);

fn judged(policy: &Policy, arrivals: &[Arrival]) -> Vec<(u64, Verdict)> {
    let (mut limits, mut now_ms) = (Limits::default(), 0);
    let mut judge = |&(wait, spans, randomness): &Arrival| {
        now_ms += wait;
        let summary = Summary { spans, ..Summary::default() };
        let case = Case { id: TraceId([randomness; 16]), summary: &summary, charged: None, stored_bytes: 1 };
        (now_ms, policy.judge(&case, Trigger::Root, &mut limits, now_ms))
    };
    arrivals.iter().map(&mut judge).collect()
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    prop::collection::vec((prop_oneof![Just(0u64), 0..50u64, 0..3000u64], 1..11u32, 1..255u8), 1..200)
}

proptest! {
    #[test]
    fn they_keep_what_one_rule_for_all_would(
        arrivals in arrivals(),
        rate in prop::sample::select(&["1/s", "4/s", "7/min", "9 spans/s"][..]),
        keep in prop::sample::select(&["all", "50%"][..]),
    ) {
        let sharing = judged(&policy(SHARING, rate, keep), &arrivals);
        let together = judged(&policy(TOGETHER, rate, keep), &arrivals);
        for ((_, one), (_, other)) in sharing.iter().zip(&together) {
            prop_assert_eq!((one.decision, one.threshold), (other.decision, other.threshold));
        }
    }

    /// A bucket holds one second's worth, so a window of n seconds has room for n + 1 of them.
    #[test]
    fn in_no_window_they_keep_more_than_the_limit(arrivals in arrivals(), rate in 1..6u64) {
        let verdicts = judged(&policy(SHARING, &format!("{rate}/s"), "all"), &arrivals);
        let kept: Vec<u64> = verdicts.iter().filter(|(_, verdict)| verdict.decision.keeps()).map(|(at, _)| *at).collect();
        for (first, from) in kept.iter().enumerate() {
            for (last, until) in kept.iter().enumerate().skip(first) {
                let (count, room) = ((last - first + 1) as u64 * 1000, rate * (1000 + until - from));
                prop_assert!(count <= room, "{} traces from {from} to {until} ms", last - first + 1);
            }
        }
    }
}
