//! The list of traces as a table for a terminal. Pure.

use super::TraceRow;
use crate::terminal::{clean, columns, duration};

/// Characters of a name; more is cut.
const NAME_MAX: usize = 48;
const HEADS: [&str; 8] = ["START (UTC)", "DURATION", "SPANS", "STATUS", "SERVICE", "NAME", "RULE", "TRACE ID"];
/// Columns with numbers.
const RIGHT: [bool; 8] = [false, true, true, false, false, false, false, false];

/// One line per trace below a head line; empty for no traces. Control characters in names, which
/// could drive the terminal, are shown as `�`.
pub fn render_traces(rows: &[TraceRow]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut lines = vec![HEADS.map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    let width = |column: usize| lines.iter().map(|line| columns(&line[column])).max().unwrap_or(0);
    let widths: [usize; 8] = std::array::from_fn(width);
    let mut table = String::new();
    for line in &lines {
        let mut text = String::new();
        for ((cell, width), right) in line.iter().zip(widths).zip(RIGHT) {
            let blanks = " ".repeat(width - columns(cell));
            text += &if right { format!("{blanks}{cell}  ") } else { format!("{cell}{blanks}  ") };
        }
        table += text.trim_end();
        table.push('\n');
    }
    table
}

fn cells(row: &TraceRow) -> [String; 8] {
    let status = match (row.error, &row.incomplete) {
        (true, None) => "error".to_owned(),
        (false, None) => "ok".to_owned(),
        (true, Some(why)) => format!("error, {why}"),
        (false, Some(why)) => format!("ok, {why}"),
    };
    [
        time(row.start),
        duration(row.duration),
        row.span_count.to_string(),
        fitted(&status),
        fitted(&row.service),
        fitted(&row.name),
        fitted(row.rule.as_deref().unwrap_or("-")),
        row.trace_id.to_string(),
    ]
}

fn fitted(text: &str) -> String {
    let mut shown = clean(&text.chars().take(NAME_MAX).collect::<String>());
    if text.chars().nth(NAME_MAX).is_some() {
        shown.pop();
        shown.push('…');
    }
    if shown.is_empty() { "-".to_owned() } else { shown }
}

/// `2026-11-24 06:08:30.123` from Unix nanoseconds.
fn time(nanos: i64) -> String {
    let millis = nanos.div_euclid(1_000_000);
    let (seconds, millis) = (millis.div_euclid(1000), millis.rem_euclid(1000));
    let (year, month, day) = date(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millis:03}")
}

/// Year, month and day of a day since 1970, by 400-year cycles of years that begin in March.
fn date(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let (cycle, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    (cycle * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::TraceId;
    use std::time::Duration;

    fn row(name: &str, nanos: u64) -> TraceRow {
        TraceRow {
            trace_id: TraceId([0xab; 16]),
            start: 1_700_000_000_123_456_789,
            duration: Duration::from_nanos(nanos),
            service: "checkout".to_owned(),
            name: name.to_owned(),
            services: vec!["checkout".to_owned()],
            error: nanos == 0,
            span_count: 8,
            bytes: 3500,
            rule: Some("keep-slow".to_owned()),
            trigger: None,
            reason: None,
            incomplete: (nanos == 7).then(|| "late".to_owned()),
            threshold: None,
        }
    }

    #[test]
    fn rows_line_up() {
        let table = render_traces(&[row("POST /pay", 1_234_567_890), row("\x1b[2J", 7), row("", 0)]);
        let id = "ab".repeat(16);
        let expected = format!(
            "\
START (UTC)              DURATION  SPANS  STATUS    SERVICE   NAME       RULE       TRACE ID
2023-11-14 22:13:20.123    1.23 s      8  ok        checkout  POST /pay  keep-slow  {id}
2023-11-14 22:13:20.123      7 ns      8  ok, late  checkout  \u{fffd}[2J       keep-slow  {id}
2023-11-14 22:13:20.123      0 ns      8  error     checkout  -          keep-slow  {id}
"
        );
        assert_eq!(table, expected);
        assert_eq!(render_traces(&[]), "");
    }

    #[test]
    fn long_names_are_cut_and_units_chosen() {
        assert_eq!(fitted(&"x".repeat(60)).chars().count(), NAME_MAX);
        let shown = |nanos| duration(Duration::from_nanos(nanos));
        assert_eq!(shown(45_600_000), "45.6 ms");
        assert_eq!(shown(789_400), "789 µs");
        assert_eq!(shown(3_600_000_000_000), "3600 s");
        assert_eq!(time(-1), "1969-12-31 23:59:59.999");
        assert_eq!(time(951_782_400_000_000_000), "2000-02-29 00:00:00.000");
        assert_eq!(time(i64::MAX), "2262-04-11 23:47:16.854");
    }
}
