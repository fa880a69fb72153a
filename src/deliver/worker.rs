//! One sink's loop: takes entries in order, sends them, tries again, halves, and keeps the accounts.
//!
//! Each signal backs off by itself, so that an endpoint that answers for logs alone with 503 does not
//! hold up traces.

use super::{
    DeliveryPhase, DeliverySettings, NamedSink, Shared,
    batch::Piece,
    log_throttle::LogThrottle,
    queue::{Discard, NextBatch, StoredBody, Taken},
    refusal::{self, Refusals},
    retry::Backoff,
    sink::{Batch, SendError, SendResult, Sent, Sink},
    spool::{self, Location},
};
use crate::trace::Signal;
use bytes::Bytes;
use std::{collections::VecDeque, io, sync::Arc, time::Duration};
use tokio::time::Instant;
use tracing::{error, info, warn};

/// A sink that cannot flush within this is left as it is.
const CLOSE_MOST: Duration = Duration::from_secs(5);
/// A place on disk that cannot be read for as long is given up, so that what is behind it goes on.
const READ_MOST: Duration = Duration::from_secs(600);
/// Over what time it is seen how fast a queue fills.
const RATE_TIME: Duration = Duration::from_secs(60);

pub(super) struct SinkWorker {
    index: usize,
    name: String,
    sink: Box<dyn Sink>,
    shared: Arc<Shared>,
    signals: [SignalState; 3],
    random: u64,
}

/// What the loop knows of one signal.
#[derive(Debug)]
struct SignalState {
    /// The entry under way, until its body is here.
    unread: Option<Taken>,
    /// When it could not be read for the first time.
    unread_since: Option<Instant>,
    /// Of an entry whose body is here, what is left.
    pieces: VecDeque<Piece>,
    backoff: Backoff,
    not_before: Option<Instant>,
    refusals: Refusals,
    outage: Option<Outage>,
    /// One for each cause, so that no line tells another's.
    losses: [LogThrottle; Discard::ALL.len()],
    failures: LogThrottle,
}

/// A time in which nothing was taken.
#[derive(Debug)]
struct Outage {
    since: Instant,
    failures: u64,
    /// When and how much waited: a minute or two ago, or at the beginning; and since then.
    waited: [(Instant, u64); 2],
}

impl Outage {
    fn new(now: Instant, queued_bytes: u64) -> Outage {
        Outage { since: now, failures: 0, waited: [(now, queued_bytes); 2] }
    }

