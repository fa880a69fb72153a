//! Puts a changed policy file in force, as a whole or not at all.
//!
//! It looks when the folder of the file changes (an editor's rename, or the symlink swap of a
//! ConfigMap), on SIGHUP, and every ten seconds in case that nobody said anything.

use super::force::InForce;
use super::pipeline::Pipeline;
use crate::diagnostic::{Diagnostic, Severity};
use crate::policy::Policy;
use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecursiveMode, Watcher};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Writers often touch a file several times.
const SETTLE: Duration = Duration::from_millis(100);

/// Watches one policy file.
pub struct Reloader {
    path: PathBuf,
    pipeline: Arc<Pipeline>,
    /// What was refused last: it is said once.
    refused: Option<Refused>,
    pub refusals: Arc<AtomicU64>,
}

#[derive(PartialEq, Eq)]
enum Refused {
    /// The file is not there, or not for us.
    Unreadable,
    Text(String),
}

impl Reloader {
    pub fn new(path: PathBuf, pipeline: Arc<Pipeline>) -> Reloader {
        Reloader { path, pipeline, refused: None, refusals: Arc::default() }
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        let (events, mut changes) = mpsc::channel(1);
        let _watcher = watch(&self.path, events);
        let mut hangup = signal(SignalKind::hangup()).expect("the runtime can listen for signals");
        let mut asked = false;
        loop {
            tokio::select! {
                Some(()) = changes.recv() => tokio::time::sleep(SETTLE).await,
                _ = hangup.recv() => asked = true,
                () = tokio::time::sleep_until(Instant::now() + LOOK_AGAIN) => {}
            }
            while changes.try_recv().is_ok() {}
            self.look(std::mem::take(&mut asked)).await;
        }
    }

    /// `asked`: somebody sent SIGHUP and wants to hear what came of it.
    async fn look(&mut self, asked: bool) {
        let file = self.path.display().to_string();
        let text = match tokio::fs::read_to_string(&self.path).await {
            Ok(text) => text,
            Err(error) => {
                // Between the two steps of a swap the file may be missing: the next look finds it.
                if asked || self.refused != Some(Refused::Unreadable) {
                    tracing::warn!(file, %error, "the policy file cannot be read, the old policy stays in force");
                    self.refuse(Refused::Unreadable);
                }
                return;
            }
        };
        let old = self.pipeline.in_force.load_full();
        if text == old.policy.text {
            self.refused = None;
            if asked {
                tracing::info!(file, hash = old.policy.hash, "the policy file has not changed");
            }
        } else if asked || !matches!(&self.refused, Some(Refused::Text(refused)) if *refused == text) {
            self.replace(&old, &file, text);
        }
    }

    fn replace(&mut self, old: &InForce, file: &str, text: String) {
        let mut rules = old.rules.clone();
        let (policy, diagnostics) = Policy::compile(file, &text, old.policy.number + 1, &mut rules);
        let dimensions = &old.questions.dimensions;
        let fresh = policy.map(|policy| InForce::new(policy, dimensions, rules));
        match fresh {
            Some(Ok(fresh)) => {
                let (number, hash, rules) = (fresh.policy.number, fresh.policy.hash.clone(), fresh.policy.rules.len());
                self.pipeline.put_in_force(fresh);
                self.refused = None;
                tracing::info!(file, number, hash, rules, "new policy in force");
            }
            Some(Err(_)) => {
                tracing::warn!(file, "policy reload refused, the old policy stays in force: too many conditions");
                self.refuse(Refused::Text(text));
            }
            None => {
                let errors = count_errors(&diagnostics);
                let first = diagnostics.iter().find(|d| d.severity == Severity::Error).map(Diagnostic::brief);
                let (first, hash) = (first.unwrap_or_default(), &old.policy.hash);
                tracing::warn!(file, errors, first, hash, "policy reload refused, the old policy stays in force");
                self.refuse(Refused::Text(text));
            }
        }
    }

    fn refuse(&mut self, what: Refused) {
        self.refused = Some(what);
        self.refusals.fetch_add(1, Relaxed);
    }
}

fn count_errors(diagnostics: &[Diagnostic]) -> usize {
    diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
}

/// Reading the file is an event as well: answering that would be reading it for ever.
fn is_read(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

/// The file itself, or the link that a ConfigMap's volume swaps; other files in the folder may be busy.
fn concerns(event: &Event, name: Option<&OsStr>) -> bool {
    let is_ours = |path: &PathBuf| path.file_name() == name || path.file_name() == Some(OsStr::new("..data"));
    event.paths.is_empty() || event.paths.iter().any(is_ours)
}

/// Tells of changes in the file's folder; without a watcher the look every ten seconds remains.
fn watch(path: &Path, events: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().map(ToOwned::to_owned);
    let tell = move |event: notify::Result<Event>| {
        if event.is_ok_and(|event| is_read(event.kind) || !concerns(&event, name.as_deref())) {
            return;
        }
        // A full channel says already that there is something to look at.
        let _ = events.try_send(());
    };
    let watcher = notify::recommended_watcher(tell).and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    watcher.inspect_err(|error| tracing::warn!(%error, "cannot watch the policy's folder, looking every 10 s")).ok()
}
