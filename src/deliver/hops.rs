//! Where the data that we send has been, so that no circle of collectors sends it round for ever.
//!
//! Each process has a random id that it tells nobody but the collectors that it sends to. Batches mix
//! what came by different ways, so a request carries our own id and those of all collectors that sent
//! us this signal lately. Whoever finds its own id there refuses the request, and the sender keeps it
//! and says so. A client can send any header, but not an id that it has never seen: what it invents is
//! nobody's, and only `SEEN_MAX` short ids go on.

use crate::trace::Signal;
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// Ids of others that go on; beyond that the one goes that was not seen for longest.
const SEEN_MAX: usize = 15;
/// A collector that has not sent for so long no longer does.
const FORGET: Duration = Duration::from_secs(600);

/// The ids of this process and of those before it, per signal. Clones share them.
#[derive(Clone, Default)]
pub struct HopMemory(Arc<HopState>);

#[derive(Default)]
struct HopState {
    own: String,
    seen: [Mutex<Vec<(String, Instant)>>; 3],
}

impl fmt::Debug for HopMemory {
    /// Whoever knows an id can make others refuse what carries it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hops").finish_non_exhaustive()
    }
}

impl HopMemory {
    /// `own` is this process's id: random, and shown nowhere.
    pub fn new(own: impl Into<String>) -> HopMemory {
        HopMemory(Arc::new(HopState { own: own.into(), seen: Default::default() }))
    }

    fn seen(&self, signal: Signal) -> MutexGuard<'_, Vec<(String, Instant)>> {
        self.0.seen[signal as usize].lock().expect("no code panics under this lock")
    }

    /// Remembers through whom a request came.
    pub fn saw<'a>(&self, signal: Signal, ids: impl Iterator<Item = &'a str>, now: Instant) {
        for id in ids {
            let mut seen = self.seen(signal);
            match seen.iter().position(|(known, _)| known == id) {
                Some(known) => drop(seen.remove(known)),
                None if seen.len() == SEEN_MAX => drop(seen.remove(0)),
                None => (),
            }
            seen.push((id.to_owned(), now));
        }
    }

    /// The value of the header: our own id, then the others.
    pub fn value(&self, signal: Signal, now: Instant) -> String {
        let mut seen = self.seen(signal);
        seen.retain(|(_, last)| now.duration_since(*last) < FORGET);
        seen.iter().fold(self.0.own.clone(), |list, (id, _)| list + "," + id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_passed_on_once_per_signal_and_forgotten() {
        let (hops, start) = (HopMemory::new("own"), Instant::now());
        hops.saw(Signal::Traces, ["a", "b", "a"].into_iter(), start);
        assert_eq!(hops.value(Signal::Traces, start), "own,b,a");
        assert_eq!(hops.value(Signal::Logs, start), "own");
        hops.saw(Signal::Traces, ["b"].into_iter(), start + FORGET / 2);
        assert_eq!(hops.clone().value(Signal::Traces, start + FORGET), "own,b");
        assert_eq!(format!("{hops:?}"), "Hops { .. }");
    }

    #[test]
    fn of_too_many_the_one_goes_that_was_not_seen_for_longest() {
        let (hops, start) = (HopMemory::new("own"), Instant::now());
        for n in 0..40 {
            hops.saw(Signal::Traces, ["a", &n.to_string()].into_iter(), start);
        }
        let value = hops.value(Signal::Traces, start);
        assert_eq!(value.split(',').count(), 1 + SEEN_MAX);
        assert!(value.ends_with(",38,a,39") && !value.contains(",0,"), "{value}");
    }
}
