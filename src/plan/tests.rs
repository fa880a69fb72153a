use super::*;
use crate::pipeline::active_policy::{ActivePolicy, PolicyJudge};
use crate::policy::explain::decoded::DecodedSpan;
use crate::policy::explain::observe::DecodedTrace;
use crate::ring::wheel::{TICK_MS, Tick};
use crate::scan::{Keyed, Scan, SpanBounds};
use crate::shard::survey::{Survey, SurveyQuestions};
use crate::shard::{Outbox, Progress, Shard, WORK_MAX};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::prelude::*;
use prost::Message;
use std::sync::Mutex;

const NOTHING: &str = "version: 1\notherwise: { keep: none }\n";
const RULES: &str = "version: 1
rules:
- { name: probes, when: { entry: { name: 'probe*' } }, keep: none }
- { name: errors, when: { error: true }, keep: all }
- { name: slow, when: { duration: { at_least: 500ms } }, keep: 50% }
- { name: paid, when: { any_span: { attributes: { tier: gold } } }, keep: all }
otherwise: { keep: 20% }
";
const LIMITED: &str = "version: 1
rules:
- { name: errors, when: { error: true }, keep: all, limit: 2/s, then: next }
- { name: each, keep: all, limit: 1/s, for_each: [entry.service], limit_total: 3/s }
otherwise: { keep: none }
";
const ERRORS: &str = "errors: { except: { attributes: { tier: gold } }, also: { name: 'probe*', service: s1 } }
rules:";
/// Unix milliseconds; a multiple of what a share is drawn from would be no accident.
const BEGIN: u64 = 1_700_000_000_000;

/// A span in few words.
#[derive(Clone, Debug)]
struct Sketch {
    trace: u64,
    number: u64,
    service: u8,
    /// Milliseconds after the beginning, and how long.
    start: u64,
    length: u64,
    error: bool,
    gold: bool,
    probe: bool,
}

impl Sketch {
    fn id(&self) -> TraceId {
        // What a share is drawn from is in the last seven bytes.
        let spread = self.trace.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        TraceId((u128::from(self.trace + 1) << 64 | u128::from(spread)).to_be_bytes())
    }

    fn request(&self) -> ExportTraceServiceRequest {
        let text = |key: &str, value: String| KeyValue {
            key: key.into(),
            value: Some(AnyValue { value: Some(Value::StringValue(value)) }),
            ..Default::default()
        };
        let nanos = |ms: u64| (BEGIN + ms) * 1_000_000;
        let span = Span {
            trace_id: self.id().0.to_vec(),
            span_id: (self.number + 1).to_be_bytes().to_vec(),
            parent_span_id: if self.number == 0 { vec![] } else { 1u64.to_be_bytes().to_vec() },
            name: if self.probe { "probe" } else { "GET /" }.into(),
            start_time_unix_nano: nanos(self.start),
            end_time_unix_nano: nanos(self.start + self.length),
            status: self.error.then(|| Status { code: 2, ..Default::default() }),
            attributes: if self.gold { vec![text("tier", "gold".into())] } else { vec![] },
            ..Default::default()
        };
        let resource =
            Resource { attributes: vec![text("service.name", format!("s{}", self.service))], ..Default::default() };
        let scope_spans = vec![ScopeSpans { spans: vec![span], ..Default::default() }];
        let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, ..Default::default() }];
        ExportTraceServiceRequest { resource_spans }
    }
}

/// Up to 60 traces within 20 s, each of up to 5 spans within 3 s.
fn traffic() -> impl Strategy<Value = Vec<Sketch>> {
    let span = (0..60u64, 0..3u8, 0..2_000u64, 0..1_000u64, any::<u8>());
    prop::collection::vec(span, 1..200).prop_map(|spans| {
        let mut numbers = BTreeMap::<u64, u64>::new();
        let sketches = spans.into_iter().filter_map(|(trace, service, start, length, bits)| {
            let number = numbers.entry(trace).or_default();
            *number += 1;
            let sketch = Sketch {
                trace,
                number: *number - 1,
                service,
                start: trace * 300 + start,
                length,
                error: bits & 7 == 0,
                gold: bits & 0x18 == 0,
                probe: bits & 0x60 == 0,
            };
            (*number <= 5).then_some(sketch)
        });
        sketches.collect()
    })
}

