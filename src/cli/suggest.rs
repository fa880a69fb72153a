//! `tailkeep policy suggest`: a policy to begin with, from what flows.

use super::plan::{TrafficSource, compare};
use super::policy_import::write_new;
use super::{CommandFailure, ask, print, recordings};
use crate::plan::recording::{TRACES_MAX, no_questions};
use crate::plan::render::{seconds, size};
use crate::plan::report::KeptTraces;
use crate::plan::{PlanReport, Recording, VolumeGate};
use crate::suggest::{Predicted, Profiler, Suggestion, TrafficProfile, policy, suggest};
use crate::telemetry::log;
use clap::{Args, ValueEnum};
use http::Method;
use std::path::PathBuf;

/// Stands for a file in what a plan says of it.
const NAME: &str = "the suggestion";

#[derive(Debug, Args)]
pub(super) struct SuggestArguments {
    #[command(flatten)]
    source: TrafficSource,
    /// Choose shares that keep so much, like 200GB/day; failed traces are kept whole anyway.
    #[arg(long, value_name = "SIZE/day", value_parser = VolumeGate::parse)]
    budget: Option<VolumeGate>,
    /// Write the policy here; without it to standard output. A file that is there stays as it is.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The policy as text, or in JSON with what each rule keeps.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: SuggestFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum SuggestFormat {
    Text,
    Json,
}

pub(super) fn run(arguments: &SuggestArguments) -> Result<(), CommandFailure> {
    let SuggestArguments { source, budget, out, format } = arguments;
    let profile = if source.live.is_empty() { of_recordings(&source.traces)? } else { of_running(source)? };
    let suggestion = suggest(&profile, budget.as_ref().map(|budget| budget.bytes_per_day as f64));
    // The numbers are those of a plan, so that a plan agrees with them.
    let unsaid = policy(&suggestion, &[], |_| None);
    let report = compare(source, (NAME.to_owned(), unsaid), None, &[], |_| ())?;
    let text = policy(&suggestion, &heading(&report, budget.as_ref()), |rule| predicted(&report, rule));
    if let Some(out) = out {
        write_new(out, &text)?;
    }
    if *format == SuggestFormat::Json {
        print(&format!("{:#}\n", as_json(&suggestion, &report, &text)));
    } else if out.is_none() {
        print(&text);
    }
    suggestion.notes.iter().for_each(|note| log::say(&format!("note: {note}\n")));
    Ok(())
}

fn of_recordings(named: &[PathBuf]) -> Result<TrafficProfile, CommandFailure> {
    let nothing = no_questions();
    let mut recording = Recording::new(&nothing, TRACES_MAX);
    recordings::warn(&recordings::read(named, &mut recording, "suggested")?);
    let mut profiler = Profiler::default();
    let known = recording.each(|observed| profiler.take(&observed));
    recordings::warn(&known.warnings);
    if known.sampled > 0 {
        recordings::warn(&[format!(
            "{} spans were sampled before they were recorded: shares are of what is left",
            known.sampled
        )]);
    }
    Ok(profiler.finish(&known.services, &known.names))
}

fn of_running(source: &TrafficSource) -> Result<TrafficProfile, CommandFailure> {
    let mut sum = TrafficProfile::default();
    for running in source.running() {
        sum.add(ask::ask(Method::GET, &running, "policy/traffic")?);
    }
    if sum.traces == 0 {
        return Err(CommandFailure::Running("no trace is in the ring yet, so nothing can be suggested".to_owned()));
    }
    Ok(sum)
}

fn heading(report: &PlanReport, budget: Option<&VolumeGate>) -> Vec<String> {
    let window = &report.window;
    let (bytes, kept) = (size(window.bytes), size(report.total.then.bytes_per_day));
    let of = budget.map_or(String::new(), |budget| format!(", of a budget of {}", budget.text));
    vec![
        format!("Suggested from {} traces, {bytes} in {}: a day of that is", window.traces, seconds(window.seconds)),
        format!("kept with {kept}{of}. Read it, change it, and plan it before it is in force."),
    ]
}

fn kept_by<'r>(report: &'r PlanReport, rule: &str) -> Option<&'r KeptTraces> {
    report.rules.iter().find(|row| row.name == rule).map(|row| &row.then)
}

fn predicted(report: &PlanReport, rule: &str) -> Option<Predicted> {
    let kept = kept_by(report, rule)?;
    Some(Predicted { kept: kept.traces, decided: kept.decided, a_day: size(kept.bytes_per_day) })
}

fn as_json(suggestion: &Suggestion, report: &PlanReport, text: &str) -> serde_json::Value {
    let row = |name: &str, reason: &str| {
        let kept = kept_by(report, name).copied().unwrap_or_default();
        serde_json::json!({
            "name": name, "reason": reason,
            "traces": kept.traces, "decided": kept.decided, "bytes_per_day": kept.bytes_per_day,
        })
    };
    let rules = suggestion.rules.iter().map(|rule| row(&rule.name, &rule.reason));
    let rules: Vec<serde_json::Value> = rules.chain([row("otherwise", "what no rule decides")]).collect();
    serde_json::json!({
        "policy": text, "rules": rules, "bytes_per_day": report.total.then.bytes_per_day, "window": report.window,
        "notes": suggestion.notes,
    })
}
