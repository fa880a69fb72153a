//! The measure stage from outside: what it counts, what it exports, and what happens at its bounds.
//! Everything runs on simulated time.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, metric::Data, number_data_point};
use proptest::prelude::*;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;
use tailkeep::measure::*;
use tailkeep::prometheus::PageReader;
use tailkeep::trace::{SpanKind, SpanView, Status};

const START: u64 = 1_763_000_000_000_000_000;
const SECOND: u64 = 1_000;
const MILLI: u64 = 1_000_000;

fn labels(service: &str, name: &str) -> SeriesLabels {
    SeriesLabels {
        service: service.into(),
        name: name.into(),
        kind: SpanKind::Server,
        extras: vec![Some("1.2.3".into()), None],
    }
}

fn settings() -> MeterSettings {
    MeterSettings { instance_id: "here".into(), ..MeterSettings::default() }
}

/// A meter that is fed by labels and durations, as scan would.
struct Feed {
    meter: Meter,
}

impl Feed {
    fn new(settings: MeterSettings) -> Feed {
        Feed { meter: Meter::new(settings, START) }
    }

    /// One request at `now_ms`; returns how many operations had to be described.
    fn send(&self, now_ms: u64, spans: &[(SeriesLabels, u64)]) -> usize {
        self.send_as(now_ms, Status::Unset, spans)
    }

    fn send_as(&self, now_ms: u64, status: Status, spans: &[(SeriesLabels, u64)]) -> usize {
        let mut known = HashMap::new();
        let mut views: Vec<SpanView> = spans.iter().map(|(labels, nanos)| view(labels, *nanos)).collect();
        for (view, (labels, _)) in views.iter_mut().zip(spans) {
            view.status = status;
            known.insert(view.operation, labels);
        }
        let mut described = 0;
        self.meter.record(&views, now_ms, |span| {
            described += 1;
            known[&span.operation].clone()
        });
        described
    }

    /// Ten minutes on: windows are empty, and what is since the start is there.
    fn exported(&self, unix_nanos: u64) -> Exported {
        self.exported_at(Now { ms: 600 * SECOND, unix_nanos })
    }

    fn exported_at(&self, now: Now) -> Exported {
        Exported::read(self.meter.export(now))
    }

    /// A page that is not the first, so that nothing is shown at 0 for being new.
    fn prometheus(&self, now_ms: u64) -> Scrape {
        self.page(now_ms.saturating_sub(AT_ZERO_MS));
        self.page(now_ms)
    }

    fn page(&self, now_ms: u64) -> Scrape {
        self.page_for(PageReader::Scraper, now_ms)
    }

    fn page_for(&self, reader: PageReader, now_ms: u64) -> Scrape {
        let mut text = String::new();
        self.meter.prometheus(reader, now_ms, &mut text).unwrap();
        Scrape::parse(&text)
    }

    fn row(&self, name: &str, now_ms: u64) -> OperationRow {
        self.meter.operations(now_ms).into_iter().find(|row| row.name == name).expect("the operation is there")
    }
}

fn view(labels: &SeriesLabels, nanos: u64) -> SpanView {
    let mut hasher = DefaultHasher::new();
    labels.hash(&mut hasher);
    SpanView {
        start: 5,
        end: 5u64.saturating_add(nanos),
        kind: labels.kind,
        operation: hasher.finish(),
        ..SpanView::default()
    }
}

/// Data points of all requests by their attributes.
#[derive(Default, Debug)]
struct Exported {
    requests: usize,
    /// Start, time, count of series that counted something.
    calls: BTreeMap<String, (u64, u64, i64)>,
    /// Those that did not.
    silent: BTreeSet<String>,
    /// What a series had before its newest point: calls, durations. Start, time, count.
    births: [BTreeMap<String, (u64, u64, u64)>; 2],
    /// Start, count, sum, buckets with their highest bounds.
    durations: BTreeMap<String, (u64, u64, f64, Vec<u64>)>,
    /// Of the newest points of durations.
    times: BTreeMap<String, u64>,
    /// Time and value, in milliseconds.
    quantiles: BTreeMap<String, (u64, f64)>,
}

impl Exported {
    /// Through the wire and back, checking all that is the same for every point.
    fn read(requests: impl Iterator<Item = ExportMetricsServiceRequest>) -> Exported {
        let mut all = Exported::default();
        for request in requests {
            let bytes = request.encode_to_vec();
            let request = ExportMetricsServiceRequest::decode(bytes.as_slice()).unwrap();
            all.requests += 1;
            for resource in request.resource_metrics {
                let [scope] = resource.scope_metrics.as_slice() else { panic!("one scope") };
                assert_eq!(scope.scope.as_ref().unwrap().name, "spanmetricsconnector");
                for metric in &scope.metrics {
                    let data = metric.data.as_ref().unwrap();
                    match (metric.name.as_str(), metric.unit.as_str()) {
                        ("traces.span.metrics.calls", "") => all.take_calls(data),
                        ("traces.span.metrics.duration", "ms" | "s") => all.take_durations(data),
                        ("traces.span.metrics.duration.quantile", unit) => all.take_quantiles(data, unit),
                        unknown => panic!("{unknown:?}"),
                    }
                }
            }
        }
        // What counted nothing yet has a point of 0, alone or as the birth of what follows it.
        let (calls, silent) = std::mem::take(&mut all.calls).into_iter().partition(|(_, (.., count))| *count > 0);
        let silent: BTreeMap<_, _> = silent;
        all.births[0].retain(|key, _| !silent.contains_key(key));
        (all.calls, all.silent) = (calls, silent.into_keys().collect());
        assert!(all.calls.keys().eq(all.durations.keys()));
        let newest = [all.calls.iter().map(|(key, (_, time, _))| (key.clone(), *time)).collect(), all.times.clone()];
        for (births, newest) in all.births.iter().zip(&newest) {
            for (key, (start, time, count)) in births {
                assert_eq!((*count, start <= time), (0, true), "{key}");
                assert!(*time < newest[key], "{key}: the value comes after the zero");
            }
        }
        all
    }

