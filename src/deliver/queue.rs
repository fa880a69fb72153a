//! The queue between the shards and the sinks: every entry once, a cursor per sink and signal, and
//! the accounts. No clock, no I/O, nothing waits; [`super::Delivery`] puts it behind a mutex.
//!
//! Entries of all signals share one numbering, so a sink takes them in the order in which they came.
//! A consumer is what one sink has to do with one signal. Traces are for the sinks of their route alone, which the
//! others pass over. For every consumer, at any moment,
//! `pushed + recovered = delivered + queued + discarded`.

mod account;
mod persist;
mod push;

pub use account::{AccountRow, Discard, Tally};
pub(crate) use push::Pushed;

use super::{
    batch::{BatchLimits, Growing},
    routing::{Route, Routing},
    sink::Lost,
    spool::Location,
};
use crate::trace::Signal;
use bytes::Bytes;
use std::collections::VecDeque;
use tokio::time::Instant;

/// What an entry costs besides its body, so that many tiny ones are bounded too.
pub(super) const ENTRY_OVERHEAD: usize = 128;

/// Where an entry's bytes are.
#[derive(Clone, Debug)]
pub(crate) enum StoredBody {
    Memory(Bytes),
    Disk(Location),
}

#[derive(Debug)]
struct QueuedBatch {
    number: u64,
    items: u64,
    bytes: usize,
    /// The sinks that it is for.
    route: Route,
    /// May go to the spool.
    durable: bool,
    body: StoredBody,
}

impl QueuedBatch {
    /// Bytes of the memory quota that it uses.
    fn held(&self) -> usize {
        match self.body {
            StoredBody::Memory(_) => self.bytes + ENTRY_OVERHEAD,
            StoredBody::Disk(_) => 0,
        }
    }
}

/// The entries of one signal, in order of their numbers.
#[derive(Debug)]
struct SignalQueue {
    entries: VecDeque<QueuedBatch>,
    /// One for each route that something came for.
    growing: Vec<(Route, Growing)>,
    limits: BatchLimits,
    /// Bytes of bodies in memory; at most `quota`.
    held: usize,
    quota: usize,
    /// Entries below were dropped from the disk to stay within its size.
    dropped: u64,
    /// Entries below were given to the disk, if they may be there.
    given: u64,
}

impl SignalQueue {
    fn new(limits: BatchLimits, quota: usize) -> SignalQueue {
        let limits = BatchLimits { bytes: limits.bytes.min(quota / 4), ..limits };
        SignalQueue { entries: VecDeque::new(), growing: Vec::new(), limits, held: 0, quota, dropped: 0, given: 0 }
    }

    /// Bytes of bodies on disk.
    fn on_disk(&self) -> u64 {
        self.entries.iter().filter(|entry| entry.held() == 0).map(|entry| entry.bytes as u64).sum()
    }

    /// The first entry from a number on that is for a sink.
    fn first_for(&self, routing: &Routing, sink: usize, number: u64) -> Option<&QueuedBatch> {
        let mut rest = self.entries.range(self.entries.partition_point(|e| e.number < number)..);
        rest.find(|entry| routing.takes(entry.route, sink))
    }
}

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
    tally: Tally,
}

impl Consumer {
    /// All entries below are done with.
    fn cursor(&self) -> u64 {
        self.under_way.as_ref().map_or(self.next, |entry| entry.number)
    }

