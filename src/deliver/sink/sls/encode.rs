//! The LogGroup protobuf of PutLogs, written by hand: everything in it is text.
//!
//! Source: `log.proto` of aliyun-log-go-sdk (proto2):
//! `LogGroup { Logs=1, Topic=3, Source=4, LogTags=6 }`, `Log { Time=1, Contents=2, Time_ns=4 (fixed32) }`,
//! `Content { Key=1, Value=2 }`, `LogTag { Key=1, Value=2 }`.

use crate::otlp::wire::{put_bytes, put_bytes_header, put_varint, varint_len};

/// Times its bytes that an item's text may have, and so much in any case.
const TEXT_GROWTH: usize = 8;
const TEXT_MIN: usize = 1 << 20;

/// When a pack is full. Log Service takes 10 MB of LogGroup at most; official producers seal at 1 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackLimits {
    /// Bytes at which a pack is sealed.
    pub(super) bytes: usize,
    /// Bytes that a single item may have; above it the item is refused.
    pub(super) bytes_max: usize,
    pub(super) logs: usize,
    /// Items; halved when Log Service finds a pack too large.
    pub(super) items: usize,
}

impl Default for PackLimits {
    fn default() -> Self {
        PackLimits { bytes: 1 << 20, bytes_max: 8 << 20, logs: 4096, items: usize::MAX }
    }
}

impl PackLimits {
    /// How much text an item of so many bytes may become. An ordinary one becomes a little more than it was.
    pub(super) fn text(&self, bytes: usize) -> usize {
        bytes.saturating_mul(TEXT_GROWTH).max(TEXT_MIN).min(self.bytes_max)
    }
}

/// A time as a log carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogTime {
    pub(super) seconds: u32,
    pub(super) nanos: u32,
}

/// The logs of one PutLogs request. An item is a span, a log record or a data point; a data point can
/// be several logs, and one item's logs never part.
#[derive(Debug, Default)]
pub(super) struct Pack {
    logs: Vec<u8>,
    log_count: usize,
    items: usize,
    /// Items that are not in it and never will be: too large, or without a form in Log Service.
    refused: usize,
}

/// Whether a pack takes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PackRoom {
    Left,
    Full,
}

impl Pack {
    pub(super) fn items(&self) -> usize {
        self.items
    }

    pub(super) fn has_logs(&self) -> bool {
        self.log_count > 0
    }

    pub(super) fn refused(&self) -> usize {
        self.refused
    }

    /// Appends the logs of one item, unless they belong in the next pack: then the pack is as before and full. An item
    /// for which `write` gives none is refused, and nothing of it stays.
    pub(super) fn item(
        &mut self,
        limits: &PackLimits,
        write: impl FnOnce(&mut ItemLogs<'_>) -> Option<()>,
    ) -> PackRoom {
        let (bytes, count) = (self.logs.len(), self.log_count);
        let is_written = write(&mut ItemLogs { end: bytes + limits.bytes_max, pack: self }).is_some();
        let exceeds = is_written && (self.logs.len() > limits.bytes || self.log_count > limits.logs);
        let is_for_next = exceeds && self.items > 0;
        if !is_written || is_for_next {
            self.logs.truncate(bytes);
            self.log_count = count;
        }
        if is_for_next {
            return PackRoom::Full;
        }
        self.items += 1;
        self.refused += usize::from(!is_written);
        if exceeds || self.items >= limits.items { PackRoom::Full } else { PackRoom::Left }
    }

    /// The whole LogGroup.
    pub(super) fn finish(mut self, topic: &str, source: &str, pack_id: &str) -> Vec<u8> {
        put_bytes(&mut self.logs, 3, topic.as_bytes());
        put_bytes(&mut self.logs, 4, source.as_bytes());
        put_pair(&mut self.logs, 6, "__pack_id__", pack_id);
        self.logs
    }
}

/// Where the logs of one item are written, as far as [`PackLimits::bytes_max`] allows.
pub(super) struct ItemLogs<'a> {
    pack: &'a mut Pack,
    /// That the pack's logs may have with it.
    end: usize,
}

