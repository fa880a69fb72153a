//! The compiled policy against the reference, over random policies, traces and times.

use crate::reference::Reference;
use crate::span::{Choices, DURATIONS_MS, KEYS, NAMES, NUMBERS, SERVICES, TEXTS, TestTrace};
use crate::span::{decoded_of, random_span, random_trace};
use proptest::prelude::*;
use tailkeep::policy::explain::answer;
use tailkeep::policy::{Limits, Policy};
use tailkeep::trace::{Case, LimitId, RuleNames, Trigger};

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn the_compiled_policy_judges_as_the_reference(
        policy in prop::collection::vec(any::<u8>(), 0..160),
        traffic in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let text = random_policy(&mut Choices(policy.iter()));
        compare(&text, &mut Choices(traffic.iter()))?;
    }
}

/// Twelve traces, some of them judged again with a late span.
fn compare(text: &str, choices: &mut Choices<'_>) -> Result<(), TestCaseError> {
    let mut names = RuleNames::default();
    let (policy, diagnostics) = Policy::compile("random", text, 1, &mut names);
    let Some(policy) = policy else {
        return Err(TestCaseError::fail(format!(
            "{text}\n{}",
            tailkeep::diagnostic::render(&diagnostics, text, false)
        )));
    };
    let named = |code: &str| {
        let of_a_rule = diagnostics.iter().filter(|d| d.code == code && d.title.starts_with("rule `"));
        of_a_rule.filter_map(|d| d.title.split('`').nth(1)).map(str::to_owned).collect()
    };
    let (unreachable, impossible) = (named("P11"), named("P18"));
    let reference = Reference::new(text);
    let mut run = Run { policy, names, limits: Limits::default(), reference, unreachable, impossible, now_ms: 5 };
    for _ in 0..12 {
        run.now_ms += *choices.of(&[0, 0, 1, 40, 300, 1000, 20_000]);
        let mut trace = random_trace(choices);
        let mut charged = run.judge(&trace, None, text)?;
        while choices.once_in(3) {
            let id = trace.spans.len() as u64 + 1;
            trace.spans.push(random_span(choices, id));
            run.now_ms += *choices.of(&[0, 100]);
            charged = run.judge(&trace, charged, text)?;
        }
    }
    Ok(())
}

struct Run {
    policy: Policy,
    names: RuleNames,
    limits: Limits,
    reference: Reference,
    /// Rules of which the diagnostics say that they can never match: for those above them, and for their own conditions.
    unreachable: Vec<String>,
    impossible: Vec<String>,
    now_ms: u64,
}

impl Run {
    /// As the reference calls a limit.
    fn name_of(&self, limit: LimitId) -> String {
        match limit {
            LimitId::OfRule(rule) => self.names.name(rule).to_owned(),
            shared => {
                let shared = self.policy.shared_limits.iter().find(|known| known.id == shared);
                shared.expect("one of the policy").name.clone()
            }
        }
    }

    /// Judges by both, compares, and says what was charged.
    fn judge(
        &mut self,
        trace: &TestTrace,
        charged: Option<LimitId>,
        text: &str,
    ) -> Result<Option<LimitId>, TestCaseError> {
        let decoded = decoded_of(&self.policy, trace);
        let case = Case { id: trace.id, summary: &decoded.summary, charged, stored_bytes: trace.stored_bytes };
        let found = self.policy.judge(&case, Trigger::Root, &mut self.limits, self.now_ms);
        let expected = self.reference.judge(trace, charged.map(|limit| self.name_of(limit)).as_deref(), self.now_ms);
        let context = || format!("{text}\nat {} ms\n{trace:#?}", self.now_ms);
        for rule in &self.policy.rules {
            let explained = answer::of_when(&rule.written.when, &decoded);
            prop_assert_eq!(explained.holds, rule.matches(&decoded.summary), "{}: {}", explained.seen, context());
            let name = &rule.written.name;
            prop_assert!(!explained.holds || !self.impossible.contains(name), "{name} matches: {}", context());
        }
        prop_assert_eq!(self.names.name(found.rule), &expected.rule, "rule of\n{}", context());
        prop_assert!(
            !self.unreachable.contains(&expected.rule),
            "{} is said never to match: {}",
            expected.rule,
            context()
        );
        prop_assert_eq!(found.decision.keeps(), expected.kept, "decision of\n{}", context());
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
        let same_share = match (found.threshold, expected.share) {
            (Some(threshold), Some(share)) => near(threshold.share(), share),
            (None, None) => true,
            _ => false,
        };
        prop_assert!(same_share, "{:?} is not {:?} of\n{}", found.threshold, expected.share, context());
        let found_charged = found.charged.map(|limit| self.name_of(limit));
        prop_assert_eq!(found_charged, expected.charged, "charge of\n{}", context());
        Ok(found.charged)
    }
}

