//! What left, held against `expected.json` as README.md describes it.

use super::traffic::Traffic;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use tailkeep::trace::Threshold;

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// By the label of a template.
    pub traces: BTreeMap<String, Fate>,
    #[serde(default)]
    pub estimates: Vec<Estimate>,
    /// Spans, by the name of the counter.
    pub counters: BTreeMap<String, u64>,
    pub ring_seconds: Option<[f64; 2]>,
}

/// What becomes of the traces of a template.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Fate {
    leave: Count,
    spans: Option<Count>,
    rule: Option<Words>,
    trigger: Option<Words>,
    incomplete: Option<Words>,
    weight: Option<Weight>,
    delay: Option<[u64; 2]>,
}

/// A sum of weights, or a quotient of two.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Estimate {
    what: String,
    of: Vec<String>,
    #[serde(default)]
    per: Vec<String>,
    between: [f64; 2],
}

#[derive(Deserialize, Debug, Clone, Copy)]
#[serde(untagged)]
enum Count {
    Exactly(u64),
    Between([u64; 2]),
}

impl Count {
    fn holds(self, number: u64) -> bool {
        match self {
            Count::Exactly(wanted) => number == wanted,
            Count::Between([least, most]) => (least..=most).contains(&number),
        }
    }
}

#[derive(Deserialize, Debug)]
#[serde(untagged)]
enum Words {
    One(String),
    Any(Vec<String>),
}

impl Words {
    fn holds(&self, word: &str) -> bool {
        match self {
            Words::One(wanted) => wanted == word,
            Words::Any(wanted) => wanted.iter().any(|wanted| wanted == word),
        }
    }
}

#[derive(Deserialize, Debug, PartialEq, Clone, Copy)]
#[serde(untagged)]
enum Weight {
    Is(f64),
    No(NoWeight),
}

#[derive(Deserialize, Debug, PartialEq, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum NoWeight {
    Erased,
}

/// Kept spans and when they left, in milliseconds.
#[derive(Debug)]
pub struct Departure {
    pub at: u64,
    pub request: ExportTraceServiceRequest,
}

/// What left of one trace.
#[derive(Default, Debug)]
struct Left {
    first: u64,
    spans: BTreeSet<Vec<u8>>,
    /// `tailkeep.*` of the first span that carries them, without the prefix.
    marks: BTreeMap<String, String>,
    marked: usize,
    departures: usize,
    thresholds: BTreeSet<Option<Threshold>>,
}

/// All that left, by trace id.
pub struct Outcome<'a> {
    labels: BTreeMap<Vec<u8>, &'a str>,
    arrived: BTreeMap<Vec<u8>, u64>,
    sent: BTreeMap<(Vec<u8>, Vec<u8>), Span>,
    left: BTreeMap<Vec<u8>, Left>,
    problems: Vec<String>,
}

