//! What is done with policies: planned, shown, and the way back to the one before.

use super::plan::{self, PlanArguments};
use super::{CommandFailure, Running, ask, print};
use clap::Subcommand;
use http::Method;
use serde::Deserialize;

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// What a policy would keep, drop and cost.    tailkeep policy plan --new policy.yaml --traces traces.jsonl
    Plan(PlanArguments),
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
}

/// A policy as the admin listener tells it.
#[derive(Deserialize)]
struct Told {
    file: String,
    number: u32,
    hash: String,
    text: String,
}

pub(super) fn run(command: &PolicyCommand) -> Result<(), CommandFailure> {
    match command {
        PolicyCommand::Plan(arguments) => plan::run(arguments)?,
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
    }
    Ok(())
}
