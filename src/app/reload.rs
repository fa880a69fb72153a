//! Puts a changed policy file in force, as a whole or not at all.
//!
//! SIGHUP makes it look at once, and say what it found. Whoever finds that a new policy was a mistake can have the one
//! before it, which the process remembers.

use super::followed_file::FollowedFile;
use crate::diagnostic::{Diagnostic, Severity};
use crate::pipeline::Pipeline;
use crate::pipeline::active_policy::ActivePolicy;
use crate::pipeline::shadow_policy::ShadowPolicy;
use crate::policy::{self, Change, Policy};
use crate::scan::answer::TooMany;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::signal::unix::{SignalKind, signal};

/// Answers SIGHUP where the policy is built in: unheard, it would end the process.
pub async fn nothing_to_reload() {
    let mut hangup = signal(SignalKind::hangup()).expect("the runtime can listen for signals");
    while hangup.recv().await.is_some() {
        tracing::info!("the policy is built in: there is nothing to reload; name a file with `policy:`");
    }
}

/// Watches one policy file, and can put the policy before it in force again.
///
/// The file is the truth, and one exception is made: a policy that somebody set aside by bringing back the previous one
/// is not taken from the file again, until the file has another one or SIGHUP asks for it.
pub struct Reloader {
    path: PathBuf,
    pipeline: Arc<Pipeline>,
    /// Locked because whoever asks for the previous policy shall not wait for a disk that the watcher waits for.
    state: Mutex<ReloadState>,
}

#[derive(Default)]
struct ReloadState {
    /// What was refused last: it is said once.
    refused: Option<Refused>,
    refusals: u64,
    /// The text of the file from which somebody went back.
    set_aside: Option<String>,
}

#[derive(PartialEq, Eq)]
enum Refused {
    /// The file is not there, or not for us.
    Unreadable,
    Text(String),
}

impl Reloader {
    pub fn new(path: PathBuf, pipeline: Arc<Pipeline>) -> Reloader {
        Reloader { path, pipeline, state: Mutex::default() }
    }

    /// Reloads that were refused.
    pub fn refusals(&self) -> u64 {
        self.state().refusals
    }

    /// The policy in force is an earlier one than the file's.
    pub fn is_set_aside(&self) -> bool {
        self.state().set_aside.is_some()
    }

    fn state(&self) -> MutexGuard<'_, ReloadState> {
        self.state.lock().expect("no code panics under this lock")
    }

    /// Runs until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let mut file = FollowedFile::new(self.path.clone());
        loop {
            let (text, asked) = file.next().await;
            self.look(text, asked);
        }
    }

    /// `asked`: somebody sent SIGHUP and wants to hear what came of it.
    fn look(&self, text: io::Result<String>, asked: bool) {
        let (file, mut state) = (self.path.display().to_string(), self.state());
        let _turn = self.pipeline.change_policy();
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                // Between the two steps of a swap the file may be missing: the next look finds it.
                if asked || state.refused != Some(Refused::Unreadable) {
                    tracing::warn!(file, %error, "the policy file cannot be read, the old policy stays in force");
                    state.refuse(Refused::Unreadable);
                }
                return;
            }
        };
        let old = self.pipeline.active_policy.load_full();
        if text == old.policy.text {
            (state.refused, state.set_aside) = (None, None);
            if asked {
                tracing::info!(file, hash = old.policy.hash, "the policy file has not changed");
            }
        } else if asked {
            self.replace(&mut state, &old, &file, text);
        } else if state.set_aside.as_ref() == Some(&text) {
            let hash = &old.policy.hash;
            tracing::warn!(
                file,
                hash,
                "the policy file still has the policy that was set aside, send SIGHUP to take it"
            );
        } else if !matches!(&state.refused, Some(Refused::Text(refused)) if *refused == text) {
            self.replace(&mut state, &old, &file, text);
        }
    }

    fn replace(&self, state: &mut ReloadState, old: &ActivePolicy, file: &str, text: String) {
        let (fresh, diagnostics) = prepare(old, &text);
        match fresh {
            Some(Ok(mut fresh)) => {
                fresh.history = old.history.followed_by(&old.policy);
                super::warn_of(&diagnostics);
                say_what_changed(&old.policy, &fresh.policy);
                warn_of_routes(&self.pipeline, &fresh.policy);
                self.pipeline.activate(fresh);
                (state.refused, state.set_aside) = (None, None);
            }
            Some(Err(_)) => {
                tracing::warn!(file, "policy reload refused, the old policy stays in force: too many conditions");
                state.refuse(Refused::Text(text));
            }
            None => {
                let errors = count_errors(&diagnostics);
                let first = diagnostics.iter().find(|d| d.severity == Severity::Error).map(Diagnostic::brief);
                let (first, hash) = (first.unwrap_or_default(), &old.policy.hash);
                tracing::warn!(file, errors, first, hash, "policy reload refused, the old policy stays in force");
                state.refuse(Refused::Text(text));
            }
        }
    }

    /// Puts the policy that was in force before the present one in force again, and sets the file's policy aside. Asked
    /// again it goes one further back. False if there is none.
    pub fn restore(&self) -> bool {
        let mut state = self.state();
        let _turn = self.pipeline.change_policy();
        let old = self.pipeline.active_policy.load_full();
        let Some(former) = old.history.newest() else { return false };
        // It was in force, so it can be again.
        let (Some(Ok(mut fresh)), _) = prepare(&old, &former.text) else { return false };
        fresh.history = old.history.without_newest();
        let (file, number, hash) = (&old.policy.file, fresh.policy.number, fresh.policy.hash.clone());
        let (as_number, instead_of) = (former.number, &old.policy.hash);
        tracing::warn!(
            file,
            number,
            hash,
            as_number,
            instead_of,
            "a former policy is in force again: the file's is set aside until the file changes, SIGHUP or a restart"
        );
        warn_of_routes(&self.pipeline, &fresh.policy);
        state.set_aside.get_or_insert_with(|| old.policy.text.clone());
        self.pipeline.activate(fresh);
        true
    }
}

