//! What traces say of their services, read in place.

use super::walk::{all, last, lossy};
use super::wire::{Fields, Value};
use crate::trace::Status;
use std::{borrow::Cow, collections::BTreeSet};

/// Adds the services of a request's resources.
pub fn add_services(request: &[u8], services: &mut BTreeSet<String>) {
    services.extend(all(request, 1).filter_map(service).map(Cow::into_owned));
}

/// Service and name of the span with this id.
pub fn find(request: &[u8], span_id: [u8; 8]) -> Option<(Option<String>, String)> {
    all(request, 1).find_map(|resource| {
        let mut spans = all(resource, 2).flat_map(|scope| all(scope, 2));
        let span = spans.find(|span| last(span, 2) == Some(&span_id))?;
        Some((service(resource).map(Cow::into_owned), lossy(last(span, 5).unwrap_or_default()).into_owned()))
    })
}

/// Spans with the status ERROR.
pub fn count_failed(request: &[u8]) -> u64 {
    let spans = all(request, 1).flat_map(|resource| all(resource, 2)).flat_map(|scope| all(scope, 2));
    spans.filter(|span| status(span) == Status::Error).count() as u64
}

/// The last code, as a status that occurs again is merged.
fn status(span: &[u8]) -> Status {
    let codes = all(span, 15).flat_map(|status| Fields::new(status).flatten()).filter_map(|field| match field.value {
        Value::Varint(code) if field.number == 3 => Some(code),
        _ => None,
    });
    codes.last().map_or(Status::Unset, Status::from_wire)
}

/// The attribute `service.name` of a `ResourceSpans`, if it is a text.
fn service(resource_spans: &[u8]) -> Option<Cow<'_, str>> {
    let attributes = all(resource_spans, 1).flat_map(|resource| all(resource, 1));
    let mut named = attributes.filter(|attribute| last(attribute, 1) == Some(b"service.name"));
    named.find_map(|attribute| last(last(attribute, 2)?, 1)).map(lossy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::{
        collector::trace::v1::ExportTraceServiceRequest,
        common::v1::{AnyValue, KeyValue, any_value},
        resource::v1::Resource,
        trace::v1::{ResourceSpans, ScopeSpans, Span},
    };
    use prost::Message;

    fn resource_spans(service: &str, spans: Vec<Span>) -> ResourceSpans {
        let value = Some(AnyValue { value: Some(any_value::Value::StringValue(service.into())) });
        let attributes = vec![KeyValue { key: "service.name".into(), value, ..Default::default() }];
        ResourceSpans {
            resource: (!service.is_empty()).then(|| Resource { attributes, ..Default::default() }),
            scope_spans: vec![ScopeSpans::default(), ScopeSpans { spans, ..Default::default() }],
            ..Default::default()
        }
    }

    #[test]
    fn services_and_names_are_found() {
        let span = |id: u8| Span { span_id: vec![id; 8], name: format!("span {id}"), ..Default::default() };
        let resource_spans = vec![
            resource_spans("shop", vec![span(1)]),
            resource_spans("", vec![span(2)]),
            resource_spans("cart", vec![]),
        ];
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let mut services = BTreeSet::new();
        add_services(&body, &mut services);
        assert_eq!(services.into_iter().collect::<Vec<_>>(), ["cart", "shop"]);
        assert_eq!(find(&body, [1; 8]), Some((Some("shop".into()), "span 1".into())));
        assert_eq!(find(&body, [2; 8]), Some((None, "span 2".into())));
        assert_eq!(find(&body, [3; 8]), None);
    }
}
