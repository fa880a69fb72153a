//! What became of the items of one sink and signal, exactly.

use crate::trace::Signal;

/// Why items did not reach a sink.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Discard {
    /// No sink takes the signal.
    NoSink,
    /// The signal's quota was used up before the sink came to them.
    QueueFull,
    /// The sink will never take this batch, or this part of it.
    Refused,
    /// A single item that is larger than the sink takes.
    TooLarge,
    /// The sink took the batch without them (`partial_success`), or has no form for them.
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

/// The accounts of one consumer. All but `queued` and `queued_bytes` only ever grow.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Items handed to [`crate::deliver::Delivery::push`].
    pub pushed: u64,
    /// Items found in the spool at start.
    pub recovered: u64,
    pub delivered: u64,
    /// Items that wait or are under way.
    pub queued: u64,
    pub queued_bytes: u64,
    discarded: [u64; Discard::ALL.len()],
}

impl Tally {
    pub fn discarded(&self, why: Discard) -> u64 {
        self.discarded[why as usize]
    }

    /// `pushed + recovered = delivered + queued + discarded`.
    pub fn balances(&self) -> bool {
        self.pushed + self.recovered == self.delivered + self.queued + self.discarded.iter().sum::<u64>()
    }

    /// Of items that no sink takes.
    pub(super) fn unclaimed(items: u64) -> Tally {
        let mut tally = Tally { pushed: items, queued: items, ..Tally::default() };
        tally.discard(items, Discard::NoSink);
        tally
    }

    pub(super) fn discard(&mut self, items: u64, why: Discard) {
        self.queued -= items;
        self.discarded[why as usize] += items;
    }
}

/// A consumer's accounts with its name.
#[derive(Clone, Debug)]
pub struct AccountRow {
    /// `none` for a signal that no sink takes.
    pub sink: String,
    pub signal: Signal,
    pub tally: Tally,
}
