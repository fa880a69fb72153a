//! `errors`: which spans count as errors beside those with the status ERROR, and which of those do not.

use super::fact_table::FactTable;
use crate::diagnostic::Span;
use crate::trace::question::{Condition, ErrorFacts, Facts};
use crate::yaml::Reader;

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

    /// `places` are those of its items, for what the table is too small for.
    pub(super) fn compile(&self, reader: &mut Reader, places: &ErrorsAt, table: &mut FactTable) -> ErrorFacts {
        let mut bits_of = |conditions: &[Condition], places: &[Span]| {
            conditions.iter().zip(places).fold(Facts::EMPTY, |facts, (condition, place)| {
                let bit = table.fill(reader, *place, "this item goes beyond", |table| table.bit_of(condition));
                facts | Facts::one(bit)
            })
        };
        ErrorFacts { except: bits_of(&self.except, &places.except), also: bits_of(&self.also, &places.also) }
    }
}

/// Where each of its conditions stands.
#[derive(Debug, Default)]
pub(super) struct ErrorsAt {
    pub except: Vec<Span>,
    pub also: Vec<Span>,
}
