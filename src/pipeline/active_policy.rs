//! The policy in force, with all that was made from it. Swapped as a whole.

use super::shadow_policy::ShadowPolicy;
use crate::policy::{History, Limits, Policy};
use crate::ring::wheel::{TICK_MS, Tick};
use crate::scan::Questions;
use crate::scan::answer::TooMany;
use crate::shard::{Judge, Turn, WaitTicks};
use crate::trace::{Case, Reason, RuleId, RuleNames, Summary, Trigger, Verdict};
use std::sync::Mutex;
use std::time::Duration;

/// One version of the policy, its questions and the names of all rules up to now.
#[derive(Debug)]
pub struct ActivePolicy {
    pub policy: Policy,
    pub questions: Questions,
    pub rules: RuleNames,
    /// The policies that were in force before it.
    pub history: History,
    /// A candidate that is counted beside it.
    pub shadow: Option<ShadowPolicy>,
    wait: WaitTicks,
}

impl ActivePolicy {
    /// `dimensions` are the extra dimensions of the request metrics.
    ///
    /// # Errors
    /// When policy and dimensions ask more than scan can answer.
    pub fn new(policy: Policy, dimensions: &[String], rules: RuleNames) -> Result<ActivePolicy, TooMany> {
        let number = policy.number;
        ActivePolicy::with(policy, None, number, dimensions, rules)
    }

    /// What follows this one: `policy`, with a candidate beside it. `rules` are those of this one and more.
    ///
    /// # Errors
    /// When policies and dimensions ask more than scan can answer.
    pub fn successor(
        &self,
        policy: Policy,
        shadow: Option<ShadowPolicy>,
        rules: RuleNames,
    ) -> Result<ActivePolicy, TooMany> {
        ActivePolicy::with(policy, shadow, self.questions.number + 1, &self.questions.dimensions, rules)
    }

    /// `number` is that of the questions, more than any before.
    fn with(
        policy: Policy,
        shadow: Option<ShadowPolicy>,
        number: u32,
        dimensions: &[String],
        rules: RuleNames,
    ) -> Result<ActivePolicy, TooMany> {
        let ticks = |duration: Duration| (duration.as_millis() as u64).div_ceil(TICK_MS) as Tick;
        // The shadow asks what the policy asks, and more.
        let asking = shadow.as_ref().map_or(&policy, |shadow| &shadow.policy);
        Ok(ActivePolicy {
            questions: Questions::compile(&asking.conditions, dimensions, number)?
                .counting_by(&asking.entry_attributes)
                .counting_errors(policy.error_facts),
            wait: WaitTicks {
                after_root: ticks(policy.wait.after_root),
                idle: ticks(policy.wait.idle),
                longest: ticks(policy.wait.longest),
                settle: ticks(policy.wait.settle),
            },
            policy,
            rules,
            history: History::default(),
            shadow,
        })
    }

    /// Notes whether errors that were counted while `old` was in force still stand.
    pub fn counts_errors_after(&mut self, old: &ActivePolicy) {
        let is_other = self.policy.errors != old.policy.errors;
        self.questions.errors_since = if is_other { Some(self.questions.number) } else { old.questions.errors_since };
    }
}

/// Judges by one version of the policy; limits belong to the process.
pub struct PolicyJudge<'a> {
    pub active_policy: &'a ActivePolicy,
    pub limits: &'a Mutex<Limits>,
}

impl<'a> PolicyJudge<'a> {
    /// What a call on a shard may use at this moment.
    pub fn turn(&'a self, now: Tick) -> Turn<'a, PolicyJudge<'a>> {
        Turn { now, judge: self, questions: &self.active_policy.questions, rules: &self.active_policy.rules }
    }
}

impl Judge for PolicyJudge<'_> {
    fn judge(&self, case: &Case<'_>, trigger: Trigger, now: Tick) -> Verdict {
        self.active_policy.policy.judge(case, trigger, &mut &*self.limits, u64::from(now) * TICK_MS)
    }

    fn judged_first(&self, case: &Case<'_>, trigger: Trigger, verdict: &Verdict, now: Tick) {
        if let Some(shadow) = &self.active_policy.shadow {
            shadow.compare(case, trigger, verdict, now);
        }
    }

    fn may_change(&self, before: &Summary, after: &Summary) -> bool {
        self.active_policy.policy.may_change(before, after)
    }

    fn reason(&self, rule: RuleId) -> Reason {
        self.active_policy.policy.reason(rule)
    }

    fn wait(&self) -> WaitTicks {
        self.active_policy.wait
    }
}
