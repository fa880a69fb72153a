//! `tailkeep policy estimate`: what is true of the whole traffic, by what was kept of it.

use super::{CommandFailure, ask, parse_duration, print, recordings};
use crate::estimate::{EstimateReport, Estimator, GroupBy, KeptWeight, Selection, WeightedTrace, table};
use crate::plan::Recording;
use crate::plan::recording::TRACES_MAX;
use crate::store::{Store, TraceRow};
use crate::trace::{Observed, Threshold};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct EstimateArguments {
    /// The store's file; without it the one in the configuration.
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// The configuration; without it the store in your data folder.
    #[arg(long, value_name = "FILE", conflicts_with = "store")]
    config: Option<PathBuf>,
    /// In place of a store: kept traces as sinks write them, or folders of them: OTLP/JSON or protobuf, also in gzip or
    /// zstd.
    #[arg(long, value_name = "FILE|FOLDER", num_args = 1.., conflicts_with_all = ["store", "config"])]
    traces: Vec<PathBuf>,
    /// Traces that began within the last so long, like 10m or 2h.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    since: Option<Duration>,
    /// Traces of which this holds, like 'services: [pay]' or 'error: true'.
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
    /// A line for each entry service, or for each of its operations.
    #[arg(long, value_name = "KEY", default_value = "service")]
    by: GroupKeys,
    /// How the estimates are written.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: EstimateFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum GroupKeys {
    Service,
    #[value(name = "service,name")]
    ServiceAndName,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EstimateFormat {
    Text,
    Json,
}

pub(super) fn run(arguments: &EstimateArguments) -> Result<(), CommandFailure> {
    let by = match arguments.by {
        GroupKeys::Service => GroupBy::Service,
        GroupKeys::ServiceAndName => GroupBy::ServiceAndName,
    };
    let selection = Selection::parse(arguments.condition.as_deref()).map_err(CommandFailure::Usage)?;
    let since = arguments.since.map_or(0, ask::ago);
    let report = if arguments.traces.is_empty() {
        let store = ask::store_file(arguments.store.as_deref(), arguments.config.as_deref())?;
        of_store(&store, since, arguments.condition.is_some().then_some(&selection), by)?
    } else {
        of_recordings(&arguments.traces, since, &selection, by)?
    };
    if report.total.kept + report.stood_for == 0 {
        return Err(CommandFailure::Usage("no kept trace is like that, so nothing can be estimated".to_owned()));
    }
    print(&match arguments.format {
        EstimateFormat::Text => table(&report),
        EstimateFormat::Json => format!("{:#}\n", serde_json::to_value(&report).expect("plain values")),
    });
    Ok(())
}

fn of_recordings(
    named: &[PathBuf],
    since: u64,
    selection: &Selection,
    by: GroupBy,
) -> Result<EstimateReport, CommandFailure> {
    let mut recording = Recording::new(selection.questions(), TRACES_MAX);
    let mut warnings = recordings::read(named, &mut recording, "estimated")?;
    recordings::warn(&warnings);
    let mut observed = Vec::new();
    let known = recording.each(|trace| observed.push(trace));
    let mut estimator = Estimator::new(by);
    for trace in observed.iter().filter(|trace| trace.summary.start >= since) {
        let (service, name) = (&known.services[trace.service as usize], &known.names[trace.name as usize]);
        if let Some(weight) = selection.weight(trace) {
            estimator.take(&kept(trace, service, name, weight));
        }
    }
    warnings.extend(known.warnings);
    Ok(estimator.finish(warnings))
}

/// `selection` is what its traces are asked, if only some count: then their spans are read.
fn of_store(
    path: &Path,
    since: u64,
    selection: Option<&Selection>,
    by: GroupBy,
) -> Result<EstimateReport, CommandFailure> {
    let store = Store::open_read(path).map_err(CommandFailure::Running)?;
    let mut estimator = Estimator::new(by);
    let mut problem = Ok(());
    let each = store.each(since, |row| {
        let is_wanted = selection.map_or(Ok(true), |selection| is_selected(&store, &row, selection));
        match is_wanted {
            Ok(true) => estimator.take(&kept_row(&row)),
            Ok(false) => {}
            Err(why) => problem = Err(why),
        }
    });
    each.and(problem).map_err(CommandFailure::Running)?;
    Ok(estimator.finish(Vec::new()))
}

fn is_selected(store: &Store, row: &TraceRow, selection: &Selection) -> Result<bool, String> {
    let Some(stored) = store.trace(row.trace_id)? else { return Ok(false) };
    let mut recording = Recording::new(selection.questions(), 1);
    let mut page = None;
    while let Some(next) = store.spans(&stored, page.as_ref())? {
        recording.add(&next.body).map_err(|_| format!("the spans of {} cannot be read", row.trace_id))?;
        page = Some(next);
    }
    let mut is_selected = false;
    recording.each(|observed| is_selected = selection.weight(&observed).is_some());
    Ok(is_selected)
}

fn kept<'a>(observed: &Observed, service: &'a str, name: &'a str, weight: KeptWeight) -> WeightedTrace<'a> {
    let summary = &observed.summary;
    WeightedTrace { service, name, error: summary.error(), start: summary.start, duration: summary.duration(), weight }
}

fn kept_row(row: &TraceRow) -> WeightedTrace<'_> {
    let threshold = row.threshold.as_ref().and_then(|digits| Threshold::parse(digits.as_bytes()));
    let [rule, trigger, incomplete] = [&row.rule, &row.trigger, &row.incomplete].map(Option::as_deref);
    WeightedTrace {
        service: &row.service,
        name: &row.name,
        error: row.error,
        start: row.start.max(0) as u64,
        duration: row.duration.as_nanos() as u64,
        weight: KeptWeight::of_marks(threshold, rule, trigger, incomplete),
    }
}
