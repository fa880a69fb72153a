//! Moves entries of the queue to the spool, and notes how far the sinks have come.
//!
//! A disk that is full or read-only costs nothing but memory: entries stay where they are, within
//! the queue's quotas, the state is reported, and the next pass tries again.

use super::{Cursors, Spool};
use crate::{
    deliver::{DeliveryPhase, Shared},
    trace::Signal,
};
use std::{io, sync::Arc, time::Duration};
use tokio::time::Instant;
use tracing::{error, info, warn};

/// Bytes appended and synced at once.
const CHUNK: usize = 8 << 20;
/// How often the disk catches up with memory: a crash costs what came later. Cursors and deletions
/// need not be fresher either: what was sent meanwhile is sent again after a crash.
const TICK: Duration = Duration::from_secs(1);
/// How long a disk that failed is left alone.
const REST: Duration = Duration::from_secs(5);

/// The task beside the workers, if there is a spool.
pub(in crate::deliver) struct SpoolWriter {
    spool: Spool,
    shared: Arc<Shared>,
    written_cursors: Cursors,
    /// When the cursors were compared the last time.
    noted: Instant,
}

impl SpoolWriter {
    pub(in crate::deliver) fn new(spool: Spool, shared: Arc<Shared>, written_cursors: Cursors) -> SpoolWriter {
        SpoolWriter { spool, shared, written_cursors, noted: Instant::now() }
    }

    /// Until the workers have ended. The last pass leaves on disk what they did not deliver.
    pub(in crate::deliver) async fn run(mut self) {
        let shared = self.shared.clone();
        let mut phase = shared.phase.subscribe();
        let mut ends = false;
        while !ends {
            let wait = if self.shared.spool_error().is_some() { REST } else { TICK };
            tokio::select! {
                _ = phase.wait_for(|phase| *phase == DeliveryPhase::Over) => ends = true,
                () = self.shared.spool_wake.notified(), if wait == TICK => {}
                () = tokio::time::sleep(wait) => {}
            }
            let pass = tokio::task::spawn_blocking(move || {
                let outcome = self.pass(ends);
                (self, outcome)
            });
            // A panic has been printed; without a writer the queue lives in memory.
            let Ok((writer, outcome)) = pass.await else {
                return shared.set_spool_error(Some("what wrote it has ended by a fault of its own".to_owned()));
            };
            self = writer;
            self.report(outcome);
        }
    }

    /// Everything that is to be done now; at the end, also what could wait. What the sinks have taken
    /// goes first, and nothing waits for another's success: a full disk must not stay full.
    fn pass(&mut self, ends: bool) -> io::Result<()> {
        let noted = if ends || self.noted.elapsed() >= TICK { self.note_cursors() } else { Ok(()) };
        Signal::ALL.into_iter().fold(noted, |outcome, signal| {
            let written = self.write(signal);
            outcome.and(written).and(self.enforce_quota(signal))
        })
    }

    fn write(&mut self, signal: Signal) -> io::Result<()> {
        loop {
            let mut queue = self.shared.queue();
            // Sinks that back off seal nothing, and what grows in memory would not survive a crash.
            queue.seal_due(signal, Instant::now());
            let entries = queue.unwritten(signal, CHUNK);
            drop(queue);
            if entries.is_empty() {
                return Ok(());
            }
            let (locations, outcome) = self.spool.append(signal, &entries);
            let mut queue = self.shared.queue();
            for (record, location) in entries.iter().zip(locations) {
                queue.written(signal, record.number, location);
            }
            drop(queue);
            self.shared.progress.notify_waiters();
            outcome?;
        }
    }

    /// The accounts first: a worker that finds the file gone asks them why.
    fn enforce_quota(&mut self, signal: Signal) -> io::Result<()> {
        while let Some(last) = self.spool.over_quota(signal) {
            let items = self.shared.queue().dropped_on_disk(signal, last);
            if items > 0 {
                let signal = signal.word();
                error!(
                    signal,
                    items,
                    "the queue on disk is full: the oldest were discarded for sinks that had not taken them; raise `queue.size`"
                );
            }
            self.spool.drop_oldest(signal)?;
        }
        Ok(())
    }

    /// Cursors first, then deletions, also when the cursors do not fit on the disk any more. Numbers go
    /// on from the greatest that is left, which no cursor there is beyond.
    fn note_cursors(&mut self) -> io::Result<()> {
        let cursors = self.shared.queue().cursors();
        let named: Cursors = self.shared.names.iter().cloned().zip(cursors.iter().copied()).collect();
        let mut outcome = Ok(());
        if named != self.written_cursors {
            outcome = self.spool.write_cursors(&named).map(|()| self.written_cursors = named);
        }
        for signal in Signal::ALL {
            let places = cursors.iter().filter_map(|by_signal| by_signal[signal as usize]);
            // A signal without a place has no entries either.
            outcome = outcome.and(self.spool.forget_below(signal, places.min().unwrap_or(u64::MAX)));
        }
        if outcome.is_ok() {
            self.noted = Instant::now();
        }
        outcome
    }

    /// Says it when the state changes, not each time: another file's turn is the same trouble.
    fn report(&self, outcome: io::Result<()>) {
        let failed_before = self.shared.spool_error().is_some();
        if let Err(reason) = &outcome
            && !failed_before
        {
            let (reason, memory_bytes) = (reason.to_string(), self.shared.queue().quota());
            warn!(
                reason,
                memory_bytes,
                "the queue on disk (`queue.path`) cannot be written: what comes waits in memory, up to memory_bytes \
                 (`queue.memory`), and is lost if the process ends before a sink takes it"
            );
        }
        if outcome.is_ok() && failed_before {
            info!("the queue on disk can be written again");
        }
        self.shared.set_spool_error(outcome.err().map(|reason| reason.to_string()));
    }
}

impl Shared {
    /// Why the spool could not be written the last time.
    pub(in crate::deliver) fn spool_error(&self) -> Option<String> {
        self.spool_error.lock().expect("no code panics under this lock").clone()
    }

    fn set_spool_error(&self, error: Option<String>) {
        *self.spool_error.lock().expect("no code panics under this lock") = error;
    }
}

#[cfg(test)]
mod tests;
