//! Says in the log who is refused for good, and why: the sender's own log often does not.
//!
//! A client with a wrong setting comes again and again, so each reason has at most one line a minute,
//! which says how many more there were. The reasons are a closed set, so the log is bounded.

use super::outcome::{ConnectionFault, RequestOutcome};
use crate::terminal::quote;
use http::header::USER_AGENT;
use http::{HeaderMap, HeaderValue};
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Rest between two lines about the same reason.
const PAUSE: Duration = Duration::from_secs(60);
/// Characters of a reason that the log shows: it may quote what was sent.
const WHY_MAX: usize = 200;
/// Bytes of `user-agent` that are kept while a request is answered.
const AGENT_MAX: usize = 64;

/// Who sent a request or opened a connection.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    pub peer: SocketAddr,
    agent: Option<Box<[u8]>>,
}

impl Sender {
    /// A peer that has sent no header.
    pub fn silent(peer: SocketAddr) -> Sender {
        Sender { peer, agent: None }
    }

    /// The sender of a request with these headers.
    pub fn of(peer: SocketAddr, headers: &HeaderMap) -> Sender {
        let agent = headers.get(USER_AGENT).map(HeaderValue::as_bytes);
        Sender { peer, agent: agent.map(|agent| agent[..agent.len().min(AGENT_MAX)].into()) }
    }

    fn agent(&self) -> String {
        self.agent.as_ref().map_or_else(String::new, |agent| quote(&String::from_utf8_lossy(agent), AGENT_MAX))
    }
}

/// Why somebody is refused, and will be again if nobody changes something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Complaint {
    /// A request that its client will not send again.
    Request(RequestOutcome),
    /// A request for something that is no OTLP endpoint.
    Unrouted,
    /// A request that was taken, though nothing in it was known.
    NothingKnown,
    /// A request of which a part was refused for good.
    Partial,
    Connection(ConnectionFault),
}

impl Complaint {
    const COUNT: usize = RequestOutcome::ALL.len() + 3 + ConnectionFault::ALL.len();

    fn place(self) -> usize {
        let others = RequestOutcome::ALL.len();
        match self {
            Complaint::Request(outcome) => outcome as usize,
            Complaint::Unrouted => others,
            Complaint::NothingKnown => others + 1,
            Complaint::Partial => others + 2,
            Complaint::Connection(fault) => others + 3 + fault as usize,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Complaint::Request(outcome) => outcome.word(),
            Complaint::Unrouted => "unrouted",
            Complaint::NothingKnown => "nothing_known",
            Complaint::Partial => "partial",
            Complaint::Connection(fault) => fault.word(),
        }
    }
}

/// When a reason was last spoken of, and how often it came up since.
#[derive(Clone, Copy, Default)]
struct LoggedReason {
    last: Option<Instant>,
    unsaid: u64,
}

/// Speaks of each reason once in a while.
pub(super) struct RefusalLog(Mutex<[LoggedReason; Complaint::COUNT]>);

impl Default for RefusalLog {
    fn default() -> Self {
        RefusalLog(Mutex::new([LoggedReason::default(); Complaint::COUNT]))
    }
}

impl RefusalLog {
    /// Notes that somebody was refused.
    pub fn note(&self, complaint: Complaint, sender: &Sender, why: impl Display) {
        let Some(more) = self.due(complaint) else { return };
        let (reason, peer, agent) = (complaint.word(), sender.peer, sender.agent());
        let why = quote(&why.to_string(), WHY_MAX);
        tracing::warn!(reason, %peer, agent, why, more, "a client sends what cannot be taken");
    }

    /// How many were not spoken of since the last line, if it is time for one.
    fn due(&self, complaint: Complaint) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let spoken = &mut all[complaint.place()];
        if spoken.last.is_some_and(|last| last.elapsed() < PAUSE) {
            spoken.unsaid += 1;
            return None;
        }
        spoken.last = Some(Instant::now());
        Some(std::mem::take(&mut spoken.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_reason_has_one_line_a_minute_that_counts_the_others() {
        let log = RefusalLog::default();
        let malformed = Complaint::Request(RequestOutcome::Malformed);
        assert_eq!(log.due(malformed), Some(0));
        for _ in 0..1000 {
            assert_eq!(log.due(malformed), None);
        }
        assert_eq!(log.due(Complaint::Unrouted), Some(0), "another reason is not held back");
        tokio::time::advance(PAUSE).await;
        assert_eq!(log.due(malformed), Some(1000));
        assert_eq!(log.due(malformed), None);
    }

    #[test]
    fn every_reason_has_a_place_of_its_own() {
        let requests = RequestOutcome::ALL.map(Complaint::Request);
        let connections = ConnectionFault::ALL.map(Complaint::Connection);
        let others = [Complaint::Unrouted, Complaint::NothingKnown, Complaint::Partial];
        let all = requests.into_iter().chain(others).chain(connections);
        let places: Vec<usize> = all.map(Complaint::place).collect();
        assert_eq!(places, (0..Complaint::COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn a_long_name_of_a_client_is_cut_and_cleaned() {
        let headers = HeaderMap::from_iter([(USER_AGENT, HeaderValue::from_bytes(&[0xff; 200]).unwrap())]);
        let sender = Sender::of(SocketAddr::from(([127, 0, 0, 1], 1)), &headers);
        assert_eq!(sender.agent.as_ref().map(|agent| agent.len()), Some(AGENT_MAX));
        assert_eq!(sender.agent().chars().count(), AGENT_MAX);
    }
}
