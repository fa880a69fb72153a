//! The queue between the shards and the sinks: every entry once, a cursor per sink and signal, and
//! the books. No clock, no I/O, nothing waits; [`super::Delivery`] puts it behind a mutex.
//!
//! Entries of all signals share one numbering, so a sink takes them in the order in which they came.
//! A lane is what one sink has to do with one signal. For every lane, at any moment,
//! `pushed + recovered = delivered + queued + discarded`.

use super::{
    batch::{BatchLimits, Growing},
    sink::Batch,
    spool::Location,
};
use crate::trace::Signal;
use bytes::Bytes;
use std::{collections::VecDeque, time::SystemTime};
use tokio::time::Instant;

/// What an entry costs besides its body, so that many tiny ones are bounded too.
const ENTRY_OVERHEAD: usize = 128;

/// Why items did not reach a sink.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Discard {
    /// No sink takes the signal.
    NoSink,
    /// The signal's quota was used up before the sink came to them.
    QueueFull,
    /// The sink will never take this batch.
    Refused,
    /// A single item that is larger than the sink takes.
    TooLarge,
    /// The sink took the batch without them (`partial_success`).
    Rejected,
    /// Their place in the spool cannot be read any more.
    Corrupt,
    /// The process ended before the sink took them, and there is no spool.
    Shutdown,
}

impl Discard {
    pub const ALL: [Discard; 7] = [
        Discard::NoSink,
        Discard::QueueFull,
        Discard::Refused,
        Discard::TooLarge,
        Discard::Rejected,
        Discard::Corrupt,
        Discard::Shutdown,
    ];

    pub fn word(self) -> &'static str {
        ["no_sink", "queue_full", "refused", "too_large", "rejected", "corrupt", "shutdown"][self as usize]
    }
}

/// The books of one lane. All but `queued` and `queued_bytes` only ever grow.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Items handed to [`super::Delivery::push`].
    pub pushed: u64,
    /// Items found in the spool at start.
    pub recovered: u64,
    pub delivered: u64,
    /// Items that wait or are under way.
    pub queued: u64,
    pub queued_bytes: u64,
    discarded: [u64; Discard::ALL.len()],
    /// Why the last attempt failed; none after a success.
    pub last_error: Option<String>,
    pub last_success: Option<SystemTime>,
}

impl Tally {
    pub fn discarded(&self, why: Discard) -> u64 {
        self.discarded[why as usize]
    }

    /// `pushed + recovered = delivered + queued + discarded`.
    pub fn balances(&self) -> bool {
        self.pushed + self.recovered == self.delivered + self.queued + self.discarded.iter().sum::<u64>()
    }

    fn discard(&mut self, items: u64, why: Discard) {
        self.queued -= items;
        self.discarded[why as usize] += items;
    }
}

/// A lane's books with its name.
#[derive(Clone, Debug)]
pub struct Row {
    /// `none` for a signal that no sink takes.
    pub sink: String,
    pub signal: Signal,
    pub tally: Tally,
}

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
}

impl Log {
    fn new(limits: BatchLimits, quota: usize) -> Log {
        let limits = BatchLimits { bytes: limits.bytes.min(quota / 4), ..limits };
        Log { entries: VecDeque::new(), growing: None, limits, held: 0, quota }
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

    /// The largest piece that [`Queue::push`] should get.
    pub(crate) fn piece_max(&self, signal: Signal) -> usize {
        self.logs[signal as usize].limits.bytes
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
            lane.tally.queued_bytes += bytes as u64;
        }
        if self.phase == Phase::Closed {
            self.discard_pushed(signal, items, bytes, Discard::Shutdown);
            return Pushed::default();
        }
        let (fits, lost) = self.make_room(signal, bytes + ENTRY_OVERHEAD);
        if !fits {
            self.discard_pushed(signal, items, bytes, Discard::QueueFull);
            return Pushed { lost: lost + items, ..Pushed::default() };
        }
        Pushed { wake: self.append(piece, own, now), lost, first_unclaimed: false }
    }

    fn discard_pushed(&mut self, signal: Signal, items: u64, bytes: usize, why: Discard) {
        for lane in self.lanes(signal) {
            lane.tally.discard(items, why);
            lane.tally.queued_bytes -= bytes as u64;
        }
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
        log.held += piece.body.len() + if opened { ENTRY_OVERHEAD } else { 0 };
        let growing = log.growing.get_or_insert_with(|| Growing::new(now));
        growing.append(&piece);
        let full_now = growing.is_full(&log.limits);
        if full_now {
            self.seal(signal);
        }
        full || opened || full_now
    }

    fn seal(&mut self, signal: Signal) {
        let log = &mut self.logs[signal as usize];
        if let Some(growing) = log.growing.take() {
            log.held -= growing.bytes() + ENTRY_OVERHEAD;
            self.add_entry(growing.seal(signal), true);
        }
    }

