//! Recordings as the file sink and the Collector's file exporter write them, known by their content.
//!
//! - OTLP/JSON: a request a line, or documents of several lines;
//! - protobuf: each request after its length as four big-endian bytes. With its compression on, the Collector's exporter
//!   writes so too, and compresses each request by itself, be it JSON or protobuf;
//! - protobuf: one request alone;
//! - each of them as a whole in gzip or zstd.
//!
//! A recording may end in the middle: what was read until there counts.

use super::Recording;
use crate::otlp::json;
use crate::trace::Signal;
use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

/// A request, a line or a document is not longer; longer ones are not read.
/// (So no length begins with a byte that is white space, or with that of a request alone.)
pub const RECORD_MAX: usize = 128 << 20;
const PREFIX: usize = 4;
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// The tag of `resource_spans`, with which a request as protobuf begins.
const FIRST_TAG: u8 = 0x0a;

/// Where a recording could not be read further, and why.
#[derive(Debug)]
pub struct RecordingCut {
    /// Bytes before it, after decompression.
    pub at: u64,
    /// The line, of JSON.
    pub line: Option<u64>,
    pub why: String,
}

impl fmt::Display for RecordingCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line} (byte {}): {}", self.at, self.why),
            None => write!(f, "byte {}: {}", self.at, self.why),
        }
    }
}

/// Reads a whole recording into `recording`.
///
/// # Errors
/// Where it could not be read further. What stood before that counts.
pub fn read(file: impl Read, recording: &mut Recording<'_>) -> Result<(), RecordingCut> {
    let mut file = BufReader::new(file);
    let beginning = peek(&mut file)?;
    if beginning.starts_with(GZIP) {
        read_plain(BufReader::new(flate2::bufread::MultiGzDecoder::new(file)), recording)
    } else if beginning.starts_with(ZSTD) {
        let decoder = zstd::stream::read::Decoder::with_buffer(file).map_err(|error| cut(0, error.to_string()))?;
        read_plain(BufReader::new(decoder), recording)
    } else {
        read_plain(file, recording)
    }
}

fn cut(at: u64, why: impl Into<String>) -> RecordingCut {
    RecordingCut { at, line: None, why: why.into() }
}

/// The first bytes, as many as one read gives.
fn peek(file: &mut impl BufRead) -> Result<Vec<u8>, RecordingCut> {
    let bytes = file.fill_buf().map_err(|error| cut(0, error.to_string()))?;
    Ok(bytes[..bytes.len().min(64)].to_vec())
}

fn read_plain(mut file: impl BufRead, recording: &mut Recording<'_>) -> Result<(), RecordingCut> {
    let beginning = peek(&mut file)?;
    match beginning.first() {
        None => Ok(()),
        Some(_) if is_json(&beginning) => JsonLines { file, recording, at: 0, line: 0 }.read(),
        Some(&FIRST_TAG) => read_request_alone(file, recording),
        Some(_) => read_prefixed(file, recording),
    }
}

/// A line feed and a brace may begin a request as protobuf too, but other control characters follow there.
fn is_json(beginning: &[u8]) -> bool {
    let text = beginning.strip_prefix(BYTE_ORDER_MARK).unwrap_or(beginning);
    let is_text = text.iter().all(|byte| !byte.is_ascii_control() || byte.is_ascii_whitespace());
    is_text && matches!(text.trim_ascii_start().first(), None | Some(b'{' | b'['))
}

/// One request, until the end of the file.
fn read_request_alone(file: impl Read, recording: &mut Recording<'_>) -> Result<(), RecordingCut> {
    let mut request = Vec::new();
    let read = file.take(RECORD_MAX as u64 + 1).read_to_end(&mut request);
    let whole = whole_fields(&request);
    let why = match read {
        Err(error) => describe(&error),
        Ok(_) if request.len() > RECORD_MAX => too_long(),
        Ok(_) if whole < request.len() => "the file ends in the middle of a request".to_owned(),
        Ok(_) => return add(&request, 0, recording),
    };
    add(&request[..whole], 0, recording)?;
    Err(cut(whole as u64, why))
}

fn add(request: &[u8], at: u64, recording: &mut Recording<'_>) -> Result<(), RecordingCut> {
    recording.add(request).map_err(|_| cut(at, "this is no ExportTraceServiceRequest"))
}

/// Bytes of the `ResourceSpans` that are there as a whole.
fn whole_fields(request: &[u8]) -> usize {
    let mut whole = 0;
    while let Some((&FIRST_TAG, rest)) = request[whole..].split_first() {
        let Some((len, digits)) = varint(rest) else { break };
        match (1 + digits).checked_add(len).filter(|field| *field <= request.len() - whole) {
            Some(field) => whole += field,
            None => break,
        }
    }
    whole
}

/// A number, and how many bytes it takes.
fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let digits = bytes.iter().take(5).position(|byte| byte & 0x80 == 0)? + 1;
    let value = bytes[..digits].iter().rev().fold(0usize, |value, byte| value << 7 | usize::from(byte & 0x7f));
    Some((value, digits))
}

