//! The request metrics as people read them: one row for each operation of each service, its statuses
//! taken together, because percentiles of each status cannot be put together later.

use super::Meter;
use super::series::{Operation, SeriesKey};
use super::window::{Latency, Minute, SLOT_MS, SLOTS};
use crate::trace::SpanKind;

/// An operation: its series of all statuses together.
#[derive(Clone, PartialEq, Debug)]
pub struct OperationRow {
    /// Empty if there is none, or if the row is the overflow of many services.
    pub service: String,
    /// Empty for overflow.
    pub name: String,
    /// None for overflow: spans of all kinds.
    pub kind: Option<SpanKind>,
    /// The extra dimensions, in their order.
    pub extras: Vec<Option<String>>,
    /// Since the operation began.
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
    /// All operations, in order of service, name, kind and dimensions; what is overflow comes last.
    pub fn operations(&self, now_ms: u64) -> Vec<OperationRow> {
        let mut minute = Minute::new();
        let row = |key: u64| Some(self.row(&*self.operations.get(&key)?, &mut minute, now_ms));
        let mut rows: Vec<OperationRow> = self.keys().into_iter().filter_map(row).collect();
        rows.sort_by(|a, b| place(a).cmp(&place(b)));
        rows
    }

    /// Percentiles of an operation's last minute, if it had spans. Where these are estimates there are none: a
    /// gauge cannot say that its value is one.
    pub(super) fn percentiles(&self, operation: &Operation, minute: &mut Minute, now_ms: u64) -> Option<Latency> {
        self.gather_minute(operation, minute, now_ms);
        minute.latency().filter(|_| !minute.is_approximate())
    }

    fn gather_minute(&self, operation: &Operation, minute: &mut Minute, now_ms: u64) {
        minute.clear();
        operation.window.merge_into(minute, now_ms, &self.settings.buckets);
    }

    fn row(&self, operation: &Operation, minute: &mut Minute, now_ms: u64) -> OperationRow {
        self.gather_minute(operation, minute, now_ms);
        let rate = minute.count() as f64 * 1000.0 / window_ms(now_ms) as f64;
        let (name, kind, extras) = match &operation.identity {
            SeriesKey::Named(labels) => (labels.name.clone(), Some(labels.kind), labels.extras.clone()),
            SeriesKey::ServiceOverflow(_) | SeriesKey::Overflow => Default::default(),
        };
        OperationRow {
            service: operation.identity.service().unwrap_or_default().to_owned(),
            name,
            kind,
            extras,
            calls: operation.calls(),
            errors: operation.errors,
            rate,
            latency: minute.latency(),
            approximate: minute.is_approximate(),
        }
    }
}

/// Where a row stands among the others.
fn place(row: &OperationRow) -> impl Ord {
    (row.kind.is_none(), &row.service, &row.name, row.kind, &row.extras)
}

/// How long the window at `now_ms` has been open: from 50 to 60 s, less in the first minute, at least a second.
fn window_ms(now_ms: u64) -> u64 {
    let start = (now_ms / SLOT_MS + 1).saturating_sub(SLOTS) * SLOT_MS;
    (now_ms - start).max(1000)
}
