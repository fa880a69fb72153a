//! How a budget becomes shares.

use super::{SHARE_MIN, USUAL_SHARE};

/// Failed and slow traces together may have so much of a budget before slow ones are thinned.
const SLOW_ROOM: f64 = 0.8;
/// Slow traces are not thinned further.
const SLOW_SHARE_MIN: f64 = 0.05;

/// Shares by which a budget is met.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct ShareOfBudget {
    pub slow: f64,
    /// Of what is neither failed nor slow; above 1 where there is room for loud ones too.
    rest: f64,
}

impl ShareOfBudget {
    /// Of an operation that gets a part of the share of the others: three digits, rounded down.
    pub fn of_rest(&self, part: f64) -> f64 {
        rounded((self.rest * part).clamp(SHARE_MIN, 1.0))
    }
}

/// `fixed` and `slow` are bytes a day of what is kept in any case and of slow traces, `rest` those of each operation with
/// the part of the share that it gets.
pub(super) fn share_of_budget(budget: Option<f64>, fixed: f64, slow: f64, rest: &[(f64, f64)]) -> ShareOfBudget {
    let Some(budget) = budget else { return ShareOfBudget { slow: 1.0, rest: USUAL_SHARE } };
    let room = (budget * SLOW_ROOM - fixed).max(0.0);
    let slow_share = if slow <= room { 1.0 } else { rounded((room / slow).max(SLOW_SHARE_MIN)) };
    let left = budget - fixed - slow * slow_share;
    let kept = |share: f64| rest.iter().map(|(bytes, part)| bytes * (share * part).min(1.0)).sum::<f64>();
    let (mut low, mut high) = (0.0, rest.iter().map(|(_, part)| 1.0 / part).fold(1.0, f64::max));
    if kept(high) <= left {
        return ShareOfBudget { slow: slow_share, rest: high };
    }
    for _ in 0..64 {
        let middle = (low + high) / 2.0;
        if kept(middle) <= left { low = middle } else { high = middle }
    }
    ShareOfBudget { slow: slow_share, rest: low }
}

/// Three digits, rounded down but for what is lost in the last bits.
fn rounded(share: f64) -> f64 {
    if share >= 1.0 {
        return 1.0;
    }
    let unit = 10f64.powf(share.log10().floor() - 2.0);
    let whole = (share / unit * (1.0 + 1e-9)).floor() * unit;
    (whole * 1e12).round() / 1e12
}
