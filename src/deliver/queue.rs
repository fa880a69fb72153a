//! The queue between the shards and the sinks: every entry once, a cursor per sink and signal, and
//! the accounts. No clock, no I/O, nothing waits; [`super::Delivery`] puts it behind a mutex.
//!
//! Entries of all signals share one numbering, so a sink takes them in the order in which they came.
//! A consumer is what one sink has to do with one signal. Traces are for the sinks of their route alone, which the
//! others pass over. For every consumer, at any moment,
//! `pushed + recovered = delivered + queued + discarded`.

mod account;
mod entries;
mod persist;
mod push;
mod readiness;

pub use account::{AccountRow, Discard, Tally};
pub(crate) use entries::StoredBody;
pub(crate) use push::Pushed;

use entries::{QueuedBatch, SignalQueue};

use super::{
    batch::BatchLimits,
    routing::{Route, Routing},
    sink::Lost,
};
use crate::trace::Signal;
use tokio::time::Instant;

/// What an entry costs besides its body, so that many tiny ones are bounded too.
pub(super) const ENTRY_OVERHEAD: usize = 128;
/// The entry that a sink is busy with.
#[derive(Debug)]
struct UnderWay {
    number: u64,
    bytes: usize,
    /// Neither delivered nor discarded yet.
    items: u64,
}

#[derive(Debug, Default)]
struct Consumer {
    /// Number of the first entry that it has not taken.
    next: u64,
    under_way: Option<UnderWay>,
    /// Since when it is at what it was given without taking any of it, and since when it fails at it.
    busy_since: Option<Instant>,
    failing_since: Option<Instant>,
    tally: Tally,
}

impl Consumer {
    /// All entries below are done with.
    fn cursor(&self) -> u64 {
        self.under_way.as_ref().map_or(self.next, |entry| entry.number)
    }

    /// Part of the entry under way was delivered or discarded.
    fn progress(&mut self, items: u64) {
        (self.busy_since, self.failing_since) = (None, None);
        self.under_way.as_mut().expect("a loop speaks of what it took").items -= items;
    }
}

/// An entry that a sink begins to send.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) signal: Signal,
    pub(crate) items: u64,
    pub(crate) body: StoredBody,
}

/// What a sink lost at the end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LostAtEnd {
    pub(crate) sink: usize,
    pub(crate) signal: Signal,
    pub(crate) items: u64,
    /// Of these, metrics of our own of which a later export is on disk.
    pub(crate) superseded: u64,
}

/// What a sink's loop does next.
#[derive(Debug)]
pub(crate) enum NextBatch {
    Take(Taken),
    /// Go on with the entry that it took earlier.
    Resume(Signal),
    /// Nothing before this moment, unless it is woken.
    WaitUntil(Instant),
    Wait,
    /// The process ends and there is nothing left.
    Finished,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: [SignalQueue; 3],
    sinks: Vec<[Option<Consumer>; 3]>,
    /// Items of signals that no sink takes.
    unclaimed: [u64; 3],
    next_number: u64,
    phase: QueuePhase,
    routing: Routing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueuePhase {
    Open,
    /// Nothing is pushed out. What has no room is discarded itself once the time is over; before that it has waited
    /// for room, and is more than was expected.
    Ending {
        until: Instant,
    },
    /// Nothing waits for its batch to grow.
    Draining,
    /// What comes now is discarded: nobody takes it any more.
    Closed,
}

impl Queue {
    /// `takes[sink][signal]`; `quotas` are bytes of memory per signal.
    pub(crate) fn new(limits: BatchLimits, quotas: [usize; 3], takes: &[[bool; 3]], routing: Routing) -> Queue {
        let consumers = |takes: &[bool; 3]| takes.map(|takes| takes.then(Consumer::default));
        Queue {
            waiting: quotas.map(|quota| SignalQueue::new(limits, quota)),
            sinks: takes.iter().map(consumers).collect(),
            unclaimed: [0; 3],
            next_number: 0,
            phase: QueuePhase::Open,
            routing,
        }
    }

    /// How large the pieces should be that [`Queue::push`] gets.
    pub(crate) fn limits(&self, signal: Signal) -> BatchLimits {
        self.waiting[signal as usize].limits
    }

    /// Bytes that it may hold of a signal in memory.
    pub(crate) fn quota_of(&self, signal: Signal) -> usize {
        self.waiting[signal as usize].quota
    }

    pub(crate) fn takes(&self, signal: Signal) -> bool {
        self.sinks.iter().any(|consumers| consumers[signal as usize].is_some())
    }

