//! The extra dimensions of the request metrics: attributes of a span, or else of its resource.
//! While a span is walked they are hashes; the texts are read when a series is new.

use super::answer::{DIMENSIONS_MAX, Questions};
use super::wire::{ComparableValue, Malformed, Reader, read_key_value};
use super::{Keyed, ResourceAnswers, Scan};
use crate::trace::label::shortened;
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

/// Reads the texts that label operations of one request. Slow: meant for operations that are new. Those of a resource
/// are read and cut once, for one request may have as many operations as spans, all of one large resource.
pub struct LabelReader<'a> {
    scan: &'a Scan,
    body: &'a [u8],
    questions: &'a Questions,
    resource: Option<ResourceLabels>,
}

struct ResourceLabels {
    resource: u32,
    service: String,
    dimensions: Vec<Option<String>>,
}

/// What a resource and a span say of an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OperationLabels {
    /// Cut, see [`crate::trace::label`].
    pub service: String,
    pub name: String,
    /// The values of the extra metric dimensions; a span's own attribute goes before its resource's.
    pub dimensions: Vec<Option<String>>,
}

impl<'a> LabelReader<'a> {
    pub fn new(scan: &'a Scan, body: &'a [u8], questions: &'a Questions) -> LabelReader<'a> {
        LabelReader { scan, body, questions, resource: None }
    }

    pub fn read(&mut self, span: &SpanView) -> OperationLabels {
        let resource = self.scan.scopes[span.scope as usize].resource;
        let known = self.resource.take().filter(|known| known.resource == resource);
        let known = self.resource.insert(match known {
            Some(known) => known,
            None => ResourceLabels::read(self.scan, self.body, resource, self.questions),
        });
        let mut dimensions = known.dimensions.clone();
        if !dimensions.is_empty() {
            // The fields cannot be malformed: scan has walked them.
            let _ = read_dimensions(self.body, span.raw, &[9], self.questions, &mut dimensions);
        }
        let name = String::from_utf8_lossy(span.name.of(self.body)).into_owned();
        OperationLabels { service: known.service.clone(), name, dimensions }
    }
}

impl ResourceLabels {
    fn read(scan: &Scan, body: &[u8], resource: u32, questions: &Questions) -> ResourceLabels {
        let view = scan.resources[resource as usize];
        let mut dimensions = vec![None; questions.dimensions.len()];
        if !dimensions.is_empty() {
            let header = view.header.of(&scan.arena);
            let whole = Slice { start: 0, len: header.len() as u32 };
            let _ = read_dimensions(header, whole, &[1, 1], questions, &mut dimensions);
        }
        let cut = |text: String| shortened(text.into()).into_owned();
        let service = shortened(String::from_utf8_lossy(view.service.of(body))).into_owned();
        let dimensions = dimensions.into_iter().map(|value| value.map(cut)).collect();
        ResourceLabels { resource, service, dimensions }
    }
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
