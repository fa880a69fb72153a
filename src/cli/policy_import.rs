//! `policy import`: a policy of ours from another tool's file.

use super::{CommandFailure, print};
use crate::config::read_text;
use crate::import::{Tool, import};
use crate::telemetry::log;
use clap::{Args, ValueEnum};
use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(super) struct ImportArguments {
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

pub(super) fn run(arguments: &ImportArguments) -> Result<(), CommandFailure> {
    let ImportArguments { tool, file, out, part, format } = arguments;
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
pub(super) fn write_new(path: &Path, text: &str) -> Result<(), CommandFailure> {
    let written = File::create_new(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            CommandFailure::Usage(format!("{} is there already: name another file with --out", path.display()))
        }
        _ => CommandFailure::Usage(format!("cannot write {}: {error}", path.display())),
    })
}
