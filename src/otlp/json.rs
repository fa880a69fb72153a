//! OTLP/JSON, read as protobuf and written from it by one set of tables, without a struct in between.
//!
//! Source: OTLP specification, "JSON Protobuf Encoding", and protobuf's "ProtoJSON Format" for what that
//! leaves out: `NaN` and the infinities are texts.

mod read;
mod write;

pub use read::{Output, Unread, read, read_all};
pub use write::{SpanList, len, write};

#[cfg(test)]
mod tests;
