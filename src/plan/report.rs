//! What a plan says. Reports of several processes add up to one.

use crate::trace::Observed;
use serde::{Deserialize, Serialize};

const DAY_SECONDS: f64 = 86_400.0;
/// A window that is shorter is taken to be as long as this.
const WINDOW_SECONDS_MIN: f64 = 1.0;

/// Of what the policy that was there and the new one each have one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sides<T> {
    pub now: T,
    pub then: T,
}

/// Some traces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    pub traces: u64,
    pub spans: u64,
    /// Of span messages, as OTLP has them on the wire.
    pub bytes: u64,
}

impl Volume {
    pub fn of(observed: &Observed) -> Volume {
        Volume { traces: 1, spans: u64::from(observed.summary.spans), bytes: observed.summary.bytes }
    }

    pub fn add(&mut self, other: &Volume) {
        self.traces += other.traces;
        self.spans += other.spans;
        self.bytes += other.bytes;
    }
}

/// What one policy keeps of a group of traces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptTraces {
    pub traces: u64,
    pub spans: u64,
    pub bytes: u64,
    /// If all days were like the window.
    pub bytes_per_day: u64,
    /// Traces about which it decides, kept or not.
    pub decided: u64,
    /// Traces that a rule matched beyond its limit.
    pub beyond_limit: u64,
}

impl KeptTraces {
    pub fn new(kept: Volume, decided: u64, beyond_limit: u64, seconds: f64) -> KeptTraces {
        let days = seconds.max(WINDOW_SECONDS_MIN) / DAY_SECONDS;
        let bytes_per_day = (kept.bytes as f64 / days).round() as u64;
        let Volume { traces, spans, bytes } = kept;
        KeptTraces { traces, spans, bytes, bytes_per_day, decided, beyond_limit }
    }

    fn add(&mut self, other: &KeptTraces) {
        self.traces += other.traces;
        self.spans += other.spans;
        self.bytes += other.bytes;
        self.bytes_per_day += other.bytes_per_day;
        self.decided += other.decided;
        self.beyond_limit += other.beyond_limit;
    }
}

pub type KeptSides = Sides<KeptTraces>;

/// A rule, or a service: that of the entry span.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRow {
    pub name: String,
    /// Of a rule: the shared limit that it is charged to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_limit: Option<String>,
    pub now: KeptTraces,
    pub then: KeptTraces,
}

impl PlanRow {
    /// The larger of what is kept, for an order in which the loud ones come first.
    pub(super) fn weight(&self) -> u64 {
        self.now.bytes.max(self.then.bytes)
    }
}

/// Traces whose decision is another one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    pub traces: u64,
    pub spans: u64,
    pub bytes: u64,
    pub examples: Vec<String>,
}

impl Moved {
    fn add(&mut self, other: &Moved) {
        self.traces += other.traces;
        self.spans += other.spans;
        self.bytes += other.bytes;
        add_examples(&mut self.examples, &other.examples);
    }
}

fn add_examples(mine: &mut Vec<String>, others: &[String]) {
    mine.extend_from_slice(others);
    mine.sort();
    mine.dedup();
    mine.truncate(super::EXAMPLES);
}

/// A condition whose traces must not be dropped, and those that are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateRow {
    pub condition: String,
    pub dropped: u64,
    pub examples: Vec<String>,
}

/// The traffic that was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanWindow {
    pub seconds: f64,
    pub traces: u64,
    pub spans: u64,
    pub bytes: u64,
}

/// Traces that were there and could not be judged like the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Still waiting for their last spans.
    pub waiting: u64,
    /// Late parts of traces that have left.
    pub parts: u64,
    /// Beyond the bound on traces of a plan.
    pub beyond: u64,
    /// Not left out, but taken to be inside every limit: too many waited for their turn.
    pub unordered: u64,
}

/// What two policies do with the same traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanReport {
    /// Their hashes.
    pub policies: Sides<String>,
    pub window: PlanWindow,
    pub total: KeptSides,
    pub rules: Vec<PlanRow>,
    pub services: Vec<PlanRow>,
    pub newly_kept: Moved,
    pub newly_dropped: Moved,
    /// Traces of which spans came after the verdict.
    pub late: Sides<u64>,
    pub gates: Vec<GateRow>,
    pub left_out: LeftOut,
    /// What the reader should know about it.
    pub warnings: Vec<String>,
}

impl PlanReport {
    /// Adds what another process found. The windows lie beside each other, so what they have in a day adds up.
    pub fn add(&mut self, other: &PlanReport) {
        self.window.seconds = self.window.seconds.max(other.window.seconds);
        self.window.traces += other.window.traces;
        self.window.spans += other.window.spans;
        self.window.bytes += other.window.bytes;
        self.total.now.add(&other.total.now);
        self.total.then.add(&other.total.then);
        add_rows(&mut self.rules, &other.rules);
        add_rows(&mut self.services, &other.services);
        self.newly_kept.add(&other.newly_kept);
        self.newly_dropped.add(&other.newly_dropped);
        self.late.now += other.late.now;
        self.late.then += other.late.then;
        for (mine, other) in self.gates.iter_mut().zip(&other.gates) {
            mine.dropped += other.dropped;
            add_examples(&mut mine.examples, &other.examples);
        }
        self.left_out.waiting += other.left_out.waiting;
        self.left_out.parts += other.left_out.parts;
        self.left_out.beyond += other.left_out.beyond;
        self.left_out.unordered += other.left_out.unordered;
        if self.policies.now != other.policies.now {
            self.warnings.push("the processes do not have the same policy in force".to_owned());
        }
        self.warnings.extend_from_slice(&other.warnings);
    }
}

fn add_rows(mine: &mut Vec<PlanRow>, others: &[PlanRow]) {
    for other in others {
        match mine.iter_mut().find(|row| row.name == other.name) {
            Some(row) => {
                row.now.add(&other.now);
                row.then.add(&other.then);
            }
            None => mine.push(other.clone()),
        }
    }
}
