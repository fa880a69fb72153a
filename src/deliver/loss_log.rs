//! Says in the log what a full queue discards: at once, then at intervals, also when nothing more is lost.

use super::{
    DeliveryPhase, Shared,
    log_throttle::{LogThrottle, REPEAT_LOG},
};
use crate::trace::Signal;
use std::sync::{Arc, Mutex};
use tokio::time::{Instant, interval};
use tracing::error;

/// Items that a full queue discarded, in the order of [`Signal::ALL`].
#[derive(Debug, Default)]
pub(super) struct LossLog(Mutex<[Losses; 3]>);

#[derive(Debug, Default)]
struct Losses {
    throttle: LogThrottle,
    /// Since the start.
    total: u64,
}

impl LossLog {
    /// Counts a loss; gives what is to be said now, and the total.
    fn note(&self, signal: Signal, items: u64, now: Instant) -> Option<(u64, u64)> {
        let losses = &mut self.0.lock().expect("no code panics under this lock")[signal as usize];
        losses.total += items;
        losses.throttle.say(items, now).map(|items| (items, losses.total))
    }

    /// What was not said yet of a signal whose pause is over, and the total.
    fn due(&self, signal: Signal, now: Instant) -> Option<(u64, u64)> {
        let losses = &mut self.0.lock().expect("no code panics under this lock")[signal as usize];
        losses.throttle.due(now).map(|items| (items, losses.total))
    }

    /// What was not said yet, and the total.
    fn rest(&self, signal: Signal) -> (u64, u64) {
        let losses = &mut self.0.lock().expect("no code panics under this lock")[signal as usize];
        (losses.throttle.rest(), losses.total)
    }
}

/// Without it the rest of a burst would be said with the next loss, which may never come.
pub(super) async fn repeat(shared: Arc<Shared>) {
    let (mut phase, mut ticks) = (shared.phase.subscribe(), interval(REPEAT_LOG));
    loop {
        tokio::select! {
            _ = phase.wait_for(|phase| *phase == DeliveryPhase::Over) => return,
            now = ticks.tick() => {
                for signal in Signal::ALL {
                    if let Some((items, total)) = shared.losses.due(signal, now) {
                        shared.say_loss(signal, items, total);
                    }
                }
            }
        }
    }
}

impl Shared {
    pub(super) fn note_loss(&self, signal: Signal, items: u64, now: Instant) {
        if let Some((items, total)) = self.losses.note(signal, items, now) {
            self.say_loss(signal, items, total);
        }
    }

    fn say_loss(&self, signal: Signal, items: u64, total: u64) {
        let sinks = self.losing(signal).join(", ");
        let signal = signal.word();
        if *self.phase.borrow() != DeliveryPhase::Running {
            let text = "the process ends before these had room in the queue: they are discarded";
            return error!(signal, items, total, sinks, "{text}");
        }
        let (help, disk_error) = (self.help(), self.spool_error());
        error!(
            signal,
            items,
            total,
            sinks,
            disk_error,
            "the queue is full: the oldest were discarded for sinks that had not taken them; {help}"
        );
    }

    /// What an operator can do about a queue that is full in memory.
    pub(super) fn help(&self) -> &'static str {
        match self.disk {
            None => "raise `queue.memory` or write a `queue.path`",
            Some(_) if self.spool_error().is_some() => {
                "nothing can be written to `queue.path`: see to its disk, and let `queue.size` be what it has room for"
            }
            Some(_) => "`queue.path` is written too slowly for what comes: raise `queue.memory`",
        }
    }

    /// At the end: what came since a loss was last said.
    pub(super) fn say_rest_of_losses(&self) {
        for signal in Signal::ALL {
            let (items, total) = self.losses.rest(signal);
            if items > 0 {
                let signal = signal.word();
                error!(
                    signal,
                    items, total, "the queue was full: so many more were discarded since this was last said"
                );
            }
        }
    }
}
