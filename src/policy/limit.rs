//! Limits: how much of what a rule matches it may keep.
//!
//! A limit is a token bucket that holds one period's worth. A trace is inside the limit while at least one
//! unit is left; what it takes beyond that is a debt which the next refills repay, so a trace larger than
//! the whole limit can be kept, and the long-run rate is still exact.
//!
//! A limit is one rule's, or has a name and several rules share it: then the traces of all of them take from it, in
//! the order in which they are judged. One [`Limits`] serves the whole process. Time is an argument, in milliseconds.

use super::Rule;
use crate::trace::question::EntryAttribute;
use crate::trace::{LimitId, RuleId, Summary};
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// What a rate counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum RateUnit {
    Traces,
    Spans,
    Bytes,
}

/// So many units a period.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Rate {
    pub amount: u64,
    pub unit: RateUnit,
    pub period_ms: u64,
}

impl Rate {
    /// A rate above this is a typing error.
    pub const AMOUNT_MAX: u64 = 1 << 40;
}

impl fmt::Display for Rate {
    /// As a policy writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit {
            RateUnit::Traces => write!(f, "{}", self.amount)?,
            RateUnit::Spans => write!(f, "{} spans", self.amount)?,
            RateUnit::Bytes => write_size(f, self.amount)?,
        }
        f.write_str(if self.period_ms == 1000 { "/s" } else { "/min" })
    }
}

/// In the largest unit that is exact.
fn write_size(f: &mut fmt::Formatter<'_>, bytes: u64) -> fmt::Result {
    for (unit, size) in [("GiB", 1 << 30), ("GB", 1_000_000_000), ("MiB", 1 << 20), ("MB", 1_000_000), ("KiB", 1 << 10)]
    {
        if bytes >= size && bytes.is_multiple_of(size) {
            return write!(f, "{}{unit}", bytes / size);
        }
    }
    write!(f, "{bytes}B")
}

/// `limit`, `for_each` and `limit_total` of a rule, or of a limit with a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limit {
    pub rate: Rate,
    pub each: Option<Each>,
}

/// A limit for every key, and one for all keys together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Each {
    /// What of the entry span makes the key; in order, each once.
    pub parts: Vec<KeyPart>,
    pub total: Rate,
}

impl fmt::Display for Each {
    /// `entry.service and entry.name`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.parts.iter().map(KeyPart::to_string).collect();
        f.write_str(&parts.join(" and "))
    }
}

/// A part of the key of a limit. The value of one that the trace does not have is "absent".
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum KeyPart {
    Service,
    Name,
    Attribute(EntryAttribute),
}

impl fmt::Display for KeyPart {
    /// As a policy writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyPart::Service => f.write_str("entry.service"),
            KeyPart::Name => f.write_str("entry.name"),
            KeyPart::Attribute(EntryAttribute { of_resource: false, keys }) => {
                write!(f, "entry.attributes.{}", keys[0])
            }
            KeyPart::Attribute(EntryAttribute { of_resource: true, keys }) => write!(f, "entry.resource.{}", keys[0]),
        }
    }
}

/// Where a summary has the parts of a key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct KeyOfTrace(Box<[PlaceInEntry]>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PlaceInEntry {
    Service,
    Name,
    Value(usize),
}

impl KeyOfTrace {
    /// `attributes` are those that the question set counts by; what is new is added.
    pub fn compile(limit: &Limit, attributes: &mut Vec<EntryAttribute>) -> KeyOfTrace {
        let parts = limit.each.iter().flat_map(|each| &each.parts);
        let places = parts.map(|part| match part {
            KeyPart::Service => PlaceInEntry::Service,
            KeyPart::Name => PlaceInEntry::Name,
            KeyPart::Attribute(attribute) => {
                let known = attributes.iter().position(|known| known == attribute);
                PlaceInEntry::Value(known.unwrap_or_else(|| {
                    attributes.push(attribute.clone());
                    attributes.len() - 1
                }))
            }
        });
        KeyOfTrace(places.collect())
    }

