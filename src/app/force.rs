//! The policy in force, with all that was made from it. Swapped as a whole.

use crate::policy::{Limits, Policy};
use crate::ring::wheel::{TICK_MS, Tick};
use crate::scan::Questions;
use crate::scan::answer::TooMany;
use crate::shard::{Judge, Turn, Wait};
use crate::trace::{Case, Reason, RuleId, RuleNames, Summary, Trigger, Verdict};
use std::sync::Mutex;
use std::time::Duration;

/// One version of the policy, its questions and the names of all rules up to now.
#[derive(Debug)]
pub struct InForce {
    pub policy: Policy,
    pub questions: Questions,
    pub rules: RuleNames,
    wait: Wait,
}

impl InForce {
    /// `dimensions` are the extra dimensions of the request metrics.
    ///
    /// # Errors
    /// When policy and dimensions ask more than scan can answer.
    pub fn new(policy: Policy, dimensions: &[String], rules: RuleNames) -> Result<InForce, TooMany> {
        let ticks = |duration: Duration| (duration.as_millis() as u64).div_ceil(TICK_MS) as Tick;
        Ok(InForce {
            questions: Questions::compile(&policy.conditions, dimensions, policy.number)?,
            wait: Wait {
                after_root: ticks(policy.wait.after_root),
                idle: ticks(policy.wait.idle),
                longest: ticks(policy.wait.longest),
                settle: ticks(policy.wait.settle),
            },
            policy,
            rules,
        })
    }
}

/// Judges by one version of the policy; limits belong to the process.
pub struct Bench<'a> {
    pub in_force: &'a InForce,
    pub limits: &'a Mutex<Limits>,
}

impl<'a> Bench<'a> {
    /// What a call on a shard may use at this moment.
    pub fn turn(&'a self, now: Tick) -> Turn<'a, Bench<'a>> {
        Turn { now, judge: self, questions: &self.in_force.questions, rules: &self.in_force.rules }
    }
}

impl Judge for Bench<'_> {
    fn judge(&self, case: &Case<'_>, trigger: Trigger, now: Tick) -> Verdict {
        self.in_force.policy.judge(case, trigger, &mut &*self.limits, u64::from(now) * TICK_MS)
    }

    fn may_change(&self, before: &Summary, after: &Summary) -> bool {
        self.in_force.policy.may_change(before, after)
    }

    fn reason(&self, rule: RuleId) -> Reason {
        self.in_force.policy.reason(rule)
    }

    fn wait(&self) -> Wait {
        self.in_force.wait
    }
}
