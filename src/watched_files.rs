//! What is read from files, and read again when they change: certificates and secrets are renewed while we run.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// How often somebody may look whether files changed, unless the configuration says it.
pub const CHECK_EVERY: Duration = Duration::from_secs(10);

/// A value that was read from files.
pub struct WatchedFiles<T> {
    /// The setting that names them.
    setting: String,
    files: Vec<PathBuf>,
    check_every: Duration,
    read: Box<dyn Fn() -> Result<T, String> + Send + Sync>,
    current: Mutex<Current<T>>,
}

struct Current<T> {
    value: T,
    seen: Vec<FileVersion>,
    checked: Instant,
}

/// What tells one version of a file from the next; a symlink is followed.
type FileVersion = Option<(SystemTime, u64)>;

impl<T: Clone> WatchedFiles<T> {
    /// Reads the files once, so that a mistake shows at start.
    ///
    /// # Errors
    /// That of `read`.
    pub fn start<E: Display>(
        setting: impl Into<String>,
        files: Vec<PathBuf>,
        check_every: Duration,
        read: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<WatchedFiles<T>, E> {
        let seen = versions(&files);
        let current = Mutex::new(Current { value: read()?, seen, checked: Instant::now() });
        let read = Box::new(move || read().map_err(|error| error.to_string()));
        Ok(WatchedFiles { setting: setting.into(), files, check_every, read, current })
    }

    /// The value. Looks at the files at most once in `check_every`; files that cannot be used leave what was read
    /// before in force, and are tried again when they change again.
    pub fn get(&self) -> T {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.files.is_empty() && current.checked.elapsed() >= self.check_every {
            current.checked = Instant::now();
            let found = versions(&self.files);
            if found != current.seen {
                current.seen = found;
                self.read_again(&mut current.value);
            }
        }
        current.value.clone()
    }

    fn read_again(&self, value: &mut T) {
        let setting = &self.setting;
        let file = self.files.first().map(|file| file.display().to_string()).unwrap_or_default();
        match (self.read)() {
            Ok(read) => {
                *value = read;
                tracing::info!(setting, file, "files changed and are in use");
            }
            Err(error) => tracing::warn!(setting, %error, "files changed but cannot be used, the old ones stay"),
        }
    }
}

fn versions(files: &[PathBuf]) -> Vec<FileVersion> {
    let version = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.iter().map(|path| version(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_change_is_seen_at_the_next_look_and_what_cannot_be_used_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, "one").unwrap();
        let every = Duration::from_secs(10);
        let source = file.clone();
        let read = move || fs::read_to_string(&source).map_err(|error| error.to_string());
        let watched = WatchedFiles::start("admin.token", vec![file.clone()], every, read).unwrap();
        fs::write(&file, "other").unwrap();
        assert_eq!(watched.get(), "one", "nobody has looked");
        tokio::time::advance(every).await;
        assert_eq!(watched.get(), "other");
        fs::remove_file(&file).unwrap();
        tokio::time::advance(every).await;
        assert_eq!(watched.get(), "other");
        fs::write(&file, "the next").unwrap();
        tokio::time::advance(every).await;
        assert_eq!(watched.get(), "the next");
    }
}
