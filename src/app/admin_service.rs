//! Answers what people ask the running process: metrics, verdicts, traces, and the demo's view.

use super::exposition::{Snapshot, write_page};
use super::reload::Reloader;
use crate::admin::{AdminApi, Answer, Seen};
use crate::otlp::spans;
use crate::pipeline::Pipeline;
use crate::pipeline::active_policy::ActivePolicy;
use crate::receive::StatsReader;
use crate::ring::index::{State, TraceEntry};
use crate::ring::wheel::{TICK_MS, Tick};
use crate::shard::Why;
use crate::shard::verdict_cache::Remembered;
use crate::store::{Store, StoredTrace};
use crate::trace::{Decision, RuleId, TraceId, Verdict};
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Has access to all that can be asked about.
pub struct AdminService {
    pub pipeline: Arc<Pipeline>,
    pub receiver: StatsReader,
    /// The local store, if there is one.
    pub store: Option<PathBuf>,
    pub ready: AtomicBool,
    /// Watches the policy's file; none: the policy is built in.
    pub reloader: Option<Arc<Reloader>>,
}

impl AdminService {
    /// Everything that is counted, at one moment.
    pub fn snapshot(&self) -> Snapshot {
        self.pipeline.balance(|intake, shards| {
            let limits = self.pipeline.limits.lock().expect("no code panics under this lock").counts();
            // After the counts: a rule of a new policy may be in them already, and names only grow.
            let active_policy = self.pipeline.active_policy.load_full();
            Snapshot {
                intake,
                shards,
                limits,
                services: self.pipeline.services.names(),
                active_policy,
                sinks: self.pipeline.delivery.snapshot(),
                queue: self.pipeline.delivery.holds(),
                receiver: self.receiver.read(),
                policy_refusals: self.reloader.as_ref().map_or(0, |reloader| reloader.refusals()),
                policy_set_aside: self.is_set_aside(),
            }
        })
    }

    fn is_set_aside(&self) -> bool {
        self.reloader.as_ref().is_some_and(|reloader| reloader.is_set_aside())
    }

    fn stored(&self, id: TraceId) -> Option<(Store, StoredTrace)> {
        let path = self.store.as_ref().filter(|path| path.exists())?;
        let found = Store::open_read(path).and_then(|store| Ok(store.trace(id)?.map(|trace| (store, trace))));
        found.inspect_err(|error| tracing::warn!(error, "the store cannot be read")).ok().flatten()
    }

    /// Gives the spans of a stored trace; false if there is none.
    fn give_stored(&self, id: TraceId, give: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<bool> {
        let Some((store, trace)) = self.stored(id) else { return Ok(false) };
        let mut page = store.spans(&trace, None).map_err(io::Error::other)?;
        let is_there = page.is_some();
        while let Some(spans) = page {
            give(&spans.body)?;
            page = store.spans(&trace, Some(&spans)).map_err(io::Error::other)?;
        }
        Ok(is_there)
    }

    /// Shows the spans that the ring holds, a short piece copied under the lock at a time. None if the trace is not
    /// there, or has left meanwhile.
    fn look_in_ring(&self, id: TraceId, mut show: impl FnMut(Vec<u8>)) -> Option<()> {
        let mut page = self.pipeline.look(id, |shard| shard.page_of(id, None))?;
        loop {
            show(std::mem::take(&mut page.body));
            if page.is_last() {
                return Some(());
            }
            page = self.pipeline.look(id, |shard| shard.page_of(id, Some(&page)))?;
        }
    }

    /// All spans that the ring holds: no more than a trace may have there. Whoever asks for one that leaves is better
    /// served by the store.
    fn in_ring(&self, id: TraceId) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        self.look_in_ring(id, |mut spans| body.append(&mut spans))?;
        Some(body)
    }

    /// The ring has nothing of it but what came after it had been kept and had left.
    fn is_late_part(&self, id: TraceId) -> bool {
        self.pipeline.look(id, |shard| matches!(shard.why(id), Why::InRing(entry) if entry.recalled))
    }

