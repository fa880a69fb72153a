//! Starts tailkeep on free ports, listens to its log, and ends it with the test.

use super::accounts::{Accounts, Auditor};
use super::grpc::Grpc;
use super::http::{self, Reply};
use super::sink::Sink;
use super::traffic::Trace;
use prost::Message;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tailkeep::trace::Signal;
use tempfile::TempDir;
use tokio::sync::watch;

/// Waits as short as ticks allow; failed and slow traces are kept, all others dropped.
pub const POLICY: &str = "version: 1
wait: { after_root: 200ms, idle: 400ms, longest: 1s, settle: 300ms }
rules:
  - name: keep-errors
    why: somebody was harmed
    when: { error: true }
    keep: all
  - name: keep-slow
    when: { duration: { at_least: 500ms } }
    keep: all
otherwise: { keep: none }
";

/// Longest time that any condition may take to become true: a sink is asked again after up to 30 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until there is an answer.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "did not happen within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The program itself, without arguments.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailkeep"));
    command.env_remove("TAILKEEP_ADMIN_TOKEN").stdin(Stdio::null());
    command
}

/// Files of a process that is about to start. The folder may outlive the process.
pub struct Setup {
    folder: Arc<TempDir>,
    /// None is the built-in one.
    policy: Option<PathBuf>,
    sinks: String,
    settings: String,
    grpc: SocketAddr,
    environment: Vec<(&'static str, String)>,
    /// What `sh` does before it becomes tailkeep.
    shell: Option<&'static str>,
}

impl Setup {
    /// No sinks yet, and [`POLICY`].
    pub fn new() -> Setup {
        Setup::in_folder(Arc::new(TempDir::new().expect("a scratch folder")), POLICY)
    }

    /// Where another process was.
    pub fn in_folder(folder: Arc<TempDir>, policy: &str) -> Setup {
        let grpc = SocketAddr::from(([127, 0, 0, 1], 0));
        let path = folder.path().join("policy.yaml");
        std::fs::write(&path, policy).expect("the folder is writable");
        Setup {
            folder,
            policy: Some(path),
            sinks: String::new(),
            settings: String::new(),
            grpc,
            environment: Vec::new(),
            shell: None,
        }
    }

    pub fn policy(self, text: &str) -> Setup {
        std::fs::write(self.folder.path().join("policy.yaml"), text).expect("the folder is writable");
        self
    }

    /// Another policy file than the one in the folder.
    pub fn policy_file(mut self, path: &Path) -> Setup {
        self.policy = Some(path.to_owned());
        self
    }

    pub fn builtin_policy(mut self) -> Setup {
        self.policy = None;
        self
    }

    /// Lines of the configuration besides listeners, policy and sinks.
    pub fn settings(mut self, lines: &str) -> Setup {
        self.settings.push_str(lines);
        self.settings.push('\n');
        self
    }

    /// A sink, as the configuration writes it.
    pub fn sink(mut self, name: &str, kind: &str) -> Setup {
        self.sinks.push_str(&format!("  - name: {name}\n    {kind}\n"));
        self
    }

    /// An `otlp` sink over gRPC, without compression.
    pub fn otlp(self, name: &str, sink: &Sink) -> Setup {
        let endpoint = sink.endpoint();
        self.sink(name, &format!("otlp: {{ endpoint: '{endpoint}', compression: none }}"))
    }

    pub fn store(self) -> Setup {
        self.sink("here", "store: { path: tailkeep.db, size: 64MiB }")
    }

    /// OTLP/gRPC on this address instead of a free port.
    pub fn grpc(mut self, address: SocketAddr) -> Setup {
        self.grpc = address;
        self
    }

    pub fn environment(mut self, name: &'static str, value: &str) -> Setup {
        self.environment.push((name, value.to_owned()));
        self
    }

    pub fn shell(mut self, commands: &'static str) -> Setup {
        self.shell = Some(commands);
        self
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self) -> PathBuf {
        let sinks = if self.sinks.is_empty() { "sinks: []\n".to_owned() } else { format!("sinks:\n{}", self.sinks) };
        let receive = if self.settings.contains("receive:") {
            String::new()
        } else {
            format!("receive: {{ grpc: '{}', http: '127.0.0.1:0' }}\n", self.grpc)
        };
        let admin = if self.settings.contains("admin:") { "" } else { "admin: { listen: '127.0.0.1:0' }\n" };
        let drain = if self.settings.contains("drain:") { "" } else { "drain: { accept: 0s, deadline: 10s }\n" };
        let policy = self.policy.as_ref().map_or("builtin".into(), |path| path.display().to_string());
        let health = "health: { listen: '127.0.0.1:0' }\n";
        let text = format!("{receive}{admin}{health}{drain}policy: {policy}\n{}{sinks}", self.settings);
        let path = self.folder.path().join("tailkeep.yaml");
        std::fs::write(&path, text).expect("the folder is writable");
        path
    }

