//! The section `measure`.

use super::budget::{BudgetPart, SERIES_BYTES, Sizes};
use super::load::{Loader, is_off};
use crate::measure::{Bounds, Dimensions, DurationUnit, Flavour, HISTOGRAM_BYTES, Kinds, MeterSettings};
use crate::trace::SpanKind;
use crate::yaml::{Map, Node, Value};
use std::time::Duration;

pub(super) const KEYS: &[&str] =
    &["every", "kinds", "histogram", "dimensions", "buckets", "unit", "series_max", "windows", "idle"];

const HISTOGRAMS: &[(&str, Flavour)] = &[("explicit", Flavour::Explicit), ("exponential", Flavour::Exponential)];

/// What the section says about memory.
pub(super) struct MeasureMemory {
    pub series: Option<usize>,
    pub windows: Option<usize>,
}

/// The section's keys; `None` where it says `off`.
pub(super) fn section<'n>(loader: &mut Loader<'_>, map: &Map<'n>) -> Option<Map<'n>> {
    match map.get("measure") {
        Some(node) if is_off(node) => None,
        Some(node) => {
            let known = loader.map(node, "`measure`", KEYS);
            Some(known.unwrap_or(Map { span: node.span, entries: &[] }))
        }
        None => Some(Map { span: map.span, entries: &[] }),
    }
}

/// Nothing is held when nothing is measured.
pub(super) fn requested(loader: &mut Loader<'_>, section: Option<&Map<'_>>) -> MeasureMemory {
    let Some(map) = section else { return MeasureMemory { series: Some(0), windows: Some(0) } };
    MeasureMemory {
        series: loader.count(map, "series_max", 1..=10_000_000).map(|count| count as usize * SERIES_BYTES),
        windows: loader.size(map, "windows", 16 * HISTOGRAM_BYTES as u64..=16 << 30).map(|size| size as usize),
    }
}

pub(super) fn settings(loader: &mut Loader<'_>, map: &Map<'_>, sizes: &Sizes<usize>, instance: &str) -> MeterSettings {
    let default = MeterSettings::default();
    let seconds = |seconds: u64| Duration::from_secs(seconds);
    MeterSettings {
        kinds: map.get("kinds").and_then(|node| kinds(loader, node)).unwrap_or(default.kinds),
        every: loader.duration(map, "every", seconds(1)..=seconds(3600)).unwrap_or(default.every),
        histogram: loader.word(map, "histogram", HISTOGRAMS).unwrap_or(default.histogram),
        series_max: sizes[BudgetPart::Series as usize] / SERIES_BYTES,
        buckets: map.get("buckets").and_then(|node| buckets(loader, node)).unwrap_or(default.buckets),
        unit: loader
            .word(map, "unit", &[("ms", DurationUnit::Milliseconds), ("s", DurationUnit::Seconds)])
            .unwrap_or(default.unit),
        idle: loader.duration(map, "idle", seconds(60)..=seconds(24 * 3600)).unwrap_or(default.idle),
        pool: sizes[BudgetPart::Windows as usize] / HISTOGRAM_BYTES,
        dimensions: map.get("dimensions").and_then(|node| dimensions(loader, node)).unwrap_or(default.dimensions),
        instance_id: instance.to_owned(),
    }
}

fn kinds(loader: &mut Loader<'_>, node: &Node) -> Option<Kinds> {
    if matches!(&node.value, Value::Scalar(scalar) if scalar.text == "all") {
        return Some(Kinds::ALL);
    }
    let words = SpanKind::ALL.map(|kind| (kind.word(), kind));
    let items = loader.reader.one_or_more(node, "`kinds`")?;
    let kinds: Vec<Option<SpanKind>> = items.iter().map(|item| loader.reader.word(item, "`kinds`", &words)).collect();
    kinds.into_iter().collect::<Option<Vec<SpanKind>>>().map(|kinds| Kinds::of(&kinds))
}

fn buckets(loader: &mut Loader<'_>, node: &Node) -> Option<Bounds> {
    let items = loader.reader.list(node, "`buckets`")?;
    let bounds: Vec<Option<Duration>> = items.iter().map(|item| loader.reader.duration(item, "`buckets`")).collect();
    let millis: Option<Vec<f64>> =
        bounds.into_iter().map(|bound| bound.map(|bound| bound.as_nanos() as f64 / 1e6)).collect();
    let bounds = Bounds::new(&millis?);
    bounds.map_err(|error| refuse(loader, node, error.to_string(), "these buckets cannot be used")).ok()
}

/// An empty list is fine: the series of the span's own fields only.
fn dimensions(loader: &mut Loader<'_>, node: &Node) -> Option<Dimensions> {
    let items = loader.reader.list(node, "`dimensions`")?;
    let names: Vec<Option<&str>> = items.iter().map(|item| loader.reader.text(item, "`dimensions`")).collect();
    let dimensions = Dimensions::new(names.into_iter().collect::<Option<Vec<&str>>>()?);
    dimensions.map_err(|error| refuse(loader, node, error.to_string(), "these dimensions cannot be used")).ok()
}

/// The error says what is wrong, then what to write.
fn refuse(loader: &mut Loader<'_>, node: &Node, error: String, title: &str) {
    let (label, help) = error.split_once(": ").unwrap_or((&error, ""));
    let diagnostic = loader.reader.error("C14", node.span, title, label);
    if !help.is_empty() {
        diagnostic.help(help);
    }
}
