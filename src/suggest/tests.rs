use super::*;
use crate::plan::{Compared, PlanReport, Planner, PolicyText, Recording};
use crate::policy::{Policy, check_policy};
use crate::trace::RuleNames;
use crate::trace::label::NumberedNames;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

const BEGIN_MS: u64 = 1_700_000_000_000;
const NOTHING: &str = "version: 1\notherwise: { keep: none }\n";

/// Traces of one operation within five minutes.
#[derive(Clone, Copy)]
struct Flow {
    service: &'static str,
    name: &'static str,
    traces: u64,
    spans: u64,
    /// Milliseconds, of the quickest; one in 200 takes ten times as long.
    takes: u64,
    /// One in so many fails; 0 is none.
    fails: u64,
    by_clock: bool,
}

const FLOWS: [Flow; 7] = [
    Flow { service: "shop", name: "GET /", traces: 6000, spans: 4, takes: 20, fails: 50, by_clock: false },
    Flow { service: "shop", name: "POST /pay *", traces: 600, spans: 6, takes: 80, fails: 20, by_clock: false },
    Flow { service: "shop", name: "GET /healthz", traces: 90, spans: 1, takes: 1, fails: 0, by_clock: true },
    Flow { service: "pay", name: "poll: \"queue\"", traces: 60, spans: 2, takes: 3, fails: 0, by_clock: true },
    Flow { service: "pay", name: "report", traces: 300, spans: 3, takes: 4000, fails: 0, by_clock: false },
    Flow { service: "pay", name: "GET /quote", traces: 900, spans: 2, takes: 10, fails: 0, by_clock: false },
    Flow { service: "", name: "GET /", traces: 50, spans: 2, takes: 10, fails: 0, by_clock: false },
];

/// As unlike a clock as can be, and the same each time.
fn scattered(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16
}

fn request(flow: &Flow, of: u64, number: u64) -> Vec<u8> {
    // Every share keeps its share of an operation, but for one trace.
    let spread = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8) as u128;
    let trace_id = (u128::from((of << 32) + number + 1) << 64 | spread).to_be_bytes().to_vec();
    let window = 300_000;
    let start = if flow.by_clock { window / flow.traces * number } else { scattered((of << 32) + number) % window };
    let takes = flow.takes * if number % 200 == 7 { if flow.by_clock { 1 } else { 10 } } else { 1 };
    let nanos = |ms: u64| (BEGIN_MS + ms) * 1_000_000;
    let failed = flow.fails > 0 && number.is_multiple_of(flow.fails);
    let span = |n: u64| Span {
        trace_id: trace_id.clone(),
        span_id: (n + 1).to_be_bytes().to_vec(),
        parent_span_id: if n == 0 { vec![] } else { 1u64.to_be_bytes().to_vec() },
        name: if n == 0 { flow.name.to_owned() } else { format!("step {n}") },
        start_time_unix_nano: nanos(start),
        end_time_unix_nano: nanos(start + takes),
        status: (failed && n == 0).then(|| Status { code: 2, ..Default::default() }),
        ..Default::default()
    };
    let service = AnyValue { value: Some(Value::StringValue(flow.service.into())) };
    let attributes = vec![KeyValue { key: "service.name".into(), value: Some(service), ..Default::default() }];
    let resource = Some(Resource { attributes, ..Default::default() });
    let scope_spans = vec![ScopeSpans { spans: (0..flow.spans).map(span).collect(), ..Default::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource, scope_spans, ..Default::default() }] }
        .encode_to_vec()
}

fn requests(flows: &[Flow]) -> Vec<Vec<u8>> {
    let of = |(of, flow): (usize, &Flow)| {
        let flow = *flow;
        (0..flow.traces).map(move |number| request(&flow, of as u64, number))
    };
    flows.iter().enumerate().flat_map(of).collect()
}

fn compared(then: &str) -> Compared {
    let [now, then] = [NOTHING, then].map(|text| PolicyText { file: "policy", text });
    Compared::compile(now, then, &[], RuleNames::default()).unwrap_or_else(|problems| panic!("{problems}"))
}

fn profile(requests: &[Vec<u8>]) -> TrafficProfile {
    let compared = compared(NOTHING);
    let questions = compared.questions().unwrap();
    let mut recording = Recording::new(&questions, 100_000);
    requests.iter().for_each(|request| recording.add(request).unwrap());
    let mut profiler = Profiler::default();
    let known = recording.each(|observed| profiler.take(&observed));
    profiler.finish(&known.services, &known.names)
}

