//! What a part of a trace, seen alone, must show so that the whole may be kept.
//!
//! Where the spans of a trace arrive at several nodes, each knows a part. A rule can match the whole only if one of
//! its conditions holds on some part: its *witness*, chosen from the policy alone, so that all nodes choose the same.
//! What a part says of the whole:
//!
//! - what some span is or has, what the chosen entry says, the duration, and every state of completeness hold on some
//!   part if they hold on the whole, for the whole's are those of one part (see [`Summary::merge`]);
//! - `error: false`, and whatever is `below` a count or an envelope, hold on every part then;
//! - `not`, and an envelope or a number of spans of `at_least` so many, say nothing of any part.
//!
//! A part that shows no witness may be silent: whatever the others know, no rule keeps the trace.

use super::condition::{Atom, TraceCheck};
use super::fact_table::FactTable;
use super::review::alternatives;
use super::{Keep, Limited, Then, WrittenRule};
use crate::trace::{Randomness, Summary, Threshold, TraceId};

/// What a node does about its part of a trace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Speech {
    /// No rule keeps the trace for what is seen here.
    Silent,
    /// Every part knows by itself that the trace may be kept: each tells what it knows.
    Tell,
    /// Others may not know it: they must be told that this trace is asked for.
    Call,
}

/// The witnesses of a policy.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Witnesses(Vec<Witness>);

#[derive(Clone, PartialEq, Debug)]
struct Witness {
    /// None: every part must tell.
    sign: Option<Sign>,
    /// The largest share that is kept of what it stands for.
    share: Threshold,
}

/// A condition of which a part says whether it may hold on the whole.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Sign {
    Fact(usize),
    TraceCheck(TraceCheck),
}

impl Witnesses {
    pub(super) fn of(rules: &[WrittenRule], otherwise: Keep, table: &mut FactTable) -> Witnesses {
        let mut all = Witnesses::default();
        for rule in rules {
            let share =
                most([rule.keep].into_iter().chain(rule.limited.as_ref().map(|limited| beyond(limited, otherwise))));
            if let Some(share) = share {
                for alternative in alternatives(&rule.when) {
                    all.add(Witness { sign: sign_of(alternative.atoms, table), share });
                }
            }
        }
        if let Some(share) = most([otherwise]) {
            all.add(Witness { sign: None, share });
        }
        all
    }

    fn add(&mut self, witness: Witness) {
        if !self.0.contains(&witness) {
            self.0.push(witness);
        }
    }

    /// What follows from a part of a trace for the node that has it.
    pub fn speech(&self, id: TraceId, part: &Summary) -> Speech {
        let drawn = Drawn::of(id, part);
        self.0.iter().map(|witness| witness.speech(part, drawn)).max().unwrap_or(Speech::Silent)
    }

    /// Whether every part of every trace is told: some rule has no witness, and keeps all that it matches.
    pub fn tell_everything(&self) -> bool {
        self.0.iter().any(|witness| witness.sign.is_none() && witness.share == Threshold::ALL)
    }
}

impl Witness {
    fn speech(&self, part: &Summary, drawn: Drawn) -> Speech {
        if !drawn.randomness.passes(self.share) {
            return Speech::Silent;
        }
        let only_here = drawn.may_be_known_here_alone && self.share != Threshold::ALL;
        match self.sign {
            Some(sign) if sign.shows(part) || only_here => Speech::Call,
            Some(_) => Speech::Silent,
            None if only_here => Speech::Call,
            None => Speech::Tell,
        }
    }
}

/// What a part knows of its trace's randomness.
#[derive(Clone, Copy)]
struct Drawn {
    randomness: Randomness,
    /// It comes from a span: other parts may have another.
    may_be_known_here_alone: bool,
}

impl Drawn {
    fn of(id: TraceId, part: &Summary) -> Drawn {
        let (randomness, _) = part.randomness(id);
        let by_id_alone = Randomness::of_trace(id, false).0;
        Drawn { randomness, may_be_known_here_alone: part.randomness.is_some() || randomness != by_id_alone }
    }
}

impl Sign {
    fn shows(self, part: &Summary) -> bool {
        match self {
            Sign::Fact(bit) => part.facts.has(bit),
            Sign::TraceCheck(check) => check.holds(part),
        }
    }
}

/// The largest share that is kept; none if nothing is.
fn most(keeps: impl IntoIterator<Item = Keep>) -> Option<Threshold> {
    let share = |keep| match keep {
        Keep::All => Some(Threshold::ALL),
        Keep::Share(share) => Some(share),
        Keep::None => None,
    };
    keeps.into_iter().filter_map(share).min()
}

/// What is kept beyond a limit. (`next` is what later rules keep, and they have witnesses of their own.)
fn beyond(limited: &Limited, otherwise: Keep) -> Keep {
    match limited.then {
        Then::Otherwise => otherwise,
        Then::Next | Then::None => Keep::None,
        Then::Share(share) => Keep::Share(share),
    }
}

/// The rarest, by what is usual, of the conditions that are signs.
fn sign_of(atoms: Vec<&Atom>, table: &mut FactTable) -> Option<Sign> {
    let rarest = atoms.into_iter().filter_map(|atom| Some((rank(atom)?, atom))).min_by_key(|(rank, _)| *rank)?.1;
    Some(match rarest {
        Atom::Span(condition) => Sign::Fact(table.bit_of(condition)),
        Atom::Trace(check) => Sign::TraceCheck(*check),
    })
}

/// How rare a condition is by what is usual, if it is a sign.
fn rank(atom: &Atom) -> Option<u8> {
    match atom {
        Atom::Trace(TraceCheck::Error(true) | TraceCheck::Failed(true)) => Some(0),
        Atom::Trace(TraceCheck::Duration(range)) if range.at_least.is_some() => Some(1),
        Atom::Span(_) => Some(2),
        Atom::Trace(TraceCheck::Incomplete(_)) => Some(3),
        Atom::Trace(TraceCheck::Duration(_) | TraceCheck::Failed(false) | TraceCheck::Error(false)) => Some(4),
        Atom::Trace(TraceCheck::Envelope(range) | TraceCheck::SpanCount(range)) => {
            range.at_least.is_none().then_some(4)
        }
    }
}
