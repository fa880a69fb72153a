//! From a batch to the bodies of its requests: decoded, packed and compressed.

use super::{
    Compression, TimeUnit,
    encode::{Limits, Pack},
    logs, metrics,
    time::Now,
    traces,
};
use crate::{
    deliver::{
        batch,
        sink::{Batch, SendError},
    },
    trace::Signal,
};
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest,
};
use prost::Message;
use std::{panic, sync::Arc};

/// Working on more than this would hold up the other tasks of a runtime thread.
const INLINE: usize = 64 << 10;

/// A batch that is ready to be packed.
pub(super) struct Decoded {
    request: Request,
    bytes: usize,
}

enum Request {
    Traces(ExportTraceServiceRequest),
    Metrics(ExportMetricsServiceRequest),
    Logs(ExportLogsServiceRequest),
}

/// What all packs of a sink have in common.
pub(super) struct Style {
    pub(super) unit: TimeUnit,
    pub(super) compression: Compression,
    pub(super) topic: String,
    pub(super) source: String,
}

/// Where in a batch a pack begins and how far it goes.
pub(super) struct Cut {
    /// Items before it.
    pub(super) done: usize,
    pub(super) limits: Limits,
    pub(super) now: Now,
    pub(super) pack_id: String,
}

/// One pack. Without a body there is nothing to send of its items.
pub(super) struct Sealed {
    /// None are left when it is zero.
    pub(super) items: usize,
    /// Of these, how many cannot be written.
    pub(super) refused: usize,
    pub(super) body: Option<Body>,
}

/// A LogGroup as it is sent.
pub(super) struct Body {
    pub(super) raw_len: usize,
    /// `x-log-compresstype`.
    pub(super) packing: Option<&'static str>,
    pub(super) bytes: Bytes,
}

impl Decoded {
    /// An error if the batch is no OTLP: to split it, if all but one record may be.
    pub(super) async fn new(batch: &Batch) -> Result<Arc<Decoded>, SendError> {
        let Batch { signal, body, .. } = batch.clone();
        let decoded = off_thread(body.len(), move || Request::decode(signal, &body)).await?;
        let request = decoded.map_err(|error| {
            let reason = format!("not OTLP: {error}");
            // Records of many senders share a batch. One with a text that is not UTF-8 goes alone.
            if batch::halve(batch).is_some() { SendError::Split { reason } } else { SendError::Refused { reason } }
        })?;
        Ok(Arc::new(Decoded { request, bytes: batch.body.len() }))
    }

    pub(super) async fn seal(self: &Arc<Self>, style: &Arc<Style>, cut: Cut) -> Result<Sealed, SendError> {
        let (decoded, style) = (Arc::clone(self), Arc::clone(style));
        off_thread(self.bytes, move || decoded.request.seal(&style, &cut)).await
    }
}

impl Request {
    fn decode(signal: Signal, body: &[u8]) -> Result<Request, prost::DecodeError> {
        Ok(match signal {
            Signal::Traces => Request::Traces(Message::decode(body)?),
            Signal::Metrics => Request::Metrics(Message::decode(body)?),
            Signal::Logs => Request::Logs(Message::decode(body)?),
        })
    }

    fn seal(&self, style: &Style, cut: &Cut) -> Sealed {
        let pack = self.pack(style, cut);
        let (items, refused) = (pack.items(), pack.refused());
        let body = pack.has_logs().then(|| {
            let group = pack.finish(&style.topic, &style.source, &cut.pack_id);
            compress(style.compression, group)
        });
        Sealed { items, refused, body }
    }

    fn pack(&self, style: &Style, cut: &Cut) -> Pack {
        match self {
            Request::Traces(request) => traces::pack(request, cut.done, &cut.limits, cut.now, style.unit),
            Request::Metrics(request) => metrics::pack(request, cut.done, &cut.limits, cut.now),
            Request::Logs(request) => logs::pack(request, cut.done, &cut.limits, cut.now),
        }
    }
}

fn compress(compression: Compression, group: Vec<u8>) -> Body {
    let raw_len = group.len();
    let (packing, bytes) = match compression {
        Compression::None => (None, group),
        // The raw block: Log Service takes neither a frame nor a length in front.
        Compression::Lz4 => (Some("lz4"), lz4_flex::block::compress(&group)),
        Compression::Zstd => {
            (Some("zstd"), zstd::bulk::compress(&group, 1).expect("compressing into memory does not fail"))
        }
    };
    Body { raw_len, packing, bytes: bytes.into() }
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
