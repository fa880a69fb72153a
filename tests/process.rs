//! The real binary between real sockets: what it promises from the first span to the last signal.
//!
//! Every process that these tests start is scraped the whole time, and its accounts must balance at every
//! scrape; see [`accounts`]. All traffic is on loopback, waits are short, and a process ends with its test.

#[path = "process/accounts.rs"]
mod accounts;
#[path = "process/admin.rs"]
mod admin;
#[path = "process/certificates.rs"]
mod certificates;
#[path = "process/chain.rs"]
mod chain;
#[path = "process/collector.rs"]
mod collector;
#[path = "process/counters.rs"]
mod counters;
#[path = "process/errors.rs"]
mod errors;
#[path = "process/grpc.rs"]
mod grpc;
#[path = "process/http.rs"]
mod http;
#[path = "process/log.rs"]
mod log;
#[path = "process/memory.rs"]
mod memory;
#[path = "process/peers.rs"]
mod peers;
#[path = "process/plan.rs"]
mod plan;
#[path = "process/processing.rs"]
mod processing;
#[path = "process/reload.rs"]
mod reload;
#[path = "process/routes.rs"]
mod routes;
#[path = "process/shadow.rs"]
mod shadow;
#[path = "process/shutdown.rs"]
mod shutdown;
#[path = "process/signals.rs"]
mod signals;
#[path = "process/sink.rs"]
mod sink;
#[path = "process/sinks.rs"]
mod sinks;
#[path = "process/spool.rs"]
mod spool;
#[path = "process/store.rs"]
mod store;
#[path = "process/storm.rs"]
mod storm;
#[path = "process/traffic.rs"]
mod traffic;
#[path = "process/verdicts.rs"]
mod verdicts;
