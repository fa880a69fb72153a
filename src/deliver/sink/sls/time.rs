//! The times that Log Service accepts, and how far the own clock is from its.

use super::encode::LogTime;
use crate::identity::Utc;

const SECOND: u64 = 1_000_000_000;
/// The service refuses a whole request for one log that is older than 7 days or more than 15 minutes
/// ahead. The margins leave room for the way there and for clocks that differ.
const PAST: u64 = (7 * 86_400 - 600) * SECOND;
const FUTURE: u64 = (15 * 60 - 60) * SECOND;

/// Unix nanoseconds by the service's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now(pub(super) u64);

impl Now {
    /// The time for a log of `unix_nanos`: itself, the nearest accepted one, or now if it is zero.
    pub(super) fn log_time(self, unix_nanos: u64) -> LogTime {
        let nanos = match unix_nanos {
            0 => self.0,
            given => given.clamp(self.0.saturating_sub(PAST), self.0 + FUTURE),
        };
        LogTime { seconds: u32::try_from(nanos / SECOND).unwrap_or(u32::MAX), nanos: (nanos % SECOND) as u32 }
    }
}

/// Difference to the service's clock, learnt from the `Date` of its replies.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ClockOffset {
    millis: i64,
}

impl ClockOffset {
    /// The service's time in Unix milliseconds.
    pub(super) fn apply(self, unix_millis: u64) -> u64 {
        unix_millis.saturating_add_signed(self.millis)
    }

    /// Takes the difference from a `Date` header; false if it is none.
    pub(super) fn learn(&mut self, date: Option<&str>, unix_millis: u64) -> bool {
        let Some(theirs) = date.and_then(Utc::parse_http) else { return false };
        self.millis = (theirs.0 * 1000) as i64 - unix_millis as i64;
        true
    }

    /// Seconds by which the own clock is behind.
    pub(super) fn seconds(self) -> i64 {
        self.millis / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now(1_795_428_000 * SECOND + 5);

    #[test]
    fn absurd_times_are_moved_into_the_window_and_others_stay() {
        let at = |nanos| NOW.log_time(nanos);
        assert_eq!(at(NOW.0 - 3), LogTime { seconds: 1_795_428_000, nanos: 2 });
        assert_eq!(at(0), LogTime { seconds: 1_795_428_000, nanos: 5 });
        for absurd in [1, SECOND, NOW.0 - 8 * 86_400 * SECOND] {
            assert_eq!(at(absurd).seconds, 1_795_428_000 - 7 * 86_400 + 600);
        }
        for absurd in [u64::MAX, NOW.0 + 3600 * SECOND] {
            assert_eq!(at(absurd).seconds, 1_795_428_000 + 840);
        }
        assert_eq!(at(NOW.0 - 6 * 86_400 * SECOND).seconds, 1_795_428_000 - 6 * 86_400);
    }

    #[test]
    fn the_offset_makes_both_clocks_agree() {
        let mut offset = ClockOffset::default();
        assert!(!offset.learn(None, 0) && !offset.learn(Some("soon"), 0));
        assert_eq!(offset.apply(77), 77);
        let date = Some("Mon, 23 Nov 2026 10:00:00 GMT");
        for mine in [1_795_428_000_000, 1_795_424_400_500, 1_795_999_999_999] {
            assert!(offset.learn(date, mine));
            assert_eq!(offset.apply(mine), 1_795_428_000_000);
        }
        assert!(offset.seconds() < 0);
    }
}
