//! What is true of the whole traffic, by the traces that were kept of it and the probability with which each was.
//!
//! Pure: traces come as arguments, from the store or from recordings.

mod interval;
mod render;

pub use interval::Estimate;
pub use render::table;

use crate::plan::Gates;
use crate::plan::recording::no_questions;
use crate::scan::Questions;
use crate::trace::Threshold;
use crate::trace::label::shortened;
use crate::trace::observed::QUESTION_SETS;
use crate::trace::{Observed, Summary};
use interval::{Weighted, quantile};
use serde::Serialize;
use std::collections::BTreeMap;

/// Groups that are told apart; traces of further ones are in `other`.
const GROUPS_MAX: usize = 10_000;
const OTHER: &str = "other";
/// Of fewer drawn traces little can be said, and the table marks it.
pub const FEW: u64 = 10;
const PERCENTILES: [f64; 3] = [0.5, 0.9, 0.99];
const NANOS_IN_MS: f64 = 1e6;

/// How a kept trace came to be kept.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum KeptWeight {
    /// With this threshold.
    Known(Threshold),
    /// GroupBy hand, or because it came late: traces with a weight stand for it already.
    StoodFor,
    /// It does not say: the limit of a rule with `then: none`, or a sampler that writes no `th`.
    Unknown,
}

/// Holds for traces that others stand for, unless they have a weight.
const STOOD_FOR: &str = "any_of: [{ any_span: { attributes: { tailkeep.rule: api } } }, \
    { any_span: { attributes: { tailkeep.trigger: late } } }, \
    { any_span: { attributes: { tailkeep.incomplete: evicted } } }]";

impl KeptWeight {
    /// GroupBy what the columns of the store, or attributes of the same names, say.
    pub fn of_marks(
        threshold: Option<Threshold>,
        rule: Option<&str>,
        trigger: Option<&str>,
        incomplete: Option<&str>,
    ) -> KeptWeight {
        let is_stood_for = rule == Some("api") || trigger == Some("late") || incomplete == Some("evicted");
        KeptWeight::new(threshold, is_stood_for)
    }

    fn new(threshold: Option<Threshold>, is_stood_for: bool) -> KeptWeight {
        match threshold {
            Some(threshold) => KeptWeight::Known(threshold),
            None if is_stood_for => KeptWeight::StoodFor,
            None => KeptWeight::Unknown,
        }
    }
}

/// What of a kept trace is estimated from.
#[derive(Clone, Copy, Debug)]
pub struct WeightedTrace<'a> {
    /// Of the entry span.
    pub service: &'a str,
    pub name: &'a str,
    pub error: bool,
    /// Unix nanoseconds.
    pub start: u64,
    /// Nanoseconds.
    pub duration: u64,
    pub weight: KeptWeight,
}

/// Which traces are counted, and what a span must answer for that.
#[derive(Debug)]
pub struct Selection {
    conditions: Gates,
    questions: [Questions; QUESTION_SETS],
}

impl Selection {
    /// Traces of which `condition` holds, if there is one: as `when:` has it, in one line.
    ///
    /// # Errors
    /// What is wrong with it, for whoever wrote it.
    pub fn parse(condition: Option<&str>) -> Result<Selection, String> {
        let conditions: Vec<String> = condition.into_iter().chain([STOOD_FOR]).map(str::to_owned).collect();
        let conditions = Gates::parse(&conditions)?;
        let asked = Questions::compile(&conditions.policy().conditions, &[], 1);
        let mut questions = no_questions();
        questions[0] =
            asked.map_err(|_| "the condition asks more different questions than there are bits".to_owned())?;
        Ok(Selection { conditions, questions })
    }

    pub fn questions(&self) -> &[Questions; QUESTION_SETS] {
        &self.questions
    }

    /// The weight of a trace that was asked these questions; none if it is not counted.
    pub fn weight(&self, observed: &Observed) -> Option<KeptWeight> {
        let summary: Summary = observed.summary_by(0);
        let held: Vec<usize> = self.conditions.matching(&[summary]).collect();
        let last = self.conditions.conditions().count() - 1;
        (last == 0 || held.contains(&0)).then(|| KeptWeight::new(observed.threshold, held.contains(&last)))
    }
}

/// What groups are made by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupBy {
    Service,
    ServiceAndName,
}

/// What was kept of one group.
#[derive(Default)]
struct KeptGroup {
    kept: u64,
    unknown: u64,
    all: Weighted,
    errors: Weighted,
    /// With the probability of each.
    durations: Vec<(u64, f64)>,
}

impl KeptGroup {
    fn add(&mut self, kept: &WeightedTrace<'_>, probability: f64) {
        self.kept += 1;
        self.unknown += u64::from(kept.weight == KeptWeight::Unknown);
        self.all.add(probability);
        if kept.error {
            self.errors.add(probability);
        }
        self.durations.push((kept.duration, probability));
    }