    /// Part of the entry under way was delivered or discarded.
    fn progress(&mut self, items: u64) {
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
pub(crate) struct Gone {
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
    /// What no sink is ready for is discarded itself, instead of what is older.
    Ending,
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
    pub(crate) fn start_ending(&mut self) {
        self.phase = QueuePhase::Ending;
    }

    /// From now on nothing waits for its batch to grow.
    pub(crate) fn start_draining(&mut self) {
        self.phase = QueuePhase::Draining;
        Signal::ALL.into_iter().for_each(|signal| self.seal(signal));
        self.keep_own();
    }

    /// Whether so many bytes more push out nothing that some sink is about to take.
    pub(crate) fn is_ready_for(&self, route: Route, signal: Signal, bytes: usize) -> bool {
        let waiting = &self.waiting[signal as usize];
        let mut consumers =
            self.sinks.iter().enumerate().filter_map(|(sink, all)| Some((sink, all[signal as usize].as_ref()?)));
        let is_idle = |(sink, consumer): (usize, &Consumer)| {
            self.routing.takes(route, sink)
                && consumer.under_way.is_none()
                && waiting.first_for(&self.routing, sink, consumer.next).is_none()
        };
        waiting.held + bytes + ENTRY_OVERHEAD <= waiting.quota
            || waiting.growing.is_empty() && consumers.any(is_idle)
            || !self.takes(signal)
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
            return self.take(sink, signal);
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
        consumer.next = first.map_or(self.next_number, |entry| entry.number);
    }

    fn oldest(&self, sink: usize, signal: Signal) -> Option<(u64, Signal)> {
        let consumer = self.sinks[sink][signal as usize].as_ref()?;
        let number = match &consumer.under_way {
            Some(entry) => entry.number,
            None => self.waiting[signal as usize].first_for(&self.routing, sink, consumer.next)?.number,
        };
        Some((number, signal))
    }

    fn is_done(&self, sink: usize) -> bool {
        Signal::ALL.into_iter().all(|signal| {
            self.oldest(sink, signal).is_none()
                && (self.sinks[sink][signal as usize].is_none() || self.waiting[signal as usize].growing.is_empty())
        })
    }

    fn take(&mut self, sink: usize, signal: Signal) -> NextBatch {
        let consumer = self.sinks[sink][signal as usize].as_mut().expect("oldest() found it there");
        if consumer.under_way.is_some() {
            return NextBatch::Resume(signal);
        }
        let entry = self.waiting[signal as usize].first_for(&self.routing, sink, consumer.next);
        let entry = entry.expect("oldest() found it there");
        consumer.next = entry.number + 1;
        consumer.under_way = Some(UnderWay { number: entry.number, bytes: entry.bytes, items: entry.items });
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
        self.forget_done(signal);
    }

    /// Drops entries that every consumer is done with.
    fn forget_done(&mut self, signal: Signal) {
        let (sinks, routing) = (&self.sinks, &self.routing);
        let is_needed = |entry: &QueuedBatch| {
            let mut consumers = sinks.iter().enumerate().filter(|(sink, _)| routing.takes(entry.route, *sink));
            consumers.any(|(_, all)| all[signal as usize].as_ref().is_some_and(|c| c.cursor() <= entry.number))
        };
        let waiting = &mut self.waiting[signal as usize];
        while waiting.entries.front().is_some_and(|entry| !is_needed(entry)) {
            let entry = waiting.entries.pop_front().expect("it is there");
            waiting.held -= entry.held();
        }
        // One that is for others than those that the first waits for may stand behind it.
        if routing.is_split() {
            waiting.entries.retain(|entry| {
                let is_needed = is_needed(entry);
                waiting.held -= if is_needed { 0 } else { entry.held() };
                is_needed
            });
        }
    }

    /// At the end: what is not on disk, under way included, is discarded; so is what comes later.
    /// Returns what each sink lost.
    pub(crate) fn close(&mut self) -> Vec<Gone> {
        self.phase = QueuePhase::Closed;
        let mut lost = Vec::new();
        for signal in Signal::ALL {
            let waiting = &mut self.waiting[signal as usize];
            let (kept, gone) =
                std::mem::take(&mut waiting.entries).into_iter().partition(|e| matches!(e.body, StoredBody::Disk(_)));
            (waiting.entries, waiting.held) = (kept, 0);
            let own: Vec<QueuedBatch> = VecDeque::into_iter(gone).filter(|entry| !entry.durable).collect();
            for (sink, consumers) in self.sinks.iter_mut().enumerate() {
                let Some(consumer) = consumers[signal as usize].as_mut() else { continue };
                let is_left =
                    |entry: &&QueuedBatch| entry.number >= consumer.next && self.routing.takes(entry.route, sink);
                let rest = waiting.entries.iter().filter(is_left);
                let (mut items, mut bytes) = rest.fold((0, 0), |(i, b), e| (i + e.items, b + e.bytes as u64));
                let on_disk = |number| waiting.entries.binary_search_by_key(&number, |e| e.number).is_ok();
                if let Some(entry) = consumer.under_way.as_ref().filter(|entry| on_disk(entry.number)) {
                    items += entry.items;
                    bytes += entry.bytes as u64;
                }
                let superseded: u64 =
                    own.iter().filter(|e| e.number >= consumer.cursor()).map(|entry| entry.items).sum();
                let items = consumer.tally.queued - items;
                consumer.tally.discard(items, Discard::Shutdown);
                consumer.tally.queued_bytes = bytes;
                let superseded = superseded.min(items);
                lost.extend((items > 0).then_some(Gone { sink, signal, items, superseded }));
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
        [std::array::from_fn(|s| self.waiting[s].held as u64), std::array::from_fn(|s| self.waiting[s].on_disk())]
    }

    /// Bytes that wait for a sink, and how many more of the signal can wait: in memory, or on a disk of
    /// so many.
    pub(crate) fn waits(&self, sink: usize, signal: Signal, disk: Option<u64>) -> (u64, u64) {
        let waiting = &self.waiting[signal as usize];
        let queued = self.sinks[sink][signal as usize].as_ref().map_or(0, |consumer| consumer.tally.queued_bytes);
        let in_memory = (waiting.quota - waiting.held) as u64;
        (queued, disk.map_or(in_memory, |disk| disk.saturating_sub(waiting.on_disk())))
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