fn plan(then: &str, requests: &[Vec<u8>]) -> PlanReport {
    let compared = compared(then);
    let questions = compared.questions().unwrap();
    let mut recording = Recording::new(&questions, 100_000);
    requests.iter().for_each(|request| recording.add(request).unwrap());
    recording.plan(Planner::new(&compared, 100_000))
}

fn text_of(suggestion: &Suggestion) -> String {
    let text = policy(suggestion, &["from a test".to_owned()], |_| None);
    let checked = check_policy("suggested", &text, false);
    assert!(checked.text.ends_with("no problem\n"), "{}\n{text}", checked.text);
    text
}

/// Each rule keeps what was expected of it, within 2 % and two traces.
fn assert_as_expected(suggestion: &Suggestion, report: &PlanReport, text: &str) {
    let expected = suggestion.rules.iter().map(|rule| (rule.name.as_str(), rule.kept));
    for (name, kept) in expected.chain([("otherwise", suggestion.otherwise.1)]) {
        let row = report.rules.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("{name}: {text}"));
        let bytes = row.then.bytes_per_day as f64;
        let one = if kept.traces > 0.0 { kept.bytes / kept.traces * 86_400.0 / report.window.seconds } else { 0.0 };
        assert!(
            (bytes - kept.bytes).abs() <= kept.bytes * 0.02 + 2.0 * one,
            "{name}: {bytes} for {}\n{text}",
            kept.bytes
        );
    }
}

fn rule<'a>(suggestion: &'a Suggestion, name: &str) -> &'a SuggestedRule {
    let names: Vec<&str> = suggestion.rules.iter().map(|rule| rule.name.as_str()).collect();
    suggestion.rules.iter().find(|rule| rule.name == name).unwrap_or_else(|| panic!("{name} is not in {names:?}"))
}

