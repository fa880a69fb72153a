//! From traces that were kept with known probabilities to what is true of all, with 95 % intervals.
//!
//! A trace that was kept with probability p stands for 1/p (Horvitz and Thompson). Each is drawn by its own randomness, so
//! the variance of a sum is the sum of (1 - p)/p². Totals have the score interval, which is right for small counts too; so
//! have ratios of which one side is known for certain, and others are linearized, with Wilson's interval for
//! as many observations as would have that variance; a percentile
//! lies between the values of which what was kept does not refute that they are it (as Woodruff does it, with the variance
//! that a value would have if it were the percentile).
//! Sources: Särndal, Swensson and Wretman, "Model Assisted Survey Sampling", 1992; Woodruff, "Confidence Intervals for
//! Medians and Other Position Measures", 1952.

use serde::Serialize;

/// The 97.5th percentile of the normal distribution, and its square.
const Z: f64 = 1.959_963_984_540_054;
const Z2: f64 = Z * Z;

/// What is true of the whole traffic, as far as can be told.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Estimate {
    pub estimate: f64,
    pub low: f64,
    /// None: what was kept does not say.
    pub high: Option<f64>,
}

impl Estimate {
    fn new(estimate: f64, low: f64, high: f64) -> Estimate {
        Estimate { estimate, low, high: Some(high) }
    }
}

/// WeightedTrace traces by what they stand for.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Weighted {
    /// Those of probability 1.
    certain: f64,
    /// Of the others: how many, the sum of their weights, and of its variance.
    pub drawn: u64,
    weight: f64,
    variance: f64,
    /// The sum of each one's part of the variance times its own (1 - p)/p.
    skew: f64,
}

impl Weighted {
    pub fn add(&mut self, probability: f64) {
        if probability >= 1.0 {
            self.certain += 1.0;
        } else {
            self.drawn += 1;
            self.weight += 1.0 / probability;
            self.variance += variance_of(probability);
            self.skew += variance_of(probability) * (1.0 - probability) / probability;
        }
    }

    pub fn sum(&self) -> f64 {
        self.certain + self.weight
    }

    /// (1 - p)/p of the probability by which these were drawn, on average; `elsewhere` where none of them was.
    pub fn spread(&self, elsewhere: f64) -> f64 {
        if self.drawn == 0 { elsewhere } else { self.variance / self.weight }
    }

    /// Their number in the whole traffic. If there are more than it seems, the heavy ones were missed, so what is missing
    /// has their variance. Where nothing was drawn, a few may have been there and missed: as many as `elsewhere` says.
    pub fn total(&self, elsewhere: f64) -> Estimate {
        let heavy = if self.drawn == 0 { elsewhere } else { self.skew / self.variance };
        let middle = self.weight + Z2 * heavy / 2.0;
        let reach = Z * (self.variance + Z2 * heavy * heavy / 4.0).sqrt();
        let low = self.certain + (middle - reach).max(self.drawn as f64);
        Estimate::new(self.sum(), low, self.certain + middle + reach)
    }

    /// The part of these that `some` are, which are among them.
    pub fn ratio_of(&self, some: &Weighted, elsewhere: f64) -> Estimate {
        let (all, part) = (self.sum(), some.sum());
        if all == 0.0 {
            return Estimate { estimate: 0.0, low: 0.0, high: None };
        }
        let ratio = part / all;
        if self.drawn == 0 {
            let missed = Weighted::default().total(elsewhere).high.unwrap_or_default();
            return Estimate::new(ratio, part / (all + missed), (part + missed) / (all + missed));
        }
        let others = self.without(some);
        if part > 0.0 && part < all {
            let (low, high) = match (some.drawn, others.drawn) {
                // What is uncertain is how many others there are, or how many of these.
                (0, _) => others.bounds(|others| part / (part + others), true),
                (_, 0) => some.bounds(|part| part / (part + others.sum()), false),
                _ => {
                    let variance = (1.0 - ratio).powi(2) * some.variance + ratio.powi(2) * others.variance;
                    wilson(ratio, ratio * (1.0 - ratio) * all.powi(2) / variance)
                }
            };
            return Estimate::new(ratio, low, high);
        }
        // All are alike, and what was drawn says how many others it could have missed.
        let missed = wilson(0.0, self.effective()).1 * self.weight / all;
        if part == 0.0 { Estimate::new(0.0, 0.0, missed) } else { Estimate::new(1.0, 1.0 - missed, 1.0) }
    }

