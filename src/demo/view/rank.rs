//! Which operations to look at first.

use super::{MANY_ERRORS, OperationView};
use std::cmp::Reverse;

/// Those that fail most and those that are slowest in turn, so that few rows have some of both.
pub(super) fn worst_first(operations: &[OperationView]) -> Vec<&OperationView> {
    let mut failing: Vec<usize> = (0..operations.len()).filter(|&o| operations[o].errors >= MANY_ERRORS).collect();
    let failures = |at: &usize| operations[*at].errors * operations[*at].per_second;
    failing.sort_by(|a, b| failures(b).total_cmp(&failures(a)));
    let mut slow: Vec<usize> = (0..operations.len()).collect();
    slow.sort_by_key(|&at| Reverse(operations[at].p99));
    let (mut failing, mut slow) = (failing.into_iter(), slow.into_iter());
    let mut left: Vec<Option<&OperationView>> = operations.iter().map(Some).collect();
    let mut ranked = Vec::with_capacity(left.len());
    while ranked.len() < left.len() {
        ranked.extend(failing.find_map(|at| left[at].take()));
        ranked.extend(slow.find_map(|at| left[at].take()));
    }
    ranked
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn names(operations: &[(&str, f64, f64, u64)]) -> Vec<String> {
        let operation = |&(name, per_second, errors, p99): &(&str, f64, f64, u64)| OperationView {
            service: "shop".into(),
            name: name.into(),
            per_second,
            errors,
            p50: Duration::ZERO,
            p90: Duration::ZERO,
            p99: Duration::from_millis(p99),
        };
        worst_first(&operations.iter().map(operation).collect::<Vec<_>>()).iter().map(|o| o.name.clone()).collect()
    }

    #[test]
    fn the_failing_and_the_slow_come_before_the_busy() {
        let ranked = names(&[
            ("busy", 900.0, 0.001, 5),
            ("slow", 1.0, 0.0, 9000),
            ("fails", 10.0, 0.5, 1),
            ("fails most", 100.0, 0.2, 20),
            ("slowish", 50.0, 0.0, 800),
        ]);
        assert_eq!(ranked, ["fails most", "slow", "fails", "slowish", "busy"]);
        let both = names(&[("busy", 900.0, 0.0, 5), ("fails and is slow", 1.0, 1.0, 9000)]);
        assert_eq!(both, ["fails and is slow", "busy"]);
        assert_eq!(names(&[]), [""; 0]);
    }
}
