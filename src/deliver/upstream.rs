//! Who sends to this process, directly or through others. Sinks add these to their own mark, so that a
//! circle of collectors is noticed by whichever of its members comes first to hear its own name.
//!
//! Kept per signal: a collector that sends metrics here may well receive traces from here.

use crate::trace::Signal;
use std::{collections::VecDeque, sync::Mutex, time::Duration};
use tokio::time::Instant;

/// The ids heard last; with ids of 36 characters a header of 2.4 KB. In a larger fleet a circle is noticed
/// when it comes round while its member is among these.
const IDS_MAX: usize = 64;
/// Whoever was not heard of for so long sends here no more.
const FORGET_AFTER: Duration = Duration::from_secs(300);

/// The collectors upstream, in the order of [`Signal::ALL`]. Locked only for requests of collectors.
#[derive(Debug, Default)]
pub struct Upstream([Mutex<VecDeque<Heard>>; 3]);

#[derive(Debug)]
struct Heard {
    id: Box<str>,
    at: Instant,
}

impl Upstream {
    /// A request of this signal has been through these.
    pub fn hear<'a>(&self, signal: Signal, ids: impl Iterator<Item = &'a str>, now: Instant) {
        let mut ids = ids.peekable();
        if ids.peek().is_none() {
            return;
        }
        let mut heard = self.0[signal as usize].lock().expect("no code panics under this lock");
        for id in ids.take(IDS_MAX) {
            let known = heard.iter().position(|heard| *heard.id == *id).and_then(|index| heard.remove(index));
            heard.push_front(Heard { id: known.map_or_else(|| id.into(), |heard| heard.id), at: now });
        }
        heard.truncate(IDS_MAX);
    }

    /// The mark of a request of this signal: one's own id, then those heard of, separated by commas.
    pub fn mark(&self, signal: Signal, own: &str, now: Instant) -> String {
        let mut heard = self.0[signal as usize].lock().expect("no code panics under this lock");
        heard.retain(|heard| now - heard.at < FORGET_AFTER);
        let others = heard.iter().filter(|heard| *heard.id != *own);
        others.fold(own.to_owned(), |mark, heard| mark + "," + &heard.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_names_whoever_was_heard_of_lately_for_this_signal() {
        let (upstream, start) = (Upstream::default(), Instant::now());
        let hear = |ids: &[&str], after: u64| {
            upstream.hear(Signal::Traces, ids.iter().copied(), start + Duration::from_secs(after));
        };
        let mark = |signal, after| upstream.mark(signal, "me", start + Duration::from_secs(after));
        assert_eq!(mark(Signal::Traces, 0), "me");
        hear(&["a", "b"], 0);
        hear(&["a", "me"], 100);
        assert_eq!(mark(Signal::Traces, 100), "me,a,b", "one's own id is not repeated");
        assert_eq!(mark(Signal::Logs, 100), "me");
        assert_eq!(mark(Signal::Traces, 300), "me,a");
        assert_eq!(mark(Signal::Traces, 400), "me");
    }

    #[test]
    fn only_the_last_are_remembered() {
        let (upstream, now) = (Upstream::default(), Instant::now());
        for n in 0..=IDS_MAX {
            upstream.hear(Signal::Logs, std::iter::once(n.to_string().as_str()), now);
        }
        let mark = upstream.mark(Signal::Logs, "me", now);
        let ids: Vec<&str> = mark.split(',').collect();
        assert_eq!((ids.len(), ids[1], *ids.last().unwrap()), (IDS_MAX + 1, "64", "1"));
    }
}
