//! The command line. Exit codes: 0 fine, 1 failed while running, 2 wrong arguments or files, 3 a gate of a
//! plan failed.

mod ask;
mod estimate;
mod plan;
mod policy;
mod policy_import;
mod policy_test;
mod recordings;
mod serve;
mod suggest;
mod view;

use crate::telemetry::{LogFormat, log};
use crate::trace::TraceId;
use clap::{Args, Parser, Subcommand};
use std::convert::Infallible;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Keep the traces that matter, count all of them.
#[derive(Debug, Parser)]
#[command(name = "tailkeep", version, about, subcommand_required = false)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Log level, or directives like `info,tailkeep::deliver=debug`.
    #[arg(long, global = true, value_name = "LEVEL", default_value = "info")]
    log: String,
    /// How log lines are written to standard error.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Receive, judge, measure and deliver.    tailkeep run --config config/tailkeep.yaml
    Run(FileArguments),
    /// The same with built-in traffic, a store of its own and a live view; no files needed.
    Demo,
    /// Report every problem of the files, start nothing.    tailkeep check --policy policy.yaml
    Check(FileArguments),
    /// Judge traces of a file or a running tailkeep, rule by rule.    tailkeep explain --policy policy.yaml trace.json
    Explain {
        /// The policy; without it that of the running tailkeep, and for a file the built-in one.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// A file: OTLP as JSON or protobuf, the JSON of Jaeger or Tempo, gzip and zstd; or the id of a trace that a
        /// running tailkeep has.
        #[arg(value_name = "TRACE")]
        trace: PathBuf,
        #[command(flatten)]
        running: Running,
    },
    /// Why a running tailkeep kept or dropped a trace.    tailkeep why 4bf92f3577b34da6a3ce929d0e0e4736
    Why {
        /// 32 hexadecimal digits.
        #[arg(value_parser = parse_trace_id)]
        trace_id: TraceId,
        #[command(flatten)]
        running: Running,
    },
    /// Test and plan a policy; show the one in force, and go back to the one before.    tailkeep policy test
    Policy {
        #[command(subcommand)]
        command: policy::PolicyCommand,
    },
    /// One signed, harmless probe to every sink and identity source.    tailkeep doctor --config tailkeep.yaml
    Doctor {
        /// As for `check`.
        #[arg(hide = true, value_parser = refuse_config)]
        _file: Option<Infallible>,
        /// The configuration whose sinks are probed.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// What the local store holds, the newest first.    tailkeep traces --errors --slower 1s
    Traces(Traces),
}

#[derive(Debug, Args, Default)]
struct FileArguments {
    /// What everybody types first.
    #[arg(hide = true, value_parser = refuse_file)]
    _file: Option<Infallible>,
    /// The configuration; without it tailkeep binds loopback and stores in your data folder.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The policy; goes before the `policy:` of the configuration.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

/// The process that is asked.
#[derive(Debug, Args)]
struct Running {
    /// Its configuration, for its admin listener and token; without it the token comes from TAILKEEP_ADMIN_TOKEN.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Its admin listener; without it the one in the configuration, or http://127.0.0.1:13134.
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// PEM file with the authority of its certificate, where this host does not trust that anyway.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// PEM file with a certificate to present, where its `admin.tls` names a `client_ca`.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// PEM file with that certificate's private key.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Traces {
    /// Traces with a span of this service.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Traces with a failed span.
    #[arg(long)]
    errors: bool,
    /// Traces that took at least this long, like 500ms or 1s.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    slower: Option<Duration>,
    /// Traces that began within the last so long, like 10m or 2h.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    since: Option<Duration>,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// The store's file; without it the one in the configuration.
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// The configuration; without it the store in your data folder.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Why a command ended other than well.
#[derive(Debug)]
enum CommandFailure {
    /// Wrong arguments or files.
    Usage(String),
    Running(String),
    /// A plan is not what it must be.
    Gate(String),
}

impl CommandFailure {
    fn text(&self) -> &str {
        match self {
            CommandFailure::Usage(text) | CommandFailure::Running(text) | CommandFailure::Gate(text) => text,
        }
    }
}

fn refuse_file(path: &str) -> Result<Infallible, String> {
    Err(format!("did you mean --policy {path} or --config {path}?"))
}

fn refuse_config(path: &str) -> Result<Infallible, String> {
    Err(format!("did you mean --config {path}?"))
}

fn parse_trace_id(text: &str) -> Result<TraceId, String> {
    TraceId::parse(text).ok_or_else(|| "a trace id is 32 hexadecimal digits".to_owned())
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    crate::yaml::parse_duration(text).ok_or_else(|| "write a number and a unit: 500ms, 1.5s, 2m, 1h".to_owned())
}

/// Parses the arguments, runs the command and maps its outcome to an exit code.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; they go to standard output and exit 0.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let command = cli.command.unwrap_or(Command::Run(FileArguments::default()));
    let outcome = match command {
        Command::Run(files) => serve::run(&files, &cli.log, cli.log_format),
        Command::Demo => serve::demo(&cli.log, cli.log_format),
        Command::Check(files) => serve::check(&files),
        Command::Explain { policy, trace, running } => ask::explain(policy.as_deref(), &trace, &running),
        Command::Why { trace_id, running } => ask::why(trace_id, &running),
        Command::Policy { command } => policy::run(&command),
        Command::Doctor { config, .. } => serve::doctor(config.as_deref()),
        Command::Traces(traces) => ask::traces(&traces),
    };
    let (text, code) = match outcome {
        Ok(()) => {
            log::flush();
            return ExitCode::SUCCESS;
        }
        Err(CommandFailure::Usage(text)) => (text, 2),
        Err(CommandFailure::Running(text)) => (text, 1),
        Err(CommandFailure::Gate(text)) => (text, 3),
    };
    // Nothing is left to say where a report has said it.
    if !text.is_empty() {
        log::say(&format!("{}\n", text.trim_end()));
    }
    log::flush();
    ExitCode::from(code)
}

/// To standard output. Whoever has read enough may go.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