    fn take_calls(&mut self, data: &Data) {
        let Data::Sum(sum) = data else { panic!("calls is a sum") };
        assert!(sum.is_monotonic);
        assert_eq!(sum.aggregation_temporality, AggregationTemporality::Cumulative as i32);
        for point in &sum.data_points {
            let Some(number_data_point::Value::AsInt(count)) = point.value else { panic!("an integer") };
            let value = (point.start_time_unix_nano, point.time_unix_nano, count);
            if let Some((start, time, count)) = self.calls.insert(text(&point.attributes), value) {
                self.birth(0, text(&point.attributes), (start, time, count as u64));
            }
        }
    }

    fn birth(&mut self, of: usize, key: String, point: (u64, u64, u64)) {
        assert!(self.births[of].insert(key, point).is_none(), "a series thrice");
    }

    fn take_quantiles(&mut self, data: &Data, unit: &str) {
        let Data::Gauge(gauge) = data else { panic!("quantiles are gauges") };
        let scale = [("ms", 1.0), ("s", 1e3)].into_iter().find(|(name, _)| *name == unit).expect("a unit of time").1;
        for point in &gauge.data_points {
            let Some(number_data_point::Value::AsDouble(value)) = point.value else { panic!("a double") };
            let value = (point.time_unix_nano, value * scale);
            assert!(self.quantiles.insert(text(&point.attributes), value).is_none(), "a series twice");
        }
    }

    fn take_durations(&mut self, data: &Data) {
        let cumulative = AggregationTemporality::Cumulative as i32;
        match data {
            Data::Histogram(histogram) => {
                assert_eq!(histogram.aggregation_temporality, cumulative);
                for point in &histogram.data_points {
                    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
                    assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
                    let value =
                        (point.start_time_unix_nano, point.count, point.sum.unwrap(), point.bucket_counts.clone());
                    self.take_histogram(text(&point.attributes), point.time_unix_nano, value);
                }
            }
            Data::ExponentialHistogram(histogram) => {
                assert_eq!(histogram.aggregation_temporality, cumulative);
                for point in &histogram.data_points {
                    let counts = &point.positive.as_ref().unwrap().bucket_counts;
                    assert!(counts.len() <= 160);
                    assert_eq!(counts.iter().sum::<u64>() + point.zero_count, point.count);
                    let value = (point.start_time_unix_nano, point.count, point.sum.unwrap(), counts.clone());
                    self.take_histogram(text(&point.attributes), point.time_unix_nano, value);
                }
            }
            other => panic!("a histogram, not {other:?}"),
        }
    }

    fn take_histogram(&mut self, key: String, time: u64, value: (u64, u64, f64, Vec<u64>)) {
        let earlier = self.times.insert(key.clone(), time);
        if let Some((start, count, ..)) = self.durations.insert(key.clone(), value) {
            self.birth(1, key, (start, earlier.expect("its time"), count));
        }
    }

    fn total(&self) -> i64 {
        self.calls.values().map(|(_, _, count)| count).sum()
    }
}

fn text(attributes: &[KeyValue]) -> String {
    let value = |kv: &KeyValue| match kv.value.clone().unwrap().value.unwrap() {
        Value::StringValue(text) => format!("{}={text}", kv.key),
        Value::BoolValue(flag) => format!("{}:{flag}", kv.key),
        other => panic!("unexpected {other:?}"),
    };
    attributes.iter().map(value).collect::<Vec<_>>().join(" ")
}

/// A strict reader of the Prometheus text format 0.0.4.
#[derive(Default)]
struct Scrape {
    types: BTreeMap<String, String>,
    samples: BTreeMap<(String, BTreeMap<String, String>), f64>,
}

impl Scrape {
    fn parse(text: &str) -> Scrape {
        assert!(text.ends_with('\n'));
        let (mut scrape, mut family) = (Scrape::default(), String::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(scrape.types.insert(name.into(), kind.into()).is_none(), "a family twice: {name}");
                family = name.into();
            } else if !line.starts_with("# HELP ") {
                let (name, labels, value) = Scrape::sample(line);
                assert!(name.starts_with(&family), "{name} stands outside its family");
                assert!(scrape.samples.insert((name, labels), value).is_none(), "a sample twice: {line}");
            }
        }
        scrape
    }

    fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
        let (name, rest) = line.split_once('{').unwrap();
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
        let (mut labels, mut chars) = (BTreeMap::new(), rest.chars());
        loop {
            let label: String = chars.by_ref().take_while(|&c| c != '=').collect();
            assert!(!label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
            assert_eq!(chars.next(), Some('"'), "{line}");
            let mut value = String::new();
            loop {
                match chars.next().unwrap() {
                    '"' => break,
                    '\\' => value.push(match chars.next().unwrap() {
                        'n' => '\n',
                        c @ ('\\' | '"') => c,
                        c => panic!("bad escape {c} in {line}"),
                    }),
                    c => value.push(c),
                }
            }
            assert!(labels.insert(label, value).is_none(), "a label twice in {line}");
            match chars.next().unwrap() {
                ',' => {}
                '}' => break,
                c => panic!("{c} after a label in {line}"),
            }
        }
        assert_eq!(chars.next(), Some(' '), "{line}");
        (name.into(), labels, chars.as_str().parse().unwrap())
    }

    fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels = labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        self.samples[&(name.to_string(), labels)]
    }
}

/// Durations that are still in the window at `now_ms`, from the definition: the slot of now and five before.
fn naive_window(arrivals: &[(u64, u64)], now_ms: u64) -> Vec<u64> {
    let first_slot = (now_ms / 10_000).saturating_sub(5);
    let mut held: Vec<u64> =
        arrivals.iter().filter(|(at, _)| at / 10_000 >= first_slot).map(|(_, nanos)| *nanos).collect();
    held.sort_unstable();
    held
}

fn assert_within_one_percent(row: &OperationRow, sorted: &[u64]) {
    let Some(latency) = row.latency else { return assert!(sorted.is_empty()) };
    assert!(!row.approximate);
    for (percent, got) in [(50, latency.p50), (90, latency.p90), (95, latency.p95), (99, latency.p99)] {
        let exact = sorted[(sorted.len() * percent).div_ceil(100) - 1].min(LONGEST_NANOS);
        let off = got.abs_diff(exact);
        assert!(off * 100 <= exact, "p{percent} of {}: {got}, exactly {exact}, of {}", row.name, sorted.len());
    }
}

