//! Delivers files of OTLP protobuf through one sink and exits: for trying a sink by hand and for the
//! conformance tests in `tests/cloud`.
//!
//! A file's name says what it holds: `NAME.traces.pb`, `NAME.metrics.pb` or `NAME.logs.pb`, each one
//! `Export…ServiceRequest`. Keys come from the environment as `auth: auto` takes them. The last line
//! of output is JSON: batches, items, rejected, retries.

use clap::{Args, Parser, Subcommand, ValueEnum};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest,
};
use prost::Message;
use std::{path::PathBuf, time::Duration};
use tailkeep::{
    deliver::sink::{
        Batch, SendError, Sink,
        arms::{self, Access, Arms},
        otlp::Protocol,
        sls::{self, MetricsPath, PackCompression, SignatureVersion, Sls},
    },
    doctor,
    identity::{AssumeRoleSettings, EcsRoleSettings, RrsaSettings, Secret, Source, World},
    trace::Signal,
};

/// Longest wait between two attempts: a test does not want to wait as long as a service.
const WAIT_MAX: Duration = Duration::from_millis(200);
const TRIES_MAX: u32 = 30;

#[derive(Parser)]
enum Command {
    /// To Log Service.
    Sls {
        #[command(flatten)]
        sls: Box<SlsArguments>,
        #[command(flatten)]
        load: Load,
    },
    /// To ARMS.
    Arms {
        #[command(flatten)]
        arms: Box<ArmsArguments>,
        #[command(flatten)]
        load: Load,
    },
    /// Probe instead of delivering; prints the report.
    #[command(subcommand)]
    Doctor(Doctor),
}

#[derive(Subcommand)]
enum Doctor {
    Sls(Box<SlsArguments>),
    Arms(Box<ArmsArguments>),
}

#[derive(Args)]
struct Load {
    /// Deliver all files this many times.
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    files: Vec<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Signature {
    V1,
    V4,
}

#[derive(Clone, Copy, ValueEnum)]
enum Packing {
    Lz4,
    Zstd,
    None,
}

#[derive(Clone, Copy, ValueEnum)]
enum PathName {
    Logstore,
    Prometheus,
}

#[derive(Clone, Copy, ValueEnum)]
enum Auth {
    Auto,
    Environment,
    Rrsa,
    EcsRole,
    AssumeRole,
}

#[derive(Clone, Copy, ValueEnum)]
enum Transport {
    Grpc,
    Http,
}

#[derive(Args)]
struct SlsArguments {
    #[arg(long)]
    endpoint: String,
    #[arg(long)]
    connect_to: Option<String>,
    #[arg(long)]
    region: Option<String>,
    #[arg(long)]
    domain: Option<String>,
    #[arg(long, default_value = "demo-proj")]
    project: String,
    #[arg(long, default_value = "otel-traces")]
    traces: String,
    #[arg(long, default_value = "otel-metrics")]
    metrics: String,
    #[arg(long, default_value = "otel-logs")]
    logs: String,
    #[arg(long, default_value = "v4")]
    signature: Signature,
    #[arg(long, default_value = "lz4")]
    compression: Packing,
    #[arg(long, default_value = "logstore")]
    metrics_path: PathName,
    #[arg(long)]
    shard_key: Option<String>,
    #[arg(long, default_value_t = 15_000)]
    timeout_ms: u64,
    #[arg(long, default_value = "auto")]
    auth: Auth,
    #[arg(long)]
    only_v2: bool,
    #[arg(long)]
    sts: Option<String>,
    #[arg(long)]
    metadata: Option<String>,
}

#[derive(Args)]
struct ArmsArguments {
    #[arg(long)]
    endpoint: Option<String>,
    #[arg(long)]
    connect_to: Option<String>,
    #[arg(long)]
    protocol: Option<Transport>,
    #[arg(long)]
    token: Option<String>,
    #[arg(long, requires_all = ["project", "workspace"])]
    licence: Option<String>,
    #[arg(long)]
    project: Option<String>,
    #[arg(long)]
    workspace: Option<String>,
    #[arg(long)]
    host_name: Option<String>,
}

impl SlsArguments {
    fn settings(self) -> sls::SlsSettings {
        let mut settings = sls::SlsSettings {
            endpoint: self.endpoint,
            connect_to: self.connect_to,
            region: self.region,
            domain: self.domain,
            project: self.project,
            traces: Some(self.traces),
            metrics: Some(self.metrics),
            logs: Some(self.logs),
            shard_key: self.shard_key,
            timeout: Duration::from_millis(self.timeout_ms),
            ..Default::default()
        };
        settings.signature = match self.signature {
            Signature::V1 => SignatureVersion::V1,
            Signature::V4 => SignatureVersion::V4,
        };
        settings.compression = match self.compression {
            Packing::Lz4 => PackCompression::Lz4,
            Packing::Zstd => PackCompression::Zstd,
            Packing::None => PackCompression::None,
        };
        settings.metrics_path = match self.metrics_path {
            PathName::Logstore => MetricsPath::Logstore,
            PathName::Prometheus => MetricsPath::Prometheus,
        };
        settings.auth.source = match self.auth {
            Auth::Auto => Source::Auto,
            Auth::Environment => Source::Environment,
            Auth::Rrsa => Source::Rrsa(RrsaSettings::default()),
            Auth::EcsRole => Source::EcsRole(EcsRoleSettings { role: None, only_v2: self.only_v2 }),
            Auth::AssumeRole => Source::AssumeRole(AssumeRoleSettings {
                role_arn: "acs:ram::1:role/tail".to_owned(),
                session_name: None,
                external_id: Some("ext-1".to_owned()),
                base: Box::new(Source::Environment),
            }),
        };
        settings.auth.endpoints.sts = self.sts;
        if let Some(metadata) = self.metadata {
            settings.auth.endpoints.metadata = metadata;
        }
        settings
    }
}

impl ArmsArguments {
    fn settings(self) -> arms::ArmsSettings {
        let access = match (self.token, self.licence) {
            (Some(token), _) => Access::Token(Secret::new(token)),
            (None, Some(key)) => Access::Licence {
                key: Secret::new(key),
                project: self.project.unwrap_or_default(),
                workspace: self.workspace.unwrap_or_default(),
            },
            (None, None) => Access::Free,
        };
        let mut settings = arms::ArmsSettings {
            endpoint: self.endpoint.map(Secret::new),
            protocol: self.protocol.map(|protocol| match protocol {
                Transport::Grpc => Protocol::Grpc,
                Transport::Http => Protocol::Http,
            }),
            access,
            host_name: self.host_name,
            ..Default::default()
        };
        settings.client.connect_to = self.connect_to;
        settings
    }
}

#[tokio::main]
async fn main() -> Result<(), String> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let (mut sink, load): (Box<dyn Sink>, Load) = match Command::parse() {
        Command::Sls { sls, load } => (Box::new(Sls::new(sls.settings(), World::system())?), load),
        Command::Arms { arms, load } => (Box::new(Arms::new(arms.settings())?), load),
        Command::Doctor(Doctor::Sls(sls)) => {
            return report(doctor::examine_sls("sls", sls.settings(), World::system()).await);
        }
        Command::Doctor(Doctor::Arms(arms)) => {
            return report(
                doctor::examine_otlp("arms", doctor::SinkProtocol::Arms, &mut Arms::new(arms.settings())?).await,
            );
        }
    };
    let batches = load.files.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let (mut items, mut rejected, mut retries) = (0, 0, Vec::new());
    for batch in (0..load.repeat).flat_map(|_| &batches) {
        items += batch.items;
        rejected += deliver(&mut *sink, batch, &mut retries).await?;
    }
    sink.close().await;
    let batches = batches.len() * load.repeat;
    println!("{}", serde_json::json!({ "batches": batches, "items": items, "rejected": rejected, "retries": retries }));
    Ok(())
}

