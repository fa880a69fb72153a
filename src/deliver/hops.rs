//! Where the data that we send has been, so that no circle of collectors sends it round for ever.
//!
//! Batches mix what came by different ways, so a request carries our own id and those of all
//! collectors that sent us this signal lately. Whoever finds its own id there refuses the request.

use crate::trace::Signal;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Longer lists are of no use: the oldest id goes.
const SEEN_MAX: usize = 16;
/// A collector that has not sent for so long no longer does.
const FORGET: Duration = Duration::from_secs(600);

/// The ids of this process and of those before it, per signal. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Hops(Arc<State>);

#[derive(Debug, Default)]
struct State {
    own: String,
    seen: [Mutex<Vec<(String, Instant)>>; 3],
}

impl Hops {
    /// `own` is this process's `collector.instance.id`.
    pub fn new(own: impl Into<String>) -> Hops {
        Hops(Arc::new(State { own: own.into(), seen: Default::default() }))
    }

    fn seen(&self, signal: Signal) -> MutexGuard<'_, Vec<(String, Instant)>> {
        self.0.seen[signal as usize].lock().expect("no code panics under this lock")
    }

    /// Remembers through whom a request came.
    pub fn saw<'a>(&self, signal: Signal, ids: impl Iterator<Item = &'a str>, now: Instant) {
        for id in ids {
            let mut seen = self.seen(signal);
            if let Some((_, last)) = seen.iter_mut().find(|(known, _)| known == id) {
                *last = now;
                continue;
            }
            if seen.len() == SEEN_MAX {
                seen.remove(0);
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
        let (hops, start) = (Hops::new("own"), Instant::now());
        hops.saw(Signal::Traces, ["a", "b", "a"].into_iter(), start);
        assert_eq!(hops.value(Signal::Traces, start), "own,a,b");
        assert_eq!(hops.value(Signal::Logs, start), "own");
        hops.saw(Signal::Traces, ["b"].into_iter(), start + FORGET / 2);
        assert_eq!(hops.clone().value(Signal::Traces, start + FORGET), "own,b");
        let many: Vec<String> = (0..40).map(|n| n.to_string()).collect();
        hops.saw(Signal::Traces, many.iter().map(String::as_str), start + FORGET);
        assert_eq!(hops.value(Signal::Traces, start + FORGET).split(',').count(), 1 + SEEN_MAX);
    }
}
