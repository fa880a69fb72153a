//! Makes plans of what is in the ring, and profiles of it, one at a time.

use crate::admin::{PlanRefusal, PlanRequest};
use crate::pipeline::Pipeline;
use crate::plan::recording::NAMES_MAX;
use crate::plan::report::LeftOut;
use crate::plan::{Compared, PlanReport, Planner, PolicyText};
use crate::shard::survey::SurveyQuestions;
use crate::suggest::{Profiler, TrafficProfile};
use crate::trace::label::NumberedNames;
use crate::trace::{Observed, RuleNames};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, TryLockError};

/// Of the ring's memory, a plan takes so much at most for traces that wait for their turn at a limit. Limits are open to
/// those beyond it, and the plan says how many they are.
const HELD_PART: usize = 8;

/// What became of a request for a plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlanOutcome {
    Made,
    Refused,
    Busy,
}

impl PlanOutcome {
    pub const ALL: [PlanOutcome; 3] = [PlanOutcome::Made, PlanOutcome::Refused, PlanOutcome::Busy];

    pub fn word(self) -> &'static str {
        ["made", "refused", "busy"][self as usize]
    }
}

/// Where plans are asked for.
#[derive(Default)]
pub struct PlanService {
    /// Held while a plan is made: its memory is bounded, and that of many would not be.
    at_work: Mutex<()>,
    counts: [AtomicU64; 3],
}

impl PlanService {
    /// Requests by [`PlanOutcome`].
    pub fn counts(&self) -> [u64; 3] {
        self.counts.each_ref().map(|count| count.load(Relaxed))
    }

    /// What the policy that is asked about would do with the traffic in the ring.
    pub fn plan(&self, pipeline: &Pipeline, request: &PlanRequest) -> Result<PlanReport, PlanRefusal> {
        self.take_turn(|| plan(pipeline, request))
    }

    /// What flows, by operation.
    pub fn traffic(&self, pipeline: &Pipeline) -> Result<TrafficProfile, PlanRefusal> {
        self.take_turn(|| Ok(traffic(pipeline)))
    }

    fn take_turn<T>(&self, make: impl FnOnce() -> Result<T, String>) -> Result<T, PlanRefusal> {
        let planned = match self.at_work.try_lock() {
            Err(TryLockError::WouldBlock) => Err(PlanRefusal::Busy),
            Ok(_turn) => make().map_err(PlanRefusal::Wrong),
            // Nothing is kept from plan to plan that a defect could have spoilt.
            Err(TryLockError::Poisoned(turn)) => {
                let _turn = turn.into_inner();
                make().map_err(PlanRefusal::Wrong)
            }
        };
        let outcome = match &planned {
            Ok(_) => PlanOutcome::Made,
            Err(PlanRefusal::Wrong(_)) => PlanOutcome::Refused,
            Err(PlanRefusal::Busy) => PlanOutcome::Busy,
        };
        self.counts[outcome as usize].fetch_add(1, Relaxed);
        planned
    }
}

fn plan(pipeline: &Pipeline, request: &PlanRequest) -> Result<PlanReport, String> {
    let active_policy = pipeline.active_policy.load_full();
    let in_force = PolicyText { file: &active_policy.policy.file, text: &active_policy.policy.text };
    let old = request.old.as_ref().map(|old| PolicyText { file: &old.file, text: &old.text });
    let new = PolicyText { file: &request.new.file, text: &request.new.text };
    let answered = old.is_none().then_some(active_policy.questions.number);
    // A copy of the names: nothing of the candidate stays.
    let names = active_policy.rules.clone();
    let compared = Compared::compile(old.unwrap_or(in_force), new, &request.fail_if_dropped, names)?;
    let questions = compared.questions_of_ring(&active_policy.policy, active_policy.questions.errors_since);
    let questions = questions.map_err(|_| "the policy asks more different questions than there are bits".to_owned())?;
    let mut planner = Planner::new(&compared, pipeline.ring_size / HELD_PART / size_of::<Observed>());
    let asked = SurveyQuestions { sets: &questions, answered };
    let (waiting, parts) = pipeline.survey(&asked, &mut None, |observed| planner.take(observed));
    // After the survey: what it found has a name by now.
    Ok(planner.finish(&pipeline.services.names(), LeftOut { waiting, parts, ..LeftOut::default() }))
}

fn traffic(pipeline: &Pipeline) -> TrafficProfile {
    let active_policy = pipeline.active_policy.load_full();
    // What is suggested counts as an error what has that status, whatever the policy in force does.
    let plain = PolicyText { file: "none", text: "version: 1\notherwise: { keep: none }\n" };
    let compared = Compared::compile(plain, plain, &[], RuleNames::default()).expect("it is a policy");
    let sets = compared.questions_of_ring(&active_policy.policy, active_policy.questions.errors_since);
    let sets = sets.expect("it asks nothing");
    let (mut names, mut profiler) = (Some(NumberedNames::new(NAMES_MAX)), Profiler::default());
    let asked = SurveyQuestions { sets: &sets, answered: None };
    pipeline.survey(&asked, &mut names, |observed| profiler.take(&observed));
    let names = names.map_or_else(Vec::new, |names| names.names().to_vec());
    profiler.finish(&pipeline.services.names(), &names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_plan_is_made_at_a_time_and_all_are_counted() {
        let desk = PlanService::default();
        let made = desk.take_turn(|| {
            assert_eq!(desk.take_turn::<PlanReport>(|| panic!("two at a time")), Err(PlanRefusal::Busy));
            Ok(PlanReport::default())
        });
        assert_eq!(made, Ok(PlanReport::default()));
        assert_eq!(
            desk.take_turn::<PlanReport>(|| Err("it has an error".into())),
            Err(PlanRefusal::Wrong("it has an error".into()))
        );
        assert_eq!(desk.counts(), [1, 1, 1]);
    }

    #[test]
    fn a_plan_that_broke_stands_in_nobodys_way() {
        let desk = PlanService::default();
        let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            desk.take_turn::<PlanReport>(|| panic!("a defect"))
        }));
        assert!(broken.is_err() && desk.take_turn(|| Ok(PlanReport::default())).is_ok());
    }
}
