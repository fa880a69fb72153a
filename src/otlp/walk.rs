//! A request's spans, log records or metrics one after the other, from any place on: what a retry does not send again
//! is not walked again either.

use super::wire::{Field, Fields};
use std::borrow::Cow;

/// The field that leads inwards: from a request, a resource, a scope.
const LEVELS: [u32; 3] = [1, 2, 2];
/// The data of a metric, by its kind.
const DATA: [u32; 5] = [5, 7, 9, 10, 11];
const POINTS: u32 = 1;

/// A place in a request: offsets of the resource in the request, of the scope in the resource, and so on. What is
/// before it is done with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    resource: usize,
    scope: usize,
    leaf: usize,
    /// Within a metric.
    data: usize,
    point: usize,
}

/// A span, a log record or a metric with what is around it.
#[derive(Clone, Copy)]
pub struct Leaf<'a> {
    /// `ResourceSpans` or its like.
    pub resource: &'a [u8],
    /// `ScopeSpans` or its like.
    pub scope: &'a [u8],
    pub bytes: &'a [u8],
    pub at: Place,
    /// Behind it.
    pub after: Place,
}

/// A data point with the number of its metric's data field, and that field.
#[derive(Clone, Copy)]
pub struct Point<'a> {
    pub kind: u32,
    pub data: &'a [u8],
    pub bytes: &'a [u8],
    /// Behind it.
    pub after: Place,
}

/// What was read of a message around leaves, so that it is read once and not for each of them.
pub struct ReadOnce<T>(Option<(*const u8, T)>);

impl<T> Default for ReadOnce<T> {
    fn default() -> Self {
        ReadOnce(None)
    }
}

impl<T> ReadOnce<T> {
    /// `message` holds a leaf, so no two of them are at one place.
    pub fn of<'a>(&mut self, message: &'a [u8], read: impl FnOnce(&'a [u8]) -> T) -> &T {
        match &mut self.0 {
            Some((at, _)) if *at == message.as_ptr() => {}
            other => *other = Some((message.as_ptr(), read(message))),
        }
        self.0.as_ref().map(|(_, value)| value).expect("it was just read")
    }
}

/// All leaves from a place on.
pub fn leaves(request: &[u8], from: Place) -> impl Iterator<Item = Leaf<'_>> {
    let resources = children(request, from.resource, LEVELS[0]);
    resources.flat_map(move |(resource_at, _, resource)| {
        // Offsets of inner levels belong to the first on the outer one.
        let inner = if resource_at == from.resource { from } else { Place::default() };
        let scopes = children(resource, inner.scope, LEVELS[1]);
        scopes.flat_map(move |(scope_at, _, scope)| {
            let inner = if scope_at == inner.scope { inner } else { Place::default() };
            children(scope, inner.leaf, LEVELS[2]).map(move |(leaf_at, leaf_end, bytes)| {
                let at = Place { resource: resource_at, scope: scope_at, leaf: leaf_at, data: 0, point: 0 };
                let inner = if leaf_at == inner.leaf { inner } else { Place::default() };
                let at = Place { data: inner.data, point: inner.point, ..at };
                Leaf { resource, scope, bytes, at, after: Place { leaf: leaf_end, data: 0, point: 0, ..at } }
            })
        })
    })
}

/// The data points of a metric, from the leaf's place on.
pub fn points<'a>(metric: &Leaf<'a>) -> impl Iterator<Item = Point<'a>> {
    let from = metric.at;
    let data = fields(metric.bytes, from.data).filter(|(_, _, field)| DATA.contains(&field.number));
    data.filter_map(|(at, _, field)| Some((at, field.number, field.payload()?))).flat_map(
        move |(data_at, kind, data)| {
            let first = if data_at == from.data { from.point } else { 0 };
            children(data, first, POINTS).map(move |(_, point_end, bytes)| {
                let after = Place { data: data_at, point: point_end, ..from };
                Point { kind, data, bytes, after }
            })
        },
    )
}