impl<'a> Outcome<'a> {
    pub fn new(traffic: &'a Traffic, departures: Vec<Departure>) -> Outcome<'a> {
        let mut outcome = Outcome {
            labels: traffic.labels(),
            arrived: BTreeMap::new(),
            sent: BTreeMap::new(),
            left: BTreeMap::new(),
            problems: Vec::new(),
        };
        for arrival in traffic.arrivals() {
            for span in spans(arrival.request) {
                outcome.arrived.entry(span.trace_id.clone()).or_insert(arrival.at);
                outcome.sent.insert((span.trace_id.clone(), span.span_id.clone()), span);
            }
        }
        departures.into_iter().for_each(|departure| outcome.take(departure));
        outcome.check_marks();
        outcome
    }

    fn take(&mut self, departure: Departure) {
        let mut seen = BTreeSet::new();
        for span in spans(departure.request) {
            let id = span.trace_id.clone();
            let left = self.left.entry(id.clone()).or_insert_with(|| Left { first: departure.at, ..Left::default() });
            left.departures += usize::from(seen.insert(id.clone()));
            if !left.spans.insert(span.span_id.clone()) {
                self.problems.push(format!("span {:02x?} left twice", span.span_id));
            }
            let (span, marks, threshold) = without_additions(span);
            left.thresholds.insert(threshold);
            if !marks.is_empty() {
                left.marked += 1;
                if left.marks.is_empty() {
                    left.marks = marks;
                }
            }
            match self.sent.get(&(id, span.span_id.clone())) {
                Some(sent) if *sent == span => {}
                Some(sent) => self.problems.push(format!("a span left changed: sent {sent:?}, left {span:?}")),
                None => self.problems.push(format!("a span left that was never sent: {span:?}")),
            }
        }
    }

    /// A trace may leave in several parts, each with at most one marked span.
    fn check_marks(&mut self) {
        for (id, left) in &self.left {
            if !(1..=left.departures).contains(&left.marked) {
                let (label, parts) = (self.labels.get(id), left.departures);
                self.problems.push(format!("{label:?}: {} spans with tailkeep.* in {parts} parts", left.marked));
            }
        }
    }

    /// Everything that is not as expected, for a person to read; empty if nothing.
    pub fn problems(&self, expected: &Expected) -> Vec<String> {
        let mut problems = self.problems.clone();
        for (label, fate) in &expected.traces {
            let traces: Vec<_> = self.traces(label).collect();
            if !fate.leave.holds(traces.len() as u64) {
                problems.push(format!("{label}: {} traces left, expected {:?}", traces.len(), fate.leave));
            }
            for (id, left) in traces {
                let delay = left.first - self.arrived[id];
                problems.extend(fate.problems(left, delay).into_iter().map(|problem| format!("{label}: {problem}")));
            }
        }
        problems.extend(expected.estimates.iter().filter_map(|estimate| self.estimate(estimate)));
        problems
    }

    fn traces(&self, label: &str) -> impl Iterator<Item = (&Vec<u8>, &Left)> {
        self.left.iter().filter(move |(id, _)| self.labels.get(*id) == Some(&label))
    }

    fn estimate(&self, estimate: &Estimate) -> Option<String> {
        let sum = |labels: &[String]| -> f64 {
            labels.iter().flat_map(|label| self.traces(label)).map(|(_, left)| left.weight()).sum()
        };
        let value = sum(&estimate.of) / if estimate.per.is_empty() { 1.0 } else { sum(&estimate.per) };
        let [least, most] = estimate.between;
        let holds = (least..=most).contains(&value);
        (!holds).then(|| format!("estimate of {}: {value}, expected {least} to {most}", estimate.what))
    }
}

impl Left {
    /// How many traces this one stands for; zero without a weight.
    fn weight(&self) -> f64 {
        self.thresholds.iter().flatten().next().map_or(0.0, |threshold| 1.0 / threshold.share())
    }
}

impl Fate {
    fn problems(&self, left: &Left, delay: u64) -> Vec<String> {
        let mark = |name| left.marks.get(name).map_or("no", String::as_str);
        let mut problems = Vec::new();
        let mut demand = |what: &str, wanted: &dyn Debug, got: &dyn Debug, holds: bool| {
            if !holds {
                problems.push(format!("{what} is {got:?}, expected {wanted:?}"));
            }
        };
        if let Some(spans) = self.spans {
            let count = left.spans.len() as u64;
            demand("number of spans", &spans, &count, spans.holds(count));
        }
        for (name, wanted) in [("rule", &self.rule), ("trigger", &self.trigger), ("incomplete", &self.incomplete)] {
            if let Some(wanted) = wanted {
                demand(name, wanted, &mark(name), wanted.holds(mark(name)));
            }
        }
        if let Some([least, most]) = self.delay {
            demand("delay", &(least, most), &delay, (least..=most).contains(&delay));
        }
        if let Some(weight) = self.weight {
            demand("weight", &weight, &left.thresholds, weight.holds(&left.thresholds));
        }
        problems
    }
}

impl Weight {
    /// The same on every span.
    fn holds(self, thresholds: &BTreeSet<Option<Threshold>>) -> bool {
        let wanted = match self {
            Weight::Is(weight) => Some(Threshold::from_share(1.0 / weight)),
            Weight::No(NoWeight::Erased) => None,
        };
        thresholds.iter().eq([&wanted])
    }
}

fn spans(request: ExportTraceServiceRequest) -> impl Iterator<Item = Span> {
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans)
}

/// The span as it was sent, its `tailkeep.*` attributes, and the threshold in its trace state.
fn without_additions(mut span: Span) -> (Span, BTreeMap<String, String>, Option<Threshold>) {
    let marks = span.attributes.iter().filter_map(|attribute| {
        let name = attribute.key.strip_prefix("tailkeep.")?;
        Some((name.to_owned(), text(attribute)))
    });
    let marks = marks.collect();
    span.attributes.retain(|attribute| !attribute.key.starts_with("tailkeep."));
    // The traffic of a case has no trace state of its own; `rv` is written for the few ids that look like EagleEye's.
    let member = span.trace_state.strip_prefix("ot=th:").unwrap_or_default();
    let threshold = Threshold::parse(member.split(';').next().unwrap_or_default().as_bytes());
    if threshold.is_some() || span.trace_state.starts_with("ot=rv:") {
        span.trace_state.clear();
    }
    (span, marks, threshold)
}

fn text(attribute: &KeyValue) -> String {
    match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        other => format!("{other:?}"),
    }
}
