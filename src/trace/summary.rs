//! What is known of a trace without its spans: all that a rule may read.

use super::question::{Facts, SpanScope};
use super::weight::Randomness;
use super::{Condition, EntryValues, SpanId, SpanView, Standing, Status, TraceId, between};
use std::cmp::{Ordering, Reverse};

/// Which fact bits speak of which spans; comes with a question set.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FactMasks {
    pub any: Facts,
    pub entry: Facts,
    pub root: Facts,
}

impl FactMasks {
    /// Condition number k is bit k.
    pub fn of(conditions: &[Condition]) -> FactMasks {
        let mut masks = FactMasks::default();
        for (bit, condition) in conditions.iter().enumerate() {
            match condition.scope {
                SpanScope::Any => masks.any.set(bit),
                SpanScope::Entry => masks.entry.set(bit),
                SpanScope::Root => masks.root.set(bit),
            }
        }
        masks
    }
}

/// The entry span that was chosen: the root, else the earliest, then the smallest id, of the entry spans.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EntrySpan {
    /// `Inner` while no entry span arrived.
    pub standing: Standing,
    pub start: u64,
    pub span_id: SpanId,
    /// Parts of the keyed hashes of its service and its name, for limits per entry: two of 10,000 keys are taken for
    /// one once in a hundred policies.
    pub service_hash: u32,
    pub name_hash: u32,
    /// Of the attributes that limits count by, in the order of the question set.
    pub values: EntryValues,
}

impl EntrySpan {
    /// The least is chosen: a root before an entry span, then the earliest start, then the smallest id.
    fn rank(&self) -> (Reverse<Standing>, u64, SpanId) {
        (Reverse(self.standing), self.start, self.span_id)
    }

    /// Whether both are the same span, or none.
    pub fn is_same_span(&self, other: &EntrySpan) -> bool {
        self.rank() == other.rank()
    }
}

/// Why a kept trace may lack spans (`tailkeep.incomplete`), most telling first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Incomplete {
    /// The trace outgrew its share of the ring: further spans were not stored.
    Limit,
    /// Part of it was judged and forgotten before.
    Evicted,
    /// No entry span arrived.
    NoEntry,
    /// These spans came after the verdict.
    Late,
}

impl Incomplete {
    pub fn word(self) -> &'static str {
        match self {
            Incomplete::Limit => "limit",
            Incomplete::Evicted => "evicted",
            Incomplete::NoEntry => "no_entry",
            Incomplete::Late => "late",
        }
    }
}

/// What is known of one trace.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    pub facts: Facts,
    pub entry: EntrySpan,
    /// Earliest start and latest end of its spans, Unix nanoseconds.
    pub start: u64,
    pub end: u64,
    /// Duration of the earliest root, nanoseconds.
    pub root_duration: u64,
    /// Longest duration of an entry span and of any span, nanoseconds.
    pub longest_entry: u64,
    pub longest_span: u64,
    pub spans: u32,
    pub errors: u32,
    /// Bytes of its span messages, stored or not.
    pub bytes: u64,
    /// `rv` of its tracestate; the smallest if its spans disagree.
    pub randomness: Option<Randomness>,
    pub random_flag: bool,
    pub root_failed: bool,
    pub entry_failed: bool,
    pub many_roots: bool,
    /// Further spans were not stored.
    pub limited: bool,
    /// Verdict memory knew the trace as dropped when this entry began.
    pub forgotten: bool,
}

impl Summary {
    /// Some span counts as an error.
    pub fn error(&self) -> bool {
        self.errors > 0
    }

    pub fn has_root(&self) -> bool {
        self.entry.standing == Standing::Root
    }

    pub fn has_entry(&self) -> bool {
        self.entry.standing != Standing::Inner
    }

    /// The root, or without one an entry span, counts as an error.
    pub fn failed(&self) -> bool {
        if self.has_root() { self.root_failed } else { self.entry_failed }
    }

    /// The root's own duration, else the longest entry span, else the longest span; nanoseconds.
    pub fn duration(&self) -> u64 {
        match self.entry.standing {
            Standing::Root => self.root_duration,
            Standing::Entry => self.longest_entry,
            Standing::Inner => self.longest_span,
        }
    }

    /// From the first start to the last end; nanoseconds.
    pub fn envelope(&self) -> u64 {
        between(self.start, self.end)
    }

    /// Why the trace may lack spans, as far as the summary knows.
    pub fn incomplete(&self) -> Option<Incomplete> {
        if self.limited {
            Some(Incomplete::Limit)
        } else if self.forgotten {
            Some(Incomplete::Evicted)
        } else if !self.has_entry() {
            Some(Incomplete::NoEntry)
        } else {
            None
        }
    }

    /// The trace's randomness, and whether it must be written as `rv`.
    pub fn randomness(&self, id: TraceId) -> (Randomness, bool) {
        match self.randomness {
            Some(explicit) => (explicit, false),
            None => Randomness::of_trace(id, self.random_flag),
        }
    }

