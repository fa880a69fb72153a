//! Problems in a file that a person wrote, drawn so that the person sees at once where and what to
//! write instead. The only place that draws carets.

use crate::terminal::{columns, quote};
use std::fmt::Write;

/// A run of text in a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Span {
    /// Byte offsets, the end not included.
    pub start: usize,
    pub end: usize,
    /// Of the start; from 1, columns in characters.
    pub line: usize,
    pub column: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Severity {
    /// The file is not used.
    Error,
    /// The file is used; it probably does not do what its author wants.
    Warning,
}

impl Severity {
    pub fn word(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// One problem in one file.
#[derive(Clone, PartialEq, Debug)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Stable: documents and searches refer to it.
    pub code: &'static str,
    pub file: String,
    /// The key or value at fault.
    pub span: Span,
    /// The problem in one line.
    pub title: String,
    /// Stands beside the caret.
    pub label: String,
    /// Other places that explain it.
    pub others: Vec<(Span, String)>,
    /// What to write instead.
    pub help: Option<String>,
}

impl Diagnostic {
    /// Adds what to write instead.
    pub fn help(&mut self, text: impl Into<String>) -> &mut Diagnostic {
        self.help = Some(text.into());
        self
    }

    /// Adds another place that explains the problem.
    pub fn other(&mut self, span: Span, label: impl Into<String>) -> &mut Diagnostic {
        self.others.push((span, label.into()));
        self
    }

    /// One line for a log: `12:9 P03 …`.
    pub fn brief(&self) -> String {
        format!("{}:{} {} {}", self.span.line, self.span.column, self.code, quote(&self.title, TEXT_MAX))
    }
}

/// How many problems of a file are drawn; the rest is only counted.
const DRAWN_MAX: usize = 100;
/// Characters shown of a title, label or help: they may quote what is in the file.
const TEXT_MAX: usize = 600;

/// True if some problem forbids the use of the file.
pub fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|d| d.severity == Severity::Error)
}

/// Draws all problems of one file, whose content is `text`, in the order given.
pub fn render(diagnostics: &[Diagnostic], text: &str, color: bool) -> String {
    let lines: Vec<&str> = text.split('\n').collect();
    let mut out = String::new();
    for diagnostic in diagnostics.iter().take(DRAWN_MAX) {
        draw(&mut out, diagnostic, &lines, &Paint { color });
    }
    if let Some(more) = diagnostics.len().checked_sub(DRAWN_MAX).filter(|&more| more > 0) {
        let _ = writeln!(out, "and {more} more problems");
    }
    out
}

/// The last line of a report: `1 error, 2 warnings in config/policy.yaml`; none if all is well.
pub fn count_line(diagnostics: &[Diagnostic], file: &str) -> Option<String> {
    let count = |severity| diagnostics.iter().filter(|d| d.severity == severity).count();
    let phrase = |severity: Severity| match count(severity) {
        0 => None,
        1 => Some(format!("1 {}", severity.word())),
        n => Some(format!("{n} {}s", severity.word())),
    };
    let phrases: Vec<String> = [Severity::Error, Severity::Warning].into_iter().filter_map(phrase).collect();
    (!phrases.is_empty()).then(|| format!("{} in {file}", phrases.join(", ")))
}

fn draw(out: &mut String, diagnostic: &Diagnostic, lines: &[&str], paint: &Paint) {
    let Diagnostic { severity, code, file, span, title, .. } = diagnostic;
    let mut marks: Vec<Mark> = diagnostic.others.iter().map(|(span, label)| Mark { span, label, sign: '-' }).collect();
    marks.push(Mark { span, label: &diagnostic.label, sign: '^' });
    marks.sort_by_key(|mark| mark.span.line);
    let width = marks.last().map_or(1, |mark| mark.span.line.to_string().len());

    let head = paint.severity(*severity, &format!("{}[{code}]", severity.word()));
    let bar = paint.frame("|");
    let _ = writeln!(out, "{head}: {}", paint.bold(&quote(title, TEXT_MAX)));
    let _ = writeln!(out, "{:width$}{} {file}:{}:{}", "", paint.frame("-->"), span.line, span.column);
    let _ = writeln!(out, "{:width$} {bar}", "");
    let mut drawn_line = 0;
    for mark in &marks {
        let excerpt = Excerpt::of(mark.span, lines);
        if drawn_line != mark.span.line {
            let number = paint.frame(&format!("{:width$}", mark.span.line));
            let _ = writeln!(out, "{}", format!("{number} {bar} {}", excerpt.text).trim_end());
            drawn_line = mark.span.line;
        }
        let under = mark.sign.to_string().repeat(excerpt.marked);
        let under = paint.severity_if(
            mark.sign == '^',
            *severity,
            format!("{under} {}", quote(mark.label, TEXT_MAX)).trim_end(),
        );
        let _ = writeln!(out, "{:width$} {bar} {:indent$}{under}", "", "", indent = excerpt.indent);
    }
    if let Some(help) = &diagnostic.help {
        let help = quote(help, TEXT_MAX);
        let _ = writeln!(out, "{:width$} {} help: {help}", "", paint.frame("="));
    }
}

struct Mark<'a> {
    span: &'a Span,
    label: &'a str,
    sign: char,
}

/// A line of the file as a terminal shows it.
struct Excerpt {
    text: String,
    /// Cells before the mark, and cells marked.
    indent: usize,
    marked: usize,
}

/// Characters shown of a line before its mark, and in all.
const SHOWN_BEFORE: usize = 100;
const SHOWN_MAX: usize = 180;

