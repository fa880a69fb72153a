//! The request metrics as OTLP: a monotonic cumulative sum of calls and a cumulative histogram of
//! durations for every series, each with its own start time, and percentiles of every operation's last
//! minute as gauges.
//!
//! Source of names and layout: the Collector's span metrics connector, v0.161; it has no percentiles. One
//! resource per service; unlike the connector it carries `service.name` alone, because a series is the
//! sum over all instances of a service.

use super::Meter;
use super::histogram::{Cumulative, Unit};
use super::series::{Identity, Series};
use super::settings::{OVERFLOW, QUANTILE, SERVICE, STATUS, Settings};
use super::window::Latency;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

/// A sink's request holds at most so many series, or the percentiles of so many operations. With labels of
/// 100 bytes in all that is about 100 KiB, and with the longest labels in all dimensions still less than the
/// 4 MiB that receivers take by default.
pub const SERIES_A_REQUEST: usize = 100;

/// What connects our data to dashboards made for the connector; some filter on the scope.
const SCOPE: &str = "spanmetricsconnector";
const CALLS: &str = "traces.span.metrics.calls";
const DURATION: &str = "traces.span.metrics.duration";
const DURATION_QUANTILE: &str = "traces.span.metrics.duration.quantile";

/// Which kind of histogram a sink takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flavour {
    /// Explicit buckets, for ARMS and Log Service. A percentile computed from them lies in the right bucket,
    /// no more: with the default bounds it can be twofold off, and fivefold between 10 and 50 ms.
    Explicit,
    /// Base-2 exponential: within 2.2 % while durations span 10 octaves, 4.4 % up to 20.
    Exponential,
}

/// When an export is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Monotonic: the end of the last minute.
    pub ms: u64,
    /// The wall clock: the time of every point.
    pub unix_nanos: u64,
}

impl Meter {
    /// All series, then the percentiles of the last minute, as requests of at most [`SERIES_A_REQUEST`] of
    /// them, made one at a time.
    pub fn export(&self, flavour: Flavour, now: Now) -> impl Iterator<Item = ExportMetricsServiceRequest> {
        self.export_series(flavour, now.unix_nanos).chain(self.export_percentiles(now))
    }

    fn export_series(&self, flavour: Flavour, now: u64) -> impl Iterator<Item = ExportMetricsServiceRequest> {
        let mut keys: Vec<(Option<String>, u64)> =
            self.series.iter().map(|entry| (entry.identity.service().map(str::to_owned), *entry.key())).collect();
        keys.sort_unstable();
        let mut rest = keys.into_iter().peekable();
        std::iter::from_fn(move || {
            rest.peek()?;
            let part: Vec<_> = rest.by_ref().take(SERIES_A_REQUEST).collect();
            let resource_metrics =
                part.chunk_by(|a, b| a.0 == b.0).map(|group| self.service_metrics(group, flavour, now)).collect();
            Some(ExportMetricsServiceRequest { resource_metrics })
        })
    }

    fn export_percentiles(&self, now: Now) -> impl Iterator<Item = ExportMetricsServiceRequest> {
        let mut operations = self.percentiles(now.ms);
        // The overflow of a service stands apart from its operations otherwise.
        operations.sort_by(|a, b| a.0.service().cmp(&b.0.service()));
        (0..operations.len()).step_by(SERIES_A_REQUEST).map(move |first| {
            let part = &operations[first..operations.len().min(first + SERIES_A_REQUEST)];
            let resource_metrics = part
                .chunk_by(|a, b| a.0.service() == b.0.service())
                .map(|group| self.service_percentiles(group, now.unix_nanos))
                .collect();
            ExportMetricsServiceRequest { resource_metrics }
        })
    }

    fn service_percentiles(&self, group: &[(Identity, Latency)], now: u64) -> ResourceMetrics {
        let unit = self.settings.unit;
        let points = group.iter().flat_map(|(identity, latency)| {
            let mut attributes = attributes_of(identity, &self.settings);
            attributes.retain(|attribute| attribute.key != STATUS);
            latency.quantiles().map(|(quantile, nanos)| NumberDataPoint {
                attributes: [&attributes[..], &[attribute(QUANTILE, quantile)]].concat(),
                time_unix_nano: now,
                value: Some(number_data_point::Value::AsDouble(nanos as f64 / unit.nanos())),
                ..NumberDataPoint::default()
            })
        });
        let gauge = Data::Gauge(Gauge { data_points: points.collect() });
        let metric =
            Metric { name: DURATION_QUANTILE.into(), unit: unit.code().into(), data: Some(gauge), ..Metric::default() };
        resource_metrics(group[0].0.service(), vec![metric])
    }

