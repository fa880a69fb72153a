//! Kept traces in one SQLite file, bounded by size: what the first run uses and what
//! `tailkeep traces` and the admin interface read.
//!
//! The schema is public: read it with any SQLite client while tailkeep runs. `PRAGMA user_version`
//! is [`SCHEMA_VERSION`] and changes with it. Times are Unix nanoseconds, durations nanoseconds, ids
//! lowercase hexadecimal; a NULL text means that there is none.
//!
//! | table | column | |
//! |---|---|---|
//! | `traces` | `id` | order of arrival; the smallest go first when the file is full |
//! | | `trace_id` | 32 digits |
//! | | `start_ns`, `end_ns` | first start and last end of all its spans |
//! | | `duration_ns` | the root's; without one the longest entry span's, else the longest span's |
//! | | `service`, `name` | of the entry span: the root, else the earliest entry, else the earliest span |
//! | | `services` | JSON array of all services in it |
//! | | `error` | 1 if some span has status error |
//! | | `span_count`, `bytes` | spans, and their protobuf bytes |
//! | | `rule`, `trigger`, `reason` | why it was kept (`tailkeep.rule`, …) |
//! | | `incomplete` | what may be missing: `no_entry`, `evicted`, `late`, `limit`; NULL if nothing is known to be |
//! | | `threshold` | `th` of the tracestate: its sampling weight |
//! | | `entry_…`, `longest_…` | what merging later spans needs |
//! | `trace_services` | `service`, `start_ns`, `error`, `duration_ns`, `trace` | each trace once per service; `trace` is `traces.id` |
//! | `spans` | `id`, `trace` | order of arrival; `traces.id` |
//! | | `span_id`, `parent_id` | 16 digits; a root has no parent |
//! | | `context` | `contexts.id` |
//! | | `name`, `kind`, `status`, `status_message` | `kind` and `status` as policies write them |
//! | | `start_ns`, `duration_ns` | |
//! | | `attributes` | JSON object: `attributes ->> 'http.route'` |
//! | | `raw`, `crc` | the span's protobuf as it was received, and its CRC-32: the same span is stored once |
//! | `contexts` | `id`, `service`, `resource` | `resource` is the JSON object of the resource's attributes |
//! | | `scope`, `scope_version` | the instrumentation scope |
//! | | `raw_resource`, `raw_scope` | `ResourceSpans` without scope_spans, `ScopeSpans` without spans: protobuf |
//! | | `last_trace`, `crc` | the newest `traces.id` that refers to it; CRC-32 of both raw columns |
//!
//! The view `span_list` joins the three: `SELECT * FROM span_list WHERE trace_id = '…'`.

mod json;
mod read;
mod schema;
mod span;
mod table;
mod write;

pub use read::{Store, StoredTrace, TraceFilter, TraceRow};
pub use schema::SCHEMA_VERSION;
pub use table::render_traces;

use super::{Batch, Discard, SendError, SendResult, Sent, Sink};
use crate::trace::Signal;
use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};
use tracing::{error, warn};
use write::{Failure, Writer};

/// Smaller files could not hold a batch and keep something.
pub const SIZE_MIN: u64 = 16 << 20;

/// What the `store` sink's section of the configuration says.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// Created if it does not exist, with its folder.
    pub path: PathBuf,
    /// Bytes that the file may have; at least [`SIZE_MIN`]. The write-ahead log beside it adds at most
    /// about 16 MiB.
    pub size: u64,
}

/// The store as a sink for traces.
pub struct StoreSink {
    settings: StoreSettings,
    /// Opened at the first batch; none after a failure. Shared with the blocking thread that writes;
    /// never contended, for one batch is sent at a time.
    writer: Arc<Mutex<Option<Writer>>>,
}