    /// Of a number: what was dropped beside traces without a weight is not known.
    fn at_least(&self, number: Estimate) -> Estimate {
        Estimate { high: number.high.filter(|_| self.unknown == 0), ..number }
    }

    fn row(mut self, spread: f64) -> EstimateRow {
        self.durations.sort_unstable_by_key(|(duration, _)| *duration);
        let of = |part| quantile(&self.durations, part, spread).map(in_ms);
        let [p50, p90, p99] = PERCENTILES.map(of);
        // Where failed ones were kept for certain, none of them is missed, as far as is known.
        let missed = if self.errors.sum() > 0.0 { 0.0 } else { self.all.spread(spread) };
        EstimateRow {
            service: None,
            name: None,
            kept: self.kept,
            drawn: self.all.drawn,
            without_weight: self.unknown,
            traces: self.at_least(self.all.total(spread)),
            errors: self.at_least(self.errors.total(missed)),
            error_ratio: self.all.ratio_of(&self.errors, spread),
            duration_ms: Percentiles { p50, p90, p99 },
        }
    }
}

fn in_ms(nanos: Estimate) -> Estimate {
    let Estimate { estimate, low, high } = nanos;
    Estimate { estimate: estimate / NANOS_IN_MS, low: low / NANOS_IN_MS, high: high.map(|high| high / NANOS_IN_MS) }
}

/// What is true of one group of the whole traffic.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct EstimateRow {
    /// None: of all groups.
    pub service: Option<String>,
    pub name: Option<String>,
    /// Traces that were kept, those of them that were drawn by a share, and those of which no probability is known.
    pub kept: u64,
    pub drawn: u64,
    pub without_weight: u64,
    pub traces: Estimate,
    pub errors: Estimate,
    pub error_ratio: Estimate,
    pub duration_ms: Percentiles,
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Percentiles {
    pub p50: Option<Estimate>,
    pub p90: Option<Estimate>,
    pub p99: Option<Estimate>,
}

/// Everything that is estimated.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct EstimateReport {
    pub confidence: f64,
    /// Between the first and the last start.
    pub seconds: f64,
    /// WeightedTrace traces that others stand for: they do not count.
    pub stood_for: u64,
    pub total: EstimateRow,
    /// The largest first.
    pub groups: Vec<EstimateRow>,
    pub warnings: Vec<String>,
}

/// Takes kept traces in, one by one.
pub struct Estimator {
    by: GroupBy,
    total: KeptGroup,
    groups: BTreeMap<(String, String), KeptGroup>,
    smallest: f64,
    stood_for: u64,
    first: u64,
    last: u64,
}

impl Estimator {
    pub fn new(by: GroupBy) -> Estimator {
        Estimator {
            by,
            total: KeptGroup::default(),
            groups: BTreeMap::new(),
            smallest: 1.0,
            stood_for: 0,
            first: u64::MAX,
            last: 0,
        }
    }

    pub fn take(&mut self, kept: &WeightedTrace<'_>) {
        let probability = match kept.weight {
            // No threshold that keeps nothing has kept this.
            KeptWeight::Known(threshold) => threshold.share().max(f64::MIN_POSITIVE),
            KeptWeight::Unknown => 1.0,
            KeptWeight::StoodFor => {
                self.stood_for += 1;
                return;
            }
        };
        (self.first, self.last) = (self.first.min(kept.start), self.last.max(kept.start));
        self.smallest = self.smallest.min(probability);
        self.total.add(kept, probability);
        self.group(kept).add(kept, probability);
    }

    fn group(&mut self, kept: &WeightedTrace<'_>) -> &mut KeptGroup {
        let name = if self.by == GroupBy::ServiceAndName { kept.name } else { "" };
        let mut key = (shortened(kept.service.into()).into_owned(), shortened(name.into()).into_owned());
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&key) {
            key = (OTHER.to_owned(), if name.is_empty() { "" } else { OTHER }.to_owned());
        }
        self.groups.entry(key).or_default()
    }

    pub fn finish(self, mut warnings: Vec<String>) -> EstimateReport {
        let spread = (1.0 - self.smallest) / self.smallest;
        let by = self.by;
        let row = |((service, name), group): ((String, String), KeptGroup)| EstimateRow {
            service: Some(service),
            name: (by == GroupBy::ServiceAndName).then_some(name),
            ..group.row(spread)
        };
        let mut groups: Vec<EstimateRow> = self.groups.into_iter().map(row).collect();
        groups.sort_by(|a, b| b.traces.estimate.total_cmp(&a.traces.estimate));
        let total = self.total.row(spread);
        if total.without_weight > 0 {
            warnings.push(format!(
                "{} kept traces carry no weight and count once each: of what was dropped beside them nothing is known, so \
                 all figures may be too low",
                total.without_weight
            ));
        }
        let seconds = self.last.saturating_sub(self.first) as f64 / 1e9;
        EstimateReport { confidence: 0.95, seconds, stood_for: self.stood_for, total, groups, warnings }
    }
}

#[cfg(test)]
mod tests;
