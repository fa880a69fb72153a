//! Whether a push would take something from a sink that works.

use super::{Consumer, ENTRY_OVERHEAD, Queue, QueuePhase, entries::QueuedBatch};
use crate::trace::Signal;
use std::time::Duration;
use tokio::time::Instant;

/// A sink that has taken nothing for so long, though it was given something, is not waited for: it has its oldest
/// pushed out.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// The same while the process ends; and of one whose attempts fail.
const PATIENCE_AT_THE_END: Duration = Duration::from_secs(5);
const PATIENCE_WITH_FAILURES_AT_THE_END: Duration = Duration::from_secs(2);

/// How long a sink may take nothing before nobody waits for it.
#[derive(Clone, Copy)]
struct Patience {
    when_busy: Duration,
    when_failing: Duration,
}

impl Consumer {
    /// Whether it has taken nothing for so long that nobody waits for it.
    fn is_stalled(&self, now: Instant, patience: Patience) -> bool {
        let lasts = |since: Option<Instant>, most| since.is_some_and(|since| now.duration_since(since) >= most);
        lasts(self.busy_since, patience.when_busy) || lasts(self.failing_since, patience.when_failing)
    }
}

impl Queue {
    /// Whether so many bytes more push out nothing but what waits for sinks that are stalled, beside one that is not.
    pub(crate) fn is_ready_for(&self, signal: Signal, bytes: usize, now: Instant) -> bool {
        let waiting = &self.waiting[signal as usize];
        let needed = (bytes + ENTRY_OVERHEAD).min(waiting.quota);
        let mut room = waiting.quota.saturating_sub(waiting.held);
        if room >= needed || !self.takes(signal) {
            return true;
        }
        let patience = self.patience();
        let mut consumers = self.sinks.iter().filter_map(|all| all[signal as usize].as_ref());
        let stalled = consumers.clone().filter(|consumer| consumer.is_stalled(now, patience)).count();
        if stalled == 0 || consumers.all(|consumer| consumer.is_stalled(now, patience)) {
            return false;
        }
        let mut given_up =
            waiting.memory.iter().filter(|(number, entry)| !self.is_awaited(signal, **number, entry, now));
        given_up.any(|(_, entry)| {
            room += entry.bytes + ENTRY_OVERHEAD;
            room >= needed
        })
    }

    /// Whether some sink has taken all that there is of a signal.
    pub(crate) fn has_idle_sink(&self, signal: Signal) -> bool {
        let waiting = &self.waiting[signal as usize];
        let mut consumers =
            self.sinks.iter().enumerate().filter_map(|(sink, all)| Some((sink, all[signal as usize].as_ref()?)));
        waiting.growing.is_empty()
            && consumers.any(|(sink, consumer)| {
                consumer.under_way.is_none() && waiting.first_for(&self.routing, sink, consumer.next).is_none()
            })
    }

    fn patience(&self) -> Patience {
        match self.phase {
            QueuePhase::Open => Patience { when_busy: PATIENCE, when_failing: PATIENCE },
            _ => Patience { when_busy: PATIENCE_AT_THE_END, when_failing: PATIENCE_WITH_FAILURES_AT_THE_END },
        }
    }

    /// Whether a sink that takes what it is given, or may soon, is not done with an entry.
    pub(super) fn is_awaited(&self, signal: Signal, number: u64, entry: &QueuedBatch, now: Instant) -> bool {
        let patience = self.patience();
        self.waits_for(signal, number, entry).any(|consumer| !consumer.is_stalled(now, patience))
    }

    /// Those that are not done with an entry.
    pub(super) fn waits_for(
        &self,
        signal: Signal,
        number: u64,
        entry: &QueuedBatch,
    ) -> impl Iterator<Item = &Consumer> {
        let (routing, route) = (&self.routing, entry.route);
        let sinks = self.sinks.iter().enumerate().filter(move |(sink, _)| routing.takes(route, *sink));
        let consumers = sinks.filter_map(move |(_, all)| all[signal as usize].as_ref());
        consumers.filter(move |consumer| consumer.cursor() <= number)
    }

    /// A sink could not take what it is busy with.
    pub(crate) fn failed(&mut self, sink: usize, signal: Signal, now: Instant) {
        if let Some(consumer) = self.sinks[sink][signal as usize].as_mut().filter(|consumer| consumer.tally.queued > 0)
        {
            consumer.failing_since.get_or_insert(now);
        }
    }
}