/// Requests after their length.
fn read_prefixed(mut file: impl Read, recording: &mut Recording<'_>) -> Result<(), RecordingCut> {
    let (mut at, mut record) = (0u64, Vec::new());
    loop {
        record.clear();
        read_up_to(&mut file, PREFIX, &mut record).map_err(|error| cut(at, describe(&error)))?;
        let Ok(prefix) = <[u8; PREFIX]>::try_from(record.as_slice()) else {
            return if record.is_empty() { Ok(()) } else { Err(cut(at, "the file ends in the middle of a length")) };
        };
        let len = u32::from_be_bytes(prefix) as usize;
        if len > RECORD_MAX {
            let what = if at == 0 { "this is no recording of traces that is known" } else { "this is no length" };
            return Err(cut(at, format!("{what}: expected OTLP/JSON, or OTLP as protobuf")));
        }
        record.clear();
        read_up_to(&mut file, len, &mut record).map_err(|error| cut(at, describe(&error)))?;
        if record.len() < len {
            let there = record.len();
            return Err(cut(
                at,
                format!("the file ends in the middle of a request: {there} of its {len} bytes are there"),
            ));
        }
        add_record(&record, at, recording)?;
        at += (PREFIX + len) as u64;
    }
}

fn read_up_to(file: &mut impl Read, len: usize, out: &mut Vec<u8>) -> io::Result<()> {
    file.take(len as u64).read_to_end(out).map(|_| ())
}

/// A request that may be compressed by itself.
fn add_record(record: &[u8], at: u64, recording: &mut Recording<'_>) -> Result<(), RecordingCut> {
    let record = decompressed(record).map_err(|error| cut(at, describe(&error)))?;
    if !record.trim_ascii_start().starts_with(b"{") {
        return add(&record, at, recording);
    }
    let request = json::read_all(Signal::Traces, &record).map_err(|error| cut(at, error.to_string()))?;
    add(&request, at, recording)
}

fn decompressed(record: &[u8]) -> io::Result<Cow<'_, [u8]>> {
    let mut out = Vec::new();
    let most = RECORD_MAX as u64 + 1;
    if record.starts_with(ZSTD) {
        zstd::stream::read::Decoder::with_buffer(record)?.take(most).read_to_end(&mut out)?;
    } else if record.starts_with(GZIP) {
        flate2::bufread::MultiGzDecoder::new(record).take(most).read_to_end(&mut out)?;
    } else {
        return Ok(Cow::Borrowed(record));
    }
    if out.len() > RECORD_MAX { Err(io::Error::other(too_long())) } else { Ok(Cow::Owned(out)) }
}

/// OTLP/JSON, a line at a time.
struct JsonLines<'r, 'q, F> {
    file: F,
    recording: &'r mut Recording<'q>,
    at: u64,
    line: u64,
}

impl<F: BufRead> JsonLines<'_, '_, F> {
    fn read(mut self) -> Result<(), RecordingCut> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut self.file).take(RECORD_MAX as u64 + 1).read_until(b'\n', &mut line);
            self.line += 1;
            if let Err(error) = read {
                return Err(self.cut(describe(&error)));
            }
            if line.is_empty() {
                return Ok(());
            }
            if line.len() > RECORD_MAX {
                return Err(self.cut(too_long()));
            }
            match read_json(&line) {
                Ok(request) => self.add(&request)?,
                Err(error) if error.is_eof() => return self.read_document(line),
                Err(error) => return Err(self.cut(format!("this is not OTLP/JSON: {error}"))),
            }
            self.at += line.len() as u64;
        }
    }

    /// A document that does not end with its first line: all that is left is read at once.
    fn read_document(mut self, mut document: Vec<u8>) -> Result<(), RecordingCut> {
        let first_line = document.len();
        let most = (RECORD_MAX + 1 - first_line) as u64;
        if let Err(error) = (&mut self.file).take(most).read_to_end(&mut document) {
            return Err(self.cut(describe(&error)));
        }
        if document.len() > RECORD_MAX {
            return Err(self.cut(too_long()));
        }
        match read_json(&document) {
            Ok(request) => self.add(&request),
            Err(error) if error.is_eof() => Err(self.cut("the file ends in the middle of a request".to_owned())),
            Err(error) => Err(self.cut(format!("this is not OTLP/JSON: {error}, counted from here"))),
        }
    }

    fn add(&mut self, request: &[u8]) -> Result<(), RecordingCut> {
        self.recording.add(request).map_err(|_| self.cut("this is OTLP/JSON that no receiver takes".to_owned()))
    }

    fn cut(&self, why: String) -> RecordingCut {
        RecordingCut { at: self.at, line: Some(self.line), why }
    }
}

fn read_json(text: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    json::read_all(Signal::Traces, text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text))
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the compressed file ends in the middle".to_owned(),
        _ => error.to_string(),
    }
}

fn too_long() -> String {
    format!("a request of more than {} MiB", RECORD_MAX >> 20)
}

#[cfg(test)]
mod tests;
