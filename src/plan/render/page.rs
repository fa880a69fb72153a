//! A plan as one page that needs nothing but itself.

use super::{GateOutcome, change, escape, notes, seconds, size};
use crate::plan::report::{Moved, PlanReport, PlanRow};
use std::fmt::Write;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em;color:#222;\
    background:#fff}table{border-collapse:collapse;width:100%}td,th{padding:.3em .6em;text-align:right;border-bottom:1px \
    solid #ddd}td:first-child,th:first-child{text-align:left;overflow-wrap:anywhere}code{font-size:13px}svg{display:block}\
    .now{fill:#9aa5b1}.then{fill:#2f6fde}.failed{color:#b00020;font-weight:600}.passed{color:#1b6e3c}";
/// Width of the longest bar.
const BAR: f64 = 160.0;

/// One page, with pictures and without anything from elsewhere.
pub fn html(report: &PlanReport, gates: &[GateOutcome]) -> String {
    let window = &report.window;
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>Plan of a policy</title><style>{STYLE}</style></head><body>\n\
         <h1>Plan of a policy</h1>\n<p>{} traces, {} spans, {} in {}; a day is extrapolated from that. Policy <code>{}</code> \
         now, <code>{}</code> then. Grey bars: now. Blue bars: then.</p>\n",
        window.traces,
        window.spans,
        size(window.bytes),
        seconds(window.seconds),
        escape(&report.policies.now),
        escape(&report.policies.then),
    );
    for GateOutcome { name, failure } in gates {
        let _ = match failure {
            Some(why) => writeln!(out, "<p class=\"failed\">failed: {}: {}</p>", escape(name), escape(why)),
            None => writeln!(out, "<p class=\"passed\">passed: {}</p>", escape(name)),
        };
    }
    let all = PlanRow { name: "all".to_owned(), now: report.total.now, then: report.total.then, shared_limit: None };
    let rules: Vec<PlanRow> = report.rules.iter().cloned().chain([all]).collect();
    table(&mut out, "Rules", &rules);
    table(&mut out, "Services, by that of the entry span", &report.services);
    moved(&mut out, "Newly kept", &report.newly_kept);
    moved(&mut out, "Newly dropped", &report.newly_dropped);
    let notes = notes(report);
    if !notes.is_empty() {
        out.push_str("<h2>Notes</h2>\n<ul>\n");
        notes.iter().for_each(|note| {
            let _ = writeln!(out, "<li>{}</li>", escape(note));
        });
        out.push_str("</ul>\n");
    }
    out.push_str("</body></html>\n");
    out
}

fn table(out: &mut String, title: &str, rows: &[PlanRow]) {
    let _ = writeln!(
        out,
        "<h2>{title}</h2>\n<table><tr><th></th><th>traces now</th><th>a day</th><th>traces then</th><th>a day</th>\
         <th>change</th><th></th></tr>"
    );
    let most = rows.iter().map(|row| row.now.bytes.max(row.then.bytes)).max().unwrap_or(0).max(1) as f64;
    for row in rows {
        let PlanRow { name, now, then, .. } = row;
        let bar = |bytes: u64, y: u32, class: &str| {
            let width = bytes as f64 / most * BAR;
            format!("<rect class=\"{class}\" y=\"{y}\" width=\"{width:.1}\" height=\"7\"/>")
        };
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td><svg width=\"{BAR}\" height=\"16\" \
             role=\"img\" aria-label=\"{} now, {} then\">{}{}</svg></td></tr>",
            escape(name),
            now.traces,
            size(now.bytes_per_day),
            then.traces,
            size(then.bytes_per_day),
            change(now.bytes, then.bytes),
            size(now.bytes),
            size(then.bytes),
            bar(now.bytes, 0, "now"),
            bar(then.bytes, 8, "then"),
        );
    }
    out.push_str("</table>\n");
}

fn moved(out: &mut String, title: &str, moved: &Moved) {
    let Moved { traces, spans, bytes, examples } = moved;
    let _ = writeln!(out, "<h2>{title}</h2>\n<p>{traces} traces, {spans} spans, {}</p>\n<ul>", size(*bytes));
    examples.iter().for_each(|example| {
        let _ = writeln!(out, "<li><code>{}</code></li>", escape(example));
    });
    out.push_str("</ul>\n");
}