    /// The summary's hashes are keyed already, so mixing them is enough.
    pub fn of(&self, summary: &Summary) -> u64 {
        let entry = &summary.entry;
        self.0.iter().fold(0, |key: u64, place| {
            let value = match place {
                PlaceInEntry::Service => entry.service_hash,
                PlaceInEntry::Name => entry.name_hash,
                PlaceInEntry::Value(place) => entry.values[*place],
            };
            key.rotate_left(32).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(value)
        })
    }
}

/// What one trace takes from a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    pub spans: u64,
    pub bytes: u64,
}

impl Cost {
    fn of(self, unit: RateUnit) -> u64 {
        match unit {
            RateUnit::Traces => 1,
            RateUnit::Spans => self.spans,
            RateUnit::Bytes => self.bytes,
        }
    }
}

/// A trace that asks for room in a limit.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The rule that matched it.
    pub rule: RuleId,
    pub id: LimitId,
    pub limit: &'a Limit,
    /// What `for_each` makes of the trace.
    pub key: u64,
    pub cost: Cost,
    /// Take the cost if there is room; else only ask.
    pub take: bool,
    pub now_ms: u64,
}

/// Where rules ask whether a trace is inside their limit.
pub trait Charge {
    fn admit(&mut self, claim: &Claim<'_>) -> bool;
}

/// How often its limit mattered to a rule, since the process began. Only grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LimitCounts {
    /// Judgements of traces that the rule matched, beyond its limit.
    pub reached: u64,
    /// Judgements of traces whose key shared the bucket beyond the cap.
    pub overflowed: u64,
}

/// All buckets of the process.
#[derive(Debug)]
pub struct Limits {
    states: Vec<LimitState>,
    /// Of every rule that has or had a limit, its own or a shared one.
    counts: BTreeMap<RuleId, LimitCounts>,
    keys_max: usize,
}

#[derive(Debug)]
struct LimitState {
    id: LimitId,
    limit: Limit,
    /// The only bucket, or with `for_each` that of `limit_total`.
    total: TokenBucket,
    keys: HashMap<u64, TokenBucket, foldhash::fast::RandomState>,
    /// Shared by all keys beyond the cap.
    overflow: TokenBucket,
    swept_ms: u64,
}

/// What a limit says to a claim.
#[derive(Clone, Copy)]
struct LimitAnswer {
    is_inside: bool,
    /// Its key has no bucket of its own.
    is_overflowed: bool,
}

impl Limits {
    /// Default of the cap on keys per limit: 10,000 keys are about 400 KiB.
    pub const KEYS_MAX: usize = 10_000;

    pub fn new(keys_max: usize) -> Limits {
        Limits { states: Vec::new(), counts: BTreeMap::new(), keys_max }
    }

    /// Forgets the buckets that no rule of `rules` uses, and counts from 0 for rules that are new. A limit of the
    /// same rule or name that did not change keeps its buckets over a reload.
    pub fn retain(&mut self, rules: &[Rule]) {
        let uses = |rule: &Rule, state: &LimitState| rule.limit_id() == state.id && rule.limit() == Some(&state.limit);
        self.states.retain(|state| rules.iter().any(|rule| uses(rule, state)));
        for rule in rules.iter().filter(|rule| rule.limit().is_some()) {
            self.counts.entry(rule.id).or_default();
        }
    }

    /// Of every rule that has or had a limit.
    pub fn counts(&self) -> BTreeMap<RuleId, LimitCounts> {
        self.counts.clone()
    }

    /// Keys held, over all limits.
    pub fn keys(&self) -> usize {
        self.states.iter().map(|state| state.keys.len()).sum()
    }

