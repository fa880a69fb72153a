//! What the spool's writer does with the queue: entries on disk stay in it, only their bytes leave.

use super::{Consumer, Queue, StoredBody, entries::QueuedBatch};
use crate::{
    deliver::{
        routing::Route,
        spool::{Location, SpoolRecord},
    },
    trace::Signal,
};

impl Queue {
    /// Numbers below were given by an earlier run.
    pub(crate) fn start_from(&mut self, number: u64) {
        self.next_number = number;
    }

    /// An entry that the spool held at start. Entries must come in order of their numbers.
    pub(crate) fn recover(&mut self, route: Route, signal: Signal, number: u64, items: u64, location: Location) {
        if !self.is_claimed(route, signal) {
            self.unclaimed[signal as usize] += items;
            return;
        }
        let bytes = location.bytes();
        let mut is_needed = false;
        for consumer in self.consumers(route, signal).filter(|consumer| consumer.next <= number) {
            is_needed = true;
            consumer.tally.recovered += items;
            consumer.tally.queued += items;
            consumer.tally.queued_bytes += bytes as u64;
        }
        if is_needed {
            let entry = QueuedBatch { items, bytes, route, durable: true, body: StoredBody::Disk(location) };
            self.waiting[signal as usize].add(number, entry);
        }
    }

    /// Where a sink goes on after a restart; before any [`Queue::recover`].
    pub(crate) fn set_cursor(&mut self, sink: usize, signal: Signal, number: u64) {
        if let Some(consumer) = &mut self.sinks[sink][signal as usize] {
            consumer.next = number;
        }
    }

    /// Per sink and signal: the first entry that is not done.
    pub(crate) fn cursors(&self) -> Vec<[Option<u64>; 3]> {
        let cursor = |sink: usize, signal: Signal, consumer: &Consumer| match &consumer.under_way {
            Some(entry) => entry.number,
            None => {
                let first = self.waiting[signal as usize].first_for(&self.routing, sink, consumer.next);
                first.map_or(self.next_number, |(number, _)| number)
            }
        };
        let cursors = |(sink, consumers): (usize, &[Option<Consumer>; 3])| {
            Signal::ALL.map(|signal| consumers[signal as usize].as_ref().map(|consumer| cursor(sink, signal, consumer)))
        };
        self.sinks.iter().enumerate().map(cursors).collect()
    }

    /// Entries that are not on disk yet, oldest first, up to about `bytes`.
    pub(crate) fn unwritten(&mut self, signal: Signal, mut bytes: usize) -> Vec<SpoolRecord> {
        let mut found = Vec::new();
        let waiting = &mut self.waiting[signal as usize];
        for (&number, entry) in waiting.memory.iter().filter(|(_, entry)| entry.durable) {
            if let StoredBody::Memory(body) = &entry.body {
                let route = self.routing.fingerprint(entry.route);
                found.push(SpoolRecord { number, items: entry.items, route, body: body.clone() });
                bytes = bytes.saturating_sub(body.len());
            }
            if bytes == 0 {
                break;
            }
        }
        waiting.given = found.last().map_or(waiting.given, |record| waiting.given.max(record.number + 1));
        found
    }

    /// At the end no later export supersedes our own metrics, so they go to disk with the rest; but not
    /// before what was given to the disk already, where numbers only grow.
    pub(super) fn keep_own(&mut self) {
        for waiting in &mut self.waiting {
            waiting.memory.range_mut(waiting.given..).for_each(|(_, entry)| entry.durable = true);
        }
    }

    /// The entry's bytes are safe on disk; those in memory are let go.
    pub(crate) fn written(&mut self, signal: Signal, number: u64, location: Location) {
        let waiting = &mut self.waiting[signal as usize];
        if let Some(entry) = waiting.remove(number) {
            waiting.add(number, QueuedBatch { body: StoredBody::Disk(location), ..entry });
        }
    }

    /// The spool dropped its entries up to `last` to stay within its size. Returns the items lost.
    pub(crate) fn dropped_on_disk(&mut self, signal: Signal, last: u64) -> u64 {
        self.waiting[signal as usize].dropped = last.saturating_add(1);
        let mut lost = 0;
        while let Some((&number, _)) = self.waiting[signal as usize].disk.range(..=last).next() {
            lost += self.discard_entry(signal, number);
        }
        lost
    }

    /// Whether the entry that the sink is busy with went with [`Queue::dropped_on_disk`].
    pub(crate) fn was_dropped(&self, sink: usize, signal: Signal) -> bool {
        let consumer = self.sinks[sink][signal as usize].as_ref();
        let under_way = consumer.and_then(|consumer| consumer.under_way.as_ref());
        under_way.is_some_and(|entry| entry.number < self.waiting[signal as usize].dropped)
    }
}
