//! The queue between the shards and the sinks: every entry once, a cursor per sink and signal, and
//! the books. No clock, no I/O, nothing waits; [`super::Delivery`] puts it behind a mutex.
//!
//! Entries of all signals share one numbering, so a sink takes them in the order in which they came.
//! A lane is what one sink has to do with one signal. For every lane, at any moment,
//! `pushed + recovered = delivered + queued + discarded`.

mod books;
mod persist;
mod push;

pub use books::{Discard, Row, Tally};
pub(crate) use push::Pushed;

use super::{
    batch::{BatchLimits, Growing},
    sink::Lost,
    spool::Location,
};
use crate::trace::Signal;
use bytes::Bytes;
use std::collections::VecDeque;
use tokio::time::Instant;

/// What an entry costs besides its body, so that many tiny ones are bounded too.
const ENTRY_OVERHEAD: usize = 128;

/// Where an entry's bytes are.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    Memory(Bytes),
    Disk(Location),
}

#[derive(Debug)]
struct Entry {
    number: u64,
    items: u64,
    bytes: usize,
    /// May go to the spool.
    durable: bool,
    body: Body,
}

impl Entry {
    /// Bytes of the memory quota that it uses.
    fn held(&self) -> usize {
        match self.body {
            Body::Memory(_) => self.bytes + ENTRY_OVERHEAD,
            Body::Disk(_) => 0,
        }
    }
}

/// The entries of one signal, in order of their numbers.
#[derive(Debug)]
struct Log {
    entries: VecDeque<Entry>,
    growing: Option<Growing>,
    limits: BatchLimits,
    /// Bytes of bodies in memory; at most `quota`.
    held: usize,
    quota: usize,
    /// Entries below were dropped from the disk to stay within its size.
    dropped: u64,
}

impl Log {
    fn new(limits: BatchLimits, quota: usize) -> Log {
        let limits = BatchLimits { bytes: limits.bytes.min(quota / 4), ..limits };
        Log { entries: VecDeque::new(), growing: None, limits, held: 0, quota, dropped: 0 }
    }

    /// Bytes of bodies on disk.
    fn on_disk(&self) -> u64 {
        self.entries.iter().filter(|entry| entry.held() == 0).map(|entry| entry.bytes as u64).sum()
    }

