//! What is slow for its operation: a quantile of the last hour's durations, learned for each group of traces.
//!
//! Durations of a minute are gathered apart. When it is over they join the baseline, unless the minute burned: far
//! more of it than expected was above the threshold. So a slow-down is not learned as normal while it lasts, but
//! for one that lasts an hour, which is the new normal. Older minutes weigh less, half for each
//! [`HALF_LIFE_MIN`] minutes.
//!
//! A threshold is computed at most every [`FROZEN_MS`], when a trace of the group is judged, from minutes that are
//! over: so it does not follow the traces that it judges. Time is an argument, in milliseconds, and there is no task
//! beside it: a group that nobody asks for costs nothing.

use hashbrown::HashMap;
use std::mem::size_of;

/// So long a threshold stays what it is.
pub const FROZEN_MS: u64 = 10_000;
/// After so many minutes a duration weighs half.
pub const HALF_LIFE_MIN: f64 = 20.0;
/// Of a group that burns for longer the new durations are normal, and one that is not seen for longer is forgotten.
const HOUR_MS: u64 = 3_600_000;
const MINUTE_MS: u64 = 60_000;
/// A minute burns with so many times the expected number above the threshold, and with at least so many.
const BURNING_TIMES: f64 = 3.0;
const BURNING_LEAST: f64 = 10.0;
/// Buckets in each doubling of the duration: a bucket is at most 1.6 % wide.
const BUCKETS_PER_DOUBLING_BITS: u32 = 6;

/// What is asked of a group's baseline.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Quantile {
    /// Between 0 and 1: 0.99 is above what 99 of 100 traces take.
    pub rank: f64,
    /// Of fewer durations nothing is known.
    pub min_samples: u32,
}

/// The durations of many groups, within a bound of memory.
#[derive(Debug)]
pub struct Baselines {
    groups: HashMap<u64, Baseline, foldhash::fast::RandomState>,
    bytes: usize,
    bytes_max: usize,
    /// Durations of groups that found no room.
    pub overflowed: u64,
    /// Groups that were not seen for an hour are looked for now and then.
    cleaned_ms: u64,
}

impl Baselines {
    pub fn new(bytes_max: usize) -> Baselines {
        Baselines { groups: HashMap::default(), bytes: 0, bytes_max, overflowed: 0, cleaned_ms: 0 }
    }

    /// The threshold of a group before this trace, whose duration then counts; nanoseconds. None where too little
    /// is known.
    pub fn judge(&mut self, key: u64, quantile: Quantile, nanos: u64, now_ms: u64) -> Option<u64> {
        self.clean(now_ms);
        let is_full = self.bytes >= self.bytes_max;
        let group = match self.groups.entry(key) {
            hashbrown::hash_map::Entry::Occupied(known) => known.into_mut(),
            hashbrown::hash_map::Entry::Vacant(_) if is_full => {
                self.overflowed += 1;
                return None;
            }
            hashbrown::hash_map::Entry::Vacant(free) => {
                self.bytes += Baseline::BYTES;
                free.insert(Baseline::new(now_ms))
            }
        };
        let before = group.bytes();
        group.advance(quantile, now_ms);
        let threshold = group.threshold;
        group.observe(nanos, now_ms);
        self.bytes = self.bytes + group.bytes() - before;
        threshold
    }

    /// The threshold as it stands, for an answer in words.
    pub fn threshold(&self, key: u64) -> Option<u64> {
        self.groups.get(&key)?.threshold
    }

    /// Memory that is held, bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    fn clean(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.cleaned_ms) < HOUR_MS / 6 {
            return;
        }
        self.cleaned_ms = now_ms;
        self.groups.retain(|_, group| now_ms.saturating_sub(group.seen_ms) < HOUR_MS);
        self.bytes = self.groups.values().map(|group| Baseline::BYTES + group.bytes()).sum();
    }
}

/// One group of traces that are compared with each other.
#[derive(Debug)]
struct Baseline {
    /// Minutes that are over, weighted by their age at `minute_ms`.
    past: FadingHistogram,
    /// The minute that began then.
    minute: FadingHistogram,
    minute_ms: u64,
    /// Of this minute, above the threshold that held.
    above: f64,
    burning_since: Option<u64>,
    threshold: Option<u64>,
    computed_ms: Option<u64>,
    seen_ms: u64,
}

impl Baseline {
    /// Without buckets, and its place in the map.
    const BYTES: usize = size_of::<Baseline>() + 2 * size_of::<u64>();

