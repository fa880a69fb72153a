//! A trace as somebody sees it who judges nothing in earnest: what a policy would have said of it.

use super::summary::EntrySpan;
use super::{EntryValues, Facts, SpanView, Standing, Status, Summary, Threshold, TraceId};

/// Question sets that are answered at once: those of two policies and of the conditions of gates.
pub const QUESTION_SETS: usize = 3;

/// One trace that is whole, as far as is known.
#[derive(Clone, Debug)]
pub struct Observed {
    pub id: TraceId,
    /// Number of its entry span's service, else of one of its spans.
    pub service: u32,
    /// Number of that span's name, where somebody numbers names.
    pub name: u32,
    /// The largest `th` of its spans, of a recording: the weight of a trace that was kept by a sampler.
    pub threshold: Option<Threshold>,
    /// What a keep would take from a limit by bytes.
    pub stored_bytes: u64,
    pub arrivals: Arrivals,
    /// What it answers is of no question set in particular: see `answers`.
    pub summary: Summary,
    pub answers: [Answers; QUESTION_SETS],
}

/// What of a summary depends on the questions.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Answers {
    pub facts: Facts,
    /// What limits count by.
    pub values: EntryValues,
    pub failures: Failures,
}

/// Spans that count as errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Failures {
    pub errors: u32,
    pub root: bool,
    pub entry: bool,
}

impl Failures {
    pub fn of(summary: &Summary) -> Failures {
        Failures { errors: summary.errors, root: summary.root_failed, entry: summary.entry_failed }
    }

    /// `is_root`: it is the root that was chosen.
    pub fn add(&mut self, span: &SpanView, is_root: bool) {
        if span.status == Status::Error {
            self.errors += 1;
            self.root |= is_root;
            self.entry |= span.standing != Standing::Inner;
        }
    }
}

impl Answers {
    pub fn of(summary: &Summary) -> Answers {
        Answers { facts: summary.facts, values: summary.entry.values, failures: Failures::of(summary) }
    }
}

/// When its first span, its last span and its entry span came, in milliseconds of one clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Arrivals {
    pub first: u64,
    pub last: u64,
    pub entered: u64,
}

impl Observed {
    /// What the policy of one question set reads.
    pub fn summary_by(&self, set: usize) -> Summary {
        let Answers { facts, values, failures } = self.answers[set];
        let Failures { errors, root: root_failed, entry: entry_failed } = failures;
        let entry = EntrySpan { values, ..self.summary.entry };
        Summary { facts, entry, errors, root_failed, entry_failed, ..self.summary }
    }
}
