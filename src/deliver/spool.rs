//! The queue on disk: what a crash or an outage of hours must not lose.
//!
//! One append-only log per signal, in segments named after the first number in them. A record is a
//! header (length, number, items, route, CRC-32 of the body, CRC-32 of the header; little endian) and the
//! body. How far each sink has come is a small file of its own, replaced by rename. A record counts as
//! written when its bytes and its name are synced; only then does the queue let go of its memory.
//! Damage costs the records that it hit: at start the next header behind it is looked for.
//!
//! Sent but not yet noted in the cursors means sent again after a crash: at least once, never less.
//! It does not know the queue: `writer` moves entries between the two.

pub mod files;
pub(crate) mod writer;

use crate::trace::Signal;
use bytes::Bytes;
use files::Files;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, io, ops::Range, path::PathBuf, sync::Arc};
use tracing::{error, warn};

const MAGIC: &[u8; 8] = b"tkspool1";
const HEADER: usize = 28;
const CURSORS: &str = "cursors.json";
const CURSORS_NEW: &str = "cursors.json.new";
/// A segment is at most this long, unless one record is longer.
const SEGMENT_MAX: u64 = 16 << 20;
/// A quota holds this many segments at least: the oldest is dropped as a whole.
const SEGMENTS_MIN: u64 = 8;
/// Numbers in a segment lie less far apart than this: entries of other signals have numbers, too.
const NUMBERS_MAX: u64 = 1 << 40;
/// Bytes in which a header is looked for at once.
const WINDOW: u64 = 64 << 10;

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
struct SegmentHeader {
    len: u32,
    number: u64,
    /// Fewer than bytes, of which there are less than 2^32.
    items: u32,
    route: u32,
    body_crc: u32,
}

impl SegmentHeader {
    fn write(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&self.len.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.number.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.items.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.route.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..24]);
        bytes[24..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<SegmentHeader> {
        let (fields, crc) = bytes.split_at_checked(24)?;
        if crc32fast::hash(fields).to_le_bytes() != crc {
            return None;
        }
        let number = |at: usize| u64::from_le_bytes(fields[at..at + 8].try_into().expect("eight bytes"));
        let small = |at: usize| u32::from_le_bytes(fields[at..at + 4].try_into().expect("four bytes"));
        let (items, route) = (small(12), small(16));
        Some(SegmentHeader { len: small(0), number: number(4), items, route, body_crc: small(20) })
    }
}

/// What a record is made of.
#[derive(Clone, Debug)]
pub(crate) struct SpoolRecord {
    pub(crate) number: u64,
    pub(crate) items: u64,
    /// The fingerprint of the sinks that it is for.
    pub(crate) route: u32,
    pub(crate) body: Bytes,
}

/// A whole record that was found at start. Its body is checked when it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) signal: Signal,
    pub(crate) number: u64,
    pub(crate) items: u64,
    /// As in [`SpoolRecord`].
    pub(crate) route: u32,
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
    /// Below no cursor and above every number in a file: one that is given twice would be skipped by a
    /// sink whose cursor is beyond it.
    pub(crate) next_number: u64,
    /// Bytes per signal in which no record could be found.
    pub(crate) damaged: [u64; 3],
}

#[derive(Debug)]
struct SpoolSegment {
    /// The number in its name.
    first: u64,
    /// Of the last record in it, or beyond that.
    last: u64,
    len: u64,
}

/// The files of one spool. One writer; bodies are read through [`read_body`].
pub(crate) struct Spool {
    files: Arc<dyn Files>,
    quotas: [u64; 3],
    /// Oldest first. The last one is appended to, unless `sealed`.
    segments: [Vec<SpoolSegment>; 3],
    /// The last segment takes no more: it came from an earlier run or its end is doubtful.
    sealed: [bool; 3],
}

impl Spool {
    /// Finds what an earlier run left. Damage is counted and reported, never fatal; only a folder that
    /// cannot be listed is.
    pub(crate) fn open(files: Arc<dyn Files>, quotas: [u64; 3]) -> io::Result<(Spool, Recovered)> {
        let mut names = files.list()?;
        names.sort();
        let mut spool = Spool { files, quotas, segments: Default::default(), sealed: [true; 3] };
        let mut recovered = Recovered { cursors: spool.read_cursors(), ..Recovered::default() };
        for signal in Signal::ALL {
            let segments: Vec<u64> = names.iter().filter_map(|name| segment_number(signal, name)).collect();
            for first in &segments {
                spool.recover_segment(signal, *first, Some(first) == segments.last(), &mut recovered);
            }
        }
        recovered.next_number = spool.next_number(&recovered.cursors);
        Ok((spool, recovered))
    }