/// A small generator of test durations: an integer hash of the place.
fn random(seed: u64) -> u64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed >> 29;
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ x >> 31
}

fn fraction(seed: u64) -> f64 {
    (random(seed) >> 11) as f64 / (1u64 << 53) as f64
}

type Distribution = (&'static str, fn(u64) -> u64);
const DISTRIBUTIONS: [Distribution; 7] = [
    ("uniform", |n| 1 + random(n) % (300 * MILLI)),
    ("from 64 ns to 1 h", |n| (64.0 * (3.6e12f64 / 64.0).powf(fraction(n))) as u64),
    ("long tail", |n| (5e6 / (1.0 - fraction(n)).powf(1.5)) as u64),
    ("two humps", |n| if random(n).is_multiple_of(10) { 2_000_000_000 + n } else { 3 * MILLI + n % 1000 }),
    ("constant", |_| 12_345_678),
    ("tiny", |n| random(n) % 300),
    ("steps", |n| [100, 101, 250 * MILLI, u64::MAX][(random(n) % 4) as usize]),
];

#[test]
fn percentiles_are_within_one_percent_of_an_exact_sort() {
    for size in [1, 2, 3, 7, 20, 31, 32, 33, 99, 100, 101, 192, 193, 700, 5000] {
        for (distribution, duration) in DISTRIBUTIONS {
            for minute in [10u64, 55] {
                let name = format!("{distribution} {size} over {minute}");
                let arrivals: Vec<(u64, u64)> =
                    (0..size).map(|n| (n * minute * SECOND / size, duration(n + size * 7919))).collect();
                // Each case has a meter of its own, because each has a time of its own.
                let timed = Feed::new(settings());
                for &(at, nanos) in &arrivals {
                    timed.send(at, &[(labels("shop", &name), nanos)]);
                }
                for now in [minute * SECOND, 61 * SECOND, 95 * SECOND, 200 * SECOND] {
                    assert_within_one_percent(&timed.row(&name, now), &naive_window(&arrivals, now));
                }
            }
        }
    }
}

#[test]
fn one_meter_keeps_many_series_apart() {
    let feed = Feed::new(settings());
    let mut truth: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    for n in 0..40_000u64 {
        let at = n * 2;
        let (distribution, duration) = DISTRIBUTIONS[(random(n) % 7) as usize];
        // Some names are a hundred times busier than others.
        let name = format!("{distribution} {}", random(n + 1).trailing_zeros().min(6));
        let nanos = duration(n);
        feed.send(at, &[(labels("shop", &name), nanos)]);
        truth.entry(name).or_default().push((at, nanos));
    }
    let now = 80 * SECOND;
    let rows = feed.meter.operations(now);
    assert_eq!(rows.len(), truth.len());
    for row in rows {
        let held = naive_window(&truth[&row.name], now);
        assert_within_one_percent(&row, &held);
        assert_eq!(row.calls, truth[&row.name].len() as u64);
        assert!((row.rate - held.len() as f64 / 50.0).abs() < 1e-9, "80 s stand at the start of a slot: 50 s are held");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any traffic, at any times: counts, sums, buckets and percentiles equal a naive reference.
    #[test]
    fn every_number_equals_a_naive_reference(
        requests in prop::collection::vec(
            (0u64..20_000, prop::collection::vec((0u8..4, 0u32..64, any::<u64>()), 0..80)), 1..25),
        seconds in any::<bool>(),
    ) {
        let unit = if seconds { DurationUnit::Seconds } else { DurationUnit::Milliseconds };
        let feed = Feed::new(MeterSettings { unit, ..settings() });
        let (mut now, mut truth) = (0, BTreeMap::<u8, Vec<(u64, u64)>>::new());
        for (pause, spans) in requests {
            now += pause;
            let spans: Vec<(SeriesLabels, u64)> = spans.into_iter().map(|(series, shift, value)| {
                // The start of a view is 5, so that the end does not overflow.
                let nanos = (value >> shift).min(u64::MAX - 5);
                truth.entry(series).or_default().push((now, nanos));
                (labels("shop", &series.to_string()), nanos)
            }).collect();
            feed.send(now, &spans);
        }
        let export = feed.exported_at(Now { ms: now, unix_nanos: START + 1 });
        prop_assert_eq!(export.calls.len(), truth.len());
        let mut gauges = 0;
        for (series, arrivals) in truth {
            let row = feed.row(&series.to_string(), now);
            let held = naive_window(&arrivals, now);
            assert_within_one_percent(&row, &held);
            for (quantile, percent) in [("0.5", 50), ("0.9", 90), ("0.99", 99)] {
                let key = format!("service.name=shop span.name={series} span.kind=SPAN_KIND_SERVER \
                    collector.instance.id=here service.version=1.2.3 quantile={quantile}");
                let got = export.quantiles.get(&key).map(|(_, millis)| millis * 1e6);
                let exact = (!held.is_empty()).then(|| held[(held.len() * percent).div_ceil(100) - 1]);
                if exact.is_some_and(|exact| exact.abs_diff(LONGEST_NANOS) <= LONGEST_NANOS / 100) {
                    gauges += usize::from(got.is_some());
                    continue;
                }
                let exact = exact.filter(|exact| *exact < LONGEST_NANOS);
                prop_assert_eq!(got.is_some(), exact.is_some(), "a gauge of nothing: {}", key);
                let Some((got, exact)) = got.zip(exact) else { continue };
                let exact = exact as f64;
                prop_assert!((got - exact).abs() <= exact / 100.0, "{}: {}, exactly {}", key, got, exact);
                gauges += 1;
            }
            let key = format!("service.name=shop span.name={series} span.kind=SPAN_KIND_SERVER \
                status.code=STATUS_CODE_UNSET collector.instance.id=here service.version=1.2.3");
            let (start, count, sum, buckets) = &export.durations[&key];
            prop_assert_eq!(*start, START + arrivals[0].0 * MILLI);
            prop_assert_eq!(*count, arrivals.len() as u64);
            let exact: f64 = arrivals.iter().map(|(_, nanos)| *nanos as f64).sum();
            let scale = if seconds { 1e9 } else { 1e6 };
            prop_assert!((sum * scale - exact).abs() <= exact * 1e-9);
            let mut naive = vec![0u64; 17];
            for (_, nanos) in &arrivals {
                let bounds = [2u64, 4, 6, 8, 10, 50, 100, 200, 400, 800, 1000, 1400, 2000, 5000, 10_000, 15_000];
                naive[bounds.iter().position(|b| *nanos <= b * MILLI).unwrap_or(16)] += 1;
            }
            prop_assert_eq!(buckets, &naive);
        }
        prop_assert_eq!(gauges, export.quantiles.len());
    }
}

#[test]
fn otlp_points_carry_what_the_connector_writes() {
    let feed = Feed::new(settings());
    feed.send(1500, &[(labels("shop", "GET /"), 3 * MILLI), (labels("", "orphan"), 7)]);
    feed.send_as(1500, Status::Error, &[(SeriesLabels { kind: SpanKind::Consumer, ..labels("shop", "pay") }, 0)]);
    let export = feed.exported(START + 9 * SECOND * MILLI);
    let keys: Vec<&str> = export.calls.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "service.name=shop span.name=GET / span.kind=SPAN_KIND_SERVER status.code=STATUS_CODE_UNSET \
             collector.instance.id=here service.version=1.2.3",
            "service.name=shop span.name=pay span.kind=SPAN_KIND_CONSUMER status.code=STATUS_CODE_ERROR \
             collector.instance.id=here service.version=1.2.3",
            "span.name=orphan span.kind=SPAN_KIND_SERVER status.code=STATUS_CODE_UNSET \
             collector.instance.id=here service.version=1.2.3",
        ]
    );
    for (start, time, count) in export.calls.values() {
        assert_eq!((*start, *time, *count), (START + 1500 * MILLI, START + 9 * SECOND * MILLI, 1));
    }
    // A wall clock that was set back never makes a point end before it starts.
    for (start, time, _) in feed.exported(1).calls.values() {
        assert_eq!(*time, start + MILLI);
    }
}

