//! The same as [`super::super::Processing`], slowly, over decoded messages.

use super::*;

pub(super) struct Reference {
    settings: ProcessingSettings,
    hasher: Hasher,
    apart: Hasher,
    everywhere: [Regex; 2],
    in_note: Regex,
}

#[derive(Clone, Copy)]
struct At {
    /// Values of the attribute `note`, which has a mask of its own.
    in_note: bool,
    names_series: bool,
}

const PLAIN: At = At { in_note: false, names_series: false };
const SERIES: At = At { in_note: false, names_series: true };

impl Reference {
    pub(super) fn new(settings: ProcessingSettings) -> Reference {
        let (hasher, apart) = match &settings.hash_key {
            Some(key) => (Hasher::keyed(&key.0), Hasher::keyed(&key.0)),
            None => (Hasher::plain(), Hasher::keyed(&RANDOM.to_ne_bytes())),
        };
        let everywhere = [
            r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+",
            r"(?-u:\b)(?:86[ -]?)?1[3-9][0-9](?:[ -]?[0-9]{4}){2}(?-u:\b)",
        ];
        let everywhere = everywhere.map(|expression| Regex::new(expression).unwrap());
        Reference { settings, hasher, apart, everywhere, in_note: Regex::new("[a-z]{3}-[0-9]+").unwrap() }
    }

    pub(super) fn traces(&self, mut request: ExportTraceServiceRequest) -> ExportTraceServiceRequest {
        for group in &mut request.resource_spans {
            let has_leaf = group.scope_spans.iter().any(|scope| !scope.spans.is_empty());
            self.resource(&mut group.resource, has_leaf, PLAIN);
            for scope in &mut group.scope_spans {
                self.scope(&mut scope.scope, PLAIN);
                for span in &mut scope.spans {
                    self.text(&mut span.name, PLAIN);
                    self.attributes(&mut span.attributes, PLAIN);
                    span.status.iter_mut().for_each(|status| self.text(&mut status.message, PLAIN));
                    for event in &mut span.events {
                        self.text(&mut event.name, PLAIN);
                        self.attributes(&mut event.attributes, PLAIN);
                    }
                    span.links.iter_mut().for_each(|link| self.attributes(&mut link.attributes, PLAIN));
                }
            }
        }
        request
    }

    pub(super) fn logs(&self, mut request: ExportLogsServiceRequest) -> ExportLogsServiceRequest {
        for group in &mut request.resource_logs {
            self.resource(&mut group.resource, true, PLAIN);
            for scope in &mut group.scope_logs {
                self.scope(&mut scope.scope, PLAIN);
                for record in &mut scope.log_records {
                    record.body.iter_mut().for_each(|body| self.value(body, PLAIN));
                    self.attributes(&mut record.attributes, PLAIN);
                }
            }
        }
        request
    }

    pub(super) fn metrics(&self, mut request: ExportMetricsServiceRequest) -> ExportMetricsServiceRequest {
        for group in &mut request.resource_metrics {
            self.resource(&mut group.resource, true, SERIES);
            for scope in &mut group.scope_metrics {
                self.scope(&mut scope.scope, SERIES);
                scope.metrics.iter_mut().filter_map(|metric| metric.data.as_mut()).for_each(|data| self.data(data));
            }
        }
        request
    }

    fn data(&self, data: &mut Data) {
        let points: Vec<(&mut Vec<KeyValue>, Option<&mut Vec<Exemplar>>)> = match data {
            Data::Gauge(Gauge { data_points }) | Data::Sum(Sum { data_points, .. }) => {
                data_points.iter_mut().map(|point| (&mut point.attributes, Some(&mut point.exemplars))).collect()
            }
            Data::Histogram(data) => {
                data.data_points.iter_mut().map(|point| (&mut point.attributes, Some(&mut point.exemplars))).collect()
            }
            Data::ExponentialHistogram(data) => {
                data.data_points.iter_mut().map(|point| (&mut point.attributes, Some(&mut point.exemplars))).collect()
            }
            Data::Summary(data) => data.data_points.iter_mut().map(|point| (&mut point.attributes, None)).collect(),
        };
        for (attributes, exemplars) in points {
            self.attributes(attributes, SERIES);
            for exemplar in exemplars.into_iter().flatten() {
                self.attributes(&mut exemplar.filtered_attributes, PLAIN);
            }
        }
    }

    fn resource(&self, resource: &mut Option<Resource>, has_leaf: bool, at: At) {
        resource.iter_mut().for_each(|resource| self.attributes(&mut resource.attributes, at));
        if has_leaf {
            let attributes = &mut resource.get_or_insert_default().attributes;
            for (key, value) in &self.settings.resource {
                if !attributes.iter().any(|attribute| attribute.key == *key) {
                    attributes.push(pair(key, text(value)));
                }
            }
        }
    }

    fn scope(&self, scope: &mut Option<InstrumentationScope>, at: At) {
        scope.iter_mut().for_each(|scope| self.attributes(&mut scope.attributes, at));
    }

    fn attributes(&self, attributes: &mut Vec<KeyValue>, at: At) {
        if !at.names_series {
            attributes.retain(|attribute| !self.settings.drop.has(attribute.key.as_bytes()));
        }
        for KeyValue { key, value, .. } in attributes {
            let Some(value) = value else { continue };
            if self.settings.drop.has(key.as_bytes()) {
                self.hash(value, &self.apart);
            } else if self.settings.hash.has(key.as_bytes()) {
                self.hash(value, &self.hasher);
            } else {
                self.value(value, At { in_note: at.in_note || key == "note", ..at });
            }
        }
    }

    fn hash(&self, value: &mut AnyValue, hasher: &Hasher) {
        let bytes = match &value.value {
            None => return,
            Some(Value::StringValue(text)) => text.clone().into_bytes(),
            Some(Value::BoolValue(value)) => value.to_string().into_bytes(),
            Some(Value::IntValue(value)) => value.to_string().into_bytes(),
            Some(Value::DoubleValue(value)) => value.to_string().into_bytes(),
            Some(Value::BytesValue(bytes)) => bytes.clone(),
            Some(Value::ArrayValue(values)) => values.encode_to_vec(),
            Some(Value::KvlistValue(values)) => values.encode_to_vec(),
            Some(other) => panic!("not made here: {other:?}"),
        };
        if !bytes.is_empty() {
            *value = text(&hasher.of(&bytes));
        }
    }

    fn value(&self, value: &mut AnyValue, at: At) {
        match &mut value.value {
            Some(Value::StringValue(text)) => self.text(text, at),
            Some(Value::IntValue(number)) => {
                let mut digits = number.to_string();
                self.text(&mut digits, at);
                if digits != number.to_string() {
                    *value = text(&digits);
                }
            }
            Some(Value::ArrayValue(values)) => values.values.iter_mut().for_each(|value| self.value(value, at)),
            Some(Value::KvlistValue(values)) => self.attributes(&mut values.values, at),
            _ => {}
        }
    }

    fn text(&self, text: &mut String, at: At) {
        for expression in self.everywhere.iter().chain(at.in_note.then_some(&self.in_note)) {
            let found: Vec<_> = expression.find_iter(text).map(|found| found.range()).collect();
            for range in found.into_iter().rev() {
                let instead = match at.names_series {
                    true => self.apart.of(text[range.clone()].as_bytes())[..16].to_owned(),
                    false => "****".to_owned(),
                };
                text.replace_range(range, &instead);
            }
        }
    }
}
