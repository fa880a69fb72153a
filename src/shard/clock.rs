//! What is due when: each trace has one timer, set to the next moment at which something may happen to it.

use super::walk::{Purpose, TraceWalk};
use super::{Judge, Outbox, Progress, Shard, Turn, WaitTicks};
use crate::ring::index::{TraceEntry, TraceStatus};
use crate::ring::wheel::{Tick, Wheel};
use crate::trace::{TraceId, Trigger};

impl Shard {
    /// Sets the trace's timer to the next moment at which something is due.
    pub(super) fn schedule<J: Judge>(&mut self, turn: &Turn<'_, J>, slot: u32) {
        let wait = turn.judge.wait();
        let entry = self.index.entry(slot);
        let due = match entry.state {
            TraceStatus::Waiting => Some(due_to_judge(entry, &wait).0),
            TraceStatus::Settling if entry.again == 0 => Some(entry.settles),
            TraceStatus::Settling => Some(entry.settles.min(entry.again)),
            TraceStatus::Kept | TraceStatus::Dropped => (entry.again != 0).then_some(entry.again),
        };
        let Some(due) = due else { return };
        // A timer that fires too early is asked and put back; moving it with every span would cost more.
        if Wheel::at(self.index.timers(), slot).is_none_or(|at| due < at) {
            self.wheel.set(self.index.timers(), slot, due);
        }
    }

    /// Judges what is due and, where there is `room` behind, delivers what is kept. Call again while there is more.
    pub fn tick<J: Judge>(&mut self, turn: &Turn<'_, J>, room: bool, out: &mut Outbox) -> Progress {
        self.work(turn, out, |shard, budget| {
            if let Some(&(slot, id)) = shard.outgoing.front()
                && (room || !shard.is_to_leave(slot, id))
            {
                budget.pay();
                shard.start_delivery(slot, id);
                return Progress::More;
            }
            match shard.wheel.fire(shard.index.timers(), turn.now, &mut budget.records) {
                Some(slot) => shard.fired(turn, slot),
                None if budget.is_spent() => {}
                None => return Progress::Done,
            }
            Progress::More
        })
    }

    /// Takes the first off those that are to be delivered. The sweep may have delivered and evicted it meanwhile: so
    /// what waits here for room is never more than the ring turns over.
    fn start_delivery(&mut self, slot: u32, id: TraceId) {
        self.outgoing.pop_front();
        if self.is_to_leave(slot, id) {
            self.walk = Some(TraceWalk::new(slot, Purpose::Deliver));
        }
        if self.index.is_live(slot) && self.index.entry(slot).id == id {
            self.index.entry_mut(slot).is_outgoing = false;
        }
    }

    fn is_to_leave(&self, slot: u32, id: TraceId) -> bool {
        let entry = self.index.entry(slot);
        self.index.is_live(slot) && entry.id == id && entry.state == TraceStatus::Kept && entry.undelivered > 0
    }

    /// The trace's timer fired: asks what is due, if anything.
    fn fired<J: Judge>(&mut self, turn: &Turn<'_, J>, slot: u32) {
        let entry = self.index.entry(slot);
        let again = entry.again != 0 && entry.again <= turn.now;
        let trigger = match entry.state {
            TraceStatus::Waiting => {
                let (due, trigger) = due_to_judge(entry, &turn.judge.wait());
                (due <= turn.now).then_some(trigger)
            }
            // Settled before judged again: its dropped half is not rescued with a weight from now on either.
            TraceStatus::Settling if entry.settles <= turn.now => {
                self.keep(slot);
                None
            }
            TraceStatus::Settling | TraceStatus::Dropped if again => Some(Trigger::Late),
            TraceStatus::Kept if again => {
                self.keep(slot);
                None
            }
            _ => None,
        };
        match trigger {
            Some(_) if self.is_stale(turn, slot) => {
                // Judged by the next tick, with fresh facts: the timer is due again at once.
                self.walk = Some(TraceWalk::new(slot, Purpose::Refresh));
                self.wheel.set(self.index.timers(), slot, turn.now);
            }
            Some(trigger) => self.judge(turn, slot, trigger),
            None => self.schedule(turn, slot),
        }
    }
}

/// When a waiting trace is due, and what makes it so.
fn due_to_judge(entry: &TraceEntry, wait: &WaitTicks) -> (Tick, Trigger) {
    let entered = entry.summary.has_entry().then_some(entry.entered);
    Due { first: entry.first, last: entry.last, entered }.soonest(wait)
}

/// Arrivals of a waiting trace's first and last span, and of its chosen entry span.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    pub first: Tick,
    pub last: Tick,
    pub entered: Option<Tick>,
}

impl Due {
    pub fn soonest(self, wait: &WaitTicks) -> (Tick, Trigger) {
        let idle = (self.last + wait.idle, Trigger::Idle);
        let longest = (self.first + wait.longest, Trigger::Longest);
        let root = self.entered.map(|entered| (entered + wait.after_root, Trigger::Root));
        [Some(idle), Some(longest), root].into_iter().flatten().min().expect("two are there")
    }
}
