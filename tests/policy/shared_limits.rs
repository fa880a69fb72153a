//! Rules that share a limit, against two plain truths: together they keep what one rule with all of their conditions
//! would keep, and in no window of time more than the limit lets in.

use crate::random::random_policy;
use crate::span::{Choices, decoded_of, random_trace};
use proptest::prelude::*;
use std::collections::BTreeMap;
use tailkeep::policy::limit::Claim;
use tailkeep::policy::{Charge, Limits, Policy};
use tailkeep::trace::{Case, LimitId, RuleId, RuleNames, Summary, TraceId, Trigger, Verdict};

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

/// Some limits are reached, by chance; remembers the first rule that it refused.
struct Refusing<'a, 'b> {
    choices: &'a mut Choices<'b>,
    reached: BTreeMap<LimitId, bool>,
    refused: Option<RuleId>,
}

impl Charge for Refusing<'_, '_> {
    fn admit(&mut self, claim: &Claim<'_>) -> bool {
        let reached = *self.reached.entry(claim.id).or_insert_with(|| self.choices.once_in(2));
        if reached {
            self.refused.get_or_insert(claim.rule);
        }
        !reached
    }
}

proptest! {
    /// What `why` says of a verdict is found from the verdict alone.
    #[test]
    fn a_verdict_tells_whether_a_limit_was_reached(
        policy in prop::collection::vec(any::<u8>(), 0..160),
        traffic in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let text = random_policy(&mut Choices(policy.iter()));
        let policy = Policy::compile("random", &text, 1, &mut RuleNames::default()).0.expect("valid");
        let mut choices = Choices(traffic.iter());
        for _ in 0..8 {
            let trace = random_trace(&mut choices);
            let summary = decoded_of(&policy, &trace).summary;
            let case = Case { id: trace.id, summary: &summary, charged: None, stored_bytes: 10 };
            let mut limits = Refusing { choices: &mut choices, reached: BTreeMap::new(), refused: None };
            let verdict = policy.judge(&case, Trigger::Root, &mut limits, 0);
            let found = policy.limit_reached(&summary, &verdict).map(|rule| rule.id);
            prop_assert_eq!(found, limits.refused, "{:?} of {}", verdict, text);
        }
    }
}
