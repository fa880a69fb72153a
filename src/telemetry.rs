//! How the process speaks of itself: its log.

pub mod log;

pub use log::{LogFormat, start_log};
