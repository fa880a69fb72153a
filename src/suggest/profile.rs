//! What flows, by the operation at which it enters: how much, how fast, how often it fails, how regularly it comes.
//! Profiles of several processes add up to one.

use super::shape;
use crate::trace::label::may_stand_for_others;
use crate::trace::{Arrivals, Observed};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Operations that are told apart; further ones are one without a name. At most 1 KB each.
const OPERATIONS_MAX: usize = 4096;
/// Moments at which traces began that are held, over all operations. Beyond it nothing looks regular any more.
const MOMENTS_MAX: usize = 200_000;
/// A moment, nanoseconds.
pub(super) const MOMENT: u64 = 5_000_000_000;
const DAY_SECONDS: f64 = 86_400.0;
/// A window that is shorter is taken to be as long as this.
const WINDOW_SECONDS_MIN: f64 = 1.0;
const THRESHOLDS: usize = 37;

/// Durations that a rule may name, from 1 ms to 1000 s, in nanoseconds.
pub(super) fn threshold(number: usize) -> u64 {
    const STEPS: [u64; 6] = [10, 15, 20, 30, 50, 70];
    STEPS[number % STEPS.len()] * 10u64.pow((number / STEPS.len()) as u32) * 100_000
}

/// Traces and bytes of span messages in a day that is like the window.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct DayVolume {
    pub traces: f64,
    pub bytes: f64,
}

impl DayVolume {
    pub(super) fn plus(self, other: DayVolume) -> DayVolume {
        DayVolume { traces: self.traces + other.traces, bytes: self.bytes + other.bytes }
    }

    pub(super) fn times(self, factor: f64) -> DayVolume {
        DayVolume { traces: self.traces * factor, bytes: self.bytes * factor }
    }
}

/// Traces that enter at one operation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OperationProfile {
    pub service: String,
    pub name: String,
    /// A condition on service and name finds these traces and no others.
    pub is_exact: bool,
    /// That were seen.
    pub traces: u64,
    pub failed: DayVolume,
    /// Of those that did not fail, number k: below threshold k, but not below the one before it.
    pub by_duration: Vec<DayVolume>,
    /// The fewest and the most spans of one that did not fail.
    pub spans: [u32; 2],
    /// How many began in each moment, of operations that may be probes.
    pub moments: BTreeMap<u64, u32>,
}

impl OperationProfile {
    /// Of those that did not fail.
    pub(super) fn all(&self) -> DayVolume {
        self.by_duration.iter().copied().fold(DayVolume::default(), DayVolume::plus)
    }

    /// Of these, those that take as long as a threshold or longer.
    pub(super) fn above(&self, number: usize) -> DayVolume {
        self.by_duration.iter().skip(number + 1).copied().fold(DayVolume::default(), DayVolume::plus)
    }

    /// The lowest threshold that no more than a part of them reaches.
    pub(super) fn reached_by(&self, part: f64) -> usize {
        let most = self.all().traces * part;
        (0..THRESHOLDS - 1).find(|&number| self.above(number).traces <= most).unwrap_or(THRESHOLDS - 1)
    }

    fn add(&mut self, other: &OperationProfile) {
        self.traces += other.traces;
        self.failed = self.failed.plus(other.failed);
        let both = self.by_duration.iter_mut().zip(&other.by_duration);
        both.for_each(|(mine, other)| *mine = mine.plus(*other));
        self.spans = [self.spans[0].min(other.spans[0]), self.spans[1].max(other.spans[1])];
        for (moment, count) in &other.moments {
            *self.moments.entry(*moment).or_default() += count;
        }
    }
}

/// The traffic of a window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrafficProfile {
    pub seconds: f64,
    pub traces: u64,
    pub operations: Vec<OperationProfile>,
}