    /// A trace that is judged by a former version of the policy may ask for buckets that are gone, and names beyond
    /// [`RuleNames::MAX`](crate::trace::RuleNames::MAX) share an id: so an id may have several buckets.
    fn state(&mut self, claim: &Claim<'_>) -> &mut LimitState {
        let known = self.states.iter().position(|state| state.id == claim.id && state.limit == *claim.limit);
        let at = known.unwrap_or_else(|| {
            self.states.push(LimitState::new(claim));
            self.states.len() - 1
        });
        &mut self.states[at]
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::new(Limits::KEYS_MAX)
    }
}

impl Charge for Limits {
    fn admit(&mut self, claim: &Claim<'_>) -> bool {
        let keys_max = self.keys_max;
        let LimitAnswer { is_inside, is_overflowed } = self.state(claim).admit(claim, keys_max);
        if !is_inside || is_overflowed {
            let counts = self.counts.entry(claim.rule).or_default();
            counts.reached += u64::from(!is_inside);
            counts.overflowed += u64::from(is_overflowed);
        }
        is_inside
    }
}

/// The process-wide limits, which all shards share. The lock is held for a few comparisons.
impl Charge for &Mutex<Limits> {
    fn admit(&mut self, claim: &Claim<'_>) -> bool {
        self.lock().unwrap_or_else(PoisonError::into_inner).admit(claim)
    }
}

impl LimitState {
    fn new(claim: &Claim<'_>) -> LimitState {
        let Limit { rate, ref each } = *claim.limit;
        let now = claim.now_ms;
        LimitState {
            id: claim.id,
            limit: claim.limit.clone(),
            total: TokenBucket::full(each.as_ref().map_or(rate, |each| each.total), now),
            keys: HashMap::default(),
            overflow: TokenBucket::full(rate, now),
            swept_ms: now,
        }
    }

    fn admit(&mut self, claim: &Claim<'_>, keys_max: usize) -> LimitAnswer {
        let Limit { rate, ref each } = *claim.limit;
        let total_rate = each.as_ref().map_or(rate, |each| each.total);
        let mut answer = LimitAnswer { is_inside: self.total.has_room(total_rate, claim.now_ms), is_overflowed: false };
        if answer.is_inside && each.is_some() {
            let bucket = self.bucket_of(claim.key, claim.now_ms, keys_max, &mut answer.is_overflowed);
            answer.is_inside = bucket.has_room(rate, claim.now_ms);
            if answer.is_inside && claim.take {
                bucket.take(rate, claim.cost.of(rate.unit));
            }
        }
        if answer.is_inside && claim.take {
            self.total.take(total_rate, claim.cost.of(total_rate.unit));
        }
        answer
    }

    fn bucket_of(&mut self, key: u64, now_ms: u64, keys_max: usize, is_overflowed: &mut bool) -> &mut TokenBucket {
        let rate = self.limit.rate;
        if self.keys.len() >= keys_max && !self.keys.contains_key(&key) && !self.make_room(now_ms, keys_max) {
            *is_overflowed = true;
            return &mut self.overflow;
        }
        self.keys.entry(key).or_insert_with(|| TokenBucket::full(rate, now_ms))
    }

    /// Forgets the keys whose bucket is full again: a new bucket would be the same. Looks at all keys,
    /// so at most once a period.
    fn make_room(&mut self, now_ms: u64, keys_max: usize) -> bool {
        let rate = self.limit.rate;
        if now_ms.saturating_sub(self.swept_ms) < rate.period_ms {
            return false;
        }
        self.swept_ms = now_ms;
        self.keys.retain(|_, bucket| !bucket.is_full(rate, now_ms));
        self.keys.len() < keys_max
    }
}

/// Tokens in units of 1 / `period_ms`, so that a millisecond's refill is a whole number.
#[derive(Clone, Copy, Debug)]
struct TokenBucket {
    level: i64,
    at_ms: u64,
}

impl TokenBucket {
    fn depth(rate: Rate) -> i64 {
        (rate.amount * rate.period_ms) as i64
    }

    fn full(rate: Rate, now_ms: u64) -> TokenBucket {
        TokenBucket { level: TokenBucket::depth(rate), at_ms: now_ms }
    }