#[test]
fn a_suggestion_passes_check_and_a_plan_agrees_with_it() {
    let requests = requests(&FLOWS);
    let suggestion = suggest(&profile(&requests), None);
    let text = text_of(&suggestion);
    let report = plan(&text, &requests);
    assert_as_expected(&suggestion, &report, &text);
    assert_eq!(rule(&suggestion, "keep-errors").share, 1.0);
    let probes = rule(&suggestion, "thin-probes");
    assert_eq!((probes.when.len(), probes.share), (3, PROBE_SHARE), "{text}");
    assert!(text.contains("GET /healthz") && text.contains(r#"poll: \"queue\""#), "{text}");
    assert!(!probes.when.concat().contains("quote"), "{text}");
    // Its half of a day is usual for it, and so are 4 s for the report.
    assert!(rule(&suggestion, "slow-pay-report").when[0].contains("at_least: 5s"), "{text}");
    assert_eq!(rule(&suggestion, "usual-pay-report").share, USUAL_SHARE);
    let loud = rule(&suggestion, "thin-shop-get");
    assert!(loud.share < USUAL_SHARE && loud.when == ["entry: { service: shop, name: GET / }"], "{text}");
    let failed = report.rules.iter().find(|row| row.name == "keep-errors").unwrap().then;
    assert_eq!((failed.traces, failed.decided), (150, 150));
    assert!(suggestion.notes.is_empty() && suggestion.otherwise.0 == USUAL_SHARE);
}

#[test]
fn shares_meet_the_budget() {
    let requests = requests(&FLOWS);
    let profile = profile(&requests);
    let all: f64 = profile.operations.iter().map(|operation| operation.failed.bytes + operation.all().bytes).sum();
    for part in [0.06, 0.1, 0.2, 0.5, 0.8] {
        let suggestion = suggest(&profile, Some(all * part));
        let text = text_of(&suggestion);
        let report = plan(&text, &requests);
        assert_as_expected(&suggestion, &report, &text);
        let kept = report.total.then.bytes_per_day as f64 / (all * part);
        assert!((0.95..1.02).contains(&kept), "{kept} of {part}\n{text}");
        assert_eq!((rule(&suggestion, "keep-errors").share, suggestion.notes.len()), (1.0, 0), "{text}");
    }
    let suggestion = suggest(&profile, Some(all * 2.0));
    assert_eq!(suggestion.otherwise.0, 1.0);
    assert!(text_of(&suggestion).ends_with("otherwise: { keep: all }\n"));
}

#[test]
fn failed_traces_are_never_thinned_and_a_budget_without_room_says_so() {
    let requests = requests(&FLOWS);
    let profile = profile(&requests);
    let failed: f64 = profile.operations.iter().map(|operation| operation.failed.bytes).sum();
    let suggestion = suggest(&profile, Some(failed * 0.5));
    assert_eq!(rule(&suggestion, "keep-errors").share, 1.0);
    assert_eq!((suggestion.otherwise.0, rule(&suggestion, "keep-slow").share), (SHARE_MIN, 0.05));
    assert!(suggestion.notes.iter().any(|note| note.contains("200 % of it")), "{:?}", suggestion.notes);
    let tight = suggest(&profile, Some(failed * 1.5));
    assert!(rule(&tight, "keep-slow").share < 1.0 && tight.notes[0].contains("no room for all slow"), "{tight:?}");
    text_of(&suggestion);
}

#[test]
fn what_has_no_name_of_its_own_has_no_rule_of_its_own() {
    let long: &'static str = "x".repeat(300).leak();
    let flows = [
        Flow { name: long, ..FLOWS[2] },
        Flow { service: "", ..FLOWS[2] },
        Flow { name: long, ..FLOWS[0] },
        FLOWS[5],
        Flow { service: "a", ..FLOWS[5] },
    ];
    let suggestion = suggest(&profile(&requests(&flows)), None);
    let text = text_of(&suggestion);
    assert_eq!(suggestion.rules.len(), 2, "errors and slow ones alone: {text}");
}

#[test]
fn nothing_to_go_by_is_a_policy_too() {
    let suggestion = suggest(&TrafficProfile::default(), Some(1e9));
    let text = text_of(&suggestion);
    assert!(text.contains("duration: { at_least: 500ms }") && text.contains("fewer than 100 traces"), "{text}");
    assert_eq!(suggestion.kept(), 0.0);
    let quick = suggest(&profile(&requests(&[Flow { takes: 1, ..FLOWS[5] }])), None);
    assert_eq!(rule(&quick, "keep-slow").when, ["duration: { at_least: 50ms }"]);
}

#[test]
fn profiles_of_several_processes_add_up_to_that_of_one() {
    let requests = requests(&FLOWS);
    let whole = profile(&requests);
    let (mut even, mut odd) = (Vec::new(), Vec::new());
    for (number, request) in requests.into_iter().enumerate() {
        if scattered(number as u64).is_multiple_of(2) { &mut even } else { &mut odd }.push(request);
    }
    let mut sum = profile(&even);
    let other = serde_json::to_vec(&profile(&odd)).unwrap();
    sum.add(serde_json::from_slice(&other).unwrap());
    assert_eq!(sum.traces, whole.traces);
    let [of_sum, of_whole] = [&sum, &whole].map(|profile| suggest(profile, None));
    let names = |suggestion: &Suggestion| suggestion.rules.iter().map(|rule| rule.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&of_sum), names(&of_whole), "probes are found though each process sees only some of them");
    let ratio = of_sum.kept() / of_whole.kept();
    // One long report makes the window of its half longer.
    assert!((ratio - 1.0).abs() < 0.06, "{ratio}: {of_sum:?}\n{of_whole:?}");
}

#[test]
fn operations_have_a_bound() {
    let mut profiler = Profiler::default();
    let mut names = NumberedNames::new(10_000);
    for number in 0..5000u32 {
        let name = names.id(number.to_string().as_bytes());
        let mut observed = crate::trace::Observed {
            id: Default::default(),
            service: 1,
            name,
            threshold: None,
            stored_bytes: 1,
            arrivals: Default::default(),
            summary: Default::default(),
            answers: Default::default(),
        };
        observed.summary.entry.standing = crate::trace::Standing::Root;
        profiler.take(&observed);
    }
    let profile = profiler.finish(&["other".into(), "shop".into()], names.names());
    assert_eq!((profile.operations.len(), profile.traces), (4097, 5000));
    assert!(!profile.operations.iter().find(|operation| operation.service == "other").unwrap().is_exact);
}

#[test]
fn what_others_named_stays_in_its_quotes() {
    let flow = Flow { service: "a\": b", name: "GET *\n# {x}: [y]' \u{1b}", ..FLOWS[0] };
    let suggestion = suggest(&profile(&requests(&[flow, FLOWS[2], FLOWS[4], FLOWS[5]])), None);
    let (compiled, _) = Policy::compile("policy", &text_of(&suggestion), 1, &mut RuleNames::default());
    assert_eq!(compiled.unwrap().rules.len(), suggestion.rules.len());
}