fn compared(now: &str, then: &str, gates: &[&str]) -> Compared {
    let conditions: Vec<String> = gates.iter().map(|gate| gate.to_string()).collect();
    let [now, then] = [now, then].map(|text| PolicyText { file: "policy", text });
    Compared::compile(now, then, &conditions, RuleNames::default()).expect("without errors")
}

fn plan(compared: &Compared, spans: &[Sketch]) -> PlanReport {
    let questions = compared.questions().unwrap();
    let mut recording = Recording::new(&questions, 1000);
    spans.iter().for_each(|span| recording.add(&span.request().encode_to_vec()).unwrap());
    recording.plan(Planner::new(compared, 1000))
}

/// Decoded traces, by id: slow and obvious.
fn decoded(spans: &[Sketch], policy: &Policy) -> Vec<(DecodedTrace, Vec<Sketch>)> {
    let mut traces = BTreeMap::<TraceId, Vec<Sketch>>::new();
    spans.iter().for_each(|span| traces.entry(span.id()).or_default().push(span.clone()));
    let decode = |(id, sketches): (TraceId, Vec<Sketch>)| {
        let spans = sketches.iter().map(|sketch| {
            let group = sketch.request().resource_spans.remove(0);
            let span = group.scope_spans[0].spans[0].clone();
            DecodedSpan::new(group.resource.unwrap().attributes, span)
        });
        (DecodedTrace::of(id, spans.collect(), policy), sketches)
    };
    traces.into_iter().map(decode).collect()
}

struct Unlimited;

impl Charge for Unlimited {
    fn admit(&mut self, _: &Claim<'_>) -> bool {
        true
    }
}

/// Traces and spans that a policy keeps, by rule.
fn reference(policy: &Policy, spans: &[Sketch]) -> BTreeMap<RuleId, (u64, u64)> {
    let mut kept = BTreeMap::<RuleId, (u64, u64)>::new();
    for (trace, _) in decoded(spans, policy) {
        let case = Case { id: trace.id, summary: &trace.summary, charged: None, stored_bytes: 0 };
        let verdict = policy.judge(&case, Trigger::Root, &mut Unlimited, 0);
        if verdict.decision.keeps() {
            let (traces, spans) = kept.entry(verdict.rule).or_default();
            *traces += 1;
            *spans += trace.spans.len() as u64;
        }
    }
    kept
}

/// A shard after 150 s, its policy, and what it delivered, if each span arrives when it ends.
fn play(policy: &str, spans: &[Sketch]) -> (Shard, ActivePolicy, Outbox) {
    let mut names = RuleNames::default();
    let policy = Policy::compile("policy", policy, 1, &mut names).0.unwrap();
    let active_policy = ActivePolicy::new(policy, &[], names).unwrap();
    let limits = Mutex::new(Limits::default());
    let judge = PolicyJudge { active_policy: &active_policy, limits: &limits };
    let keyed = Keyed::new(7);
    let (mut shard, mut scan) = (Shard::new(8 << 20, keyed.clone()), Scan::new(keyed));
    let mut arrivals: Vec<&Sketch> = spans.iter().collect();
    arrivals.sort_by_key(|span| span.start + span.length);
    let (mut out, mut next) = (Outbox::default(), 0);
    for now in 0..1_500 as Tick {
        let turn = judge.turn(now + 1);
        while let Some(span) = arrivals.get(next).filter(|s| s.start + s.length < (u64::from(now) + 1) * TICK_MS) {
            let body = span.request().encode_to_vec();
            scan.read(&body, &active_policy.questions, SpanBounds::of_bytes(1 << 20)).unwrap();
            assert_eq!(shard.append(&turn, &scan, &body, &[0], &mut out), 1);
            next += 1;
        }
        while shard.tick(&turn, true, &mut out) == Progress::More {}
    }
    (shard, active_policy, out)
}

