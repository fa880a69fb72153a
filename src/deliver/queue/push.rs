//! What comes into the queue, and what it pushes out.

use super::{Discard, ENTRY_OVERHEAD, Queue, QueuePhase, QueuedBatch, StoredBody};
use crate::{
    deliver::{batch::Growing, routing::Route, sink::Batch},
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
    pub(crate) fn push(&mut self, route: Route, piece: Batch, own: bool, now: Instant) -> Pushed {
        let signal = piece.signal;
        let (items, bytes) = (piece.items, piece.body.len());
        if !self.is_claimed(route, signal) {
            let first_unclaimed = self.unclaimed[signal as usize] == 0 && !self.takes(signal);
            self.unclaimed[signal as usize] += items;
            return Pushed { first_unclaimed, ..Pushed::default() };
        }
        for consumer in self.consumers(route, signal) {
            consumer.tally.pushed += items;
            consumer.tally.queued += items;
        }
        if self.phase == QueuePhase::Closed {
            self.discard_pushed(route, signal, items, Discard::Shutdown);
            return Pushed::default();
        }
        if self.phase == QueuePhase::Ending && !self.is_ready_for(route, signal, bytes) {
            self.discard_pushed(route, signal, items, Discard::Shutdown);
            return Pushed { lost: items, ..Pushed::default() };
        }
        let (fits, lost) = self.make_room(signal, bytes + ENTRY_OVERHEAD);
        if !fits {
            self.discard_pushed(route, signal, items, Discard::QueueFull);
            return Pushed { lost: lost + items, ..Pushed::default() };
        }
        Pushed { wake: self.append(route, piece, own, now), lost, first_unclaimed: false }
    }

    fn discard_pushed(&mut self, route: Route, signal: Signal, items: u64, why: Discard) {
        self.consumers(route, signal).for_each(|consumer| consumer.tally.discard(items, why));
    }

    /// Returns whether there is something new to wait for or to take.
    fn append(&mut self, route: Route, piece: Batch, own: bool, now: Instant) -> bool {
        let signal = piece.signal;
        let waiting = &self.waiting[signal as usize];
        let alone = own || piece.body.len() >= waiting.limits.bytes / 2;
        let is_full = |growing: &Growing| alone || !growing.has_room(&piece, &waiting.limits);
        let full = waiting.growing.iter().any(|(for_route, growing)| *for_route == route && is_full(growing));
        if full {
            self.seal_of(route, signal);
        }
        if alone {
            self.add_entry(route, piece, !own);
            return true;
        }
        let waiting = &mut self.waiting[signal as usize];
        let known = waiting.growing.iter().position(|(for_route, _)| *for_route == route);
        let opened = known.is_none();
        let place = known.unwrap_or_else(|| {
            waiting.growing.push((route, Growing::new(now)));
            waiting.held += ENTRY_OVERHEAD;
            waiting.growing.len() - 1
        });
        let growing = &mut waiting.growing[place].1;
        let grown = growing.append(&piece);
        let full_now = growing.is_full(&waiting.limits);
        waiting.held += grown;
        self.consumers(route, signal).for_each(|consumer| consumer.tally.queued_bytes += grown as u64);
        if full_now {
            self.seal_of(route, signal);
        }
        full || opened || full_now
    }

    /// Seals what grows and is due; else says when the first will be.
    pub(crate) fn seal_due(&mut self, signal: Signal, now: Instant) -> Option<Instant> {
        loop {
            let waiting = &self.waiting[signal as usize];
            let due = waiting.growing.iter().map(|(route, growing)| (growing.due(&waiting.limits), *route));
            let (due, route) = due.min_by_key(|(due, _)| *due)?;
            if due > now && self.phase == QueuePhase::Open {
                return Some(due);
            }
            self.seal_of(route, signal);
        }
    }

    pub(super) fn seal(&mut self, signal: Signal) {
        while let Some((route, _)) = self.waiting[signal as usize].growing.first() {
            self.seal_of(*route, signal);
        }
    }

    fn seal_of(&mut self, route: Route, signal: Signal) {
        let waiting = &mut self.waiting[signal as usize];
        if let Some(place) = waiting.growing.iter().position(|(for_route, _)| *for_route == route) {
            let (_, growing) = waiting.growing.remove(place);
            let grown = growing.bytes();
            waiting.held -= grown + ENTRY_OVERHEAD;
            self.consumers(route, signal).for_each(|consumer| consumer.tally.queued_bytes -= grown as u64);
            self.add_entry(route, growing.seal(signal), true);
        }
    }

    fn add_entry(&mut self, route: Route, batch: Batch, durable: bool) {
        let number = self.next_number;
        self.next_number += 1;
        let entry = QueuedBatch {
            number,
            items: batch.items,
            bytes: batch.body.len(),
            route,
            durable,
            body: StoredBody::Memory(batch.body),
        };
        let waiting = &mut self.waiting[batch.signal as usize];
        let bytes = entry.bytes as u64;
        waiting.held += entry.held();
        waiting.entries.push_back(entry);
        self.consumers(route, batch.signal).for_each(|consumer| consumer.tally.queued_bytes += bytes);
    }

    /// Discards the oldest entries in memory until `bytes` more fit. Returns whether they do, and
    /// the items lost.
    fn make_room(&mut self, signal: Signal, bytes: usize) -> (bool, u64) {
        let mut lost = 0;
        loop {
            let waiting = &mut self.waiting[signal as usize];
            if waiting.held + bytes <= waiting.quota {
                return (true, lost);
            }
            if bytes > waiting.quota {
                return (false, lost);
            }
            match waiting.entries.iter().position(|e| matches!(e.body, StoredBody::Memory(_))) {
                Some(oldest) => lost += self.discard_entry(signal, oldest),
                None if !waiting.growing.is_empty() => self.seal(signal),
                None => return (false, lost),
            }
        }
    }

    /// Removes an entry; consumers that have not taken it lose it. Returns its items if any consumer did.
    pub(super) fn discard_entry(&mut self, signal: Signal, index: usize) -> u64 {
        let waiting = &mut self.waiting[signal as usize];
        let entry = waiting.entries.remove(index).expect("the caller found it there");
        waiting.held -= entry.held();
        let mut lost = 0;
        for consumer in self.consumers(entry.route, signal).filter(|consumer| consumer.next <= entry.number) {
            consumer.tally.discard(entry.items, Discard::QueueFull);
            consumer.tally.queued_bytes -= entry.bytes as u64;
            lost = entry.items;
        }
        lost
    }
}
