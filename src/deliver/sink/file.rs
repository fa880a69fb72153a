//! Files of OTLP, one per signal, rotated by size.
//!
//! JSON: one `Export*ServiceRequest` a line (OpenTelemetry "OTLP File Exporter" specification).
//! Protobuf: each request after its length as four big-endian bytes, as the Collector's file exporter
//! writes it. A record is written whole or not at all: what an error or a crash cuts off is removed.

use super::{Batch, SendError, SendResult, Sent, Sink, writer::Writer};
use crate::{deliver::batch::Piece, otlp::json, trace::Signal};
use std::{
    fs::{self, File, OpenOptions},
    future::Future,
    io::{self, BufWriter, Read, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    pin::Pin,
};
use tracing::{error, warn};

const PREFIX: u64 = 4;
/// How much is read at once while looking for the last whole line.
const BLOCK: u64 = 64 << 10;

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RecordFormat {
    /// `traces.jsonl`
    #[default]
    Json,
    /// `traces.binpb`
    Protobuf,
}

impl RecordFormat {
    fn extension(self) -> &'static str {
        match self {
            RecordFormat::Json => "jsonl",
            RecordFormat::Protobuf => "binpb",
        }
    }
}

/// What the `file` sink's section of the configuration says.
#[derive(Clone, Debug)]
pub struct FileSettings {
    /// Created if it does not exist.
    pub folder: PathBuf,
    pub format: RecordFormat,
    /// Signals to take, in the order of [`Signal::ALL`].
    pub signals: [bool; 3],
    /// Bytes; a file that would grow beyond it is rotated first. One record may be larger.
    pub size: u64,
    /// Rotated files to keep per signal: `traces.1.jsonl` is the newest.
    pub keep: u32,
}

/// Files as a sink.
pub struct FileSink {
    signals: [bool; 3],
    files: Writer<SignalFiles>,
}

impl FileSink {
    /// Touches nothing yet: a folder that is missing or read-only now may be there at the next attempt.
    pub fn new(settings: FileSettings) -> FileSink {
        let signals = settings.signals;
        let files = SignalFiles { settings, open: [None, None, None] };
        // A file that is opened afresh loses what was written of a record.
        FileSink { signals, files: Writer::new(files, |files| files.open = [None, None, None]) }
    }

    async fn write(&self, batch: Batch) -> SendResult {
        let written = self.files.run(move |files| {
            let record = FileRecord::new(files.settings.format, &batch)?;
            files.append(&record).map_err(|error| {
                let reason = format!("{}: {error}", files.path(batch.signal, 0).display());
                SendError::Retry { after: None, reason }
            })
        });
        written.await??;
        Ok(Sent::default())
    }

    async fn flush(&self) {
        if let Ok(Err(reason)) = self.files.run(SignalFiles::close).await {
            error!(reason = reason.to_string(), "a file could not be flushed; its end may be lost");
        }
    }
}

impl Sink for FileSink {
    fn takes(&self, signal: Signal) -> bool {
        self.signals[signal as usize]
    }

    fn send<'a>(&'a mut self, batch: &'a Batch) -> Pin<Box<dyn Future<Output = SendResult> + Send + 'a>> {
        Box::pin(self.write(batch.clone()))
    }

    fn close<'a>(&'a mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.flush())
    }
}

/// A batch on its way into a file. It is written as it is encoded: as JSON it may be many times as long.
struct FileRecord<'a> {
    batch: &'a Batch,
    format: RecordFormat,
    len: u64,
}

impl<'a> FileRecord<'a> {
    /// An error if the batch cannot be written: to split it, if all but one leaf may be.
    fn new(format: RecordFormat, batch: &'a Batch) -> Result<FileRecord<'a>, SendError> {
        let len = match format {
            RecordFormat::Protobuf if u32::try_from(batch.body.len()).is_err() => {
                return Err(SendError::Split { reason: "a record is limited to 4 GiB".to_owned() });
            }
            RecordFormat::Protobuf => PREFIX + batch.body.len() as u64,
            RecordFormat::Json => match json::len(batch.signal, &batch.body) {
                Ok(len) => len + 1,
                Err(error) if Piece::new(batch.clone()).halves().is_some() => {
                    return Err(SendError::Split { reason: error.to_string() });
                }
                Err(error) => return Err(SendError::Refused { reason: error.to_string() }),
            },
        };
        Ok(FileRecord { batch, format, len })
    }

    fn write(&self, file: &File) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(BLOCK as usize, file);
        match self.format {
            RecordFormat::Protobuf => {
                out.write_all(&(self.batch.body.len() as u32).to_be_bytes())?;
                out.write_all(&self.batch.body)?;
            }
            RecordFormat::Json => {
                json::write(&mut out, self.batch.signal, &self.batch.body)?;
                out.write_all(b"\n")?;
            }
        }
        out.flush()
    }
}

