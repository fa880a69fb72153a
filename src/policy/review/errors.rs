//! What a policy counts as an error, as far as it is plain of spans that meet some tests, and P23: items of `errors` that
//! change nothing, or after which no span is an error.

use super::contradiction::exclude;
use super::{Errors, Reader, holds_of_every_span, tests_imply};
use crate::diagnostic::Span;
use crate::policy::errors::ErrorsAt;
use crate::trace::Status;
use crate::trace::question::{Condition, Test};

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
        }
    }
    for (number, (also, place)) in errors.also.iter().zip(&places.also).enumerate() {
        if errors.surely_leave_out(&also.tests) {
            let help = "`except` goes before `also`: remove one of the two";
            warn(reader, "also", number, *place, "`except` leaves all of its spans out", help);
        } else if fails(&also.tests) {
            let help = "spans with the status ERROR count without it: remove the item, or write other conditions";
            warn(reader, "also", number, *place, "such a span is an error anyway", help);
        }
    }
}

fn warn(reader: &mut Reader, key: &str, number: usize, place: Span, label: &str, help: &str) {
    let title = format!("item {} of `{key}` changes nothing", number + 1);
    reader.warn("P23", place, title, label).help(help);
}
