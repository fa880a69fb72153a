//! Kept traces in a local file, the [`store`](crate::store): what the first run uses and what `tailkeep traces` and
//! the admin interface read.

use super::{Batch, Discard, SendError, SendResult, Sent, Sink, writer::Writer};
use crate::{
    store::{SIZE_MIN, StoreFailure, StoreFile},
    trace::Signal,
};
use std::{future::Future, path::PathBuf, pin::Pin};
use tracing::warn;

/// What the `store` sink's section of the configuration says.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// Created if it does not exist, with its folder.
    pub path: PathBuf,
    /// Bytes that the file and its write-ahead log may have; at least [`SIZE_MIN`].
    pub size: u64,
}

/// The store as a sink for traces.
pub struct StoreSink {
    path: PathBuf,
    file: Writer<StoreFile>,
}

impl StoreSink {
    /// Touches no file yet. The error is for the configuration's author.
    pub fn new(settings: StoreSettings) -> Result<StoreSink, String> {
        let StoreSettings { path, size } = settings;
        if size < SIZE_MIN {
            return Err(format!("a store needs at least {} MiB; {size} bytes are too few", SIZE_MIN >> 20));
        }
        let file = StoreFile::new(path.clone(), size);
        // A panic may have left a transaction: closing the connection rolls it back.
        Ok(StoreSink { path, file: Writer::new(file, StoreFile::close) })
    }

    async fn write(&self, batch: Batch) -> SendResult {
        match self.file.run(move |file| file.write(&batch.body)).await? {
            Ok(rejected) => Ok(Sent::without(rejected, Discard::Rejected, "spans that the store cannot read")),
            Err(failure) => Err(self.error(failure)),
        }
    }

    fn error(&self, failure: StoreFailure) -> SendError {
        match failure {
            StoreFailure::TooLarge => SendError::Split { reason: "the batch does not fit into the store".to_owned() },
            StoreFailure::Malformed => SendError::Refused { reason: "the batch is no protobuf".to_owned() },
            StoreFailure::Damaged(reason) | StoreFailure::Later(reason) | StoreFailure::Full(reason) => {
                SendError::Retry { after: None, reason: format!("{}: {reason}", self.path.display()) }
            }
        }
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
        Box::pin(async {
            if self.file.run(StoreFile::close).await.is_err() {
                warn!("the store was not closed; its log is replayed at the next start");
            }
        })
    }
}

#[cfg(test)]
mod tests;
