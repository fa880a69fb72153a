//! From a batch to the bodies of its requests: walked, packed and compressed.

use super::{PackCompression, TimeUnit, encode::PackLimits, logs, metrics, time::ServiceTime, traces};
use crate::{
    deliver::{
        batch::{self, Piece},
        sink::{Batch, SendError},
    },
    otlp::walk::Place,
    trace::Signal,
};
use bytes::Bytes;
use std::{panic, sync::Arc};

/// Working on more than this would hold up the other tasks of a runtime thread.
const INLINE: usize = 64 << 10;

/// What all packs of a sink have in common.
pub(super) struct Style {
    pub(super) unit: TimeUnit,
    pub(super) compression: PackCompression,
    pub(super) topic: String,
    pub(super) source: String,
}

/// Where in a batch a pack begins and how far it goes.
pub(super) struct PackBounds {
    pub(super) from: Place,
    pub(super) limits: PackLimits,
    pub(super) now: ServiceTime,
    pub(super) pack_id: String,
}

/// One pack. Without a body there is nothing to send of its items.
pub(super) struct Sealed {
    /// None are left when it is zero.
    pub(super) items: usize,
    /// Of these, how many cannot be written.
    pub(super) refused: usize,
    /// Behind them.
    pub(super) next: Place,
    pub(super) body: Option<SealedBody>,
}

/// A LogGroup as it is sent.
pub(super) struct SealedBody {
    pub(super) raw_len: usize,
    /// `x-log-compresstype`.
    pub(super) packing: Option<&'static str>,
    pub(super) bytes: Bytes,
}

/// The next pack of a batch.
pub(super) async fn seal(batch: &Batch, style: &Arc<Style>, cut: PackBounds) -> Result<Sealed, SendError> {
    let (Batch { signal, body, .. }, style) = (batch.clone(), Arc::clone(style));
    off_thread(body.len(), move || seal_now(signal, &body, &style, &cut)).await
}

/// An error if what is around the items is no protobuf: to split the batch, if all but one item may be sent.
pub(super) fn check(batch: &Batch) -> Result<(), SendError> {
    if batch::count_items(batch.signal, &batch.body).is_some() {
        return Ok(());
    }
    let reason = "malformed protobuf".to_owned();
    Err(if Piece::new(batch.clone()).halves().is_some() {
        SendError::Split { reason }
    } else {
        SendError::Refused { reason }
    })
}

fn seal_now(signal: Signal, body: &[u8], style: &Style, cut: &PackBounds) -> Sealed {
    let (pack, next) = match signal {
        Signal::Traces => traces::pack(body, cut.from, &cut.limits, cut.now, style.unit),
        Signal::Metrics => metrics::pack(body, cut.from, &cut.limits, cut.now),
        Signal::Logs => logs::pack(body, cut.from, &cut.limits, cut.now),
    };
    let (items, refused) = (pack.items(), pack.refused());
    let body = pack.has_logs().then(|| {
        let group = pack.finish(&style.topic, &style.source, &cut.pack_id);
        compress(style.compression, group)
    });
    Sealed { items, refused, next, body }
}

fn compress(compression: PackCompression, group: Vec<u8>) -> SealedBody {
    let raw_len = group.len();
    let (packing, bytes) = match compression {
        PackCompression::None => (None, group),
        // The raw block: Log Service takes neither a frame nor a length in front.
        PackCompression::Lz4 => (Some("lz4"), lz4_flex::block::compress(&group)),
        PackCompression::Zstd => {
            (Some("zstd"), zstd::bulk::compress(&group, 1).expect("compressing into memory does not fail"))
        }
    };
    SealedBody { raw_len, packing, bytes: bytes.into() }
}

/// Runs `work` where it may take its time, if there is much of it.
async fn off_thread<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SendError> {
    if bytes <= INLINE {
        return Ok(work());
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done),
        Err(error) if error.is_panic() => panic::resume_unwind(error.into_panic()),
        Err(_) => Err(SendError::Retry { after: None, reason: "the process is shutting down".to_owned() }),
    }
}
