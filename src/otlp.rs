//! OTLP's messages as bytes: their fields in protobuf, and the same as OTLP/JSON. Nothing is decoded into structs:
//! two bytes on the wire can be a hundred in memory. Pure.

pub mod fields;
pub mod json;
pub mod spans;
pub mod walk;
pub mod wire;
