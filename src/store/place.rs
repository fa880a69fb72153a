//! Whether the store's files are still those that were opened. SQLite keeps writing to a file that has no name any
//! more, and nobody would ever find what is in it.

use super::schema::PAGE;
use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

/// The database, its write-ahead log, the log's index, and our lock.
const SUFFIXES: [&str; 4] = ["", "-wal", "-shm", ".lock"];
/// Where a database says what it is, and how many pages it has. Source: sqlite.org, "Database File Format", 1.3.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const PAGE_COUNT: std::ops::Range<usize> = 28..32;

/// A file whatever its name: device and inode.
type FileIdentity = (u64, u64);

/// Which files bear the store's names.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoreFiles([Option<FileIdentity>; SUFFIXES.len()]);

impl StoreFiles {
    pub(super) fn of(path: &Path) -> StoreFiles {
        let identity = |suffix| fs::metadata(beside(path, suffix)).ok().map(|found| (found.dev(), found.ino()));
        StoreFiles(SUFFIXES.map(identity))
    }

    /// Every file that was there before still bears its name.
    pub(super) fn holds(&self, now: &StoreFiles) -> bool {
        self.0.iter().zip(now.0).all(|(before, now)| before.is_none() || *before == now)
    }

    /// Removes what a database that is gone has left behind: a new one of its name must not replay that log.
    pub(super) fn remove_logs(&self, path: &Path) {
        let now = StoreFiles::of(path);
        for (at, suffix) in SUFFIXES.into_iter().enumerate().filter(|(_, suffix)| suffix.starts_with('-')) {
            if self.0[at].is_some() && self.0[at] == now.0[at] {
                let _ = fs::remove_file(beside(path, suffix));
            }
        }
    }

    /// The database itself is another file than before, or none.
    pub(super) fn lost_database(&self, now: &StoreFiles) -> bool {
        self.0[0] != now.0[0]
    }
}

/// `path` with `suffix` at the end of its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Bytes of the write-ahead log.
pub(super) fn log_len(path: &Path) -> u64 {
    fs::metadata(beside(path, "-wal")).map_or(0, |log| log.len())
}

/// Bytes of the database itself.
pub(super) fn database_len(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |database| database.len())
}

/// Whether the file cannot be the database that was written, with `len` bytes at least: somebody has overwritten or
/// cut it. A connection that has its pages in memory would not notice.
pub(super) fn is_overwritten(path: &Path, len: u64) -> io::Result<bool> {
    let file = File::open(path)?;
    let mut head = [0; PAGE_COUNT.end];
    file.read_exact_at(&mut head, 0)?;
    let pages = u32::from_be_bytes(head[PAGE_COUNT].try_into().expect("four bytes"));
    let now = file.metadata()?.len();
    // Another hand may have made it smaller by VACUUM, which is as it should be.
    Ok(!head.starts_with(MAGIC) || now < len && now < u64::from(pages) * PAGE)
}
