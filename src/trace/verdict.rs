//! What was decided about a trace, and why.

use super::weight::Threshold;
use super::{Summary, TraceId};

/// What made a trace due.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Trigger {
    /// `wait.after_root` passed since its entry span arrived.
    Root,
    /// `wait.idle` passed since its last span.
    Idle,
    /// `wait.longest` passed since its first span.
    Longest,
    /// Its oldest segment was needed.
    Memory,
    /// A late span changed something that a rule reads.
    Late,
    /// The process is shutting down.
    Drain,
    /// An operator or a program asked for it.
    Api,
}

impl Trigger {
    pub const ALL: [Trigger; 7] =
        [Trigger::Root, Trigger::Idle, Trigger::Longest, Trigger::Memory, Trigger::Late, Trigger::Drain, Trigger::Api];

    pub fn word(self) -> &'static str {
        ["root", "idle", "longest", "memory", "late", "drain", "api"][self as usize]
    }
}

/// A rule's name as a number that stays the same over reloads of the policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u16);

impl RuleId {
    /// The policy's last word.
    pub const OTHERWISE: RuleId = RuleId(0);
    /// A keep by the admin interface: no rule spoke.
    pub const API: RuleId = RuleId(1);
    /// Stands for every name beyond [`RuleNames::MAX`].
    pub const OVERFLOW: RuleId = RuleId(2);
}

/// A limit that traces are charged to; stays the same over reloads of the policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum LimitId {
    /// The limit that a rule has for itself.
    OfRule(RuleId),
    /// One that rules share by its name: see [`RuleNames::limit_id`].
    Shared(u16),
}

/// The names of all rules and of all shared limits that this process ever had, so that counters, buckets and
/// remembered verdicts outlive a reload.
#[derive(Clone, Debug)]
pub struct RuleNames {
    rules: Vec<String>,
    limits: Vec<String>,
}

impl RuleNames {
    /// More names than this (many reloads with new names) share [`RuleId::OVERFLOW`].
    pub const MAX: usize = 4096;

    pub fn id(&mut self, name: &str) -> RuleId {
        number_of(&mut self.rules, name).map_or(RuleId::OVERFLOW, RuleId)
    }

    /// The limit that rules share by this name. Names beyond [`RuleNames::MAX`] stand for one.
    pub fn limit_id(&mut self, name: &str) -> LimitId {
        LimitId::Shared(number_of(&mut self.limits, name).unwrap_or(u16::MAX))
    }

    pub fn name(&self, id: RuleId) -> &str {
        self.rules.get(usize::from(id.0)).map_or("other", String::as_str)
    }

    pub fn iter(&self) -> impl Iterator<Item = (RuleId, &str)> {
        self.rules.iter().enumerate().map(|(id, name)| (RuleId(id as u16), name.as_str()))
    }
}

impl Default for RuleNames {
    fn default() -> Self {
        RuleNames { rules: ["otherwise", "api", "other"].map(String::from).to_vec(), limits: Vec::new() }
    }
}

/// The place of `name`, which is added if there is room.
fn number_of(names: &mut Vec<String>, name: &str) -> Option<u16> {
    let known = names.iter().position(|known| known == name);
    if known.is_none() && names.len() < RuleNames::MAX {
        names.push(name.to_owned());
        return Some((names.len() - 1) as u16);
    }
    known.map(|known| known as u16)
}

/// What is judged.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    pub id: TraceId,
    pub summary: &'a Summary,
    /// The limit that this trace was charged to by an earlier judgement: there it is inside without being charged
    /// again.
    pub charged: Option<LimitId>,
    /// What a keep would deliver, bytes.
    pub stored_bytes: u64,
}

/// What a rule says of a trace that it matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Final: the trace and all its later spans leave at once.
    KeepAll,
    /// The trace's randomness passed this share; delivered once settled.
    KeepShare,
    /// The trace's randomness did not pass a share: a rescue after it settled has no known probability.
    DropShare,
    /// Dropped by `keep: none`.
    DropNone,
}

impl Decision {
    pub fn keeps(self) -> bool {
        matches!(self, Decision::KeepAll | Decision::KeepShare)
    }
}

/// Why a trace was kept, as a class that backends understand (`tailkeep.reason`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Reason {
    /// The rule reads `error` or `failed`.
    Failed,
    /// The rule reads a duration.
    Slow,
    /// The rule keeps a share.
    Share,
    /// Any other rule, or a keep by the admin interface.
    Rule,
}

impl Reason {
    pub fn word(self) -> &'static str {
        ["failed", "slow", "share", "rule"][self as usize]
    }
}

/// The outcome of one judgement by one version of the policy.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Verdict {
    pub decision: Decision,
    pub rule: RuleId,
    /// Number of the policy version that judged.
    pub policy: u32,
    /// The weight that kept spans carry; none when the probability is not known.
    pub threshold: Option<Threshold>,
    pub trigger: Trigger,
    /// The limit that this trace was charged to, if any.
    pub charged: Option<LimitId>,
}

impl Verdict {
    /// What it is after an earlier one. `settled`: spans that an earlier share kept have left. `forgotten`: a part of
    /// the trace was judged, and is not known any more.
    pub fn after(mut self, earlier: Option<&Verdict>, settled: bool, forgotten: bool) -> Verdict {
        let share_dropped_it = settled && earlier.is_some_and(|earlier| earlier.decision == Decision::DropShare);
        // Neither a rescue after the share was settled nor a part of a forgotten trace has a known probability.
        if forgotten || share_dropped_it {
            self.threshold = None;
        }
        if share_dropped_it && self.decision == Decision::DropNone {
            // So it stays, for a rescue that may come.
            self.decision = Decision::DropShare;
        }
        self
    }
}
