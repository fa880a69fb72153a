//! The local store: kept traces in one SQLite file, bounded by size. One process writes it; `tailkeep traces`, the
//! admin interface and any SQLite client read it meanwhile.
//!
//! The schema is public: docs/store.md describes every table and column. `PRAGMA user_version` is
//! [`SCHEMA_VERSION`] and changes with it.

mod context;
mod failure;
mod file;
mod json;
mod place;
mod read;
mod room;
mod schema;
mod span;
mod table;
mod write;

pub use failure::StoreFailure;
pub use file::{SIZE_MIN, StoreFile};
pub use read::{Store, StoredPage, StoredTrace, TraceFilter, TraceRow};
pub use schema::SCHEMA_VERSION;
pub use table::render_traces;

#[cfg(test)]
mod tests;
