//! What becomes different when one policy takes another's place, in words, and whether it is much.
//!
//! A policy can be valid and a disaster: no rules any more, or `keep: all` for everything. Nothing is known
//! here of the traces that will come. So each policy is asked about a few that every service has (a failed one,
//! a slow one, any other), and rules are compared by name.

use super::limit::{Limit, Rate};
use super::parse::WrittenRule;
use super::review::holds_of_every_span;
use super::{Keep, Limited, Policy, SharedLimit, Then};
use crate::trace::question::{Facts, Test, ValueTest};
use crate::trace::summary::EntrySpan;
use crate::trace::{SpanKind, Standing, Status, Summary, Threshold};
use std::fmt;

/// Shares and rates that differ by this factor are "much".
const MUCH: f64 = 10.0;
/// So many names of a list are told.
const TOLD: usize = 10;

/// The difference between two policies.
#[derive(Debug, Default)]
pub struct Change {
    /// Names of rules, and what is different in those that both have.
    pub gone: Vec<String>,
    pub new: Vec<String>,
    pub changed: Vec<String>,
    /// Of what much more or less is kept.
    pub effects: Vec<String>,
    more: bool,
    less: bool,
}

impl Change {
    pub fn between(old: &Policy, new: &Policy) -> Change {
        let mut change = Change::default();
        for class in Class::ALL {
            change.weigh_class(class, old, new);
        }
        for rule in &old.rules {
            change.follow(&rule.written, old, new);
        }
        for limit in &old.shared_limits {
            change.follow_limit(limit, new);
        }
        let is_new = |rule: &WrittenRule| successor(rule, old).is_none();
        change.new = new.rules.iter().map(|rule| &rule.written).filter(|r| is_new(r)).map(|r| r.name.clone()).collect();
        if order(old, new) != order(new, old) {
            change.changed.push("the order of rules".to_owned());
        }
        if old.otherwise != new.otherwise {
            change.changed.push(format!("otherwise: {}, was {}", new.otherwise, old.otherwise));
        }
        if old.errors != new.errors {
            change.changed.push("what counts as an error".to_owned());
        }
        if old.wait != new.wait {
            change.changed.push("wait".to_owned());
        }
        change
    }

    /// What to call it: much more is kept, much less, or both of different traces. None if it is little.
    pub fn magnitude(&self) -> Option<&'static str> {
        match (self.more, self.less) {
            (true, true) => Some("much more of some traces and much less of others"),
            (true, false) => Some("much more"),
            (false, true) => Some("much less"),
            (false, false) => None,
        }
    }

    fn weigh_class(&mut self, class: Class, old: &Policy, new: &Policy) {
        for (beyond, what) in [(false, ""), (true, ", beyond limits")] {
            let (before, after) = (class.keep(old, beyond), class.keep(new, beyond));
            // What is said once is not said again of the rest.
            let is_said = beyond && (class.keep(old, false), class.keep(new, false)) == (before, after);
            if !is_said && self.weigh(before.share(), after.share()) {
                self.effects.push(format!("{}{what}: {after}, was {before}", class.word()));
            }
        }
    }

    /// What became of a rule of the old policy.
    fn follow(&mut self, rule: &WrittenRule, old: &Policy, new: &Policy) {
        // Traces that a rule takes from every service have been weighed.
        let is_special = !Class::ALL.iter().any(|class| class.matches(rule, old));
        let (name, after) = match successor(rule, new) {
            Some(successor) => (&successor.name, successor.keep),
            None => (&rule.name, Class::Other.keep(new, false)),
        };
        if is_special && self.weigh(rule.keep.share(), after.share()) {
            self.effects.push(format!("what `{name}` matched: {after}, was {}", rule.keep));
        }
        let Some(successor) = successor(rule, new) else { return self.gone.push(rule.name.clone()) };
        if let (Some(before), Some(after)) = (&rule.limited, &successor.limited)
            && !is_one_limit(before, after)
            && self.weigh_limit(&before.limit, &after.limit)
        {
            self.effects.push(format!("the limit of `{name}`: {}, was {}", limit(successor), limit(rule)));
        }
        let differences = differences(rule, successor);
        if !differences.is_empty() {
            self.changed.push(format!("{}: {}", rule.name, differences.join(", ")));
        }
    }

    /// What became of a limit that rules share. Where it is gone or new its rules say so.
    fn follow_limit(&mut self, before: &SharedLimit, new: &Policy) {
        let Some(after) = new.shared_limits.iter().find(|after| after.name == before.name) else { return };
        if after.limit != before.limit {
            self.changed.push(format!(
                "the limit {}: {}, was {}",
                before.name,
                rates(&after.limit),
                rates(&before.limit)
            ));
        }
        if self.weigh_limit(&before.limit, &after.limit) {
            let (name, after, before) = (&before.name, rates(&after.limit), rates(&before.limit));
            self.effects.push(format!("the limit `{name}`: {after}, was {before}"));
        }
    }

    /// As [`Change::weigh`]; what is counted in other units is neither.
    fn weigh_limit(&mut self, before: &Limit, after: &Limit) -> bool {
        let (before, after) = (rate_of_all(before), rate_of_all(after));
        before.unit == after.unit && self.weigh(per_second(before), per_second(after))
    }

    /// True if `after` is much more or much less.
    fn weigh(&mut self, before: f64, after: f64) -> bool {
        let more = after > before && after >= before * MUCH;
        let less = after < before && before >= after * MUCH;
        self.more |= more;
        self.less |= less;
        more || less
    }
}

