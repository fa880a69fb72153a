//! Which connections idle, and which of them gives its place to a new one where there are too many.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A connection that had no request for so long may be closed for another: SDKs send every 5 s.
const IDLE: Duration = Duration::from_secs(10);

/// What one connection does.
pub(super) struct Activity {
    opened: Instant,
    in_flight: AtomicUsize,
    /// When the last request ended, in milliseconds since `opened`; 0 before there was one.
    last: AtomicU64,
    give_way: Notify,
}

impl Activity {
    fn new() -> Activity {
        Activity {
            opened: Instant::now(),
            in_flight: AtomicUsize::new(0),
            last: AtomicU64::new(0),
            give_way: Notify::new(),
        }
    }

    pub fn begin_request(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    pub fn end_request(&self) {
        self.last.store(self.opened.elapsed().as_millis() as u64, Relaxed);
        self.in_flight.fetch_sub(1, Relaxed);
    }

    pub fn has_requests(&self) -> bool {
        self.in_flight.load(Relaxed) > 0
    }

    /// Since when there is no request; none while there is one.
    fn idle_since(&self) -> Option<Instant> {
        (!self.has_requests()).then(|| self.opened + Duration::from_millis(self.last.load(Relaxed)))
    }

    /// Waits until another connection wants the place; a request may have begun since it was said.
    pub async fn is_in_the_way(&self) {
        self.give_way.notified().await;
    }
}

/// All connections of a listener.
#[derive(Default)]
pub(super) struct Activities(Vec<Weak<Activity>>);

impl Activities {
    pub fn open(&mut self) -> Arc<Activity> {
        if self.0.len() == self.0.capacity() {
            self.0.retain(|activity| activity.strong_count() > 0);
        }
        let activity = Arc::new(Activity::new());
        self.0.push(Arc::downgrade(&activity));
        activity
    }

    /// Tells the connection to go that has idled longest, if it has for [`IDLE`]. It is forgotten here, so each is
    /// told once.
    pub fn make_room(&mut self) -> bool {
        let idle = self.0.iter().enumerate().filter_map(|(at, activity)| {
            let activity = activity.upgrade()?;
            Some((activity.idle_since()?, at))
        });
        match idle.min() {
            Some((since, at)) if since.elapsed() >= IDLE => {
                if let Some(activity) = self.0.swap_remove(at).upgrade() {
                    activity.give_way.notify_one();
                }
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_goes_first_and_who_works_never() {
        let mut all = Activities::default();
        let [works, silent, idles] = [all.open(), all.open(), all.open()];
        works.begin_request();
        tokio::time::advance(IDLE / 2).await;
        idles.begin_request();
        idles.end_request();
        assert!(!all.make_room(), "nobody idles for long");
        tokio::time::advance(IDLE / 2).await;
        assert!(all.make_room());
        silent.is_in_the_way().await;
        assert!(!all.make_room(), "each is told once, and the other has idled for half of the time");
        tokio::time::advance(IDLE / 2).await;
        assert!(all.make_room());
        idles.is_in_the_way().await;
        tokio::time::advance(IDLE * 100).await;
        assert!(!all.make_room(), "a request is in flight");
    }

    #[tokio::test(start_paused = true)]
    async fn closed_connections_are_forgotten() {
        let mut all = Activities::default();
        let stays = all.open();
        for _ in 0..10_000 {
            drop(all.open());
        }
        assert!(all.0.len() < 100, "{}", all.0.len());
        tokio::time::advance(IDLE).await;
        assert!(all.make_room());
        stays.is_in_the_way().await;
    }
}