    fn service_metrics(&self, group: &[(Option<String>, u64)], flavour: Flavour, now: u64) -> ResourceMetrics {
        let mut points = Points::new(flavour);
        for (_, key) in group {
            if let Some(series) = self.series.get(key) {
                points.add(&series, &self.settings, now);
            }
        }
        resource_metrics(group[0].0.as_deref(), points.into_metrics(self.settings.unit))
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

/// The data points of calls and durations. A series adds to both under one lock, so calls always equals the
/// histogram's count.
struct Points {
    calls: Vec<NumberDataPoint>,
    durations: Durations,
}

enum Durations {
    Explicit(Vec<HistogramDataPoint>),
    Exponential(Vec<ExponentialHistogramDataPoint>),
}

impl Points {
    fn new(flavour: Flavour) -> Points {
        let durations = match flavour {
            Flavour::Explicit => Durations::Explicit(Vec::new()),
            Flavour::Exponential => Durations::Exponential(Vec::new()),
        };
        Points { calls: Vec::new(), durations }
    }

    fn add(&mut self, series: &Series, settings: &Settings, now: u64) {
        let attributes = attributes_of(&series.identity, settings);
        let start = series.start_unix_nanos;
        // A wall clock that was set back must not make a point end before it starts.
        let now = now.max(start);
        self.calls.push(NumberDataPoint {
            attributes: attributes.clone(),
            start_time_unix_nano: start,
            time_unix_nano: now,
            value: Some(number_data_point::Value::AsInt(series.total.count.min(i64::MAX as u64) as i64)),
            ..NumberDataPoint::default()
        });
        match &mut self.durations {
            Durations::Explicit(points) => points.push(HistogramDataPoint {
                attributes,
                start_time_unix_nano: start,
                time_unix_nano: now,
                ..explicit_point(&series.total, settings)
            }),
            Durations::Exponential(points) => points.push(ExponentialHistogramDataPoint {
                attributes,
                start_time_unix_nano: start,
                time_unix_nano: now,
                ..exponential_point(&series.total, settings.unit)
            }),
        }
    }

    fn into_metrics(self, unit: Unit) -> Vec<Metric> {
        let aggregation_temporality = AggregationTemporality::Cumulative as i32;
        let durations = match self.durations {
            Durations::Explicit(data_points) => Data::Histogram(Histogram { data_points, aggregation_temporality }),
            Durations::Exponential(data_points) => {
                Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality })
            }
        };
        let calls = Data::Sum(Sum { data_points: self.calls, aggregation_temporality, is_monotonic: true });
        vec![
            Metric { name: CALLS.into(), data: Some(calls), ..Metric::default() },
            Metric { name: DURATION.into(), unit: unit.code().into(), data: Some(durations), ..Metric::default() },
        ]
    }
}

fn explicit_point(total: &Cumulative, settings: &Settings) -> HistogramDataPoint {
    HistogramDataPoint {
        count: total.count,
        sum: Some(total.sum as f64 / settings.unit.nanos()),
        bucket_counts: total.buckets.to_vec(),
        explicit_bounds: settings.buckets.in_unit(settings.unit).collect(),
        ..HistogramDataPoint::default()
    }
}

fn exponential_point(total: &Cumulative, unit: Unit) -> ExponentialHistogramDataPoint {
    let (offset, counts) = total.exponential.positive();
    ExponentialHistogramDataPoint {
        count: total.count,
        sum: Some(total.sum as f64 / unit.nanos()),
        scale: total.exponential.scale(),
        zero_count: total.exponential.zeros(),
        positive: Some(Buckets { offset, bucket_counts: counts.to_vec() }),
        min: Some(total.min as f64 / unit.nanos()),
        max: Some(total.max as f64 / unit.nanos()),
        ..ExponentialHistogramDataPoint::default()
    }
}

fn attributes_of(identity: &Identity, settings: &Settings) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(5 + settings.dimensions.names().len());
    identity.each_attribute(settings, |name, _, value| {
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