// === Random policies

pub fn random_policy(choices: &mut Choices<'_>) -> String {
    let rules: String = (0..choices.below(6)).map(|n| random_rule(choices, n)).collect();
    let rules = if rules.is_empty() { "rules: []\n".to_owned() } else { format!("rules:\n{rules}") };
    let limits = "limits:\n  two: 2/s\n  spans: { limit: 3 spans/s, then: next }\n  \
                  each: { limit: 1/min, for_each: entry.service, limit_total: 3/s, then: 25% }\n";
    let otherwise = choices.of(&["none", "all", "25%"]);
    let errors = random_errors(choices);
    format!("version: 1\n{errors}{limits}{rules}otherwise: {{ keep: {otherwise} }}\n")
}

fn random_errors(choices: &mut Choices<'_>) -> String {
    let conditions = |choices: &mut Choices<'_>| {
        let conditions: Vec<String> = (0..1 + choices.below(2)).map(|_| random_span_condition(choices)).collect();
        if choices.once_in(2) { format!("[{}]", conditions.join(", ")) } else { conditions[0].clone() }
    };
    match choices.below(4) {
        0 => String::new(),
        1 => format!("errors: {{ except: {} }}\n", conditions(choices)),
        2 => format!("errors: {{ also: {} }}\n", conditions(choices)),
        _ => format!("errors: {{ except: {}, also: {} }}\n", conditions(choices), conditions(choices)),
    }
}

fn random_rule(choices: &mut Choices<'_>, n: usize) -> String {
    let when = if choices.once_in(6) { String::new() } else { format!(", when: {}", random_when(choices, true, true)) };
    let keep = choices.of(&["all", "none", "50%", "12.5%"]);
    let limit = if *keep != "none" && choices.once_in(2) { random_limit(choices) } else { String::new() };
    format!("  - {{ name: rule-{n}, keep: {keep}{limit}{when} }}\n")
}

fn random_limit(choices: &mut Choices<'_>) -> String {
    let then = choices.of(&["", ", then: next", ", then: none", ", then: 25%", ", then: otherwise"]);
    if choices.once_in(2) {
        return format!(", limit: {}{then}", choices.of(&["two", "spans", "each"]));
    }
    let rate = choices.of(&["1/s", "2/min", "3 spans/s", "1KiB/s", "1/min"]);
    let each = choices.of(&[
        "",
        ", for_each: [entry.service, entry.name], limit_total: 2/s",
        ", for_each: [entry.service], limit_total: 5 spans/s",
        ", for_each: entry.name, limit_total: 2KiB/min",
        ", for_each: entry.attributes.app.tag, limit_total: 3/s",
        ", for_each: [entry.resource.deployment.environment.name, entry.service], limit_total: 2/s",
        ", for_each: [entry.attributes.app.tag, entry.resource.deployment.environment.name], limit_total: 5/s",
    ]);
    format!(", limit: {rate}{then}{each}")
}

