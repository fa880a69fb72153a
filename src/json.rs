//! OTLP/JSON, read as protobuf by a set of tables, without a struct in between.
//!
//! Source: OTLP specification, "JSON Protobuf Encoding", and protobuf's "ProtoJSON Format" for what that
//! leaves out: `NaN` and the infinities are texts.

mod output;
mod read;
mod schema;

pub use output::Output;
pub use read::{Unread, read, read_all};

#[cfg(test)]
mod tests;