    /// Takes over what can be read. The rest goes with its segment: it counts against the quota.
    fn recover_segment(&mut self, signal: Signal, first: u64, is_newest: bool, recovered: &mut Recovered) {
        let name = segment_name(signal, first);
        let scanned = Scanned::new(self.files.as_ref(), signal, first);
        recovered.damaged[signal as usize] += scanned.damaged();
        scanned.report(&name, is_newest);
        let Scanned { found, end, mut len, unread, .. } = scanned;
        if unread.is_none() && found.is_empty() && self.files.remove(&name).is_ok() {
            return;
        }
        // Each start would count it again.
        if unread.is_none() && end < len && self.files.truncate(&name, end).is_ok() {
            len = end;
        }
        let (oldest, newest) = (found.first().map(|record| record.number), found.last().map(|record| record.number));
        let last = if unread.is_some() { first.saturating_add(NUMBERS_MAX) } else { newest.unwrap_or(first) };
        // Records whose sync failed were written again here: the earlier copies are doubtful.
        let begins = oldest.unwrap_or(first);
        recovered.records.retain(|record| record.signal != signal || record.number < begins);
        recovered.records.extend(found);
        let segments = &mut self.segments[signal as usize];
        if let Some(before) = segments.last_mut() {
            before.last = before.last.min(begins.saturating_sub(1));
        }
        segments.push(SpoolSegment { first, last, len });
    }

    fn next_number(&self, cursors: &Cursors) -> u64 {
        // Also of sinks that are not configured any more: they may come back.
        let noted = cursors.values().flatten().flatten().copied();
        let held = self.segments.iter().flatten().map(|segment| segment.last.saturating_add(1));
        noted.chain(held).max().unwrap_or(0)
    }

