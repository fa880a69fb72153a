//! Questions: what a policy's conditions and the metric dimensions want to know of a span, compiled
//! so that scan answers all of them while it walks the span once.
//!
//! A [`Condition`] is a list of [`Test`]s that must hold on the same span; its number is its bit in
//! [`Facts`]. A test is satisfied by one field, so tests are found by a look-up of the field's value
//! and conditions by the tests that hold: a span does not pay for the number of rules.

use super::{SpanKind, Status};
use std::ops::{BitAnd, BitOr, BitOrAssign, Not};

/// How many distinct conditions and tests one policy may have.
pub const FACTS_MAX: usize = 256;
const WORDS: usize = FACTS_MAX / 64;

/// By how many different attributes of entry spans the limits of one policy may count. With two, what is known of a
/// trace fills its cache lines; a third would cost every trace in memory a whole further one.
pub const ENTRY_ATTRIBUTES_MAX: usize = 2;

/// What a span says of the attributes that limits count by: a part of the keyed hash of each value, zero for one
/// that it does not have.
pub type EntryValues = [u32; ENTRY_ATTRIBUTES_MAX];

/// An attribute of entry spans, or of their resources, that limits count by.
#[derive(Clone, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct EntryAttribute {
    pub of_resource: bool,
    /// The attribute and its older names.
    pub keys: Vec<String>,
}

/// A set of bits, one for each condition (or test): "it holds".
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Facts([u64; WORDS]);

impl Facts {
    pub const EMPTY: Facts = Facts([0; WORDS]);

    pub fn one(bit: usize) -> Facts {
        let mut facts = Facts::EMPTY;
        facts.set(bit);
        facts
    }

    /// A bit beyond [`FACTS_MAX`] stands for nothing: no set has it.
    pub fn set(&mut self, bit: usize) {
        if let Some(word) = self.0.get_mut(bit / 64) {
            *word |= 1 << (bit % 64);
        }
    }

    pub fn has(&self, bit: usize) -> bool {
        self.0.get(bit / 64).is_some_and(|word| word & 1 << (bit % 64) != 0)
    }

    /// Every bit of `other` is set here.
    pub fn contains(&self, other: &Facts) -> bool {
        self.0.iter().zip(&other.0).all(|(mine, theirs)| mine & theirs == *theirs)
    }

    /// The numbers of the set bits, ascending.
    pub fn bits(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(index, mut word)| {
            std::iter::from_fn(move || {
                let bit = word.trailing_zeros() as usize;
                word &= word.wrapping_sub(1);
                (bit < 64).then_some(index * 64 + bit)
            })
        })
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }
}

impl BitOr for Facts {
    type Output = Facts;
    fn bitor(mut self, other: Facts) -> Facts {
        self |= other;
        self
    }
}

impl BitOrAssign for Facts {
    fn bitor_assign(&mut self, other: Facts) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine |= theirs);
    }
}

impl BitAnd for Facts {
    type Output = Facts;
    fn bitand(mut self, other: Facts) -> Facts {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine &= theirs);
        self
    }
}

impl Not for Facts {
    type Output = Facts;
    fn not(self) -> Facts {
        Facts(self.0.map(|word| !word))
    }
}

/// What counts as an error beside the status ERROR, as bits of conditions on a span.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ErrorFacts {
    /// A span of which one of these holds is no error, whatever else holds.
    pub except: Facts,
    /// One of which one of these holds is an error whatever its status is.
    pub also: Facts,
}

impl ErrorFacts {
    /// The status that a span counts as, by its own and by what holds of it.
    pub fn status(&self, own: Status, facts: Facts) -> Status {
        let holds = |bits: Facts| !(facts & bits).is_empty();
        match (own == Status::Error || holds(self.also)) && !holds(self.except) {
            true => Status::Error,
            false if own == Status::Error => Status::Unset,
            false => own,
        }
    }
}

/// Which spans of a trace a condition speaks of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum SpanScope {
    /// Some span.
    Any,
    /// The one chosen entry span.
    Entry,
    /// The root span.
    Root,
}

/// Tests that must all hold on the same span.
#[derive(Clone, PartialEq, Debug)]
pub struct Condition {
    pub scope: SpanScope,
    pub tests: Vec<Test>,
}

/// A test of one field of a span. Items of a list are alternatives.
#[derive(Clone, PartialEq, Debug)]
pub enum Test {
    /// `service.name` of the resource.
    Service(Vec<Pattern>),
    Name(Vec<Pattern>),
    SpanKind(Vec<SpanKind>),
    Status(Vec<Status>),
    /// What its status says beside the code; a span that says nothing there has no message.
    StatusMessage(Vec<Pattern>),
    /// Nanoseconds.
    Duration(Range<u64>),
    /// A span attribute under any of these keys (an attribute and its older names).
    Attribute {
        keys: Vec<String>,
        values: ValueTest,
    },
    /// A resource attribute, likewise.
    Resource {
        keys: Vec<String>,
        values: ValueTest,
    },
    /// The name of one of the span's events.
    Event(Vec<Pattern>),
    /// The value of a member of the span's tracestate.
    TraceState {
        key: String,
        values: Vec<Pattern>,
    },
}

/// How a string is compared, bytewise.
#[derive(Clone, Debug)]
pub enum Pattern {
    Exact(String),
    /// `*` stands for any bytes, also none; it crosses `/`.
    Glob(String),
    /// Found anywhere in the string.
    Regex(regex::bytes::Regex),
}

impl Pattern {
    pub fn matches(&self, text: &[u8]) -> bool {
        match self {
            Pattern::Exact(wanted) => wanted.as_bytes() == text,
            Pattern::Glob(glob) => glob_matches(glob.as_bytes(), text),
            Pattern::Regex(regex) => regex.is_match(text),
        }
    }
}

/// Goes back to the last star only: no more than text × pattern steps.
fn glob_matches(glob: &[u8], text: &[u8]) -> bool {
    let (mut g, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if glob.get(g) == Some(&b'*') {
            star = Some((g, t));
            g += 1;
        } else if glob.get(g) == Some(&text[t]) {
            g += 1;
            t += 1;
        } else if let Some((star_g, star_t)) = star {
            g = star_g + 1;
            t = star_t + 1;
            star = Some((star_g, t));
        } else {
            return false;
        }
    }
    glob[g..].iter().all(|&c| c == b'*')
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        match (self, other) {
            (Pattern::Exact(a), Pattern::Exact(b)) | (Pattern::Glob(a), Pattern::Glob(b)) => a == b,
            (Pattern::Regex(a), Pattern::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

/// Half open: `at_least` belongs to it, `below` does not.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Range<T> {
    pub at_least: Option<T>,
    pub below: Option<T>,
}

impl<T: PartialOrd + Copy> Range<T> {
    pub fn contains(&self, value: T) -> bool {
        self.at_least.is_none_or(|low| value >= low) && self.below.is_none_or(|high| value < high)
    }
}

/// What an attribute's value must be. Holds if any occurrence of the key matches.
#[derive(Clone, PartialEq, Debug)]
pub enum ValueTest {
    /// The key is there (true) or is not (false).
    Exists(bool),
    /// One of these; an array matches if an element does.
    OneOf(Vec<ValuePattern>),
}

/// One alternative for a value. Strings, numbers and booleans are never coerced into each other;
/// integers and doubles compare as numbers.
#[derive(Clone, PartialEq, Debug)]
pub enum ValuePattern {
    Text(Pattern),
    Number(f64),
    Bool(bool),
    Range(Range<f64>),
}