/// The length-delimited fields `number` from an offset on: where each begins, where it ends, its payload.
fn children(message: &[u8], from: usize, number: u32) -> impl Iterator<Item = (usize, usize, &[u8])> {
    fields(message, from).filter_map(move |(at, end, field)| Some((at, end, field.message(number)?)))
}

fn fields(message: &[u8], from: usize) -> impl Iterator<Item = (usize, usize, Field<&[u8]>)> {
    let mut end = from;
    Fields::new(message.get(from..).unwrap_or_default()).map_while(move |field| {
        let field = field?;
        let at = end;
        end += field.raw.len();
        Some((at, end, field))
    })
}

/// The payloads of all fields `number`.
pub fn all(message: &[u8], number: u32) -> impl Iterator<Item = &[u8]> + Clone {
    fields_of(message).filter_map(move |field| field.message(number))
}

/// Of a field that occurs repeatedly the last counts.
pub fn last(message: &[u8], number: u32) -> Option<&[u8]> {
    all(message, number).last()
}

/// A text of a message: what is not UTF-8 is shown as `�`.
pub fn lossy(text: &[u8]) -> Cow<'_, str> {
    simdutf8::basic::from_utf8(text).map_or_else(|_| String::from_utf8_lossy(text), Cow::Borrowed)
}

/// The fields of a message, up to where it is malformed.
pub fn fields_of(message: &[u8]) -> impl Iterator<Item = Field<&[u8]>> + Clone {
    Fields::new(message).map_while(|field| field)
}

/// Whether all fields of a message can be read.
pub fn is_whole(message: &[u8]) -> bool {
    Fields::new(message).all(|field| field.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::{
        collector::metrics::v1::ExportMetricsServiceRequest,
        metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data},
    };
    use proptest::prelude::*;
    use prost::Message;

    /// Points per metric, metrics per scope, scopes per resource.
    fn shapes() -> impl Strategy<Value = Vec<Vec<Vec<usize>>>> {
        prop::collection::vec(prop::collection::vec(prop::collection::vec(0usize..4, 0..4), 0..4), 0..4)
    }

    fn request(shape: &[Vec<Vec<usize>>]) -> Vec<u8> {
        let mut next = 0;
        let mut metric = |points: usize| {
            let point = |n: usize| NumberDataPoint { time_unix_nano: n as u64, ..Default::default() };
            let data_points = (next..next + points).map(point).collect();
            next += points;
            Metric { data: Some(Data::Gauge(Gauge { data_points })), ..Default::default() }
        };
        let mut scope = |metrics: &Vec<usize>| ScopeMetrics {
            metrics: metrics.iter().map(|points| metric(*points)).collect(),
            ..Default::default()
        };
        let resource_metrics = shape
            .iter()
            .map(|scopes| ResourceMetrics {
                scope_metrics: scopes.iter().map(&mut scope).collect(),
                ..Default::default()
            })
            .collect();
        ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
    }

    fn times_from(body: &[u8], from: Place) -> Vec<(u64, Place)> {
        let mut found = Vec::new();
        for leaf in leaves(body, from) {
            for point in points(&leaf) {
                let time = NumberDataPoint::decode(point.bytes).unwrap().time_unix_nano;
                found.push((time, point.after));
            }
        }
        found
    }

    proptest! {
        #[test]
        fn a_walk_goes_on_from_any_place(shape in shapes()) {
            let body = request(&shape);
            let all = times_from(&body, Place::default());
            let count: usize = shape.iter().flatten().flatten().sum();
            prop_assert_eq!(all.iter().map(|(time, _)| *time).collect::<Vec<_>>(), (0..count as u64).collect::<Vec<_>>());
            for (index, (_, after)) in all.iter().enumerate() {
                prop_assert_eq!(&times_from(&body, *after)[..], &all[index + 1..]);
            }
        }
    }
}