impl ItemLogs<'_> {
    /// Appends one log with `contents` in their order. None, before any of it is written, if the item becomes too large.
    pub(super) fn log<'a>(
        &mut self,
        time: LogTime,
        contents: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    ) -> Option<()> {
        let of_contents: usize = contents.clone().map(|(key, value)| field_len(pair_len(key, value))).sum();
        // Time, then the fixed32 with its tag.
        let len = 1 + varint_len(time.seconds.into()) + of_contents + 5;
        let logs = &mut self.pack.logs;
        if logs.len() + field_len(len) > self.end {
            return None;
        }
        put_bytes_header(logs, 1, len);
        put_varint(logs, 1 << 3);
        put_varint(logs, time.seconds.into());
        for (key, value) in contents {
            put_pair(logs, 2, key, value);
        }
        put_varint(logs, 4 << 3 | 5);
        logs.extend_from_slice(&time.nanos.to_le_bytes());
        self.pack.log_count += 1;
        Some(())
    }
}

fn pair_len(key: &str, value: &str) -> usize {
    field_len(key.len()) + field_len(value.len())
}

/// Length of a length-delimited field with a one-byte tag.
fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

fn put_pair(out: &mut Vec<u8>, number: u32, key: &str, value: &str) {
    put_bytes_header(out, number, pair_len(key, value));
    put_bytes(out, 1, key.as_bytes());
    put_bytes(out, 2, value.as_bytes());
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::deliver::sink::sls::sign::{hex, tests::RAW};
    use prost::Message;

    /// The same messages by prost, to read what was written.
    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct LogGroup {
        #[prost(message, repeated, tag = "1")]
        pub(crate) logs: Vec<Log>,
        #[prost(string, optional, tag = "3")]
        pub(crate) topic: Option<String>,
        #[prost(string, optional, tag = "4")]
        pub(crate) source: Option<String>,
        #[prost(message, repeated, tag = "6")]
        pub(crate) tags: Vec<Pair>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct Log {
        #[prost(uint32, required, tag = "1")]
        pub(crate) time: u32,
        #[prost(message, repeated, tag = "2")]
        pub(crate) contents: Vec<Pair>,
        #[prost(fixed32, optional, tag = "4")]
        pub(crate) time_ns: Option<u32>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct Pair {
        #[prost(string, required, tag = "1")]
        pub(crate) key: String,
        #[prost(string, required, tag = "2")]
        pub(crate) value: String,
    }

    pub(crate) fn read(pack: Pack) -> LogGroup {
        LogGroup::decode(&pack.finish("topic", "source", "id")[..]).unwrap()
    }

    const TIME: LogTime = LogTime { seconds: 1_795_428_000, nanos: 123_456_789 };

    /// The LogGroup of the signature vectors, as the official Python SDK serialised it.
    #[test]
    fn bytes_of_the_official_sdk() {
        let mut pack = Pack::default();
        let contents = [("service", "checkout"), ("traceID", "0af7651916cd43dd8448eb211c80319c"), ("duration", "1020")];
        let time = LogTime { seconds: 1_763_892_000, nanos: 123_456_789 };
        pack.item(&PackLimits::default(), |item| item.log(time, contents.into_iter()));
        assert_eq!(hex(&pack.finish("tail", "10.0.0.7", "0123456789ABCDEF-0")), RAW);
    }

    #[test]
    fn lengths_are_right_for_every_size_of_text() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 2_097_152] {
            let text = "x".repeat(len);
            let mut pack = Pack::default();
            pack.item(&PackLimits::default(), |item| {
                item.log(TIME, [("k", text.as_str()), (text.as_str(), "v")].into_iter())?;
                item.log(LogTime { seconds: 0, nanos: 0 }, std::iter::empty())
            });
            let group = read(pack);
            assert_eq!(group.logs.len(), 2);
            assert_eq!(group.logs[0].contents[0].value, text);
            assert_eq!((group.logs[0].time, group.logs[0].time_ns), (TIME.seconds, Some(TIME.nanos)));
        }
    }

    #[test]
    fn a_limit_that_is_met_exactly_is_kept_and_one_more_is_not() {
        let write = |pack: &mut Pack, limits: &PackLimits| {
            pack.item(limits, |item| item.log(TIME, [("k", "v")].into_iter()));
        };
        let filled = |limits: PackLimits| {
            let mut pack = Pack::default();
            (0..5).for_each(|_| write(&mut pack, &limits));
            (pack.items(), pack.log_count, pack.logs.len())
        };
        let roomy = PackLimits::default();
        let (_, _, len) = filled(PackLimits { logs: 1, ..roomy });
        assert_eq!(filled(PackLimits { logs: 3, ..roomy }), (3, 3, 3 * len));
        assert_eq!(filled(PackLimits { bytes: 3 * len, ..roomy }), (3, 3, 3 * len));
        assert_eq!(filled(PackLimits { bytes: 3 * len - 1, ..roomy }), (2, 2, 2 * len));

        let alone = |bytes_max| {
            let mut pack = Pack::default();
            write(&mut pack, &PackLimits { bytes: 1, bytes_max, ..roomy });
            (pack.refused(), pack.has_logs())
        };
        assert_eq!((alone(len), alone(len - 1)), ((0, true), (1, false)));
    }

    #[test]
    fn a_pack_is_sealed_between_items() {
        let limits = PackLimits { bytes: 100, bytes_max: 200, logs: 3, items: usize::MAX };
        let write = |pack: &mut Pack, logs: usize, len: usize| {
            let text = "x".repeat(len);
            pack.item(&limits, |item| (0..logs).try_for_each(|_| item.log(TIME, [("k", text.as_str())].into_iter())))
        };
        let mut pack = Pack::default();
        assert_eq!(write(&mut pack, 2, 1), PackRoom::Left);
        assert_eq!(write(&mut pack, 2, 1), PackRoom::Full, "a fourth log");
        assert_eq!((pack.items(), pack.log_count), (1, 2));
        assert_eq!(write(&mut pack, 1, 80), PackRoom::Full, "too many bytes");
        assert_eq!(read(pack).logs.len(), 2);

        let mut pack = Pack::default();
        assert_eq!(write(&mut pack, 1, 150), PackRoom::Full, "alone it may be larger");
        assert!(pack.has_logs() && pack.refused() == 0);

        let mut pack = Pack::default();
        assert_eq!(write(&mut pack, 2, 120), PackRoom::Left, "nothing of it is there");
        assert!(pack.refused() == 1 && !pack.has_logs() && pack.items() == 1);

        let mut pack = Pack::default();
        let limits = PackLimits { items: 1, ..limits };
        assert_eq!(pack.item(&limits, |_| Some(())), PackRoom::Full);
        assert!(!pack.has_logs());
    }

    #[test]
    fn an_item_that_is_too_large_takes_no_memory() {
        let limits = PackLimits::default();
        let (text, mut pack) = ("x".repeat(1 << 20), Pack::default());
        pack.item(&limits, |item| item.log(TIME, [("k", "v")].into_iter()));
        pack.item(&limits, |item| (0..100).try_for_each(|_| item.log(TIME, [("k", text.as_str())].into_iter())));
        assert_eq!((pack.items(), pack.refused(), pack.log_count), (2, 1, 1));
        assert!(pack.logs.capacity() <= 2 * limits.bytes_max, "{} bytes", pack.logs.capacity());
        assert_eq!(read(pack).logs[0].contents[0].value, "v");
    }
}