    fn command(&self) -> Command {
        let config = self.write();
        let mut command = match self.shell {
            None => program(),
            Some(commands) => {
                let mut shell = Command::new("sh");
                let script = format!("{commands}; exec \"$0\" \"$@\"");
                shell.args(["-c", &script, env!("CARGO_BIN_EXE_tailkeep")]);
                shell
            }
        };
        command.args(["run", "--log-format", "json", "--config"]).arg(config);
        command.envs(self.environment.iter().map(|(name, value)| (*name, value.as_str())));
        command
    }

    /// Starts the process and waits until it is ready.
    pub fn start(self) -> Tailkeep {
        let mut child = self.command().stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let log = Log::follow(child.stderr.take().expect("it is piped"));
        let process = Process { child, log };
        let ports = process.ports();
        eventually("/readyz answers 200", || {
            http::get(ports.health, "/readyz").ok().filter(|reply| reply.status == 200)
        });
        let scrape = move || {
            let page = http::get(ports.health, "/metrics").ok()?;
            assert_eq!(page.status, 200, "/metrics: {}", page.text());
            Some(Accounts::parse(&page.text()))
        };
        let tailkeep = Tailkeep { process, ports, auditor: Auditor::start(scrape), folder: self.folder };
        // However short a test is, its accounts are looked at.
        tailkeep.accounts();
        tailkeep
    }
}

impl Setup {
    /// Starts a process that ends by itself; returns its exit code and what it said.
    pub fn fails(self) -> (Option<i32>, String) {
        let mut child = self.command().stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let log = Log::follow(child.stderr.take().expect("it is piped"));
        let mut process = Process { child, log };
        let status = eventually("it ends by itself", || process.child.try_wait().expect("our child"));
        process.log.thread.take().map(JoinHandle::join).transpose().expect("lines are lines");
        (status.code(), process.log.lines().join("\n"))
    }
}

/// What whoever reads the log does from its next line on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogReader {
    Reads,
    /// Closes the pipe.
    Goes,
    /// Keeps the pipe open and reads no more.
    Stops,
}

/// The lines that a process has logged, as JSON.
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    reader: watch::Sender<LogReader>,
    thread: Option<JoinHandle<()>>,
}

impl Log {
    fn follow(stream: impl std::io::Read + Send + 'static) -> Log {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (reader, mut does) = watch::channel(LogReader::Reads);
        let shared = lines.clone();
        let thread = std::thread::spawn(move || {
            let mut log = BufReader::new(stream).lines();
            while let Some(Ok(line)) = log.next() {
                shared.lock().unwrap().push(line);
                let does_now = *does.borrow_and_update();
                if does_now == LogReader::Stops {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
                    let _ = runtime.block_on(does.changed());
                }
                if does_now != LogReader::Reads {
                    return;
                }
            }
        });
        Log { lines, reader, thread: Some(thread) }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// The fields of the first line with this message.
    fn find(&self, message: &str) -> Option<serde_json::Value> {
        self.lines().iter().find_map(|line| {
            let fields = serde_json::from_str::<serde_json::Value>(line).ok()?.get("fields")?.clone();
            fields["message"].as_str()?.contains(message).then_some(fields)
        })
    }
}

/// A child that dies with its test, and shows its log where the test fails.
struct Process {
    child: Child,
    log: Log,
}

/// Where the process listens.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    pub health: SocketAddr,
    pub admin: SocketAddr,
}

impl Process {
    /// From its first log line.
    fn ports(&self) -> Ports {
        let said = eventually("tailkeep says where it listens", || self.log.find("receiving"));
        let port = |name: &str| said[name].as_str().and_then(|text| text.parse().ok()).expect("an address in the log");
        Ports { grpc: port("grpc"), http: port("http"), health: port("health"), admin: port("admin") }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.log.reader.send_replace(LogReader::Reads);
        if let Some(thread) = self.log.thread.take() {
            let _ = thread.join();
        }
        if std::thread::panicking() {
            self.log.lines().iter().for_each(|line| println!("tailkeep: {line}"));
        }
    }
}