#[test]
fn resources_are_services() {
    let feed = Feed::new(settings());
    feed.send(0, &[(labels("a", "x"), 1), (labels("b", "x"), 1), (labels("a", "y"), 1)]);
    let requests = feed.meter.export(Now { ms: 0, unix_nanos: START });
    let resources = requests.map(|request| {
        request.resource_metrics.iter().map(|r| text(&r.resource.as_ref().unwrap().attributes)).collect::<Vec<_>>()
    });
    assert_eq!(resources.collect::<Vec<_>>(), [["service.name=a", "service.name=b"]]);
}

#[test]
fn exponential_points_count_the_same_spans() {
    let [explicit, exponential] = [Flavour::Explicit, Flavour::Exponential].map(|histogram| {
        let feed = Feed::new(MeterSettings { histogram, ..settings() });
        for n in 0..3000 {
            feed.send(n, &[(labels("shop", "x"), DISTRIBUTIONS[2].1(n)), (labels("shop", "y"), DISTRIBUTIONS[1].1(n))]);
        }
        feed.exported(START)
    });
    assert_eq!(explicit.calls, exponential.calls);
    for (key, (start, count, sum, _)) in &explicit.durations {
        let (other_start, other_count, other_sum, _) = &exponential.durations[key];
        assert_eq!((start, count, sum), (other_start, other_count, other_sum));
    }
}

#[test]
fn gauges_are_percentiles_of_an_operations_last_minute() {
    let feed = Feed::new(settings());
    feed.send(0, &[(labels("shop", "x"), 10 * MILLI)]);
    feed.send_as(0, Status::Error, &[(labels("shop", "x"), 30 * MILLI), (labels("shop", "x"), 20 * MILLI)]);
    feed.send(45 * SECOND, &[(labels("", "orphan"), 1_500_000)]);
    let at = |ms| Now { ms, unix_nanos: START + ms * MILLI };
    let export = feed.exported_at(at(50 * SECOND));
    let shown: Vec<(&str, f64)> = export.quantiles.iter().map(|(key, (_, value))| (key.as_str(), *value)).collect();
    let rest = "span.kind=SPAN_KIND_SERVER collector.instance.id=here service.version=1.2.3";
    let x = |quantile| format!("service.name=shop span.name=x {rest} quantile={quantile}");
    let orphan = |quantile| format!("span.name=orphan {rest} quantile={quantile}");
    let want = [
        (x("0.5"), 20.0),
        (x("0.9"), 30.0),
        (x("0.99"), 30.0),
        (orphan("0.5"), 1.5),
        (orphan("0.9"), 1.5),
        (orphan("0.99"), 1.5),
    ];
    assert_eq!(shown, want.each_ref().map(|(key, value)| (key.as_str(), *value)), "statuses taken together");
    assert!(export.quantiles.values().all(|(time, _)| *time == START + 50 * SECOND * MILLI));
    // Scraped, they say the same.
    let scrape = feed.prometheus(50 * SECOND);
    let name = "traces_span_metrics_duration_quantile_milliseconds";
    assert_eq!(scrape.types[name], "gauge");
    let labels = [
        ("service_name", "shop"),
        ("span_name", "x"),
        ("span_kind", "SPAN_KIND_SERVER"),
        ("collector_instance_id", "here"),
        ("service_version", "1.2.3"),
    ];
    for (quantile, value) in [("0.5", 20.0), ("0.9", 30.0), ("0.99", 30.0)] {
        assert_eq!(scrape.get(name, &[&labels[..], &[("quantile", quantile)]].concat()), value);
    }
    // A minute without spans has no percentiles, and what was counted stays.
    let later = feed.exported_at(at(60 * SECOND));
    assert!(later.quantiles.keys().all(|key| key.starts_with("span.name=orphan")));
    assert_eq!((later.quantiles.len(), later.total()), (3, 4));
    assert_eq!(feed.prometheus(200 * SECOND).samples.keys().filter(|(family, _)| family == name).count(), 0);
}

