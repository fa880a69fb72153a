//! OTLP's messages as bytes: their fields in protobuf, and the same as OTLP/JSON. Nothing is decoded into structs:
//! two bytes on the wire can be a hundred in memory. Pure.

pub mod attributes;
pub mod json;
pub mod schema;
pub mod spans;
pub mod status;
pub mod walk;
pub mod wire;

use http::HeaderName;

/// Messages and groups may nest this deep in a request: what prost, Java and C++ take unless they are told
/// otherwise.
pub const DEPTH_MAX: usize = 100;

/// The header by which a collector says where a request has been: a comma-separated list of ids that
/// only those know who send to each other. Sinks send it; the receiver refuses a request that has been
/// here.
pub const HOP_HEADER: HeaderName = HeaderName::from_static("tailkeep-hop");