    /// Takes one span in. Spans may come in any order: the result is the same.
    pub fn observe(&mut self, span: &SpanView, service_hash: u64, masks: &FactMasks) {
        self.facts |= span.facts & masks.any;
        let duration = span.duration();
        self.start = earliest(self.start, span.start);
        self.end = self.end.max(span.end);
        self.longest_span = self.longest_span.max(duration);
        self.spans += 1;
        self.bytes += u64::from(span.raw.len);
        self.count_failure(span);
        self.random_flag |= span.random_flag;
        self.randomness = smallest(self.randomness, span.randomness);
        if span.standing != Standing::Inner {
            self.longest_entry = self.longest_entry.max(duration);
            self.observe_entry(span, service_hash, masks);
        }
    }

    fn count_failure(&mut self, span: &SpanView) {
        let failed = span.status == Status::Error;
        self.errors += u32::from(failed);
        self.entry_failed |= failed && span.standing != Standing::Inner;
    }

    /// Forgets what depends on a question set: all stored spans are to be observed again. What counts as an error
    /// may depend on it, too.
    pub fn forget_answers(&mut self, recounts_errors: bool) {
        self.facts = Facts::EMPTY;
        self.entry.values = EntryValues::default();
        if recounts_errors {
            (self.errors, self.entry_failed, self.root_failed) = (0, false, false);
        }
    }

    /// Takes in what a span that was observed before answers to another question set.
    pub fn observe_again(&mut self, span: &SpanView, masks: &FactMasks, recounts_errors: bool) {
        self.facts |= span.facts & masks.any;
        if recounts_errors {
            self.count_failure(span);
        }
        let rank = (Reverse(span.standing), span.start, span.span_id);
        if span.standing != Standing::Inner && rank == self.entry.rank() {
            let chosen = if self.has_root() { masks.entry | masks.root } else { masks.entry };
            self.facts |= span.facts & chosen;
            self.entry.values = self.entry.values.max(span.entry_values);
            self.root_failed |= recounts_errors && self.has_root() && span.status == Status::Error;
        }
    }

    /// Takes in what is known of other spans of the same trace. As with [`Summary::observe`] the order makes no
    /// difference, and the result is that of observing all spans in one place, if one key made the hashes.
    pub fn merge(&mut self, other: &Summary, masks: &FactMasks) {
        self.facts |= other.facts & masks.any;
        self.start = earliest(self.start, other.start);
        self.end = self.end.max(other.end);
        self.longest_entry = self.longest_entry.max(other.longest_entry);
        self.longest_span = self.longest_span.max(other.longest_span);
        self.spans = self.spans.saturating_add(other.spans);
        self.errors = self.errors.saturating_add(other.errors);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.randomness = smallest(self.randomness, other.randomness);
        self.random_flag |= other.random_flag;
        self.entry_failed |= other.entry_failed;
        self.limited |= other.limited;
        self.forgotten |= other.forgotten;
        self.many_roots |= other.many_roots;
        if other.has_entry() {
            let root = Root { duration: other.root_duration, failed: other.root_failed };
            self.take_entry(other.entry, root, other.facts, masks);
        }
    }

    fn observe_entry(&mut self, span: &SpanView, service_hash: u64, masks: &FactMasks) {
        let entry = EntrySpan {
            standing: span.standing,
            start: span.start,
            span_id: span.span_id,
            service_hash: service_hash as u32,
            name_hash: span.name_hash as u32,
            values: span.entry_values,
        };
        let root = match span.standing {
            Standing::Root => Root { duration: span.duration(), failed: span.status == Status::Error },
            _ => Root::default(),
        };
        self.take_entry(entry, root, span.facts, masks);
    }

    /// The better of two entries says all that an entry says; equal ones, as of two spans that share an id, say
    /// it together.
    fn take_entry(&mut self, entry: EntrySpan, root: Root, facts: Facts, masks: &FactMasks) {
        let is_root = entry.standing == Standing::Root;
        self.many_roots |= is_root && self.has_root() && entry.span_id != self.entry.span_id;
        let chosen = if is_root { masks.entry | masks.root } else { masks.entry };
        match entry.rank().cmp(&self.entry.rank()) {
            Ordering::Less => {
                self.entry = entry;
                (self.root_duration, self.root_failed) = (root.duration, root.failed);
                self.facts = self.facts & !chosen | facts & chosen;
            }
            Ordering::Equal => {
                let hashes = |entry: EntrySpan| (entry.service_hash, entry.name_hash);
                (self.entry.service_hash, self.entry.name_hash) = hashes(self.entry).max(hashes(entry));
                self.entry.values = self.entry.values.max(entry.values);
                self.root_duration = self.root_duration.max(root.duration);
                self.root_failed |= root.failed;
                self.facts |= facts & chosen;
            }
            Ordering::Greater => {}
        }
    }

    /// Whether this span would become the trace's entry.
    pub fn is_better_entry(&self, span: &SpanView) -> bool {
        let rank = (Reverse(span.standing), span.start, span.span_id);
        span.standing != Standing::Inner && rank < self.entry.rank()
    }

    /// Whether a span of this start and id is the one that was chosen as the entry.
    pub fn is_entry(&self, start: u64, span_id: SpanId) -> bool {
        self.has_entry() && (self.entry.start, self.entry.span_id) == (start, span_id)
    }
}

/// What the root span says beyond what every entry span says.
#[derive(Clone, Copy, Default)]
struct Root {
    duration: u64,
    failed: bool,
}

/// Zero is a time that no span gave.
fn earliest(a: u64, b: u64) -> u64 {
    if a == 0 || b == 0 { a.max(b) } else { a.min(b) }
}

fn smallest<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests;
