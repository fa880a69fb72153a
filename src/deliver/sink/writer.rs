//! What a sink writes files with, on threads that may block.

use super::SendError;
use std::sync::{Arc, Mutex};

/// Shared with the thread that writes; never contended, for one batch is sent at a time.
pub(super) struct Writer<T> {
    files: Arc<Mutex<T>>,
    /// What a panic has left is put in order before anything else is written.
    reset: fn(&mut T),
}

impl<T: Send + 'static> Writer<T> {
    pub(super) fn new(files: T, reset: fn(&mut T)) -> Writer<T> {
        Writer { files: Arc::new(Mutex::new(files)), reset }
    }

    /// Runs `work` and waits for it. A panic is a defect that this batch may have brought out: whoever sends it again
    /// for ever would hold up all behind it.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Result<R, SendError> {
        let (files, reset) = (self.files.clone(), self.reset);
        let done = tokio::task::spawn_blocking(move || {
            let mut files = files.lock().unwrap_or_else(|poisoned| {
                let mut left = poisoned.into_inner();
                reset(&mut left);
                files.clear_poison();
                left
            });
            work(&mut files)
        });
        done.await.map_err(|error| match error.is_panic() {
            true => SendError::Denied { after: None, reason: "a defect of tailkeep: writing it panicked".to_owned() },
            false => SendError::Retry { after: None, reason: "the process is stopping".to_owned() },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_put_in_order_once_and_said_to_be_one() {
        let writer = Writer::new(Vec::new(), |written| written.push("reset"));
        let panicked = writer.run(|_| panic!("as a defect does")).await;
        assert!(
            matches!(&panicked, Err(SendError::Denied { reason, .. }) if reason.contains("panicked")),
            "{panicked:?}"
        );
        for _ in 0..2 {
            writer.run(|written| written.push("batch")).await.unwrap();
        }
        assert_eq!(writer.run(|written| written.clone()).await, Ok(vec!["reset", "batch", "batch"]));
    }
}
