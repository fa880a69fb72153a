//! The queue on disk: what a crash or an outage of hours must not lose.
//!
//! One append-only log per signal, in segments named after the first number in them. A record is a
//! header (length, number, items, CRC-32 of the body, CRC-32 of the header; little endian) and the
//! body. How far each sink has come is a small file of its own, replaced by rename. A record counts as
//! written when its bytes and its name are synced; only then does the queue let go of its memory.
//!
//! Sent but not yet noted in the cursors means sent again after a crash: at least once, never less.
//! It does not know the queue: `writer` moves entries between the two.

pub mod files;
pub(crate) mod writer;

use crate::trace::Signal;
use bytes::Bytes;
use files::Files;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc};
use tracing::{error, warn};

const MAGIC: &[u8; 8] = b"tkspool1";
const HEADER: usize = 28;
const CURSORS: &str = "cursors.json";
const CURSORS_NEW: &str = "cursors.json.new";
/// A segment is at most this long, unless one record is longer.
const SEGMENT_MAX: u64 = 16 << 20;
/// A quota holds this many segments at least: the oldest is dropped as a whole.
const SEGMENTS_MIN: u64 = 8;

/// Where and how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolSettings {
    /// A folder of its own; created if it does not exist.
    pub path: PathBuf,
    /// Bytes on disk per signal, in the order of [`Signal::ALL`].
    pub quotas: [u64; 3],
}

/// Where an entry's record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

impl Location {
    /// Bytes of the body.
    pub(crate) fn bytes(&self) -> usize {
        self.len as usize
    }
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    len: u32,
    number: u64,
    items: u64,
    body_crc: u32,
}

impl Header {
    fn write(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&self.len.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.number.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.items.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..24]);
        bytes[24..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Header> {
        let (fields, crc) = bytes.split_at_checked(24)?;
        if crc32fast::hash(fields).to_le_bytes() != crc {
            return None;
        }
        let number = |at: usize| u64::from_le_bytes(fields[at..at + 8].try_into().expect("eight bytes"));
        let small = |at: usize| u32::from_le_bytes(fields[at..at + 4].try_into().expect("four bytes"));
        Some(Header { len: small(0), number: number(4), items: number(12), body_crc: small(20) })
    }
}

/// A whole record that was found at start. Its body is checked when it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) signal: Signal,
    pub(crate) number: u64,
    pub(crate) items: u64,
    pub(crate) location: Location,
}

/// Per sink, per signal: the first number that is not done.
pub(crate) type Cursors = BTreeMap<String, [Option<u64>; 3]>;

/// The cursors' file. A digit that turned into another must not skip records.
#[derive(Serialize, Deserialize)]
struct Noted {
    crc: u32,
    cursors: Cursors,
}

impl Noted {
    fn new(cursors: Cursors) -> Noted {
        Noted { crc: Noted::checksum(&cursors), cursors }
    }

    fn is_whole(&self) -> bool {
        self.crc == Noted::checksum(&self.cursors)
    }

    fn checksum(cursors: &Cursors) -> u32 {
        crc32fast::hash(&serde_json::to_vec(cursors).expect("texts and numbers are JSON"))
    }
}

/// What an earlier run left.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// In order of their numbers, within a signal.
    pub(crate) records: Vec<Found>,
    pub(crate) cursors: Cursors,
}

#[derive(Debug)]
struct Segment {
    /// The number in its name.
    first: u64,
    /// Of the last record in it.
    last: u64,
    len: u64,
}

/// The files of one spool. One writer; bodies are read through [`read_body`].
pub(crate) struct Spool {
    files: Arc<dyn Files>,
    quotas: [u64; 3],
    /// Oldest first. The last one is appended to, unless `sealed`.
    segments: [Vec<Segment>; 3],
    /// The last segment takes no more: it came from an earlier run or its end is doubtful.
    sealed: [bool; 3],
}

impl Spool {
    /// Finds what an earlier run left. Damaged parts are put aside and reported, never fatal; only a
    /// folder that cannot be listed is.
    pub(crate) fn open(files: Arc<dyn Files>, quotas: [u64; 3]) -> io::Result<(Spool, Recovered)> {
        let mut names = files.list()?;
        names.sort();
        let mut spool = Spool { files, quotas, segments: Default::default(), sealed: [true; 3] };
        let mut recovered = Recovered { cursors: spool.read_cursors(), ..Recovered::default() };
        for signal in Signal::ALL {
            for name in &names {
                if let Some(first) = segment_number(signal, name) {
                    spool.recover_segment(signal, first, &mut recovered.records);
                }
            }
        }
        Ok((spool, recovered))
    }

