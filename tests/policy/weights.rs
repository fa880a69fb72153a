//! The weights of kept traces sum to the truth, whatever rules, limits and late errors do.

use tailkeep::policy::{Limits, Policy};
use tailkeep::trace::summary::EntrySpan;
use tailkeep::trace::{Case, Decision, LimitId, RuleNames, Standing, Summary, Threshold, TraceId, Trigger, Verdict};

/// Every policy ends with all traces having a chance, so that the sums can be right.
const POLICIES: [(&str, &str); 8] = [
    ("shares alone", "- { name: errors, when: { error: true }, keep: all }"),
    ("then: a share", "- { name: errors, when: { error: true }, keep: all, limit: 20/s, then: 10% }"),
    ("then: otherwise", "- { name: errors, when: { error: true }, keep: all, limit: 1000 spans/min }"),
    (
        "then: next, a floor under later rules",
        "- { name: floor, keep: all, limit: 3/s, for_each: [entry.service], limit_total: 5/s, then: next }
  - { name: errors, when: { error: true }, keep: 50%, limit: 10/s, then: 20% }",
    ),
    (
        "a share inside, a larger one beyond",
        "- { name: errors, when: { error: true }, keep: 10%, limit: 2/s, then: 40% }
  - { name: slow, when: { duration: { at_least: 100ms } }, keep: 5%, limit: 1/s }",
    ),
    (
        "bytes, and a floor of a share",
        "- { name: big, when: { span_count: { at_least: 7 } }, keep: 25%, limit: 4KiB/s, then: next }
  - { name: errors, when: { error: true }, keep: all, limit: 100/min, then: next }",
    ),
    (
        "rules that share a limit",
        "- { name: slow, when: { duration: { at_least: 100ms } }, keep: 50%, limit: shared, then: 5% }
  - { name: errors, when: { error: true }, keep: all, limit: shared, then: 10% }",
    ),
    ("no limit at all", "- { name: slow, when: { duration: { at_least: 100ms } }, keep: 30% }"),
];

#[test]
fn the_weights_sum_to_the_truth() {
    for (what, rules) in POLICIES {
        for seed in 0..4 {
            let policy = compile(rules);
            let sums = simulate(&policy, seed);
            for (class, sum) in [("all", sums.all), ("failed", sums.failed), ("slow", sums.slow)] {
                assert!(sum.kept > 50 && sum.kept < sum.truth as u64, "{what}: {class} is thinned: {sum:?}");
                assert!(sum.is_true(), "{what}, seed {seed}: {class} {sum:?}");
            }
        }
    }
}

#[test]
fn with_then_none_no_kept_trace_claims_a_weight() {
    let policy = compile("- { name: errors, when: { error: true }, keep: all, limit: 20/s, then: none }");
    let mut limits = Limits::default();
    let mut random = Random(1);
    let mut kept = 0;
    for n in 0..5_000 {
        let call = Call { failed: true, ..Call::random(&mut random) };
        let verdict = call.judge(&policy, &mut limits, n);
        if verdict.decision.keeps() {
            assert_eq!(verdict.threshold, None);
            kept += 1;
        } else {
            assert_eq!(verdict.decision, Decision::DropNone);
        }
    }
    assert_eq!(kept, 20 + 5 * 20 - 1, "one second's worth at first, then 20 a second");
}

#[test]
fn every_late_error_comes_out() {
    let policy = compile(POLICIES[0].1);
    let sums = simulate(&policy, 9);
    assert_eq!(sums.late_errors_out, sums.late_errors);
    assert!(sums.late_errors > 500);
}

/// Of 100 requests 5 fail; all errors are kept and 5 % of the rest: the estimate is 5 %, not 55 %.
#[test]
fn an_error_rate_is_estimated_without_bias() {
    let policy = compile_with("- { name: errors, when: { error: true }, keep: all }", "5%");
    let (mut limits, mut random) = (Limits::default(), Random(3));
    let (mut errors, mut all) = (0.0, 0.0);
    for n in 0..100_000 {
        let call = Call { failed: n % 20 == 0, ..Call::random(&mut random) };
        let verdict = call.judge(&policy, &mut limits, n);
        if verdict.decision.keeps() {
            let weight = 1.0 / verdict.threshold.expect("a weight").share();
            all += weight;
            errors += if call.failed { weight } else { 0.0 };
        }
    }
    let rate = errors / all;
    assert!((rate - 0.05).abs() < 0.002, "{rate}");
}

fn compile(rules: &str) -> Policy {
    compile_with(rules, "4%")
}

fn compile_with(rules: &str, otherwise: &str) -> Policy {
    let text =
        format!("version: 1\nlimits: {{ shared: 20/s }}\nrules:\n  {rules}\notherwise: {{ keep: {otherwise} }}\n");
    let (policy, diagnostics) = Policy::compile("weights", &text, 1, &mut RuleNames::default());
    policy.unwrap_or_else(|| panic!("{}", tailkeep::diagnostic::render(&diagnostics, &text, false)))
}

