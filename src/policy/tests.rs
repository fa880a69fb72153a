use super::*;
use crate::trace::TraceId;
use crate::trace::question::FACTS_MAX;
use std::sync::Mutex;

const DESIGN: &str = include_str!("../../tests/policy_cases/design/policy.yaml");

fn compile(text: &str) -> Policy {
    let (policy, diagnostics) = Policy::compile("policy.yaml", text, 7, &mut RuleNames::default());
    policy.unwrap_or_else(|| panic!("{}", diagnostic::render(&diagnostics, text, false)))
}

/// A policy of these rules.
fn with_rules(rules: &str) -> Policy {
    compile(&format!("version: 1\nrules:\n{rules}\notherwise: {{ keep: 50% }}\n"))
}

/// A trace id whose randomness is `share` of the whole range.
fn id_at(share: f64) -> TraceId {
    let mut id = [7; 16];
    id[8..].copy_from_slice(&(((1u64 << 56) as f64 * share) as u64 | 7 << 56).to_be_bytes());
    TraceId(id)
}

fn failed() -> Summary {
    Summary { errors: 1, spans: 4, ..Summary::default() }
}

fn judge(policy: &Policy, limits: &mut impl Charge, share: f64, summary: &Summary, now_ms: u64) -> Verdict {
    let case = Case { id: id_at(share), summary, charged: None, stored_bytes: 1000 };
    policy.judge(&case, Trigger::Root, limits, now_ms)
}

#[test]
fn the_design_example_compiles_with_the_one_warning_it_deserves() {
    let (policy, diagnostics) = Policy::compile("policy.yaml", DESIGN, 1, &mut RuleNames::default());
    let codes: Vec<&str> = diagnostics.iter().map(|d| d.code).collect();
    assert_eq!(codes, ["P12"], "{}", diagnostic::render(&diagnostics, DESIGN, false));
    assert_eq!(policy.expect("a policy").rules.len(), 7);
}

#[test]
fn equal_conditions_are_one_question() {
    let policy = with_rules(
        "  - { name: a, when: { entry: { name: x, kind: server } }, keep: all }
  - { name: b, when: { error: true, entry: { kind: server, name: x } }, keep: none }
  - { name: c, when: { not: { entry: { kind: server, name: x } } }, keep: all }",
    );
    assert_eq!(policy.conditions.len(), 1);
}

#[test]
fn inside_its_limit_a_trace_carries_its_rules_threshold_beyond_it_what_then_says() {
    let share = |share| Some(Threshold::from_share(share));
    for (then, decision, threshold, by_rule) in [
        ("5%", Decision::DropShare, share(0.05), true),
        ("20%", Decision::KeepShare, share(0.2), true),
        ("none", Decision::DropNone, None, true),
        ("next", Decision::KeepShare, share(0.3), false),
        ("otherwise", Decision::KeepShare, share(0.5), false),
    ] {
        let policy = with_rules(&format!(
            "  - {{ name: errors, when: {{ error: true }}, keep: all, limit: 1/s, then: {then} }}
  - {{ name: rest, keep: 30% }}"
        ));
        let mut limits = Limits::default();
        let errors = policy.rules[0].id;
        let first = judge(&policy, &mut limits, 0.9, &failed(), 0);
        assert_eq!((first.decision, first.rule), (Decision::KeepAll, errors));
        assert_eq!(first.charged, Some(LimitId::OfRule(errors)));
        assert_eq!(first.threshold, if then == "none" { None } else { share(1.0) }, "{then}");
        let second = judge(&policy, &mut limits, 0.9, &failed(), 0);
        assert_eq!((second.decision, second.threshold), (decision, threshold), "{then}");
        assert_eq!(second.rule == errors, by_rule, "{then}");
        assert_eq!(second.charged, None, "{then}");
    }
}

#[test]
fn a_trace_charges_a_limit_once() {
    let policy = with_rules("  - { name: some, keep: 50%, limit: 2/s, then: none }");
    let (summary, mut limits, some) = (failed(), Limits::default(), policy.rules[0].id);
    let first = judge(&policy, &mut limits, 0.9, &summary, 0);
    assert_eq!(first.charged, Some(LimitId::OfRule(some)));
    let case = Case { id: id_at(0.9), summary: &summary, charged: first.charged, stored_bytes: 0 };
    for _ in 0..5 {
        assert_eq!(policy.judge(&case, Trigger::Late, &mut limits, 0).decision, Decision::KeepShare);
    }
    assert_eq!(judge(&policy, &mut limits, 0.9, &summary, 0).decision, Decision::KeepShare, "one is left");
    assert_eq!(judge(&policy, &mut limits, 0.9, &summary, 0).decision, Decision::DropNone);
}