    /// When `room` more bytes will be used up, if what waits grows as it did in the last minute or two.
    fn full_in(&mut self, now: Instant, queued_bytes: u64, room: u64) -> Option<Duration> {
        let [(then, queued_then), (later, _)] = self.waited;
        if now.duration_since(later) >= RATE_TIME {
            self.waited = [self.waited[1], (now, queued_bytes)];
        }
        let grown = queued_bytes.saturating_sub(queued_then);
        let seconds = now.duration_since(then).as_secs_f64() * room as f64 / grown as f64;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

impl SignalState {
    fn new(longest_wait: Duration, longest_refusal: Duration) -> SignalState {
        SignalState {
            unread: None,
            unread_since: None,
            pieces: VecDeque::new(),
            backoff: Backoff::new(longest_wait),
            not_before: None,
            refusals: Refusals::new(longest_refusal),
            outage: None,
            losses: Default::default(),
            failures: LogThrottle::default(),
        }
    }
}

impl SinkWorker {
    pub(super) fn new(index: usize, named: NamedSink, shared: Arc<Shared>, settings: &DeliverySettings) -> SinkWorker {
        SinkWorker {
            index,
            name: named.name,
            sink: named.sink,
            shared,
            signals: std::array::from_fn(|_| SignalState::new(settings.longest_wait, settings.longest_refusal)),
            random: settings.seed.wrapping_add(index as u64),
        }
    }

    /// Ends when draining is done or the phase is [`DeliveryPhase::Stopped`].
    pub(super) async fn run(mut self) {
        let mut phase = self.shared.phase.subscribe();
        tokio::select! {
            _ = phase.wait_for(|phase| matches!(phase, DeliveryPhase::Stopped | DeliveryPhase::Over)) => {}
            () = self.work() => {}
        }
        self.say_the_rest();
        if tokio::time::timeout(CLOSE_MOST, self.sink.close()).await.is_err() {
            warn!(sink = self.name, "the sink could not be closed in time");
        }
    }

    async fn work(&mut self) {
        let mut hurried = false;
        loop {
            if !hurried && self.is_ending() {
                // One more attempt for everything, now.
                hurried = true;
                self.signals.iter_mut().for_each(|state| state.not_before = None);
            }
            let now = Instant::now();
            let ready = std::array::from_fn(|s| self.signals[s].not_before.is_none_or(|at| at <= now));
            let next = self.shared.queue().next(self.index, ready, now);
            match next {
                NextBatch::Take(taken) => self.begin(taken).await,
                NextBatch::Resume(signal) => self.attempt(signal).await,
                NextBatch::WaitUntil(due) => self.wait(now, Some(due)).await,
                NextBatch::Wait => self.wait(now, None).await,
                NextBatch::Finished => return,
            }
        }
    }

    /// Until there is something new, the batch that grows is due, or a back-off ends. `now` is when the
    /// queue was asked: a back-off that has ended since must not be waited for.
    async fn wait(&mut self, now: Instant, due: Option<Instant>) {
        let backoffs = self.signals.iter().filter_map(|state| state.not_before).filter(|at| *at > now);
        let woken = self.shared.wake[self.index].notified();
        match backoffs.chain(due).min() {
            Some(at) => {
                let _ = tokio::time::timeout_at(at, woken).await;
            }
            None => woken.await,
        }
    }

    async fn begin(&mut self, taken: Taken) {
        let signal = taken.signal;
        let state = &mut self.signals[signal as usize];
        (state.unread, state.unread_since) = (Some(taken), None);
        self.attempt(signal).await;
    }

    /// Sends the first piece once.
    async fn attempt(&mut self, signal: Signal) {
        self.read(signal).await;
        let state = &mut self.signals[signal as usize];
        if let Some(piece) = state.pieces.front() {
            let outcome = self.sink.send(&piece.batch()).await;
            self.conclude(signal, outcome);
        }
        let state = &mut self.signals[signal as usize];
        if state.pieces.is_empty() && state.unread.is_none() {
            state.refusals.over();
            self.shared.queue().done(self.index, signal);
            self.shared.progress.notify_waiters();
        }
    }

    /// Fetches the body of an entry that was just taken.
    async fn read(&mut self, signal: Signal) {
        let Some(taken) = self.signals[signal as usize].unread.take() else { return };
        let body = match &taken.body {
            StoredBody::Memory(body) => Ok(body.clone()),
            StoredBody::Disk(location) => self.read_from_disk(signal, *location).await,
        };
        match body {
            Ok(body) => {
                let batch = Batch { signal, body, items: taken.items };
                self.signals[signal as usize].pieces.push_back(Piece::new(batch));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (why, reason) = if self.shared.queue().was_dropped(self.index, signal) {
                    (Discard::QueueFull, "the queue on disk dropped it to stay within its size".to_owned())
                } else {
                    (Discard::Corrupt, format!("its file in the queue on disk is gone: {error}"))
                };
                self.discard_unread(signal, taken.items, why, &reason);
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.discard_unread(signal, taken.items, Discard::Corrupt, &error.to_string());
            }
            Err(error) => {
                let state = &mut self.signals[signal as usize];
                if state.unread_since.get_or_insert_with(Instant::now).elapsed() >= READ_MOST {
                    return self.discard_unread(signal, taken.items, Discard::Corrupt, &error.to_string());
                }
                state.unread = Some(taken);
                self.note_failure(signal, None, &format!("cannot read the queue on disk: {error}"));
            }
        }
    }

    async fn read_from_disk(&mut self, signal: Signal, location: Location) -> io::Result<Bytes> {
        let files = self.shared.spool.clone().ok_or_else(|| io::Error::other("there is no queue on disk"))?;
        let read = tokio::task::spawn_blocking(move || spool::read_body(files.as_ref(), signal, location));
        read.await.unwrap_or_else(|_| Err(io::Error::other("the process is stopping")))
    }

    fn conclude(&mut self, signal: Signal, outcome: SendResult) {
        match outcome {
            Ok(Sent { lost, .. }) => {
                let items = self.pop(signal);
                self.shared.queue().delivered(self.index, signal, items, &lost);
                self.note_success(signal);
                // A peer may name more than it was sent.
                lost.iter().for_each(|lost| self.note_loss(signal, lost.items.min(items), lost.why, &lost.reason));
            }
            Err(SendError::Retry { after, reason }) => {
                self.note_failure(signal, after, &reason);
                self.signals[signal as usize].refusals.interrupted();
            }
            Err(SendError::Pause { after, reason }) => {
                self.note_failure(signal, Some(after), &reason);
                Signal::ALL
                    .into_iter()
                    .for_each(|signal| self.shared.queue().failed(self.index, signal, Instant::now()));
                self.signals[signal as usize].refusals.interrupted();
                let until = self.signals[signal as usize].not_before;
                self.signals.iter_mut().for_each(|state| state.not_before = state.not_before.max(until));
            }
            Err(SendError::Denied { after, reason }) => self.denied(signal, after, &reason),
            Err(SendError::Split { reason }) => self.split(signal, &reason),
            Err(SendError::Refused { reason }) => self.discard(signal, Discard::Refused, &reason),
        }
    }

    fn pop(&mut self, signal: Signal) -> u64 {
        self.signals[signal as usize].pieces.pop_front().map_or(0, |piece| piece.items())
    }

    fn split(&mut self, signal: Signal, reason: &str) {
        if !self.halve(signal) {
            self.discard(signal, Discard::TooLarge, reason);
        }
    }

    /// Puts its parts in the place of the first piece; false if it has none.
    fn halve(&mut self, signal: Signal) -> bool {
        let pieces = &mut self.signals[signal as usize].pieces;
        let Some(parts) = pieces.front().and_then(Piece::halves) else { return false };
        pieces.pop_front();
        parts.into_iter().rev().for_each(|part| pieces.push_front(part));
        true
    }

    fn denied(&mut self, signal: Signal, after: Option<Duration>, reason: &str) {
        if self.is_ending() && self.shared.spool.is_none() {
            return self.denied_at_the_end(signal, reason);
        }
        self.note_failure(signal, after, reason);
        let now = Instant::now();
        let state = &mut self.signals[signal as usize];
        let items = state.pieces.front().map_or(0, Piece::items);
        match state.refusals.refused(items, state.pieces.len(), now) {
            refusal::Next::GiveUp => self.give_up(signal, reason),
            refusal::Next::Others => state.pieces.rotate_left(1),
            refusal::Next::Halve { or_give_up } if !self.halve(signal) && or_give_up => {
                self.give_up(signal, reason);
            }
            refusal::Next::Halve { .. } | refusal::Next::Again => (),
        }
    }

    /// What is refused now has no time to be taken later, and must not take with it what waits behind.
    fn denied_at_the_end(&mut self, signal: Signal, reason: &str) {
        self.signals[signal as usize].backoff.reset();
        self.note_failure(signal, None, reason);
        if !self.halve(signal) {
            let items = self.pop(signal);
            self.signals[signal as usize].refusals.next_piece();
            self.discard_unread(signal, items, Discard::Refused, &format!("{reason}; the process ends"));
        }
    }

    fn is_ending(&self) -> bool {
        *self.shared.phase.borrow() != DeliveryPhase::Running
    }

    /// The first piece was refused for too long. Whether the sink takes others is not known.
    fn give_up(&mut self, signal: Signal, reason: &str) {
        let state = &mut self.signals[signal as usize];
        state.refusals.next_piece();
        let seconds = state.refusals.lasted().as_secs();
        let items = self.pop(signal);
        self.discard_unread(signal, items, Discard::Refused, &format!("{reason}; refused for {seconds} s"));
    }

    fn discard(&mut self, signal: Signal, why: Discard, reason: &str) {
        let items = self.pop(signal);
        // It has answered: what failed before is over.
        let state = &mut self.signals[signal as usize];
        (state.not_before, state.outage) = (None, None);
        state.backoff.reset();
        state.refusals.next_piece();
        self.discard_unread(signal, items, why, reason);
    }

    fn discard_unread(&mut self, signal: Signal, items: u64, why: Discard, reason: &str) {
        self.shared.queue().discarded(self.index, signal, items, why);
        self.note_loss(signal, items, why, reason);
    }

    fn note_loss(&mut self, signal: Signal, items: u64, why: Discard, reason: &str) {
        if let Some(items) = self.signals[signal as usize].losses[why as usize].say(items, Instant::now()) {
            let (sink, signal) = (&self.name, signal.word());
            let message = match why {
                Discard::QueueFull | Discard::Corrupt => "lost in the queue before the sink could take them",
                _ => "discarded what the sink does not take",
            };
            error!(sink, signal, items, why = why.word(), reason, "{message}");
        }
    }

    /// Losses are said with pauses: at the end, those since the last time.
    fn say_the_rest(&mut self) {
        for (signal, state) in Signal::ALL.into_iter().zip(&mut self.signals) {
            for (why, losses) in Discard::ALL.into_iter().zip(&mut state.losses) {
                let (sink, signal, items) = (&self.name, signal.word(), losses.rest());
                if items > 0 {
                    error!(
                        sink,
                        signal,
                        items,
                        why = why.word(),
                        "so many more were discarded since this was last said"
                    );
                }
            }
        }
    }

    fn note_failure(&mut self, signal: Signal, after: Option<Duration>, reason: &str) {
        let (now, random) = (Instant::now(), self.next_random());
        self.shared.queue().failed(self.index, signal, now);
        let (queued_bytes, room) = self.shared.waits(self.index, signal);
        let state = &mut self.signals[signal as usize];
        let wait = state.backoff.next(after, random);
        state.not_before = Some(now + wait);
        let outage = state.outage.get_or_insert(Outage::new(now, queued_bytes));
        outage.failures += 1;
        if state.failures.say(1, now).is_some() {
            let (wait_ms, failures) = (wait.as_millis() as u64, outage.failures);
            let down_s = now.duration_since(outage.since).as_secs();
            let full_in_s = outage.full_in(now, queued_bytes, room).map(|time| time.as_secs());
            let (sink, signal) = (&self.name, signal.word());
            warn!(sink, signal, reason, wait_ms, failures, down_s, full_in_s, "could not deliver; will try again");
        }
    }

    fn note_success(&mut self, signal: Signal) {
        let state = &mut self.signals[signal as usize];
        state.backoff.reset();
        state.not_before = None;
        state.refusals.taken();
        if let Some(outage) = state.outage.take() {
            let after_s = outage.since.elapsed().as_secs();
            info!(sink = self.name, signal = signal.word(), after_s, "the sink takes again");
        }
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): jitter needs no better.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}
