//! Policies: those of a running process, and files.

use super::ask::Told;
use super::estimate::{self, EstimateArguments};
use super::plan::{self, PlanArguments};
use super::policy_import::{self, ImportArguments};
use super::policy_test::{self, TestArguments};
use super::suggest::{self, SuggestArguments};
use super::{CommandFailure, Running, ask, print};
use crate::policy::{Policy, check_policy};
use crate::trace::RuleNames;
use clap::Subcommand;
use http::Method;
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// What a policy would keep, drop and cost.    tailkeep policy plan --new policy.yaml --traces traces.jsonl
    Plan(PlanArguments),
    /// What is true of all traffic, by what was kept of it.    tailkeep policy estimate --by service,name
    Estimate(EstimateArguments),
    /// Write a policy from what flows.    tailkeep policy suggest --live http://127.0.0.1:13134 --budget 200GB/day
    Suggest(SuggestArguments),
    /// Print the text of the policy in force.    tailkeep policy show --previous
    Show {
        /// The one that was in force before it.
        #[arg(long)]
        previous: bool,
        #[command(flatten)]
        running: Running,
    },
    /// Set the policy in force aside for the one before it.    tailkeep policy restore
    Restore {
        #[command(flatten)]
        running: Running,
    },
    /// Print the hash of a policy's file, as /policy and /metrics have it.    tailkeep policy hash policy.yaml
    Hash {
        file: PathBuf,
        /// Ask the process of --admin or --config too: exit code 1 if another policy is in force there.
        #[command(flatten)]
        running: Running,
    },
    /// Judge the cases beside a policy.    tailkeep policy test policy.yaml --fail-uncovered
    Test(TestArguments),
    /// Write a policy from another tool's file, and say what is not the same.    tailkeep policy import otel otelcol.yaml
    Import(ImportArguments),
}

pub(super) fn run(command: &PolicyCommand) -> Result<(), CommandFailure> {
    match command {
        PolicyCommand::Plan(arguments) => plan::run(arguments)?,
        PolicyCommand::Estimate(arguments) => estimate::run(arguments)?,
        PolicyCommand::Suggest(arguments) => suggest::run(arguments)?,
        PolicyCommand::Show { previous, running } => {
            let path = if *previous { "policy/previous" } else { "policy" };
            let told: Told = ask::ask(Method::GET, running, path)?;
            // The text alone, so that it can be written into a file.
            print(&told.text);
        }
        PolicyCommand::Restore { running } => {
            let Told { file, number, hash, .. } = ask::ask(Method::POST, running, "policy/restore")?;
            print(&format!(
                "the policy before is in force again, as number {number}, hash {hash}\n\
                 {file} is as it was, and set aside until it changes, SIGHUP or a restart: mend it\n"
            ));
        }
        PolicyCommand::Hash { file, running } => hash(file, running)?,
        PolicyCommand::Test(arguments) => policy_test::run(arguments)?,
        PolicyCommand::Import(arguments) => policy_import::run(arguments)?,
    }
    Ok(())
}

/// Of a policy that can be used: a pipeline must not wait for another to be in force.
fn hash(path: &Path, running: &Running) -> Result<(), CommandFailure> {
    let (file, text) = (path.display().to_string(), ask::read(path)?);
    let (policy, _) = Policy::compile(&file, &text, 1, &mut RuleNames::default());
    let Some(Policy { hash, .. }) = policy else {
        return Err(CommandFailure::Usage(check_policy(&file, &text, false).text));
    };
    print(&format!("{hash}\n"));
    if running.admin.is_none() && running.config.is_none() {
        return Ok(());
    }
    let told: Told = ask::ask(Method::GET, running, "policy")?;
    if told.hash == hash {
        return Ok(());
    }
    let (there, number) = (&told.file, told.number);
    Err(CommandFailure::Running(format!(
        "another policy is in force: number {number}, hash {}, of {there}, where {file} has {hash}",
        told.hash
    )))
}
