//! What comes into the queue, and what it pushes out.

use super::{Body, Discard, ENTRY_OVERHEAD, Entry, Phase, Queue};
use crate::{
    deliver::{batch::Growing, sink::Batch},
    trace::Signal,
};
use tokio::time::Instant;

/// What [`Queue::push`] did, for the caller to act on outside the lock.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// A sink that sleeps has a reason to look.
    pub(crate) wake: bool,
    /// Items that were discarded, most over all sinks, because the signal's quota is used up.
    pub(crate) lost: u64,
    /// The signal's first push, and no sink takes it.
    pub(crate) first_unclaimed: bool,
}

impl Queue {
    /// Adds a piece to the growing batch, or alone if it is `own` or large. Never fails: what does
    /// not fit pushes out the oldest of its signal.
    pub(crate) fn push(&mut self, piece: Batch, own: bool, now: Instant) -> Pushed {
        let signal = piece.signal;
        let (items, bytes) = (piece.items, piece.body.len());
        if !self.takes(signal) {
            let first_unclaimed = self.unclaimed[signal as usize] == 0;
            self.unclaimed[signal as usize] += items;
            return Pushed { first_unclaimed, ..Pushed::default() };
        }
        for lane in self.lanes(signal) {
            lane.tally.pushed += items;
            lane.tally.queued += items;
        }
        if self.phase == Phase::Closed {
            self.discard_pushed(signal, items, Discard::Shutdown);
            return Pushed::default();
        }
        if self.phase == Phase::Ending && !self.has_room(signal, bytes) {
            self.discard_pushed(signal, items, Discard::Shutdown);
            return Pushed { lost: items, ..Pushed::default() };
        }
        let (fits, lost) = self.make_room(signal, bytes + ENTRY_OVERHEAD);
        if !fits {
            self.discard_pushed(signal, items, Discard::QueueFull);
            return Pushed { lost: lost + items, ..Pushed::default() };
        }
        Pushed { wake: self.append(piece, own, now), lost, first_unclaimed: false }
    }

    fn discard_pushed(&mut self, signal: Signal, items: u64, why: Discard) {
        self.lanes(signal).for_each(|lane| lane.tally.discard(items, why));
    }

    /// Returns whether there is something new to wait for or to take.
    fn append(&mut self, piece: Batch, own: bool, now: Instant) -> bool {
        let signal = piece.signal;
        let log = &self.logs[signal as usize];
        let alone = own || piece.body.len() >= log.limits.bytes / 2;
        let full = log.growing.as_ref().is_some_and(|growing| alone || !growing.has_room(&piece, &log.limits));
        if full {
            self.seal(signal);
        }
        if alone {
            self.add_entry(piece, !own);
            return true;
        }
        let log = &mut self.logs[signal as usize];
        let opened = log.growing.is_none();
        let growing = log.growing.get_or_insert_with(|| Growing::new(now));
        let grown = growing.append(&piece);
        let full_now = growing.is_full(&log.limits);
        log.held += grown + if opened { ENTRY_OVERHEAD } else { 0 };
        self.lanes(signal).for_each(|lane| lane.tally.queued_bytes += grown as u64);
        if full_now {
            self.seal(signal);
        }
        full || opened || full_now
    }

    /// Seals the batch that grows if it is due; else says when it will be.
    pub(crate) fn seal_due(&mut self, signal: Signal, now: Instant) -> Option<Instant> {
        let log = &self.logs[signal as usize];
        let due = log.growing.as_ref()?.due(&log.limits);
        if due > now && matches!(self.phase, Phase::Open | Phase::Ending) {
            return Some(due);
        }
        self.seal(signal);
        None
    }

    pub(super) fn seal(&mut self, signal: Signal) {
        let log = &mut self.logs[signal as usize];
        if let Some(growing) = log.growing.take() {
            let grown = growing.bytes();
            log.held -= grown + ENTRY_OVERHEAD;
            self.lanes(signal).for_each(|lane| lane.tally.queued_bytes -= grown as u64);
            self.add_entry(growing.seal(signal), true);
        }
    }

    fn add_entry(&mut self, batch: Batch, durable: bool) {
        let number = self.next_number;
        self.next_number += 1;
        let entry =
            Entry { number, items: batch.items, bytes: batch.body.len(), durable, body: Body::Memory(batch.body) };
        let log = &mut self.logs[batch.signal as usize];
        let bytes = entry.bytes as u64;
        log.held += entry.held();
        log.entries.push_back(entry);
        self.lanes(batch.signal).for_each(|lane| lane.tally.queued_bytes += bytes);
    }

    /// Discards the oldest entries in memory until `bytes` more fit. Returns whether they do, and
    /// the items lost.
    fn make_room(&mut self, signal: Signal, bytes: usize) -> (bool, u64) {
        let mut lost = 0;
        loop {
            let log = &mut self.logs[signal as usize];
            if log.held + bytes <= log.quota {
                return (true, lost);
            }
            if bytes > log.quota {
                return (false, lost);
            }
            match log.entries.iter().position(|e| matches!(e.body, Body::Memory(_))) {
                Some(oldest) => lost += self.discard_entry(signal, oldest),
                None if log.growing.is_some() => self.seal(signal),
                None => return (false, lost),
            }
        }
    }

    /// Removes an entry; lanes that have not taken it lose it. Returns its items if any lane did.
    pub(super) fn discard_entry(&mut self, signal: Signal, index: usize) -> u64 {
        let log = &mut self.logs[signal as usize];
        let entry = log.entries.remove(index).expect("the caller found it there");
        log.held -= entry.held();
        let mut lost = 0;
        for lane in self.lanes(signal).filter(|lane| lane.next <= entry.number) {
            lane.tally.discard(entry.items, Discard::QueueFull);
            lane.tally.queued_bytes -= entry.bytes as u64;
            lost = entry.items;
        }
        lost
    }
}
