//! Accepts connections, and bounds how many there are.

use super::activity::Activities;
use super::connection::{ListenerProtocol, Opened};
use super::context::RequestContext;
use super::{Phase, connection};
use crate::tls::ServerTls;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

/// First rest after the kernel refused a connection for lack of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest rest: the pause doubles as long as nothing can be accepted.
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Rest between two lines in the log about it.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// A bound listener and what its connections need.
pub(super) struct Listener {
    pub socket: TcpListener,
    pub protocol: ListenerProtocol,
    pub tls: Option<Arc<ServerTls>>,
}

impl Listener {
    /// Accepts until the phase is `Closed`, then waits for what is in flight. Dropped, it aborts it.
    pub async fn serve(self, context: Arc<RequestContext>, mut phase: watch::Receiver<Phase>) {
        let protocol = self.protocol;
        let (mut connections, mut activities) = (JoinSet::new(), Activities::default());
        let mut trouble = AcceptFailures::default();
        loop {
            tokio::select! {
                () = connection::closed(&mut phase) => break,
                Some(ended) = connections.join_next() => note_panic(protocol, ended),
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, peer)) => {
                        trouble.passed();
                        if has_room(protocol, &context, &mut connections, &mut activities) {
                            let (tls, context, phase) = (self.tls.clone(), context.clone(), phase.clone());
                            let activity = activities.open();
                            let opened = Opened { peer, protocol, tls, context, phase, activity };
                            connections.spawn(connection::serve(stream, opened));
                        }
                    }
                    Err(error) => trouble.rest_after(protocol, &error).await,
                },
            }
        }
        drop(self);
        while let Some(ended) = connections.join_next().await {
            note_panic(protocol, ended);
        }
    }
}

/// Whether one more connection may be served: there are not too many, or one that idles or stalls is told to go.
fn has_room(
    protocol: ListenerProtocol,
    context: &RequestContext,
    connections: &mut JoinSet<()>,
    activities: &mut Activities,
) -> bool {
    while let Some(ended) = connections.try_join_next() {
        note_panic(protocol, ended);
    }
    let has_room = connections.len() < context.settings.connections || activities.make_room();
    if !has_room {
        context.counters.connections_refused.fetch_add(1, Relaxed);
    }
    has_room
}

fn note_panic(protocol: ListenerProtocol, ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(
            protocol = protocol.word(),
            "a connection ended in a panic, its unanswered requests are lost unless sent again"
        );
    }
}

/// Accepting that fails: rests longer and longer, and says so once in a while.
#[derive(Default)]
struct AcceptFailures {
    pause: Duration,
    said: Option<Instant>,
    unsaid: u64,
}

impl AcceptFailures {
    fn passed(&mut self) {
        self.pause = Duration::ZERO;
    }

    async fn rest_after(&mut self, protocol: ListenerProtocol, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        // These concern only the connection that was about to be.
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
            return;
        }
        if let Some(more) = self.due() {
            tracing::warn!(protocol = protocol.word(), %error, more, "cannot accept connections, they wait");
        }
        self.pause = (self.pause * 2).clamp(ACCEPT_PAUSE, ACCEPT_PAUSE_MAX);
        tokio::time::sleep(self.pause).await;
    }

    /// How many failures were not spoken of, if it is time for a line.
    fn due(&mut self) -> Option<u64> {
        if self.said.is_some_and(|said| said.elapsed() < SAY_EVERY) {
            self.unsaid += 1;
            return None;
        }
        self.said = Some(Instant::now());
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_hour_without_descriptors_is_a_line_a_minute() {
        let error = io::Error::from_raw_os_error(24);
        let (mut trouble, start) = (AcceptFailures::default(), Instant::now());
        let (mut tries, mut lines) = (0, 0);
        while start.elapsed() < Duration::from_secs(3600) {
            let said = trouble.said;
            trouble.rest_after(ListenerProtocol::Http, &error).await;
            tries += 1;
            lines += u32::from(trouble.said != said);
        }
        assert!((59..=61).contains(&lines), "{lines} lines");
        assert!((1500..2500).contains(&tries), "{tries} tries");
        trouble.passed();
        let before = Instant::now();
        trouble.rest_after(ListenerProtocol::Http, &error).await;
        assert_eq!(before.elapsed(), ACCEPT_PAUSE, "after a success the pause is short again");
    }
}
