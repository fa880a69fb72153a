//! tailkeep: an OTLP collector with tail-based sampling.
//!
//! The modules stand in the order in which a span travels:
//! bytes come in ([`receive`]), are walked once ([`scan`]), counted ([`measure`]),
//! copied into bounded memory ([`ring`], owned by a [`shard`]), judged ([`policy`])
//! and, if kept, handed on ([`deliver`]), also to a file of our own ([`store`]). [`trace`] holds the words that all of them share.

pub mod otlp;
pub mod trace;

pub mod deliver;
pub mod measure;
pub mod pipeline;
pub mod plan;
pub mod policy;
pub mod processing;
pub mod receive;
pub mod ring;
pub mod scan;
pub mod shard;
pub mod store;

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod demo;
pub mod diagnostic;
pub mod doctor;
pub mod estimate;
pub mod fleet;
pub mod http_client;
pub mod identity;
pub mod import;
pub mod policy_test;
pub mod prometheus;
pub mod secret;
pub mod suggest;
pub mod supervise;
pub mod telemetry;
pub mod terminal;
pub mod tls;
pub mod watched_files;
pub mod xml;
pub mod yaml;
