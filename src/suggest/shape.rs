//! Probes and polling, by their shape: they come as by a clock, are small, quick and all alike, and do not fail.

use super::profile::{MOMENT, OperationProfile, threshold};
use std::collections::BTreeMap;

const SPANS_MAX: u32 = 3;
const FAILED_MAX: f64 = 0.01;
/// The number of the threshold that none of them reaches: 100 ms.
const QUICK: usize = 12;
/// Fewer prove no regularity.
const TRACES_MIN: u64 = 24;
const WINDOWS_MIN: usize = 12;
/// How many moments a window has: of the periods of probes, 5 s to a minute, one fits.
const WIDTHS: [u64; 5] = [1, 2, 3, 6, 12];
/// Of the variance that chance would make, clocks have so much at most.
const DISPERSION_MAX: f64 = 0.25;

/// All of its shape but how regularly it comes.
pub(super) fn is_like_probes(operation: &OperationProfile) -> bool {
    let all = operation.all().traces;
    let failed = operation.failed.traces / (operation.failed.traces + all);
    let [fewest, most] = operation.spans;
    debug_assert_eq!(threshold(QUICK), 100_000_000);
    operation.is_exact
        && failed <= FAILED_MAX
        && fewest == most
        && most <= SPANS_MAX
        && operation.above(QUICK).traces == 0.0
}

/// In how many seconds as many of them come again and again, if it is a probe.
pub(super) fn period(operation: &OperationProfile) -> Option<u64> {
    if operation.traces < TRACES_MIN || !is_like_probes(operation) {
        return None;
    }
    let width = WIDTHS.into_iter().find(|&width| {
        // A window that ends just where they come would count now one and now the other.
        [0, width / 2].into_iter().any(|offset| is_even(&operation.moments, width, offset))
    })?;
    Some(width * MOMENT / 1_000_000_000)
}

/// Whether windows of this width hold nearly equal numbers. The first and the last one may not be whole.
fn is_even(moments: &BTreeMap<u64, u32>, width: u64, offset: u64) -> bool {
    let (Some((first, _)), Some((last, _))) = (moments.first_key_value(), moments.last_key_value()) else {
        return false;
    };
    let window = |moment: u64| (moment + offset) / width;
    let (first, last) = (window(*first) + 1, window(*last));
    let windows = last.saturating_sub(first) as usize;
    if windows < WINDOWS_MIN {
        return false;
    }
    let mut counts = vec![0.0; windows];
    for (moment, count) in moments {
        let at = window(*moment).wrapping_sub(first) as usize;
        if let Some(counted) = counts.get_mut(at) {
            *counted += f64::from(*count);
        }
    }
    let mean = counts.iter().sum::<f64>() / windows as f64;
    let variance = counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / (windows - 1) as f64;
    mean >= 1.0 && variance <= DISPERSION_MAX * mean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(seconds: impl Iterator<Item = f64>) -> BTreeMap<u64, u32> {
        let mut moments = BTreeMap::new();
        for second in seconds {
            *moments.entry((second * 1e9) as u64 / MOMENT).or_default() += 1;
        }
        moments
    }

    fn is_regular(moments: &BTreeMap<u64, u32>) -> bool {
        WIDTHS.iter().any(|&width| [0, width / 2].iter().any(|&offset| is_even(moments, width, offset)))
    }

    /// As good as any others, and the same each time.
    fn chance(seed: u64, number: u64) -> f64 {
        let mixed = (seed << 32 | number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ mixed >> 32) >> 11) as f64 / (1u64 << 53) as f64
    }

    #[test]
    fn clocks_are_regular_also_many_and_late_ones_and_chance_is_not() {
        for period in [1.0, 5.0, 7.0, 10.0, 15.0, 30.0, 60.0] {
            for clocks in [1, 3, 20] {
                let ticks = (0..clocks).flat_map(|clock| {
                    let phase = chance(clock, 0) * period;
                    (0..(1200.0 / period) as u64).map(move |n| phase + n as f64 * period + 0.05 * chance(clock, n + 1))
                });
                assert!(is_regular(&counted(ticks)), "{clocks} of {period} s");
            }
        }
        let mut taken_for_clocks = 0;
        for seed in 0..200 {
            let requests = (0..400).map(|n| chance(seed + 1000, n) * 1200.0);
            taken_for_clocks += u32::from(is_regular(&counted(requests)));
        }
        assert!(taken_for_clocks <= 2, "{taken_for_clocks} of 200");
        assert!(!is_regular(&counted((0..10).map(|n| n as f64))), "too short to tell");
    }
}
