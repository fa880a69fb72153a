use super::*;
use crate::otlp::schema::{self, Count, Kind};

/// References to a table of strings, which OTLP 1.10 has for profiles: checked, but neither read nor written as JSON.
const NOT_IN_JSON: [(MessageType, u32); 2] = [(MessageType::KeyValue, 3), (MessageType::AnyValue, 8)];
/// Beyond any number that OTLP uses.
const NUMBERS: std::ops::Range<u32> = 1..64;

/// Every message that can be reached, with its namesake in the other table.
fn pairs() -> Vec<(MessageType, &'static schema::Message)> {
    let mut pairs: Vec<(MessageType, &schema::Message)> =
        Signal::ALL.map(|signal| (MessageType::request(signal), schema::Message::request(signal))).to_vec();
    let mut at = 0;
    while let Some(&(shape, message)) = pairs.get(at) {
        for field in message.fields {
            if let (Kind::Nested(below), Some(Message(shape))) = (field.kind, shape.field(field.number))
                && !pairs.iter().any(|(known, other)| *known == shape && std::ptr::eq(*other, below))
            {
                pairs.push((shape, below));
            }
        }
        at += 1;
    }
    pairs
}

fn word(kind: &FieldKind) -> &'static str {
    match kind {
        Text => "text",
        Bytes => "bytes",
        Varint => "varint",
        Fixed32 => "fixed32",
        Fixed64 => "fixed64",
        Varints => "varints",
        Fixed64s => "fixed64s",
        Message(_) => "message",
    }
}

/// How the check must see a field of the other table.
fn expected(field: &schema::FieldSchema) -> &'static str {
    let is_list = matches!(field.count, Count::Many(_));
    match field.kind {
        Kind::Text => "text",
        Kind::Hex | Kind::Base64 => "bytes",
        Kind::Nested(_) => "message",
        Kind::Fixed32 => "fixed32",
        Kind::Fixed64 | Kind::Sfixed64 | Kind::Double if is_list => "fixed64s",
        Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => "fixed64",
        _ if is_list => "varints",
        _ => "varint",
    }
}

#[test]
fn both_tables_of_otlp_have_the_same_fields_of_the_same_kinds() {
    let pairs = pairs();
    assert!(pairs.len() >= 30, "{}", pairs.len());
    for (shape, message) in pairs {
        for number in NUMBERS.filter(|number| !NOT_IN_JSON.contains(&(shape, *number))) {
            let written = message.fields.iter().find(|field| field.number == number).map(expected);
            assert_eq!(shape.field(number).as_ref().map(word), written, "{shape:?}, field {number}");
        }
    }
}