/// What real shards deliver by `policy`.
fn shard_keeps(policy: &str, spans: &[Sketch]) -> BTreeMap<TraceId, u64> {
    let (.., out) = play(policy, spans);
    let mut kept = BTreeMap::new();
    for group in ExportTraceServiceRequest::decode(&*out.body).unwrap().resource_spans {
        for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            *kept.entry(TraceId(span.trace_id.try_into().unwrap())).or_default() += 1;
        }
    }
    kept
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_plan_says_what_a_slow_reference_says(spans in traffic(), at in 1..200usize) {
        let then = RULES.replace("50%", "all").replace("- { name: probes", "- { name: new").replace("rules:", ERRORS);
        let compared = compared(RULES, &then, &["error"]);
        let report = plan(&compared, &spans);
        let sides = [(&compared.now, false), (&compared.then, true)].map(|(policy, is_then)| {
            let wanted = reference(policy, &spans);
            for row in &report.rules {
                let id = compared.names.iter().find(|(_, name)| *name == row.name).unwrap().0;
                let group = if is_then { row.then } else { row.now };
                prop_assert_eq!((group.traces, group.spans), wanted.get(&id).copied().unwrap_or_default(), "{}", row.name);
            }
            Ok(wanted.values().map(|kept| kept.0).sum::<u64>())
        });
        let [now, then] = sides;
        prop_assert_eq!((report.total.now.traces, report.total.then.traces), (now?, then?));
        prop_assert_eq!(now_plus(&report), report.total.then.traces);
        // A plan does not depend on the order of spans.
        let mut turned = spans.clone();
        turned.rotate_left(at % spans.len());
        prop_assert_eq!(plan(&compared, &turned), report);
    }

    #[test]
    fn what_is_in_a_ring_is_planned_like_a_recording_of_it(spans in traffic()) {
        let (counting, counting_rules) = (LIMITED.replace("rules:", ERRORS), RULES.replace("rules:", ERRORS));
        for (in_force, then) in [(LIMITED, RULES), (LIMITED, &counting_rules), (&counting, RULES), (&counting, NOTHING)] {
            assert_planned_alike(in_force, then, &spans)?;
        }
    }

    #[test]
    fn what_is_planned_is_what_a_shard_does(spans in traffic()) {
        let kept = shard_keeps(RULES, &spans);
        let compared = compared(NOTHING, RULES, &[]);
        let report = plan(&compared, &spans);
        prop_assert_eq!(report.newly_kept.traces, kept.len() as u64);
        prop_assert_eq!(report.newly_kept.spans, kept.values().sum::<u64>());
        for span in &spans {
            let alone: Vec<Sketch> = spans.iter().filter(|other| other.trace == span.trace).cloned().collect();
            prop_assert_eq!(plan(&compared, &alone).newly_kept.traces == 1, kept.contains_key(&span.id()));
        }
    }
}

/// What is in a ring, and a recording of it.
fn assert_planned_alike(in_force: &str, then: &str, spans: &[Sketch]) -> Result<(), TestCaseError> {
    let compared = compared(in_force, then, &["error", "services: s1"]);
    let (shard, active_policy, _) = play(in_force, spans);
    // What is kept by a rule beyond its limit depends on when exactly a trace came.
    let unlimited = |report: PlanReport| {
        let mut report = comparable(report);
        report.rules.iter_mut().for_each(|row| row.now = Default::default());
        (report.newly_kept, report.newly_dropped, report.total.now) = Default::default();
        report
    };
    let recorded = unlimited(plan(&compared, spans));
    for answered in [None, Some(active_policy.questions.number)] {
        let surveyed = survey(&shard, &compared, &active_policy, answered).0;
        prop_assert_eq!(&unlimited(surveyed), &recorded);
    }
    Ok(())
}

