//! Log Service.

mod encode;
pub(super) mod exponential;
mod json;
mod logs;
mod metrics;
mod sign;
mod time;
mod traces;

pub use sign::SignatureVersion;

/// The unit of `start`, `end` and `duration` of a span's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TimeUnit {
    /// What Alibaba's own converters write.
    #[default]
    Microseconds,
    /// What the help page "Trace data formats" says of `start` and `end`.
    Nanoseconds,
}

impl TimeUnit {
    fn nanos(self) -> u64 {
        match self {
            TimeUnit::Microseconds => 1000,
            TimeUnit::Nanoseconds => 1,
        }
    }
}
