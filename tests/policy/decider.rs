//! A decider says of traces that are dealt to nodes what one process says that has all of their spans.

use crate::random::random_policy;
use crate::span::{Choices, TestTrace, decoded_of, random_trace};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use tailkeep::fleet::NodeId;
use tailkeep::fleet::decider::{Decider, FleetVerdict};
use tailkeep::fleet::part::{Part, PartBatch};
use tailkeep::pipeline::active_policy::{ActivePolicy, PolicyJudge};
use tailkeep::policy::{Limits, Policy};
use tailkeep::ring::wheel::{TICK_MS, Tick};
use tailkeep::trace::{Case, Facts, RuleId, RuleNames, Summary, TraceId, Trigger, Verdict};

const NODES: usize = 3;
/// Spans arrive from this tick on, in less than a second: nothing is judged before all are there.
const START: Tick = 100;
const ARRIVALS: usize = 5;
const DELAYS: usize = 4;

/// A trace whose spans arrived: which, where and when.
struct DealtTrace {
    trace: TestTrace,
    arrivals: Vec<(usize, Tick)>,
}

impl DealtTrace {
    fn random(choices: &mut Choices<'_>) -> DealtTrace {
        let trace = TestTrace { limited: false, forgotten: false, ..random_trace(choices) };
        let arrival = |choices: &mut Choices<'_>| (choices.below(NODES), START + choices.below(ARRIVALS) as Tick);
        let mut arrivals: Vec<_> = trace.spans.iter().map(|_| arrival(choices)).collect();
        arrivals.sort_by_key(|(_, at)| *at);
        DealtTrace { trace, arrivals }
    }

    /// What is known of the spans that a node, or all nodes, had at a moment; and when those that matter arrived.
    fn part(&self, policy: &Policy, node: Option<usize>, at: Tick) -> Option<(Summary, [Tick; 3])> {
        let mut known: Option<(Summary, [Tick; 3])> = None;
        for (span, &(place, arrived)) in self.trace.spans.iter().zip(&self.arrivals) {
            if node.is_some_and(|node| node != place) || arrived > at {
                continue;
            }
            // In a request of its own, so that whether it is an entry does not depend on who came with it.
            let alone = TestTrace { spans: vec![span.clone()], ..self.trace.clone() };
            let summary = decoded_of(policy, &alone).summary;
            let (whole, [first, last, entered]) = known.get_or_insert((Summary::default(), [arrived; 3]));
            let before = whole.entry;
            whole.merge(&summary, &policy.masks);
            (*first, *last) = ((*first).min(arrived), (*last).max(arrived));
            *entered = if before.is_same_span(&whole.entry) { *entered } else { arrived };
        }
        known
    }

    /// Everything that nodes tell of it: after each span, all that they know.
    fn told(&self, policy: &Policy) -> Vec<(Tick, PartBatch)> {
        let mut revisions = [0; NODES];
        let moments: BTreeSet<(Tick, usize)> = self.arrivals.iter().map(|&(node, at)| (at, node)).collect();
        let tell = |(at, node): (Tick, usize)| {
            let (summary, times) = self.part(policy, Some(node), at).expect("a span has just come");
            revisions[node] += 1;
            let [first_age_ms, last_age_ms, entered_age_ms] = times.map(|time| u64::from(at - time) * TICK_MS);
            let part = Part {
                id: self.trace.id,
                revision: revisions[node],
                summary,
                stored_bytes: summary.bytes,
                first_age_ms,
                last_age_ms,
                entered_age_ms,
                is_leaving: false,
            };
            (at, PartBatch { node: NodeId(node as u64), questions: 1, parts: vec![part] })
        };
        moments.into_iter().map(tell).collect()
    }
}

struct Scene {
    active_policy: ActivePolicy,
    traces: Vec<DealtTrace>,
}

impl Scene {
    fn random(policy: &[u8], choices: &mut Choices<'_>, with_limits: bool) -> Option<Scene> {
        let text = random_policy(&mut Choices(policy.iter()));
        if !with_limits && text.contains("limit") {
            return None;
        }
        let mut rules = RuleNames::default();
        let policy = Policy::compile("random", &text, 1, &mut rules).0.expect("valid");
        let traces: BTreeMap<TraceId, DealtTrace> =
            (0..8).map(|_| DealtTrace::random(choices)).map(|dealt| (dealt.trace.id, dealt)).collect();
        let active_policy = ActivePolicy::new(policy, &[], rules).expect("few questions");
        Some(Scene { active_policy, traces: traces.into_values().collect() })
    }

