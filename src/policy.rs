//! The policy: an ordered list of rules, the first that matches decides.
//!
//! A YAML text becomes diagnostics or a [`Policy`]: [`parse`] reads what was written, compiling turns
//! conditions on spans into numbered facts that scan answers, and judging then is masks and comparisons on
//! a [`Summary`]. No I/O and no clock: time is an argument. It never looks at the bytes of a span.

pub mod baseline;
mod change;
pub mod condition;
mod errors;
pub mod explain;
mod fact_table;
mod history;
pub mod limit;
pub mod parse;
mod pattern;
mod renamed;
mod review;
pub mod text;
pub mod witness;

pub use change::{Change, listed};
pub use errors::Errors;
pub use explain::explain;
pub use history::{Former, History};
pub use limit::{Charge, LimitCounts, Limits};
pub use parse::sections;
pub use renamed::names_of;

use crate::diagnostic::{self, Diagnostic};
use crate::trace::question::{Condition, ENTRY_ATTRIBUTES_MAX, EntryAttribute, ErrorFacts, Test};
use crate::trace::{Case, Decision, FactMasks, LimitId, Randomness, Reason, RuleId, RuleNames, Status, Summary};
use crate::trace::{Threshold, Trigger, Verdict};
use crate::yaml::Reader;
use condition::{Atom, Matcher, TraceCheck};
use fact_table::FactTable;
use limit::{Claim, Cost, KeyOfTrace, Limit};
use parse::{NamedLimit, WrittenRule};
use sha2::{Digest, Sha256};
use std::time::Duration;
use witness::Witnesses;

/// A compiled policy.
#[derive(Debug)]
pub struct Policy {
    /// Counts up with every policy that the process puts in force.
    pub number: u32,
    /// The file's name as it was given, and what was in it.
    pub file: String,
    pub text: String,
    /// First 16 hexadecimal digits of the text's SHA-256.
    pub hash: String,
    pub wait: Wait,
    /// What scan has to answer: condition k is fact bit k.
    pub conditions: Vec<Condition>,
    pub masks: FactMasks,
    /// What counts as an error, as it is written and as bits of the conditions.
    pub errors: Errors,
    pub error_facts: ErrorFacts,
    /// What limits count by: value k of a summary's entry is of attribute k.
    pub entry_attributes: Vec<EntryAttribute>,
    pub rules: Vec<Rule>,
    /// Those of `limits:`.
    pub shared_limits: Vec<SharedLimit>,
    pub otherwise: Keep,
    /// What a part of a trace must show so that the whole may be kept.
    pub witnesses: Witnesses,
}

/// How long a trace waits to be judged, and how long a share's keep can still change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wait {
    /// After its entry span arrived.
    pub after_root: Duration,
    /// After its last span.
    pub idle: Duration,
    /// After its first span.
    pub longest: Duration,
    /// Between a keep by share and its delivery.
    pub settle: Duration,
}

impl Default for Wait {
    fn default() -> Wait {
        // SDKs flush every 5 s: one second more, and a second flush for those without a root.
        let seconds = Duration::from_secs;
        Wait { after_root: seconds(6), idle: seconds(12), longest: seconds(30), settle: seconds(30) }
    }
}

/// A rule in force.
#[derive(Debug)]
pub struct Rule {
    pub id: RuleId,
    pub written: WrittenRule,
    matcher: Matcher,
    limit_id: LimitId,
    /// What its limit counts by.
    key: KeyOfTrace,
}

impl Rule {
    /// Its limit, if it has one: its own, or one that it shares.
    pub fn limit(&self) -> Option<&Limit> {
        self.written.limited.as_ref().map(|limited| &limited.limit)
    }

    /// What its traces are charged to, if it has a limit.
    pub fn limit_id(&self) -> LimitId {
        self.limit_id
    }

    pub fn matches(&self, summary: &Summary) -> bool {
        self.matcher.matches(summary)
    }
}

/// What happens to a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    All,
    None,
    /// Neither nothing nor everything.
    Share(Threshold),
}

/// A rule's limit, and what happens beyond it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limited {
    /// Its name in `limits:`, if rules share it.
    pub shared: Option<String>,
    pub limit: Limit,
    pub then: Then,
}

/// A limit that rules share.
#[derive(Clone, Debug)]
pub struct SharedLimit {
    pub id: LimitId,
    pub name: String,
    pub limit: Limit,
}

