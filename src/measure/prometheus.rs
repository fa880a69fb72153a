//! The request metrics as Prometheus text (exposition format 0.0.4), named as OpenTelemetry's rules
//! translate them: `traces_span_metrics_calls_total`, `traces_span_metrics_duration_milliseconds` and
//! `traces_span_metrics_duration_quantile_milliseconds`.

use super::Meter;
use super::series::{Identity, Series};
use super::settings::{QUANTILE, STATUS};
use std::fmt::{self, Write};

const CALLS: &str = "traces_span_metrics_calls_total";
const DURATION: &str = "traces_span_metrics_duration";

impl Meter {
    /// Appends all series to `out`; fails only if `out` does. A series takes about 250 bytes for each
    /// bucket: an `out` that passes text on piece by piece keeps a scrape of thousands of them small.
    pub fn prometheus(&self, now_ms: u64, out: &mut impl Write) -> fmt::Result {
        let keys = self.keys();
        let mut labels = String::new();
        writeln!(out, "# HELP {CALLS} Spans received, before sampling.\n# TYPE {CALLS} counter")?;
        for key in &keys {
            // A series may have been retired meanwhile.
            if let Some(series) = self.series.get(key) {
                self.set_labels(&series.identity, |_| true, &mut labels);
                writeln!(out, "{CALLS}{{{labels}}} {}", series.total.count)?;
            }
        }
        let name = format!("{DURATION}_{}", self.settings.unit.word());
        writeln!(out, "# HELP {name} Duration of spans received, before sampling.\n# TYPE {name} histogram")?;
        for key in &keys {
            if let Some(series) = self.series.get(key) {
                self.set_labels(&series.identity, |_| true, &mut labels);
                self.write_histogram(&series, &name, &labels, out)?;
            }
        }
        self.write_quantiles(now_ms, &mut labels, out)
    }

    fn write_quantiles(&self, now_ms: u64, labels: &mut String, out: &mut impl Write) -> fmt::Result {
        let unit = self.settings.unit;
        let name = format!("{DURATION}_{QUANTILE}_{}", unit.word());
        writeln!(out, "# HELP {name} Percentiles of the last minute, of all statuses.\n# TYPE {name} gauge")?;
        for (identity, latency) in self.percentiles(now_ms) {
            self.set_labels(&identity, |attribute| attribute != STATUS, labels);
            for (quantile, nanos) in latency.quantiles() {
                let value = nanos as f64 / unit.nanos();
                writeln!(out, "{name}{{{labels},{QUANTILE}=\"{quantile}\"}} {value}")?;
            }
        }
        Ok(())
    }

    fn write_histogram(&self, series: &Series, name: &str, labels: &str, out: &mut impl Write) -> fmt::Result {
        let mut cumulative = 0;
        for (bound, count) in self.settings.buckets.in_unit(self.settings.unit).zip(&series.total.buckets) {
            cumulative += count;
            writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {cumulative}")?;
        }
        let (count, sum) = (series.total.count, series.total.sum as f64 / self.settings.unit.nanos());
        writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
        writeln!(out, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}")
    }

    /// Replaces `out` by the labels whose attributes are `wanted`. There is always one: the instance id.
    fn set_labels(&self, identity: &Identity, wanted: impl Fn(&str) -> bool, out: &mut String) {
        out.clear();
        identity.each_attribute(&self.settings, |attribute, label, value| {
            if !wanted(attribute) {
                return;
            }
            if !out.is_empty() {
                out.push(',');
            }
            out.push_str(label);
            out.push_str("=\"");
            push_escaped(value, out);
            out.push('"');
        });
    }
}

/// Backslash, quote and line feed are the three characters that the format escapes.
fn push_escaped(value: &str, out: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            _ => out.push(c),
        }
    }
}