    /// What one process keeps that has all spans: judged one after the other, when each is due.
    fn kept_by_one(&self) -> BTreeMap<TraceId, Verdict> {
        let policy = &self.active_policy.policy;
        let ticks = |time: std::time::Duration| (time.as_millis() as u64).div_ceil(TICK_MS) as Tick;
        let [root, idle, longest] = [policy.wait.after_root, policy.wait.idle, policy.wait.longest].map(ticks);
        let mut due: Vec<(Tick, TraceId, Trigger, Summary)> = Vec::new();
        for dealt in &self.traces {
            let (summary, [first, last, entered]) = dealt.part(policy, None, Tick::MAX).expect("it has spans");
            let mut at = vec![(last + idle, Trigger::Idle), (first + longest, Trigger::Longest)];
            at.extend(summary.has_entry().then_some((entered + root, Trigger::Root)));
            let (at, trigger) = at.into_iter().min().expect("two at least");
            due.push((at.max(first + 10), dealt.trace.id, trigger, summary));
        }
        due.sort_by_key(|(at, id, ..)| (*at, *id));
        let mut limits = Limits::default();
        let verdicts = due.into_iter().map(|(at, id, trigger, summary)| {
            let case = Case { id, summary: &summary, charged: None, stored_bytes: summary.bytes };
            (id, policy.judge(&case, trigger, &mut limits, u64::from(at) * TICK_MS))
        });
        verdicts.filter(|(_, verdict)| verdict.decision.keeps()).collect()
    }

