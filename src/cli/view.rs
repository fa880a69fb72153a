//! Fills the demo's view from the running process.

use crate::app::admin_service::AdminService;
use crate::app::exposition::Snapshot;
use crate::demo::{KeptView, ListenerView, OperationView, RingView, RuleView, SinkView, View};
use crate::measure::OperationRow;
use crate::receive::LocalAddrs;
use crate::store::{Store, TraceFilter};
use crate::trace::Signal;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rates are over this long.
const RATE_OVER: Duration = Duration::from_secs(5);
const KEPT_SHOWN: usize = 5;

/// Looks at the process again and again, and remembers what rates need.
pub(super) struct Viewer {
    admin_service: Arc<AdminService>,
    listeners: Vec<ListenerView>,
    started: Instant,
    received: VecDeque<(Instant, u64)>,
}

impl Viewer {
    pub fn new(admin_service: Arc<AdminService>, addresses: LocalAddrs) -> Viewer {
        let named = [("gRPC", addresses.grpc), ("HTTP", addresses.http)];
        let listeners = named.into_iter().filter_map(|(protocol, address)| {
            Some(ListenerView { protocol, endpoint: format!("http://{}", address?) })
        });
        Viewer { admin_service, listeners: listeners.collect(), started: Instant::now(), received: VecDeque::new() }
    }

    pub fn look(&mut self) -> View {
        let snapshot = self.admin_service.snapshot();
        let shards = &snapshot.shards;
        let spans = snapshot.intake.received[Signal::Traces as usize];
        View {
            listeners: self.listeners.clone(),
            uptime: self.started.elapsed(),
            spans_per_second: self.rate(spans),
            spans,
            ring: RingView {
                bytes_used: shards.ring_used,
                bytes: shards.ring_bytes,
                reaches_back: Duration::from_millis(shards.reach_ms),
                traces: shards.traces,
            },
            rules: self.rules(&snapshot),
            operations: self.operations(),
            sinks: snapshot
                .sinks
                .iter()
                .filter(|row| row.signal == Signal::Traces)
                .map(|row| SinkView {
                    name: row.sink.clone(),
                    delivered: row.tally.delivered,
                    queued: row.tally.queued,
                    discarded: crate::deliver::Discard::ALL.into_iter().map(|why| row.tally.discarded(why)).sum(),
                })
                .collect(),
            store: self.store(),
            kept: self.kept(),
        }
    }

    fn rate(&mut self, spans: u64) -> f64 {
        let now = Instant::now();
        self.received.push_back((now, spans));
        while self.received.len() > 2 && now - self.received[1].0 >= RATE_OVER {
            self.received.pop_front();
        }
        let (then, before) = self.received[0];
        let seconds = (now - then).as_secs_f64();
        if seconds > 0.0 { (spans - before) as f64 / seconds } else { 0.0 }
    }

    /// By first verdict, in the order of the policy.
    fn rules(&self, snapshot: &Snapshot) -> Vec<RuleView> {
        let verdicts = &snapshot.shards.counts.verdicts;
        let active_policy = &snapshot.active_policy;
        let ids = active_policy.policy.rules.iter().map(|rule| rule.id).chain([crate::trace::RuleId::OTHERWISE]);
        let count = |id, keep| verdicts.iter().filter(|(k, _)| k.rule == id && k.keep == keep).map(|(_, n)| n).sum();
        ids.map(|id| RuleView {
            name: active_policy.rules.name(id).to_owned(),
            kept: count(id, true),
            dropped: count(id, false),
        })
        .collect()
    }

    fn operations(&self) -> Vec<OperationView> {
        let Some(meter) = &self.admin_service.pipeline.meter else { return Vec::new() };
        let rows = meter.operations(self.admin_service.pipeline.now_ms());
        rows.into_iter().filter_map(operation).collect()
    }

    fn store(&self) -> String {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        self.admin_service.store.as_ref().map_or_else(String::new, |path| shell_word(path, home.as_deref()))
    }

    fn kept(&self) -> Vec<KeptView> {
        let Some(path) = self.admin_service.store.as_ref().filter(|path| path.exists()) else { return Vec::new() };
        let filter = TraceFilter { limit: KEPT_SHOWN, ..TraceFilter::default() };
        // Being written for the first time, or away: the view is drawn without it.
        let rows = Store::open_read(path).and_then(|store| store.traces(&filter)).unwrap_or_default();
        rows.into_iter()
            .map(|row| KeptView {
                id: row.trace_id,
                rule: row.rule.unwrap_or_default(),
                duration: row.duration,
                entry: format!("{} {}", row.service, row.name),
            })
            .collect()
    }
}

/// A path as one types it: short where it is in the home folder, in quotes where it needs them.
fn shell_word(path: &Path, home: Option<&Path>) -> String {
    let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_'));
    let whole = path.display().to_string();
    match home.and_then(|home| path.strip_prefix(home).ok()).map(|rest| rest.display().to_string()) {
        Some(rest) if is_plain(&rest) => format!("~/{rest}"),
        _ if is_plain(&whole) => whole,
        _ => format!("'{}'", whole.replace('\'', r"'\''")),
    }
}

fn operation(row: OperationRow) -> Option<OperationView> {
    let latency = row.latency?;
    Some(OperationView {
        service: row.service,
        name: row.name,
        per_second: row.rate,
        errors: row.errors as f64 / row.calls.max(1) as f64,
        p50: Duration::from_nanos(latency.p50),
        p90: Duration::from_nanos(latency.p90),
        p99: Duration::from_nanos(latency.p99),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_can_be_typed_as_it_is_shown() {
        let shown = |path: &str| shell_word(Path::new(path), Some(Path::new("/home/ada")));
        assert_eq!(shown("/home/ada/.local/share/tailkeep/demo.db"), "~/.local/share/tailkeep/demo.db");
        assert_eq!(shown("/data/demo.db"), "/data/demo.db");
        assert_eq!(shown("/home/ada/My data/demo.db"), "'/home/ada/My data/demo.db'");
        assert_eq!(shown("/data/ada's/demo.db"), r"'/data/ada'\''s/demo.db'");
    }
}
