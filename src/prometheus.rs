//! Prometheus' text format for metrics.
//! Source: Prometheus documentation, "Exposition formats".

use http::{HeaderMap, header};
use std::fmt::{self, Write};

/// Who asks for a page of metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageReader {
    /// Comes again and computes differences.
    Scraper,
    /// A person or a script, who wants what is counted so far.
    Person,
}

impl PageReader {
    /// By the headers of a request: Prometheus and what is built on it name their patience, and other scrapers ask for
    /// the format by its name (Prometheus documentation, "Exposition formats", "Content negotiation").
    pub fn of(headers: &HeaderMap) -> PageReader {
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut formats =
            accepted.flat_map(|value| ["openmetrics", "version=", "delimited"].map(|word| value.contains(word)));
        match headers.contains_key("x-prometheus-scrape-timeout-seconds") || formats.any(|asked_for| asked_for) {
            true => PageReader::Scraper,
            false => PageReader::Person,
        }
    }
}

/// What a metric is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetricKind {
    Counter,
    Gauge,
}

/// Appends one metric with all of its samples. Labels are pairs of name and value.
///
/// # Errors
/// Those of the writer.
pub fn write_metric<'a>(
    out: &mut impl Write,
    name: &str,
    kind: MetricKind,
    help: &str,
    samples: impl IntoIterator<Item = (Vec<(&'a str, &'a str)>, f64)>,
) -> fmt::Result {
    let kind = if kind == MetricKind::Counter { "counter" } else { "gauge" };
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
    for (labels, value) in samples {
        out.write_str(name)?;
        for (index, (key, text)) in labels.iter().enumerate() {
            out.write_char(if index == 0 { '{' } else { ',' })?;
            write_label(out, key, text)?;
        }
        if !labels.is_empty() {
            out.write_char('}')?;
        }
        writeln!(out, " {value}")?;
    }
    Ok(())
}

/// Appends `name="value"`. The format escapes backslash, quote and line feed, and takes all other characters as they
/// are. Control characters among these are written like `\u001b` all the same: for terminals, and for tools that
/// know more ends of a line than one.
///
/// # Errors
/// Those of the writer.
pub fn write_label(out: &mut impl Write, name: &str, value: &str) -> fmt::Result {
    write!(out, "{name}=\"")?;
    value.chars().try_for_each(|c| match c {
        '\\' => out.write_str("\\\\"),
        '"' => out.write_str("\\\""),
        '\n' => out.write_str("\\n"),
        c if c.is_control() || ends_line(c) => write!(out, "\\\\u{:04x}", u32::from(c)),
        c => out.write_char(c),
    })?;
    out.write_char('"')
}

/// In Unicode these end a line or a paragraph without being control characters.
fn ends_line(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use regex::Regex;

    fn written(value: &str) -> String {
        let mut out = String::new();
        let sample = (vec![("service", value), ("rule", "r")], 3.0);
        write_metric(&mut out, "m_total", MetricKind::Counter, "What it is.", [sample]).unwrap();
        out.strip_prefix("# HELP m_total What it is.\n# TYPE m_total counter\n").expect("a head").to_owned()
    }

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(written("a\"b\\c\nd"), "m_total{service=\"a\\\"b\\\\c\\nd\",rule=\"r\"} 3\n");
        assert_eq!(
            written("\u{1b}[31m\r\0\u{9b}\u{2028}é"),
            r#"m_total{service="\\u001b[31m\\u000d\\u0000\\u009b\\u2028é",rule="r"} 3"#.to_owned() + "\n"
        );
    }

    /// A label's value as Prometheus' own lexer has it, `\"(\\.|[^\\"])*\"`, and its three escapes undone.
    fn read(line: &str) -> Option<String> {
        let sample = Regex::new(r#"^m_total\{service="((?:\\.|[^\\"])*)",rule="r"\} 3\n$"#).unwrap();
        let escape = Regex::new(r"\\(.)").unwrap();
        let value = sample.captures(line)?.get(1)?.as_str();
        let meant = |found: &regex::Captures<'_>| if &found[1] == "n" { "\n".to_owned() } else { found[1].to_owned() };
        Some(escape.replace_all(value, meant).into_owned())
    }

    proptest! {
        #[test]
        fn any_name_is_one_line_that_is_read_back(name in r#"([a-u"\\\n\r]|\PC|\pC)*"#) {
            let line = written(&name);
            prop_assert!(!line.trim_end_matches('\n').contains(char::is_control), "{line:?}");
            let shown = name.chars().map(|c| match c {
                '\n' => c.to_string(),
                c if c.is_control() || ends_line(c) => format!("\\u{:04x}", u32::from(c)),
                c => c.to_string(),
            });
            prop_assert_eq!(read(&line), Some(shown.collect::<String>()));
        }
    }
}
