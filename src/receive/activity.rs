//! Which connections idle, and which of them gives its place to a new one where there are too many.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A connection that had no request for so long may be closed for another: SDKs send every 5 s.
const IDLE: Duration = Duration::from_secs(10);
/// So may one whose requests brought less than [`PROGRESS`] of their bodies in so long. Senders have the whole body before
/// they begin.
const STALLED: Duration = Duration::from_secs(5);
/// Bytes of bodies that show that a connection is in use: fewer are what somebody sends who wants to keep the place.
const PROGRESS: u64 = 1024;

/// What one connection does.
pub(super) struct Activity {
    opened: Instant,
    in_flight: AtomicUsize,
    /// When it last did something, in milliseconds since `opened`: [`PROGRESS`] of bodies had come, a request ended, or
    /// one began while there was none. A head alone is no progress, else a connection would stay for heads without
    /// bodies.
    moved: AtomicU64,
    /// Bytes of bodies since then.
    brought: AtomicU64,
    give_way: Notify,
}

impl Activity {
    fn new() -> Activity {
        Activity {
            opened: Instant::now(),
            in_flight: AtomicUsize::new(0),
            moved: AtomicU64::new(0),
            brought: AtomicU64::new(0),
            give_way: Notify::new(),
        }
    }

    pub fn begin_request(&self) {
        if self.in_flight.fetch_add(1, Relaxed) == 0 {
            self.moved();
        }
    }

    pub fn end_request(&self) {
        self.moved();
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// So many bytes of a body came.
    pub fn brought(&self, bytes: usize) {
        if self.brought.fetch_add(bytes as u64, Relaxed) + bytes as u64 >= PROGRESS {
            self.moved();
        }
    }

    fn moved(&self) {
        self.brought.store(0, Relaxed);
        self.moved.store(self.opened.elapsed().as_millis() as u64, Relaxed);
    }

    pub fn has_requests(&self) -> bool {
        self.in_flight.load(Relaxed) > 0
    }

    /// Whether its requests have had their time.
    pub fn is_stalled(&self) -> bool {
        self.has_requests() && self.stays_until() <= Instant::now()
    }

    /// It keeps its place until then at least.
    fn stays_until(&self) -> Instant {
        let patience = if self.has_requests() { STALLED } else { IDLE };
        self.opened + Duration::from_millis(self.moved.load(Relaxed)) + patience
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

    /// Tells the connection to go whose time ended first, if that of any has: of [`IDLE`] or [`STALLED`]. It is
    /// forgotten here, so each is told once.
    pub fn make_room(&mut self) -> bool {
        let open = self.0.iter().enumerate();
        let times = open.filter_map(|(at, activity)| Some((activity.upgrade()?.stays_until(), at)));
        match times.min() {
            Some((until, at)) if until <= Instant::now() => {
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
    async fn the_longest_idle_goes_first_and_who_sends_never() {
        let mut all = Activities::default();
        let [works, silent, idles] = [all.open(), all.open(), all.open()];
        works.begin_request();
        tokio::time::advance(IDLE / 2 - Duration::from_millis(1)).await;
        idles.begin_request();
        idles.end_request();
        works.brought(PROGRESS as usize);
        assert!(!all.make_room(), "nobody idles for long");
        tokio::time::advance(IDLE / 2).await;
        works.brought(PROGRESS as usize);
        assert!(!all.make_room(), "nobody idles for long");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(all.make_room());
        silent.is_in_the_way().await;
        assert!(!all.make_room(), "each is told once, and the other has idled for half of the time");
        tokio::time::advance(IDLE / 2).await;
        works.brought(PROGRESS as usize);
        assert!(all.make_room());
        idles.is_in_the_way().await;
        for _ in 0..100 {
            works.brought(PROGRESS as usize);
            tokio::time::advance(STALLED - Duration::from_millis(1)).await;
            assert!(!all.make_room(), "its body comes");
        }
        for _ in 0..2 {
            works.brought(PROGRESS as usize / 4);
            tokio::time::advance(STALLED / 2).await;
        }
        assert!(all.make_room(), "a byte now and then keeps no place");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_brings_nothing_has_its_time_and_its_neighbours_heads_give_it_no_more() {
        let mut all = Activities::default();
        let [stalled, idle] = [all.open(), all.open()];
        tokio::time::advance(IDLE / 2 + Duration::from_millis(1)).await;
        stalled.begin_request();
        tokio::time::advance(STALLED - Duration::from_millis(1)).await;
        assert!(!stalled.is_stalled());
        assert!(all.make_room());
        idle.is_in_the_way().await;
        assert!(!all.make_room(), "its time has not ended");
        stalled.begin_request();
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(stalled.is_stalled() && all.make_room());
        stalled.is_in_the_way().await;
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
