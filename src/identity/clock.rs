//! How far the own clock is from a service's: signatures with a time that is off are refused.

use super::Utc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// Difference to a service's clock, learnt from the `Date` of its replies.
#[derive(Debug, Default)]
pub struct ClockOffset {
    millis: AtomicI64,
}

impl ClockOffset {
    /// The service's time in Unix milliseconds.
    pub fn apply(&self, unix_millis: u64) -> u64 {
        unix_millis.saturating_add_signed(self.millis.load(Relaxed))
    }

    /// Takes the difference from a `Date` header; false if it is none, or beyond the times that the
    /// services have a form for.
    pub fn learn(&self, date: Option<&str>, unix_millis: u64) -> bool {
        let Some(theirs) = date.and_then(Utc::parse_http).filter(|date| u32::try_from(date.0).is_ok()) else {
            return false;
        };
        self.millis.store((theirs.0 * 1000) as i64 - unix_millis as i64, Relaxed);
        true
    }

    /// Seconds by which the own clock is behind.
    pub fn seconds(&self) -> i64 {
        self.millis.load(Relaxed) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_makes_both_clocks_agree() {
        let offset = ClockOffset::default();
        assert!(!offset.learn(None, 0) && !offset.learn(Some("soon"), 0));
        assert_eq!(offset.apply(77), 77);
        assert!(!offset.learn(Some("Fri, 31 Dec 9999 23:59:59 GMT"), 0));
        let date = Some("Mon, 23 Nov 2026 10:00:00 GMT");
        for mine in [1_795_428_000_000, 1_795_424_400_500, 1_795_999_999_999] {
            assert!(offset.learn(date, mine));
            assert_eq!(offset.apply(mine), 1_795_428_000_000);
        }
        assert!(offset.seconds() < 0);
    }
}