impl ReloadState {
    fn refuse(&mut self, what: Refused) {
        self.refused = Some(what);
        self.refusals += 1;
    }
}

type Prepared = (Option<Result<ActivePolicy, TooMany>>, Vec<Diagnostic>);

/// The policy in `text`, ready to follow `old`, with the candidate that is beside it.
fn prepare(old: &ActivePolicy, text: &str) -> Prepared {
    let mut rules = old.rules.clone();
    let (policy, diagnostics) = Policy::compile(&old.policy.file, text, old.policy.number + 1, &mut rules);
    let ready = policy.map(|policy| {
        let shadow = old.shadow.as_ref().and_then(|shadow| beside(&policy, &shadow.policy));
        old.successor(policy, shadow, rules)
    });
    (ready, diagnostics)
}

/// The same candidate, beside another policy: it counts anew.
fn beside(policy: &Policy, shadow: &Policy) -> Option<ShadowPolicy> {
    let compiled = ShadowPolicy::compile(policy, &shadow.file, &shadow.text);
    compiled.inspect_err(|problem| tracing::warn!(problem, "the shadow policy cannot judge beside the new one")).ok()
}

/// A policy can be valid and a disaster: then it is a warning, which says what brings the old one back.
fn say_what_changed(old: &Policy, new: &Policy) {
    let change = Change::between(old, new);
    let (file, number, rules) = (&new.file, new.number, new.rules.len());
    let (hash, before) = (&new.hash, &old.hash);
    let [gone, added, changed] = [&change.gone, &change.new, &change.changed].map(|names| policy::listed(names));
    match change.magnitude() {
        None => tracing::info!(file, number, hash, before, rules, gone, new = added, changed, "new policy in force"),
        Some(kept) => tracing::warn!(
            file,
            number,
            hash,
            before,
            rules,
            kept,
            of = policy::listed(&change.effects),
            gone,
            new = added,
            changed,
            "new policy in force that keeps much more or less, `tailkeep policy restore` brings the old one back"
        ),
    }
}

/// The sinks are those of the start, and a policy can take away what their `rules` name.
pub(super) fn warn_of_routes(pipeline: &Pipeline, policy: &Policy) {
    let delivery = &pipeline.delivery;
    let gone: Vec<String> = delivery.routed_rules().into_iter().filter(|rule| !policy.has_rule(rule)).collect();
    if !gone.is_empty() {
        let rules = policy::listed(&gone);
        tracing::warn!(rules, "sinks name rules that the policy does not have: they get no traces by them");
    }
    let nowhere: Vec<String> =
        policy.keeping_rules().filter(|rule| !delivery.takes_of_rule(rule)).map(str::to_owned).collect();
    if !nowhere.is_empty() {
        let rules = policy::listed(&nowhere);
        tracing::warn!(rules, "no sink takes the traces of these rules of the policy: name them in `rules` of a sink");
    }
}

fn count_errors(diagnostics: &[Diagnostic]) -> usize {
    diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
}
