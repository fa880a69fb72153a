//! A plan for people and for pipelines: as a table, as JUnit's XML and as a page.

mod page;

pub use page::html;

use super::VolumeGate;
use super::report::{GateRow, LeftOut, Moved, PlanReport, PlanRow};
use crate::terminal::{clean, columns, columns_of_char};
use crate::xml::escaped;
use std::fmt::Write;

/// Columns of a name; with five figures of 10 a line has 80 at most.
const NAME_COLUMNS: usize = 26;
/// Services that a table shows; the loudest.
const SERVICES_SHOWN: usize = 20;

/// Whether a plan may go on in a pipeline, and why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateOutcome {
    /// What was asked.
    pub name: String,
    /// Why it fails.
    pub failure: Option<String>,
}

/// What every gate says of a plan.
pub fn gates(report: &PlanReport, volume: Option<&VolumeGate>) -> Vec<GateOutcome> {
    let volume = volume.map(|gate| {
        let then = report.total.then.bytes_per_day;
        let failure = (then > gate.bytes_per_day)
            .then(|| format!("{}/day would be kept, from a window of {}", size(then), seconds(report.window.seconds)));
        GateOutcome { name: format!("no more than {}", gate.text), failure }
    });
    let dropped = |gate: &GateRow| {
        let failure = (gate.dropped > 0)
            .then(|| format!("{} traces would be dropped, as {}", gate.dropped, gate.examples.join(", ")));
        GateOutcome { name: format!("nothing dropped where {}", gate.condition), failure }
    };
    volume.into_iter().chain(report.gates.iter().map(dropped)).collect()
}

/// For a terminal of 80 columns.
pub fn table(report: &PlanReport, gates: &[GateOutcome]) -> String {
    let window = &report.window;
    let mut out = format!(
        "{} traces, {} spans, {} in {}; a day is extrapolated from that\n\n",
        window.traces,
        window.spans,
        size(window.bytes),
        seconds(window.seconds)
    );
    rows(&mut out, "rule", &report.rules);
    let total = PlanRow { name: "all".to_owned(), now: report.total.now, then: report.total.then, shared_limit: None };
    row(&mut out, &total);
    let shown = &report.services[..report.services.len().min(SERVICES_SHOWN)];
    out.push('\n');
    rows(&mut out, "service of the entry", shown);
    if report.services.len() > shown.len() {
        let _ = writeln!(out, "… and {} more", report.services.len() - shown.len());
    }
    out.push('\n');
    moved(&mut out, "newly kept", &report.newly_kept);
    moved(&mut out, "newly dropped", &report.newly_dropped);
    for line in notes(report) {
        let _ = writeln!(out, "note: {}", clean(&line));
    }
    for GateOutcome { name, failure } in gates {
        let _ = match failure {
            Some(failure) => writeln!(out, "FAILED {}: {}", clean(name), clean(failure)),
            None => writeln!(out, "passed {}", clean(name)),
        };
    }
    out
}

fn rows(out: &mut String, head: &str, rows: &[PlanRow]) {
    let _ = writeln!(out, "{head:NAME_COLUMNS$} {:>21} {:>21} {:>8}", "kept now", "kept then", "change");
    let _ = writeln!(out, "{:NAME_COLUMNS$} {:>9} {:>11} {:>9} {:>11}", "", "traces", "a day", "traces", "a day");
    rows.iter().for_each(|each| row(out, each));
}

fn row(out: &mut String, row: &PlanRow) {
    let PlanRow { now, then, .. } = row;
    let name = fitted(&row.name);
    let (a, b) = (size(now.bytes_per_day), size(then.bytes_per_day));
    let change = change(now.bytes, then.bytes);
    let _ = writeln!(out, "{name} {:>9} {a:>11} {:>9} {b:>11} {change:>8}", now.traces, then.traces);
}

/// Filled with spaces, or cut.
fn fitted(name: &str) -> String {
    let (mut fitted, mut used) = (String::new(), 0);
    let name = clean(name);
    let is_cut = columns(&name) > NAME_COLUMNS;
    for c in name.chars() {
        if used + columns_of_char(c) > NAME_COLUMNS - usize::from(is_cut) {
            break;
        }
        used += columns_of_char(c);
        fitted.push(c);
    }
    if is_cut {
        fitted.push('…');
        used += 1;
    }
    fitted + &" ".repeat(NAME_COLUMNS.saturating_sub(used))
}

fn change(now: u64, then: u64) -> String {
    match (now, then) {
        (0, 0) => "–".to_owned(),
        (0, _) => "new".to_owned(),
        (now, then) => {
            let percent = (then as f64 / now as f64 - 1.0) * 100.0;
            if percent > 9999.0 { ">+9999%".to_owned() } else { format!("{percent:+.1}%") }
        }
    }
}

