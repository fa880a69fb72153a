//! One verdict for a trace whose spans arrive at several nodes.
//!
//! Raw spans stay where they are. A node tells what it knows of a trace, its [`part`], once it sees what a rule could
//! keep the trace for (see [`crate::policy::witness`]). A [`decider`] merges the parts and judges the trace as one
//! process with all of its spans would. Everything here is pure: time and messages are arguments.

pub mod decider;
pub mod part;

/// A process that has parts of traces: random, another one after each start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct NodeId(pub u64);
