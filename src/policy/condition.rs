//! What a rule asks of a trace: as it was written ([`When`]), and as it is judged (`Matcher`: masks
//! over facts and a few comparisons on the summary).

use super::fact_table::FactTable;
use crate::trace::question::{Condition, Range};
use crate::trace::{Facts, Incomplete, Summary};

/// The conditions of a rule, all of which must hold.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct When {
    pub all: Vec<Atom>,
    /// Must not hold: no `not` inside.
    pub not: Option<Box<When>>,
    /// One of these must hold, unless the list is empty: no `any_of` inside.
    pub any_of: Vec<When>,
}

/// One condition.
#[derive(Clone, PartialEq, Debug)]
pub enum Atom {
    Trace(TraceCheck),
    /// `any_span`, `entry`, `root`, `services` and each key of `trace_state`.
    Span(Condition),
}

/// A condition on the whole trace: a comparison on its summary.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum TraceCheck {
    Error(bool),
    Failed(bool),
    /// Nanoseconds.
    Duration(Range<u64>),
    /// Nanoseconds.
    Envelope(Range<u64>),
    SpanCount(Range<u64>),
    Incomplete(IncompleteSet),
}

impl When {
    /// Matches every trace.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty() && self.not.is_none() && self.any_of.is_empty()
    }

    /// All conditions that speak for a match: those under `not` left out.
    pub fn positive(&self) -> impl Iterator<Item = &Atom> {
        self.all.iter().chain(self.any_of.iter().flat_map(|branch| &branch.all))
    }

    /// All conditions, wherever they stand.
    pub fn for_each(&self, visit: &mut impl FnMut(&Atom)) {
        self.all.iter().for_each(&mut *visit);
        self.not.iter().for_each(|not| not.for_each(visit));
        self.any_of.iter().for_each(|branch| branch.for_each(visit));
    }
}

/// Which states of completeness match, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IncompleteSet(u8);

impl IncompleteSet {
    /// The words of `incomplete:`. (`late` is known only after the verdict.)
    pub const WORDS: [(&'static str, Incomplete); 3] =
        [("no_entry", Incomplete::NoEntry), ("evicted", Incomplete::Evicted), ("limit", Incomplete::Limit)];

    const COMPLETE: u8 = 1;

    fn bit(state: Option<Incomplete>) -> u8 {
        match state {
            None => IncompleteSet::COMPLETE,
            Some(Incomplete::NoEntry) => 2,
            Some(Incomplete::Evicted) => 4,
            Some(Incomplete::Limit) => 8,
            Some(Incomplete::Late) => 16,
        }
    }

    /// Every incomplete trace (true), or every other one (false).
    pub fn from_bool(incomplete: bool) -> IncompleteSet {
        IncompleteSet(if incomplete { !IncompleteSet::COMPLETE } else { IncompleteSet::COMPLETE })
    }

    pub fn of(states: impl IntoIterator<Item = Incomplete>) -> IncompleteSet {
        IncompleteSet(states.into_iter().fold(0, |bits, state| bits | IncompleteSet::bit(Some(state))))
    }

    pub fn has(self, state: Option<Incomplete>) -> bool {
        self.0 & IncompleteSet::bit(state) != 0
    }

    pub fn is_within(self, other: IncompleteSet) -> bool {
        self.0 & !other.0 == 0
    }

    pub fn is_disjoint(self, other: IncompleteSet) -> bool {
        self.0 & other.0 == 0
    }
}

/// A [`When`] compiled: what it asks of spans are bits.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Matcher {
    /// Bits that must be set, and bits of which none may be.
    present: Facts,
    absent: Facts,
    checks: Box<[TraceCheck]>,
    not: Option<Box<Matcher>>,
    any_of: Box<[Matcher]>,
}

impl TraceCheck {
    pub(super) fn holds(&self, summary: &Summary) -> bool {
        match self {
            TraceCheck::Error(wanted) => summary.error() == *wanted,
            TraceCheck::Failed(wanted) => summary.failed() == *wanted,
            TraceCheck::Duration(range) => range.contains(summary.duration()),
            TraceCheck::Envelope(range) => range.contains(summary.envelope()),
            TraceCheck::SpanCount(range) => range.contains(u64::from(summary.spans)),
            TraceCheck::Incomplete(set) => set.has(summary.incomplete()),
        }
    }
}

impl Matcher {
    /// Compiles, and numbers the conditions on spans in `table`.
    pub(super) fn compile(when: &When, table: &mut FactTable) -> Matcher {
        let mut matcher = Matcher::of_atoms(&when.all, table);
        if let Some(not) = &when.not {
            match not.as_ref() {
                // The common `not:` of one condition on spans is one more mask.
                When { all, not: None, any_of } if any_of.is_empty() => match all.as_slice() {
                    [Atom::Span(condition)] => matcher.absent.set(table.bit_of(condition)),
                    _ => matcher.not = Some(Box::new(Matcher::of_atoms(all, table))),
                },
                not => matcher.not = Some(Box::new(Matcher::compile(not, table))),
            }
        }
        matcher.any_of = when.any_of.iter().map(|branch| Matcher::compile(branch, table)).collect();
        matcher
    }

    fn of_atoms(atoms: &[Atom], table: &mut FactTable) -> Matcher {
        let mut present = Facts::EMPTY;
        let mut checks = Vec::new();
        for atom in atoms {
            match atom {
                Atom::Trace(check) => checks.push(*check),
                Atom::Span(condition) => present.set(table.bit_of(condition)),
            }
        }
        Matcher { present, absent: Facts::EMPTY, checks: checks.into(), not: None, any_of: Box::default() }
    }

    pub(super) fn matches(&self, summary: &Summary) -> bool {
        summary.facts.contains(&self.present)
            && (summary.facts & self.absent).is_empty()
            && self.checks.iter().all(|check| check.holds(summary))
            && self.not.as_ref().is_none_or(|not| !not.matches(summary))
            && (self.any_of.is_empty() || self.any_of.iter().any(|branch| branch.matches(summary)))
    }
}
