//! Says in the log which rules had more traces than their limit lets in.

use crate::pipeline::Pipeline;
use crate::pipeline::active_policy::ActivePolicy;
use crate::policy::{LimitCounts, Rule};
use crate::trace::{Reason, RuleId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, interval};

/// How soon a limit that was reached is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A rule that was spoken of is silent for so long.
const REPEAT: Duration = Duration::from_secs(60);

/// Looks at the limits for as long as the process runs.
pub async fn watch_limits(pipeline: Arc<Pipeline>) {
    let (mut ticks, mut said) = (interval(LOOK_EVERY), LoggedCounts::default());
    loop {
        let now = ticks.tick().await;
        let counts = pipeline.limits.lock().expect("no code panics under this lock").counts();
        let active_policy = pipeline.active_policy.load();
        for (rule, traces) in said.news(&counts, &active_policy, now) {
            let limit = rule.written.limited.as_ref().and_then(|limited| limited.shared.as_ref());
            let rule = active_policy.rules.name(rule.id);
            tracing::warn!(
                rule,
                limit,
                traces,
                "more traces than the rule's limit: what the policy says for these decided"
            );
        }
    }
}

/// What was said up to now, by rule, and since when it is silent.
#[derive(Default)]
struct LoggedCounts(BTreeMap<RuleId, (u64, Instant)>);

impl LoggedCounts {
    /// Rules in force that met more traces beyond their limit than was said, and how many.
    fn news<'a>(
        &mut self,
        counts: &BTreeMap<RuleId, LimitCounts>,
        active_policy: &'a ActivePolicy,
        now: Instant,
    ) -> Vec<(&'a Rule, u64)> {
        let limited = active_policy.policy.rules.iter().filter(|rule| is_worth_saying(rule, active_policy));
        let fresh = limited.filter_map(|rule| {
            let reached = counts.get(&rule.id)?.reached;
            let before = self.0.get(&rule.id).map_or(0, |(said, _)| *said);
            let is_silent = self.0.get(&rule.id).is_some_and(|(_, since)| now - *since < REPEAT);
            if reached == before || is_silent {
                return None;
            }
            self.0.insert(rule.id, (reached, now));
            Some((rule, reached - before))
        });
        fresh.collect()
    }
}

/// A rule that shows a few traces of each key meets more all the time, and means to. One for failed or slow traces
/// does not.
fn is_worth_saying(rule: &Rule, active_policy: &ActivePolicy) -> bool {
    let is_sample = rule.limit().is_some_and(|limit| limit.each.is_some());
    !is_sample || matches!(active_policy.policy.reason(rule.id), Reason::Failed | Reason::Slow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::trace::RuleNames;

    const POLICY: &str = "version: 1
rules:
  - name: keep-errors
    when: { error: true }
    keep: all
    limit: 200/s
  - name: show-every-endpoint
    keep: all
    limit: 1/min
    for_each: [entry.service, entry.name]
    limit_total: 20/s
otherwise: { keep: 1% }
";

    #[test]
    fn what_is_beyond_a_limit_is_said_once_and_a_sample_never() {
        let mut rules = RuleNames::default();
        let policy = Policy::compile("policy.yaml", POLICY, 1, &mut rules).0.expect("it is right");
        let active_policy = ActivePolicy::new(policy, &[], rules).expect("few questions");
        let id =
            |name: &str| active_policy.policy.rules.iter().find(|rule| rule.written.name == name).expect("a rule").id;
        let counts = |errors, shown| {
            let counts = [(id("keep-errors"), errors), (id("show-every-endpoint"), shown), (RuleId(4000), 7)];
            counts.map(|(id, reached)| (id, LimitCounts { reached, overflowed: 0 })).into()
        };
        let (mut said, start) = (LoggedCounts::default(), Instant::now());
        let mut news = |second, errors, shown| {
            let news = said.news(&counts(errors, shown), &active_policy, start + Duration::from_secs(second));
            news.into_iter().map(|(rule, traces)| (rule.written.name.as_str(), traces)).collect::<Vec<_>>()
        };
        assert_eq!(news(0, 0, 5), []);
        assert_eq!(news(1, 9782, 900), [("keep-errors", 9782)]);
        assert_eq!(news(2, 9790, 1000), [], "it was spoken of a moment ago");
        assert_eq!(news(61, 9800, 1000), [("keep-errors", 18)]);
        assert_eq!(news(200, 9800, 2000), [], "nothing is new");
    }
}
