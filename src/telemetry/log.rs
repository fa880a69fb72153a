//! The log. A thread of its own writes it: a reader of standard error that is slow, or gone, holds up and ends
//! nothing but the lines.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::panic::{self, PanicHookInfo};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// How log lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Bytes of lines that wait for their reader. Lines beyond are lost, and counted.
const WAITING_MAX: usize = 1 << 20;
/// The end waits so long for whoever reads the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);
const STACK: usize = 64 << 10;

static LINES: LineQueue = LineQueue::new();
static STARTED: AtomicBool = AtomicBool::new(false);

/// Sends the log to standard error, panics too. `filter` is a level (`info`) or directives
/// (`tailkeep=debug,h2=warn`).
///
/// # Errors
/// When the filter cannot be read, or there is no thread to be had.
pub fn start_log(filter: &str, format: LogFormat) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("--log {filter}: {error}"))?;
    let writer = thread::Builder::new().name("log".to_owned()).stack_size(STACK);
    let started = writer.spawn(|| LINES.write_to(&mut io::stderr()));
    started.map_err(|error| format!("cannot start a thread for the log: {error}"))?;
    STARTED.store(true, Relaxed);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| LineWriter);
    match format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// The usual hook writes to standard error itself, and waits for its reader.
fn log_panic(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text");
    let at = info.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(panic = text, at, thread = thread::current().name(), "a defect of tailkeep: please report it");
}

/// Lines that nobody read in time, or that could not be written.
pub fn lines_lost() -> u64 {
    LINES.lost.load(Relaxed)
}

/// Writes a text for people to standard error, behind the log. A reader that is gone or slow is not waited for.
pub fn say(text: &str) {
    if STARTED.load(Relaxed) {
        LINES.push(text.as_bytes());
    } else {
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

/// For the end of the process: waits a moment until what was logged has been written.
pub fn flush() {
    if STARTED.load(Relaxed) {
        LINES.flush(LAST_LINES);
    }
}

/// What `tracing-subscriber` writes a line to, in one call.
struct LineWriter;

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LINES.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines on their way to the thread that writes them.
struct LineQueue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    lost: AtomicU64,
}

struct Waiting {
    lines: VecDeque<Box<[u8]>>,
    bytes: usize,
    is_writing: bool,
}

impl LineQueue {
    const fn new() -> LineQueue {
        let waiting = Waiting { lines: VecDeque::new(), bytes: 0, is_writing: false };
        LineQueue { waiting: Mutex::new(waiting), changed: Condvar::new(), lost: AtomicU64::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never waits for the reader.
    fn push(&self, line: &[u8]) {
        let mut waiting = self.lock();
        if waiting.bytes + line.len() > WAITING_MAX {
            self.lost.fetch_add(1, Relaxed);
            return;
        }
        waiting.bytes += line.len();
        waiting.lines.push_back(line.into());
        self.changed.notify_all();
    }

    fn write_to(&self, out: &mut impl Write) -> ! {
        loop {
            self.write_next(out);
        }
    }

    fn write_next(&self, out: &mut impl Write) {
        let waiting = self.lock();
        let mut waiting = self
            .changed
            .wait_while(waiting, |waiting| waiting.lines.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        let Some(line) = waiting.lines.pop_front() else { return };
        waiting.is_writing = true;
        drop(waiting);
        if out.write_all(&line).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
        let mut waiting = self.lock();
        waiting.bytes -= line.len();
        waiting.is_writing = false;
        self.changed.notify_all();
    }

    fn flush(&self, limit: Duration) {
        let busy = |waiting: &mut Waiting| waiting.is_writing || !waiting.lines.is_empty();
        drop(self.changed.wait_timeout_while(self.lock(), limit, busy));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Somebody who reads nothing: a line is all that fits.
    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_come_out_in_order() {
        let (lines, mut out) = (LineQueue::new(), Vec::new());
        ["a\n", "b\n", "c\n"].iter().for_each(|line| lines.push(line.as_bytes()));
        (0..3).for_each(|_| lines.write_next(&mut out));
        lines.flush(Duration::MAX);
        assert_eq!((out.as_slice(), lines.lost.load(Relaxed)), (&b"a\nb\nc\n"[..], 0));
    }

    #[test]
    fn what_nobody_reads_is_bounded_and_counted() {
        let lines = LineQueue::new();
        let line = [b'x'; 1000];
        (0..5000).for_each(|_| lines.push(&line));
        let waiting = lines.lock().lines.len() as u64;
        assert_eq!(waiting, (WAITING_MAX / line.len()) as u64);
        assert_eq!(lines.lost.load(Relaxed), 5000 - waiting);
        lines.flush(Duration::ZERO);
        lines.write_next(&mut io::sink());
        lines.push(&line);
        assert_eq!(lines.lost.load(Relaxed), 5000 - waiting, "there is room again");
    }

    #[test]
    fn a_reader_that_is_gone_costs_the_lines() {
        let lines = LineQueue::new();
        lines.push(b"a\n");
        lines.write_next(&mut Gone);
        assert_eq!((lines.lost.load(Relaxed), lines.lock().bytes), (1, 0));
    }
}