struct OpenFile {
    file: File,
    len: u64,
}

impl OpenFile {
    fn append(&mut self, record: &FileRecord<'_>) -> io::Result<()> {
        let written = record.write(&self.file);
        match written {
            Ok(()) => self.len += record.len,
            // Not even a part of the record may stay. The file is opened afresh at the next attempt.
            Err(_) => self.file.set_len(self.len)?,
        }
        written
    }
}

struct SignalFiles {
    settings: FileSettings,
    open: [Option<OpenFile>; 3],
}

impl SignalFiles {
    /// The current file is generation 0.
    fn path(&self, signal: Signal, generation: u32) -> PathBuf {
        let (name, extension) = (signal.word(), self.settings.format.extension());
        self.settings.folder.join(match generation {
            0 => format!("{name}.{extension}"),
            _ => format!("{name}.{generation}.{extension}"),
        })
    }

    fn append(&mut self, record: &FileRecord<'_>) -> io::Result<()> {
        let signal = record.batch.signal;
        let mut open = match self.open[signal as usize].take().filter(|open| self.is_in_place(signal, open)) {
            Some(open) => open,
            None => self.open_file(signal)?,
        };
        if open.len > 0 && open.len + record.len > self.settings.size {
            open.file.sync_all()?;
            self.rotate(signal)?;
            open = self.open_file(signal)?;
        }
        open.append(record)?;
        if !self.is_in_place(signal, &open) {
            // Deleted or moved meanwhile: nobody will find it there.
            open = self.open_file(signal)?;
            open.append(record)?;
        }
        self.open[signal as usize] = Some(open);
        Ok(())
    }

    /// Whether the open file still bears its name, and is as long as it was left.
    fn is_in_place(&self, signal: Signal, open: &OpenFile) -> bool {
        let path = self.path(signal, 0);
        let named = fs::metadata(&path).map(|named| (named.dev(), named.ino())).ok();
        let ours = open.file.metadata().ok();
        let is_ours = ours.as_ref().is_some_and(|ours| named == Some((ours.dev(), ours.ino())));
        if !is_ours {
            warn!(file = %path.display(), "the file was deleted, moved or replaced while it was written: a new one is begun");
        }
        is_ours && ours.is_some_and(|ours| ours.len() >= open.len)
    }

    fn open_file(&self, signal: Signal) -> io::Result<OpenFile> {
        fs::create_dir_all(&self.settings.folder)?;
        let path = self.path(signal, 0);
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        let found = file.metadata()?.len();
        let len = match self.settings.format {
            RecordFormat::Json => whole_lines(&mut file, found)?,
            RecordFormat::Protobuf => whole_messages(&mut file, found)?,
        };
        if len < found {
            let cut = found - len;
            warn!(file = %path.display(), bytes = cut, "removed a record that an earlier crash cut off");
            file.set_len(len)?;
        }
        Ok(OpenFile { file, len })
    }

    fn rotate(&self, signal: Signal) -> io::Result<()> {
        if self.settings.keep == 0 {
            return fs::remove_file(self.path(signal, 0));
        }
        for generation in (0..self.settings.keep).rev() {
            let (from, to) = (self.path(signal, generation), self.path(signal, generation + 1));
            ignore_missing(fs::rename(from, to))?;
        }
        sync_folder(&self.settings.folder)
    }

    fn close(&mut self) -> io::Result<()> {
        // Every file is flushed, also after one that failed.
        let synced: Vec<_> = self.open.iter_mut().filter_map(Option::take).map(|open| open.file.sync_all()).collect();
        synced.into_iter().collect()
    }
}

fn ignore_missing(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes renames durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Bytes up to and including the last line feed.
fn whole_lines(file: &mut File, len: u64) -> io::Result<u64> {
    let mut end = len;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        (&*file).take(end - start).read_to_end(&mut block)?;
        if let Some(at) = memchr::memrchr(b'\n', &block) {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Bytes of all messages that are there as a whole.
fn whole_messages(file: &mut File, len: u64) -> io::Result<u64> {
    let mut whole = 0;
    while whole + PREFIX <= len {
        file.seek(SeekFrom::Start(whole))?;
        let mut prefix = [0; PREFIX as usize];
        file.read_exact(&mut prefix)?;
        let end = whole + PREFIX + u64::from(u32::from_be_bytes(prefix));
        if end > len {
            break;
        }
        whole = end;
    }
    Ok(whole)
}

#[cfg(test)]
mod tests;