/// A plan of what a shard holds.
fn survey(shard: &Shard, compared: &Compared, in_force: &ActivePolicy, answered: Option<u32>) -> (PlanReport, Survey) {
    let sets = compared.questions_of_ring(&in_force.policy, in_force.questions.errors_since).unwrap();
    let asked = SurveyQuestions { sets: &sets, answered };
    let (mut survey, mut found, mut planner) = (Survey::default(), Vec::new(), Planner::new(compared, 1000));
    while shard.survey(&asked, &mut survey, &mut found) == Progress::More {
        assert!(found.len() <= WORK_MAX);
        found.drain(..).for_each(|observed| planner.take(observed));
    }
    found.drain(..).for_each(|observed| planner.take(observed));
    let services: Vec<Arc<str>> = vec!["other".into()];
    (planner.finish(&services, LeftOut::default()), survey)
}

/// Without what only a recording, or only a ring, knows.
fn comparable(mut report: PlanReport) -> PlanReport {
    report.window.seconds = 0.0;
    report.services.clear();
    let groups = report.rules.iter_mut().flat_map(|row| [&mut row.now, &mut row.then]);
    groups.chain([&mut report.total.now, &mut report.total.then]).for_each(|group| group.bytes_per_day = 0);
    report.late = Sides::default();
    report
}

#[test]
fn what_waits_is_left_out_and_a_long_trace_is_looked_at_in_pieces() {
    let one = busy_minute()[1].clone();
    let long = |n: u64| Sketch { number: n, error: n == 0, gold: n == 599, start: n * 10, ..one.clone() };
    let spans: Vec<Sketch> = (0..600).map(long).collect();
    let compared = compared(NOTHING, RULES, &["any_span: { attributes: { tier: gold } }"]);
    let (shard, in_force, _) = play(NOTHING, &spans);
    let (report, _) = survey(&shard, &compared, &in_force, None);
    let rows: Vec<u64> = report.rules.iter().map(|row| row.then.traces).collect();
    assert_eq!((report.window.traces, report.window.spans, rows[1]), (1, 600, 1));
    let mut late = spans;
    late.push(Sketch { trace: 9, number: 0, start: 148_000, length: 0, ..one });
    let (shard, in_force, _) = play(NOTHING, &late);
    let (report, survey) = survey(&shard, &compared, &in_force, None);
    assert_eq!((report.window.traces, survey.waiting), (1, 1));
}

/// A gate goes by what either policy counts as an error: a new `errors` does not hide what it drops.
#[test]
fn what_either_policy_counts_as_an_error_may_not_be_dropped() {
    let one = Sketch { error: true, gold: true, probe: false, ..busy_minute()[1].clone() };
    let spans = [one.clone(), Sketch { trace: 2, gold: false, ..one }];
    let with = |policy: &str, errors: &str| policy.replacen("version: 1\n", &format!("version: 1\n{errors}\n"), 1);
    let no_gold = "errors: { except: { attributes: { tier: gold } } }";
    let none = "errors: { except: { name: '*' } }";
    for (now, then, dropped) in [
        (RULES.to_owned(), NOTHING.to_owned(), 2),
        (RULES.to_owned(), with(NOTHING, no_gold), 2),
        // One of them is in the share of the last line.
        (RULES.to_owned(), with(RULES, none), 1),
        (with(RULES, no_gold), with(NOTHING, no_gold), 1),
        (with(RULES, none), NOTHING.to_owned(), 2),
        (with(RULES, none), with(NOTHING, none), 0),
    ] {
        let report = plan(&compared(&now, &then, &["error"]), &spans);
        assert_eq!(report.gates[0].dropped, dropped, "{now} {then}");
    }
}

