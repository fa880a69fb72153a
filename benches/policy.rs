//! Judging by the example policy of the documentation: the traces that no rule keeps ask all rules.

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use tailkeep::policy::{Limits, Policy};
use tailkeep::trace::summary::EntrySpan;
use tailkeep::trace::{Case, RuleNames, Standing, Summary, TraceId, Trigger};

fn summary(errors: u32, milliseconds: u64) -> Summary {
    Summary {
        entry: EntrySpan { standing: Standing::Root, service_hash: 7, name_hash: 8, ..EntrySpan::default() },
        root_duration: milliseconds * 1_000_000,
        spans: 8,
        errors,
        bytes: 3_500,
        ..Summary::default()
    }
}

fn judge(c: &mut Criterion) {
    let text = include_str!("../config/policy.yaml");
    let (policy, _) = Policy::compile("config/policy.yaml", text, 1, &mut RuleNames::default());
    let (policy, mut limits) = (policy.expect("the example compiles"), Limits::default());
    let mut group = c.benchmark_group("policy");
    for (name, summary) in [("fast and fine", summary(0, 20)), ("failed", summary(1, 20)), ("slow", summary(0, 2_000))]
    {
        let case = Case { id: TraceId([9; 16]), summary: &summary, charged: None, stored_bytes: 3_500 };
        group.bench_function(name, |b| b.iter(|| policy.judge(black_box(&case), Trigger::Root, &mut limits, 1_000)));
    }
    group.bench_function("compile", |b| {
        b.iter(|| Policy::compile("policy.yaml", black_box(text), 1, &mut RuleNames::default()));
    });
    group.finish();
}

criterion_group!(benches, judge);
criterion_main!(benches);
