//! Cases beside a policy: a trace in few words, or a recorded one, and what must become of it.
//!
//! Each case becomes an OTLP request and goes the way of every request: scan, summary, judge. No clock and no I/O:
//! whoever reads files is an argument.

mod case;
mod case_run;
mod junit;
mod phrases;
mod report;
mod spans;

use crate::diagnostic::{self, Diagnostic};
use crate::policy::{Keep, Policy};
use crate::trace::{RuleId, RuleNames};
use case_run::CaseOutcome;

/// Reads the recording that a case names; the error says why it cannot be read.
pub type Recordings<'a> = &'a mut dyn FnMut(&str) -> Result<Vec<u8>, String>;

/// A file and what is in it.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// As it is shown.
    pub name: &'a str,
    pub text: &'a str,
}

/// All cases of a file, judged.
#[derive(Debug)]
pub struct Tested {
    /// The files, as they are shown.
    policy: String,
    cases: String,
    outcomes: Vec<CaseOutcome>,
    rules: Vec<RuleCover>,
}

/// Whether some case reaches a rule, or `otherwise`.
#[derive(Clone, PartialEq, Eq, Debug)]
struct RuleCover {
    name: String,
    /// Where the policy has it; `otherwise` is named by itself.
    line: Option<usize>,
    is_reached: bool,
}

/// Judges the cases in `cases` by the policy in `policy`.
///
/// # Errors
/// All problems of the two files, drawn.
pub fn test(policy: File<'_>, cases: File<'_>, recordings: Recordings<'_>, color: bool) -> Result<Tested, String> {
    let mut names = RuleNames::default();
    let (compiled, diagnostics) = Policy::compile(policy.name, policy.text, 1, &mut names);
    let Some(compiled) = compiled else { return Err(drawn(&diagnostics, policy, color)) };
    let (read, diagnostics) = case::read(cases, &compiled, recordings);
    let Some(read) = read else { return Err(drawn(&diagnostics, cases, color)) };
    let outcomes: Vec<CaseOutcome> = read.into_iter().map(|case| case_run::judge(&compiled, case)).collect();
    let is_reached = |rule: RuleId| outcomes.iter().any(|outcome| outcome.reached.contains(&rule));
    let rules = compiled.rules.iter().map(|rule| RuleCover {
        name: rule.written.name.clone(),
        line: Some(rule.written.span.line),
        is_reached: is_reached(rule.id),
    });
    let last = RuleCover { name: "otherwise".to_owned(), line: None, is_reached: is_reached(RuleId::OTHERWISE) };
    let rules = rules.chain([last]).collect();
    Ok(Tested { policy: policy.name.to_owned(), cases: cases.name.to_owned(), outcomes, rules })
}

impl Tested {
    /// So many cases were decided otherwise than they say.
    pub fn failed(&self) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.failure.is_some()).count()
    }

    /// Every rule, and `otherwise`, is reached by some case.
    pub fn covers_all(&self) -> bool {
        self.rules.iter().all(|rule| rule.is_reached)
    }

    /// For a person.
    pub fn text(&self) -> String {
        report::text(self)
    }

    /// For a pipeline; with `fail_uncovered` each rule that no case reaches is a failure.
    pub fn junit(&self, fail_uncovered: bool) -> String {
        junit::page(self, fail_uncovered)
    }

    fn uncovered(&self) -> impl Iterator<Item = &RuleCover> {
        self.rules.iter().filter(|rule| !rule.is_reached)
    }
}

impl RuleCover {
    /// `keep-slow (policy.yaml:12)`.
    fn placed(&self, file: &str) -> String {
        self.line.map_or(self.name.clone(), |line| format!("{} ({file}:{line})", self.name))
    }
}

/// A rule and what it says, as reports write it.
fn decision(rule: Option<&str>, keep: Option<Keep>) -> String {
    let parts = [rule.map(str::to_owned), keep.map(|keep| format!("keep {keep}"))];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn drawn(diagnostics: &[Diagnostic], file: File<'_>, color: bool) -> String {
    let count = diagnostic::count_line(diagnostics, file.name).unwrap_or_default();
    format!("{}{count}; nothing was tested\n", diagnostic::render(diagnostics, file.text, color))
}
