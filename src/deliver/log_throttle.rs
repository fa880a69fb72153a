//! When the log says again what goes on.

use std::time::Duration;
use tokio::time::Instant;

/// A loss that goes on is said again this often.
pub(super) const REPEAT_LOG: Duration = Duration::from_secs(10);

/// Says a repeating loss at most every [`REPEAT_LOG`], with the sum since it was last said.
#[derive(Debug, Default)]
pub(super) struct LogThrottle {
    unsaid: u64,
    until: Option<Instant>,
}

impl LogThrottle {
    pub(super) fn say(&mut self, items: u64, now: Instant) -> Option<u64> {
        self.unsaid += items;
        if self.until.is_some_and(|until| now < until) {
            return None;
        }
        self.until = Some(now + REPEAT_LOG);
        Some(std::mem::take(&mut self.unsaid))
    }

    /// What has not been said yet, if there is any and the pause is over.
    pub(super) fn due(&mut self, now: Instant) -> Option<u64> {
        if self.unsaid == 0 { None } else { self.say(0, now) }
    }

    /// What has not been said yet, for the end.
    pub(super) fn rest(&mut self) -> u64 {
        std::mem::take(&mut self.unsaid)
    }
}