    /// What the decider rules by these batches, each at its tick.
    fn kept_by_decider(&self, mut batches: Vec<(Tick, PartBatch)>) -> BTreeMap<TraceId, FleetVerdict> {
        batches.sort_by_key(|(at, _)| *at);
        let limits = Mutex::new(Limits::default());
        let judge = PolicyJudge { active_policy: &self.active_policy, limits: &limits };
        let (mut decider, mut verdicts, mut batches) = (Decider::new(100), Vec::new(), batches.into_iter().peekable());
        for now in START..START + 4000 {
            let turn = judge.turn(now);
            while let Some((_, batch)) = batches.next_if(|(at, _)| *at == now) {
                let sent = PartBatch::decode(&batch.encode()).expect("a batch");
                decider.take(&turn, 1, &sent);
            }
            decider.tick(&turn, &mut verdicts);
        }
        assert!(decider.is_empty(), "everything is forgotten in the end");
        let mut kept = BTreeMap::new();
        for verdict in verdicts {
            let last: Option<FleetVerdict> = kept.insert(verdict.id, verdict.clone());
            assert!(last.is_none_or(|last| last.revision < verdict.revision));
        }
        kept.retain(|_, verdict: &mut FleetVerdict| verdict.verdict.decision.keeps());
        kept
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Limits and triggers too, where parts are told at once.
    #[test]
    fn a_decider_judges_as_one_process_would(
        policy in prop::collection::vec(any::<u8>(), 0..160),
        traffic in prop::collection::vec(any::<u8>(), 0..500),
    ) {
        let scene = Scene::random(&policy, &mut Choices(traffic.iter()), true).expect("any policy");
        let batches = scene.traces.iter().flat_map(|dealt| dealt.told(&scene.active_policy.policy)).collect();
        let ruled = scene.kept_by_decider(batches).into_iter().map(|(id, verdict)| (id, verdict.verdict)).collect();
        prop_assert_eq!(scene.kept_by_one(), ruled);
    }

    /// Late, twice, and in any order: the same traces by the same rules and weights.
    #[test]
    fn how_parts_arrive_makes_no_difference(
        policy in prop::collection::vec(any::<u8>(), 0..160),
        traffic in prop::collection::vec(any::<u8>(), 0..700),
    ) {
        let mut choices = Choices(traffic.iter());
        let Some(scene) = Scene::random(&policy, &mut choices, false) else { return Ok(()) };
        let mut batches = Vec::new();
        for (at, batch) in scene.traces.iter().flat_map(|dealt| dealt.told(&scene.active_policy.policy)) {
            for _ in 0..=choices.below(2) {
                batches.insert(choices.below(batches.len() + 1), (at + choices.below(DELAYS) as Tick, batch.clone()));
            }
        }
        let said = |verdict: &Verdict| (verdict.decision, verdict.rule, verdict.threshold);
        let one: BTreeMap<_, _> = scene.kept_by_one().iter().map(|(id, verdict)| (*id, said(verdict))).collect();
        let ruled = scene.kept_by_decider(batches);
        prop_assert_eq!(one, ruled.iter().map(|(id, verdict)| (*id, said(&verdict.verdict))).collect());
        for dealt in &scene.traces {
            let nodes: BTreeSet<u64> = dealt.arrivals.iter().map(|(node, _)| *node as u64).collect();
            if let Some(verdict) = ruled.get(&dealt.trace.id) {
                prop_assert_eq!(verdict.nodes.iter().map(|node| node.0).collect::<BTreeSet<_>>(), nodes);
            }
        }
    }
}

const ERRORS: &str = "version: 1
rules:
  - { name: errors, when: { error: true }, keep: all }
  - { name: named, when: { services: shop }, keep: all }
otherwise: { keep: none }
";

fn told(id: u8, errors: u32, revision: u32) -> Part {
    Part {
        id: TraceId([id; 16]),
        revision,
        summary: Summary { spans: 1, errors, facts: Facts::one(0), ..Summary::default() },
        stored_bytes: 100,
        first_age_ms: 0,
        last_age_ms: 0,
        entered_age_ms: 0,
        is_leaving: false,
    }
}

/// What is ruled by what one node tells, each at its tick, in the room for so many traces; and what was not believed.
fn ruled(traces_max: usize, questions: u64, parts: &[(Tick, Part)]) -> (Vec<(u8, RuleId, Trigger)>, [u64; 2]) {
    let mut rules = RuleNames::default();
    let policy = Policy::compile("errors", ERRORS, 1, &mut rules).0.expect("valid");
    let active_policy = ActivePolicy::new(policy, &[], rules).expect("few questions");
    let limits = Mutex::new(Limits::default());
    let judge = PolicyJudge { active_policy: &active_policy, limits: &limits };
    let (mut decider, mut verdicts) = (Decider::new(traces_max), Vec::new());
    for now in START..START + 1000 {
        let turn = judge.turn(now);
        let parts: Vec<Part> = parts.iter().filter(|(at, _)| *at == now).map(|(_, part)| *part).collect();
        decider.take(&turn, 1, &PartBatch { node: NodeId(1), questions, parts });
        decider.tick(&turn, &mut verdicts);
    }
    let said = verdicts.iter().map(|verdict| (verdict.id.0[0], verdict.verdict.rule, verdict.verdict.trigger));
    (said.collect(), [decider.overflowed, decider.foreign])
}

#[test]
fn what_fails_after_the_verdict_is_ruled_then() {
    let [errors, named] = [RuleId(3), RuleId(4)];
    let late = [(START, Part { summary: Summary { facts: Facts::EMPTY, ..told(1, 0, 1).summary }, ..told(1, 0, 1) })];
    assert_eq!(ruled(9, 1, &late).0, [], "silence is a drop");
    let late = [late[0], (START + 500, told(1, 1, 2))];
    assert_eq!(ruled(9, 1, &late).0, [(1, errors, Trigger::Late)]);
    assert_eq!(ruled(9, 1, &[(START, told(1, 0, 1))]).0, [(1, named, Trigger::Idle)]);
}

#[test]
fn what_answers_other_questions_says_nothing_of_conditions() {
    let parts = [(START, told(1, 0, 1)), (START, told(2, 1, 1))];
    assert_eq!(ruled(9, 7, &parts), (vec![(2, RuleId(3), Trigger::Idle)], [0, 2]));
}

#[test]
fn traces_beyond_the_bound_are_counted() {
    let parts = [(START, told(1, 1, 1)), (START, told(2, 1, 1))];
    assert_eq!(ruled(1, 1, &parts), (vec![(1, RuleId(3), Trigger::Idle)], [1, 0]));
}
