//! Makes plans of what is in the ring, and profiles of it, one at a time.

use crate::admin::{PlanRequest, PlanTurn};
use crate::pipeline::Pipeline;
use crate::plan::recording::NAMES_MAX;
use crate::plan::report::LeftOut;
use crate::plan::{Compared, PlanReport, Planner, PolicyText};
use crate::shard::survey::SurveyQuestions;
use crate::suggest::{Profiler, TrafficProfile};
use crate::trace::label::NumberedNames;
use crate::trace::{Observed, RuleNames};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::Semaphore;

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
pub struct PlanService {
    /// One permit: the memory of a plan is bounded, and that of many would not be.
    turns: Arc<Semaphore>,
    counts: [AtomicU64; 3],
}

impl Default for PlanService {
    fn default() -> PlanService {
        PlanService { turns: Arc::new(Semaphore::new(1)), counts: Default::default() }
    }
}

impl PlanService {
    /// Requests by [`PlanOutcome`].
    pub fn counts(&self) -> [u64; 3] {
        self.counts.each_ref().map(|count| count.load(Relaxed))
    }

    /// The turn, if nobody has it.
    pub fn take_turn(&self) -> Option<PlanTurn> {
        let turn = self.turns.clone().try_acquire_owned().ok();
        if turn.is_none() {
            self.count(PlanOutcome::Busy);
        }
        turn
    }

    /// What the policy that is asked about would do with the traffic in the ring.
    ///
    /// # Errors
    /// What is wrong with the policy or a condition.
    pub fn plan(&self, _turn: PlanTurn, pipeline: &Pipeline, request: &PlanRequest) -> Result<PlanReport, String> {
        let planned = plan(pipeline, request);
        self.count(if planned.is_ok() { PlanOutcome::Made } else { PlanOutcome::Refused });
        planned
    }

    /// What flows, by operation.
    pub fn traffic(&self, _turn: PlanTurn, pipeline: &Pipeline) -> TrafficProfile {
        let profile = traffic(pipeline);
        self.count(PlanOutcome::Made);
        profile
    }

    fn count(&self, outcome: PlanOutcome) {
        self.counts[outcome as usize].fetch_add(1, Relaxed);
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
    fn there_is_one_turn_at_a_time_and_who_hears_that_is_counted() {
        let service = PlanService::default();
        let turn = service.take_turn();
        assert!(turn.is_some() && service.take_turn().is_none());
        drop(turn);
        let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _turn = service.take_turn().expect("it was given back");
            panic!("a defect");
        }));
        assert!(broken.is_err() && service.take_turn().is_some(), "a plan that broke stands in nobody's way");
        assert_eq!(service.counts(), [0, 0, 1]);
    }
}
