//! What is read from files, and read again when they change: certificates and secrets are renewed while we run.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};
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
    value: RwLock<T>,
    /// Held while somebody looks at the files, which may take as long as their disk does.
    check: Mutex<FileCheck>,
}

struct FileCheck {
    at: Instant,
    /// What the value was read from.
    read: Vec<FileVersion>,
    /// What could not be used.
    refused: Vec<FileVersion>,
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
        let value = RwLock::new(read()?);
        let check = Mutex::new(FileCheck { at: Instant::now(), read: seen, refused: Vec::new() });
        let read = Box::new(move || read().map_err(|error| error.to_string()));
        Ok(WatchedFiles { setting: setting.into(), files, check_every, read, value, check })
    }

    /// The value. Looks at the files at most once in `check_every`, and only one caller waits for them; those that
    /// cannot be used leave what was read before in force, and are tried again.
    pub fn get(&self) -> T {
        if let Ok(mut check) = self.check.try_lock()
            && !self.files.is_empty()
            && check.at.elapsed() >= self.check_every
        {
            check.at = Instant::now();
            let found = versions(&self.files);
            if found != check.read {
                self.read_again(found, &mut check);
            }
        }
        self.value.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What stays unusable is said once.
    fn read_again(&self, found: Vec<FileVersion>, check: &mut FileCheck) {
        let setting = &self.setting;
        let file = self.files.first().map(|file| file.display().to_string()).unwrap_or_default();
        match (self.read)() {
            Ok(value) => {
                *self.value.write().unwrap_or_else(PoisonError::into_inner) = value;
                check.read = found;
                check.refused.clear();
                tracing::info!(setting, file, "files changed and are in use");
            }
            Err(error) if check.refused != found => {
                check.refused = found;
                tracing::warn!(setting, %error, "files changed but cannot be used, the old ones stay");
            }
            Err(_) => {}
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

    /// As a disk does that fails for a moment, or a volume whose files are swapped one after the other.
    #[tokio::test(start_paused = true)]
    async fn a_version_that_could_not_be_read_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let [file, other] = ["token", "other"].map(|name| folder.path().join(name));
        fs::write(&file, "one").unwrap();
        fs::write(&other, "1").unwrap();
        let source = other.clone();
        let read = move || fs::read_to_string(&source).map_err(|error| error.to_string());
        let every = Duration::from_secs(10);
        let watched = WatchedFiles::start("admin.token", vec![file.clone()], every, read).unwrap();
        fs::write(&file, "changed").unwrap();
        fs::remove_file(&other).unwrap();
        tokio::time::advance(every).await;
        assert_eq!(watched.get(), "1");
        fs::write(&other, "2").unwrap();
        tokio::time::advance(every).await;
        assert_eq!(watched.get(), "2");
    }
}
