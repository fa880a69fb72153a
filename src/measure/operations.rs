//! The request metrics as people read them: one row for each operation of each service, its statuses
//! taken together, because percentiles of each status cannot be put together later.

use super::series::Identity;
use super::window::{Latency, Minute, SLOT_MS, SLOTS};
use super::{Labels, Meter};
use crate::trace::{Kind, Status};

/// An operation: its series of all statuses together.
#[derive(Clone, PartialEq, Debug)]
pub struct OperationRow {
    /// Empty if there is none, or if the row is the overflow of many services.
    pub service: String,
    /// Empty for overflow.
    pub name: String,
    /// None for overflow: spans of all kinds.
    pub kind: Option<Kind>,
    /// The extra dimensions, in their order.
    pub extras: Vec<Option<String>>,
    /// Since the series began.
    pub calls: u64,
    pub errors: u64,
    /// Calls a second over the last minute.
    pub rate: f64,
    /// Over the last minute; none if nothing arrived.
    pub latency: Option<Latency>,
    /// The latency is an estimate from explicit buckets: memory for windows had run out.
    pub approximate: bool,
}

impl Meter {
    /// All operations, in order of service, name, kind and dimensions.
    pub fn operations(&self, now_ms: u64) -> Vec<OperationRow> {
        let mut minute = Minute::new();
        self.members().chunk_by(|a, b| a.0 == b.0).map(|group| self.row(group, &mut minute, now_ms)).collect()
    }

    /// Percentiles of each operation that had spans in the last minute, in the order of [`Meter::operations`].
    /// Where these are estimates there are none: a gauge cannot say that its value is one.
    pub(super) fn percentiles(&self, now_ms: u64) -> Vec<(Identity, Latency)> {
        let mut minute = Minute::new();
        let members = self.members();
        let exact = members.chunk_by(|a, b| a.0 == b.0).filter_map(|group| {
            self.gather_minute(group, &mut minute, now_ms);
            let latency = minute.latency().filter(|_| !minute.is_approximate())?;
            Some((group[0].0.clone(), latency))
        });
        exact.collect()
    }

    /// All series by operation.
    fn members(&self) -> Vec<(Identity, u64)> {
        let mut members: Vec<(Identity, u64)> =
            self.series.iter().map(|e| (operation_of(&e.identity), *e.key())).collect();
        members.sort_unstable();
        members
    }

    /// Fills `minute` with an operation's windows. Its calls and errors since its series began.
    fn gather_minute(&self, group: &[(Identity, u64)], minute: &mut Minute, now_ms: u64) -> (u64, u64) {
        minute.clear();
        let (mut calls, mut errors) = (0, 0);
        for (_, key) in group {
            if let Some(series) = self.series.get(key) {
                calls += series.total.count;
                errors += series.errors;
                series.window.merge_into(minute, now_ms, &self.settings.buckets);
            }
        }
        (calls, errors)
    }

    fn row(&self, group: &[(Identity, u64)], minute: &mut Minute, now_ms: u64) -> OperationRow {
        let (calls, errors) = self.gather_minute(group, minute, now_ms);
        let rate = minute.count() as f64 * 1000.0 / window_ms(now_ms) as f64;
        let (name, kind, extras) = match &group[0].0 {
            Identity::Named(labels) => (labels.name.clone(), Some(labels.kind), labels.extras.clone()),
            Identity::ServiceOverflow(_) | Identity::Overflow => Default::default(),
        };
        OperationRow {
            service: group[0].0.service().unwrap_or_default().to_owned(),
            name,
            kind,
            extras,
            calls,
            errors,
            rate,
            latency: minute.latency(),
            approximate: minute.is_approximate(),
        }
    }
}

/// The same for all statuses of an operation.
fn operation_of(identity: &Identity) -> Identity {
    match identity {
        Identity::Named(labels) => Identity::Named(Labels { status: Status::Unset, ..labels.clone() }),
        overflow => overflow.clone(),
    }
}

/// How long the window at `now_ms` has been open: from 50 to 60 s, less in the first minute, at least a second.
fn window_ms(now_ms: u64) -> u64 {
    let start = (now_ms / SLOT_MS + 1).saturating_sub(SLOTS) * SLOT_MS;
    (now_ms - start).max(1000)
}
