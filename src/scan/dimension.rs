//! The extra dimensions of the request metrics: attributes of a span, or else of its resource.
//! While a span is walked they are hashes; the texts are read when a series is new.

use super::answer::{DIMENSIONS_MAX, Questions};
use super::wire::{ComparableValue, Malformed, Reader, read_key_value};
use super::{Keyed, ResourceAnswers, Scan};
use crate::trace::{Slice, SpanView};
use std::fmt::Display;
use std::io::Write;

/// Zero stands for "absent". Values that read alike are one, and so are an empty and an absent one: a
/// metric may not have the same labels twice.
pub(super) fn dimension_hash(body: &[u8], value: ComparableValue, keyed: &Keyed) -> u64 {
    match value {
        ComparableValue::Text(text) if text.len > 0 => keyed.hash(text.of(body)) | 1,
        ComparableValue::Bool(value) => hash_as_text(value, keyed),
        ComparableValue::Int(number) => hash_as_text(number, keyed),
        ComparableValue::Double(number) => hash_as_text(number, keyed),
        ComparableValue::Text(_) | ComparableValue::Array(_) | ComparableValue::Other => 0,
    }
}

fn hash_as_text(value: impl Display, keyed: &Keyed) -> u64 {
    // The smallest double has 327 characters.
    let mut text = [0; 352];
    let mut rest = &mut text[..];
    write!(rest, "{value}").expect("no number is longer");
    let unused = rest.len();
    keyed.hash(&text[..text.len() - unused]) | 1
}

/// Names the operation that measures a span: its service, name, kind and dimensions.
pub(super) fn operation_hash(
    span: &SpanView,
    resource: &ResourceAnswers,
    own: Option<&[u64; DIMENSIONS_MAX]>,
    questions: &Questions,
    keyed: &Keyed,
) -> u64 {
    let dimensions = own.unwrap_or(&resource.dimensions);
    let start = keyed.mix(resource.service_hash ^ (span.kind as u64) << 8, span.name_hash);
    dimensions[..questions.dimensions.len()].iter().fold(start, |hash, &value| keyed.mix(hash, value))
}

/// The values of the extra metric dimensions of a span, as text; a span's own attribute goes before
/// its resource's. Slow: meant for series that are new.
pub fn dimensions(scan: &Scan, body: &[u8], span: &SpanView, questions: &Questions) -> Vec<Option<String>> {
    let mut values = vec![None; questions.dimensions.len()];
    let resource = scan.resources[scan.scopes[span.scope as usize].resource as usize];
    let header = resource.header.of(&scan.arena);
    // The fields cannot be malformed: scan has walked them.
    let _ = read_dimensions(header, Slice { start: 0, len: header.len() as u32 }, &[1, 1], questions, &mut values);
    let _ = read_dimensions(body, span.raw, &[9], questions, &mut values);
    values
}

fn read_dimensions(
    body: &[u8],
    message: Slice,
    path: &[u32],
    questions: &Questions,
    values: &mut [Option<String>],
) -> Result<(), Malformed> {
    let mut fields = Reader::new(body, message);
    while let Some(field) = fields.next()? {
        match path {
            [last] if field.number == *last => {
                let (key, value) = read_key_value(body, field.value.bytes()?)?;
                let wanted = questions.dimensions.iter().position(|name| name.as_bytes() == key.of(body));
                if let Some((index, value)) = wanted.zip(value) {
                    values[index] = any_text(body, ComparableValue::read(body, value)?);
                }
            }
            [first, deeper @ ..] if field.number == *first => {
                read_dimensions(body, field.value.bytes()?, deeper, questions, values)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn any_text(body: &[u8], value: ComparableValue) -> Option<String> {
    match value {
        ComparableValue::Text(text) if text.len > 0 => Some(String::from_utf8_lossy(text.of(body)).into_owned()),
        ComparableValue::Bool(value) => Some(value.to_string()),
        ComparableValue::Int(number) => Some(number.to_string()),
        ComparableValue::Double(number) => Some(number.to_string()),
        ComparableValue::Text(_) | ComparableValue::Array(_) | ComparableValue::Other => None,
    }
}
