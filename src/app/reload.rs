//! Puts a changed policy file in force, as a whole or not at all.
//!
//! It looks twice a second whether the file is another one: edited, renamed over, or behind a link that
//! a ConfigMap's volume swapped. That costs a system call, works on every file system, and is not
//! disturbed by a busy folder. SIGHUP makes it look at once, and say what it found.

use crate::config::read_text;
use crate::diagnostic::{Diagnostic, Severity};
use crate::pipeline::Pipeline;
use crate::pipeline::active_policy::ActivePolicy;
use crate::policy::Policy;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

const LOOK: Duration = Duration::from_millis(500);

/// What tells one state of the file from another: device, inode, length, and when it changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp([u64; 3], [i64; 4]);

impl Stamp {
    fn of(file: &Metadata) -> Stamp {
        let times = [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()];
        Stamp([file.dev(), file.ino(), file.len()], times)
    }
}

/// Answers SIGHUP where the policy is built in: unheard, it would end the process.
pub async fn nothing_to_reload() {
    let mut hangup = signal(SignalKind::hangup()).expect("the runtime can listen for signals");
    while hangup.recv().await.is_some() {
        tracing::info!("the policy is built in: there is nothing to reload; name a file with `policy:`");
    }
}

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
        let mut hangup = signal(SignalKind::hangup()).expect("the runtime can listen for signals");
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What was read last, and what the look before this one saw. The file may have changed since the
        // start read it: the first look reads it again.
        let (mut read, mut before) = (None, None);
        loop {
            let asked = tokio::select! {
                _ = looks.tick() => false,
                _ = hangup.recv() => true,
            };
            let stamp = tokio::fs::metadata(&self.path).await.ok().map(|file| Stamp::of(&file));
            // A file that is being written is left alone until it stands still.
            let settled = stamp == before && Some(stamp) != read;
            before = stamp;
            if asked || settled {
                read = Some(stamp);
                self.look(asked).await;
            }
        }
    }

    /// `asked`: somebody sent SIGHUP and wants to hear what came of it.
    async fn look(&mut self, asked: bool) {
        let file = self.path.display().to_string();
        let text = match read(self.path.clone()).await {
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
        let old = self.pipeline.active_policy.load_full();
        if text == old.policy.text {
            self.refused = None;
            if asked {
                tracing::info!(file, hash = old.policy.hash, "the policy file has not changed");
            }
        } else if asked || !matches!(&self.refused, Some(Refused::Text(refused)) if *refused == text) {
            self.replace(&old, &file, text);
        }
    }

    fn replace(&mut self, old: &ActivePolicy, file: &str, text: String) {
        let mut rules = old.rules.clone();
        let (policy, diagnostics) = Policy::compile(file, &text, old.policy.number + 1, &mut rules);
        let dimensions = &old.questions.dimensions;
        let fresh = policy.map(|policy| ActivePolicy::new(policy, dimensions, rules));
        match fresh {
            Some(Ok(fresh)) => {
                let (number, hash, rules) = (fresh.policy.number, fresh.policy.hash.clone(), fresh.policy.rules.len());
                super::warn_of(&diagnostics);
                self.pipeline.activate(fresh);
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

async fn read(path: PathBuf) -> io::Result<String> {
    tokio::task::spawn_blocking(move || read_text(&path)).await.map_err(io::Error::other)?
}

fn count_errors(diagnostics: &[Diagnostic]) -> usize {
    diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
}