/// What happens to a trace beyond its rule's limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    /// What the policy's last line says.
    Otherwise,
    /// Later rules see it.
    Next,
    /// It is dropped.
    None,
    Share(Threshold),
}

/// What [`RuleId::OTHERWISE`] is called.
const OTHERWISE: &str = "otherwise";

impl Policy {
    /// The policy in `text`, unless it has an error, and all problems found. `names` learns the names of
    /// its rules only if it has none.
    pub fn compile(file: &str, text: &str, number: u32, names: &mut RuleNames) -> (Option<Policy>, Vec<Diagnostic>) {
        Policy::compile_with(FactTable::default(), Vec::new(), file, text, number, names)
    }

    /// As [`Policy::compile`], for a policy that is to judge the summaries of this one: what both ask has one place.
    /// Its conditions and attributes begin with those of this policy.
    pub fn compile_beside(&self, file: &str, text: &str, names: &mut RuleNames) -> (Option<Policy>, Vec<Diagnostic>) {
        let mut table = FactTable::default();
        for condition in &self.conditions {
            table.bit_of(condition);
        }
        table.is_shared = true;
        Policy::compile_with(table, self.entry_attributes.clone(), file, text, self.number, names)
    }

    fn compile_with(
        mut table: FactTable,
        attributes: Vec<EntryAttribute>,
        file: &str,
        text: &str,
        number: u32,
        names: &mut RuleNames,
    ) -> (Option<Policy>, Vec<Diagnostic>) {
        let mut reader = parse::reader(file);
        let Some(document) = parse::parse(&mut reader, text) else { return (None, reader.finish()) };
        review::review(&mut reader, &document);
        let error_facts = document.errors.compile(&mut reader, &document.errors_at, &mut table);
        let matchers = matchers_of(&mut reader, &document.rules, &mut table);
        let (keys, entry_attributes) = keys_of(&mut reader, &document.rules, attributes);
        let (Some(wait), Some(otherwise), false) = (document.wait, document.otherwise, reader.has_errors()) else {
            return (None, reader.finish());
        };
        let witnesses = Witnesses::of(&document.rules, otherwise, &mut table);
        let rules = document.rules.into_iter().zip(matchers).zip(keys);
        let rules = rules.map(|((written, matcher), key)| {
            let id = names.id(&written.name);
            let shared = written.limited.as_ref().and_then(|limited| limited.shared.as_ref());
            let limit_id = shared.map_or(LimitId::OfRule(id), |name| names.limit_id(name));
            Rule { id, written, matcher, limit_id, key }
        });
        let rules = rules.collect();
        let shared_limits = document.limits.into_iter().map(|NamedLimit { name, limit, .. }| {
            let id = names.limit_id(&name);
            SharedLimit { id, name, limit }
        });
        let policy = Policy {
            number,
            file: file.to_owned(),
            text: text.to_owned(),
            hash: short_hash(text),
            wait,
            masks: FactMasks::of(&table.conditions),
            conditions: table.conditions,
            errors: document.errors,
            error_facts,
            entry_attributes,
            rules,
            shared_limits: shared_limits.collect(),
            otherwise,
            witnesses,
        };
        (Some(policy), reader.finish())
    }