/// A running process whose accounts are audited.
pub struct Tailkeep {
    process: Process,
    pub ports: Ports,
    auditor: Auditor,
    folder: Arc<TempDir>,
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    /// From the signal on.
    pub after: Duration,
    pub log: String,
}

impl Tailkeep {
    /// The accounts now, after an audit of them.
    pub fn accounts(&self) -> Accounts {
        self.auditor.look()
    }

    /// What becomes of whoever reads the log, from its next line on.
    pub fn log_reader(&self, does: LogReader) {
        self.process.log.reader.send_replace(does);
    }

    /// Waits until the accounts say so.
    pub fn wait_for(&self, what: &str, says: impl Fn(&Accounts) -> bool) -> Accounts {
        eventually(what, || Some(self.accounts()).filter(|accounts| says(accounts)))
    }

    /// Sends all requests of a trace, the innermost service first.
    pub fn send(&self, trace: &Trace) {
        self.send_all(std::slice::from_ref(trace));
    }

    /// Sends traces over one gRPC connection.
    pub fn send_all(&self, traces: &[Trace]) {
        let mut grpc = Grpc::connect(self.ports.grpc);
        for request in traces.iter().flat_map(|trace| trace.requests.iter().rev()) {
            let status = grpc.export(Signal::Traces, &request.encode_to_vec());
            assert_eq!(status.code, 0, "{status:?}");
        }
    }

    pub fn ask(&self, path: &str) -> Reply {
        http::get(self.ports.admin, path).expect("the admin listener answers")
    }

    /// What `/why` says of a trace.
    pub fn why(&self, trace: &Trace) -> serde_json::Value {
        self.ask(&format!("/why/{}", trace.hex())).json()
    }

    pub fn wait_for_verdict(&self, trace: &Trace, verdict: &str) -> serde_json::Value {
        let what = format!("the trace is {verdict}");
        eventually(&what, || Some(self.why(trace)).filter(|why| why["verdict"] == verdict))
    }

    /// The fields of a log line with this message, once it is there.
    pub fn wait_for_log(&self, message: &str) -> serde_json::Value {
        eventually(&format!("the log says {message:?}"), || self.process.log.find(message))
    }

    /// All lines so far with this message.
    pub fn logged(&self, message: &str) -> usize {
        self.process.log.lines().iter().filter(|line| line.contains(message)).count()
    }

    pub fn is_alive(&mut self) -> bool {
        matches!(self.process.child.try_wait(), Ok(None))
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A number in KiB from `/proc/PID/status`.
    pub fn memory_kib(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).expect("the kernel says");
        line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.process.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Sends a signal and waits for the end.
    pub fn end(self, signal: &str) -> Ended {
        self.signal(signal);
        self.wait(Instant::now())
    }

    /// Waits for the end of a process that was asked to.
    pub fn wait(mut self, asked: Instant) -> Ended {
        let status = eventually("tailkeep ends", || self.process.child.try_wait().expect("our child"));
        let after = asked.elapsed();
        // Whoever has the other end of its standard error is gone with it.
        self.process.log.reader.send_replace(LogReader::Reads);
        self.process.log.thread.take().map(JoinHandle::join).transpose().expect("lines are lines");
        let looks = self.auditor.finish().unwrap_or_else(|faults| panic!("the accounts did not balance: {faults:#?}"));
        assert!(looks > 0, "the accounts were never read");
        Ended { status, after, log: self.process.log.lines().join("\n") }
    }

    /// Ends as Kubernetes does; everything must have been delivered.
    pub fn stop(self) -> Ended {
        let ended = self.end("TERM");
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert!(!ended.log.contains("\"ERROR\""), "something was lost: {}", ended.log);
        ended
    }

    /// Ends as the kernel does when memory is short; the folder stays.
    pub fn kill(mut self) -> Arc<TempDir> {
        self.process.child.kill().expect("our child");
        let faults = self.auditor.finish();
        assert!(faults.is_ok(), "the accounts did not balance: {faults:#?}");
        self.folder.clone()
    }
}

impl Drop for Tailkeep {
    fn drop(&mut self) {
        let faults = self.auditor.finish().err();
        if !std::thread::panicking() {
            assert!(faults.is_none(), "the accounts did not balance: {faults:#?}");
        }
    }
}
