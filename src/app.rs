//! Builds the stages from a configuration and runs them: the only module that knows them all.

pub mod exposition;
pub mod force;
pub mod pipeline;
pub mod service;
