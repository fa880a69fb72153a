//! What measuring costs a span: requests of 512 and of 8 spans over 20 series, and 512 spans of as many series.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use tailkeep::measure::{Flavour, Kinds, Meter, MeterSettings, Now, SeriesLabels};
use tailkeep::prometheus::PageReader;
use tailkeep::trace::{SpanKind, SpanView};

/// Spans whose durations spread from 1 to 100 ms.
fn request(spans: u64, series: u64) -> Vec<SpanView> {
    let mix = |n: u64| (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..spans)
        .map(|n| SpanView {
            end: 1_000_000 + mix(n) % 99_000_000,
            kind: SpanKind::Server,
            operation: mix((mix(n) >> 32) % series),
            ..SpanView::default()
        })
        .collect()
}

fn describe(span: &SpanView) -> SeriesLabels {
    SeriesLabels {
        service: "shop".into(),
        name: format!("GET /{}", span.operation),
        kind: span.kind,
        extras: vec![Some("1.2.3".into()), None],
    }
}

fn record(c: &mut Criterion) {
    let mut group = c.benchmark_group("measure");
    for (name, spans, series) in
        [("512 spans, 20 series", 512, 20), ("8 spans, 20 series", 8, 20), ("512 spans, 512 series", 512, 512)]
    {
        let meter = Meter::new(MeterSettings { kinds: Kinds::ALL, ..MeterSettings::default() }, 0);
        let request = request(spans, series);
        let mut requests = 0u64;
        group.throughput(Throughput::Elements(spans));
        group.bench_function(name, |b| {
            b.iter(|| {
                requests += 1;
                // 10 ms a request: a slot ends every 1,000 of them.
                meter.record(black_box(&request), requests * 10, describe);
            })
        });
    }
    group.finish();
}

const NOW: Now = Now { ms: 55_000, unix_nanos: 55_000_000_000 };

/// What readers cost: 1,000 busy series.
fn read(c: &mut Criterion) {
    let settings = MeterSettings { kinds: Kinds::ALL, histogram: Flavour::Exponential, ..MeterSettings::default() };
    let meter = Meter::new(settings, 0);
    for second in 0..NOW.ms / 1000 {
        for _ in 0..8 {
            meter.record(&request(4096, 1000), second * 1000, describe);
        }
    }
    let mut group = c.benchmark_group("measure/1000 series");
    group.bench_function("operations", |b| b.iter(|| meter.operations(NOW.ms)));
    group.bench_function("export", |b| b.iter(|| meter.export(NOW).count()));
    group.bench_function("prometheus", |b| {
        b.iter_batched_ref(
            String::new,
            |text| meter.prometheus(PageReader::Scraper, NOW.ms, text),
            BatchSize::PerIteration,
        )
    });
    group.finish();
}

criterion_group!(benches, record, read);
criterion_main!(benches);
