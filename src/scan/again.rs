//! Stored spans under another question set.

use super::span::walk_span;
use super::{Keyed, Questions, ResourceAnswers, read_resource};
use crate::trace::{Slice, SpanView};
use std::collections::HashMap;

/// Answers of more resources are forgotten.
const RESOURCES_MAX: usize = 4096;

/// Reads stored spans again, and each of their resources once.
#[derive(Debug, Default)]
pub struct Rereading {
    /// The number of the questions that the answers are for.
    questions: u32,
    resources: HashMap<u64, ResourceAnswers, foldhash::fast::FixedState>,
}

/// What a span says to the questions now.
pub struct ReadAgain {
    pub span: SpanView,
    /// Bytes that had to be read for it.
    pub bytes: usize,
}

impl Rereading {
    /// What depends on the questions. `header` is the header of the span's resource and `hash` the header's, all as
    /// scan stored them.
    pub fn read(
        &mut self,
        (hash, header): (u64, &[u8]),
        span: &[u8],
        questions: &Questions,
        keyed: &Keyed,
    ) -> ReadAgain {
        if self.questions != questions.number || self.resources.len() >= RESOURCES_MAX {
            self.resources.clear();
            self.questions = questions.number;
        }
        let whole = |bytes: &[u8]| Slice { start: 0, len: bytes.len() as u32 };
        let mut bytes = span.len();
        let resource = self.resources.entry(hash).or_insert_with(|| {
            bytes += header.len();
            let read = read_resource(header, whole(header), questions, keyed).unwrap_or_default();
            ResourceAnswers { service: Slice::default(), ..read }
        });
        let walked = walk_span(span, whole(span), resource, questions, keyed);
        ReadAgain { span: walked.map_or_else(|_| SpanView::default(), |(span, _)| span), bytes }
    }
}