fn moved(out: &mut String, what: &str, moved: &Moved) {
    let Moved { traces, spans, bytes, examples } = moved;
    let _ = writeln!(out, "{what}: {traces} traces, {spans} spans, {}", size(*bytes));
    examples.iter().for_each(|example| {
        let _ = writeln!(out, "  {}", clean(example));
    });
}

/// What the figures leave out.
fn notes(report: &PlanReport) -> Vec<String> {
    let mut notes = Vec::new();
    let LeftOut { waiting, parts, beyond: _, unordered } = report.left_out;
    for (count, what) in [
        (waiting, "traces are still waiting for spans, and left out"),
        (parts, "late parts of traces that have left are left out"),
        (unordered, "traces beyond the bound of a plan are taken to be inside every limit"),
        (report.late.then, "traces have spans that would come after the verdict of the new policy"),
    ] {
        if count > 0 {
            notes.push(format!("{count} {what}"));
        }
    }
    for row in report.rules.iter().filter(|row| row.now.beyond_limit + row.then.beyond_limit > 0) {
        let (now, then) = (row.now.beyond_limit, row.then.beyond_limit);
        notes.push(match &row.shared_limit {
            Some(limit) => format!("the limit {limit} cuts {now} traces of {} now, {then} then", row.name),
            None => format!("the limit of {} cuts {now} traces now, {then} then", row.name),
        });
    }
    notes.extend_from_slice(&report.warnings);
    notes
}

/// A case for each gate, and one that says that the policy can be used at all.
pub fn junit(report: &PlanReport, gates: &[GateOutcome]) -> String {
    let failures = gates.iter().filter(|gate| gate.failure.is_some()).count();
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"tailkeep policy plan\" tests=\"{}\" \
         failures=\"{failures}\">\n<testcase classname=\"policy\" name=\"the policy can be used\"/>\n",
        gates.len() + 1
    );
    for GateOutcome { name, failure } in gates {
        let _ = match failure {
            None => writeln!(out, "<testcase classname=\"policy\" name=\"{}\"/>", escape(name)),
            Some(failure) => writeln!(
                out,
                "<testcase classname=\"policy\" name=\"{}\"><failure message=\"{}\"/></testcase>",
                escape(name),
                escape(failure)
            ),
        };
    }
    let _ = write!(out, "<system-out>{}</system-out>\n</testsuite>\n</testsuites>\n", escape(&table(report, gates)));
    out
}

/// Names come from traffic: of what controls a terminal or a page nothing is shown but line ends.
fn escape(text: &str) -> String {
    escaped(text, &['\n'])
}

/// `7.00 MB`: three digits that matter.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 999.5 {
            let digits = if unit == "B" || value >= 99.95 { 0 } else { 1 };
            return format!("{value:.digits$} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} PB")
}

/// A window, roughly.
pub fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::report::KeptTraces;

    #[test]
    fn a_table_fits_on_a_terminal_and_nothing_drives_it() {
        let loud = KeptTraces {
            traces: u64::from(u32::MAX),
            bytes: 3,
            bytes_per_day: 999_499_999_999_999,
            ..KeptTraces::default()
        };
        let row = |name: &str| PlanRow { name: name.to_owned(), now: loud, ..PlanRow::default() };
        let report = PlanReport {
            rules: vec![row("a\u{1b}[31m"), row(&"x".repeat(200)), row(&"结账".repeat(20))],
            services: (0..30).map(|n| row(&n.to_string())).collect(),
            ..PlanReport::default()
        };
        let table = table(&report, &[]);
        assert!(table.lines().all(|line| columns(line) <= 81), "{table}");
        assert!(!table.contains('\u{1b}') && table.contains("… and 10 more"), "{table}");
    }

    #[test]
    fn what_others_named_is_escaped() {
        let hostile = "<script>\"&'\u{1}".to_owned();
        let rules = vec![PlanRow { name: hostile.clone(), ..PlanRow::default() }];
        let warnings = vec![hostile.clone()];
        let report = PlanReport { rules, warnings, ..PlanReport::default() };
        let outcomes = [GateOutcome { name: hostile.clone(), failure: Some(hostile) }];
        for text in [junit(&report, &outcomes), html(&report, &outcomes)] {
            assert!(!text.contains("<script") && !text.contains('\u{1}'), "{text}");
            assert!(text.contains("&lt;script&gt;&quot;&amp;&#39;�"), "{text}");
        }
    }

    #[test]
    fn gates_fail_beyond_the_volume_and_where_something_is_dropped() {
        let mut report = PlanReport::default();
        report.total.then.bytes_per_day = 1001;
        report.gates = vec![GateRow { condition: "error".into(), dropped: 1, examples: vec!["ab".into()] }];
        let gate = VolumeGate::parse("1KB/day").unwrap();
        assert!(gates(&report, Some(&gate)).iter().all(|gate| gate.failure.is_some()));
        report.total.then.bytes_per_day = 1000;
        report.gates[0].dropped = 0;
        assert!(gates(&report, Some(&gate)).iter().all(|gate| gate.failure.is_none()));
    }
}