    /// What the shard knows, and the spans that it holds.
    fn in_shard(&self, id: TraceId) -> Option<Answer> {
        let active_policy = self.pipeline.active_policy.load();
        let now = (self.pipeline.now_ms() / TICK_MS) as Tick;
        let mut answer = self.pipeline.look(id, |shard| match shard.why(id) {
            Why::InRing(entry) => Some(describe_entry(entry, &active_policy, now)),
            Why::Remembered(remembered) => Some(describe_remembered(&remembered, &active_policy, now)),
            Why::Unknown => None,
        })?;
        answer.trace_id = id.to_string();
        if let Some(seen) = &mut answer.seen {
            let entry = self.pipeline.look(id, |shard| match shard.why(id) {
                Why::InRing(entry) => entry.summary.has_entry().then_some(entry.summary.entry.span_id),
                _ => None,
            });
            let mut services = BTreeSet::new();
            let whole = self.look_in_ring(id, |page| {
                spans::add_services(&page, &mut services);
                let found = entry.and_then(|span_id| spans::find(&page, span_id.to_be_bytes()));
                seen.entry = seen.entry.take().or_else(|| found.map(|(service, name)| describe_span(service, &name)));
            });
            if whole.is_some() {
                seen.services = services.into_iter().collect();
            }
        }
        Some(answer)
    }
}

impl AdminApi for AdminService {
    fn is_ready(&self) -> bool {
        self.ready.load(Relaxed)
    }

    fn metrics(&self) -> String {
        let mut page = String::new();
        write_page(&mut page, &self.snapshot(), &self.pipeline).expect("a string takes everything");
        page
    }

    fn policy(&self) -> String {
        let active_policy = self.pipeline.active_policy.load();
        let policy = &active_policy.policy;
        let refused = self.reloader.as_ref().map_or(0, |reloader| reloader.refusals());
        let facts = serde_json::json!({
            "file": policy.file, "number": policy.number, "hash": policy.hash, "refused_reloads": refused,
            "set_aside": self.is_set_aside(), "text": policy.text,
        });
        facts.to_string()
    }

    fn former_policy(&self) -> Option<String> {
        let active_policy = self.pipeline.active_policy.load();
        let former = active_policy.history.newest()?;
        let facts = serde_json::json!({
            "file": active_policy.policy.file, "number": former.number, "hash": former.hash, "text": *former.text,
        });
        Some(facts.to_string())
    }

    fn restore_policy(&self) -> Option<String> {
        self.reloader.as_ref().filter(|reloader| reloader.restore()).map(|_| self.policy())
    }

    fn why(&self, id: TraceId) -> Answer {
        let answer = self.in_shard(id);
        // The store knows more of a kept trace than the memory of verdicts does, or a late part.
        let has_left = answer.as_ref().is_none_or(|answer| answer.seen.is_none()) || self.is_late_part(id);
        let stored = has_left.then(|| self.stored(id)).flatten();
        let stored = stored.map(|(_, stored)| with_verdict_of(answer.as_ref(), describe_stored(&stored)));
        let unknown = || Answer {
            verdict: "unknown".into(),
            note: Some("never seen, or seen so long ago that ring, verdict memory and store have forgotten it".into()),
            ..Answer::default()
        };
        Answer { trace_id: id.to_string(), ..stored.or(answer).unwrap_or_else(unknown) }
    }

