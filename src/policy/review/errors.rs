//! What a policy counts as an error, as far as it is plain of spans that meet some tests, and P23: items of `errors` that
//! change nothing, or after which no span is an error.

use super::contradiction::exclude;
use super::{Errors, Reader, holds_of_every_span, tests_imply};
use crate::diagnostic::Span;
use crate::policy::errors::ErrorsAt;
use crate::trace::Status;
use crate::trace::question::{Condition, FACTS_MAX, Test};

impl Errors {
    /// Every span for which these tests hold counts as an error.
    pub(super) fn surely_count(&self, tests: &[Test]) -> bool {
        let is_one = fails(tests) || self.also.iter().any(|also| tests_imply(tests, &also.tests));
        is_one && self.except.iter().all(|except| exclude(tests, &except.tests))
    }

    /// No span at all counts, for this item of `except`.
    pub(super) fn leaves_none(&self, except: &Condition) -> bool {
        let is_of_all = |test: &Test| {
            holds_of_every_span(test)
                || self.also.is_empty() && matches!(test, Test::Status(words) if words.contains(&Status::Error))
        };
        except.tests.iter().all(is_of_all)
    }

    /// None does.
    pub(super) fn surely_leave_out(&self, tests: &[Test]) -> bool {
        self.except.iter().any(|except| tests_imply(tests, &except.tests))
    }
}

fn fails(tests: &[Test]) -> bool {
    tests.contains(&Test::Status(vec![Status::Error]))
}

pub(super) fn warn_of_idle(reader: &mut Reader, errors: &Errors, places: &ErrorsAt) {
    let never_fails = |tests: &[Test]| {
        tests.iter().any(|test| matches!(test, Test::Status(words) if !words.contains(&Status::Error)))
    };
    for (number, (except, place)) in errors.except.iter().zip(&places.except).enumerate() {
        if errors.also.is_empty() && never_fails(&except.tests) {
            let help = "`except` is of spans with the status ERROR: leave out `status`, or remove the item";
            warn(reader, "except", number, *place, "such a span is no error anyway", help);
        } else if errors.leaves_none(except) {
            let title = format!("item {} of `except` leaves no error at all", number + 1);
            let help = "write which errors do not count: with this item `error: true` and `failed: true` never hold";
            reader.warn("P23", *place, title, "every span that could be an error is like this").help(help);
        } else {
            warn_if_covered(reader, "except", number, &errors.except, &places.except);
        }
    }
    for (number, (also, place)) in errors.also.iter().zip(&places.also).enumerate() {
        if errors.surely_leave_out(&also.tests) {
            let help = "`except` goes before `also`: remove one of the two";
            warn(reader, "also", number, *place, "`except` leaves all of its spans out", help);
        } else if fails(&also.tests) {
            let help = "spans with the status ERROR count without it: remove the item, or write other conditions";
            warn(reader, "also", number, *place, "such a span is an error anyway", help);
        } else if also.tests.iter().all(holds_of_every_span) {
            let title = format!("item {} of `also` makes an error of every span", number + 1);
            let help =
                "write which spans are errors: with this item every trace has one, unless `except` leaves it out";
            reader.warn("P23", *place, title, "every span is like this").help(help);
        } else {
            warn_if_covered(reader, "also", number, &errors.also, &places.also);
        }
    }
}

/// Another item is of all its spans; of two that are of the same spans, the later one is too much.
fn warn_if_covered(reader: &mut Reader, key: &str, number: usize, items: &[Condition], places: &[Span]) {
    // A longer list is refused.
    if items.len() > FACTS_MAX {
        return;
    }
    let is_within = |narrow: usize, wide: usize| tests_imply(&items[narrow].tests, &items[wide].tests);
    let covers = |other: &usize| {
        *other != number && is_within(number, *other) && (*other < number || !is_within(*other, number))
    };
    if let Some(other) = (0..items.len()).find(covers) {
        let label = format!("item {} is of all its spans already", other + 1);
        warn(reader, key, number, places[number], &label, "remove one of the two");
    }
}

fn warn(reader: &mut Reader, key: &str, number: usize, place: Span, label: &str, help: &str) {
    let title = format!("item {} of `{key}` changes nothing", number + 1);
    reader.warn("P23", place, title, label).help(help);
}