    /// Clocks of several callers may differ by a little: time never goes back here.
    fn refill(&mut self, rate: Rate, now_ms: u64) {
        let elapsed = now_ms.saturating_sub(self.at_ms) as i64;
        self.at_ms = self.at_ms.max(now_ms);
        let gained = elapsed.saturating_mul(rate.amount as i64);
        self.level = self.level.saturating_add(gained).min(TokenBucket::depth(rate));
    }

    fn has_room(&mut self, rate: Rate, now_ms: u64) -> bool {
        self.refill(rate, now_ms);
        self.level >= rate.period_ms as i64
    }

    fn is_full(&mut self, rate: Rate, now_ms: u64) -> bool {
        self.refill(rate, now_ms);
        self.level == TokenBucket::depth(rate)
    }

    fn take(&mut self, rate: Rate, units: u64) {
        let cost = i64::try_from(units).unwrap_or(i64::MAX).saturating_mul(rate.period_ms as i64);
        self.level = self.level.saturating_sub(cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: RuleId = RuleId(9);

    fn rate(amount: u64, unit: RateUnit, period_ms: u64) -> Rate {
        Rate { amount, unit, period_ms }
    }

    fn plain(rate: Rate) -> Limit {
        Limit { rate, each: None }
    }

    fn admit(limits: &mut Limits, limit: &Limit, key: u64, cost: Cost, now_ms: u64) -> bool {
        limits.admit(&Claim { rule: RULE, id: LimitId::OfRule(RULE), limit, key, cost, take: true, now_ms })
    }

    const ONE: Cost = Cost { spans: 1, bytes: 1 };

    #[test]
    fn a_bucket_holds_one_period_and_refills_evenly() {
        let (mut limits, limit) = (Limits::default(), plain(rate(10, RateUnit::Traces, 1000)));
        let mut at = |now| admit(&mut limits, &limit, 0, ONE, now);
        assert_eq!((0..20).filter(|_| at(5000)).count(), 10);
        assert!(!at(5099));
        assert!(at(5100));
        assert!(!at(5100));
        assert_eq!((0..20).filter(|_| at(60_000)).count(), 10);
        assert!(!at(5000), "time that goes back refills nothing");
    }

    #[test]
    fn once_a_minute_is_not_twice_at_the_start() {
        let (mut limits, limit) = (Limits::default(), plain(rate(1, RateUnit::Traces, 60_000)));
        let kept: Vec<u64> = (0..180_000).step_by(100).filter(|&now| admit(&mut limits, &limit, 0, ONE, now)).collect();
        assert_eq!(kept, [0, 60_000, 120_000]);
    }

    #[test]
    fn a_trace_larger_than_the_limit_is_kept_and_its_debt_repaid() {
        let (mut limits, limit) = (Limits::default(), plain(rate(100, RateUnit::Spans, 1000)));
        let huge = Cost { spans: 1000, bytes: 0 };
        assert!(admit(&mut limits, &limit, 0, huge, 0));
        let next = (0..20_000).find(|&now| admit(&mut limits, &limit, 0, ONE, now));
        assert_eq!(next, Some(9010), "900 spans of debt and the one that is asked for, at 100/s");
    }

    #[test]
    fn asking_takes_nothing() {
        let (mut limits, limit) = (Limits::default(), plain(rate(1, RateUnit::Bytes, 1000)));
        let id = LimitId::OfRule(RULE);
        let claim = Claim { rule: RULE, id, limit: &limit, key: 0, cost: ONE, take: false, now_ms: 0 };
        assert!(limits.admit(&claim) && limits.admit(&claim));
        assert!(limits.admit(&Claim { take: true, ..claim }));
        assert!(!limits.admit(&claim));
    }

    fn for_each(per_key: u64, total: u64) -> Limit {
        let total = rate(total, RateUnit::Traces, 1000);
        Limit {
            rate: rate(per_key, RateUnit::Traces, 60_000),
            each: Some(Each { parts: vec![KeyPart::Service], total }),
        }
    }

    #[test]
    fn each_key_has_a_limit_and_all_have_one() {
        let (mut limits, limit) = (Limits::default(), for_each(1, 5));
        let mut at = |key, now| admit(&mut limits, &limit, key, ONE, now);
        assert!(at(1, 0) && at(2, 0) && at(3, 0));
        assert!(!at(1, 0));
        assert!(at(4, 0) && at(5, 0));
        assert!(!at(6, 0), "five a second in all");
        assert!(at(6, 1000), "what the total refused did not charge the key");
        assert!(!at(1, 59_999));
        assert!(at(1, 60_000));
    }

    #[test]
    fn every_part_of_a_key_tells_traces_apart() {
        let attribute =
            |key: &str| KeyPart::Attribute(EntryAttribute { of_resource: false, keys: vec![key.to_owned()] });
        let parts = vec![KeyPart::Service, KeyPart::Name, attribute("tenant")];
        let total = rate(1, RateUnit::Traces, 1000);
        let limit = Limit { rate: total, each: Some(Each { parts, total }) };
        // Another rule counts by an attribute before this one.
        let mut attributes = vec![EntryAttribute { of_resource: true, keys: vec!["tenant".to_owned()] }];
        let key = KeyOfTrace::compile(&limit, &mut attributes);
        assert_eq!(attributes.len(), 2);
        let of = |service, name, values| {
            let mut summary = Summary::default();
            summary.entry.service_hash = service;
            summary.entry.name_hash = name;
            summary.entry.values = values;
            key.of(&summary)
        };
        let usual = of(1, 1, [0, 1]);
        assert_eq!(usual, of(1, 1, [9, 1]), "what it does not count by");
        let others = [of(2, 1, [0, 1]), of(1, 2, [0, 1]), of(1, 1, [0, 2]), of(1, 1, [0, 0])];
        assert!(others.iter().all(|other| *other != usual), "{others:?}");
    }

    #[test]
    fn keys_beyond_the_cap_share_a_bucket_until_there_is_room() {
        let (mut limits, limit) = (Limits::new(3), for_each(1, 1000));
        let mut kept = |now| (0..10).filter(|&key| admit(&mut limits, &limit, key, ONE, now)).count();
        assert_eq!(kept(0), 4, "three keys and the shared bucket");
        assert_eq!(kept(30_000), 0);
        assert_eq!(kept(60_000), 4);
        assert!(limits.keys() <= 3);
        assert_eq!(limits.counts()[&RULE], LimitCounts { reached: 22, overflowed: 21 });
    }

    #[test]
    fn a_rule_has_one_count_whatever_becomes_of_its_limit() {
        let (mut limits, old, new) = (Limits::default(), plain(rate(2, RateUnit::Traces, 1000)), for_each(1, 1));
        let refuse = |limits: &mut Limits, limit: &Limit, reached| {
            (0..9).for_each(|_| _ = admit(limits, limit, 0, ONE, 0));
            assert_eq!(limits.counts(), BTreeMap::from([(RULE, LimitCounts { reached, overflowed: 0 })]));
        };
        refuse(&mut limits, &old, 7);
        limits.retain(&[]);
        refuse(&mut limits, &new, 7 + 8);
        // Judged by a former version meanwhile: a second bucket of the same rule.
        refuse(&mut limits, &old, 7 + 8 + 7);
    }

    #[test]
    fn extreme_numbers_do_not_overflow() {
        let rate = rate(Rate::AMOUNT_MAX, RateUnit::Bytes, 60_000);
        let (mut limits, limit) = (Limits::default(), plain(rate));
        let cost = Cost { spans: u64::MAX, bytes: u64::MAX };
        assert!(admit(&mut limits, &limit, 0, cost, 0));
        assert!(!admit(&mut limits, &limit, 0, cost, 1));
        assert!(!admit(&mut limits, &limit, 0, ONE, 2));
    }
}
