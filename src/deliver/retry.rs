//! How long to wait before a batch is sent again. It never says "give up": only a bound of the queue
//! discards.

use std::time::Duration;

/// The longest wait after the first failure; it doubles with each further one.
const FIRST: Duration = Duration::from_millis(100);
/// A peer that asks for more is asked again after this long all the same.
const LONGEST_ASKED_FOR: Duration = Duration::from_secs(300);

/// Exponential with full jitter, so that the instances of a fleet do not return in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// No wait is longer, unless the peer asks for it.
    pub fn new(longest: Duration) -> Backoff {
        Backoff { longest, failures: 0 }
    }

    /// The wait after one more failure. `asked_for` is what the peer said; `random` is any number.
    pub fn next(&mut self, asked_for: Option<Duration>, random: u64) -> Duration {
        let ceiling = FIRST.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        let fraction = (random >> 11) as f64 / (1u64 << 53) as f64;
        match asked_for {
            // Jitter on top: "not before", and not everybody at the same moment.
            Some(asked_for) => asked_for.min(LONGEST_ASKED_FOR) + FIRST.mul_f64(fraction),
            None => ceiling.mul_f64(fraction),
        }
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = u64::MAX;

    fn after(failures: u32) -> Backoff {
        Backoff { failures, ..Backoff::new(Duration::from_secs(30)) }
    }

    #[test]
    fn the_ceiling_doubles_up_to_the_longest() {
        let mut backoff = after(0);
        let waits: Vec<u128> = (0..11).map(|_| backoff.next(None, MOST).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
        backoff.reset();
        assert_eq!(backoff.next(None, MOST).as_millis(), 100);
    }

    #[test]
    fn jitter_covers_everything_from_zero() {
        let mut backoff = after(20);
        assert_eq!(backoff.next(None, 0), Duration::ZERO);
        assert_eq!(backoff.next(None, MOST / 2).as_secs_f64().round(), 15.0);
        assert_eq!(after(u32::MAX).next(None, MOST).as_secs_f64().round(), 30.0);
    }

    #[test]
    fn what_the_peer_asked_for_is_the_least() {
        let asked = Some(Duration::from_secs(7));
        assert_eq!(after(0).next(asked, 0), Duration::from_secs(7));
        assert_eq!(after(30).next(asked, MOST).as_millis(), 7_100);
        assert_eq!(after(0).next(Some(Duration::MAX), 0), LONGEST_ASKED_FOR);
    }
}
