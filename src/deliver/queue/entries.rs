//! The entries of one signal, in memory and on disk.

use super::ENTRY_OVERHEAD;
use crate::deliver::{
    batch::{BatchLimits, Growing},
    routing::{Route, Routing},
    spool::Location,
};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Where an entry's bytes are.
#[derive(Clone, Debug)]
pub(crate) enum StoredBody {
    Memory(Bytes),
    Disk(Location),
}

#[derive(Debug)]
pub(super) struct QueuedBatch {
    pub(super) items: u64,
    pub(super) bytes: usize,
    /// The sinks that it is for.
    pub(super) route: Route,
    /// May go to the spool.
    pub(super) durable: bool,
    pub(super) body: StoredBody,
}

/// The entries of one signal, by their numbers.
#[derive(Debug)]
pub(super) struct SignalQueue {
    pub(super) memory: BTreeMap<u64, QueuedBatch>,
    /// Those whose bytes are in the spool.
    pub(super) disk: BTreeMap<u64, QueuedBatch>,
    /// One for each route that something came for.
    pub(super) growing: Vec<(Route, Growing)>,
    pub(super) limits: BatchLimits,
    /// Bytes of bodies in memory; at most `quota`, but for a moment at the end.
    pub(super) held: usize,
    pub(super) quota: usize,
    /// Bytes of bodies on disk.
    pub(super) on_disk: u64,
    /// Entries below were dropped from the disk to stay within its size.
    pub(super) dropped: u64,
    /// Entries below were given to the disk, if they may be there.
    pub(super) given: u64,
}

impl SignalQueue {
    pub(super) fn new(limits: BatchLimits, quota: usize) -> SignalQueue {
        let limits = BatchLimits { bytes: limits.bytes.min(quota / 4), ..limits };
        SignalQueue {
            memory: BTreeMap::new(),
            disk: BTreeMap::new(),
            growing: Vec::new(),
            limits,
            held: 0,
            quota,
            on_disk: 0,
            dropped: 0,
            given: 0,
        }
    }

    pub(super) fn add(&mut self, number: u64, entry: QueuedBatch) {
        match entry.body {
            StoredBody::Memory(_) => {
                self.held += entry.bytes + ENTRY_OVERHEAD;
                self.memory.insert(number, entry);
            }
            StoredBody::Disk(_) => {
                self.on_disk += entry.bytes as u64;
                self.disk.insert(number, entry);
            }
        }
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<QueuedBatch> {
        if let Some(entry) = self.memory.remove(&number) {
            self.held -= entry.bytes + ENTRY_OVERHEAD;
            return Some(entry);
        }
        let entry = self.disk.remove(&number)?;
        self.on_disk -= entry.bytes as u64;
        Some(entry)
    }

    pub(super) fn get(&self, number: u64) -> Option<&QueuedBatch> {
        self.memory.get(&number).or_else(|| self.disk.get(&number))
    }

    /// The entries from a number on, in no order.
    pub(super) fn since(&self, number: u64) -> impl Iterator<Item = &QueuedBatch> {
        self.memory.range(number..).chain(self.disk.range(number..)).map(|(_, entry)| entry)
    }

    /// The first entry from a number on that is for a sink.
    pub(super) fn first_for(&self, routing: &Routing, sink: usize, number: u64) -> Option<(u64, &QueuedBatch)> {
        let first = |entries: &'_ BTreeMap<u64, QueuedBatch>| {
            let mut rest = entries.range(number..);
            rest.find(|(_, entry)| routing.takes(entry.route, sink)).map(|(number, _)| *number)
        };
        let number = [first(&self.memory), first(&self.disk)].into_iter().flatten().min()?;
        Some((number, self.get(number)?))
    }
}
