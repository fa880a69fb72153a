//! Policies of other tail samplers, read from their files and written as ours, with what is to be said of each part:
//! carried over exactly, nearly, or not, and why.
//!
//! Pure: a text goes in, a policy and a report come out. What was written is checked as any policy is.
//!
//! Codes: I01 nothing to import, I02 more than one thing to import, I03 a format that cannot be read.

mod condition;
mod draft;
mod otel;
mod ottl;
mod refinery;
mod report;
mod source;

pub use draft::{Fidelity, Finding};

use crate::diagnostic::{self, Diagnostic, Span};
use crate::policy::Policy;
use crate::trace::RuleNames;
use crate::yaml::{Node, Reader};
use draft::Draft;

/// Whose file it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tool {
    /// The OpenTelemetry Collector's tail sampling processor.
    Otel,
    /// Honeycomb's Refinery.
    Refinery,
}

/// A policy made of another tool's file.
#[derive(Clone, PartialEq, Debug)]
pub struct Imported {
    pub file: String,
    /// The policy's text; it can be used.
    pub policy: String,
    /// In the order of the file.
    pub findings: Vec<Finding>,
}

/// What the two readers make of a file.
struct Reading {
    draft: Draft,
    findings: Vec<Finding>,
    /// Which part of the file was read.
    what: String,
}

/// Reads a file of another tool. `part` names the processor or the environment, where there are several.
///
/// # Errors
/// What is wrong with the file, drawn.
pub fn import(tool: Tool, file: &str, text: &str, part: Option<&str>, color: bool) -> Result<Imported, String> {
    let mut reader = Reader::new(file);
    let draw = |diagnostics: &[Diagnostic]| {
        let count = diagnostic::count_line(diagnostics, file).unwrap_or_default();
        format!("{}{count}; nothing was written\n", diagnostic::render(diagnostics, text, color))
    };
    if refinery::is_toml(text) {
        let span = Span { start: 0, end: 0, line: 1, column: 1 };
        reader
            .error("I03", span, "this is TOML, as Refinery 1 had it", "not YAML")
            .help("convert it with Refinery's own tool, `convert rules`, and import what that writes");
        return Err(draw(&reader.finish()));
    }
    let Some(root) = reader.parse(text) else {
        if !reader.has_errors() {
            let span = Span { start: 0, end: 0, line: 1, column: 1 };
            reader.error("I01", span, "the file is empty", "").help("name a file with the policies to import");
        }
        return Err(draw(&reader.finish()));
    };
    let reading = match tool {
        Tool::Otel => otel::read(&mut reader, &root, part),
        Tool::Refinery => refinery::read(&mut reader, &root, part),
    };
    let Some(Reading { draft, mut findings, what }) = reading else { return Err(draw(&reader.finish())) };
    findings.sort_by_key(|finding| finding.line);
    let policy = draft.text(&heading(file, &what, &findings));
    match Policy::compile("the policy that was written", &policy, 0, &mut RuleNames::default()) {
        (Some(_), _) => Ok(Imported { file: file.to_owned(), policy, findings }),
        // It asks more than a policy can.
        (None, diagnostics) => Err(diagnostic::render(&diagnostics, &policy, color)),
    }
}

/// What stands above the policy: where it comes from, and what is not the same.
fn heading(file: &str, what: &str, findings: &[Finding]) -> Vec<String> {
    let clean = |text: &str| crate::terminal::quote(text, 300);
    let mut lines = vec![format!("Imported from {what} of {}: {}.", clean(file), report::tally(findings))];
    for fidelity in [Fidelity::Not, Fidelity::Nearly] {
        let of_kind: Vec<&Finding> = findings.iter().filter(|finding| finding.fidelity == fidelity).collect();
        if !of_kind.is_empty() {
            lines.push(String::new());
            lines.push(format!("{}:", if fidelity == Fidelity::Not { "Not carried over" } else { "Nearly the same" }));
        }
        for finding in of_kind {
            let notes: Vec<String> = finding.notes.iter().map(|note| clean(note)).collect();
            let named = format!("{} ({}), line {}", clean(&finding.name), clean(&finding.kind), finding.line);
            lines.push(format!("- {named}: {}", notes.join("; ")));
        }
    }
    lines
}

/// Reports what keeps the whole file from being imported.
fn refuse(reader: &mut Reader, code: &'static str, node: &Node, title: &str, help: String) {
    let span = Span { end: node.span.start, ..node.span };
    reader.error(code, span, title, "here").help(help);
}
