//! What keeps a whole shows in a part: random policies, and traces dealt to nodes in random ways.

use crate::random::random_policy;
use crate::span::{Choices, TestTrace, decoded_of, random_trace};
use proptest::prelude::*;
use tailkeep::policy::witness::Speech;
use tailkeep::policy::{Limits, Policy};
use tailkeep::trace::{Case, RuleNames, Status, Summary, Trigger};

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_kept_has_a_witness_in_some_part(
        policy in prop::collection::vec(any::<u8>(), 0..160),
        traffic in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let text = random_policy(&mut Choices(policy.iter()));
        let policy = Policy::compile("random", &text, 1, &mut RuleNames::default()).0.expect("valid");
        let mut choices = Choices(traffic.iter());
        for _ in 0..12 {
            let trace = random_trace(&mut choices);
            let parts = dealt(&policy, &trace, &mut choices);
            let speeches: Vec<Speech> = parts.iter().map(|part| policy.witnesses.speech(trace.id, part)).collect();
            let mut whole = parts[0];
            parts[1..].iter().for_each(|part| whole.merge(part, &policy.masks));
            // A limit that lets everything in keeps the most.
            let case = Case { id: trace.id, summary: &whole, charged: None, stored_bytes: 0 };
            let verdict = policy.judge(&case, Trigger::Root, &mut Limits::default(), 0);
            let all_know = speeches.iter().all(|speech| *speech != Speech::Silent);
            prop_assert!(
                !verdict.decision.keeps() || speeches.contains(&Speech::Call) || all_know,
                "{speeches:?} of {parts:#?}\nkept by {text}"
            );
        }
    }
}

/// The spans of a trace, dealt to up to three nodes: what each of them knows.
fn dealt(policy: &Policy, trace: &TestTrace, choices: &mut Choices<'_>) -> Vec<Summary> {
    let mut nodes = vec![Vec::new(); 3];
    for span in &trace.spans {
        nodes[choices.below(3)].push(span.clone());
    }
    let parts = nodes.into_iter().filter(|spans| !spans.is_empty()).enumerate();
    let part = |(node, spans)| {
        let (limited, forgotten) = (trace.limited && node == 0, trace.forgotten && node == 0);
        decoded_of(policy, &TestTrace { spans, limited, forgotten, ..trace.clone() }).summary
    };
    parts.map(part).collect()
}

#[test]
fn a_part_speaks_of_what_a_rule_may_keep_and_of_nothing_else() {
    // Of no choices it is a root that is fast and did not fail.
    let fast = random_trace(&mut Choices([].iter()));
    let [mut failed, mut slow] = [fast.clone(), fast.clone()];
    failed.spans[0].status = Status::Error;
    slow.spans[0].end += 3_000_000_000;
    let cases = [
        ("rules: [{ name: e, when: { error: true }, keep: all }]", [Speech::Silent, Speech::Call, Speech::Silent]),
        (
            "rules: [{ name: d, when: { duration: { at_least: 2s } }, keep: all }]",
            [Speech::Silent, Speech::Silent, Speech::Call],
        ),
        ("rules: [{ name: n, when: { error: true }, keep: none }]", [Speech::Silent; 3]),
        ("rules: [{ name: c, when: { span_count: { at_least: 1000 } }, keep: all }]", [Speech::Tell; 3]),
        (
            "rules: [{ name: two, when: { duration: { at_least: 2s }, error: true }, keep: all }]",
            [Speech::Silent, Speech::Call, Speech::Silent],
        ),
        (
            "rules: [{ name: some, when: { any_of: [{ error: true }, { services: nobody }] }, keep: all }]",
            [Speech::Silent, Speech::Call, Speech::Silent],
        ),
    ];
    for (rules, expected) in cases {
        let text = format!("version: 1\n{rules}\notherwise: {{ keep: none }}\n");
        let policy = Policy::compile("case", &text, 1, &mut RuleNames::default()).0.expect(rules);
        let found =
            [&fast, &failed, &slow].map(|trace| policy.witnesses.speech(trace.id, &decoded_of(&policy, trace).summary));
        assert_eq!(found, expected, "{rules}");
    }
}