#[test]
fn an_estimate_is_no_gauge() {
    let feed = Feed::new(MeterSettings { pool: 1, ..settings() });
    let busy = |name: &str| (0..100).map(|n| (labels("shop", name), (100 + n) * MILLI)).collect::<Vec<_>>();
    feed.send(0, &busy("exact"));
    feed.send(0, &busy("estimated"));
    let export = feed.exported_at(Now { ms: 0, unix_nanos: START });
    assert_eq!(export.quantiles.len(), 3);
    assert!(export.quantiles.keys().all(|key| key.contains("span.name=exact")), "{:?}", export.quantiles);
    assert_eq!(export.total(), 200);
}

#[test]
fn a_request_stays_below_four_mebibytes_whatever_the_labels() {
    let long = "x".repeat(4096);
    let names: Vec<String> = (0..Dimensions::MAX).map(|n| format!("dimension.number.{n}")).collect();
    let dimensions = Dimensions::new(names).unwrap();
    let feed = Feed::new(MeterSettings { dimensions, histogram: Flavour::Exponential, ..settings() });
    let wide = |n: usize| SeriesLabels {
        extras: vec![Some(long.clone()); Dimensions::MAX],
        ..labels(&long, &format!("{n}{long}"))
    };
    for n in 0..100 {
        // From a nanosecond to an hour, so that the exponential histogram has all its buckets.
        let spans: Vec<_> = (0..42).map(|octave| (wide(n), 1u64 << octave)).collect();
        Status::ALL.iter().for_each(|status| _ = feed.send_as(0, *status, &spans));
    }
    let now = Now { ms: 0, unix_nanos: START };
    let sizes: Vec<usize> = feed.meter.export(now).map(|r| r.encoded_len()).collect();
    assert_eq!(sizes.len(), 8, "1,500 points");
    assert!(sizes.iter().all(|&size| size < 4 << 20), "{sizes:?}");
}

#[test]
fn prometheus_text_follows_the_naming_rules_and_escapes() {
    let dimensions = Dimensions::new(["http.route", "5xx"]).unwrap();
    let feed = Feed::new(MeterSettings { dimensions, ..settings() });
    let odd = SeriesLabels { extras: vec![Some("a\\b".into()), None], ..labels("shop", "say \"hi\"\nü") };
    feed.send(0, &[(odd.clone(), 2 * MILLI), (odd.clone(), 3 * MILLI), (odd, 16_000 * MILLI)]);
    let scrape = feed.prometheus(600 * SECOND);
    assert_eq!(scrape.types["traces_span_metrics_calls_total"], "counter");
    assert_eq!(scrape.types["traces_span_metrics_duration_milliseconds"], "histogram");
    let series = [
        ("service_name", "shop"),
        ("span_name", "say \"hi\"\nü"),
        ("span_kind", "SPAN_KIND_SERVER"),
        ("status_code", "STATUS_CODE_UNSET"),
        ("collector_instance_id", "here"),
        ("http_route", "a\\b"),
    ];
    let le = |bound| [&series[..], &[("le", bound)]].concat();
    let name = "traces_span_metrics_duration_milliseconds";
    assert_eq!(scrape.get("traces_span_metrics_calls_total", &series), 3.0);
    let failed = series.map(|(label, text)| (label, if label == "status_code" { "STATUS_CODE_ERROR" } else { text }));
    assert_eq!(scrape.get("traces_span_metrics_calls_total", &failed), 0.0);
    assert_eq!(scrape.get(&format!("{name}_bucket"), &le("2")), 1.0);
    assert_eq!(scrape.get(&format!("{name}_bucket"), &le("15000")), 2.0);
    assert_eq!(scrape.get(&format!("{name}_bucket"), &le("+Inf")), 3.0);
    assert_eq!(scrape.get(&format!("{name}_count"), &series), 3.0);
    assert_eq!(scrape.get(&format!("{name}_sum"), &series), 16_005.0);
    assert_eq!(scrape.samples.len(), 2 + 17 + 2);
}

/// What Prometheus' `increase()` is without extrapolation: what a sample has more than the one before it. A first
/// sample says nothing, and a smaller one begins anew.
fn increase(samples: &[Option<f64>]) -> f64 {
    let seen: Vec<f64> = samples.iter().flatten().copied().collect();
    seen.windows(2).map(|pair| if pair[1] >= pair[0] { pair[1] - pair[0] } else { pair[1] }).sum()
}

const X_FAILED: [(&str, &str); 6] = [
    ("service_name", "shop"),
    ("span_name", "x"),
    ("span_kind", "SPAN_KIND_SERVER"),
    ("status_code", "STATUS_CODE_ERROR"),
    ("collector_instance_id", "here"),
    ("service_version", "1.2.3"),
];

impl Scrape {
    /// The count of failed calls of `x`, and of their durations.
    fn failed(&self) -> [Option<f64>; 2] {
        let labels: BTreeMap<_, _> = X_FAILED.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let names = ["traces_span_metrics_calls_total", "traces_span_metrics_duration_milliseconds_count"];
        names.map(|name| self.samples.get(&(name.to_owned(), labels.clone())).copied())
    }
}

/// Requests every second, a failed one every 80 s, and some scrapers: none of them misses a failure.
#[test]
fn rare_errors_of_a_known_operation_are_increases() {
    for every in [1, 15, 60] {
        let feed = Feed::new(MeterSettings { idle: Duration::from_secs(60), ..settings() });
        let mut samples = Vec::new();
        for second in 0..400 {
            let now = second * SECOND;
            feed.meter.tick(now);
            if second % every == 0 {
                samples.push(feed.page(now).failed());
            }
            feed.send(now + 1, &[(labels("shop", "x"), MILLI)]);
            if second % 80 == 3 {
                feed.send_as(now + 1, Status::Error, &[(labels("shop", "x"), MILLI)]);
            }
        }
        samples.push(feed.page(400 * SECOND).failed());
        for (of, name) in ["calls", "durations"].into_iter().enumerate() {
            let of: Vec<_> = samples.iter().map(|sample| sample[of]).collect();
            assert_eq!(increase(&of), 5.0, "{name} of {of:?}, every {every} s");
        }
    }
}

