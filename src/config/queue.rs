//! The section `queue`: how much waits for sinks, in memory and on disk.

use super::budget::{BudgetPart, Sizes};
use super::load::Loader;
use crate::deliver::{SpoolSettings, refusal::LONGEST_REFUSAL};
use crate::trace::Signal;
use crate::yaml::{Map, Value};
use std::time::Duration;

pub(super) const KEYS: &[&str] = &["memory", "path", "size", "longest_wait", "longest_refusal"];
pub(super) const SIGNAL_KEYS: &[&str] = &["traces", "metrics", "logs"];

/// The queue between the shards and the sinks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueConfig {
    /// Bytes in memory per signal, in the order of [`Signal::ALL`].
    pub memory: [usize; 3],
    /// The queue on disk, if there is one.
    pub spool: Option<SpoolSettings>,
    /// A sink that failed is asked again after this long at the latest.
    pub longest_wait: Duration,
    /// A batch that a sink refuses, though it may take it later, is discarded after this long.
    pub longest_refusal: Duration,
}

/// Unless the file says more or less.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// 1 GiB on disk, unless the file says more or less.
const SPOOL_SIZE: u64 = 1 << 30;
/// The least that a signal's quota can be: a batch takes a quarter of it.
const QUOTA_MIN: u64 = 256 << 10;

/// What the section says about memory, per signal.
pub(super) fn requested(loader: &mut Loader<'_>, map: &Map<'_>) -> [Option<usize>; 3] {
    per_signal(loader, map, "memory").map(|size| size.map(|size| size as usize))
}

pub(super) fn settings(loader: &mut Loader<'_>, map: &Map<'_>, sizes: &Sizes<usize>) -> QueueConfig {
    let memory = BudgetPart::QUEUES.map(|part| sizes[part as usize]);
    let path = loader.path(map, "path");
    if let (None, Some(entry)) = (map.entry("path"), map.entry("size")) {
        let title = "`size` says nothing without `path`";
        loader
            .reader
            .error("C11", entry.key_span, title, "no queue on disk is asked for")
            .help("add `path:`, the folder of the queue on disk; what waits in memory is bounded by `memory`");
    }
    let given = per_signal(loader, map, "size");
    let usual = divide(SPOOL_SIZE);
    let quotas = Signal::ALL.map(|signal| given[signal as usize].unwrap_or(usual[signal as usize]));
    let longest_wait = loader.duration(map, "longest_wait", Duration::from_secs(1)..=Duration::from_secs(3600));
    let longest_refusal = loader.duration(map, "longest_refusal", Duration::ZERO..=Duration::from_secs(7 * 86_400));
    QueueConfig {
        memory,
        spool: path.map(|path| SpoolSettings { path, quotas }),
        longest_wait: longest_wait.unwrap_or(LONGEST_WAIT),
        longest_refusal: longest_refusal.unwrap_or(LONGEST_REFUSAL),
    }
}

/// A size for all three signals together, or for each.
fn per_signal(loader: &mut Loader<'_>, map: &Map<'_>, key: &str) -> [Option<u64>; 3] {
    let Some(node) = map.get(key) else { return [None; 3] };
    if !matches!(node.value, Value::Map(_)) {
        let total = loader.size_of(node, &format!("`{key}`"), 5 * QUOTA_MIN..=1 << 40);
        return total.map_or([None; 3], |total| divide(total).map(Some));
    }
    let Some(signals) = loader.section(map, key, SIGNAL_KEYS) else { return [None; 3] };
    Signal::ALL.map(|signal| loader.size(&signals, signal.word(), QUOTA_MIN..=1 << 40))
}

/// Three fifths for traces, one each for metrics and logs.
fn divide(total: u64) -> [u64; 3] {
    let fifth = total / 5;
    [total - 2 * fifth, fifth, fifth]
}
