//! `tailkeep policy plan`: what a policy would change, before it is in force.

use super::recordings::{self, cannot_read};
use super::{CommandFailure, Running, ask, print};
use crate::admin::{PlanPolicy, PlanRequest};
use crate::config::read_text;
use crate::plan::recording::TRACES_MAX;
use crate::plan::render::{self, GateOutcome};
use crate::plan::{Compared, PlanReport, Planner, PolicyText, Recording, VolumeGate};
use crate::policy::Policy;
use crate::trace::RuleNames;
use bytes::Bytes;
use clap::{ArgGroup, Args, ValueEnum};
use http::Method;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(super) struct PlanArguments {
    /// The policy that is to come.
    #[arg(long, value_name = "FILE")]
    new: PathBuf,
    /// The policy to compare it with; without it the one in force, or for recordings the built-in one.
    #[arg(long, value_name = "FILE")]
    old: Option<PathBuf>,
    #[command(flatten)]
    source: TrafficSource,
    /// How the plan is written.
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: PlanFormat,
    /// Fail if more would be kept, like 200GB/day.
    #[arg(long, value_name = "SIZE/day", value_parser = VolumeGate::parse)]
    fail_above: Option<VolumeGate>,
    /// Fail if a trace would be dropped of which this holds, like 'error: true' or 'services: [pay]'; may be repeated.
    #[arg(long, value_name = "CONDITION")]
    fail_if_dropped: Vec<String>,
}

/// The traffic that is judged.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("traffic").required(true).args(["traces", "live"])))]
pub(super) struct TrafficSource {
    /// Recorded traces, or folders of them: OTLP/JSON or protobuf, also in gzip or zstd.
    #[arg(long, value_name = "FILE|FOLDER", num_args = 1..)]
    pub traces: Vec<PathBuf>,
    /// A running tailkeep's admin listener, whose ring is looked at; once for each replica.
    #[arg(long, value_name = "URL")]
    pub live: Vec<String>,
    /// The configuration with the admin token of these; without it the token comes from TAILKEEP_ADMIN_TOKEN.
    #[arg(long, value_name = "FILE", requires = "live")]
    config: Option<PathBuf>,
    /// PEM file with the authority of their certificates, where this host does not trust that anyway.
    #[arg(long, value_name = "FILE", requires = "live")]
    ca: Option<PathBuf>,
    /// PEM file with a certificate to present, where their `admin.tls` names a `client_ca`.
    #[arg(long, value_name = "FILE", requires = "live", requires = "key")]
    cert: Option<PathBuf>,
    /// PEM file with that certificate's private key.
    #[arg(long, value_name = "FILE", requires = "live", requires = "cert")]
    key: Option<PathBuf>,
}

impl TrafficSource {
    /// Every replica that is named.
    pub fn running(&self) -> impl Iterator<Item = Running> {
        self.live.iter().map(|url| Running {
            config: self.config.clone(),
            admin: Some(url.clone()),
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
        })
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PlanFormat {
    Table,
    Json,
    Junit,
    Html,
}

pub(super) fn run(arguments: &PlanArguments) -> Result<(), CommandFailure> {
    let (new, old) = (read(&arguments.new)?, arguments.old.as_deref().map(read).transpose()?);
    let report = compare(&arguments.source, new, old, &arguments.fail_if_dropped, recordings::warn)?;
    let gates = render::gates(&report, arguments.fail_above.as_ref());
    print(&match arguments.format {
        PlanFormat::Table => render::table(&report, &gates),
        PlanFormat::Json => format!("{:#}\n", as_json(&report, &gates)),
        PlanFormat::Junit => render::junit(&report, &gates),
        PlanFormat::Html => render::html(&report, &gates),
    });
    let failures = gates.iter().filter_map(|gate| Some(format!("{}: {}", gate.name, gate.failure.as_ref()?)));
    let failures: Vec<String> = failures.collect();
    if failures.is_empty() { Ok(()) } else { Err(CommandFailure::Gate(failures.join("\n"))) }
}

/// The report, and what became of the gates.
fn as_json(report: &PlanReport, gates: &[GateOutcome]) -> serde_json::Value {
    let mut json = serde_json::to_value(report).expect("plain values");
    let failed = gates.iter().filter(|gate| gate.failure.is_some());
    let failed = failed.map(|gate| serde_json::json!({ "gate": gate.name, "why": gate.failure }));
    json["failed_gates"] = failed.collect();
    json
}

/// What a policy does, beside another one, or by default the one in force or the built-in one; each with the name of its
/// file. `warn` hears of recordings that cannot be read to their end.
pub(super) fn compare(
    source: &TrafficSource,
    new: (String, String),
    old: Option<(String, String)>,
    conditions: &[String],
    warn: impl Fn(&[String]),
) -> Result<PlanReport, CommandFailure> {
    if source.live.is_empty() {
        return of_recordings(&source.traces, &new, old, conditions, warn);
    }
    let policy = |(file, text)| PlanPolicy { file, text };
    of_running(source, &PlanRequest { new: policy(new), old: old.map(policy), fail_if_dropped: conditions.to_vec() })
}

/// Asks every replica, one after the other, and adds up. One that does not answer makes the plan fail: without it the
/// sum would be wrong.
fn of_running(source: &TrafficSource, request: &PlanRequest) -> Result<PlanReport, CommandFailure> {
    let request = Bytes::from(serde_json::to_vec(request).expect("plain values"));
    let mut sum: Option<PlanReport> = None;
    for running in source.running() {
        let report: PlanReport = ask::send(Method::POST, &running, "policy/plan", request.clone())?;
        match &mut sum {
            Some(sum) => sum.add(&report),
            None => sum = Some(report),
        }
    }
    Ok(sum.unwrap_or_default())
}

fn of_recordings(
    named: &[PathBuf],
    new: &(String, String),
    old: Option<(String, String)>,
    conditions: &[String],
    warn: impl Fn(&[String]),
) -> Result<PlanReport, CommandFailure> {
    let old = old.unwrap_or_else(|| ("the built-in policy".to_owned(), Policy::builtin().to_owned()));
    let [now, then] = [&old, new].map(|(file, text)| PolicyText { file, text });
    let compared = Compared::compile(now, then, conditions, RuleNames::default());
    let compared = compared.map_err(CommandFailure::Usage)?;
    let too_many =
        |_| CommandFailure::Usage("the policies ask more different questions than there are bits".to_owned());
    let questions = compared.questions().map_err(too_many)?;
    let mut recording = Recording::new(&questions, TRACES_MAX);
    let warnings = recordings::read(named, &mut recording, "planned")?;
    warn(&warnings);
    let mut report = recording.plan(Planner::new(&compared, TRACES_MAX));
    report.warnings.extend(warnings);
    Ok(report)
}

fn read(path: &Path) -> Result<(String, String), CommandFailure> {
    let text = read_text(path).map_err(|error| cannot_read(path, &error))?;
    Ok((path.display().to_string(), text))
}