    fn recover_segment(&mut self, signal: Signal, first: u64, records: &mut Vec<Found>) {
        let name = segment_name(signal, first);
        let scanned = scan_segment(self.files.as_ref(), signal, first);
        let (found, whole, len) = match scanned {
            Ok(scanned) => scanned,
            Err(reason) => {
                error!(file = name, reason = reason.to_string(), "a spool segment cannot be read; it is left as it is");
                return;
            }
        };
        let nothing_else = whole == len || self.put_aside(&name, whole, len);
        let (Some(oldest), Some(newest)) = (found.first(), found.last()) else {
            if nothing_else {
                let _ = self.files.remove(&name);
            }
            return;
        };
        // Records whose sync failed were written again here: the earlier copies are doubtful.
        let (oldest, last) = (oldest.number, newest.number);
        records.retain(|record| record.signal != signal || record.number < oldest);
        records.extend(found);
        self.segments[signal as usize].push(Segment { first, last, len: whole });
    }

    /// Moves what follows the whole records to a file beside the segment; false if it cannot.
    fn put_aside(&self, name: &str, whole: u64, len: u64) -> bool {
        let bytes = len - whole;
        let aside = format!("{name}.damaged");
        let moved = (|| {
            self.files.append(&aside, &self.files.read(name, whole, bytes as usize)?)?;
            self.files.sync(&aside)?;
            self.files.truncate(name, whole)
        })();
        match &moved {
            Ok(()) => error!(file = name, aside, bytes, "the end of a spool segment is damaged and was put aside"),
            Err(reason) => {
                let reason = reason.to_string();
                warn!(file = name, bytes, reason, "the end of a spool segment is damaged and cannot be put aside");
            }
        }
        moved.is_ok()
    }

    fn read_cursors(&self) -> Cursors {
        let read = self.files.len(CURSORS).and_then(|len| self.files.read(CURSORS, 0, len as usize));
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Cursors::new(),
            Err(error) => {
                warn!(reason = error.to_string(), "the spool's cursors cannot be read: all of it is sent again");
                return Cursors::new();
            }
        };
        let noted = serde_json::from_slice(&bytes).ok();
        noted.filter(Noted::is_whole).map_or_else(
            || {
                warn!("the spool's cursors are damaged: all of it is sent again");
                Cursors::new()
            },
            |noted| noted.cursors,
        )
    }

    /// Appends and syncs. The records whose locations are returned are safe, also if there is an
    /// error; the others do not count as written, and may be appended again.
    pub(crate) fn append(&mut self, signal: Signal, entries: &[(u64, u64, Bytes)]) -> (Vec<Location>, io::Result<()>) {
        let mut locations = Vec::with_capacity(entries.len());
        while locations.len() < entries.len() {
            match self.append_some(signal, &entries[locations.len()..]) {
                Ok(written) => locations.extend(written),
                Err(error) => return (locations, Err(error)),
            }
        }
        (locations, Ok(()))
    }

    /// As many as go into one segment, at least one.
    fn append_some(&mut self, signal: Signal, entries: &[(u64, u64, Bytes)]) -> io::Result<Vec<Location>> {
        let index = self.segment_for(signal, entries[0].0)?;
        let segment = &self.segments[signal as usize][index];
        let (first, at, limit) = (segment.first, segment.len, self.segment_max(signal));
        let (mut bytes, mut locations) = (Vec::new(), Vec::new());
        for (number, items, body) in entries {
            let offset = at + bytes.len() as u64;
            if !locations.is_empty() && offset >= limit {
                break;
            }
            let len = u32::try_from(body.len()).map_err(io::Error::other)?;
            let header = Header { len, number: *number, items: *items, body_crc: crc32fast::hash(body) };
            bytes.extend_from_slice(&header.write());
            bytes.extend_from_slice(body);
            locations.push(Location { segment: first, offset, len });
        }
        self.append_bytes(signal, index, &bytes, entries[locations.len() - 1].0)?;
        Ok(locations)
    }

    fn append_bytes(&mut self, signal: Signal, segment: usize, bytes: &[u8], last: u64) -> io::Result<()> {
        let segment = &mut self.segments[signal as usize][segment];
        let name = segment_name(signal, segment.first);
        let written = self.files.append(&name, bytes).and_then(|()| self.files.sync(&name));
        match written {
            Ok(()) => {
                segment.len += bytes.len() as u64;
                segment.last = last;
            }
            Err(_) => {
                // What is behind `len` is doubtful, also when cutting it off fails: write no more here.
                self.sealed[signal as usize] = true;
                let _ = self.files.truncate(&name, segment.len);
            }
        }
        written
    }

    /// The index of a segment that takes the record `number`.
    fn segment_for(&mut self, signal: Signal, number: u64) -> io::Result<usize> {
        let limit = self.segment_max(signal);
        let segments = &mut self.segments[signal as usize];
        if let Some(segment) = segments.last().filter(|segment| segment.len < limit && !self.sealed[signal as usize]) {
            // Another hand may have emptied the folder, or another disk may be mounted there by now.
            let on_disk = self.files.len(&segment_name(signal, segment.first));
            if on_disk.is_ok_and(|len| len == segment.len) {
                return Ok(segments.len() - 1);
            }
        }
        // An error may have left a segment of this name, with nothing in it that counts.
        segments.pop_if(|segment| segment.first == number);
        let name = segment_name(signal, number);
        ignore_missing(self.files.remove(&name))?;
        self.files.append(&name, MAGIC)?;
        self.files.sync_folder()?;
        segments.push(Segment { first: number, last: number, len: MAGIC.len() as u64 });
        self.sealed[signal as usize] = false;
        Ok(segments.len() - 1)
    }

    fn segment_max(&self, signal: Signal) -> u64 {
        SEGMENT_MAX.min(self.quotas[signal as usize] / SEGMENTS_MIN)
    }

    /// Bytes on disk of a signal.
    pub(crate) fn bytes(&self, signal: Signal) -> u64 {
        self.segments[signal as usize].iter().map(|segment| segment.len).sum()
    }

    /// Deletes the oldest segments of a signal that is over its quota. Returns the last number that
    /// went, if any did.
    pub(crate) fn enforce_quota(&mut self, signal: Signal) -> io::Result<Option<u64>> {
        let mut dropped = None;
        while self.bytes(signal) > self.quotas[signal as usize] && self.segments[signal as usize].len() > 1 {
            dropped = Some(self.remove_oldest(signal)?);
        }
        Ok(dropped)
    }

    /// Deletes segments in which every record is below `number`.
    pub(crate) fn forget_below(&mut self, signal: Signal, number: u64) -> io::Result<()> {
        while self.segments[signal as usize].first().is_some_and(|segment| segment.last < number) {
            self.remove_oldest(signal)?;
        }
        Ok(())
    }

    fn remove_oldest(&mut self, signal: Signal) -> io::Result<u64> {
        let segments = &mut self.segments[signal as usize];
        ignore_missing(self.files.remove(&segment_name(signal, segments[0].first)))?;
        let oldest = segments.remove(0);
        if segments.is_empty() {
            self.sealed[signal as usize] = true;
        }
        Ok(oldest.last)
    }

    /// Replaces the cursors, so that a crash leaves the old or the new ones.
    pub(crate) fn write_cursors(&self, cursors: &Cursors) -> io::Result<()> {
        let bytes = serde_json::to_vec(&Noted::new(cursors.clone())).map_err(io::Error::other)?;
        ignore_missing(self.files.remove(CURSORS_NEW))?;
        self.files.append(CURSORS_NEW, &bytes)?;
        self.files.sync(CURSORS_NEW)?;
        self.files.rename(CURSORS_NEW, CURSORS)?;
        self.files.sync_folder()
    }

    pub(crate) fn files(&self) -> Arc<dyn Files> {
        self.files.clone()
    }
}