    /// What the bounds of the total become; those of what falls with it change places.
    fn bounds(&self, of: impl Fn(f64) -> f64, falls: bool) -> (f64, f64) {
        let total = self.total(0.0);
        let (low, high) = (of(total.low), of(total.high.unwrap_or(total.low)));
        if falls { (high, low) } else { (low, high) }
    }

    fn without(&self, some: &Weighted) -> Weighted {
        Weighted {
            certain: self.certain - some.certain,
            drawn: self.drawn - some.drawn,
            weight: (self.weight - some.weight).max(0.0),
            variance: (self.variance - some.variance).max(0.0),
            skew: (self.skew - some.skew).max(0.0),
        }
    }

    /// (1 - p)/p of a few of `all`: as if one more of them had been drawn, which is like all. So a part in which by chance
    /// no heavy one was drawn does not look certain.
    fn spread_among(&self, all: &Weighted) -> f64 {
        if all.drawn == 0 {
            return 0.0;
        }
        let one = (all.variance + all.weight) / all.weight;
        (self.variance + one * all.spread(0.0)) / (self.weight + one)
    }

    /// So many draws with one probability would say as much.
    fn effective(&self) -> f64 {
        self.weight.powi(2) / (self.variance + self.weight)
    }
}

/// What one trace adds to the variance of a sum.
fn variance_of(probability: f64) -> f64 {
    (1.0 - probability) / probability.powi(2)
}

/// Wilson's interval of a ratio that was seen in so many observations.
fn wilson(ratio: f64, observations: f64) -> (f64, f64) {
    if !observations.is_finite() {
        return (ratio, ratio);
    }
    let n = observations;
    let middle = (ratio + Z2 / (2.0 * n)) / (1.0 + Z2 / n);
    let reach = Z / (1.0 + Z2 / n) * (ratio * (1.0 - ratio) / n + Z2 / (4.0 * n * n)).sqrt();
    ((middle - reach).max(0.0), (middle + reach).min(1.0))
}

/// A value below which a part of the whole traffic lies. `values` are sorted, each with its probability. None if nothing
/// was kept.
pub fn quantile(values: &[(u64, f64)], part: f64, elsewhere: f64) -> Option<Estimate> {
    let mut all = Weighted::default();
    values.iter().for_each(|(_, probability)| all.add(*probability));
    let estimate = crossing(values, part * all.sum())?;
    if all.drawn == 0 {
        let exact = Estimate::new(estimate as f64, estimate as f64, estimate as f64);
        return Some(if elsewhere > 0.0 { Estimate { low: 0.0, high: None, ..exact } } else { exact });
    }
    let (mut below, mut low) = (Weighted::default(), None);
    for (at, (value, probability)) in values.iter().enumerate() {
        below.add(*probability);
        if values.get(at + 1).is_some_and(|(next, _)| next == value) {
            continue;
        }
        let excess = excess(&below, &all, part);
        if excess >= -Z && low.is_none() {
            low = Some(*value);
        }
        if excess > Z {
            return Some(Estimate::new(estimate as f64, low.unwrap_or(*value) as f64, *value as f64));
        }
    }
    // Beyond the last one there may be others that were not drawn.
    Some(Estimate { estimate: estimate as f64, low: low.unwrap_or(estimate) as f64, high: None })
}

/// GroupBy how many standard deviations more lies `below` than would if it were just that part.
fn excess(below: &Weighted, all: &Weighted, part: f64) -> f64 {
    let above = all.without(below);
    let excess = (1.0 - part) * below.sum() - part * above.sum();
    let drawn = |side: &Weighted, part: f64| (part * all.sum() - side.certain).max(0.0);
    let variance = (1.0 - part).powi(2) * drawn(below, part) * below.spread_among(all)
        + part.powi(2) * drawn(&above, 1.0 - part) * above.spread_among(all);
    // Sums of many weights differ in their last digits.
    if excess.abs() <= all.sum() * 1e-9 { 0.0 } else { excess / variance.sqrt() }
}

/// The first value at which the sum of weights reaches `weight`; the last one where rounding has left it short.
fn crossing(values: &[(u64, f64)], weight: f64) -> Option<u64> {
    // Sums of many weights differ in their last digits.
    let wanted = weight * (1.0 - 1e-12);
    let mut sum = 0.0;
    let reached = values.iter().find(|(_, probability)| {
        sum += 1.0 / probability;
        sum >= wanted
    });
    reached.or(values.last()).map(|(value, _)| *value)
}
