//! The few file operations that the spool needs, so that a test can crash the disk beneath it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};
use tracing::warn;

/// An empty file: two processes would delete each other's segments.
const LOCK: &str = "lock";

/// One flat folder. Nothing is durable before the matching sync.
pub trait Files: Send + Sync {
    /// Names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    fn len(&self, name: &str) -> io::Result<u64>;
    /// Exactly `len` bytes.
    fn read(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>>;
    /// Creates the file if it is not there. An error may leave a part.
    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    fn truncate(&self, name: &str, len: u64) -> io::Result<()>;
    /// Makes a file's bytes durable.
    fn sync(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_folder(&self) -> io::Result<()>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A folder of the host, for this process alone. Files are opened for each operation: there are a few
/// a second, and a folder that was mounted anew works at once. Errors name the file.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    /// The system lets go of it with the process, however that ends. None on a disk where nobody can write. Behind a
    /// mutex, for whoever deletes the folder takes the lock's name away too.
    lock: Mutex<Option<File>>,
}

impl Disk {
    /// Creates the folder if it is not there. `ResourceBusy` if another process has it.
    pub fn open(folder: PathBuf) -> io::Result<Disk> {
        let disk = Disk { folder, lock: Mutex::default() };
        disk.with("", |folder| fs::create_dir_all(folder))?;
        let lock = disk.with(LOCK, lock)?;
        Ok(Disk { lock: Mutex::new(lock), ..disk })
    }

    /// Makes the folder and the lock anew if somebody has deleted or moved them, before anything is written. Whoever
    /// came first meanwhile keeps the folder.
    fn ensure_folder(&self) -> io::Result<()> {
        let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = held.as_ref() else { return Ok(()) };
        let ours = file.metadata().map(|found| (found.dev(), found.ino()))?;
        if fs::metadata(self.folder.join(LOCK)).is_ok_and(|named| (named.dev(), named.ino()) == ours) {
            return Ok(());
        }
        self.with("", |folder| fs::create_dir_all(folder))?;
        if let Some(file) = self.with(LOCK, lock)? {
            *held = Some(file);
        }
        let folder = self.folder.display();
        warn!(%folder, "the queue's folder (`queue.path`) was deleted, moved or replaced: it is made anew");
        Ok(())
    }

    fn with<T>(&self, name: &str, work: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        let path = if name.is_empty() { self.folder.clone() } else { self.folder.join(name) };
        work(&path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }
}

fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = match OpenOptions::new().append(true).create(true).open(path) {
        // Nobody can write here: what it holds is delivered, what comes waits in memory.
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => return Ok(None),
        opened => opened?,
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process has it")),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Files for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.with("", |folder| {
            let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().into_string()));
            // A name that is no UTF-8 is none of ours.
            Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().filter_map(Result::ok).collect())
        })
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        self.with(name, |path| Ok(fs::metadata(path)?.len()))
    }

    fn read(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.with(name, |path| {
            let mut bytes = vec![0; len];
            File::open(path)?.read_exact_at(&mut bytes, offset)?;
            Ok(bytes)
        })
    }

    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.ensure_folder()?;
        self.with(name, |path| {
            let open = || OpenOptions::new().append(true).create(true).open(path);
            let mut file = match open() {
                // Somebody made room on the disk by deleting the folder.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir_all(&self.folder)?;
                    open()?
                }
                opened => opened?,
            };
            io::Write::write_all(&mut file, bytes)
        })
    }

    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        self.with(name, |path| OpenOptions::new().write(true).open(path)?.set_len(len))
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.with(name, |path| OpenOptions::new().append(true).open(path)?.sync_data())
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.with("", |folder| File::open(folder)?.sync_all())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.with(to, |path| fs::rename(self.folder.join(from), path))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.with(name, |path| fs::remove_file(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_was_taken_away_is_made_anew_and_is_still_one_process_s() {
        let parent = tempfile::TempDir::new().unwrap();
        let folder = parent.path().join("queue");
        let take_away: [&dyn Fn(); 3] = [
            &|| fs::remove_dir_all(&folder).unwrap(),
            &|| fs::rename(&folder, parent.path().join("moved")).unwrap(),
            &|| fs::remove_file(folder.join(LOCK)).unwrap(),
        ];
        let disk = Disk::open(folder.clone()).unwrap();
        for take_away in take_away {
            disk.append("a", b"1").unwrap();
            take_away();
            disk.append("b", b"2").unwrap();
            assert_eq!(disk.read("b", 0, 1).unwrap(), b"2");
            let second = Disk::open(folder.clone()).map(drop).unwrap_err();
            assert_eq!(second.kind(), io::ErrorKind::ResourceBusy);
        }
        // Another process was faster: it keeps the folder.
        fs::remove_dir_all(&folder).unwrap();
        let other = Disk::open(folder.clone()).unwrap();
        assert_eq!(disk.append("c", b"3").unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        other.append("c", b"4").unwrap();
    }
}