/// A mapping of one to three different conditions.
fn random_when(choices: &mut Choices<'_>, not: bool, any_of: bool) -> String {
    let mut keys: Vec<&str> = vec![
        "error",
        "failed",
        "duration",
        "envelope",
        "span_count",
        "services",
        "trace_state",
        "incomplete",
        "any_span",
        "entry",
        "root",
    ];
    keys.extend(not.then_some("not"));
    keys.extend(any_of.then_some("any_of"));
    let mut conditions = Vec::new();
    for _ in 0..1 + choices.below(3) {
        let key = keys.remove(choices.below(keys.len()));
        let value = match key {
            "error" | "failed" => (*choices.of(&["true", "false"])).to_owned(),
            "duration" | "envelope" => random_durations(choices),
            "span_count" => format!("{{ at_least: {} }}", 1 + choices.below(4)),
            "services" => random_texts(choices, &SERVICES),
            "trace_state" => format!("{{ vendor: {} }}", random_texts(choices, &["a", "b"])),
            "incomplete" => (*choices.of(&["true", "false", "[no_entry]", "[evicted, limit]"])).to_owned(),
            "not" => random_when(choices, false, any_of),
            "any_of" => {
                let branches: Vec<String> =
                    (0..1 + choices.below(3)).map(|_| random_when(choices, not, false)).collect();
                format!("[{}]", branches.join(", "))
            }
            _ => random_span_condition(choices),
        };
        conditions.push(format!("{key}: {value}"));
    }
    format!("{{ {} }}", conditions.join(", "))
}

fn random_span_condition(choices: &mut Choices<'_>) -> String {
    let mut keys =
        vec!["service", "name", "kind", "status", "duration", "attributes", "resource", "events", "status_message"];
    let mut conditions = Vec::new();
    for _ in 0..1 + choices.below(2) {
        let key = keys.remove(choices.below(keys.len()));
        let value = match key {
            "service" => random_texts(choices, &SERVICES),
            "name" => random_texts(choices, &NAMES),
            "kind" => (*choices.of(&["server", "[client, consumer]", "internal"])).to_owned(),
            "status" => (*choices.of(&["error", "[ok, unset]", "ok"])).to_owned(),
            "duration" => random_durations(choices),
            "status_message" => random_texts(choices, &["a", "context canceled"]),
            "events" => random_texts(choices, &["exception", "retry"]),
            "attributes" => format!("{{ {}: {} }}", choices.of(&KEYS), random_value(choices)),
            _ => format!("{{ deployment.environment.name: {} }}", random_value(choices)),
        };
        conditions.push(format!("{key}: {value}"));
    }
    format!("{{ {} }}", conditions.join(", "))
}

fn random_durations(choices: &mut Choices<'_>) -> String {
    let (low, high) = (*choices.of(&DURATIONS_MS), *choices.of(&DURATIONS_MS));
    match choices.below(3) {
        0 => format!("{{ at_least: {low}ms }}"),
        1 => format!("{{ below: {high}ms }}"),
        _ => format!("{{ at_least: {low}ms, below: {}ms }}", low + high + 1),
    }
}

fn random_texts(choices: &mut Choices<'_>, texts: &[&str]) -> String {
    let one = |choices: &mut Choices<'_>| {
        let text = *choices.of(texts);
        match choices.below(4) {
            0 => format!("{text:?}"),
            1 => format!("\"{}*\"", &text[..text.len() / 2]),
            2 => format!("\"*{}*\"", &text[text.len() / 2..]),
            _ => format!("{{ matches: \"^{}\" }}", &text[..1]),
        }
    };
    if choices.once_in(3) { format!("[{}, {}]", one(choices), one(choices)) } else { one(choices) }
}

fn random_value(choices: &mut Choices<'_>) -> String {
    let one = |choices: &mut Choices<'_>| match choices.below(6) {
        0 => choices.of(&NUMBERS).to_string(),
        1 => format!("{:?}", choices.of(&TEXTS)),
        2 => (*choices.of(&["true", "false"])).to_owned(),
        3 => format!("{{ at_least: {} }}", choices.of(&NUMBERS)),
        4 => format!("{{ at_least: 200, below: {} }}", choices.of(&[500, 501])),
        _ => random_texts_of_one(choices),
    };
    match choices.below(4) {
        0 => format!("{{ exists: {} }}", choices.of(&["true", "false"])),
        1 => format!("[{}, {}]", one(choices), one(choices)),
        _ => one(choices),
    }
}

fn random_texts_of_one(choices: &mut Choices<'_>) -> String {
    (*choices.of(&["\"m*\"", "{ matches: \"ro\" }", "\"*0*\"", "prod"])).to_owned()
}
