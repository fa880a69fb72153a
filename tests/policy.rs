//! The policy language from its text to a verdict: cases and diagnostics as files, and random policies
//! over random traces against a slow reference.
//!
//! `UPDATE_EXPECT=1 cargo test --test policy` writes the expected texts anew.

#[path = "policy/decider.rs"]
mod decider;
mod expected;
#[path = "policy/files.rs"]
mod files;
#[path = "policy/large.rs"]
mod large;
#[path = "policy/random.rs"]
mod random;
#[path = "policy/recordings.rs"]
mod recordings;
#[path = "policy/reference.rs"]
mod reference;
#[path = "policy/shadow.rs"]
mod shadow;
#[path = "policy/shared_limits.rs"]
mod shared_limits;
#[path = "policy/span.rs"]
mod span;
#[path = "policy/tested.rs"]
mod tested;
#[path = "policy/weights.rs"]
mod weights;
#[path = "policy/witness.rs"]
mod witness;