/// The rule that stands in `policy` for this one: of its name, or renamed.
fn successor<'a>(rule: &WrittenRule, policy: &'a Policy) -> Option<&'a WrittenRule> {
    let mut all = policy.rules.iter().map(|rule| &rule.written);
    let is_same =
        |other: &&WrittenRule| (&other.when, other.keep, &other.limited) == (&rule.when, rule.keep, &rule.limited);
    all.clone().find(|other| other.name == rule.name).or_else(|| all.find(is_same))
}

/// Names of the rules that both have, in the order of the first.
fn order<'a>(policy: &'a Policy, other: &Policy) -> Vec<&'a str> {
    let is_there = |name: &str| other.rules.iter().any(|rule| rule.written.name == name);
    policy.rules.iter().map(|rule| rule.written.name.as_str()).filter(|name| is_there(name)).collect()
}

fn differences(before: &WrittenRule, after: &WrittenRule) -> Vec<String> {
    let mut differences = Vec::new();
    if before.name != after.name {
        differences.push(format!("is named {} now", after.name));
    }
    if before.when != after.when {
        differences.push("other conditions".to_owned());
    }
    if before.keep != after.keep {
        differences.push(format!("keep {}, was {}", after.keep, before.keep));
    }
    if limit(before) != limit(after) {
        differences.push(format!("limit {}, was {}", limit(after), limit(before)));
    }
    differences
}

fn limit(rule: &WrittenRule) -> String {
    let Some(Limited { shared, limit, then }) = &rule.limited else { return "none".to_owned() };
    let limit = shared.clone().unwrap_or_else(|| rates(limit));
    let then = match then {
        Then::Otherwise => String::new(),
        Then::Next => ", then the next rule".to_owned(),
        Then::None => ", then none".to_owned(),
        Then::Share(share) => format!(", then {}", Keep::Share(*share)),
    };
    format!("{limit}{then}")
}

fn rates(limit: &Limit) -> String {
    let total = limit.each.as_ref().map(|each| format!(" for each {each}, {} in all", each.total)).unwrap_or_default();
    format!("{}{total}", limit.rate)
}

/// Both name the same shared limit, which says itself what is different.
fn is_one_limit(before: &Limited, after: &Limited) -> bool {
    before.shared.is_some() && before.shared == after.shared
}

/// How much all together may take.
fn rate_of_all(limit: &Limit) -> Rate {
    limit.each.as_ref().map_or(limit.rate, |each| each.total)
}

fn per_second(rate: Rate) -> f64 {
    rate.amount as f64 * 1e3 / rate.period_ms as f64
}

/// Traces of one span, as every service has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Failed,
    Slow,
    Other,
}

impl Class {
    const ALL: [Class; 3] = [Class::Failed, Class::Slow, Class::Other];
    /// Slow for everybody, and for nobody. Nanoseconds.
    const SLOW: u64 = 10_000_000_000;
    const FAST: u64 = 1_000_000;