fn report(findings: Vec<doctor::ProbeFinding>) -> Result<(), String> {
    print!("{}", doctor::render(&findings));
    if findings.iter().any(doctor::ProbeFinding::is_failed) { Err("some probes failed".to_owned()) } else { Ok(()) }
}

async fn deliver(sink: &mut dyn Sink, batch: &Batch, retries: &mut Vec<String>) -> Result<u64, String> {
    for _ in 0..TRIES_MAX {
        match sink.send(batch).await {
            Ok(sent) => return Ok(sent.items_lost()),
            Err(SendError::Retry { after, reason } | SendError::Denied { after, reason }) => {
                retries.push(reason);
                tokio::time::sleep(after.unwrap_or(WAIT_MAX / 4).min(WAIT_MAX)).await;
            }
            Err(SendError::Pause { after, reason }) => {
                retries.push(reason);
                tokio::time::sleep(after.min(WAIT_MAX)).await;
            }
            Err(SendError::Split { reason } | SendError::Refused { reason }) => return Err(reason),
        }
    }
    Err(format!("gave up after {TRIES_MAX} tries: {}", retries.last().map_or("", String::as_str)))
}

fn read(path: &PathBuf) -> Result<Batch, String> {
    let body = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let name = path.to_string_lossy();
    let wrong = |error: prost::DecodeError| format!("{name}: {error}");
    let (signal, items) = if name.ends_with(".traces.pb") {
        let request = ExportTraceServiceRequest::decode(&body[..]).map_err(wrong)?;
        let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        (Signal::Traces, scopes.map(|scope| scope.spans.len()).sum::<usize>())
    } else if name.ends_with(".logs.pb") {
        let request = ExportLogsServiceRequest::decode(&body[..]).map_err(wrong)?;
        let scopes = request.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
        (Signal::Logs, scopes.map(|scope| scope.log_records.len()).sum())
    } else if name.ends_with(".metrics.pb") {
        let request = ExportMetricsServiceRequest::decode(&body[..]).map_err(wrong)?;
        let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
        (Signal::Metrics, scopes.map(|scope| scope.metrics.len()).sum())
    } else {
        return Err(format!("{name}: the name does not end in .traces.pb, .metrics.pb or .logs.pb"));
    };
    Ok(Batch { signal, body: body.into(), items: items as u64 })
}
