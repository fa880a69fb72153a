//! Two policies that ask together say what each says alone.

use crate::random::random_policy;
use crate::span::{Choices, decoded_of, random_trace};
use proptest::prelude::*;
use tailkeep::policy::{Limits, Policy};
use tailkeep::trace::{Case, RuleNames, Summary, TraceId, Trigger, Verdict};

/// What counts as an error must be the same in both.
fn random_text(bytes: &[u8]) -> String {
    let text = random_policy(&mut Choices(bytes.iter()));
    text.lines().filter(|line| !line.starts_with("errors:")).fold(String::new(), |all, line| all + line + "\n")
}

fn judge(policy: &Policy, id: TraceId, summary: &Summary) -> Verdict {
    let case = Case { id, summary, charged: None, stored_bytes: 10 };
    policy.judge(&case, Trigger::Root, &mut Limits::default(), 0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_candidate_beside_a_policy_judges_as_it_would_alone(
        policy in prop::collection::vec(any::<u8>(), 0..160),
        candidate in prop::collection::vec(any::<u8>(), 0..160),
        traffic in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let [policy, candidate] = [random_text(&policy), random_text(&candidate)];
        let compiled = |text: &str| Policy::compile("policy", text, 1, &mut RuleNames::default()).0.expect("valid");
        let (in_force, alone) = (compiled(&policy), compiled(&candidate));
        let beside = in_force.compile_beside("candidate", &candidate, &mut RuleNames::default()).0.expect("few questions");
        let mut choices = Choices(traffic.iter());
        for _ in 0..8 {
            let trace = random_trace(&mut choices);
            let [of_first, of_second, of_both] =
                [&in_force, &alone, &beside].map(|policy| decoded_of(policy, &trace).summary);
            prop_assert_eq!(judge(&in_force, trace.id, &of_both), judge(&in_force, trace.id, &of_first), "{}", policy);
            prop_assert_eq!(judge(&beside, trace.id, &of_both), judge(&alone, trace.id, &of_second), "{}", candidate);
        }
    }
}