    fn word(self) -> &'static str {
        match self {
            Class::Failed => "failed traces",
            Class::Slow => "slow traces",
            Class::Other => "other traces",
        }
    }

    fn status(self) -> Status {
        if self == Class::Failed { Status::Error } else { Status::Unset }
    }

    fn duration(self) -> u64 {
        if self == Class::Slow { Class::SLOW } else { Class::FAST }
    }

    fn summary(self, policy: &Policy) -> Summary {
        let duration = self.duration();
        let mut facts = Facts::EMPTY;
        let held =
            policy.conditions.iter().enumerate().filter(|(_, condition)| condition.tests.iter().all(|t| self.holds(t)));
        held.for_each(|(bit, _)| facts.set(bit));
        let failed = policy.error_facts.status(self.status(), facts) == Status::Error;
        Summary {
            facts,
            entry: EntrySpan { standing: Standing::Root, ..EntrySpan::default() },
            start: 1,
            end: 1 + duration,
            root_duration: duration,
            longest_entry: duration,
            longest_span: duration,
            spans: 1,
            errors: u32::from(failed),
            root_failed: failed,
            entry_failed: failed,
            ..Summary::default()
        }
    }

    /// Holds of the one span; it has a name, a service and no attribute that a policy knows.
    fn holds(self, test: &Test) -> bool {
        match test {
            Test::Status(words) => words.contains(&self.status()),
            Test::Duration(range) => range.contains(self.duration()),
            Test::SpanKind(kinds) => kinds.contains(&SpanKind::Server),
            Test::Attribute { values: ValueTest::Exists(false), .. } => true,
            Test::Resource { values: ValueTest::Exists(false), keys } => !keys.iter().any(|key| key == "service.name"),
            test => holds_of_every_span(test),
        }
    }

    fn matches(self, rule: &WrittenRule, policy: &Policy) -> bool {
        let summary = self.summary(policy);
        policy.rules.iter().any(|known| known.written.name == rule.name && known.matches(&summary))
    }

    /// What `policy` says of it, where rules have room or beyond their limits.
    fn keep(self, policy: &Policy, beyond: bool) -> Keep {
        let summary = self.summary(policy);
        for rule in policy.rules.iter().filter(|rule| rule.matches(&summary)) {
            match rule.written.limited.as_ref().filter(|_| beyond).map(|limited| limited.then) {
                None => return rule.written.keep,
                Some(Then::Next) => {}
                Some(Then::Otherwise) => return policy.otherwise,
                Some(Then::None) => return Keep::None,
                Some(Then::Share(share)) => return Keep::Share(share),
            }
        }
        policy.otherwise
    }
}

impl Keep {
    /// The share of traces that it keeps, 0 to 1.
    pub(super) fn share(self) -> f64 {
        match self {
            Keep::All => Threshold::ALL.share(),
            Keep::None => Threshold::NONE.share(),
            Keep::Share(share) => share.share(),
        }
    }
}

impl fmt::Display for Keep {
    /// As a policy writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Keep::All => f.write_str("all"),
            Keep::None => f.write_str("none"),
            // Without the noise of binary fractions.
            Keep::Share(share) => write!(f, "{}%", (share.share() * 1e11).round() / 1e9),
        }
    }
}

