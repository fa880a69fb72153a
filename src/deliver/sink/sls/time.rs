//! The times that Log Service accepts.

use super::encode::LogTime;

const SECOND: u64 = 1_000_000_000;
/// The service refuses a whole request for one log that is older than 7 days or more than 15 minutes
/// ahead. The margins leave room for the way there and for clocks that differ.
const PAST: u64 = (7 * 86_400 - 600) * SECOND;
const FUTURE: u64 = (15 * 60 - 60) * SECOND;

/// Unix nanoseconds by the service's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServiceTime(pub(super) u64);

impl ServiceTime {
    /// The time for a log of `unix_nanos`: itself, the nearest accepted one, or now if it is zero.
    pub(super) fn log_time(self, unix_nanos: u64) -> LogTime {
        let nanos = match unix_nanos {
            0 => self.0,
            given => given.clamp(self.0.saturating_sub(PAST), self.0 + FUTURE),
        };
        LogTime { seconds: u32::try_from(nanos / SECOND).unwrap_or(u32::MAX), nanos: (nanos % SECOND) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: ServiceTime = ServiceTime(1_795_428_000 * SECOND + 5);

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
}
