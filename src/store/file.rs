//! The store's file over the life of a process: opened when it is first needed, moved aside when it is damaged, made
//! anew when somebody has taken it away.

use super::{
    failure::StoreFailure,
    place::{StoreFiles, beside, database_len, is_overwritten},
    write::StoreWriter,
};
use std::{
    io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};
use tracing::{error, warn};

/// Smaller files could not hold a batch and keep something.
pub const SIZE_MIN: u64 = 16 << 20;

/// Writes one store. Nothing is open after a failure: the disk may have been mounted anew.
pub struct StoreFile {
    path: PathBuf,
    size: u64,
    open: Option<OpenDatabase>,
}

struct OpenDatabase {
    writer: StoreWriter,
    /// The files behind the writer.
    place: StoreFiles,
    /// Of the database, after the last write.
    len: u64,
}

impl StoreFile {
    /// `size` is the bound of the database and its write-ahead log together, in bytes. Touches no file yet: a disk
    /// that is full or read-only now may be usable at the first batch.
    pub fn new(path: PathBuf, size: u64) -> StoreFile {
        StoreFile { path, size, open: None }
    }

    /// All spans of a batch, an `ExportTraceServiceRequest`. Returns how many of them are no spans. What is stored
    /// already, from an attempt that failed half-way, is not stored twice.
    pub fn write(&mut self, body: &[u8]) -> Result<u64, StoreFailure> {
        self.leave_what_is_gone();
        let mut outcome = self.attempt(body);
        if matches!(outcome, Err(StoreFailure::Damaged(_))) {
            self.open = None;
            move_aside(&self.path)
                .map_err(|e| StoreFailure::Later(format!("is damaged and cannot be moved aside: {e}")))?;
            outcome = self.attempt(body);
        }
        if outcome.is_ok() && self.leave_what_is_gone() {
            outcome = self.attempt(body);
        }
        if matches!(outcome, Err(StoreFailure::Damaged(_) | StoreFailure::Later(_) | StoreFailure::Full(_))) {
            self.open = None;
        }
        outcome
    }

    /// Closing the last connection writes the log back into the file.
    pub fn close(&mut self) {
        self.open = None;
    }

    fn attempt(&mut self, body: &[u8]) -> Result<u64, StoreFailure> {
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let writer = StoreWriter::open(&self.path, self.size)?;
                self.open.insert(OpenDatabase { writer, place: StoreFiles::of(&self.path), len: 0 })
            }
        };
        let rejected = open.writer.write(body)?;
        let now = StoreFiles::of(&self.path);
        if open.place.holds(&now) {
            // The log appears with the first write.
            open.place = now;
            open.len = database_len(&self.path);
        }
        Ok(rejected)
    }

    /// Lets go of files that do not bear their names any more, or were overwritten. True if so.
    fn leave_what_is_gone(&mut self) -> bool {
        let (file, now) = (self.path.display(), StoreFiles::of(&self.path));
        match &mut self.open {
            None => return false,
            Some(open) if !open.place.holds(&now) && open.place.lost_database(&now) => {
                warn!(
                    %file,
                    "the store was deleted, moved or replaced while it was written: a new one is begun where there is \
                     none, and what the old one held is not listed any more"
                );
                open.writer.finish();
            }
            Some(open) if !open.place.holds(&now) => {
                warn!(%file, "a file beside the store was deleted while it was in use: the store is opened again");
                open.writer.finish();
            }
            Some(open) if is_overwritten(&self.path, open.len).unwrap_or(true) => {
                warn!(%file, "somebody has overwritten the store: it is opened again");
            }
            Some(_) => return false,
        }
        let place = self.open.take().map(|open| open.place);
        if let Some(place) = place.filter(|place| place.lost_database(&now)) {
            place.remove_logs(&self.path);
        }
        true
    }
}

fn move_aside(path: &Path) -> io::Result<()> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let aside = beside(path, &format!(".damaged-{seconds}"));
    std::fs::rename(path, &aside)?;
    for log in ["-wal", "-shm"] {
        // They belong to the damaged file; a new one must not replay them.
        let _ = std::fs::rename(beside(path, log), beside(&aside, log));
    }
    let (file, aside) = (path.display(), aside.display());
    error!(%file, %aside, "the store is damaged: it was moved aside and a new one begun; its traces are not listed any more");
    Ok(())
}
