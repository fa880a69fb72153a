//! Data points as samples of a metricstore, which reads them as Prometheus series.
//!
//! Source: Log Service's "Time series" format: `__name__`, `__labels__` (`key#$#value` sorted by key
//! and joined by `|`), `__time_nano__`, `__value__`. Names are those of the Collector's
//! `alibabacloudlogserviceexporter`; unlike it, buckets are cumulative and label values cannot break
//! `__labels__`.

mod labels;

use super::{
    encode::{ItemLogs, Pack, PackLimits, PackRoom},
    json::ATTRIBUTES_MAX,
    time::ServiceTime,
};
use crate::deliver::sink::exponential::{self, ExponentialPoint, doubles, fixed};
use crate::otlp::{
    walk::{Place, Point, ReadOnce, all, fields_of, is_whole, last, leaves, lossy, points},
    wire::Value,
};
use crate::trace::label::shortened;
use labels::{Labels, metric_name};

/// Buckets that one point may have: each becomes a log with all the point's labels.
const BUCKETS_MAX: usize = 1024;
/// Bytes of labels of a resource.
const REPEATED_MAX: usize = 64 << 10;
/// `AGGREGATION_TEMPORALITY_DELTA`
const DELTA: u64 = 1;
/// `DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK`
const STALE: u64 = 1;

/// Fields of a `Metric` that are its data.
mod kind {
    pub(super) const GAUGE: u32 = 5;
    pub(super) const SUM: u32 = 7;
    pub(super) const HISTOGRAM: u32 = 9;
    pub(super) const EXPONENTIAL_HISTOGRAM: u32 = 10;
    pub(super) const SUMMARY: u32 = 11;
}

/// Packs points from a place on, as many as `limits` allow; gives the place behind them. Refused are histograms of delta
/// temporality (a metricstore has no way to say it) and points that would take more than
/// [`PackLimits::bytes_max`]. A sum of deltas is written as it is, like a gauge.
pub(super) fn pack(request: &[u8], from: Place, limits: &PackLimits, now: ServiceTime) -> (Pack, Place) {
    let (mut pack, mut next) = (Pack::default(), from);
    let (mut resources, mut data) = (ReadOnce::default(), ReadOnce::default());
    for metric in leaves(request, from) {
        let shared = resources.of(metric.resource, |group| labels_of_resource(group, limits)).as_ref();
        // Each of its samples repeats it.
        let name = metric_name(&shortened(lossy(last(metric.bytes, 1).unwrap_or_default())));
        for point in points(&metric) {
            let is_delta = *data.of(point.data, |data| temporality(data) == DELTA);
            let before = pack.items();
            let room = pack.item(limits, |item| {
                MetricWriter { name: &name, shared: shared?, is_delta, limits, now }.point(item, &point)
            });
            if pack.items() > before {
                next = point.after;
            }
            if room == PackRoom::Full {
                return (pack, next);
            }
        }
    }
    (pack, next)
}

/// Each sample repeats them, so long values are cut where there is much of them, and series stay apart. None if they are
/// too many.
fn labels_of_resource(group: &[u8], limits: &PackLimits) -> Option<Labels> {
    let labels = labels_of(all(group, 1).flat_map(|resource| all(resource, 1)), limits.text(group.len()))?;
    let labels = if labels.written_len() > REPEATED_MAX { labels.shortened() } else { labels };
    (labels.written_len() <= REPEATED_MAX).then_some(labels)
}

/// None if there are too many, or their values are more than `limit` bytes of text.
fn labels_of<'a>(attributes: impl Iterator<Item = &'a [u8]> + Clone, limit: usize) -> Option<Labels> {
    let are_few = attributes.clone().take(ATTRIBUTES_MAX + 1).count() <= ATTRIBUTES_MAX;
    are_few.then(|| Labels::new(attributes, limit)).flatten()
}

struct MetricWriter<'a> {
    name: &'a str,
    /// Labels of the resource.
    shared: &'a Labels,
    /// The metric's points are differences.
    is_delta: bool,
    limits: &'a PackLimits,
    now: ServiceTime,
}

/// The fields that points of all kinds have, whose numbers differ by kind.
#[derive(Default)]
struct PointFields {
    time: u64,
    /// Of a gauge or sum.
    value: Option<f64>,
    count: u64,
    sum: Option<f64>,
    is_stale: bool,
}

impl PointFields {
    fn read(point: &Point<'_>) -> PointFields {
        let is_number = matches!(point.kind, kind::GAUGE | kind::SUM);
        let is_old = is_number || point.kind == kind::SUMMARY;
        let mut plain = PointFields::default();
        for field in fields_of(point.bytes) {
            match (field.number, field.value) {
                (3, Value::Fixed64(nanos)) => plain.time = nanos,
                (4, Value::Fixed64(bits)) if is_number => plain.value = Some(f64::from_bits(bits)),
                (6, Value::Fixed64(bits)) if is_number => plain.value = Some(bits as i64 as f64),
                (4, Value::Fixed64(count)) => plain.count = count,
                (5, Value::Fixed64(bits)) => plain.sum = Some(f64::from_bits(bits)),
                (8, Value::Varint(flags)) if is_old => plain.is_stale = flags & STALE != 0,
                (10, Value::Varint(flags)) if !is_old => plain.is_stale = flags & STALE != 0,
                _ => {}
            }
        }
        plain
    }
}