impl TrafficProfile {
    /// Adds what another process saw at the same time.
    pub fn add(&mut self, other: TrafficProfile) {
        self.seconds = self.seconds.max(other.seconds);
        self.traces += other.traces;
        for operation in other.operations {
            let is_same = |mine: &&mut OperationProfile| {
                (&mine.service, &mine.name, mine.is_exact) == (&operation.service, &operation.name, operation.is_exact)
            };
            match self.operations.iter_mut().find(is_same) {
                Some(mine) => mine.add(&operation),
                None => self.operations.push(operation),
            }
        }
    }
}

/// Takes traces in, in any order.
#[derive(Default)]
pub struct Profiler {
    /// By the numbers of service and name; those of 0 and 0 are all that have no name.
    operations: HashMap<(u32, u32), OperationProfile>,
    moments: usize,
    first_ms: Option<u64>,
    last_ms: u64,
}

impl Profiler {
    pub fn take(&mut self, observed: &Observed) {
        let Arrivals { first, last, .. } = observed.arrivals;
        self.first_ms = Some(self.first_ms.map_or(first, |known| known.min(first)));
        self.last_ms = self.last_ms.max(last);
        let has_name = observed.summary.has_entry() && observed.service != 0 && observed.name != 0;
        let key = if has_name { (observed.service, observed.name) } else { (0, 0) };
        let has_room = self.operations.len() < OPERATIONS_MAX || self.operations.contains_key(&key);
        let operation =
            self.operations.entry(if has_room { key } else { (0, 0) }).or_insert_with(|| OperationProfile {
                by_duration: vec![DayVolume::default(); THRESHOLDS],
                spans: [u32::MAX, 0],
                ..OperationProfile::default()
            });
        operation.traces += 1;
        let summary = &observed.summary_by(0);
        let volume = DayVolume { traces: 1.0, bytes: summary.bytes as f64 };
        if summary.error() {
            operation.failed = operation.failed.plus(volume);
        } else {
            let number = (0..THRESHOLDS - 1).find(|&number| summary.duration() < threshold(number));
            let of_duration = &mut operation.by_duration[number.unwrap_or(THRESHOLDS - 1)];
            *of_duration = of_duration.plus(volume);
            operation.spans = [operation.spans[0].min(summary.spans), operation.spans[1].max(summary.spans)];
        }
        let moment = summary.entry.start / MOMENT;
        if self.moments < MOMENTS_MAX || operation.moments.contains_key(&moment) {
            let count = operation.moments.entry(moment).or_default();
            self.moments += usize::from(*count == 0);
            *count += 1;
        }
    }

    /// `services` and `names` are by number.
    pub fn finish(self, services: &[Arc<str>], names: &[Arc<str>]) -> TrafficProfile {
        let seconds = self.first_ms.map_or(0.0, |first| self.last_ms.saturating_sub(first) as f64 / 1e3);
        let in_a_day = DAY_SECONDS / seconds.max(WINDOW_SECONDS_MIN);
        let text =
            |names: &[Arc<str>], number: u32| names.get(number as usize).map_or(String::new(), |n| n.to_string());
        let operations = self.operations.into_iter().map(|(key, operation)| {
            let (service, name) = (text(services, key.0), text(names, key.1));
            let is_one = |text: &String| !text.is_empty() && !may_stand_for_others(text);
            let mut operation = OperationProfile {
                is_exact: key != (0, 0) && is_one(&service) && is_one(&name),
                failed: operation.failed.times(in_a_day),
                by_duration: operation.by_duration.iter().map(|volume| volume.times(in_a_day)).collect(),
                service,
                name,
                ..operation
            };
            if !shape::is_like_probes(&operation) {
                operation.moments.clear();
            }
            operation
        });
        let mut operations: Vec<OperationProfile> = operations.collect();
        operations.sort_by(|a, b| (&a.service, &a.name).cmp(&(&b.service, &b.name)));
        TrafficProfile { seconds, traces: operations.iter().map(|operation| operation.traces).sum(), operations }
    }
}
