//! Two small HTTP listeners. `health` (`/healthz`, `/readyz`, `/metrics`) shows no content of traces and
//! asks nobody who he is; `admin` (`/policy` and below it, `/why/{id}`, `/traces/{id}`, `/keep/{id}`) does show it, so
//! it listens on loopback or wants a token, and may speak TLS.

mod acceptor;
pub mod answer;
mod caller;
mod connections;
mod content;
mod page;
mod pieces;
mod plan;
mod route;

pub use answer::{Answer, SpansSeen};
pub use connections::serve;
pub use plan::{PlanPolicy, PlanRequest, PlanTurn};

use crate::prometheus::PageReader;
use crate::secret::Credential;
use crate::trace::TraceId;
use std::fmt;
use std::io;
use std::sync::Arc;

/// Whoever can answer. Called on a thread where blocking does no harm, but for `is_ready`,
/// `take_plan_turn` and `count_closed`.
pub trait AdminApi: Send + Sync + 'static {
    /// False before the policy is loaded and while draining. Overload does not make it false.
    fn is_ready(&self) -> bool;
    /// Writes all metrics as Prometheus text; fails only if `out` does.
    fn metrics(&self, reader: PageReader, out: &mut dyn fmt::Write) -> fmt::Result;
    /// The policy in force, as JSON.
    fn policy(&self) -> String;
    /// The one that was in force before it, if there was one.
    fn former_policy(&self) -> Option<String>;
    /// Puts that one in force again, and says what is in force now.
    fn restore_policy(&self) -> Option<String>;
    /// The turn to make a plan or a profile; none while another has it.
    fn take_plan_turn(&self) -> Option<PlanTurn>;
    /// What another policy would do with the traffic in the ring, as JSON.
    ///
    /// # Errors
    /// What is wrong with the policy or a condition.
    fn plan(&self, turn: PlanTurn, request: &PlanRequest) -> Result<String, String>;
    /// What flows, by operation, as JSON.
    fn traffic(&self, turn: PlanTurn) -> String;
    fn why(&self, id: TraceId) -> Answer;
    /// Gives the spans of a trace, from the ring or the store, in pieces: fields of an `ExportTraceServiceRequest`.
    /// False if the trace is unknown. An error is `give`'s, or says why the rest cannot be read.
    fn trace(&self, id: TraceId, give: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<bool>;
    /// Keeps a trace that is in the ring.
    fn keep(&self, id: TraceId) -> bool;
    /// A connection was closed that its peer would have kept.
    fn count_closed(&self, why: CloseReason);
}

/// What a listener answers.
#[derive(Clone)]
pub enum Audience {
    Health,
    /// With a token, requests must carry `Authorization: Bearer TOKEN`; without one, they must come from this host.
    Admin {
        token: Option<Arc<Credential>>,
    },
}

impl Audience {
    /// The section of the configuration.
    fn word(&self) -> &'static str {
        match self {
            Audience::Health => "health",
            Audience::Admin { .. } => "admin",
        }
    }
}

/// Why a connection was closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// The bound was reached, and nothing had moved on this one for the longest time.
    ForAnother,
    /// Its peer did not take the answer in time.
    TooSlow,
    /// The TLS handshake failed, or did not end in time.
    TlsFailed,
    /// It does not speak TLS on a listener with it.
    TlsMissing,
    /// It speaks TLS on a listener without.
    TlsUnexpected,
}

impl CloseReason {
    pub const ALL: [CloseReason; 5] = [
        CloseReason::ForAnother,
        CloseReason::TooSlow,
        CloseReason::TlsFailed,
        CloseReason::TlsMissing,
        CloseReason::TlsUnexpected,
    ];

    pub fn word(self) -> &'static str {
        match self {
            CloseReason::ForAnother => "for_another",
            CloseReason::TooSlow => "too_slow",
            CloseReason::TlsFailed => "tls_failed",
            CloseReason::TlsMissing => "tls_missing",
            CloseReason::TlsUnexpected => "tls_unexpected",
        }
    }
}

#[cfg(test)]
mod tests;
