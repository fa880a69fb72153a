//! The few file operations that the spool needs, so that a test can crash the disk beneath it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

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
    /// The system lets go of it with the process, however that ends.
    _lock: Option<File>,
}

impl Disk {
    /// Creates the folder if it is not there. `ResourceBusy` if another process has it.
    pub fn open(folder: PathBuf) -> io::Result<Disk> {
        let disk = Disk { folder, _lock: None };
        disk.with("", |folder| fs::create_dir_all(folder))?;
        let lock = disk.with(LOCK, lock)?;
        Ok(Disk { _lock: lock, ..disk })
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
        self.with(name, |path| {
            let mut file = OpenOptions::new().append(true).create(true).open(path)?;
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