    /// The names of its rules, and its last word.
    pub fn rule_names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.written.name.as_str()).chain([OTHERWISE])
    }

    pub fn has_rule(&self, name: &str) -> bool {
        self.rule_names().any(|known| known == name)
    }

    /// Of these, those that keep something.
    pub fn keeping_rules(&self) -> impl Iterator<Item = &str> {
        let keeps = |rule: &&Rule| rule.written.keep != Keep::None;
        let rules = self.rules.iter().filter(keeps).map(|rule| rule.written.name.as_str());
        rules.chain((self.otherwise != Keep::None).then_some(OTHERWISE))
    }

    /// The policy that is in force without a file.
    pub fn builtin() -> &'static str {
        include_str!("../config/default-policy.yaml")
    }

    /// Judges a trace: the first rule that matches decides. Limits are asked only by traces that a limited
    /// rule matches. `now_ms` is monotonic.
    pub fn judge(&self, case: &Case<'_>, trigger: Trigger, limits: &mut impl Charge, now_ms: u64) -> Verdict {
        let evaluation = Evaluation { policy: self, case, trigger, now_ms };
        for rule in self.rules.iter().filter(|rule| rule.matcher.matches(case.summary)) {
            let verdict = match &rule.written.limited {
                None => Some(evaluation.verdict(rule.id, rule.written.keep)),
                Some(limited) => evaluation.judge_limited(rule, limited, limits),
            };
            if let Some(verdict) = verdict {
                return verdict;
            }
        }
        evaluation.verdict(RuleId::OTHERWISE, self.otherwise)
    }

    /// True if a trace that was like `before` and is like `after` now may get another verdict: some rule
    /// answers otherwise, or its randomness is another. (Only then is a late span worth a new judgement.)
    pub fn may_change(&self, before: &Summary, after: &Summary) -> bool {
        let drawn_from = |summary: &Summary| (summary.randomness, summary.random_flag, summary.forgotten);
        drawn_from(before) != drawn_from(after)
            || self.rules.iter().any(|rule| rule.matches(before) != rule.matches(after))
    }

    /// The first rule of this policy that a trace was beyond the limit of when it got this verdict, if it has not
    /// changed since.
    pub fn limit_reached(&self, summary: &Summary, verdict: &Verdict) -> Option<&Rule> {
        let up_to = self.rules.iter().position(|rule| rule.id == verdict.rule).unwrap_or(self.rules.len());
        let matching = self.rules.iter().take(up_to + 1).filter(|rule| rule.matches(summary));
        matching.into_iter().find(|rule| {
            let Some(limited) = &rule.written.limited else { return false };
            let unknown = limited.then == Then::None && verdict.threshold.is_none();
            // Whoever is dropped within a limit charges nothing.
            let dropped_within = rule.id == verdict.rule
                && match rule.written.keep {
                    Keep::Share(share) => {
                        verdict.decision == Decision::DropShare && (unknown || verdict.threshold == Some(share))
                    }
                    Keep::None => true,
                    Keep::All => false,
                };
            verdict.charged != Some(rule.limit_id) && !dropped_within
        })
    }

    /// The class of reasons that a keep by `rule` belongs to.
    pub fn reason(&self, rule: RuleId) -> Reason {
        if rule == RuleId::OTHERWISE {
            return reason_of_keep(self.otherwise);
        }
        self.rules.iter().find(|r| r.id == rule).map_or(Reason::Rule, |rule| reason_of(&rule.written))
    }
}

/// What one judgement needs to know.
struct Evaluation<'a> {
    policy: &'a Policy,
    case: &'a Case<'a>,
    trigger: Trigger,
    now_ms: u64,
}

impl Evaluation<'_> {
    fn verdict(&self, rule: RuleId, keep: Keep) -> Verdict {
        let (decision, threshold) = match keep {
            Keep::All => (Decision::KeepAll, Some(Threshold::ALL)),
            Keep::None => (Decision::DropNone, None),
            Keep::Share(share) if self.randomness().passes(share) => (Decision::KeepShare, Some(share)),
            Keep::Share(share) => (Decision::DropShare, Some(share)),
        };
        let (policy, trigger, charged) = (self.policy.number, self.trigger, self.case.charged);
        Verdict { decision, rule, policy, threshold, trigger, charged }
    }

    fn randomness(&self) -> Randomness {
        self.case.summary.randomness(self.case.id).0
    }

    /// `None` when later rules decide.
    ///
    /// Whether there is room is asked before the trace's own randomness counts, so what is inside the limit
    /// is one stratum and what is beyond it another, and the weights of both sum to the truth. Only a trace
    /// that is kept takes from the limit.
    fn judge_limited(&self, rule: &Rule, limited: &Limited, limits: &mut impl Charge) -> Option<Verdict> {
        let inside = self.verdict(rule.id, rule.written.keep);
        let keeps = inside.decision.keeps();
        if self.case.charged == Some(rule.limit_id) || limits.admit(&self.claim(rule, &limited.limit, keeps)) {
            let threshold = inside.threshold.filter(|_| limited.then != Then::None);
            let charged = if keeps { Some(rule.limit_id) } else { self.case.charged };
            return Some(Verdict { threshold, charged, ..inside });
        }
        match limited.then {
            Then::Next => None,
            Then::Otherwise => Some(self.verdict(RuleId::OTHERWISE, self.policy.otherwise)),
            Then::None => Some(self.verdict(rule.id, Keep::None)),
            Then::Share(share) => Some(self.verdict(rule.id, Keep::Share(share))),
        }
    }

    fn claim<'b>(&'b self, rule: &Rule, limit: &'b Limit, take: bool) -> Claim<'b> {
        let cost = Cost { spans: u64::from(self.case.summary.spans), bytes: self.case.stored_bytes };
        let key = rule.key.of(self.case.summary);
        Claim { rule: rule.id, id: rule.limit_id, limit, key, cost, take, now_ms: self.now_ms }
    }
}

