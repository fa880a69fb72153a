//! What is known of a trace without its spans: all that a rule may read.

use super::question::{Facts, Scope};
use super::weight::Randomness;
use super::{Condition, SpanId, SpanView, Standing, Status, TraceId, between};

/// Which fact bits speak of which spans; comes with a question set.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Masks {
    pub any: Facts,
    pub entry: Facts,
    pub root: Facts,
}

impl Masks {
    /// Condition number k is bit k.
    pub fn of(conditions: &[Condition]) -> Masks {
        let mut masks = Masks::default();
        for (bit, condition) in conditions.iter().enumerate() {
            match condition.scope {
                Scope::Any => masks.any.set(bit),
                Scope::Entry => masks.entry.set(bit),
                Scope::Root => masks.root.set(bit),
            }
        }
        masks
    }
}

/// The entry span that was chosen: the root, else the earliest, then the smallest id, of the entry spans.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Entry {
    /// `Inner` while no entry span arrived.
    pub standing: Standing,
    pub start: u64,
    pub span_id: SpanId,
    /// Keyed hashes of its service and its name, for limits per entry.
    pub service_hash: u64,
    pub name_hash: u64,
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
    pub entry: Entry,
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
    /// Some span has status ERROR.
    pub fn error(&self) -> bool {
        self.errors > 0
    }

    pub fn has_root(&self) -> bool {
        self.entry.standing == Standing::Root
    }

    pub fn has_entry(&self) -> bool {
        self.entry.standing != Standing::Inner
    }

    /// The root, or without one an entry span, has status ERROR.
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
    pub fn observe(&mut self, span: &SpanView, service_hash: u64, masks: &Masks) {
        self.facts |= span.facts & masks.any;
        let duration = span.duration();
        self.start = match (self.start, span.start) {
            (0, start) | (start, 0) => start,
            (mine, theirs) => mine.min(theirs),
        };
        self.end = self.end.max(span.end);
        self.longest_span = self.longest_span.max(duration);
        self.spans += 1;
        self.bytes += u64::from(span.raw.len);
        let failed = span.status == Status::Error;
        self.errors += u32::from(failed);
        self.random_flag |= span.random_flag;
        self.randomness = match (self.randomness, span.randomness) {
            (Some(mine), Some(theirs)) => Some(mine.min(theirs)),
            (mine, theirs) => mine.or(theirs),
        };
        if span.standing != Standing::Inner {
            self.longest_entry = self.longest_entry.max(duration);
            self.entry_failed |= failed;
            self.observe_entry(span, service_hash, masks);
        }
    }

    fn observe_entry(&mut self, span: &SpanView, service_hash: u64, masks: &Masks) {
        let is_root = span.standing == Standing::Root;
        self.many_roots |= is_root && self.has_root() && span.span_id != self.entry.span_id;
        if !self.is_better_entry(span) {
            return;
        }
        self.entry = Entry {
            standing: span.standing,
            start: span.start,
            span_id: span.span_id,
            service_hash,
            name_hash: span.name_hash,
        };
        let mut chosen = masks.entry;
        if is_root {
            self.root_duration = span.duration();
            self.root_failed = span.status == Status::Error;
            chosen |= masks.root;
        }
        self.facts = self.facts & !chosen | span.facts & chosen;
    }

    /// A root beats an entry span; then the earliest start, then the smallest span id.
    pub fn is_better_entry(&self, span: &SpanView) -> bool {
        let rank = |standing: Standing, start, id| (std::cmp::Reverse(standing), start, id);
        span.standing != Standing::Inner
            && (!self.has_entry()
                || rank(span.standing, span.start, span.span_id)
                    < rank(self.entry.standing, self.entry.start, self.entry.span_id))
    }
}
