//! Hands kept traces, metrics and logs to every sink that takes them.

pub mod batch;
pub mod client;
pub mod queue;
pub mod retry;
pub mod sink;
pub mod spool;