    fn add_entry(&mut self, batch: Batch, durable: bool) {
        let number = self.next_number;
        self.next_number += 1;
        let entry =
            Entry { number, items: batch.items, bytes: batch.body.len(), durable, body: Body::Memory(batch.body) };
        let log = &mut self.logs[batch.signal as usize];
        log.held += entry.held();
        log.entries.push_back(entry);
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
    fn discard_entry(&mut self, signal: Signal, index: usize) -> u64 {
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
            let log = &self.logs[signal as usize];
            match log.growing.as_ref().map(|growing| growing.due(&log.limits)) {
                Some(due) if due <= now || self.phase != Phase::Open => self.seal(signal),
                Some(due) => wake = Some(wake.map_or(due, |wake| wake.min(due))),
                None => {}
            }
        }
        let oldest = Signal::ALL.into_iter().filter(|&s| ready[s as usize]).filter_map(|s| self.oldest(sink, s));
        if let Some((_, signal)) = oldest.min_by_key(|&(number, _)| number) {
            return self.take(sink, signal);
        }
        match wake {
            Some(wake) => Next::WaitUntil(wake),
            None if self.phase != Phase::Open && self.is_done(sink) => Next::Finished,
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

    /// Part of the taken entry reached the sink, `rejected` items of it in vain.
    pub(crate) fn delivered(&mut self, sink: usize, signal: Signal, items: u64, rejected: u64, at: SystemTime) {
        let lane = self.lane(sink, signal);
        lane.progress(items);
        let tally = &mut lane.tally;
        let rejected = rejected.min(items);
        tally.queued -= items - rejected;
        tally.delivered += items - rejected;
        tally.discard(rejected, Discard::Rejected);
        tally.last_error = None;
        tally.last_success = Some(at);
    }

    /// Part of the taken entry will never reach the sink.
    pub(crate) fn discarded(&mut self, sink: usize, signal: Signal, items: u64, why: Discard) {
        let lane = self.lane(sink, signal);
        lane.progress(items);
        lane.tally.discard(items, why);
    }

    pub(crate) fn failed(&mut self, sink: usize, signal: Signal, reason: String) {
        self.lane(sink, signal).tally.last_error = Some(reason);
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
    /// Returns the items, summed over sinks.
    pub(crate) fn close(&mut self) -> u64 {
        self.phase = Phase::Closed;
        let mut lost = 0;
        for signal in Signal::ALL {
            let log = &mut self.logs[signal as usize];
            log.entries.retain(|entry| matches!(entry.body, Body::Disk(_)));
            log.held = 0;
            for lane in self.sinks.iter_mut().filter_map(|lanes| lanes[signal as usize].as_mut()) {
                let waiting = log.entries.iter().filter(|entry| entry.number >= lane.next);
                let (mut items, mut bytes) = waiting.fold((0, 0), |(i, b), e| (i + e.items, b + e.bytes as u64));
                let on_disk = |number| log.entries.binary_search_by_key(&number, |e| e.number).is_ok();
                if let Some(entry) = lane.under_way.as_ref().filter(|entry| on_disk(entry.number)) {
                    items += entry.items;
                    bytes += entry.bytes as u64;
                }
                lost += lane.tally.queued - items;
                lane.tally.discard(lane.tally.queued - items, Discard::Shutdown);
                lane.tally.queued_bytes = bytes;
            }
        }
        lost
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
                let mut tally = Tally { pushed: items, queued: items, ..Tally::default() };
                tally.discard(items, Discard::NoSink);
                rows.push(Row { sink: "none".to_owned(), signal, tally });
            }
        }
        rows
    }
}

/// What the spool's writer does with the queue.
impl Queue {
    /// An entry that the spool held at start. Entries must come in order of their numbers.
    pub(crate) fn recover(&mut self, signal: Signal, number: u64, items: u64, location: Location) {
        self.next_number = self.next_number.max(number + 1);
        if !self.takes(signal) {
            self.unclaimed[signal as usize] += items;
            return;
        }
        let bytes = location.bytes();
        for lane in self.lanes(signal).filter(|lane| lane.next <= number) {
            lane.tally.recovered += items;
            lane.tally.queued += items;
            lane.tally.queued_bytes += bytes as u64;
        }
        let entry = Entry { number, items, bytes, durable: true, body: Body::Disk(location) };
        self.logs[signal as usize].entries.push_back(entry);
        self.forget_done(signal);
    }

    /// Where a sink goes on after a restart; before any [`Queue::recover`].
    pub(crate) fn set_cursor(&mut self, sink: usize, signal: Signal, number: u64) {
        self.next_number = self.next_number.max(number);
        if let Some(lane) = &mut self.sinks[sink][signal as usize] {
            lane.next = number;
        }
    }

    /// Per sink and signal: the first entry that is not done.
    pub(crate) fn cursors(&self) -> Vec<[Option<u64>; 3]> {
        self.sinks.iter().map(|lanes| std::array::from_fn(|s| lanes[s].as_ref().map(Lane::cursor))).collect()
    }

    /// Entries that are not on disk yet, oldest first, up to about `bytes`.
    pub(crate) fn unwritten(&self, signal: Signal, mut bytes: usize) -> Vec<(u64, u64, Bytes)> {
        let mut found = Vec::new();
        for entry in self.logs[signal as usize].entries.iter().filter(|entry| entry.durable) {
            if let Body::Memory(body) = &entry.body {
                found.push((entry.number, entry.items, body.clone()));
                bytes = bytes.saturating_sub(body.len());
            }
            if bytes == 0 {
                break;
            }
        }
        found
    }

    /// The entry's bytes are safe on disk; those in memory are let go.
    pub(crate) fn written(&mut self, signal: Signal, number: u64, location: Location) {
        let log = &mut self.logs[signal as usize];
        let index = log.entries.partition_point(|e| e.number < number);
        if let Some(entry) = log.entries.get_mut(index).filter(|e| e.number == number) {
            log.held -= entry.held();
            entry.body = Body::Disk(location);
        }
    }

    /// The spool dropped its entries up to `last` to stay within its size. Returns the items lost.
    pub(crate) fn dropped_on_disk(&mut self, signal: Signal, last: u64) -> u64 {
        let mut lost = 0;
        let is_dropped = |e: &Entry| e.number <= last && matches!(e.body, Body::Disk(_));
        while let Some(index) = self.logs[signal as usize].entries.iter().position(is_dropped) {
            lost += self.discard_entry(signal, index);
        }
        lost
    }
}

#[cfg(test)]
mod tests;
