//! Log Service.

mod sign;

pub use sign::SignatureVersion;
