//! Finds the entry of a trace: one slab of entries and one open-addressed table of slots, both of
//! a size that is fixed at the start. Deleting moves entries back, so the table never needs a
//! rebuild and no operation is longer than a short probe.

use super::Loc;
use super::wheel::{Tick, Timer, Timers};
use crate::trace::{Incomplete, Summary, TraceId, Verdict};

/// What a trace in the ring is waiting for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TraceStatus {
    /// Not yet judged.
    #[default]
    Waiting,
    /// Kept by a share: delivered once it has settled, judged again until then if something changes.
    Settling,
    /// Kept: what is there has been handed over or is about to be, and what comes will follow.
    Kept,
    /// Dropped, provisionally.
    Dropped,
}

/// All that is known of a trace whose spans are in the ring: four cache lines, because reading them
/// is most of what a span costs.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub struct TraceEntry {
    pub id: TraceId,
    pub summary: Summary,
    pub verdict: Option<Verdict>,
    pub state: TraceStatus,
    /// Its newest record; the others follow by links.
    pub newest: Loc,
    /// Arrivals of its first and last span and of its chosen entry span.
    pub first: Tick,
    pub last: Tick,
    pub entered: Tick,
    /// A share that kept it is delivered then, and a rescue after that has no known weight.
    pub settles: Tick,
    /// It is looked at again then, because of late spans; 0 is never.
    pub again: Tick,
    /// Number of the question set that made its facts; 0 if its spans disagree.
    pub questions: u32,
    /// Records not handed over, and bytes of all its records and of what scopes and resources they brought.
    pub undelivered: u32,
    pub stored_bytes: u32,
    /// A first delivery has left.
    pub delivered: bool,
    /// It began as the late part of a kept trace that had left the ring.
    pub recalled: bool,
    /// It stands in the row of what is to be delivered.
    pub is_outgoing: bool,
    pub(super) timer: Timer,
}

impl TraceEntry {
    fn new(id: TraceId, now: Tick) -> TraceEntry {
        TraceEntry {
            id,
            summary: Summary::default(),
            verdict: None,
            state: TraceStatus::Waiting,
            newest: Loc::NONE,
            first: now,
            last: now,
            entered: now,
            settles: 0,
            again: 0,
            questions: 0,
            undelivered: 0,
            stored_bytes: 0,
            delivered: false,
            recalled: false,
            is_outgoing: false,
            timer: Timer::default(),
        }
    }

    /// Why it may lack spans. The entry of a trace that was kept before has left already.
    pub fn incomplete(&self) -> Option<Incomplete> {
        self.summary.incomplete().filter(|why| *why != Incomplete::NoEntry || !self.recalled)
    }

    /// Whether it may not leave before it is judged, be it again.
    pub fn awaits_judgement(&self, now: Tick) -> bool {
        match self.state {
            TraceStatus::Waiting => true,
            TraceStatus::Settling => self.again != 0 && now < self.settles,
            TraceStatus::Dropped => self.again != 0,
            TraceStatus::Kept => false,
        }
    }
}

const NOWHERE: u32 = u32::MAX;

/// Traces by id.
pub struct Index {
    entries: Entries,
    /// The segment of each trace's oldest record, with which it dies; `NOWHERE` for a vacant slot. Beside
    /// the entries, because the sweep asks it of every record.
    oldest_segments: Vec<u32>,
    /// Slots that were given back.
    vacant: Vec<u32>,
    /// Upper half: the upper half of the trace's hash. Lower half: slot + 1. Zero: empty.
    table: Vec<u64>,
    capacity: usize,
}

/// The slab, with the timers of its entries.
pub struct Entries(Vec<TraceEntry>);

impl Timers for Entries {
    fn timer(&mut self, entry: u32) -> &mut Timer {
        &mut self.0[entry as usize].timer
    }
}

impl Index {
    /// Bytes that one trace costs at worst: its entry, its share of a table that is at least a
    /// quarter empty and at most five eighths, its oldest segment and a vacant slot.
    pub const TRACE_BYTES: usize = size_of::<TraceEntry>() + 8 * 8 / 3 + 2 * size_of::<u32>();

    /// An index of at most `capacity` traces. The memory is mapped as it is first used.
    pub fn new(capacity: usize) -> Index {
        let buckets = (capacity * 4 / 3 + 1).next_power_of_two();
        Index {
            entries: Entries(Vec::with_capacity(capacity)),
            oldest_segments: Vec::with_capacity(capacity),
            vacant: Vec::with_capacity(capacity),
            table: vec![0; buckets],
            capacity,
        }
    }