/// A record's body. `NotFound` if its segment was dropped meanwhile, `InvalidData` if it is damaged.
pub(crate) fn read_body(files: &dyn Files, signal: Signal, location: Location) -> io::Result<Bytes> {
    let name = segment_name(signal, location.segment);
    let read = files.read(&name, location.offset, HEADER + location.bytes());
    let mut record = read.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(io::ErrorKind::InvalidData, error),
        _ => error,
    })?;
    let body = record.split_off(HEADER);
    match Header::read(&record) {
        Some(header) if header.body_crc == crc32fast::hash(&body) => Ok(body.into()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a record's checksum is wrong")),
    }
}

/// The whole records of a segment, where they end, and the file's length. Reads headers only.
fn scan_segment(files: &dyn Files, signal: Signal, first: u64) -> io::Result<(Vec<Found>, u64, u64)> {
    let name = segment_name(signal, first);
    let len = files.len(&name)?;
    let mut found: Vec<Found> = Vec::new();
    let mut at = MAGIC.len() as u64;
    if len < at || files.read(&name, 0, MAGIC.len())? != MAGIC {
        return Ok((found, 0, len));
    }
    while at + HEADER as u64 <= len {
        let Some(header) = Header::read(&files.read(&name, at, HEADER)?) else { break };
        let end = at + HEADER as u64 + u64::from(header.len);
        let in_order = found.last().map_or(first, |record| record.number + 1) <= header.number;
        if end > len || !in_order {
            break;
        }
        let location = Location { segment: first, offset: at, len: header.len };
        found.push(Found { signal, number: header.number, items: header.items, location });
        at = end;
    }
    Ok((found, at, len))
}

fn ignore_missing(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn segment_name(signal: Signal, first: u64) -> String {
    format!("{}-{first:020}.spool", signal.word())
}

fn segment_number(signal: Signal, name: &str) -> Option<u64> {
    name.strip_prefix(signal.word())?.strip_prefix('-')?.strip_suffix(".spool")?.parse().ok()
}

#[cfg(test)]
mod tests;