    pub(crate) fn routing(&self) -> &Routing {
        &self.routing
    }

    /// Whether a route leads to a sink that takes the signal.
    pub(crate) fn is_claimed(&self, route: Route, signal: Signal) -> bool {
        let mut sinks = self.sinks.iter().enumerate();
        sinks.any(|(sink, consumers)| self.routing.takes(route, sink) && consumers[signal as usize].is_some())
    }

    /// Those that a route leads to.
    fn consumers(&mut self, route: Route, signal: Signal) -> impl Iterator<Item = &mut Consumer> {
        let routing = &self.routing;
        let sinks = self.sinks.iter_mut().enumerate().filter(move |(sink, _)| routing.takes(route, *sink));
        sinks.filter_map(move |(_, consumers)| consumers[signal as usize].as_mut())
    }

    fn consumer(&mut self, sink: usize, signal: Signal) -> &mut Consumer {
        self.sinks[sink][signal as usize].as_mut().expect("a loop only speaks of signals that its sink takes")
    }

    /// From now on what comes pushes nothing out.
    pub(crate) fn start_ending(&mut self, until: Instant) {
        self.phase = QueuePhase::Ending { until };
    }

    /// From now on nothing waits for its batch to grow.
    pub(crate) fn start_draining(&mut self) {
        self.phase = QueuePhase::Draining;
        Signal::ALL.into_iter().for_each(|signal| self.seal(signal));
        self.keep_own();
    }

    /// The oldest entry that `sink` has not done and whose signal is `ready` (not backing off).
    pub(crate) fn next(&mut self, sink: usize, ready: [bool; 3], now: Instant) -> NextBatch {
        let mut wake: Option<Instant> = None;
        for signal in Signal::ALL {
            if self.sinks[sink][signal as usize].is_none() || !ready[signal as usize] {
                continue;
            }
            self.skip_others(sink, signal);
            if let Some(due) = self.seal_due(signal, now) {
                wake = Some(wake.map_or(due, |wake| wake.min(due)));
            }
        }
        let oldest = Signal::ALL.into_iter().filter(|&s| ready[s as usize]).filter_map(|s| self.oldest(sink, s));
        if let Some((_, signal)) = oldest.min_by_key(|&(number, _)| number) {
            return self.take(sink, signal, now);
        }
        match wake {
            Some(wake) => NextBatch::WaitUntil(wake),
            None if matches!(self.phase, QueuePhase::Draining | QueuePhase::Closed) && self.is_done(sink) => {
                NextBatch::Finished
            }
            None => NextBatch::Wait,
        }
    }

    /// Passes over entries that are for others, so that they are looked at once.
    fn skip_others(&mut self, sink: usize, signal: Signal) {
        let Some(consumer) = &mut self.sinks[sink][signal as usize] else { return };
        let first = self.waiting[signal as usize].first_for(&self.routing, sink, consumer.next);
        consumer.next = first.map_or(self.next_number, |(number, _)| number);
    }

    fn oldest(&self, sink: usize, signal: Signal) -> Option<(u64, Signal)> {
        let consumer = self.sinks[sink][signal as usize].as_ref()?;
        let number = match &consumer.under_way {
            Some(entry) => entry.number,
            None => self.waiting[signal as usize].first_for(&self.routing, sink, consumer.next)?.0,
        };
        Some((number, signal))
    }

    fn is_done(&self, sink: usize) -> bool {
        Signal::ALL.into_iter().all(|signal| {
            self.oldest(sink, signal).is_none()
                && (self.sinks[sink][signal as usize].is_none() || self.waiting[signal as usize].growing.is_empty())
        })
    }

    fn take(&mut self, sink: usize, signal: Signal, now: Instant) -> NextBatch {
        let consumer = self.sinks[sink][signal as usize].as_mut().expect("oldest() found it there");
        consumer.busy_since.get_or_insert(now);
        if consumer.under_way.is_some() {
            return NextBatch::Resume(signal);
        }
        let entry = self.waiting[signal as usize].first_for(&self.routing, sink, consumer.next);
        let (number, entry) = entry.expect("oldest() found it there");
        consumer.next = number + 1;
        consumer.under_way = Some(UnderWay { number, bytes: entry.bytes, items: entry.items });
        NextBatch::Take(Taken { signal, items: entry.items, body: entry.body.clone() })
    }

    /// Part of the taken entry reached the sink, but for what was `lost` of it.
    pub(crate) fn delivered(&mut self, sink: usize, signal: Signal, items: u64, lost: &[Lost]) {
        let consumer = self.consumer(sink, signal);
        consumer.progress(items);
        let mut left = items;
        for lost in lost {
            // A peer may name more than it was sent.
            let items = lost.items.min(left);
            consumer.tally.discard(items, lost.why);
            left -= items;
        }
        consumer.tally.queued -= left;
        consumer.tally.delivered += left;
    }