/// An operation of which nobody knew, and which fails at once: seen at 0 by the first scraper, whenever it comes, and
/// by a second one that comes soon.
#[test]
fn an_operation_that_is_born_with_an_error_is_seen_at_zero_first() {
    for first in [0, 14, 59, 119] {
        let feed = Feed::new(settings());
        feed.send_as(0, Status::Error, &[(labels("shop", "x"), MILLI), (labels("shop", "x"), MILLI)]);
        // One scraper, and another that asks 4 s later.
        let pages = [0, 4, 60, 64].map(|pause| feed.page((first + pause) * SECOND).failed());
        for scraper in 0..2 {
            let seen = [pages[scraper], pages[scraper + 2]];
            assert_eq!(seen, [[Some(0.0); 2], [Some(2.0); 2]], "scraper {scraper}, {first} s after the errors");
        }
    }
    let feed = Feed::new(settings());
    feed.send_as(0, Status::Error, &[(labels("shop", "x"), MILLI)]);
    assert_eq!([3, 7, 8].map(|second| feed.page(second * SECOND).failed()[0]), [Some(0.0), Some(0.0), Some(1.0)]);
}

#[test]
fn whoever_looks_for_the_first_time_after_a_while_sees_what_was_counted() {
    let feed = Feed::new(settings());
    feed.send_as(0, Status::Error, &[(labels("shop", "x"), MILLI)]);
    assert_eq!(feed.page(YOUNG_MS).failed(), [Some(1.0); 2]);
}

#[test]
fn an_export_says_once_that_a_counter_began_at_zero() {
    for histogram in [Flavour::Explicit, Flavour::Exponential] {
        let feed = Feed::new(MeterSettings { histogram, ..settings() });
        let at = |ms: u64| Now { ms, unix_nanos: START + ms * MILLI };
        let key = |status: &str| {
            format!(
                "service.name=shop span.name=x span.kind=SPAN_KIND_SERVER status.code=STATUS_CODE_{status} \
                 collector.instance.id=here service.version=1.2.3"
            )
        };
        let (ok, failed) = (key("UNSET"), key("ERROR"));
        let (born, later) = (START + 1500 * MILLI, START + 31_000 * MILLI);
        feed.send(1500, &[(labels("shop", "x"), MILLI), (labels("shop", "x"), MILLI)]);
        let first = feed.exported_at(at(9_000));
        assert_eq!(first.births, [0, 1].map(|_| BTreeMap::from([(ok.clone(), (born, born, 0))])));
        assert_eq!(first.calls[&ok], (born, START + 9_000 * MILLI, 2));
        assert!(first.silent.contains(&failed), "{first:?}");
        let second = feed.exported_at(at(19_000));
        assert!(second.births.iter().all(BTreeMap::is_empty), "{second:?}");
        assert!(second.silent.contains(&failed), "{second:?}");

        feed.send_as(31_000, Status::Error, &[(labels("shop", "x"), MILLI)]);
        let third = feed.exported_at(at(39_000));
        assert_eq!(third.births[0], BTreeMap::new(), "calls were 0 before");
        assert_eq!(third.births[1], BTreeMap::from([(failed.clone(), (born, later, 0))]), "durations were not there");
        assert_eq!(third.calls[&failed], (born, START + 39_000 * MILLI, 1));
        // Another status, and an export in the very moment: still the zero comes first.
        feed.send_as(40_000, Status::Ok, &[(labels("shop", "x"), MILLI)]);
        let fourth = feed.exported_at(at(40_000));
        assert_eq!(fourth.births, [0, 1].map(|_| BTreeMap::from([(key("OK"), (born, START + 40_000 * MILLI, 0))])));
    }
}

#[test]
fn seconds_are_written_as_seconds() {
    let feed = Feed::new(MeterSettings {
        unit: DurationUnit::Seconds,
        dimensions: Dimensions::new([""; 0]).unwrap(),
        ..settings()
    });
    feed.send(0, &[(labels("shop", "x"), 1500 * MILLI)]);
    let scrape = feed.prometheus(600 * SECOND);
    assert_eq!(scrape.types["traces_span_metrics_duration_seconds"], "histogram");
    let sums: Vec<f64> =
        scrape.samples.iter().filter(|((name, _), _)| name.ends_with("_sum")).map(|(_, v)| *v).collect();
    assert_eq!(sums, [1.5]);
    assert!(scrape.samples.keys().any(|(_, labels)| labels.get("le").is_some_and(|le| le == "0.002")));
}

#[test]
fn only_the_chosen_kinds_are_counted_and_a_broken_clock_counts_as_zero() {
    let kinds = |kinds| {
        let feed = Feed::new(MeterSettings { kinds, ..settings() });
        let spans: Vec<_> = SpanKind::ALL.map(|kind| (SeriesLabels { kind, ..labels("shop", "x") }, 1)).into();
        feed.send(0, &spans);
        feed.meter.totals().spans
    };
    assert_eq!(kinds(Kinds::default()), 2);
    assert_eq!(kinds(Kinds::ALL), 6);
    assert_eq!(kinds(Kinds::of(&[SpanKind::Client])), 1);

    let feed = Feed::new(settings());
    let backwards = SpanView { start: 9, end: 3, ..view(&labels("shop", "x"), 0) };
    feed.meter.record(&[backwards], 0, |_| labels("shop", "x"));
    let (_, (_, count, sum, buckets)) = feed.exported(START).durations.pop_first().unwrap();
    assert_eq!((count, sum, buckets[0]), (1, 0.0, 1));
}

#[test]
fn spans_sampled_upstream_are_counted_apart() {
    let feed = Feed::new(settings());
    let sampled = SpanView { head_sampled: true, ..view(&labels("shop", "x"), 1) };
    feed.meter.record(&[sampled, view(&labels("shop", "x"), 1), sampled], 0, |_| labels("shop", "x"));
    let totals = feed.meter.totals();
    assert_eq!((totals.spans, totals.head_sampled), (3, 2));
}

#[test]
fn an_operation_is_described_once() {
    let feed = Feed::new(settings());
    let spans: Vec<_> = (0..5000).map(|n| (labels("shop", if n % 3 == 0 { "x" } else { "y" }), n)).collect();
    assert_eq!(feed.send(0, &spans), 2);
    assert_eq!(feed.send(1, &spans), 0);
    assert_eq!(feed.meter.totals().spans, 10_000);
    assert_eq!(feed.exported(START).total(), 10_000);
}

