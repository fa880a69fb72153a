//! What an operator can say about measuring. Wrong settings cannot be written: bounds and dimensions
//! are checked where they are made.

use super::histogram::{Bounds, Cumulative, DurationUnit, Flavour};
use super::window::HISTOGRAM_BYTES;
use crate::trace::SpanKind;
use std::collections::HashSet;
use std::time::Duration;

/// A set of span kinds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kinds(u8);

impl Kinds {
    pub const ALL: Kinds = Kinds(0b11_1111);

    pub fn of(kinds: &[SpanKind]) -> Kinds {
        Kinds(kinds.iter().fold(0, |set, &kind| set | 1 << kind as u8))
    }

    pub fn has(self, kind: SpanKind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }
}

impl Default for Kinds {
    /// The spans that stand for a request: server and consumer.
    fn default() -> Kinds {
        Kinds::of(&[SpanKind::Server, SpanKind::Consumer])
    }
}

/// A label of a series: as OTLP writes it, and as Prometheus does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LabelName {
    pub attribute: String,
    pub label: String,
}

/// Attributes that every series has or may have; no dimension may take their place.
pub(crate) const SERVICE: &str = "service.name";
pub(crate) const NAME: &str = "span.name";
pub(crate) const KIND: &str = "span.kind";
pub(crate) const STATUS: &str = "status.code";
pub(crate) const INSTANCE: &str = "collector.instance.id";
pub(crate) const OVERFLOW: &str = "otel.metric.overflow";
pub(crate) const QUANTILE: &str = "quantile";
const RESERVED: [&str; 8] = [SERVICE, NAME, KIND, STATUS, INSTANCE, OVERFLOW, QUANTILE, "le"];

/// Extra dimensions of every series: attributes of the span or else of its resource.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dimensions(Vec<LabelName>);

/// Why a list of dimensions cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DimensionsError {
    #[error("{0} dimensions are too many: write at most {max}", max = Dimensions::MAX)]
    Count(usize),
    #[error("a dimension needs a name: write the name of an attribute, like service.version")]
    Empty,
    #[error("every series has `{0}` already: leave it out")]
    Reserved(String),
    #[error("`{0}` and another dimension are both `{1}` for Prometheus: leave one out")]
    Twice(String, String),
}

impl Dimensions {
    /// Each one multiplies the number of series by the number of its values.
    pub const MAX: usize = 16;

    pub fn new(names: impl IntoIterator<Item = impl Into<String>>) -> Result<Dimensions, DimensionsError> {
        let mut taken: HashSet<String> = HashSet::new();
        let reserved: HashSet<String> = RESERVED.iter().map(|name| prometheus_label(name)).collect();
        let mut dimensions = Vec::new();
        for attribute in names.into_iter().map(Into::into) {
            if attribute.is_empty() {
                return Err(DimensionsError::Empty);
            }
            let label = prometheus_label(&attribute);
            if reserved.contains(&label) {
                return Err(DimensionsError::Reserved(attribute));
            }
            if !taken.insert(label.clone()) {
                return Err(DimensionsError::Twice(attribute, label));
            }
            dimensions.push(LabelName { attribute, label });
        }
        if dimensions.len() > Dimensions::MAX {
            return Err(DimensionsError::Count(dimensions.len()));
        }
        Ok(Dimensions(dimensions))
    }

    pub fn names(&self) -> &[LabelName] {
        &self.0
    }
}

impl Default for Dimensions {
    /// What lets two releases be compared: `service.version` and `deployment.environment.name`.
    fn default() -> Dimensions {
        Dimensions::new(["service.version", "deployment.environment.name"]).expect("the defaults are distinct")
    }
}

/// An attribute's name as a Prometheus label: other characters become `_`, and a name must not begin
/// with a digit. Source: OpenTelemetry specification, "Prometheus and OpenMetrics Compatibility".
pub(crate) fn prometheus_label(attribute: &str) -> String {
    let digit_first = attribute.starts_with(|c: char| c.is_ascii_digit());
    let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let label: String = attribute.chars().map(word).collect();
    if digit_first { format!("key_{label}") } else { label }
}

/// What a name or a value of a series may take on average: most have a fourth of it.
pub const LABEL_BYTES_MEAN: usize = 64;