#[test]
fn a_trace_that_its_share_drops_takes_nothing_from_the_limit() {
    let policy = with_rules("  - { name: some, keep: 50%, limit: 1/s, then: none }");
    let mut limits = Limits::default();
    for _ in 0..5 {
        assert_eq!(judge(&policy, &mut limits, 0.1, &failed(), 0).decision, Decision::DropShare);
    }
    assert_eq!(judge(&policy, &mut limits, 0.9, &failed(), 0).decision, Decision::KeepShare);
}

/// What was dropped took nothing: its later part is as good as a trace of its own, and charges the limit.
#[test]
fn a_rule_with_a_limit_keeps_the_later_part_of_a_forgotten_trace() {
    let policy = with_rules("  - { name: errors, when: { error: true }, keep: all, limit: 3/s, then: none }");
    let mut limits = Limits::default();
    let forgotten = Summary { forgotten: true, ..failed() };
    let kept = (0..10).filter(|_| judge(&policy, &mut limits, 0.9, &forgotten, 0).decision.keeps()).count();
    assert_eq!(kept, 3);
}

#[test]
fn limits_count_traces_spans_or_bytes() {
    for (limit, expected) in [("4/s", 4), ("16 spans/s", 4), ("17 spans/s", 5), ("3000B/s", 3)] {
        let policy = with_rules(&format!("  - {{ name: l, keep: all, limit: {limit}, then: none }}"));
        let mut limits = Limits::default();
        let kept = (0..20).filter(|_| judge(&policy, &mut limits, 0.0, &failed(), 0).decision.keeps()).count();
        assert_eq!(kept, expected, "{limit}");
    }
}

#[test]
fn shards_share_the_buckets_through_a_mutex() {
    let policy = with_rules("  - { name: l, keep: all, limit: 5/s, then: none }");
    let limits = Mutex::new(Limits::default());
    let kept = (0..20).filter(|_| judge(&policy, &mut &limits, 0.0, &failed(), 0).decision.keeps()).count();
    assert_eq!(kept, 5);
}

#[test]
fn a_reload_keeps_the_buckets_of_unchanged_rules() {
    let rules = |a: &str, b: &str| {
        format!(
            "version: 1\nrules:\n  - {{ name: a, when: {{ error: true }}, keep: all, limit: {a}, then: next }}
  - {{ name: b, keep: all, limit: {b}, then: none }}\notherwise: {{ keep: none }}\n"
        )
    };
    let mut names = RuleNames::default();
    let mut build = |text: &str| Policy::compile("p", text, 1, &mut names).0.expect("a policy");
    let (old, new) = (build(&rules("1/s", "1/s")), build(&rules("1/s", "2/s")));
    let mut limits = Limits::default();
    let mut kept = |policy: &Policy| judge(policy, &mut limits, 0.0, &failed(), 0).rule;
    assert_eq!([kept(&old), kept(&old)], [old.rules[0].id, old.rules[1].id]);
    limits.retain(&new.rules);
    let mut kept = |policy: &Policy| judge(policy, &mut limits, 0.0, &failed(), 0).decision.keeps();
    assert_eq!([kept(&new), kept(&new), kept(&new)], [true, true, false], "`a` is spent, `b` is new");
}

/// `errors` and `large` share the limit `incidents`.
fn sharing(limit: &str, large: &str) -> String {
    format!(
        "version: 1\nlimits: {{ incidents: {limit} }}\nrules:
  - {{ name: large, when: {{ span_count: {{ at_least: 10 }} }}, keep: {large}, limit: incidents, then: none }}
  - {{ name: errors, when: {{ error: true }}, keep: all, limit: incidents }}\notherwise: {{ keep: none }}\n"
    )
}

#[test]
fn rules_that_share_a_limit_are_charged_to_it_once_and_counted_each() {
    let policy = compile(&sharing("{ limit: 2/s, then: 1% }", "all"));
    let (mut limits, large) = (Limits::default(), Summary { spans: 10, ..Summary::default() });
    let shared = Some(policy.shared_limits[0].id);
    let first = judge(&policy, &mut limits, 0.9, &failed(), 0);
    assert_eq!((first.rule, first.charged), (policy.rules[1].id, shared));
    // A late span brings it to the other rule: the same limit is not charged again.
    let grown = Summary { spans: 12, ..failed() };
    let case = Case { id: id_at(0.9), summary: &grown, charged: first.charged, stored_bytes: 0 };
    let again = policy.judge(&case, Trigger::Late, &mut limits, 0);
    assert_eq!((again.decision, again.rule, again.charged), (Decision::KeepAll, policy.rules[0].id, shared));
    assert_eq!(judge(&policy, &mut limits, 0.9, &large, 0).decision, Decision::KeepAll, "the second of two");
    // Beyond it each does what it says, or what the limit says for it.
    assert_eq!(judge(&policy, &mut limits, 0.9, &large, 0).decision, Decision::DropNone);
    assert_eq!(judge(&policy, &mut limits, 0.9, &failed(), 0).threshold, Some(Threshold::from_share(0.01)));
    assert_eq!(judge(&policy, &mut limits, 0.9, &failed(), 0).rule, policy.rules[1].id);
    let reached = |rule: usize| limits.counts()[&policy.rules[rule].id].reached;
    assert_eq!((reached(0), reached(1)), (1, 2));
}

