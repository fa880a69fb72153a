//! What comes into the queue, and what it pushes out.

use super::{Discard, ENTRY_OVERHEAD, Queue, QueuePhase, StoredBody, entries::QueuedBatch};
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
        if let QueuePhase::Ending { until } = self.phase
            && !self.is_ready_for(signal, bytes, now)
        {
            if now >= until {
                self.discard_pushed(route, signal, items, Discard::Shutdown);
                return Pushed { lost: items, ..Pushed::default() };
            }
            return Pushed { wake: self.append(route, piece, own, now), ..Pushed::default() };
        }
        let (fits, lost) = self.make_room(signal, bytes + ENTRY_OVERHEAD, now);
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
            items: batch.items,
            bytes: batch.body.len(),
            route,
            durable,
            body: StoredBody::Memory(batch.body),
        };
        let bytes = entry.bytes as u64;
        self.waiting[batch.signal as usize].add(number, entry);
        self.consumers(route, batch.signal).for_each(|consumer| consumer.tally.queued_bytes += bytes);
    }

    /// Discards entries in memory until `bytes` more fit: the oldest of those that only stalled sinks wait for, else
    /// the oldest. Returns whether they fit, and the items lost.
    fn make_room(&mut self, signal: Signal, bytes: usize, now: Instant) -> (bool, u64) {
        let mut lost = 0;
        loop {
            let waiting = &self.waiting[signal as usize];
            if waiting.held + bytes <= waiting.quota {
                return (true, lost);
            }
            if bytes > waiting.quota {
                return (false, lost);
            }
            let mut in_memory = waiting.memory.iter();
            let given_up = in_memory.find(|(number, entry)| !self.is_awaited(signal, **number, entry, now));
            match given_up.or_else(|| waiting.memory.first_key_value()) {
                Some((&number, _)) => lost += self.discard_entry(signal, number),
                None if !waiting.growing.is_empty() => self.seal(signal),
                None => return (false, lost),
            }
        }
    }

    /// Removes an entry; consumers that have not taken it lose it. Returns its items if any consumer did.
    pub(super) fn discard_entry(&mut self, signal: Signal, number: u64) -> u64 {
        let entry = self.waiting[signal as usize].remove(number).expect("the caller found it there");
        let mut lost = 0;
        for consumer in self.consumers(entry.route, signal).filter(|consumer| consumer.next <= number) {
            consumer.tally.discard(entry.items, Discard::QueueFull);
            consumer.tally.queued_bytes -= entry.bytes as u64;
            lost = entry.items;
        }
        lost
    }
}
