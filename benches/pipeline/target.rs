//! A collector under test: its process, its sink, and the passes that load is sent in.

use crate::Failure;
use crate::config::{self, Ports, Purpose};
use crate::load::{Load, SPANS_PER_BLOCK};
use crate::process::Process;
use crate::sender::Sender;
use crate::sink::{Sink, wanted_of};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::time::sleep;

/// A collector must listen this long after its start.
const START: Duration = Duration::from_secs(20);
/// After its start it is left alone this long before its memory is read.
const SETTLE: Duration = Duration::from_secs(3);
/// The last wanted trace must be out this long after the last request: it waits 5 s to decide.
const DELIVERY: Duration = Duration::from_secs(60);
/// After the last wanted trace the rest is decided, and anything unwanted would come.
const QUIET: Duration = Duration::from_secs(3);

pub enum Product {
    Tailkeep,
    Collector { program: PathBuf, caches: bool },
}

impl Product {
    pub fn name(&self) -> &'static str {
        match self {
            Product::Tailkeep => "tailkeep",
            Product::Collector { caches: true, .. } => "collector, decision caches",
            Product::Collector { caches: false, .. } => "collector, no caches",
        }
    }
}

/// How fast a pass is sent.
#[derive(Clone, Copy)]
pub enum Pace {
    FlatOut,
    /// Spans per second.
    Steady(u64),
}

/// What one pass cost.
pub struct Pass {
    pub spans: u64,
    pub seconds: f64,
    pub cpu_seconds: f64,
    /// Requests refused and sent again.
    pub refused: u64,
    /// Traces that had to come out and did.
    pub kept: u64,
}

impl Pass {
    pub fn cpu_seconds_per_million(&self) -> f64 {
        self.cpu_seconds / self.spans as f64 * 1e6
    }

    pub fn spans_per_second(&self) -> f64 {
        self.spans as f64 / self.seconds
    }
}

pub struct Target {
    pub name: &'static str,
    pub process: Process,
    /// Resident bytes before any load.
    pub idle: u64,
    sender: Sender,
    sink: Sink,
    folder: TempDir,
    next_block: u64,
}

impl Target {
    pub async fn start(product: &Product, purpose: Purpose, load: Arc<Load>) -> Result<Target, Failure> {
        let sink = Sink::start().await?;
        let folder = tempfile::tempdir()?;
        let ports = free_ports(sink.port)?;
        let mut process = spawn(product, purpose, &ports, folder.path())?;
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", ports.grpc)).is_err() {
            if let Some(status) = process.ended() {
                return Err(format!("{} ended with {status}{}", product.name(), log_of(&folder)).into());
            }
            if start.elapsed() > START {
                return Err(format!("{} does not listen{}", product.name(), log_of(&folder)).into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        let sender = Sender::connect(ports.grpc, load).await?;
        sleep(SETTLE).await;
        let idle = process.resident()?;
        Ok(Target { name: product.name(), process, idle, sender, sink, folder, next_block: 0 })
    }

    /// Sends at least `spans` and waits until every wanted trace has come out, whole, and nothing else.
    pub async fn pass(&mut self, spans: u64, pace: Pace) -> Result<Pass, Failure> {
        let blocks = self.next_block..self.next_block + spans.div_ceil(SPANS_PER_BLOCK);
        self.next_block = blocks.end;
        let cpu_before = self.process.cpu_seconds()?;
        let sent = match pace {
            Pace::FlatOut => self.sender.flat_out(blocks.clone()).await,
            Pace::Steady(rate) => self.sender.paced(blocks.clone(), rate).await,
        };
        let sent = sent.map_err(|error| self.describe(error))?;
        self.wait_for(wanted_of(blocks.clone()).count() as u64).await;
        let cpu_seconds = self.process.cpu_seconds()? - cpu_before;
        let kept = self.sink.check(blocks.clone()).map_err(|error| self.describe(error))?;
        let spans = (blocks.end - blocks.start) * SPANS_PER_BLOCK;
        Ok(Pass { spans, seconds: sent.seconds, cpu_seconds, refused: sent.refused, kept })
    }

    /// Resident bytes that each of `spans` waiting spans adds.
    pub async fn bytes_per_pending_span(&mut self, spans: u64) -> Result<f64, Failure> {
        let blocks = 0..spans.div_ceil(SPANS_PER_BLOCK);
        let spans = blocks.end * SPANS_PER_BLOCK;
        self.sender.flat_out(blocks).await.map_err(|error| self.describe(error))?;
        sleep(SETTLE).await;
        let grown = self.process.resident()?.saturating_sub(self.idle);
        // A wanted trace that came out would prove that not all spans are waiting.
        self.sink.check(0..0).map_err(|error| self.describe(error))?;
        Ok(grown as f64 / spans as f64)
    }

    async fn wait_for(&self, traces: u64) {
        let start = Instant::now();
        while self.sink.whole() < traces && start.elapsed() < DELIVERY {
            sleep(Duration::from_millis(100)).await;
        }
        sleep(QUIET).await;
    }

    fn describe(&self, error: Failure) -> Failure {
        format!("{}: {error}{}", self.name, log_of(&self.folder)).into()
    }
}

fn spawn(product: &Product, purpose: Purpose, ports: &Ports, folder: &Path) -> Result<Process, Failure> {
    match product {
        Product::Tailkeep => {
            fs::write(folder.join("config.yaml"), config::tailkeep(purpose, ports))?;
            fs::write(folder.join("policy.yaml"), config::tailkeep_policy(purpose))?;
            let program = Path::new(env!("CARGO_BIN_EXE_tailkeep"));
            Process::start(program, &["run", "--config", "config.yaml", "--policy", "policy.yaml"], folder)
        }
        Product::Collector { program, caches } => {
            fs::write(folder.join("config.yaml"), config::collector(purpose, ports, *caches))?;
            Process::start(program, &["--config", "config.yaml"], folder)
        }
    }
}

fn free_ports(sink: u16) -> Result<Ports, Failure> {
    let listeners: Vec<TcpListener> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let port = |number: usize| listeners[number].local_addr().map(|address| address.port());
    Ok(Ports { grpc: port(0)?, http: port(1)?, health: port(2)?, admin: port(3)?, sink })
}

/// The last lines that the collector wrote, to be appended to an error.
fn log_of(folder: &TempDir) -> String {
    let log = fs::read_to_string(folder.path().join("log.txt")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(10)..].iter().map(|line| format!("\n  | {line}")).collect()
}
