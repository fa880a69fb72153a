//! Data points as samples of a metricstore, which reads them as Prometheus series.
//!
//! Source: Log Service's "Time series" format: `__name__`, `__labels__` (`key#$#value` sorted by key
//! and joined by `|`), `__time_nano__`, `__value__`. Names are those of the Collector's
//! `alibabacloudlogserviceexporter`; unlike it, buckets are cumulative and label values cannot break
//! `__labels__`.

mod labels;

use super::{
    encode::{Limits, Pack, Room},
    exponential,
    time::Now,
};
use labels::{Labels, metric_name};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    metrics::v1::{
        AggregationTemporality, DataPointFlags, Metric, NumberDataPoint, SummaryDataPoint, metric::Data,
        number_data_point::Value,
    },
    resource::v1::Resource,
};

/// Buckets that one point may have: each becomes a log with all the point's labels.
const BUCKETS_MAX: usize = 1024;

/// Packs points after the first `done`, as many as `limits` allow. Refused are histograms of delta
/// temporality (a metricstore has no way to say it) and points that would take more than
/// [`Limits::bytes_max`]. A sum of deltas is written as it is, like a gauge.
pub(super) fn pack(request: &ExportMetricsServiceRequest, done: usize, limits: &Limits, now: Now) -> Pack {
    let mut pack = Pack::default();
    let mut skip = done;
    for resource in &request.resource_metrics {
        let mut shared = None;
        for metric in resource.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
            for index in 0..point_count(metric) {
                if skip > 0 {
                    skip -= 1;
                    continue;
                }
                let shared = shared.get_or_insert_with(|| labels_of(resource.resource.as_ref()));
                let writer = Writer { name: metric_name(&metric.name), shared, limits, now };
                if pack.item(limits, |pack| writer.point(pack, metric, index)) == Room::Full {
                    return pack;
                }
            }
        }
    }
    pack
}

fn labels_of(resource: Option<&Resource>) -> Labels {
    Labels::new(resource.map_or(&[][..], |resource| &resource.attributes))
}

fn point_count(metric: &Metric) -> usize {
    match &metric.data {
        None => 0,
        Some(Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(Data::Sum(sum)) => sum.data_points.len(),
        Some(Data::Histogram(histogram)) => histogram.data_points.len(),
        Some(Data::ExponentialHistogram(histogram)) => histogram.data_points.len(),
        Some(Data::Summary(summary)) => summary.data_points.len(),
    }
}

struct Writer<'a> {
    name: String,
    /// Labels of the resource.
    shared: &'a Labels,
    limits: &'a Limits,
    now: Now,
}

/// What explicit and folded exponential histograms have in common.
struct Histogram<'a> {
    count: u64,
    sum: Option<f64>,
    bounds: &'a [f64],
    counts: &'a [u64],
}

impl Writer<'_> {
    fn point(&self, pack: &mut Pack, metric: &Metric, index: usize) {
        let is_delta = |temporality: i32| temporality == AggregationTemporality::Delta as i32;
        match metric.data.as_ref().expect("it has points") {
            Data::Gauge(gauge) => self.number(pack, &gauge.data_points[index]),
            Data::Sum(sum) => self.number(pack, &sum.data_points[index]),
            Data::Summary(summary) => self.summary(pack, &summary.data_points[index]),
            Data::Histogram(histogram) if is_delta(histogram.aggregation_temporality) => pack.refuse(),
            Data::ExponentialHistogram(histogram) if is_delta(histogram.aggregation_temporality) => pack.refuse(),
            Data::Histogram(histogram) => {
                let point = &histogram.data_points[index];
                if !is_stale(point.flags) {
                    let labels = self.shared.with(&point.attributes);
                    let (bounds, counts) = (&point.explicit_bounds[..], &point.bucket_counts[..]);
                    let of_point = Histogram { count: point.count, sum: point.sum, bounds, counts };
                    self.histogram(pack, &labels, point.time_unix_nano, &of_point);
                }
            }
            Data::ExponentialHistogram(histogram) => {
                let point = &histogram.data_points[index];
                if !is_stale(point.flags) {
                    let labels = self.shared.with(&point.attributes);
                    let folded = exponential::fold(point);
                    let (bounds, counts) = (&folded.bounds[..], &folded.counts[..]);
                    let of_point = Histogram { count: point.count, sum: point.sum, bounds, counts };
                    self.histogram(pack, &labels, point.time_unix_nano, &of_point);
                }
            }
        }
    }

    fn number(&self, pack: &mut Pack, point: &NumberDataPoint) {
        let value = match point.value {
            Some(Value::AsDouble(value)) => value,
            Some(Value::AsInt(value)) => value as f64,
            None => return,
        };
        if !is_stale(point.flags) {
            let labels = self.shared.with(&point.attributes).text(None);
            self.sample(pack, "", &labels, point.time_unix_nano, value);
        }
    }

    fn histogram(&self, pack: &mut Pack, labels: &Labels, time: u64, point: &Histogram) {
        let plain = labels.text(None);
        let bytes = plain.len().saturating_mul(point.counts.len());
        if point.bounds.len() > BUCKETS_MAX || bytes > self.limits.bytes_max {
            return pack.refuse();
        }
        if let Some(sum) = point.sum {
            self.sample(pack, "_sum", &plain, time, sum);
        }
        self.sample(pack, "_count", &plain, time, point.count as f64);
        let mut below = 0u64;
        for (bound, count) in point.bounds.iter().zip(point.counts) {
            below = below.saturating_add(*count);
            let labels = labels.text(Some(("le", &go_float(*bound))));
            self.sample(pack, "_bucket", &labels, time, below as f64);
        }
        let labels = labels.text(Some(("le", "+Inf")));
        self.sample(pack, "_bucket", &labels, time, point.count.max(below) as f64);
    }

    fn summary(&self, pack: &mut Pack, point: &SummaryDataPoint) {
        if is_stale(point.flags) {
            return;
        }
        let labels = self.shared.with(&point.attributes);
        let plain = labels.text(None);
        if point.quantile_values.len() > BUCKETS_MAX
            || plain.len().saturating_mul(point.quantile_values.len()) > self.limits.bytes_max
        {
            return pack.refuse();
        }
        self.sample(pack, "_sum", &plain, point.time_unix_nano, point.sum);
        self.sample(pack, "_count", &plain, point.time_unix_nano, point.count as f64);
        for at in &point.quantile_values {
            let labels = labels.text(Some(("quantile", &go_float(at.quantile))));
            self.sample(pack, "", &labels, point.time_unix_nano, at.value);
        }
    }

    fn sample(&self, pack: &mut Pack, suffix: &str, labels: &str, time: u64, value: f64) {
        let time = self.now.log_time(time);
        let contents = [
            ("__name__", format!("{}{suffix}", self.name)),
            ("__labels__", labels.to_owned()),
            ("__time_nano__", format!("{}{:09}", time.seconds, time.nanos)),
            ("__value__", go_float(value)),
        ];
        pack.log(time, contents.iter().map(|(key, value)| (*key, value.as_str())));
    }
}

/// A gap that the sender marked: there is no value to write.
fn is_stale(flags: u32) -> bool {
    flags & DataPointFlags::NoRecordedValueMask as u32 != 0
}

/// The shortest decimal that reads back as `value`, as Go's `'g'` writes it.
fn go_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("the format has a number after e");
    if value == 0.0 || (-4..6).contains(&exponent) {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

#[cfg(test)]
mod tests;
