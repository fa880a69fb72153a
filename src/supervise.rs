//! Notices when a task ends that should not: a process that has lost one must not say that it is well.

use std::sync::Arc;
use tokio::sync::watch;

/// Watches tasks that run until the end of the process. Clones share what they noticed.
#[derive(Clone, Debug)]
pub struct Supervisor(Arc<watch::Sender<Option<String>>>);

impl Default for Supervisor {
    fn default() -> Self {
        Supervisor(Arc::new(watch::Sender::new(None)))
    }
}

impl Supervisor {
    /// `work` as a task that must not end, by a panic or otherwise, unless `may_end` says so then. That it is
    /// aborted is no fault of its own.
    pub fn watch<W: Future<Output = ()>, M: FnOnce() -> bool>(
        &self,
        name: &str,
        work: W,
        may_end: M,
    ) -> impl Future<Output = ()> + use<W, M> {
        let mut notice = Notice { failed: self.0.clone(), name: name.to_owned() };
        async move {
            work.await;
            if !may_end() {
                notice.give();
            }
        }
    }

    /// The name of the first task that ended; for ever if none does.
    pub async fn failed(&self) -> String {
        let mut failed = self.0.subscribe();
        match failed.wait_for(Option::is_some).await.ok().and_then(|name| name.clone()) {
            Some(name) => name,
            None => std::future::pending().await,
        }
    }
}

/// Given when it is dropped by a panic.
struct Notice {
    failed: Arc<watch::Sender<Option<String>>>,
    name: String,
}

impl Notice {
    fn give(&mut self) {
        let name = std::mem::take(&mut self.name);
        self.failed.send_if_modified(|failed| failed.is_none() && failed.replace(name).is_none());
    }
}

impl Drop for Notice {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.give();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    #[tokio::test]
    async fn a_panic_and_an_end_are_noticed_and_an_abort_is_not() {
        let supervisor = Supervisor::default();
        let aborted = tokio::spawn(supervisor.watch("aborted", pending(), || false));
        aborted.abort();
        let _ = aborted.await;
        tokio::spawn(supervisor.watch("may end", ready(()), || true)).await.unwrap();
        assert_eq!(*supervisor.0.borrow(), None);
        let panicked = tokio::spawn(supervisor.watch("panicked", async { panic!("as a defect does") }, || false));
        assert!(panicked.await.is_err());
        assert_eq!(supervisor.failed().await, "panicked");
        let other = Supervisor::default();
        tokio::spawn(other.watch("ended", ready(()), || false)).await.unwrap();
        assert_eq!(other.failed().await, "ended");
    }
}
