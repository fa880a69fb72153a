//! Answers what people ask the running process: metrics, verdicts, traces, and the demo's view.

use super::exposition::{Snapshot, write_page};
use super::plan_service::PlanService;
use super::reload::Reloader;
use super::trace_answer::TraceAnswer;
use crate::admin::{AdminApi, Answer, CloseReason, PlanRequest, PlanTurn, SpansSeen};
use crate::pipeline::Pipeline;
use crate::pipeline::shadow_policy::{Difference, KeptVolume, ShadowPolicy};
use crate::prometheus::PageReader;
use crate::receive::StatsReader;
use crate::store::{Store, StoredTrace};
use crate::trace::TraceId;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Has access to all that can be asked about.
pub struct AdminService {
    pub pipeline: Arc<Pipeline>,
    pub receiver: StatsReader,
    /// The local store, if there is one.
    pub store: Option<PathBuf>,
    pub ready: AtomicBool,
    /// Watches the policy's file; none: the policy is built in.
    pub reloader: Option<Arc<Reloader>>,
    /// Connections of both listeners, by [`CloseReason`].
    pub connections_closed: [AtomicU64; CloseReason::ALL.len()],
    pub plans: PlanService,
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
                connections_closed: self.connections_closed.each_ref().map(|count| count.load(Relaxed)),
                plans: self.plans.counts(),
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

    /// What the ring knows of a trace and holds of it, at one moment. Whoever loses it meanwhile looks once more: it has
    /// left then.
    fn in_shard(&self, id: TraceId) -> Option<(Answer, bool)> {
        loop {
            let found = TraceAnswer::of(&self.pipeline, id)?;
            let is_late_part = found.is_late_part;
            if let Some(answer) = found.answer(&self.pipeline) {
                return Some((answer, is_late_part));
            }
        }
    }
}

impl AdminApi for AdminService {
    fn is_ready(&self) -> bool {
        self.ready.load(Relaxed)
    }

    fn metrics(&self, reader: PageReader, mut out: &mut dyn fmt::Write) -> fmt::Result {
        write_page(&mut out, reader, &self.snapshot(), &self.pipeline)
    }

    fn policy(&self) -> String {
        let active_policy = self.pipeline.active_policy.load();
        let policy = &active_policy.policy;
        let refused = self.reloader.as_ref().map_or(0, |reloader| reloader.refusals());
        let shadow = active_policy.shadow.as_ref().map(describe_shadow);
        let facts = serde_json::json!({
            "file": policy.file, "number": policy.number, "hash": policy.hash, "refused_reloads": refused,
            "set_aside": self.is_set_aside(), "text": policy.text, "shadow": shadow,
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

    fn take_plan_turn(&self) -> Option<PlanTurn> {
        self.plans.take_turn()
    }

    fn plan(&self, turn: PlanTurn, request: &PlanRequest) -> Result<String, String> {
        let report = self.plans.plan(turn, &self.pipeline, request)?;
        Ok(serde_json::to_string(&report).expect("plain values"))
    }

    fn traffic(&self, turn: PlanTurn) -> String {
        serde_json::to_string(&self.plans.traffic(turn, &self.pipeline)).expect("plain values")
    }

    fn why(&self, id: TraceId) -> Answer {
        let (answer, is_late_part) = self.in_shard(id).unzip();
        // The store knows more of a kept trace than the memory of verdicts does, or a late part.
        let has_left = is_late_part.unwrap_or_default() || answer.as_ref().is_none_or(|answer| answer.seen.is_none());
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
        let found = TraceAnswer::of(&self.pipeline, id);
        let is_late_part = found.as_ref().is_some_and(|found| found.is_late_part);
        if is_late_part && self.give_stored(id, give)? {
            return Ok(true);
        }
        if found.map_or(Ok(false), |found| found.give_spans(&self.pipeline, give))? {
            return Ok(true);
        }
        Ok(!is_late_part && self.give_stored(id, give)?)
    }

    fn keep(&self, id: TraceId) -> bool {
        self.pipeline.keep(id)
    }

    fn count_closed(&self, why: CloseReason) {
        self.connections_closed[why as usize].fetch_add(1, Relaxed);
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
    let seen = SpansSeen {
        spans: row.span_count,
        duration_ms: row.duration.as_secs_f64() * 1e3,
        envelope_ms: stored.envelope.as_secs_f64() * 1e3,
        errors: stored.errors,
        services: row.services.clone(),
        entry: Some(format!("{} {:?}", row.service, row.name)),
        ..SpansSeen::default()
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

/// What `/policy` says of the candidate.
fn describe_shadow(shadow: &ShadowPolicy) -> serde_json::Value {
    let counts = shadow.counts();
    let volume = |volume: &KeptVolume| serde_json::json!({ "traces": volume.traces, "spans": volume.spans, "bytes": volume.bytes });
    let difference = |difference: &Difference| {
        let mut said = volume(&difference.volume);
        said["examples"] = difference.examples.iter().map(ToString::to_string).collect();
        said
    };
    let named = |(name, kept): (&str, KeptVolume)| {
        let mut said = volume(&kept);
        said["name"] = name.into();
        said
    };
    let rules: Vec<_> = shadow.rules(&counts).map(named).collect();
    serde_json::json!({
        "file": shadow.policy.file, "hash": shadow.policy.hash, "judged": counts.judged,
        "in_force": volume(&counts.in_force), "shadow": volume(&counts.shadow), "rules": rules,
        "newly_kept": difference(&counts.newly_kept), "newly_dropped": difference(&counts.newly_dropped),
    })
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
