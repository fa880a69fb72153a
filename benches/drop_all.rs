//! A judge that costs next to nothing, for what measures everything around it.

use tailkeep::ring::wheel::Tick;
use tailkeep::shard::{Judge, WaitTicks};
use tailkeep::trace::{Case, Decision, Reason, RuleId, Summary, Threshold, Trigger, Verdict};

pub struct DropAll;

impl Judge for DropAll {
    fn judge(&self, _: &Case<'_>, trigger: Trigger, _: Tick) -> Verdict {
        let threshold = Some(Threshold::ALL);
        Verdict { decision: Decision::DropNone, rule: RuleId::OTHERWISE, policy: 1, threshold, trigger, charged: None }
    }
    fn may_change(&self, _: &Summary, _: &Summary) -> bool {
        false
    }
    fn reason(&self, _: RuleId) -> Reason {
        Reason::Rule
    }
    fn wait(&self) -> WaitTicks {
        WaitTicks { after_root: 60, idle: 120, longest: 300, settle: 300 }
    }
}
