//! The request metrics as OTLP: a monotonic cumulative sum of calls and a cumulative histogram of
//! durations for every series, each with its own start time, and percentiles of every operation's last
//! minute as gauges.
//!
//! Source of names and layout: the Collector's span metrics connector, v0.161; it has no percentiles. One
//! resource per service; unlike the connector it carries `service.name` alone, because a series is the
//! sum over all instances of a service.

use super::Meter;
use super::histogram::{Cumulative, DurationUnit, Flavour};
use super::series::{Operation, SeriesKey};
use super::settings::{MeterSettings, OVERFLOW, QUANTILE, SERVICE};
use super::window::{Latency, Minute};
use crate::trace::Status;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

/// A sink's request holds about so many data points. With labels of 100 bytes in all that is about 100 KiB, and
/// with the longest labels in all dimensions still less than the 4 MiB that receivers take by default.
pub const POINTS_A_REQUEST: usize = 200;

/// What connects our data to dashboards made for the connector; some filter on the scope.
const SCOPE: &str = "spanmetricsconnector";
const CALLS: &str = "traces.span.metrics.calls";
const DURATION: &str = "traces.span.metrics.duration";
const DURATION_QUANTILE: &str = "traces.span.metrics.duration.quantile";

/// When an export is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Monotonic: the end of the last minute.
    pub ms: u64,
    /// The wall clock: the time of every point.
    pub unix_nanos: u64,
}

impl Meter {
    /// All series and the percentiles of the last minute, as requests of about [`POINTS_A_REQUEST`], made one
    /// at a time.
    pub fn export(&self, now: Now) -> impl Iterator<Item = ExportMetricsServiceRequest> {
        let mut rest = self.keys_by_service().into_iter().peekable();
        let mut minute = Minute::new();
        std::iter::from_fn(move || {
            let mut request = ExportMetricsServiceRequest::default();
            let mut room = POINTS_A_REQUEST;
            while room > 0
                && let Some((service, key)) = rest.next()
            {
                let mut points = Points::new(self.settings.histogram);
                self.add_operation(key, &mut points, &mut minute, now);
                while points.len() < room
                    && let Some((_, key)) = rest.next_if(|(next, _)| *next == service)
                {
                    self.add_operation(key, &mut points, &mut minute, now);
                }
                room = room.saturating_sub(points.len());
                if points.len() > 0 {
                    let metrics = points.into_metrics(self.settings.unit);
                    request.resource_metrics.push(resource_metrics(service.as_deref(), metrics));
                }
            }
            Some(request).filter(|request| !request.resource_metrics.is_empty())
        })
    }

    /// In order of services: each is one resource.
    fn keys_by_service(&self) -> Vec<(Option<String>, u64)> {
        let named = self.operations.iter().map(|entry| (entry.identity.service().map(str::to_owned), *entry.key()));
        let mut keys: Vec<_> = named.collect();
        keys.sort_unstable();
        keys
    }

    /// It may have been retired meanwhile.
    fn add_operation(&self, key: u64, points: &mut Points, minute: &mut Minute, now: Now) {
        let Some(mut operation) = self.operations.get_mut(&key) else { return };
        points.add(&mut operation, &self.settings, now.unix_nanos);
        if let Some(latency) = self.percentiles(&operation, minute, now.ms) {
            points.add_percentiles(&operation.identity, &latency, &self.settings, now.unix_nanos);
        }
    }
}

fn resource_metrics(service: Option<&str>, metrics: Vec<Metric>) -> ResourceMetrics {
    let attributes = service.map(|service| attribute(SERVICE, service)).into_iter().collect();
    ResourceMetrics {
        resource: Some(Resource { attributes, ..Resource::default() }),
        scope_metrics: vec![ScopeMetrics {
            scope: Some(InstrumentationScope { name: SCOPE.into(), ..InstrumentationScope::default() }),
            metrics,
            schema_url: String::new(),
        }],
        schema_url: String::new(),
    }
}

/// Data points of one service. A span adds to calls and durations under one lock, so the newest call count of a
/// series always equals the count of its histogram.
struct Points {
    calls: Vec<NumberDataPoint>,
    durations: Durations,
    quantiles: Vec<NumberDataPoint>,
}

enum Durations {
    Explicit(Vec<HistogramDataPoint>),
    Exponential(Vec<ExponentialHistogramDataPoint>),
}

/// From when to when a point speaks.
#[derive(Clone, Copy)]
struct Interval {
    start: u64,
    end: u64,
}

impl Interval {
    /// Ends a little after it began at the least, whatever happened to the wall clock: the zero that a counter
    /// began with stands there, and backends may know time by the millisecond.
    fn new(start: u64, since: u64, now: u64) -> Interval {
        Interval { start, end: now.max(since.saturating_add(1_000_000)) }
    }
}

impl Points {
    fn new(flavour: Flavour) -> Points {
        let durations = match flavour {
            Flavour::Explicit => Durations::Explicit(Vec::new()),
            Flavour::Exponential => Durations::Exponential(Vec::new()),
        };
        Points { calls: Vec::new(), durations, quantiles: Vec::new() }
    }

    fn len(&self) -> usize {
        let durations = match &self.durations {
            Durations::Explicit(points) => points.len(),
            Durations::Exponential(points) => points.len(),
        };
        self.calls.len() + durations + self.quantiles.len()
    }