    fn new(now_ms: u64) -> Baseline {
        Baseline {
            past: FadingHistogram::default(),
            minute: FadingHistogram::default(),
            minute_ms: now_ms,
            above: 0.0,
            burning_since: None,
            threshold: None,
            computed_ms: None,
            seen_ms: now_ms,
        }
    }

    fn bytes(&self) -> usize {
        self.past.bytes() + self.minute.bytes()
    }

    fn observe(&mut self, nanos: u64, now_ms: u64) {
        self.seen_ms = now_ms;
        self.minute.add(nanos);
        self.above += f64::from(u8::from(self.threshold.is_some_and(|threshold| nanos > threshold)));
    }

    fn advance(&mut self, quantile: Quantile, now_ms: u64) {
        if now_ms.saturating_sub(self.minute_ms) >= MINUTE_MS {
            self.end_minute(quantile, now_ms);
        }
        if self.computed_ms.is_none_or(|at| now_ms.saturating_sub(at) >= FROZEN_MS) {
            self.computed_ms = Some(now_ms);
            let is_known = self.past.count >= f64::from(quantile.min_samples);
            self.threshold = if is_known { self.past.at(quantile.rank) } else { None };
        }
    }

    fn end_minute(&mut self, quantile: Quantile, now_ms: u64) {
        let minutes = now_ms.saturating_sub(self.minute_ms) as f64 / MINUTE_MS as f64;
        let minute = std::mem::take(&mut self.minute);
        let expected = minute.count * (1.0 - quantile.rank);
        let burns = self.above >= BURNING_LEAST && self.above > BURNING_TIMES * expected;
        let since = *self.burning_since.get_or_insert(self.minute_ms);
        if !burns {
            self.burning_since = None;
        }
        if !burns || now_ms.saturating_sub(since) >= HOUR_MS {
            self.past.scale(0.5f64.powf(minutes / HALF_LIFE_MIN));
            self.past.merge(&minute);
        }
        (self.minute_ms, self.above) = (now_ms, 0.0);
    }
}

/// Counts by duration, as many buckets as have some; weights, for they fade.
#[derive(Clone, Debug, Default)]
struct FadingHistogram {
    /// By bucket, ascending.
    buckets: Vec<(u16, f32)>,
    count: f64,
}

impl FadingHistogram {
    fn bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<(u16, f32)>()
    }

    fn add(&mut self, nanos: u64) {
        self.add_to(bucket_of(nanos), 1.0);
    }

    fn add_to(&mut self, bucket: u16, weight: f32) {
        self.count += f64::from(weight);
        match self.buckets.binary_search_by_key(&bucket, |(known, _)| *known) {
            Ok(at) => self.buckets[at].1 += weight,
            Err(at) => self.buckets.insert(at, (bucket, weight)),
        }
    }

    fn merge(&mut self, other: &FadingHistogram) {
        other.buckets.iter().for_each(|(bucket, weight)| self.add_to(*bucket, *weight));
    }

    /// What weighs next to nothing is forgotten.
    fn scale(&mut self, by: f64) {
        self.buckets.iter_mut().for_each(|(_, weight)| *weight *= by as f32);
        self.buckets.retain(|(_, weight)| *weight > 1e-3);
        self.count = self.buckets.iter().map(|(_, weight)| f64::from(*weight)).sum();
    }

    /// The duration of that rank, as if a bucket's durations were spread evenly over it; nanoseconds.
    fn at(&self, rank: f64) -> Option<u64> {
        let mut above = self.count * (1.0 - rank);
        for &(bucket, weight) in self.buckets.iter().rev() {
            let weight = f64::from(weight);
            if above < weight {
                let (low, high) = (start_of(bucket), start_of(bucket + 1));
                return Some(high - ((high - low) as f64 * above / weight) as u64);
            }
            above -= weight;
        }
        self.buckets.first().map(|(bucket, _)| start_of(*bucket))
    }
}

fn bucket_of(nanos: u64) -> u16 {
    const LINEAR: u64 = 1 << BUCKETS_PER_DOUBLING_BITS;
    if nanos < LINEAR {
        return nanos as u16;
    }
    let doublings = nanos.ilog2() - BUCKETS_PER_DOUBLING_BITS;
    (u64::from(doublings) * LINEAR + (nanos >> doublings)) as u16
}

fn start_of(bucket: u16) -> u64 {
    const LINEAR: u64 = 1 << BUCKETS_PER_DOUBLING_BITS;
    let bucket = u64::from(bucket);
    if bucket < 2 * LINEAR {
        return bucket;
    }
    let doublings = bucket / LINEAR - 1;
    (LINEAR + bucket % LINEAR).checked_shl(doublings as u32).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
