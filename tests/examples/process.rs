//! The real program, as a user starts it, with its default ports.

use super::accounts::{Accounts, Auditor};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub const GRPC: u16 = 4317;
pub const HTTP: u16 = 4318;
pub const HEALTH: u16 = 13133;
pub const ADMIN: u16 = 13134;

/// What a process may take to start or to deliver, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until there is an answer.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Where a user's shell stands: the repository, with a home folder of its own.
pub struct Place {
    home: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Place {
        Place { home: tempfile::tempdir().expect("a scratch folder") }
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// What a shell makes of a word: `~` is home, and files that a command writes are there too.
    pub fn expand(&self, word: &str) -> String {
        let home = self.home().display();
        match word {
            "trace.json" => format!("{home}/trace.json"),
            word => word.strip_prefix("~/").map_or(word.to_owned(), |rest| format!("{home}/{rest}")),
        }
    }

    pub fn tailkeep(&self, arguments: &[String]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailkeep"));
        command.args(arguments.iter().map(|word| self.expand(word))).current_dir(env!("CARGO_MANIFEST_DIR"));
        command.env("HOME", self.home()).env_remove("XDG_DATA_HOME").stdin(Stdio::null());
        command
    }

    /// Runs to the end.
    pub fn run(&self, arguments: &[String]) -> Output {
        self.tailkeep(arguments).output().expect("the program starts")
    }
}

/// A tailkeep that goes on running, and whose accounts are audited.
pub struct Running {
    child: Child,
    auditor: Auditor,
    log: PathBuf,
}

impl Running {
    /// Starts it and waits until it is ready. Its ports are those that the documents name: whatever else
    /// uses them must end first.
    pub fn start(place: &Place, arguments: &[String]) -> Running {
        for port in [GRPC, HTTP, HEALTH, ADMIN] {
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            wait_for(&format!("a free port {port}: another process has it"), || TcpListener::bind(address).ok());
        }
        let log = place.home().join("log");
        let output = || std::fs::File::create(&log).expect("a log");
        let file = output();
        let streams = (file.try_clone().expect("a second handle"), file);
        let mut child =
            place.tailkeep(arguments).stdout(streams.0).stderr(streams.1).spawn().expect("the program starts");
        wait_for("readiness", || {
            let ended = child.try_wait().expect("a child");
            if let Some(status) = ended {
                panic!("{status}: {}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            (get(HEALTH, "/readyz")?.0 == 200).then_some(())
        });
        let auditor = Auditor::start(|| Some(Accounts::parse(&get(HEALTH, "/metrics")?.1)));
        Running { child, auditor, log }
    }

    /// The accounts now, after an audit of them.
    pub fn accounts(&self) -> Accounts {
        self.auditor.look()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it as Ctrl-C does. It must end well.
    pub fn stop(mut self) {
        self.accounts();
        self.auditor.finish().unwrap_or_else(|faults| panic!("the accounts do not balance: {faults:#?}"));
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-INT", &id]).status().expect("kill is there");
        assert!(sent.success(), "it still runs: {}", self.log());
        let status = wait_for("the end", || self.child.try_wait().expect("a child"));
        assert!(status.success(), "{status}: {}", self.log());
        assert!(!self.log().contains("ERROR"), "{}", self.log());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After a failed test; else it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status and body of an answer; none where nobody listens.
pub fn get(port: u16, target: &str) -> Option<(u16, String)> {
    ask(port, "GET", target, "", "")
}

pub fn ask(port: u16, method: &str, target: &str, content_type: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time");
    let length = body.len();
    let head = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    let head = format!("{head}content-type: {content_type}\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, if head.contains("chunked") { unchunk(body) } else { body.to_owned() }))
}

fn unchunk(body: &str) -> String {
    let mut out = String::new();
    let mut rest = body;
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
        out.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
        if size == 0 {
            break;
        }
    }
    out
}