#[test]
fn names_that_read_alike_are_one_series() {
    let feed = Feed::new(settings());
    // Two names whose bytes are not valid UTF-8 in different ways.
    let (one, other) = (view(&labels("shop", "one"), 5), view(&labels("shop", "other"), 7));
    for now in 0..2 {
        feed.meter.record(&[one, other], now, |_| labels("shop", "a\u{fffd}"));
    }
    assert_eq!(feed.meter.totals().series, 1);
    assert_eq!(feed.exported(START).total(), 4);
}

#[test]
fn beyond_the_cap_a_service_has_one_overflow_series() {
    let feed = Feed::new(MeterSettings { series_max: 10, ..settings() });
    for n in 0..50 {
        feed.send_as(n, Status::Error, &[(labels("noisy", &format!("op {n}")), MILLI)]);
        feed.send(n, &[(labels("quiet", &format!("op {n}")), MILLI)]);
    }
    let totals = feed.meter.totals();
    assert_eq!((totals.series, totals.overflow_series, totals.overflow_spans), (10, 2, 90));
    let export = feed.exported(START);
    assert_eq!(export.total(), 100, "no span is lost at the cap");
    let overflow = |service: &str| {
        export.calls[&format!("service.name={service} otel.metric.overflow:true collector.instance.id=here")].2
    };
    assert_eq!((overflow("noisy"), overflow("quiet")), (45, 45));
    let labels = [("service_name", "noisy"), ("otel_metric_overflow", "true"), ("collector_instance_id", "here")];
    assert_eq!(feed.prometheus(600 * SECOND).get("traces_span_metrics_calls_total", &labels), 45.0);
    let rows = feed.meter.operations(50);
    let noisy = rows.iter().find(|row| row.service == "noisy" && row.kind.is_none()).unwrap();
    assert_eq!((noisy.calls, noisy.errors), (45, 45), "errors are known although statuses share the series");
}

/// Names and values count, not just their number.
#[test]
fn long_labels_are_cut_and_fill_the_table_early() {
    let feed = Feed::new(MeterSettings { series_max: 100, ..settings() });
    let long = |n: u64| SeriesLabels {
        extras: vec![Some("v".repeat(1 << 20)), Some("e".repeat(1 << 20))],
        ..labels(&"s".repeat(1 << 20), &format!("{}{n}", "x".repeat(1 << 20)))
    };
    for n in 0..200 {
        feed.send(n, &[(long(n % 100), MILLI)]);
    }
    feed.meter.tick(200);
    let totals = feed.meter.totals();
    assert_eq!((totals.series, totals.overflow_series), (25, 1), "256 bytes a label, and 64 on average");
    assert!(totals.bytes < 100 * 3400, "{totals:?}");
    let export = feed.exported(START);
    assert_eq!((export.calls.len(), export.total()), (26, 200), "long names stay apart, and no span is lost");
    assert!(export.calls.keys().all(|key| key.len() < 1500), "{:?}", export.calls.keys().map(String::len).max());
    // When they have gone there is room again.
    let later = 16 * 60 * SECOND;
    feed.meter.tick(later);
    feed.send(later, &[(long(7), MILLI)]);
    assert_eq!(feed.meter.totals().series, 1);
}

#[test]
fn a_name_that_reads_like_one_that_was_cut_is_the_same_series() {
    let feed = Feed::new(settings());
    feed.send(0, &[(labels("shop", &"x".repeat(1000)), MILLI)]);
    let cut = feed.meter.operations(0)[0].name.clone();
    feed.send(1, &[(labels("shop", &cut), MILLI)]);
    let rows = feed.meter.operations(1);
    assert_eq!((rows.len(), rows[0].calls), (1, 2));
    // A reader that is strict: no labels twice.
    assert_eq!(feed.prometheus(10 * SECOND).samples.len(), 2 + 19 + 3);
}

/// Who looks once wants the count; and the scraper that comes later needs its step all the same.
#[test]
fn a_person_sees_the_count_and_takes_no_first_step_from_scrapers() {
    let feed = Feed::new(settings());
    feed.send_as(0, Status::Error, &[(labels("shop", "x"), MILLI)]);
    let failed = |reader, now_ms| feed.page_for(reader, now_ms).failed();
    assert_eq!(failed(PageReader::Person, SECOND), [Some(1.0); 2]);
    assert_eq!(failed(PageReader::Person, 9 * SECOND), [Some(1.0); 2]);
    assert_eq!(failed(PageReader::Scraper, 10 * SECOND), [Some(0.0); 2]);
    assert_eq!(failed(PageReader::Person, 11 * SECOND), [Some(1.0); 2]);
    assert_eq!(failed(PageReader::Scraper, 20 * SECOND), [Some(1.0); 2]);
}

/// A table that is full of operations that succeed takes their errors all the same.
#[test]
fn the_first_error_of_a_known_operation_has_room_always() {
    let feed = Feed::new(MeterSettings { series_max: 3, ..settings() });
    for name in ["a", "b", "x"] {
        feed.send(0, &[(labels("shop", name), MILLI)]);
    }
    feed.send_as(1, Status::Error, &[(labels("shop", "x"), MILLI), (labels("shop", "new"), MILLI)]);
    assert_eq!(feed.prometheus(10 * SECOND).failed(), [Some(1.0); 2]);
    let totals = feed.meter.totals();
    assert_eq!((totals.series, totals.overflow_series, totals.overflow_spans), (4, 1, 1));
    feed.meter.tick(16 * 60 * SECOND);
    let totals = feed.meter.totals();
    assert_eq!((totals.series, totals.overflow_series, totals.retired), (0, 0, 5));
}

#[test]
fn beyond_the_bound_on_services_all_share_one_series() {
    let feed = Feed::new(MeterSettings { series_max: 0, ..settings() });
    let services = OVERFLOW_SERVICES_MAX as u64 + 44;
    for n in 0..services {
        feed.send(n, &[(labels(&format!("service {n}"), "x"), MILLI)]);
    }
    // A service that has an overflow series keeps it.
    feed.send(services, &[(labels("service 0", "y"), MILLI)]);
    let export = feed.exported(START);
    assert_eq!(export.total(), services as i64 + 1);
    assert_eq!(export.calls["otel.metric.overflow:true collector.instance.id=here"].2, 44);
    assert_eq!(export.calls["service.name=service 0 otel.metric.overflow:true collector.instance.id=here"].2, 2);
    assert_eq!(feed.meter.totals().overflow_series, OVERFLOW_SERVICES_MAX + 1);
}