    fn first_from(&self, number: u64) -> Option<&Entry> {
        self.entries.get(self.entries.partition_point(|e| e.number < number))
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
struct Lane {
    /// Number of the first entry that it has not taken.
    next: u64,
    under_way: Option<UnderWay>,
    tally: Tally,
}

impl Lane {
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
    pub(crate) body: Body,
}

/// What a sink's loop does next.
#[derive(Debug)]
pub(crate) enum Next {
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
    logs: [Log; 3],
    sinks: Vec<[Option<Lane>; 3]>,
    /// Items of signals that no sink takes.
    unclaimed: [u64; 3],
    next_number: u64,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// What has no room is discarded itself, instead of what is older.
    Ending,
    /// Nothing waits for its batch to grow.
    Draining,
    /// What comes now is discarded: nobody takes it any more.
    Closed,
}

impl Queue {
    /// `takes[sink][signal]`; `quotas` are bytes of memory per signal.
    pub(crate) fn new(limits: BatchLimits, quotas: [usize; 3], takes: &[[bool; 3]]) -> Queue {
        let lanes = |takes: &[bool; 3]| takes.map(|takes| takes.then(Lane::default));
        Queue {
            logs: quotas.map(|quota| Log::new(limits, quota)),
            sinks: takes.iter().map(lanes).collect(),
            unclaimed: [0; 3],
            next_number: 0,
            phase: Phase::Open,
        }
    }

    /// How large the pieces should be that [`Queue::push`] gets.
    pub(crate) fn limits(&self, signal: Signal) -> BatchLimits {
        self.logs[signal as usize].limits
    }

    pub(crate) fn takes(&self, signal: Signal) -> bool {
        self.sinks.iter().any(|lanes| lanes[signal as usize].is_some())
    }

    fn lanes(&mut self, signal: Signal) -> impl Iterator<Item = &mut Lane> {
        self.sinks.iter_mut().filter_map(move |lanes| lanes[signal as usize].as_mut())
    }

    fn lane(&mut self, sink: usize, signal: Signal) -> &mut Lane {
        self.sinks[sink][signal as usize].as_mut().expect("a loop only speaks of signals that its sink takes")
    }

    /// From now on what comes pushes nothing out.
    pub(crate) fn start_ending(&mut self) {
        self.phase = Phase::Ending;
    }

    /// Whether a piece of so many bytes pushes nothing out. An empty queue takes what it can.
    pub(crate) fn has_room(&self, signal: Signal, bytes: usize) -> bool {
        let log = &self.logs[signal as usize];
        log.held == 0 || log.held + bytes + ENTRY_OVERHEAD <= log.quota || !self.takes(signal)
    }

    /// From now on nothing waits for its batch to grow.
    pub(crate) fn start_draining(&mut self) {
        self.phase = Phase::Draining;
        Signal::ALL.into_iter().for_each(|signal| self.seal(signal));
    }

    /// The oldest entry that `sink` has not done and whose signal is `ready` (not backing off).
    pub(crate) fn next(&mut self, sink: usize, ready: [bool; 3], now: Instant) -> Next {
        let mut wake: Option<Instant> = None;
        for signal in Signal::ALL {
            if self.sinks[sink][signal as usize].is_none() || !ready[signal as usize] {
                continue;
            }
            if let Some(due) = self.seal_due(signal, now) {
                wake = Some(wake.map_or(due, |wake| wake.min(due)));
            }
        }
        let oldest = Signal::ALL.into_iter().filter(|&s| ready[s as usize]).filter_map(|s| self.oldest(sink, s));
        if let Some((_, signal)) = oldest.min_by_key(|&(number, _)| number) {
            return self.take(sink, signal);
        }
        match wake {
            Some(wake) => Next::WaitUntil(wake),
            None if matches!(self.phase, Phase::Draining | Phase::Closed) && self.is_done(sink) => Next::Finished,
            None => Next::Wait,
        }
    }

    fn oldest(&self, sink: usize, signal: Signal) -> Option<(u64, Signal)> {
        let lane = self.sinks[sink][signal as usize].as_ref()?;
        let number = match &lane.under_way {
            Some(entry) => entry.number,
            None => self.logs[signal as usize].first_from(lane.next)?.number,
        };
        Some((number, signal))
    }

    fn is_done(&self, sink: usize) -> bool {
        Signal::ALL.into_iter().all(|signal| {
            self.oldest(sink, signal).is_none()
                && (self.sinks[sink][signal as usize].is_none() || self.logs[signal as usize].growing.is_none())
        })
    }

    fn take(&mut self, sink: usize, signal: Signal) -> Next {
        let lane = self.sinks[sink][signal as usize].as_mut().expect("oldest() found it there");
        if lane.under_way.is_some() {
            return Next::Resume(signal);
        }
        let entry = self.logs[signal as usize].first_from(lane.next).expect("oldest() found it there");
        lane.next = entry.number + 1;
        lane.under_way = Some(UnderWay { number: entry.number, bytes: entry.bytes, items: entry.items });
        Next::Take(Taken { signal, items: entry.items, body: entry.body.clone() })
    }

    /// Part of the taken entry reached the sink, but for what was `lost` of it.
    pub(crate) fn delivered(&mut self, sink: usize, signal: Signal, items: u64, lost: &[Lost]) {
        let lane = self.lane(sink, signal);
        lane.progress(items);
        let mut left = items;
        for lost in lost {
            // A peer may name more than it was sent.
            let items = lost.items.min(left);
            lane.tally.discard(items, lost.why);
            left -= items;
        }
        lane.tally.queued -= left;
        lane.tally.delivered += left;
    }

    /// Part of the taken entry will never reach the sink.
    pub(crate) fn discarded(&mut self, sink: usize, signal: Signal, items: u64, why: Discard) {
        let lane = self.lane(sink, signal);
        lane.progress(items);
        lane.tally.discard(items, why);
    }

    /// All of the taken entry is delivered or discarded.
    pub(crate) fn done(&mut self, sink: usize, signal: Signal) {
        let lane = self.lane(sink, signal);
        let entry = lane.under_way.take().expect("a loop finishes what it took");
        lane.tally.queued_bytes -= entry.bytes as u64;
        self.forget_done(signal);
    }

    /// Drops entries that every lane is done with.
    fn forget_done(&mut self, signal: Signal) {
        let Some(done) = self.lanes(signal).map(|lane| lane.cursor()).min() else { return };
        let log = &mut self.logs[signal as usize];
        while log.entries.front().is_some_and(|entry| entry.number < done) {
            let entry = log.entries.pop_front().expect("it is there");
            log.held -= entry.held();
        }
    }

    /// At the end: what is not on disk, under way included, is discarded; so is what comes later.
    /// Returns what each sink lost.
    pub(crate) fn close(&mut self) -> Vec<(usize, Signal, u64)> {
        self.phase = Phase::Closed;
        let mut lost = Vec::new();
        for signal in Signal::ALL {
            let log = &mut self.logs[signal as usize];
            log.entries.retain(|entry| matches!(entry.body, Body::Disk(_)));
            log.held = 0;
            for (sink, lanes) in self.sinks.iter_mut().enumerate() {
                let Some(lane) = lanes[signal as usize].as_mut() else { continue };
                let waiting = log.entries.iter().filter(|entry| entry.number >= lane.next);
                let (mut items, mut bytes) = waiting.fold((0, 0), |(i, b), e| (i + e.items, b + e.bytes as u64));
                let on_disk = |number| log.entries.binary_search_by_key(&number, |e| e.number).is_ok();
                if let Some(entry) = lane.under_way.as_ref().filter(|entry| on_disk(entry.number)) {
                    items += entry.items;
                    bytes += entry.bytes as u64;
                }
                let gone = lane.tally.queued - items;
                lane.tally.discard(gone, Discard::Shutdown);
                lane.tally.queued_bytes = bytes;
                lost.extend((gone > 0).then_some((sink, signal, gone)));
            }
        }
        lost
    }

    /// Bytes of memory that it may use.
    pub(crate) fn quota(&self) -> usize {
        self.logs.iter().map(|log| log.quota).sum()
    }

    /// Bytes of bodies per signal: in memory, and on disk.
    pub(crate) fn held(&self) -> [[u64; 3]; 2] {
        [std::array::from_fn(|s| self.logs[s].held as u64), std::array::from_fn(|s| self.logs[s].on_disk())]
    }

    /// Bytes that wait for a sink, and how many more of the signal can wait: in memory, or on a disk of
    /// so many.
    pub(crate) fn waits(&self, sink: usize, signal: Signal, disk: Option<u64>) -> (u64, u64) {
        let log = &self.logs[signal as usize];
        let queued = self.sinks[sink][signal as usize].as_ref().map_or(0, |lane| lane.tally.queued_bytes);
        let in_memory = (log.quota - log.held) as u64;
        (queued, disk.map_or(in_memory, |disk| disk.saturating_sub(log.on_disk())))
    }

    /// The books of every lane, and of signals that no sink takes.
    pub(crate) fn rows(&self, names: &[String]) -> Vec<Row> {
        let mut rows = Vec::new();
        for (name, lanes) in names.iter().zip(&self.sinks) {
            for (signal, lane) in Signal::ALL.into_iter().zip(lanes) {
                rows.extend(lane.as_ref().map(|lane| Row { sink: name.clone(), signal, tally: lane.tally.clone() }));
            }
        }
        for signal in Signal::ALL {
            let items = self.unclaimed[signal as usize];
            if items > 0 {
                let tally = Tally::unclaimed(items);
                rows.push(Row { sink: "none".to_owned(), signal, tally });
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests;
