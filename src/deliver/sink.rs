//! A sink: where kept traces, metrics or logs go. One seam for all kinds of sinks.

pub mod arms;
mod exponential;
pub mod file;
pub mod headers;
pub mod otlp;
pub mod sls;
pub mod store;
mod writer;

use super::Discard;
use crate::trace::Signal;
use bytes::Bytes;
use std::{future::Future, pin::Pin, time::Duration};

/// One unit of delivery. `body` is the protobuf of one `Export{Trace,Metrics,Logs}ServiceRequest`.
#[derive(Clone, Debug)]
pub struct Batch {
    pub signal: Signal,
    pub body: Bytes,
    /// Spans, data points or log records in it.
    pub items: u64,
}

/// What a sink did with a batch that it took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Parts of it that will never be taken; none of most batches.
    pub lost: Vec<Lost>,
    /// The other side's name for the request, where it gives one.
    pub request_id: Option<String>,
}

/// Items of a batch that a sink left out while it took the rest: counted, not sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    pub items: u64,
    pub why: Discard,
    /// For logs; never holds a secret.
    pub reason: String,
}

impl Sent {
    /// A batch of which `items` were left out.
    pub fn without(items: u64, why: Discard, reason: impl Into<String>) -> Sent {
        let lost = Lost { items, why, reason: reason.into() };
        Sent { lost: if items > 0 { vec![lost] } else { Vec::new() }, request_id: None }
    }

    /// How many items were left out.
    pub fn items_lost(&self) -> u64 {
        self.lost.iter().map(|lost| lost.items).sum()
    }
}

/// Why a sink did not take a batch, as far as the delivery loop acts on it.
#[derive(Clone, Debug, PartialEq)]
pub enum SendError {
    /// Try again, not before `after` if the sink said so. `reason` is for logs and never holds a secret.
    Retry { after: Option<Duration>, reason: String },
    /// As `Retry`, and the sink takes no other signal either until then.
    Pause { after: Duration, reason: String },
    /// Not taken, and it is not known that it never will be: a token, a path, a fault over there. Try again
    /// as [`super::refusal`] says, and say the last reason when it is given up.
    Denied { after: Option<Duration>, reason: String },
    /// Too large for the sink, or one bad record among others: halve it by spans and send both; a
    /// single span is refused.
    Split { reason: String },
    /// Will never be taken: discard and count.
    Refused { reason: String },
}

/// The outcome of one attempt.
pub type SendResult = Result<Sent, SendError>;

/// A destination. `send` is called by one delivery loop at a time, with batches in order.
pub trait Sink: Send + 'static {
    /// Signals that this sink takes.
    fn takes(&self, signal: Signal) -> bool;

    /// One attempt; the loop retries. Dropping the future aborts the attempt.
    fn send<'a>(&'a mut self, batch: &'a Batch) -> Pin<Box<dyn Future<Output = SendResult> + Send + 'a>>;

    /// Called once after the last batch, to flush files.
    fn close<'a>(&'a mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async {})
    }
}
