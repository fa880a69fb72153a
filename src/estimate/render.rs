//! Estimates as a table for a terminal.

use super::{Estimate, EstimateReport, EstimateRow, FEW};
use crate::terminal::{clean, columns, duration};
use std::fmt::Write;
use std::time::Duration;

/// Groups that a table shows; the largest.
const GROUPS_SHOWN: usize = 20;
/// Characters of a name; more is cut.
const NAME_MAX: usize = 40;
const HEADS: [&str; 7] = ["", "KEPT", "TRACES", "FAILED", "P50", "P90", "P99"];

/// Two lines for each group: what is estimated, and below it between which bounds it lies.
pub fn table(report: &EstimateReport) -> String {
    let mut lines = vec![HEADS.map(str::to_owned)];
    add_group(&mut lines, &report.total);
    let shown = &report.groups[..report.groups.len().min(GROUPS_SHOWN)];
    shown.iter().for_each(|row| add_group(&mut lines, row));
    let mut out = format!(
        "{} kept traces of {} stand for {}; 95 % intervals below each figure\n\n",
        report.total.kept,
        duration(Duration::from_secs_f64(report.seconds)),
        count(report.total.traces.estimate)
    );
    out += &aligned(&lines);
    if report.groups.len() > shown.len() {
        let _ = writeln!(out, "… and {} more", report.groups.len() - shown.len());
    }
    for note in notes(report, shown) {
        let _ = writeln!(out, "note: {}", clean(&note));
    }
    out
}

fn notes(report: &EstimateReport, shown: &[EstimateRow]) -> Vec<String> {
    let mut notes = Vec::new();
    if report.stood_for > 0 {
        notes.push(format!(
            "{} traces that were kept by hand or late do not count: others stand for them",
            report.stood_for
        ));
    }
    if shown.iter().chain([&report.total]).any(is_rough) {
        notes.push(format!("*: fewer than {FEW} kept by a share, so little is known; ? where nothing is"));
    }
    notes.extend_from_slice(&report.warnings);
    notes
}

/// Shares were drawn somewhere, and few of these by one.
fn is_rough(row: &EstimateRow) -> bool {
    row.drawn < FEW && row.traces.high.is_none_or(|high| high > row.traces.low)
}

fn add_group(lines: &mut Vec<[String; 7]>, row: &EstimateRow) {
    let EstimateRow { traces, error_ratio, duration_ms, .. } = row;
    let times = [duration_ms.p50, duration_ms.p90, duration_ms.p99];
    let [p50, p90, p99] = times.map(|time| time.map_or("?".to_owned(), |time| milliseconds(time.estimate)));
    let kept = format!("{}{}", row.kept, if is_rough(row) { "*" } else { "" });
    lines.push([name(row), kept, count(traces.estimate), percent(error_ratio.estimate), p50, p90, p99]);
    let [p50, p90, p99] = times.map(|time| time.map_or(String::new(), |time| between(&time, milliseconds)));
    let bounds = [between(traces, count), between(error_ratio, percent)];
    let [traces, errors] = bounds;
    lines.push([String::new(), String::new(), traces, errors, p50, p90, p99]);
}

fn name(row: &EstimateRow) -> String {
    let Some(service) = &row.service else { return "all".to_owned() };
    let whole = row.name.as_ref().map_or_else(|| service.clone(), |name| format!("{service} {name}"));
    let mut shown = clean(&whole.chars().take(NAME_MAX).collect::<String>());
    if whole.chars().nth(NAME_MAX).is_some() {
        shown.pop();
        shown.push('…');
    }
    if shown.is_empty() { "-".to_owned() } else { shown }
}

fn between(estimate: &Estimate, show: impl Fn(f64) -> String) -> String {
    let high = estimate.high.map_or("?".to_owned(), &show);
    format!("{} – {high}", show(estimate.low))
}

fn count(count: f64) -> String {
    format!("{count:.0}")
}

/// Three digits that matter, down to a hundredth.
fn percent(ratio: f64) -> String {
    let percent = ratio * 100.0;
    let digits = if percent < 10.0 { 2 } else { 1 };
    format!("{percent:.digits$} %")
}

fn milliseconds(milliseconds: f64) -> String {
    duration(Duration::from_nanos((milliseconds * 1e6) as u64))
}

fn aligned(lines: &[[String; 7]]) -> String {
    let widths: [usize; 7] =
        std::array::from_fn(|column| lines.iter().map(|line| columns(&line[column])).max().unwrap_or(0));
    let mut table = String::new();
    for line in lines {
        let mut text = String::new();
        for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
            let blanks = " ".repeat(width - columns(cell));
            text += &if column == 0 { format!("{cell}{blanks}") } else { format!("  {blanks}{cell}") };
        }
        table += text.trim_end();
        table.push('\n');
    }
    table
}