/// An estimate from kept traces, and what it estimates.
#[derive(Clone, Copy, Default, Debug)]
struct Sum {
    truth: f64,
    estimate: f64,
    variance: f64,
    kept: u64,
}

impl Sum {
    fn add(&mut self, verdict: &Verdict) {
        if let Some(share) = verdict.threshold.filter(|_| verdict.decision.keeps()).map(Threshold::share) {
            self.estimate += 1.0 / share;
            // Unbiased for the variance of a Horvitz-Thompson estimate.
            self.variance += (1.0 - share) / (share * share);
            self.kept += 1;
        }
    }

    /// Within 4.5 standard deviations.
    fn is_true(&self) -> bool {
        (self.estimate - self.truth).abs() <= 4.5 * self.variance.sqrt() + 1.0
    }
}

#[derive(Default)]
struct Sums {
    all: Sum,
    failed: Sum,
    slow: Sum,
    late_errors: u64,
    late_errors_out: u64,
}

/// When a trace's error arrives.
#[derive(Clone, Copy, PartialEq)]
enum Late {
    No,
    /// While its verdict can still change.
    WithinSettle,
    /// After it was delivered, or would have been.
    AfterSettle,
}

/// Half a minute of traffic with a spike of ten times in the middle. One call in twelve fails late.
fn simulate(policy: &Policy, seed: u64) -> Sums {
    let (mut limits, mut random, mut sums) = (Limits::default(), Random(seed), Sums::default());
    for now_ms in 0..30_000 {
        let calls = if (10_000..15_000).contains(&now_ms) { 5 } else { random.below(2) };
        for _ in 0..calls {
            let call = Call::random(&mut random);
            let late = match random.below(12) {
                0 if !call.failed => {
                    *[Late::WithinSettle, Late::AfterSettle].get(random.below(2) as usize).expect("two")
                }
                _ => Late::No,
            };
            let (verdict, failed) = deliver(policy, &mut limits, &call, late, now_ms);
            let count = |sum: &mut Sum, is_member: bool| {
                if is_member {
                    sum.truth += 1.0;
                    sum.add(&verdict);
                }
            };
            count(&mut sums.all, true);
            count(&mut sums.failed, failed);
            count(&mut sums.slow, call.slow);
            if late != Late::No {
                sums.late_errors += 1;
                sums.late_errors_out += u64::from(verdict.decision.keeps());
            }
        }
    }
    sums
}

/// What leaves of a call, as the shard does it: a keep of all at once, a share once settled, and a trace
/// that fails after that is rescued without a weight, for it left with one if its share kept it.
fn deliver(policy: &Policy, limits: &mut Limits, call: &Call, late: Late, now_ms: u64) -> (Verdict, bool) {
    let first = call.judge(policy, limits, now_ms);
    let failing = Call { failed: true, charged: first.charged, ..*call };
    match (late, first.decision) {
        (Late::No, _) | (_, Decision::KeepAll) => (first, call.failed || late != Late::No),
        (Late::WithinSettle, _) => (failing.judge(policy, limits, now_ms), true),
        (Late::AfterSettle, Decision::KeepShare) => (first, true),
        (Late::AfterSettle, _) => {
            let rescue = failing.judge(policy, limits, now_ms);
            (Verdict { threshold: None, ..rescue }, true)
        }
    }
}

/// A request as its trace shows it.
#[derive(Clone, Copy)]
struct Call {
    id: TraceId,
    service: u32,
    failed: bool,
    slow: bool,
    spans: u32,
    charged: Option<LimitId>,
}

impl Call {
    fn random(random: &mut Random) -> Call {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&random.next().to_be_bytes());
        id[8..].copy_from_slice(&random.next().to_be_bytes());
        Call {
            id: TraceId(id),
            service: random.below(3) as u32,
            failed: random.below(10) == 0,
            slow: random.below(10) == 0,
            spans: 1 + random.below(8) as u32,
            charged: None,
        }
    }

    fn judge(&self, policy: &Policy, limits: &mut Limits, now_ms: u64) -> Verdict {
        let duration = if self.slow { 200_000_000 } else { 5_000_000 };
        let entry = EntrySpan {
            standing: Standing::Root,
            start: 1,
            span_id: 1,
            service_hash: self.service,
            ..EntrySpan::default()
        };
        let summary = Summary {
            entry,
            root_duration: duration,
            spans: self.spans,
            errors: u32::from(self.failed),
            random_flag: true,
            ..Summary::default()
        };
        let stored_bytes = 440 * u64::from(self.spans);
        let case = Case { id: self.id, summary: &summary, charged: self.charged, stored_bytes };
        policy.judge(&case, Trigger::Root, limits, now_ms)
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}