impl Excerpt {
    fn of(span: &Span, lines: &[&str]) -> Excerpt {
        let line = lines.get(span.line.saturating_sub(1)).copied().unwrap_or_default().trim_end_matches('\r');
        let column = span.column.saturating_sub(1);
        let skipped = column.saturating_sub(SHOWN_BEFORE);
        let before: String = line.chars().take(column).skip(skipped).map(visible).collect();
        let rest: String = line.chars().skip(column).take(SHOWN_MAX - SHOWN_BEFORE).map(visible).collect();
        // A mark ends with its line, and never covers the blanks at its end.
        let marked: String = take_bytes(line.chars().skip(column), span.end.saturating_sub(span.start));
        let cut = if line.chars().count() > column + SHOWN_MAX - SHOWN_BEFORE { "…" } else { "" };
        let opening = if skipped > 0 { "…" } else { "" };
        Excerpt {
            text: format!("{opening}{before}{rest}{cut}"),
            indent: columns(opening) + columns(&before),
            marked: columns(marked.trim_end()).clamp(1, SHOWN_MAX - SHOWN_BEFORE),
        }
    }
}

/// As many characters as fit into `bytes` bytes.
fn take_bytes(chars: impl Iterator<Item = char>, mut bytes: usize) -> String {
    chars
        .take_while(|c| {
            let fits = c.len_utf8() <= bytes;
            bytes = bytes.saturating_sub(c.len_utf8());
            fits
        })
        .collect()
}

/// Tabs and other control characters take one cell, so that carets stay in place.
fn visible(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

struct Paint {
    color: bool,
}

impl Paint {
    fn with(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn severity(&self, severity: Severity, text: &str) -> String {
        self.with(if severity == Severity::Error { "1;31" } else { "1;33" }, text)
    }

    fn severity_if(&self, is_primary: bool, severity: Severity, text: &str) -> String {
        if is_primary { self.severity(severity, text) } else { self.frame(text) }
    }

    fn frame(&self, text: &str) -> String {
        self.with("1;34", text)
    }

    fn bold(&self, text: &str) -> String {
        self.with("1", text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str, needle: &str) -> Span {
        let start = text.find(needle).expect("needle in text");
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        Span {
            start,
            end: start + needle.len(),
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
        }
    }

    #[test]
    fn what_a_file_holds_does_not_drive_the_terminal() {
        let text = "http: \u{1b}[2J0";
        let title = format!("`\u{1b}[2J{}` is no address", "0".repeat(10_000));
        let drawn = render(&[Diagnostic { title, ..problem(text, "0") }], text, false);
        assert!(!drawn.contains('\u{1b}') && drawn.len() < 1000, "{drawn}");
    }

    fn problem(text: &str, needle: &str) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            code: "P03",
            file: "policy.yaml".into(),
            span: span(text, needle),
            title: "`http.route` is not a span field".into(),
            label: "attributes go under `attributes:`".into(),
            others: Vec::new(),
            help: None,
        }
    }

    #[test]
    fn draws_the_caret_the_other_places_and_the_help() {
        let text = "rules:\n  - name: keep-slow\n  - name: keep-slower\n";
        let mut diagnostic = problem(text, "keep-slower");
        diagnostic.other(span(text, "keep-slow\n"), "takes all").help("move it");
        let expected = "\
error[P03]: `http.route` is not a span field
 --> policy.yaml:3:11
  |
2 |   - name: keep-slow
  |           --------- takes all
3 |   - name: keep-slower
  |           ^^^^^^^^^^^ attributes go under `attributes:`
  = help: move it
";
        assert_eq!(render(&[diagnostic], text, false), expected);
    }

    #[test]
    fn carets_stay_in_place_behind_wide_characters_and_tabs() {
        let text = "\twhy: 支付, http.route: x";
        let drawn = render(&[problem(text, "http.route")], text, false);
        let lines: Vec<&str> = drawn.lines().collect();
        assert_eq!(lines[3], "1 |  why: 支付, http.route: x");
        assert_eq!(lines[4], "  |             ^^^^^^^^^^ attributes go under `attributes:`");
    }

    #[test]
    fn long_lines_are_cut_around_the_mark() {
        let text = format!("{}http.route{}", "a".repeat(5000), "b".repeat(5000));
        let drawn = render(&[problem(&text, "http.route")], &text, false);
        assert!(drawn.lines().all(|line| line.chars().count() < 200), "{drawn}");
        assert!(drawn.contains("…aaa") && drawn.contains("bbb…"), "{drawn}");
    }

    #[test]
    fn a_mark_that_spans_lines_ends_with_its_first() {
        let text = "wait: { a,\n  b }\n";
        let drawn = render(&[problem(text, "{ a,\n  b }")], text, false);
        assert!(drawn.contains("  |       ^^^^ attributes"), "{drawn}");
    }

    #[test]
    fn colour_comes_on_request_only() {
        let text = "http.route";
        assert!(!render(&[problem(text, "http")], text, false).contains('\x1b'));
        assert!(render(&[problem(text, "http")], text, true).contains("\x1b[1;31merror[P03]"));
    }

    #[test]
    fn counts_what_was_found() {
        let error = problem("http.route", "http");
        let warning = Diagnostic { severity: Severity::Warning, ..error.clone() };
        assert_eq!(count_line(&[], "f"), None);
        assert_eq!(count_line(std::slice::from_ref(&error), "f").as_deref(), Some("1 error in f"));
        let many = [error.clone(), warning.clone(), warning];
        assert_eq!(count_line(&many, "f").as_deref(), Some("1 error, 2 warnings in f"));
    }

    #[test]
    fn a_log_line_says_where_and_what() {
        let text = "a:\n  http.route: x";
        assert_eq!(problem(text, "http").brief(), "2:3 P03 `http.route` is not a span field");
    }
}