impl StoreSink {
    /// Touches no file yet: a disk that is full or read-only now may be usable at the next attempt.
    /// The error is for the configuration's author.
    pub fn new(settings: StoreSettings) -> Result<StoreSink, String> {
        if settings.size < SIZE_MIN {
            return Err(format!("a store needs at least {} MiB; {} bytes are too few", SIZE_MIN >> 20, settings.size));
        }
        Ok(StoreSink { settings, writer: Arc::default() })
    }

    async fn write(&self, batch: Batch) -> SendResult {
        let (settings, writer) = (self.settings.clone(), self.writer.clone());
        let written = tokio::task::spawn_blocking(move || {
            let mut writer = writer.lock().unwrap_or_else(|poisoned| {
                // A panic in the middle of a transaction: the connection is dropped, which rolls back.
                let mut writer = poisoned.into_inner();
                *writer = None;
                writer
            });
            write_or_replace(&settings, &mut writer, &batch)
        });
        written.await.unwrap_or_else(|_| Err(retry(&self.settings.path, "the writing thread failed")))
    }
}

impl Sink for StoreSink {
    fn takes(&self, signal: Signal) -> bool {
        signal == Signal::Traces
    }

    fn send<'a>(&'a mut self, batch: &'a Batch) -> Pin<Box<dyn Future<Output = SendResult> + Send + 'a>> {
        Box::pin(self.write(batch.clone()))
    }

    fn close<'a>(&'a mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        let writer = self.writer.clone();
        Box::pin(async move {
            // Closing the last connection writes the log back into the file.
            let closed = tokio::task::spawn_blocking(move || drop(writer.lock().map(|mut writer| writer.take())));
            if closed.await.is_err() {
                warn!("the store was not closed; its log is replayed at the next start");
            }
        })
    }
}

fn retry(path: &Path, reason: &str) -> SendError {
    SendError::Retry { after: None, reason: format!("{}: {reason}", path.display()) }
}

/// One attempt; a file that turns out to be damaged is moved aside and the attempt made again.
fn write_or_replace(settings: &StoreSettings, writer: &mut Option<Writer>, batch: &Batch) -> SendResult {
    let path = &settings.path;
    let mut outcome = write(settings, writer, batch);
    if matches!(outcome, Err(Failure::Damaged(_))) {
        *writer = None;
        move_aside(path).map_err(|e| retry(path, &format!("is damaged and cannot be moved aside: {e}")))?;
        outcome = write(settings, writer, batch);
    }
    match outcome {
        Ok(rejected) => Ok(Sent::without(rejected, Discard::Rejected, "spans that the store cannot read")),
        Err(Failure::TooLarge) => Err(SendError::Split { reason: "the batch does not fit into the store".to_owned() }),
        Err(Failure::Malformed) => Err(SendError::Refused { reason: "the batch is no protobuf".to_owned() }),
        Err(Failure::Damaged(reason) | Failure::Later(reason)) => {
            // A fresh connection next time: the disk may have been mounted anew.
            *writer = None;
            Err(retry(path, &reason))
        }
    }
}

fn write(settings: &StoreSettings, writer: &mut Option<Writer>, batch: &Batch) -> Result<u64, Failure> {
    let writer = match writer {
        Some(writer) => writer,
        None => writer.insert(Writer::open(&settings.path, settings.size)?),
    };
    writer.write(&batch.body)
}

fn move_aside(path: &Path) -> std::io::Result<()> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let with_suffix = |path: &Path, suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = with_suffix(path, &format!(".damaged-{seconds}"));
    std::fs::rename(path, &aside)?;
    for log in ["-wal", "-shm"] {
        // They belong to the damaged file; a new one must not replay them.
        let _ = std::fs::rename(with_suffix(path, log), with_suffix(&aside, log));
    }
    let (file, aside) = (path.display(), aside.display());
    error!(%file, %aside, "the store is damaged: it was moved aside and a new one begun; its traces are not listed any more");
    Ok(())
}

#[cfg(test)]
mod tests;
