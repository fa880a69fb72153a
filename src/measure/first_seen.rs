//! Why a counter is seen at 0 before it is seen at its first value.
//!
//! `increase()` and `rate()` are differences between what was read: a counter that somebody reads for the
//! first time at 1 has not grown, and a rare error would never be one. Exports carry times, so the first
//! one says beside the value that it was 0 when it began. A scrape cannot: there the first page shows 0,
//! and a later one the value.

/// A page shows 0 only of what is younger. Scrapes lie 2 minutes apart at most, else Prometheus takes series for
/// stale; where nobody has looked for longer nobody computes differences, and a person wants the value.
pub const YOUNG_MS: u64 = 150_000;
/// So long after the first page it is still 0, for a second scraper of the same process.
pub const AT_ZERO_MS: u64 = 5_000;

/// Who has seen a counter that begins.
#[derive(Debug)]
pub struct FirstSeen {
    shown: ScrapeState,
    was_exported: bool,
}

#[derive(Debug)]
enum ScrapeState {
    /// No page has shown it.
    Never {
        born_ms: u64,
    },
    /// The first page that showed it was made then.
    AtZero {
        since_ms: u64,
    },
    WithValue,
}

impl FirstSeen {
    pub fn new(born_ms: u64) -> FirstSeen {
        FirstSeen { shown: ScrapeState::Never { born_ms }, was_exported: false }
    }

    /// True once: an export must say that it was 0.
    pub fn is_first_export(&mut self) -> bool {
        !std::mem::replace(&mut self.was_exported, true)
    }

    /// A page of `now_ms` shows 0.
    pub fn is_at_zero(&mut self, now_ms: u64) -> bool {
        let is_at_zero = match self.shown {
            ScrapeState::Never { born_ms } => {
                self.shown = ScrapeState::AtZero { since_ms: now_ms };
                now_ms.saturating_sub(born_ms) < YOUNG_MS
            }
            ScrapeState::AtZero { since_ms } => now_ms.saturating_sub(since_ms) < AT_ZERO_MS,
            ScrapeState::WithValue => false,
        };
        if !is_at_zero {
            self.shown = ScrapeState::WithValue;
        }
        is_at_zero
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_shows_zero_at_first_and_then_the_value() {
        let mut first_seen = FirstSeen::new(1_000);
        assert!([20_000, 20_001, 24_999].map(|now| first_seen.is_at_zero(now)) == [true; 3]);
        assert!(!first_seen.is_at_zero(25_000));
    }

    #[test]
    fn whoever_looks_after_a_long_time_sees_the_value() {
        assert!(FirstSeen::new(1_000).is_at_zero(150_999));
        assert!(!FirstSeen::new(1_000).is_at_zero(151_000));
    }
}