#[test]
fn a_reload_keeps_the_bucket_of_a_shared_limit_that_did_not_change() {
    let mut names = RuleNames::default();
    let mut build = |text: &str| Policy::compile("p", text, 1, &mut names).0.expect("a policy");
    let old = build(&sharing("1/s", "all"));
    let (other_rules, other_limit) = (build(&sharing("1/s", "50%")), build(&sharing("2/s", "all")));
    let mut limits = Limits::default();
    let mut kept = |policy: &Policy| {
        limits.retain(&policy.rules);
        judge(policy, &mut limits, 0.9, &failed(), 0).decision.keeps()
    };
    assert_eq!([kept(&old), kept(&old)], [true, false]);
    assert!(!kept(&other_rules), "the limit is the same, and spent");
    assert_eq!([kept(&other_limit), kept(&other_limit), kept(&other_limit)], [true, true, false]);
}

#[test]
fn only_what_a_rule_reads_calls_for_a_new_judgement() {
    let policy = with_rules(
        "  - { name: errors, when: { error: true }, keep: all }
  - { name: large, when: { span_count: { at_least: 10 } }, keep: all }",
    );
    let before = Summary { spans: 4, ..Summary::default() };
    assert!(!policy.may_change(&before, &Summary { spans: 9, end: 5, longest_span: 7, ..before }));
    assert!(policy.may_change(&before, &Summary { spans: 10, ..before }));
    assert!(policy.may_change(&before, &Summary { errors: 1, ..before }));
    assert!(policy.may_change(&before, &Summary { randomness: Some(Randomness::from_bits(1)), ..before }));
}

#[test]
fn a_verdict_says_which_policy_and_why() {
    let policy = compile(DESIGN);
    let verdict = judge(&policy, &mut Limits::default(), 0.9, &failed(), 0);
    assert_eq!((verdict.policy, verdict.trigger), (7, Trigger::Root));
    let reason = |name: &str| {
        let rule = policy.rules.iter().find(|rule| rule.written.name == name).expect(name);
        policy.reason(rule.id)
    };
    assert_eq!(reason("keep-errors"), Reason::Failed);
    assert_eq!(reason("keep-slow"), Reason::Slow);
    assert_eq!(reason("keep-slow-jobs"), Reason::Slow);
    assert_eq!(reason("thin-search"), Reason::Share);
    assert_eq!(reason("drop-probes"), Reason::Rule);
    assert_eq!(policy.reason(RuleId::OTHERWISE), Reason::Share);
    assert_eq!(policy.reason(RuleId::API), Reason::Rule);
}

#[test]
fn a_bad_file_teaches_no_names() {
    let mut names = RuleNames::default();
    let text = "version: 1\nrules: [{ name: fine, keep: all }, { name: bad, keep: some }]\notherwise: { keep: 1% }\n";
    assert!(Policy::compile("p", text, 1, &mut names).0.is_none());
    assert_eq!(names.iter().count(), RuleNames::default().iter().count());
}

#[test]
fn the_builtin_policy_has_no_problem() {
    let report = check_policy("default-policy.yaml", Policy::builtin(), false);
    assert_eq!(report.exit_code, 0, "{}", report.text);
    assert!(report.text.ends_with("no problem\n"), "{}", report.text);
}

#[test]
fn more_questions_than_bits_are_refused() {
    let rules: String = (0..300)
        .map(|n| format!("  - {{ name: r{n}, when: {{ any_span: {{ name: n{n} }} }}, keep: all }}\n"))
        .collect();
    let text = format!("version: 1\nrules:\n{rules}otherwise: {{ keep: 1% }}\n");
    let (policy, diagnostics) = Policy::compile("p", &text, 1, &mut RuleNames::default());
    assert!(policy.is_none());
    let found: Vec<_> = diagnostics.iter().map(|d| (d.code, d.span.line)).collect();
    assert_eq!(found, [("P14", 2 + FACTS_MAX + 1)]);
}

/// What the first sentence of the README says holds without any file.
#[test]
fn the_built_in_policy_keeps_every_failed_and_every_slow_trace() {
    let policy = Policy::compile("built-in", Policy::builtin(), 1, &mut RuleNames::default()).0.expect("valid");
    let slow = Summary { longest_span: 500_000_000, spans: 1, ..Summary::default() };
    for wanted in [failed(), slow] {
        let mut limits = Limits::default();
        let verdicts = (0..10_000).map(|_| judge(&policy, &mut limits, 0.0, &wanted, 0));
        assert!(verdicts.into_iter().all(|verdict| verdict.decision == Decision::KeepAll));
    }
}