/// A list for a line of the log; none if it is empty.
pub fn listed(names: &[String]) -> Option<String> {
    let told = names.iter().take(TOLD).map(String::as_str).collect::<Vec<_>>().join("; ");
    let rest = names.len().saturating_sub(TOLD);
    (!names.is_empty()).then(|| if rest == 0 { told } else { format!("{told}; and {rest} more") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::RuleNames;

    fn policy(rules: &str, otherwise: &str) -> Policy {
        let text = format!("version: 1\nrules: {rules}\notherwise: {{ keep: {otherwise} }}\n");
        let (policy, diagnostics) = Policy::compile("policy.yaml", &text, 1, &mut RuleNames::default());
        policy.unwrap_or_else(|| panic!("{}", crate::diagnostic::render(&diagnostics, &text, false)))
    }

    const ERRORS: &str = "{ name: errors, when: { error: true }, keep: all }";
    const SLOW: &str = "{ name: slow, when: { duration: { at_least: 1s } }, keep: all }";
    const CHECKOUT: &str = "{ name: checkout, when: { services: checkout }, keep: all }";

    /// Old rules and `otherwise`, new ones, what it is called, and its effects.
    type Case<'a> = (String, &'a str, String, &'a str, Option<&'a str>, &'a [&'a str]);

    #[test]
    fn what_much_more_and_much_less_is() {
        let list = |rules: &[&str]| format!("[{}]", rules.join(", "));
        let usual = || list(&[ERRORS, SLOW]);
        let limited = |limit: &str| list(&[&ERRORS.replace("all", &format!("all, limit: {limit}")), SLOW]);
        let (more, less) = (Some("much more"), Some("much less"));
        let both = Some("much more of some traces and much less of others");
        let cases: &[Case<'_>] = &[
            (usual(), "1%", usual(), "2%", None, &[]),
            (usual(), "1%", list(&[]), "all", more, &["other traces: all, was 1%"]),
            (usual(), "1%", usual(), "10%", more, &["other traces: 10%, was 1%"]),
            (usual(), "none", usual(), "0.01%", more, &["other traces: 0.01%, was none"]),
            (usual(), "1%", list(&[]), "1%", less, &["failed traces: 1%, was all", "slow traces: 1%, was all"]),
            (usual(), "all", usual(), "none", less, &["other traces: none, was all"]),
            (
                usual(),
                "1%",
                list(&["{ name: quiet, when: { any_span: { status: error } }, keep: none }", ERRORS]),
                "all",
                both,
                &["failed traces: none, was all", "other traces: all, was 1%"],
            ),
            (usual(), "1%", list(&["{ name: everything, keep: all }"]), "1%", more, &["other traces: all, was 1%"]),
            (usual(), "1%", usual().replace("1s", "0s"), "1%", more, &["other traces: all, was 1%"]),
            (usual(), "1%", usual().replace("1s", "1h"), "1%", less, &["slow traces: 1%, was all"]),
            // A rule of its own is wanted; one that goes may be missed.
            (usual(), "1%", list(&[ERRORS, SLOW, CHECKOUT]), "1%", None, &[]),
            (list(&[ERRORS, CHECKOUT]), "1%", list(&[ERRORS]), "1%", less, &["what `checkout` matched: 1%, was all"]),
            (
                list(&[ERRORS, CHECKOUT]),
                "1%",
                list(&[ERRORS, &CHECKOUT.replace("all", "2%")]),
                "1%",
                less,
                &["what `checkout` matched: 2%, was all"],
            ),
            (
                list(&[ERRORS, CHECKOUT]),
                "1%",
                list(&[ERRORS, &CHECKOUT.replace("name: checkout", "name: tills")]),
                "1%",
                None,
                &[],
            ),
            (limited("200/s"), "1%", usual(), "1%", more, &["failed traces, beyond limits: all, was 1%"]),
            (usual(), "1%", limited("200/s"), "1%", less, &["failed traces, beyond limits: 1%, was all"]),
            (limited("200/s"), "1%", limited("100/s"), "1%", None, &[]),
            (limited("200/s"), "1%", limited("200/min"), "1%", less, &["the limit of `errors`: 200/min, was 200/s"]),
        ];
        for (old, old_otherwise, new, new_otherwise, magnitude, effects) in cases {
            let change = Change::between(&policy(old, old_otherwise), &policy(new, new_otherwise));
            let shown = format!("from {old} {old_otherwise} to {new} {new_otherwise}");
            assert_eq!(change.magnitude(), *magnitude, "{shown}");
            assert_eq!(change.effects, *effects, "{shown}");
        }
    }

    #[test]
    fn a_rule_for_everything_is_weighed_however_it_is_written() {
        let all = "other traces: all, was 1%";
        let nothing: &[&str] =
            &["failed traces: none, was all", "slow traces: none, was all", "other traces: none, was 1%"];
        let old = policy(&format!("[{ERRORS}, {SLOW}]"), "1%");
        for (when, keep, effects) in [
            ("services: '*'", "none", nothing),
            ("services: '*'", "all", &[all][..]),
            ("root: { service: '*' }", "none", nothing),
            ("any_span: { name: '*' }", "all", &[all]),
            ("entry: { name: { matches: '.' } }", "all", &[all]),
            ("entry: { resource: { service.name: { exists: true } } }", "all", &[all]),
            ("entry: { attributes: { tenant: { exists: false } } }", "all", &[all]),
            ("any_span: { name: 'a*', service: '*' }", "all", &[]),
            ("any_span: { attributes: { tenant: '*' } }", "all", &[]),
        ] {
            let rule = format!("{{ name: x, when: {{ {when} }}, keep: {keep} }}");
            let change = Change::between(&old, &policy(&format!("[{rule}, {ERRORS}, {SLOW}]"), "1%"));
            assert_eq!(change.effects, effects, "{when}");
        }
    }

    #[test]
    fn limits_are_compared_in_the_unit_that_both_have() {
        let limited =
            |limit: &str| policy(&format!("[{}]", ERRORS.replace("all", &format!("all, limit: {limit}"))), "1%");
        let less = ["the limit of `errors`: 10 spans/s, was 200 spans/s"];
        for (old, new, effects) in [
            ("200/s", "10MiB/s", &[][..]),
            ("10MiB/s", "200/s", &[]),
            ("200 spans/s", "200B/s", &[]),
            ("200 spans/s", "10 spans/s", &less),
        ] {
            let change = Change::between(&limited(old), &limited(new));
            assert_eq!(change.effects, effects, "{old} {new}");
            assert_eq!(change.changed, [format!("errors: limit {new}, was {old}")]);
        }
    }

    #[test]
    fn every_difference_is_named() {
        let old = policy(&format!("[{ERRORS}, {SLOW}, {CHECKOUT}]"), "1%");
        let limited = SLOW.replace("keep: all", "keep: 50%, limit: 10/s, then: next");
        let new =
            policy(&format!("[{limited}, {ERRORS}, {{ name: probes, when: {{ services: p }}, keep: none }}]"), "2%");
        let change = Change::between(&old, &new);
        assert_eq!((change.gone, change.new), (vec!["checkout".to_owned()], vec!["probes".to_owned()]));
        let changed = [
            "slow: keep 50%, was all, limit 10/s, then the next rule, was none",
            "the order of rules",
            "otherwise: 2%, was 1%",
        ];
        assert_eq!(change.changed, changed);
        let same = Change::between(&old, &old);
        assert!(same.gone.is_empty() && same.new.is_empty() && same.changed.is_empty() && same.magnitude().is_none());
    }

    #[test]
    fn a_shared_limit_says_once_what_is_different() {
        let shared = |limit: &str, errors: &str| {
            let text = format!(
                "version: 1\nlimits: {{ all: {limit} }}\nrules: [{}, {}]\notherwise: {{ keep: 1% }}\n",
                ERRORS.replace("all", &format!("all, limit: {errors}")),
                SLOW.replace("all", "all, limit: all, then: 5%")
            );
            Policy::compile("policy.yaml", &text, 1, &mut RuleNames::default()).0.expect("it is right")
        };
        let each = "{ limit: 1/s, for_each: entry.service, limit_total: 20/s }";
        let between = |old: Policy, new: Policy| {
            let change = Change::between(&old, &new);
            (change.changed, change.effects)
        };
        let (changed, effects) = between(shared("200/s", "all"), shared(each, "all"));
        assert_eq!(changed, ["the limit all: 1/s for each entry.service, 20/s in all, was 200/s"]);
        assert_eq!(effects, ["the limit `all`: 1/s for each entry.service, 20/s in all, was 200/s"]);
        let (changed, effects) = between(shared("200/s", "200/s"), shared("200/s", "all, then: 2%"));
        assert_eq!(changed, ["errors: limit all, then 2%, was 200/s"]);
        assert_eq!(effects, [""; 0]);
    }

    #[test]
    fn what_counts_as_an_error_is_named_and_weighed() {
        let counting = |errors: &str| {
            let text = format!("version: 1\n{errors}rules: [{ERRORS}]\notherwise: {{ keep: 1% }}\n");
            Policy::compile("policy.yaml", &text, 1, &mut RuleNames::default()).0.expect("it is right")
        };
        let of_one_route = "errors: { except: { name: GET /users, kind: server } }\n";
        for (errors, effects) in [
            (of_one_route, &[][..]),
            ("errors: { except: { kind: server } }\n", &["failed traces: 1%, was all"]),
            ("errors: { except: { name: '*' } }\n", &["failed traces: 1%, was all"]),
            ("errors: { except: { service: '*' } }\n", &["failed traces: 1%, was all"]),
            ("errors: { except: { resource: { service.name: { exists: true } } } }\n", &["failed traces: 1%, was all"]),
            ("errors: { also: { duration: { at_least: 5s } } }\n", &["slow traces: all, was 1%"]),
        ] {
            let change = Change::between(&counting(""), &counting(errors));
            assert_eq!(
                (change.changed, change.effects),
                (vec!["what counts as an error".into()], effects.iter().map(|e| e.to_string()).collect()),
                "{errors}"
            );
        }
        assert!(Change::between(&counting(of_one_route), &counting(of_one_route)).changed.is_empty());
    }

    #[test]
    fn a_long_list_is_cut() {
        let names: Vec<String> = (0..12).map(|n| format!("r{n}")).collect();
        assert_eq!(listed(&names[..2]).as_deref(), Some("r0; r1"));
        assert!(listed(&names).expect("a list").ends_with("r9; and 2 more"));
        assert_eq!(listed(&[]), None);
    }
}