/// How requests are measured.
#[derive(Clone, PartialEq, Debug)]
pub struct MeterSettings {
    /// Which spans are counted. All kinds is what the span metrics connector does.
    pub kinds: Kinds,
    /// The kind of histogram that goes to sinks.
    pub histogram: Flavour,
    /// How often metrics go to sinks.
    pub every: Duration,
    /// How many series there may be besides overflow series, until operations that are new share one overflow
    /// series per service.
    pub series_max: usize,
    /// Upper bounds of the explicit buckets.
    pub buckets: Bounds,
    pub unit: DurationUnit,
    /// An operation that counts nothing for so long is retired.
    pub idle: Duration,
    /// The memory of all percentile windows together, as a number of dense histograms of 24 KB.
    pub pool: usize,
    pub dimensions: Dimensions,
    /// `collector.instance.id` of every series: two instances that measure the same service never collide.
    pub instance_id: String,
}

impl MeterSettings {
    /// The defaults for a process with a budget of `memory` bytes.
    ///
    /// An operation with one series takes up to 2.5 KB: its place in the table 0.3 to 0.6, labels 0.1, explicit
    /// buckets 0.3 with what belongs to them, exact durations of a minute up to 1.5; exponential buckets, where they
    /// are asked for, up to 1.2 more. Further statuses of a known operation have room always, and take 0.3 KB each,
    /// or 1.5. One series for each 64 KiB of memory (at least 256, at most 5,000) keeps all of them within 1/17 of it.
    /// Windows may take 1/32 of it: 88 dense histograms at 64 MiB, 709 at 512 MiB. An operation with more than 32
    /// durations in 10 s holds one of them and about 10 KB of bins, so that is room for about 60 and 490 busy
    /// operations.
    pub fn for_memory(memory: usize) -> MeterSettings {
        MeterSettings {
            kinds: Kinds::default(),
            histogram: Flavour::Explicit,
            every: Duration::from_secs(10),
            series_max: (memory / (64 << 10)).clamp(256, 5_000),
            buckets: Bounds::default(),
            unit: DurationUnit::default(),
            idle: Duration::from_secs(15 * 60),
            pool: (memory / 32 / HISTOGRAM_BYTES).max(16),
            dimensions: Dimensions::default(),
            instance_id: String::new(),
        }
    }
}

impl MeterSettings {
    /// What a series has counted when it begins.
    pub(crate) fn nothing(&self) -> Cumulative {
        Cumulative::new(&self.buckets, self.histogram)
    }

    /// What names and values of all operations may take, bytes: each may be [`LABEL_BYTES_MAX`], all of them
    /// `LABEL_BYTES_MEAN` on average. Beyond it an operation is counted as if there were `series_max` series.
    ///
    /// [`LABEL_BYTES_MAX`]: crate::trace::label::LABEL_BYTES_MAX
    pub fn text_max(&self) -> usize {
        let labels = 2 + self.dimensions.names().len();
        self.series_max.saturating_mul(labels * LABEL_BYTES_MEAN)
    }
}

impl Default for MeterSettings {
    /// For the default budget of 512 MiB.
    fn default() -> MeterSettings {
        MeterSettings::for_memory(512 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_that_collide_are_refused() {
        let error = |names: &[&str]| Dimensions::new(names.iter().copied()).unwrap_err();
        assert_eq!(error(&["span.name"]), DimensionsError::Reserved("span.name".into()));
        assert_eq!(error(&["span_name"]), DimensionsError::Reserved("span_name".into()));
        assert_eq!(error(&["a.b", "a_b"]), DimensionsError::Twice("a_b".into(), "a_b".into()));
        assert_eq!(error(&[""]), DimensionsError::Empty);
        let many: Vec<String> = (0..17).map(|n| format!("d{n}")).collect();
        assert_eq!(Dimensions::new(many).unwrap_err(), DimensionsError::Count(17));
    }

    #[test]
    fn attribute_names_become_prometheus_labels() {
        assert_eq!(prometheus_label("deployment.environment.name"), "deployment_environment_name");
        assert_eq!(prometheus_label("5xx-ü"), "key_5xx__");
        assert_eq!(prometheus_label("_private"), "_private");
    }

    #[test]
    fn the_documented_arithmetic_holds() {
        let (sidecar, gateway) = (MeterSettings::for_memory(64 << 20), MeterSettings::default());
        assert_eq!((sidecar.series_max, gateway.series_max), (1024, 5000));
        assert_eq!((sidecar.pool, gateway.pool), (88, 709));
    }
}
