//! File descriptors: how many this process may have, and how many of them connections may take.
//!
//! The usual soft limit of 1,024 is for programs that use `select`; the hard limit is what the system allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for probes, questions, sinks, the store and the queue on disk.
const RESERVED: u64 = 256;

/// Descriptors that this process may have once [`raise`] was called.
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// Raises the soft limit to the hard one.
///
/// # Errors
/// What the system says: the soft limit stays.
pub fn raise() -> std::io::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// Connections that each of so many listeners may have at most within a limit of descriptors.
pub fn connections(limit: u64, listeners: usize) -> usize {
    let left = limit - RESERVED.min(limit / 2);
    usize::try_from(left / listeners.max(1) as u64).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_left_whatever_the_limit_is() {
        assert_eq!(connections(1024, 2), 384);
        assert_eq!(connections(1024, 1), 768);
        assert_eq!(connections(100, 2), 25);
        assert_eq!(connections(0, 2), 1);
        assert!(connections(u64::MAX, 2) > 1 << 40);
    }
}
