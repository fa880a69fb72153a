//! The request metrics as Prometheus text (exposition format 0.0.4), named as OpenTelemetry's rules
//! translate them: `traces_span_metrics_calls_total`, `traces_span_metrics_duration_milliseconds` and
//! `traces_span_metrics_duration_quantile_milliseconds`.

use super::Meter;
use super::first_seen::FirstSeen;
use super::histogram::Cumulative;
use super::series::{Operation, SeriesKey};
use super::settings::{MeterSettings, QUANTILE};
use super::window::{Latency, Minute};
use crate::prometheus::{PageReader, write_label};
use crate::trace::Status;
use std::fmt::{self, Write};

const CALLS: &str = "traces_span_metrics_calls_total";
const DURATION: &str = "traces_span_metrics_duration";

impl Meter {
    /// Appends all series to `out`; fails only if `out` does. A series takes about 250 bytes for each
    /// bucket: an `out` that passes text on piece by piece keeps a scrape of thousands of them small.
    pub fn prometheus(&self, reader: PageReader, now_ms: u64, out: &mut impl Write) -> fmt::Result {
        let mut page = Exposition { settings: &self.settings, reader, now_ms, labels: String::new(), out };
        let keys = self.keys();
        let help = "Spans received, before sampling; a new series is shown at 0 first.";
        page.head(CALLS, "counter", help)?;
        self.each(&keys, |operation| page.calls(operation))?;
        let name = format!("{DURATION}_{}", self.settings.unit.word());
        page.head(&name, "histogram", "Duration of spans received, before sampling.")?;
        self.each(&keys, |operation| page.durations(&name, operation))?;
        let name = format!("{DURATION}_{QUANTILE}_{}", self.settings.unit.word());
        page.head(&name, "gauge", "Percentiles of the last minute, of all statuses.")?;
        let mut minute = Minute::new();
        self.each(&keys, |operation| match self.percentiles(operation, &mut minute, now_ms) {
            Some(latency) => page.quantiles(&name, &operation.identity, &latency),
            None => Ok(()),
        })
    }

    /// One after the other: see [`Meter::keys`]. Some may have been retired meanwhile.
    fn each(&self, keys: &[u64], mut write: impl FnMut(&mut Operation) -> fmt::Result) -> fmt::Result {
        keys.iter().filter_map(|key| self.operations.get_mut(key)).try_for_each(|mut operation| write(&mut operation))
    }
}

/// A page that is being written.
struct Exposition<'a, W> {
    settings: &'a MeterSettings,
    reader: PageReader,
    now_ms: u64,
    /// Those of the series that is being written.
    labels: String,
    out: &'a mut W,
}

impl<W: Write> Exposition<'_, W> {
    fn head(&mut self, name: &str, kind: &str, help: &str) -> fmt::Result {
        writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}")
    }

    fn calls(&mut self, operation: &mut Operation) -> fmt::Result {
        let (identity, mut all) = operation.series();
        all.try_for_each(|(status, series)| {
            self.set_labels(identity, status);
            let count = if self.shows_zero(&mut series.calls) { 0 } else { series.count() };
            writeln!(self.out, "{CALLS}{{{}}} {count}", self.labels)
        })
    }

    fn durations(&mut self, name: &str, operation: &mut Operation) -> fmt::Result {
        let (identity, mut all) = operation.series();
        all.try_for_each(|(status, series)| {
            let Some(counted) = &mut series.counted else { return Ok(()) };
            self.set_labels(identity, status);
            match self.shows_zero(&mut counted.durations) {
                true => self.histogram(name, &self.settings.nothing()),
                false => self.histogram(name, &counted.total),
            }
        })
    }

    /// Whoever does not come again wants the count, and has not seen the series for those who do.
    fn shows_zero(&self, first_seen: &mut FirstSeen) -> bool {
        self.reader == PageReader::Scraper && first_seen.is_at_zero(self.now_ms)
    }

    fn histogram(&mut self, name: &str, total: &Cumulative) -> fmt::Result {
        let Exposition { settings, labels, out, .. } = self;
        let mut cumulative = 0;
        for (bound, count) in settings.buckets.in_unit(settings.unit).zip(&total.buckets) {
            cumulative += count;
            writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {cumulative}")?;
        }
        let (count, sum) = (total.count, total.sum as f64 / settings.unit.nanos());
        writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
        writeln!(out, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}")
    }

    fn quantiles(&mut self, name: &str, identity: &SeriesKey, latency: &Latency) -> fmt::Result {
        self.set_labels(identity, None);
        for (quantile, nanos) in latency.quantiles() {
            let value = nanos as f64 / self.settings.unit.nanos();
            writeln!(self.out, "{name}{{{},{QUANTILE}=\"{quantile}\"}} {value}", self.labels)?;
        }
        Ok(())
    }

    /// There is always one: the instance id.
    fn set_labels(&mut self, identity: &SeriesKey, status: Option<Status>) {
        let out = &mut self.labels;
        out.clear();
        identity.each_attribute(status, self.settings, |_, label, value| {
            if !out.is_empty() {
                out.push(',');
            }
            write_label(out, label, value).expect("a text takes everything");
        });
    }
}