    /// What is exported for the first time is preceded by the zero that it began with.
    fn add(&mut self, operation: &mut Operation, settings: &MeterSettings, now: u64) {
        let start = operation.start_unix_nanos;
        let (identity, all) = operation.series();
        for (status, series) in all {
            let attributes = attributes_of(identity, status, settings);
            let (count, calls_are_new) = (series.count(), series.calls.is_first_export());
            let Some(counted) = &mut series.counted else {
                self.calls.push(calls_point(attributes, Interval::new(start, start, now), count));
                continue;
            };
            let since = counted.since_unix_nanos;
            let (birth, life) = (Interval { start, end: since }, Interval::new(start, since, now));
            if calls_are_new {
                self.calls.push(calls_point(attributes.clone(), birth, 0));
            }
            self.calls.push(calls_point(attributes.clone(), life, count));
            if counted.durations.is_first_export() {
                self.add_histogram(attributes.clone(), birth, &settings.nothing(), settings);
            }
            self.add_histogram(attributes, life, &counted.total, settings);
        }
    }

    fn add_histogram(
        &mut self,
        attributes: Vec<KeyValue>,
        interval: Interval,
        total: &Cumulative,
        settings: &MeterSettings,
    ) {
        let (start_time_unix_nano, time_unix_nano) = (interval.start, interval.end);
        match &mut self.durations {
            Durations::Explicit(points) => points.push(HistogramDataPoint {
                attributes,
                start_time_unix_nano,
                time_unix_nano,
                ..explicit_point(total, settings)
            }),
            Durations::Exponential(points) => points.push(ExponentialHistogramDataPoint {
                attributes,
                start_time_unix_nano,
                time_unix_nano,
                ..exponential_point(total, settings.unit)
            }),
        }
    }

    fn add_percentiles(&mut self, identity: &SeriesKey, latency: &Latency, settings: &MeterSettings, now: u64) {
        let attributes = attributes_of(identity, None, settings);
        self.quantiles.extend(latency.quantiles().map(|(quantile, nanos)| NumberDataPoint {
            attributes: [&attributes[..], &[attribute(QUANTILE, quantile)]].concat(),
            time_unix_nano: now,
            value: Some(number_data_point::Value::AsDouble(nanos as f64 / settings.unit.nanos())),
            ..NumberDataPoint::default()
        }));
    }

    fn into_metrics(self, unit: DurationUnit) -> Vec<Metric> {
        let aggregation_temporality = AggregationTemporality::Cumulative as i32;
        let durations = match self.durations {
            Durations::Explicit(data_points) => Data::Histogram(Histogram { data_points, aggregation_temporality }),
            Durations::Exponential(data_points) => {
                Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality })
            }
        };
        let calls = Data::Sum(Sum { data_points: self.calls, aggregation_temporality, is_monotonic: true });
        let metric = |name: &str, unit: &str, data: Data| Metric {
            name: name.into(),
            unit: unit.into(),
            data: Some(data),
            ..Metric::default()
        };
        let mut metrics = vec![metric(CALLS, "", calls), metric(DURATION, unit.code(), durations)];
        if !self.quantiles.is_empty() {
            let gauge = Data::Gauge(Gauge { data_points: self.quantiles });
            metrics.push(metric(DURATION_QUANTILE, unit.code(), gauge));
        }
        metrics
    }
}

fn calls_point(attributes: Vec<KeyValue>, interval: Interval, count: u64) -> NumberDataPoint {
    NumberDataPoint {
        attributes,
        start_time_unix_nano: interval.start,
        time_unix_nano: interval.end,
        value: Some(number_data_point::Value::AsInt(count.min(i64::MAX as u64) as i64)),
        ..NumberDataPoint::default()
    }
}

fn explicit_point(total: &Cumulative, settings: &MeterSettings) -> HistogramDataPoint {
    HistogramDataPoint {
        count: total.count,
        sum: Some(total.sum as f64 / settings.unit.nanos()),
        bucket_counts: total.buckets.to_vec(),
        explicit_bounds: settings.buckets.in_unit(settings.unit).collect(),
        ..HistogramDataPoint::default()
    }
}

fn exponential_point(total: &Cumulative, unit: DurationUnit) -> ExponentialHistogramDataPoint {
    let exponential = total.exponential.as_ref().expect("a meter counts what it exports");
    let (offset, counts) = exponential.positive();
    ExponentialHistogramDataPoint {
        count: total.count,
        sum: Some(total.sum as f64 / unit.nanos()),
        scale: exponential.scale(),
        zero_count: exponential.zeros(),
        positive: Some(Buckets { offset, bucket_counts: counts.to_vec() }),
        min: (total.count > 0).then_some(total.min as f64 / unit.nanos()),
        max: (total.count > 0).then_some(total.max as f64 / unit.nanos()),
        ..ExponentialHistogramDataPoint::default()
    }
}

fn attributes_of(identity: &SeriesKey, status: Option<Status>, settings: &MeterSettings) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(5 + settings.dimensions.names().len());
    identity.each_attribute(status, settings, |name, _, value| {
        attributes.push(if name == OVERFLOW { flag(name) } else { attribute(name, value) });
    });
    attributes
}

fn attribute(key: &str, value: &str) -> KeyValue {
    key_value(key, Value::StringValue(value.to_owned()))
}

fn flag(key: &str) -> KeyValue {
    key_value(key, Value::BoolValue(true))
}

fn key_value(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
