//! The few file operations that the spool needs, so that a test can crash the disk beneath it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
};

/// One flat folder. Nothing is durable before the matching sync.
pub trait Files: Send + Sync {
    /// Names of all files; creates the folder.
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

/// A folder of the host. Files are opened for each operation: there are a few a second, and a
/// folder that was mounted anew works at once.
#[derive(Clone, Debug)]
pub struct Disk {
    pub folder: PathBuf,
}

impl Files for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        fs::create_dir_all(&self.folder)?;
        let names = fs::read_dir(&self.folder)?.map(|entry| Ok(entry?.file_name().into_string()));
        // A name that is no UTF-8 is none of ours.
        Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().filter_map(Result::ok).collect())
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.folder.join(name))?.len())
    }

    fn read(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        File::open(self.folder.join(name))?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(self.folder.join(name))?;
        io::Write::write_all(&mut file, bytes)
    }

    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.folder.join(name))?;
        file.set_len(len)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        OpenOptions::new().append(true).open(self.folder.join(name))?.sync_data()
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.folder.join(name))
    }
}