/// What explicit and folded exponential histograms have in common.
struct HistogramPoint<'a> {
    count: u64,
    sum: Option<f64>,
    bounds: &'a [f64],
    counts: &'a [u64],
}

impl MetricWriter<'_> {
    /// None if the point has no form in a metricstore. A gap that the sender marked is nothing, and no loss.
    fn point(&self, item: &mut ItemLogs<'_>, point: &Point<'_>) -> Option<()> {
        let is_histogram = matches!(point.kind, kind::HISTOGRAM | kind::EXPONENTIAL_HISTOGRAM);
        if !is_whole(point.bytes) || is_histogram && self.is_delta {
            return None;
        }
        let plain = PointFields::read(point);
        if plain.is_stale {
            return Some(());
        }
        let attributes = match point.kind {
            kind::HISTOGRAM => 9,
            kind::EXPONENTIAL_HISTOGRAM => 1,
            _ => 7,
        };
        let labels = labels_of(all(point.bytes, attributes), self.limits.text(point.bytes.len()))?;
        let labels = self.shared.with(labels);
        match point.kind {
            kind::HISTOGRAM => {
                let bounds: Vec<f64> = doubles(point.bytes, 7).take(BUCKETS_MAX + 1).collect();
                let counts: Vec<u64> = fixed(point.bytes, 6).take(BUCKETS_MAX + 1).collect();
                let of_point = HistogramPoint { count: plain.count, sum: plain.sum, bounds: &bounds, counts: &counts };
                self.histogram(item, &labels, plain.time, &of_point)
            }
            kind::EXPONENTIAL_HISTOGRAM => {
                let folded = exponential::fold(&ExponentialPoint::read(point.bytes));
                let (bounds, counts) = (&folded.bounds[..], &folded.counts[..]);
                let of_point = HistogramPoint { count: plain.count, sum: plain.sum, bounds, counts };
                self.histogram(item, &labels, plain.time, &of_point)
            }
            kind::SUMMARY => self.summary(item, &labels, &plain, point.bytes),
            _ => plain.value.map_or(Some(()), |value| self.sample(item, "", &labels.text(None), plain.time, value)),
        }
    }

    fn histogram(&self, item: &mut ItemLogs<'_>, labels: &Labels, time: u64, point: &HistogramPoint) -> Option<()> {
        let plain = labels.text(None);
        self.fits(&plain, point.bounds.len())?;
        if let Some(sum) = point.sum {
            self.sample(item, "_sum", &plain, time, sum)?;
        }
        self.sample(item, "_count", &plain, time, point.count as f64)?;
        let mut below = 0u64;
        for (bound, count) in point.bounds.iter().zip(point.counts) {
            below = below.saturating_add(*count);
            let labels = labels.text(Some(("le", &go_float(*bound))));
            self.sample(item, "_bucket", &labels, time, below as f64)?;
        }
        let labels = labels.text(Some(("le", "+Inf")));
        self.sample(item, "_bucket", &labels, time, point.count.max(below) as f64)
    }

    fn summary(&self, item: &mut ItemLogs<'_>, labels: &Labels, plain: &PointFields, point: &[u8]) -> Option<()> {
        let text = labels.text(None);
        self.fits(&text, all(point, 6).take(BUCKETS_MAX + 1).count())?;
        self.sample(item, "_sum", &text, plain.time, plain.sum.unwrap_or_default())?;
        self.sample(item, "_count", &text, plain.time, plain.count as f64)?;
        for at in all(point, 6) {
            let [quantile, value] = [1, 2].map(|number| doubles(at, number).last().unwrap_or_default());
            let labels = labels.text(Some(("quantile", &go_float(quantile))));
            self.sample(item, "", &labels, plain.time, value)?;
        }
        Some(())
    }

    /// None for a point whose buckets are too many or surely too large: what is refused costs little.
    fn fits(&self, labels: &str, buckets: usize) -> Option<()> {
        let bytes = (self.name.len() + labels.len()).saturating_mul(buckets);
        (buckets <= BUCKETS_MAX && bytes <= self.limits.bytes_max).then_some(())
    }

    fn sample(&self, item: &mut ItemLogs<'_>, suffix: &str, labels: &str, time: u64, value: f64) -> Option<()> {
        let time = self.now.log_time(time);
        let contents = [
            ("__name__", format!("{}{suffix}", self.name)),
            ("__labels__", labels.to_owned()),
            ("__time_nano__", format!("{}{:09}", time.seconds, time.nanos)),
            ("__value__", go_float(value)),
        ];
        item.log(time, contents.iter().map(|(key, value)| (*key, value.as_str())))
    }
}

/// Of a histogram's data.
fn temporality(data: &[u8]) -> u64 {
    let last = fields_of(data).filter(|field| field.number == 2).last();
    last.map_or(0, |field| if let Value::Varint(number) = field.value { number } else { 0 })
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
