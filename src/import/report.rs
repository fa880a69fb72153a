//! What an import says of the file that it read.

use super::{Fidelity, Finding, Imported};
use crate::terminal::quote;
use serde::Serialize;

/// Characters shown of what the file names.
const TEXT_MAX: usize = 200;

#[derive(Serialize)]
struct PolicyDocument<'a> {
    file: &'a str,
    exactly: usize,
    nearly: usize,
    not: usize,
    findings: Vec<ReportLine<'a>>,
    policy: &'a str,
}

#[derive(Serialize)]
struct ReportLine<'a> {
    line: usize,
    name: &'a str,
    kind: &'a str,
    outcome: &'static str,
    rules: &'a [String],
    notes: &'a [String],
}

fn count(findings: &[Finding], fidelity: Fidelity) -> usize {
    findings.iter().filter(|finding| finding.fidelity == fidelity).count()
}

/// How many parts carried over how well: `7 exactly, 2 nearly, 1 not`.
pub(super) fn tally(findings: &[Finding]) -> String {
    let counts = Fidelity::ALL.map(|fidelity| format!("{} {}", count(findings, fidelity), fidelity.word()));
    counts.join(", ")
}

impl Imported {
    /// For a person: a line for each part of the file, in its order, and why it is not exactly the same.
    pub fn report(&self) -> String {
        let mut out = String::new();
        let width = self.findings.iter().map(|finding| finding.line.to_string().len()).max().unwrap_or_default();
        for finding in &self.findings {
            let Finding { line, name, kind, fidelity, rules, notes } = finding;
            let named = rules.iter().map(|rule| format!("`{}`", quote(rule, TEXT_MAX))).collect::<Vec<_>>().join(", ");
            let became = if rules.is_empty() { String::new() } else { format!(" → {named}") };
            let (name, kind) = (quote(name, TEXT_MAX), quote(kind, TEXT_MAX));
            out.push_str(&format!("{:7} line {line:width$}  {name} ({kind}){became}\n", fidelity.word()));
            for note in notes {
                out.push_str(&format!("{:width$}               {}\n", "", quote(note, 600)));
            }
        }
        out.push_str(&format!("{}: {}\n", quote(&self.file, TEXT_MAX), tally(&self.findings)));
        out
    }

    /// For a program: the same, and the policy.
    pub fn json(&self) -> String {
        let findings = self.findings.iter().map(|finding| ReportLine {
            line: finding.line,
            name: &finding.name,
            kind: &finding.kind,
            outcome: finding.fidelity.word(),
            rules: &finding.rules,
            notes: &finding.notes,
        });
        let document = PolicyDocument {
            file: &self.file,
            exactly: count(&self.findings, Fidelity::Exactly),
            nearly: count(&self.findings, Fidelity::Nearly),
            not: count(&self.findings, Fidelity::Not),
            findings: findings.collect(),
            policy: &self.policy,
        };
        serde_json::to_string_pretty(&document).expect("texts and numbers are JSON") + "\n"
    }
}