    pub fn len(&self) -> usize {
        self.entries.0.len() - self.vacant.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn is_full(&self) -> bool {
        self.len() == self.capacity
    }

    /// Slots that were ever used; each may be vacant.
    pub fn slots(&self) -> u32 {
        self.entries.0.len() as u32
    }

    /// Whether a slot holds a trace.
    pub fn is_live(&self, slot: u32) -> bool {
        self.entries.0[slot as usize].newest != Loc::NONE
    }

    /// The segment with which the trace in this slot dies; none if the slot is vacant.
    pub fn oldest_segment(&self, slot: u32) -> Option<u32> {
        Some(self.oldest_segments[slot as usize]).filter(|segment| *segment != NOWHERE)
    }

    pub fn set_oldest_segment(&mut self, slot: u32, segment: u32) {
        self.oldest_segments[slot as usize] = segment;
    }

    pub fn entry(&self, slot: u32) -> &TraceEntry {
        &self.entries.0[slot as usize]
    }

    pub fn entry_mut(&mut self, slot: u32) -> &mut TraceEntry {
        &mut self.entries.0[slot as usize]
    }

    /// The entries as the wheel sees them.
    pub fn timers(&mut self) -> &mut Entries {
        &mut self.entries
    }

    fn home(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.table.len() - 1)
    }

    /// The slot of a trace. `hash` must be the same for the same id, always.
    pub fn find(&self, hash: u64, id: TraceId) -> Option<u32> {
        let mut bucket = self.home(hash);
        loop {
            match self.table[bucket] {
                0 => return None,
                word if word >> 32 == hash >> 32 => {
                    let slot = word as u32 - 1;
                    if self.entry(slot).id == id {
                        return Some(slot);
                    }
                }
                _ => {}
            }
            bucket = (bucket + 1) & (self.table.len() - 1);
        }
    }

    /// Reads what [`Index::find`] will read, for nothing but to have it near. Look-ups of many traces one
    /// after the other wait for memory one after the other; these reads do not wait for each other.
    pub fn warm(&self, hash: u64) -> Option<u32> {
        let slot = self.table[self.home(hash)] as u32;
        let entry = self.entries.0.get(slot.wrapping_sub(1) as usize)?;
        let Summary { facts, longest_entry, spans, .. } = &entry.summary;
        Some(u32::from(facts.has(0)) ^ *longest_entry as u32 ^ *spans ^ entry.last)
    }

    /// Adds a trace that is not there yet. The caller has asked [`Index::is_full`], and gives the
    /// entry its first record before anything else happens.
    pub fn insert(&mut self, hash: u64, id: TraceId, now: Tick) -> u32 {
        let entry = TraceEntry::new(id, now);
        let slot = match self.vacant.pop() {
            Some(slot) => {
                self.entries.0[slot as usize] = entry;
                slot
            }
            None => {
                self.entries.0.push(entry);
                self.oldest_segments.push(NOWHERE);
                self.entries.0.len() as u32 - 1
            }
        };
        let mut bucket = self.home(hash);
        while self.table[bucket] != 0 {
            bucket = (bucket + 1) & (self.table.len() - 1);
        }
        self.table[bucket] = hash >> 32 << 32 | u64::from(slot + 1);
        slot
    }

    /// Removes a trace and moves back those that its bucket had displaced.
    pub fn remove(&mut self, hash: u64, slot: u32) {
        let mask = self.table.len() - 1;
        let mut hole = self.home(hash);
        while self.table[hole] as u32 != slot + 1 {
            hole = (hole + 1) & mask;
        }
        let mut bucket = hole;
        loop {
            bucket = (bucket + 1) & mask;
            let word = self.table[bucket];
            if word == 0 {
                break;
            }
            // It may move into the hole if its home is not between the hole and itself.
            let home = (word >> 32) as usize & mask;
            if (bucket.wrapping_sub(home) & mask) >= (bucket.wrapping_sub(hole) & mask) {
                self.table[hole] = word;
                hole = bucket;
            }
        }
        self.table[hole] = 0;
        self.entries.0[slot as usize].newest = Loc::NONE;
        self.oldest_segments[slot as usize] = NOWHERE;
        self.vacant.push(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        /// Against a map, with few distinct hashes so that probes run long.
        #[test]
        fn finds_what_a_map_finds(steps in prop::collection::vec((0u8..40, any::<bool>()), 1..300), spread in 1u64..64) {
            let mut index = Index::new(24);
            let mut map: HashMap<TraceId, u32> = HashMap::new();
            let id = |n: u8| TraceId([n + 1; 16]);
            let hash = |n: u8| (u64::from(n) % spread) << 32 | u64::from(n);
            for (n, insert) in steps {
                match (insert, map.get(&id(n)).copied()) {
                    (true, None) if !index.is_full() => {
                        let slot = index.insert(hash(n), id(n), 0);
                        index.entry_mut(slot).newest = Loc(0);
                        map.insert(id(n), slot);
                    }
                    (false, Some(slot)) => {
                        index.remove(hash(n), slot);
                        map.remove(&id(n));
                    }
                    _ => {}
                }
                prop_assert_eq!(index.len(), map.len());
                for n in 0..40 {
                    prop_assert_eq!(index.find(hash(n), id(n)), map.get(&id(n)).copied());
                }
            }
        }
    }
}
