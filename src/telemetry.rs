//! How the process speaks of itself: its log, and the Prometheus text format for its metrics.
//! Source: Prometheus documentation, "Exposition formats".

pub mod log;

pub use log::{LogFormat, start_log};
use std::fmt::{self, Write};

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
            write!(out, "{}{key}=\"", if index == 0 { '{' } else { ',' })?;
            write_escaped(out, text)?;
            out.write_char('"')?;
        }
        if !labels.is_empty() {
            out.write_char('}')?;
        }
        writeln!(out, " {value}")?;
    }
    Ok(())
}

fn write_escaped(out: &mut impl Write, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| match c {
        '\\' => out.write_str("\\\\"),
        '"' => out.write_str("\\\""),
        '\n' => out.write_str("\\n"),
        c => out.write_char(c),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let mut out = String::new();
        let sample = (vec![("service", "a\"b\\c\nd"), ("rule", "r")], 3.0);
        write_metric(&mut out, "m_total", MetricKind::Counter, "What it is.", [sample]).unwrap();
        let sample = "m_total{service=\"a\\\"b\\\\c\\nd\",rule=\"r\"} 3\n";
        assert_eq!(out, format!("# HELP m_total What it is.\n# TYPE m_total counter\n{sample}"));
    }
}
