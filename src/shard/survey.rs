//! Looks at every trace of a shard, in pieces that fit under the lock, for whoever asks what another policy would do.
//! Nothing is copied but summaries and answers, and nothing changes.

use super::{Budget, Progress, Shard};
use crate::ring::Loc;
use crate::ring::index::TraceStatus;
use crate::ring::wheel::{TICK_MS, Tick};
use crate::scan::splice::outline;
use crate::scan::{Questions, ReadAgain, Rereading};
use crate::trace::label::NumberedNames;
use crate::trace::observed::QUESTION_SETS;
use crate::trace::{Answers, Arrivals, Failures, Observed, Standing};

/// What a survey asks of each trace.
pub struct SurveyQuestions<'a> {
    pub sets: &'a [Questions; QUESTION_SETS],
    /// The first set asks what the questions of this number ask, so that traces which have answered these need not be
    /// looked at again.
    pub answered: Option<u32>,
}

/// Where a survey stands, and what it passed over.
#[derive(Default)]
pub struct Survey {
    slot: u32,
    underway: Option<Underway>,
    rereadings: [Rereading; QUESTION_SETS],
    /// Numbers the names of entry spans, for whoever wants them.
    pub names: Option<NumberedNames>,
    /// Traces that are not judged yet: their last spans may be missing.
    pub waiting: u64,
    /// Late parts of traces that have left.
    pub parts: u64,
}

/// A trace whose records were not all looked at yet.
struct Underway {
    slot: u32,
    /// With the id it tells the trace from a later one in its slot.
    first: Tick,
    next: Loc,
    observed: Observed,
    wanted: [bool; QUESTION_SETS],
    recounts_errors: [bool; QUESTION_SETS],
    /// The service is that of the entry span.
    is_named: bool,
}

/// What became of a look at a trace.
enum Look {
    Whole,
    Pause,
    /// It has left meanwhile.
    Gone,
}

impl Shard {
    /// Goes on with a survey. Call again while there is more: traces come and go meanwhile.
    pub fn survey(&self, asked: &SurveyQuestions<'_>, survey: &mut Survey, found: &mut Vec<Observed>) -> Progress {
        let mut budget = Budget::new();
        loop {
            if let Some(mut underway) = survey.underway.take() {
                match self.look_at(asked, &mut underway, survey, &mut budget) {
                    Look::Whole => found.push(underway.observed),
                    Look::Gone => {}
                    Look::Pause => {
                        survey.underway = Some(underway);
                        return Progress::More;
                    }
                }
            }
            if survey.slot == self.index().slots() {
                return Progress::Done;
            }
            if !budget.pay() {
                return Progress::More;
            }
            survey.slot += 1;
            self.begin(asked, survey, survey.slot - 1);
        }
    }

    fn begin(&self, asked: &SurveyQuestions<'_>, survey: &mut Survey, slot: u32) {
        if !self.index().is_live(slot) {
            return;
        }
        let entry = self.index().entry(slot);
        if entry.recalled || entry.summary.forgotten {
            survey.parts += 1;
        } else if entry.state == TraceStatus::Waiting {
            survey.waiting += 1;
        } else {
            let mut wanted = asked.sets.each_ref().map(Questions::asks_spans);
            let mut answers = [Answers { failures: Failures::of(&entry.summary), ..Answers::default() }; QUESTION_SETS];
            // Spans that were not stored cannot be asked.
            let recounts = |set: &Questions| set.recounts_errors(entry.questions) && !entry.summary.limited;
            let recounts_errors = asked.sets.each_ref().map(recounts);
            for set in (0..QUESTION_SETS).filter(|&set| recounts_errors[set]) {
                (wanted[set], answers[set].failures) = (true, Failures::default());
            }
            if asked.answered == Some(entry.questions) {
                (wanted[0], answers[0]) = (false, Answers::of(&entry.summary));
            }
            let milliseconds = |tick: Tick| u64::from(tick) * TICK_MS;
            let (first, last, entered) = (entry.first, entry.last, entry.entered);
            let arrivals =
                Arrivals { first: milliseconds(first), last: milliseconds(last), entered: milliseconds(entered) };
            let observed = Observed {
                id: entry.id,
                service: 0,
                name: 0,
                threshold: None,
                stored_bytes: u64::from(entry.stored_bytes),
                arrivals,
                summary: entry.summary,
                answers,
            };
            survey.underway =
                Some(Underway { slot, first, next: entry.newest, observed, wanted, recounts_errors, is_named: false });
        }
    }

    /// Answers the questions for a trace's records of the moment when it was begun.
    fn look_at(
        &self,
        asked: &SurveyQuestions<'_>,
        underway: &mut Underway,
        survey: &mut Survey,
        budget: &mut Budget,
    ) -> Look {
        let entry = self.index().entry(underway.slot);
        let is_there = self.index().is_live(underway.slot) && entry.id == underway.observed.id;
        if !is_there || entry.first != underway.first {
            return Look::Gone;
        }
        let is_asked = underway.wanted.contains(&true);
        while underway.next != Loc::NONE && (is_asked || !underway.is_named) {
            if !budget.pay() {
                return Look::Pause;
            }
            self.look_at_record(asked, underway, survey, budget);
        }
        Look::Whole
    }

    fn look_at_record(
        &self,
        asked: &SurveyQuestions<'_>,
        underway: &mut Underway,
        survey: &mut Survey,
        budget: &mut Budget,
    ) {
        let Underway { next, observed, wanted, recounts_errors, is_named, .. } = underway;
        let (ring, record) = (self.ring(), self.ring().read(*next));
        let span = ring.bytes(*next);
        *next = record.previous;
        let outline = outline(span);
        let is_entry = observed.summary.is_entry(outline.start, outline.span_id);
        if is_entry || !*is_named {
            observed.service = ring.service_of(record.scope);
            *is_named |= is_entry;
            if let Some(names) = survey.names.as_mut().filter(|_| is_entry) {
                observed.name = names.id(outline.name.of(span));
            }
        }
        let resource = ring.resource_of(record.scope);
        let header = (ring.context_hash(resource), ring.bytes(resource));
        for set in (0..QUESTION_SETS).filter(|&set| wanted[set]) {
            // Each set reads the span once: that is what a record costs.
            budget.pay();
            let (questions, answers) = (&asked.sets[set], &mut observed.answers[set]);
            let ReadAgain { span: mut again, bytes } =
                survey.rereadings[set].read(header, span, questions, &self.keyed);
            budget.spend(bytes);
            answers.facts |= again.facts & questions.masks.any;
            if is_entry {
                answers.facts |= again.facts & questions.masks.entry;
                answers.values = answers.values.max(again.entry_values);
            }
            let is_root = is_entry && observed.summary.has_root();
            if is_root {
                answers.facts |= again.facts & questions.masks.root;
            }
            if recounts_errors[set] {
                again.standing = if record.is_entry { Standing::Entry } else { again.standing };
                answers.failures.add(&again, is_root);
            }
        }
    }
}
