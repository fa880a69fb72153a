//! The policy that a running process has in force, and the way back; policies of other tools.

use super::{CommandFailure, Running, ask, print};
use crate::config::read_text;
use crate::import::{Tool, import};
use crate::telemetry::log;
use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde::Deserialize;
use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
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
    /// Write a policy from another tool's file, and say what is not the same.    tailkeep policy import otel otelcol.yaml
    Import(Import),
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The OpenTelemetry Collector's tail sampling, or Honeycomb's Refinery.
    tool: ToolName,
    /// Its file: a whole configuration of the Collector or the processor's section alone; Refinery's rules.
    file: PathBuf,
    /// Write the policy here; without it to standard output. A file that is there stays as it is.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The processor (`tail_sampling/2`) or the environment, where there are several.
    #[arg(long, value_name = "NAME")]
    part: Option<String>,
    /// The report: text to standard error, or JSON with the policy in it to standard output.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ToolName {
    Otel,
    Refinery,
}

#[derive(Clone, Copy, PartialEq, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
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
        PolicyCommand::Import(arguments) => import_policy(arguments)?,
    }
    Ok(())
}

fn import_policy(arguments: &Import) -> Result<(), CommandFailure> {
    let Import { tool, file, out, part, format } = arguments;
    let tool = match tool {
        ToolName::Otel => Tool::Otel,
        ToolName::Refinery => Tool::Refinery,
    };
    let text =
        read_text(file).map_err(|error| CommandFailure::Usage(format!("cannot read {}: {error}", file.display())))?;
    let color = std::io::stderr().is_terminal();
    let imported =
        import(tool, &file.display().to_string(), &text, part.as_deref(), color).map_err(CommandFailure::Usage)?;
    if let Some(out) = out {
        write_new(out, &imported.policy)?;
    }
    if *format == Format::Json {
        print(&imported.json());
        return Ok(());
    }
    if out.is_none() {
        print(&imported.policy);
    }
    log::say(&imported.report());
    Ok(())
}

/// A policy that somebody wrote is not overwritten.
fn write_new(path: &Path, text: &str) -> Result<(), CommandFailure> {
    let written = File::create_new(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            CommandFailure::Usage(format!("{} is there already: name another file with --out", path.display()))
        }
        _ => CommandFailure::Usage(format!("cannot write {}: {error}", path.display())),
    })
}
