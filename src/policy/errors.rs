//! `errors`: which spans count as errors beside those with the status ERROR, and which of those do not.

use super::FactTable;
use crate::trace::question::{Condition, ErrorFacts, Facts};

/// Conditions on one span; the items of a list are alternatives.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Errors {
    /// A span like one of these is no error, whatever else holds.
    pub except: Vec<Condition>,
    /// A span like one of these is an error, whatever its status is.
    pub also: Vec<Condition>,
}

impl Errors {
    /// The policy says nothing: the status alone counts.
    pub fn is_empty(&self) -> bool {
        self.except.is_empty() && self.also.is_empty()
    }

    pub(super) fn compile(&self, table: &mut FactTable) -> ErrorFacts {
        ErrorFacts { except: bits_of(&self.except, table), also: bits_of(&self.also, table) }
    }
}

fn bits_of(conditions: &[Condition], table: &mut FactTable) -> Facts {
    conditions.iter().fold(Facts::EMPTY, |facts, condition| facts | Facts::one(table.bit_of(condition)))
}