fn now_plus(report: &PlanReport) -> u64 {
    report.total.now.traces + report.newly_kept.traces - report.newly_dropped.traces
}

/// Ten traces a second for a minute, now and then a burst.
fn busy_minute() -> Vec<Sketch> {
    let start = |trace: u64| if trace.is_multiple_of(7) { trace * 100 / 3_000 * 3_000 } else { trace * 100 };
    let sketch = |trace: u64| Sketch {
        trace,
        number: 0,
        service: (trace % 3) as u8,
        start: start(trace),
        length: 5,
        error: trace.is_multiple_of(4),
        gold: false,
        probe: false,
    };
    (0..600).map(sketch).collect()
}

#[test]
fn limits_cut_what_they_cut_in_a_shard() {
    let spans = busy_minute();
    let kept = shard_keeps(LIMITED, &spans).len() as u64;
    let report = plan(&compared(NOTHING, LIMITED, &[]), &spans);
    let planned = report.total.then.traces;
    assert!(planned.abs_diff(kept) * 50 <= kept, "{planned} planned, {kept} kept");
    assert!(report.rules.iter().all(|row| row.then.beyond_limit > 0 || row.name == "otherwise"), "{:?}", report.rules);
    // At the times of the traffic: in no time at all a second's worth would be kept.
    assert!(planned > 120, "{planned}");
}

#[test]
fn a_shared_limit_is_told_by_its_name() {
    let shared = LIMITED.replacen("limit: 2/s", "limit: loud", 1);
    assert_ne!(shared, LIMITED);
    let shared = shared.replacen("version: 1\n", "version: 1\nlimits: { loud: 2/s }\n", 1);
    let report = plan(&compared(NOTHING, &shared, &[]), &busy_minute());
    let told = render::table(&report, &[]);
    assert!(told.contains("the limit loud cuts 0 traces of errors now, "), "{told}");
    assert!(!told.contains("the limit of errors"), "{told}");
}

#[test]
fn beyond_the_bound_limits_are_taken_to_be_open_and_that_is_said() {
    let compared = compared(NOTHING, LIMITED, &[]);
    let questions = compared.questions().unwrap();
    let mut recording = Recording::new(&questions, 500);
    busy_minute().iter().for_each(|span| recording.add(&span.request().encode_to_vec()).unwrap());
    let report = recording.plan(Planner::new(&compared, 100));
    assert_eq!((report.left_out.beyond, report.left_out.unordered, report.window.traces), (100, 400, 500));
    assert!(report.warnings[0].contains("100 spans are of traces beyond the 500"), "{:?}", report.warnings);
}

#[test]
fn a_gate_finds_what_is_dropped_and_examples_are_the_same_each_time() {
    let spans = busy_minute();
    let report = plan(&compared(RULES, NOTHING, &["error", "services: [s0, s1]", "services: nobody"]), &spans);
    let dropped: Vec<u64> = report.gates.iter().map(|gate| gate.dropped).collect();
    assert_eq!(dropped, [150, 400, 0]);
    assert_eq!(report.gates[0].examples.len(), EXAMPLES);
    assert!(report.newly_dropped.traces >= 150 && report.newly_kept.traces == 0);
    assert_eq!(report.newly_dropped.examples[0], Sketch { trace: 0, ..spans[0].clone() }.id().to_string());
}

#[test]
fn reports_of_several_processes_add_up() {
    let compared = compared(RULES, LIMITED, &["error"]);
    let spans = busy_minute();
    let mut sum = plan(&compared, &spans);
    let one = sum.clone();
    sum.add(&one);
    assert_eq!(sum.total.then.bytes_per_day, 2 * one.total.then.bytes_per_day);
    assert_eq!((sum.rules.len(), sum.services.len()), (one.rules.len(), one.services.len()));
    assert_eq!(sum.newly_dropped.examples, one.newly_dropped.examples);
    assert_eq!((sum.gates[0].dropped, sum.window.traces), (2 * one.gates[0].dropped, 1200));
}