    /// Part of the taken entry will never reach the sink.
    pub(crate) fn discarded(&mut self, sink: usize, signal: Signal, items: u64, why: Discard) {
        let consumer = self.consumer(sink, signal);
        consumer.progress(items);
        consumer.tally.discard(items, why);
    }

    /// All of the taken entry is delivered or discarded.
    pub(crate) fn done(&mut self, sink: usize, signal: Signal) {
        let consumer = self.consumer(sink, signal);
        let entry = consumer.under_way.take().expect("a loop finishes what it took");
        consumer.tally.queued_bytes -= entry.bytes as u64;
        // What it passed over is not for it, so nothing else can be done with now.
        let waiting = &self.waiting[signal as usize];
        let is_over = |queued: &QueuedBatch| self.waits_for(signal, entry.number, queued).next().is_none();
        if waiting.get(entry.number).is_some_and(is_over) {
            self.waiting[signal as usize].remove(entry.number);
        }
    }

    /// At the end: what is not on disk, under way included, is discarded; so is what comes later.
    /// Returns what each sink lost.
    pub(crate) fn close(&mut self) -> Vec<LostAtEnd> {
        self.phase = QueuePhase::Closed;
        let mut lost = Vec::new();
        for signal in Signal::ALL {
            let waiting = &mut self.waiting[signal as usize];
            let mut gone = std::mem::take(&mut waiting.memory);
            waiting.held = 0;
            gone.retain(|_, entry| !entry.durable);
            for (sink, consumers) in self.sinks.iter_mut().enumerate() {
                let Some(consumer) = consumers[signal as usize].as_mut() else { continue };
                let rest = waiting.since(consumer.next).filter(|entry| self.routing.takes(entry.route, sink));
                let (mut items, mut bytes) = rest.fold((0, 0), |(i, b), e| (i + e.items, b + e.bytes as u64));
                if let Some(entry) = consumer.under_way.as_ref().filter(|entry| waiting.get(entry.number).is_some()) {
                    items += entry.items;
                    bytes += entry.bytes as u64;
                }
                let superseded: u64 = gone.range(consumer.cursor()..).map(|(_, entry)| entry.items).sum();
                let items = consumer.tally.queued - items;
                consumer.tally.discard(items, Discard::Shutdown);
                consumer.tally.queued_bytes = bytes;
                let superseded = superseded.min(items);
                lost.extend((items > 0).then_some(LostAtEnd { sink, signal, items, superseded }));
            }
        }
        lost
    }

    /// Bytes of memory that it may use.
    pub(crate) fn quota(&self) -> usize {
        self.waiting.iter().map(|waiting| waiting.quota).sum()
    }

    /// Bytes of bodies per signal: in memory, and on disk.
    pub(crate) fn held(&self) -> [[u64; 3]; 2] {
        [std::array::from_fn(|s| self.waiting[s].held as u64), std::array::from_fn(|s| self.waiting[s].on_disk)]
    }

    /// Bytes that wait for a sink, and how many more of the signal can wait: in memory, or on a disk of
    /// so many.
    pub(crate) fn waits(&self, sink: usize, signal: Signal, disk: Option<u64>) -> (u64, u64) {
        let waiting = &self.waiting[signal as usize];
        let queued = self.sinks[sink][signal as usize].as_ref().map_or(0, |consumer| consumer.tally.queued_bytes);
        let in_memory = waiting.quota.saturating_sub(waiting.held) as u64;
        (queued, disk.map_or(in_memory, |disk| disk.saturating_sub(waiting.on_disk)))
    }

    /// The accounts of every consumer, and of signals that no sink takes.
    pub(crate) fn rows(&self, names: &[String]) -> Vec<AccountRow> {
        let mut rows = Vec::new();
        for (name, consumers) in names.iter().zip(&self.sinks) {
            for (signal, consumer) in Signal::ALL.into_iter().zip(consumers) {
                rows.extend(consumer.as_ref().map(|consumer| AccountRow {
                    sink: name.clone(),
                    signal,
                    tally: consumer.tally.clone(),
                }));
            }
        }
        for signal in Signal::ALL {
            let items = self.unclaimed[signal as usize];
            if items > 0 {
                let tally = Tally::unclaimed(items);
                rows.push(AccountRow { sink: "none".to_owned(), signal, tally });
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests;