    fn trace(&self, id: TraceId, give: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<bool> {
        let is_late_part = self.is_late_part(id);
        if is_late_part && self.give_stored(id, give)? {
            return Ok(true);
        }
        match self.in_ring(id) {
            Some(spans) => give(&spans).map(|()| true),
            None => Ok(!is_late_part && self.give_stored(id, give)?),
        }
    }

    fn keep(&self, id: TraceId) -> bool {
        self.pipeline.keep(id)
    }
}

fn describe_entry(entry: &TraceEntry, active_policy: &ActivePolicy, now: Tick) -> Answer {
    let summary = &entry.summary;
    let ago = |tick: Tick| Some(f64::from(now.saturating_sub(tick)) * TICK_MS as f64 / 1e3);
    let seen = Seen {
        spans: u64::from(summary.spans),
        errors: u64::from(summary.errors),
        duration_ms: summary.duration() as f64 / 1e6,
        envelope_ms: summary.envelope() as f64 / 1e6,
        first_seen_ago_s: ago(entry.first),
        last_seen_ago_s: ago(entry.last),
        ..Seen::default()
    };
    let verdict = match entry.state {
        State::Waiting => "waiting",
        State::Settling => "settling",
        State::Kept => "kept",
        State::Dropped => "dropped",
    };
    let provisional = "provisional: while the trace is in the ring a late span or `POST /keep/{id}` can still keep it";
    Answer {
        verdict: verdict.into(),
        source: Some("ring".into()),
        incomplete: entry.incomplete().map(|why| why.word().into()),
        seen: Some(seen),
        note: (entry.state == State::Dropped).then(|| provisional.into()),
        ..entry.verdict.map(|verdict| describe_verdict(&verdict, active_policy)).unwrap_or_default()
    }
}

fn describe_verdict(verdict: &Verdict, active_policy: &ActivePolicy) -> Answer {
    let known = verdict.threshold.filter(|_| verdict.decision != Decision::DropNone);
    Answer {
        trigger: Some(verdict.trigger.word().into()),
        policy: Some(verdict.policy),
        // What a policy writes has fewer digits.
        share: known.map(|threshold| (threshold.share() * 1e10).round() / 1e10),
        ..describe_rule(verdict.rule, verdict.policy, active_policy)
    }
}

/// What it says in the policy file is known of the version in force alone.
fn describe_rule(rule: RuleId, policy: u32, active_policy: &ActivePolicy) -> Answer {
    let written = active_policy.policy.rules.iter().find(|r| r.id == rule && policy == active_policy.policy.number);
    Answer {
        rule: Some(active_policy.rules.name(rule).to_owned()),
        rule_why: written.and_then(|rule| rule.written.why.clone()),
        ..Answer::default()
    }
}

fn describe_remembered(remembered: &Remembered, active_policy: &ActivePolicy, now: Tick) -> Answer {
    match remembered {
        Remembered::Kept(verdict) => Answer {
            verdict: "kept".into(),
            source: Some("memory".into()),
            note: Some("it has left the ring; what was seen of it went to the sinks".into()),
            ..describe_verdict(verdict, active_policy)
        },
        Remembered::Dropped { rule, trigger, policy, at } => {
            let ago = u64::from(now.saturating_sub(*at)) * TICK_MS / 1000;
            let note = format!(
                "very likely: known by a fingerprint. It left the ring {ago} s ago, and what was seen of it is gone"
            );
            Answer {
                verdict: "dropped".into(),
                source: Some("memory".into()),
                trigger: Some(trigger.word().into()),
                policy: Some(u32::from(*policy)),
                note: Some(note),
                ..describe_rule(*rule, u32::from(*policy), active_policy)
            }
        }
    }
}

/// The store does not know these. The shard may remember another verdict: of what came when the first was
/// forgotten.
fn with_verdict_of(remembered: Option<&Answer>, stored: Answer) -> Answer {
    match remembered.filter(|remembered| remembered.rule == stored.rule) {
        Some(Answer { policy, share, rule_why, .. }) => {
            Answer { policy: *policy, share: *share, rule_why: rule_why.clone(), ..stored }
        }
        None => stored,
    }
}

fn describe_stored(stored: &StoredTrace) -> Answer {
    let row = &stored.row;
    let seen = Seen {
        spans: row.span_count,
        duration_ms: row.duration.as_secs_f64() * 1e3,
        envelope_ms: stored.envelope.as_secs_f64() * 1e3,
        errors: stored.errors,
        services: row.services.clone(),
        entry: Some(format!("{} {:?}", row.service, row.name)),
        ..Seen::default()
    };
    Answer {
        verdict: "kept".into(),
        source: Some("store".into()),
        rule: row.rule.clone(),
        trigger: row.trigger.clone(),
        incomplete: row.incomplete.clone(),
        seen: Some(seen),
        ..Answer::default()
    }
}

fn describe_span(service: Option<String>, name: &str) -> String {
    format!("{} {name:?}", service.as_deref().unwrap_or("(no service)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_trace_is_not_explained_by_the_verdict_of_a_later_part() {
        let stored = || Answer { verdict: "kept".into(), rule: Some("keep-errors".into()), ..Answer::default() };
        let known = |rule: &str| Answer { rule: Some(rule.into()), policy: Some(3), ..Answer::default() };
        assert_eq!(with_verdict_of(Some(&known("keep-errors")), stored()).policy, Some(3));
        assert_eq!(with_verdict_of(Some(&known("otherwise")), stored()).policy, None);
        assert_eq!(with_verdict_of(None, stored()).policy, None);
    }
}