#[test]
fn an_idle_series_retires_and_comes_back_with_a_new_start() {
    let feed = Feed::new(MeterSettings { series_max: 1, ..settings() });
    let minutes = |n: u64| n * 60 * SECOND;
    feed.send(0, &[(labels("shop", "x"), 1), (labels("shop", "x"), 1)]);
    feed.meter.tick(minutes(15) - 1);
    assert_eq!(feed.meter.totals().series, 1);
    feed.meter.tick(minutes(15));
    let totals = feed.meter.totals();
    assert_eq!((totals.series, totals.retired), (0, 1));
    assert!(feed.exported(START).calls.is_empty());

    assert_eq!(feed.send(minutes(20), &[(labels("shop", "x"), 1)]), 1);
    let (start, _, count) = *feed.exported(START).calls.values().next().unwrap();
    assert_eq!((start, count), (START + minutes(20) * MILLI, 1));
    // Its place was free again.
    assert_eq!(feed.meter.totals().overflow_spans, 0);
}

#[test]
fn overflow_series_retire_too() {
    let feed = Feed::new(MeterSettings { series_max: 0, idle: Duration::from_secs(1), ..settings() });
    feed.send(0, &[(labels("shop", "x"), 1)]);
    feed.meter.tick(SECOND);
    let totals = feed.meter.totals();
    assert_eq!((totals.overflow_series, totals.retired, totals.overflow_spans), (0, 1, 1));
}

#[test]
fn an_exhausted_pool_is_counted_marked_and_overcome() {
    let feed = Feed::new(MeterSettings { pool: 1, ..settings() });
    let busy = |name: &str| (0..100).map(|n| (labels("shop", name), (100 + n) * MILLI)).collect::<Vec<_>>();
    feed.send(0, &busy("first"));
    feed.send(0, &busy("second"));
    feed.meter.tick(0);
    let totals = feed.meter.totals();
    assert_eq!((totals.approximate, totals.pool_exhausted), (1, 1));
    assert!(!feed.row("first", 0).approximate);
    let second = feed.row("second", 0);
    assert!(second.approximate);
    let p50 = second.latency.unwrap().p50;
    assert!((100 * MILLI..=200 * MILLI).contains(&p50), "the estimate lies in the right bucket: {p50}");
    // A minute later the memory is back.
    feed.meter.tick(60 * SECOND);
    assert_eq!(feed.meter.totals().approximate, 0);
    feed.send(60 * SECOND, &busy("second"));
    assert!(!feed.row("second", 60 * SECOND).approximate);
}

#[test]
fn windows_never_take_more_than_the_pool_and_series_what_the_documentation_says() {
    let pool = 20;
    for (histogram, most) in [(Flavour::Explicit, 2500), (Flavour::Exponential, 3700)] {
        let feed = Feed::new(MeterSettings { pool, series_max: 300, histogram, ..settings() });
        for slot in 0..6 {
            for n in 0..300 {
                let name = format!("GET /a/route/of/an/ordinary/length/{n}");
                let count = if n < 40 { 3000 } else { 32 };
                let spans: Vec<_> = (0..count).map(|i| (labels("shop", &name), DISTRIBUTIONS[1].1(i + n))).collect();
                feed.send(slot * 10 * SECOND, &spans);
            }
            feed.meter.tick(slot * 10 * SECOND);
            let totals = feed.meter.totals();
            assert!(totals.bytes <= pool * HISTOGRAM_BYTES + 300 * most, "{totals:?}");
        }
        assert!(feed.meter.totals().pool_exhausted > 0);
    }
}

#[test]
fn rates_speak_of_the_last_minute() {
    let feed = Feed::new(settings());
    for second in 0..300 {
        feed.send(second * SECOND, &[(labels("shop", "x"), 1), (labels("shop", "x"), 1)]);
    }
    let rate = feed.row("x", 299 * SECOND + 999).rate;
    assert!((rate - 2.0).abs() < 0.05, "{rate}");
    assert_eq!(feed.row("x", 400 * SECOND).rate, 0.0);
    assert_eq!(feed.row("x", 400 * SECOND).calls, 600);
}

#[test]
fn statuses_of_an_operation_are_one_row() {
    let feed = Feed::new(settings());
    feed.send(0, &[(labels("shop", "x"), 10), (labels("shop", "y"), 1)]);
    feed.send_as(0, Status::Error, &[(labels("shop", "x"), 30), (labels("shop", "x"), 20)]);
    let rows = feed.meter.operations(0);
    assert_eq!(rows.len(), 2);
    assert_eq!((rows[0].name.as_str(), rows[0].calls, rows[0].errors), ("x", 3, 2));
    assert_eq!(rows[0].latency.unwrap(), Latency { p50: 20, p90: 30, p95: 30, p99: 30 });
}

#[test]
fn threads_lose_nothing() {
    let feed = Feed::new(MeterSettings { series_max: 20, ..settings() });
    let (threads, requests) = (4u64, 400u64);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let feed = &feed;
            scope.spawn(move || {
                for n in 0..requests {
                    let spans: Vec<_> =
                        (0..60).map(|i| (labels("shop", &format!("op {}", (i + n) % 30)), i * MILLI)).collect();
                    feed.send(n * 50 + thread, &spans);
                    if n % 20 == 0 {
                        feed.meter.tick(n * 50);
                    }
                }
            });
        }
    });
    let total = threads * requests * 60;
    assert_eq!(feed.meter.totals().spans, total);
    let export = feed.exported(START);
    assert_eq!(export.total() as u64, total);
    assert_eq!(export.durations.values().map(|(_, count, ..)| count).sum::<u64>(), total);
    // Each thread may pass the bound by one.
    assert!(feed.meter.totals().series < 20 + threads as usize);
    let held: u64 = feed.meter.operations(20 * SECOND).iter().map(|row| row.calls).sum();
    assert_eq!(held, total);
}