fn matchers_of(reader: &mut Reader, rules: &[WrittenRule], table: &mut FactTable) -> Vec<Matcher> {
    let compile = |rule: &WrittenRule| {
        table.fill(reader, rule.span, "this rule goes beyond", |table| Matcher::compile(&rule.when, table))
    };
    rules.iter().map(compile).collect()
}

/// What the limit of each rule counts by, and the attributes among it.
fn keys_of(
    reader: &mut Reader,
    rules: &[WrittenRule],
    mut attributes: Vec<EntryAttribute>,
) -> (Vec<KeyOfTrace>, Vec<EntryAttribute>) {
    let mut keys = Vec::with_capacity(rules.len());
    for rule in rules {
        let before = attributes.len();
        let key = rule.limited.as_ref().map(|limited| KeyOfTrace::compile(&limited.limit, &mut attributes));
        keys.push(key.unwrap_or_default());
        if before <= ENTRY_ATTRIBUTES_MAX && attributes.len() > ENTRY_ATTRIBUTES_MAX {
            let title = format!("the limits count by more than {ENTRY_ATTRIBUTES_MAX} different attributes");
            reader
                .error("P14", rule.span, title, "this rule goes beyond")
                .help("several limits may count by the same one: choose those that matter most");
        }
    }
    (keys, attributes)
}

fn short_hash(text: &str) -> String {
    Sha256::digest(text)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Failure speaks before slowness, and both before the share that was kept of them.
fn reason_of(rule: &WrittenRule) -> Reason {
    let tests = |condition: &Condition, wanted: &dyn Fn(&Test) -> bool| condition.tests.iter().any(wanted);
    let reads_failure = |atom: &Atom| match atom {
        Atom::Trace(TraceCheck::Error(wanted) | TraceCheck::Failed(wanted)) => *wanted,
        Atom::Span(condition) => {
            tests(condition, &|test| matches!(test, Test::Status(words) if words.contains(&Status::Error)))
        }
        _ => false,
    };
    let reads_duration = |atom: &Atom| match atom {
        Atom::Trace(TraceCheck::Duration(range) | TraceCheck::Envelope(range)) => range.at_least.is_some(),
        Atom::Span(condition) => {
            tests(condition, &|test| matches!(test, Test::Duration(range) if range.at_least.is_some()))
        }
        _ => false,
    };
    if rule.when.positive().any(reads_failure) {
        Reason::Failed
    } else if rule.when.positive().any(reads_duration) {
        Reason::Slow
    } else {
        reason_of_keep(rule.keep)
    }
}

fn reason_of_keep(keep: Keep) -> Reason {
    if matches!(keep, Keep::Share(_)) { Reason::Share } else { Reason::Rule }
}

/// What `tailkeep check` says of a policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckReport {
    pub text: String,
    /// 0: the policy can be used; 2: it cannot.
    pub exit_code: u8,
}

impl CheckReport {
    /// This one, and then the other.
    pub fn and(self, other: CheckReport) -> CheckReport {
        CheckReport { text: self.text + &other.text, exit_code: self.exit_code.max(other.exit_code) }
    }
}

/// Checks a policy file without using it.
pub fn check_policy(file: &str, text: &str, color: bool) -> CheckReport {
    let (policy, diagnostics) = Policy::compile(file, text, 0, &mut RuleNames::default());
    let mut report = diagnostic::render(&diagnostics, text, color);
    let exit_code = if diagnostic::has_errors(&diagnostics) { 2 } else { 0 };
    if let Some(counts) = diagnostic::count_line(&diagnostics, file) {
        let outcome = if exit_code == 0 { "the policy can be used" } else { "nothing was started" };
        report.push_str(&format!("{counts}; {outcome}\n"));
    } else if let Some(policy) = policy {
        let plural = if policy.rules.len() == 1 { "" } else { "s" };
        report.push_str(&format!("{file}: {} rule{plural}, no problem\n", policy.rules.len()));
    }
    CheckReport { text: report, exit_code }
}

#[cfg(test)]
mod tests;