    fn read_cursors(&self) -> Cursors {
        let read = self.files.len(CURSORS).and_then(|len| self.files.read(CURSORS, 0, len as usize));
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Cursors::new(),
            Err(error) => {
                warn!(
                    reason = error.to_string(),
                    "how far the sinks had come cannot be read: all of the queue on disk is sent again"
                );
                return Cursors::new();
            }
        };
        let noted = serde_json::from_slice(&bytes).ok();
        noted.filter(Noted::is_whole).map_or_else(
            || {
                warn!("the note of how far the sinks had come is damaged: all of the queue on disk is sent again");
                Cursors::new()
            },
            |noted| noted.cursors,
        )
    }

    /// Appends and syncs. The records whose locations are returned are safe, also if there is an
    /// error; the others do not count as written, and may be appended again.
    pub(crate) fn append(&mut self, signal: Signal, entries: &[SpoolRecord]) -> (Vec<Location>, io::Result<()>) {
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
    fn append_some(&mut self, signal: Signal, entries: &[SpoolRecord]) -> io::Result<Vec<Location>> {
        let index = self.segment_for(signal, entries[0].number)?;
        let segment = &self.segments[signal as usize][index];
        let (first, at, limit) = (segment.first, segment.len, self.segment_max(signal));
        let (mut bytes, mut locations) = (Vec::new(), Vec::new());
        for SpoolRecord { number, items, route, body } in entries {
            let offset = at + bytes.len() as u64;
            if !locations.is_empty() && offset >= limit {
                break;
            }
            let len = u32::try_from(body.len()).map_err(io::Error::other)?;
            let items = u32::try_from(*items).map_err(io::Error::other)?;
            let (number, route, body_crc) = (*number, *route, crc32fast::hash(body));
            let header = SegmentHeader { len, number, items, route, body_crc };
            bytes.extend_from_slice(&header.write());
            bytes.extend_from_slice(body);
            locations.push(Location { segment: first, offset, len });
        }
        self.append_bytes(signal, index, &bytes, entries[locations.len() - 1].number)?;
        Ok(locations)
    }

    fn append_bytes(&mut self, signal: Signal, index: usize, bytes: &[u8], last: u64) -> io::Result<()> {
        let segments = &mut self.segments[signal as usize];
        let segment = &mut segments[index];
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
                // A segment in which nothing counts would stay: the next attempt may have another name.
                if segment.len == MAGIC.len() as u64 && self.files.remove(&name).is_ok() {
                    segments.remove(index);
                } else {
                    let _ = self.files.truncate(&name, segment.len);
                }
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
        let created = self.files.append(&name, MAGIC).and_then(|()| self.files.sync_folder());
        created.inspect_err(|_| drop(self.files.remove(&name)))?;
        segments.push(SpoolSegment { first: number, last: number, len: MAGIC.len() as u64 });
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

    /// The last number in the oldest segment of a signal that is over its quota: [`Spool::drop_oldest`]
    /// is due.
    pub(crate) fn over_quota(&self, signal: Signal) -> Option<u64> {
        let segments = &self.segments[signal as usize];
        let over = self.bytes(signal) > self.quotas[signal as usize] && segments.len() > 1;
        over.then(|| segments[0].last)
    }

    /// Deletes segments in which every record is below `number`.
    pub(crate) fn forget_below(&mut self, signal: Signal, number: u64) -> io::Result<()> {
        while self.segments[signal as usize].first().is_some_and(|segment| segment.last < number) {
            self.drop_oldest(signal)?;
        }
        Ok(())
    }

    pub(crate) fn drop_oldest(&mut self, signal: Signal) -> io::Result<()> {
        let segments = &mut self.segments[signal as usize];
        ignore_missing(self.files.remove(&segment_name(signal, segments[0].first)))?;
        segments.remove(0);
        if segments.is_empty() {
            self.sealed[signal as usize] = true;
        }
        Ok(())
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
    match SegmentHeader::read(&record) {
        Some(header) if header.body_crc == crc32fast::hash(&body) => Ok(body.into()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name}: a record's checksum is wrong"))),
    }
}

/// What the headers of a segment say.
#[derive(Default)]
struct Scanned {
    found: Vec<Found>,
    /// Where the last whole record ends.
    end: u64,
    /// Bytes before that which belong to no record.
    skipped: u64,
    len: u64,
    /// Why what is behind `end` is not known.
    unread: Option<io::Error>,
}

impl Scanned {
    fn new(files: &dyn Files, signal: Signal, first: u64) -> Scanned {
        let mut scanned = Scanned::default();
        scanned.unread = scanned.scan(files, signal, first).err();
        scanned
    }

    fn scan(&mut self, files: &dyn Files, signal: Signal, first: u64) -> io::Result<()> {
        let name = segment_name(signal, first);
        self.len = files.len(&name)?;
        let magic = MAGIC.len() as u64;
        if self.len >= magic && files.read(&name, 0, MAGIC.len())? == MAGIC {
            self.end = magic;
        }
        let mut number = first;
        while let Some((offset, header)) = next_header(files, &name, self.end..self.len, number)? {
            let location = Location { segment: first, offset, len: header.len };
            let (number_found, items, route) = (header.number, u64::from(header.items), header.route);
            self.found.push(Found { signal, number: number_found, items, route, location });
            self.skipped += offset - self.end;
            self.end = offset + HEADER as u64 + u64::from(header.len);
            number = header.number.saturating_add(1);
        }
        Ok(())
    }

    fn damaged(&self) -> u64 {
        self.skipped + self.len - self.end
    }

    fn report(&self, file: &str, is_newest: bool) {
        let bytes = self.damaged();
        if let Some(reason) = &self.unread {
            let reason = reason.to_string();
            error!(file, bytes, reason, "a segment of the queue on disk cannot be read: what is in it is left out");
        } else if is_newest && self.skipped == 0 && bytes > 0 {
            warn!(file, bytes, "the last write to the queue on disk was cut off: what it had begun is discarded");
        } else if bytes > 0 {
            error!(file, bytes, "a segment of the queue on disk is damaged: the records in these bytes are lost");
        }
    }
}

/// The first header in a part of a segment whose record is whole and has this number or one of the next:
/// usually at the beginning, further on if there is damage. It looks at each byte once.
fn next_header(
    files: &dyn Files,
    name: &str,
    part: Range<u64>,
    number: u64,
) -> io::Result<Option<(u64, SegmentHeader)>> {
    let (mut at, mut window) = (part.start, HEADER as u64);
    while at + HEADER as u64 <= part.end {
        let bytes = files.read(name, at, window.min(part.end - at) as usize)?;
        let hit = bytes.windows(HEADER).zip(at..).find_map(|(bytes, at)| {
            let header = SegmentHeader::read(bytes)?;
            let is_whole = at + HEADER as u64 + u64::from(header.len) <= part.end;
            let is_next = (number..number.saturating_add(NUMBERS_MAX)).contains(&header.number);
            (is_whole && is_next).then_some((at, header))
        });
        if hit.is_some() {
            return Ok(hit);
        }
        at += (bytes.len() - HEADER + 1) as u64;
        window = WINDOW;
    }
    Ok(None)
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
    let first = name.strip_prefix(signal.word())?.strip_prefix('-')?.strip_suffix(".spool")?.parse().ok()?;
    (segment_name(signal, first) == name).then_some(first)
}

#[cfg(test)]
mod tests;
