//! Decompresses request bodies, for gRPC and HTTP alike, under the same limits: a bomb costs at most
//! `max_request`.
//!
//! Outside of what is charged stays one zstd window (at most 8 MiB) per runtime worker.

use super::admission::Buffer;
use super::refusal::Refusal;
use flate2::{Decompress, FlushDecompress, Status};
use http::HeaderValue;
use std::cell::RefCell;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::get_frame_content_size;

/// The largest window that RFC 8878 asks every decoder to support: 8 MiB.
const ZSTD_WINDOW_LOG: u32 = 23;
/// How many times its own size a body may claim to inflate to before memory is set aside for the claim.
const CREDIBLE_RATIO: usize = 32;

/// How a body is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    /// Named so by HTTP and gRPC, and zlib's format to both (RFC 9110, 8.4.1.2). Some send the bare deflate
    /// stream under that name, as browsers and servers have long accepted.
    Deflate,
    Zstd,
}

impl Encoding {
    /// What is spoken here, for `accept-encoding` and `grpc-accept-encoding`.
    pub const ACCEPTED: HeaderValue = HeaderValue::from_static("identity,gzip,deflate,zstd");

    /// From `content-encoding` or `grpc-encoding`.
    pub fn from_header(value: Option<&HeaderValue>) -> Result<Encoding, Refusal> {
        let word = value.map_or(&b""[..], HeaderValue::as_bytes).trim_ascii();
        if word.is_empty() || word.eq_ignore_ascii_case(b"identity") {
            Ok(Encoding::Identity)
        } else if word.eq_ignore_ascii_case(b"gzip") || word.eq_ignore_ascii_case(b"x-gzip") {
            Ok(Encoding::Gzip)
        } else if word.eq_ignore_ascii_case(b"deflate") {
            Ok(Encoding::Deflate)
        } else if word.eq_ignore_ascii_case(b"zstd") {
            Ok(Encoding::Zstd)
        } else {
            Err(Refusal::Encoding(String::from_utf8_lossy(&word[..word.len().min(40)]).into_owned()))
        }
    }

    /// The decompressed body. The compressed one is released when this returns.
    pub fn inflate(self, wire: Buffer) -> Result<Buffer, Refusal> {
        let claimed = match self {
            Encoding::Identity => return Ok(wire),
            Encoding::Gzip => gzip_claim(&wire),
            Encoding::Deflate => None,
            Encoding::Zstd => zstd_claim(&wire),
        };
        let admission = wire.admission();
        let credible = wire.len().saturating_mul(CREDIBLE_RATIO).min(admission.max_request());
        let expected = claimed.unwrap_or(wire.len() * 4).min(credible);
        let mut body = admission.admit(expected)?;
        body.make_room(expected)?;
        match self {
            Encoding::Gzip => gunzip(&wire, &mut body)?,
            Encoding::Deflate => undeflate(&wire, &mut body)?,
            _ => unzstd(&wire, &mut body)?,
        }
        if body.len() > admission.max_request() { Err(admission.too_large()) } else { Ok(body) }
    }
}

/// The size that a gzip member states in its last four bytes (RFC 1952, ISIZE).
fn gzip_claim(wire: &[u8]) -> Option<usize> {
    wire.last_chunk().map(|&size| u32::from_le_bytes(size) as usize)
}

/// The size that the header of a zstd frame states, if it does.
fn zstd_claim(wire: &[u8]) -> Option<usize> {
    get_frame_content_size(wire).ok().flatten().map(|size| usize::try_from(size).unwrap_or(usize::MAX))
}

/// One gzip member after the other, as RFC 1952 allows.
fn gunzip(wire: &[u8], body: &mut Buffer) -> Result<(), Refusal> {
    let mut rest = wire;
    loop {
        let read = run("gzip", Decompress::new_gzip(15), rest, body)?;
        rest = &rest[read..];
        if rest.is_empty() {
            return Ok(());
        }
    }
}

/// One stream of zlib's format, or of bare deflate.
fn undeflate(wire: &[u8], body: &mut Buffer) -> Result<(), Refusal> {
    let read = run("deflate", Decompress::new(has_zlib_header(wire)), wire, body)?;
    if read < wire.len() { Err(broken("deflate", &"bytes follow after its end")) } else { Ok(()) }
}

/// Whether the first two bytes are those of RFC 1950: method 8, and a multiple of 31. A bare stream begins so
/// only with a stored block, which compressors write for incompressible bodies, and then with another length.
fn has_zlib_header(wire: &[u8]) -> bool {
    wire.first_chunk().is_some_and(|&[method, flags]| {
        method & 0x0f == 8 && method >> 4 <= 7 && u16::from_be_bytes([method, flags]) % 31 == 0
    })
}

/// Inflates up to the end of one stream; gives how many bytes it had.
fn run(format: &str, mut stream: Decompress, wire: &[u8], body: &mut Buffer) -> Result<usize, Refusal> {
    loop {
        let (read, written) = (stream.total_in() as usize, body.len());
        let status = stream.decompress_vec(&wire[read..], body.bytes_mut(), FlushDecompress::None);
        let now_read = stream.total_in() as usize;
        match status.map_err(|error| broken(format, &error))? {
            Status::StreamEnd => return Ok(now_read),
            _ if body.spare() == 0 => body.make_room(1)?,
            _ if now_read == read && body.len() == written => return Err(broken(format, &"it is cut short")),
            _ => {}
        }
    }
}

fn broken(format: &str, why: &dyn std::fmt::Display) -> Refusal {
    Refusal::Malformed(format!("the body is not {format}: {why}"))
}

thread_local! {
    /// Making one costs more than inflating a small body; bodies are inflated without a break, so one
    /// for each worker is enough.
    static ZSTD: RefCell<Option<Decoder<'static>>> = const { RefCell::new(None) };
}

/// One zstd frame after the other, as RFC 8878 allows.
fn unzstd(wire: &[u8], body: &mut Buffer) -> Result<(), Refusal> {
    let broken = |why: &dyn std::fmt::Display| broken("zstd", why);
    ZSTD.with_borrow_mut(|slot| {
        let decoder = match slot {
            Some(decoder) => decoder,
            None => slot.insert(new_zstd_decoder().map_err(|error| broken(&error))?),
        };
        decoder.reinit().map_err(|error| broken(&error))?;
        let mut input = InBuffer::around(wire);
        loop {
            let (read, written) = (input.pos, body.len());
            let mut output = OutBuffer::around_pos(body.bytes_mut(), written);
            let missing = decoder.run(&mut input, &mut output).map_err(|error| broken(&error))?;
            if missing == 0 && input.pos == wire.len() {
                return Ok(());
            } else if body.spare() == 0 {
                body.make_room(1)?;
            } else if input.pos == read && body.len() == written {
                return Err(broken(&"it is cut short"));
            }
        }
    })
}

fn new_zstd_decoder() -> std::io::Result<Decoder<'static>> {
    let mut decoder = Decoder::new()?;
    decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))?;
    Ok(decoder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive::admission::Admission;
    use proptest::prelude::*;
    use std::io::{Read, Write};
    use std::sync::Arc;

    const MAX: usize = 1 << 20;

    fn context() -> Arc<Admission> {
        Admission::new(MAX, 2 * MAX, 0)
    }

    fn inflate(encoding: Encoding, wire: &[u8]) -> Result<Vec<u8>, Refusal> {
        let admission = context();
        let mut body = admission.admit(wire.len()).unwrap();
        body.append(wire).unwrap();
        let inflated = encoding.inflate(body).map(|body| body.to_vec());
        assert_eq!(admission.held(), 0);
        inflated
    }

    fn deflate(encoding: Encoding, body: &[u8]) -> Vec<u8> {
        match encoding {
            Encoding::Identity => body.to_vec(),
            Encoding::Gzip => {
                let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                writer.write_all(body).unwrap();
                writer.finish().unwrap()
            }
            Encoding::Deflate => {
                let mut writer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
                writer.write_all(body).unwrap();
                writer.finish().unwrap()
            }
            Encoding::Zstd => zstd::bulk::compress(body, 1).unwrap(),
        }
    }

    /// deflate without zlib's header and checksum.
    fn bare_deflate(body: &[u8], level: u32) -> Vec<u8> {
        let mut writer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(level));
        writer.write_all(body).unwrap();
        writer.finish().unwrap()
    }

    /// zstd without a content size in its header, as streaming encoders write it.
    fn stream_zstd(body: &[u8]) -> Vec<u8> {
        let mut writer = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        writer.write_all(body).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn the_limit_is_exact_in_every_encoding() {
        for pattern in [|_| 0, |n: usize| (n / 5 % 251) as u8] {
            let over: Vec<u8> = (0..MAX + 1).map(pattern).collect();
            let fits = &over[..MAX];
            let too_large = Err(Refusal::TooLarge { limit: MAX });
            for encoding in [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd] {
                assert!(inflate(encoding, &deflate(encoding, fits)).as_deref() == Ok(fits), "{encoding:?}");
                assert!(inflate(encoding, &deflate(encoding, &over)) == too_large, "{encoding:?}");
            }
            assert!(inflate(Encoding::Zstd, &stream_zstd(fits)).as_deref() == Ok(fits));
            assert!(inflate(Encoding::Zstd, &stream_zstd(&over)) == too_large);
            assert!(inflate(Encoding::Deflate, &bare_deflate(fits, 1)).as_deref() == Ok(fits));
            assert!(inflate(Encoding::Deflate, &bare_deflate(&over, 1)) == too_large);
        }
    }

    #[test]
    fn a_bomb_costs_at_most_the_limit() {
        let gigabyte = 1 << 30;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        for _ in 0..4 {
            gzip.write_all(&vec![0; MAX]).unwrap();
            zstd.write_all(&vec![0; MAX]).unwrap();
        }
        let mut claims_a_gigabyte = gzip.finish().unwrap();
        let end = claims_a_gigabyte.len();
        claims_a_gigabyte[end - 4..].copy_from_slice(&(gigabyte as u32).to_le_bytes());
        for (encoding, bomb) in [(Encoding::Gzip, claims_a_gigabyte), (Encoding::Zstd, zstd.finish().unwrap())] {
            assert_eq!(inflate(encoding, &bomb), Err(Refusal::TooLarge { limit: MAX }));
        }
    }

    #[test]
    fn growing_beyond_what_is_free_is_refused_and_not_called_malformed() {
        let admission = context();
        let _others = [MAX, MAX / 2].map(|size| {
            let mut other = admission.admit(size).unwrap();
            other.make_room(size).unwrap();
            other
        });
        let mut wire = admission.admit(0).unwrap();
        wire.append(&deflate(Encoding::Gzip, &vec![0; MAX])).unwrap();
        assert_eq!(Encoding::Gzip.inflate(wire).err(), Some(Refusal::Busy { limit: 2 * MAX }));
    }

    #[test]
    fn a_window_beyond_eight_mebibytes_is_malformed() {
        let mut writer = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        writer.window_log(27).unwrap();
        writer.write_all(b"small").unwrap();
        assert!(matches!(inflate(Encoding::Zstd, &writer.finish().unwrap()), Err(Refusal::Malformed(_))));
    }

    #[test]
    fn members_follow_each_other_and_garbage_does_not() {
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let mut wire = [deflate(encoding, b"one "), deflate(encoding, b"two")].concat();
            assert_eq!(inflate(encoding, &wire).as_deref(), Ok(&b"one two"[..]));
            wire.extend_from_slice(b"garbage");
            assert!(matches!(inflate(encoding, &wire), Err(Refusal::Malformed(_))), "{encoding:?}");
            assert!(matches!(inflate(encoding, b""), Err(Refusal::Malformed(_))), "{encoding:?}");
        }
    }

    #[test]
    fn deflate_is_one_stream() {
        let wire = deflate(Encoding::Deflate, b"one");
        for wire in [[&wire[..], b"!"].concat(), [&wire[..], &wire].concat(), vec![], b"\x78\x9c".to_vec()] {
            assert!(matches!(inflate(Encoding::Deflate, &wire), Err(Refusal::Malformed(_))), "{wire:?}");
        }
    }

    #[test]
    fn every_truncation_is_malformed() {
        let body: Vec<u8> = (0..2000u32).flat_map(u32::to_le_bytes).collect();
        for (encoding, wire) in [
            (Encoding::Gzip, deflate(Encoding::Gzip, &body)),
            (Encoding::Deflate, deflate(Encoding::Deflate, &body)),
            (Encoding::Deflate, bare_deflate(&body, 6)),
            (Encoding::Zstd, deflate(Encoding::Zstd, &body)),
            (Encoding::Zstd, stream_zstd(&body)),
        ] {
            for cut in 0..wire.len() {
                assert!(matches!(inflate(encoding, &wire[..cut]), Err(Refusal::Malformed(_))), "{encoding:?} at {cut}");
            }
        }
    }

    #[test]
    fn headers_name_the_encoding() {
        let parse = |text: &'static str| Encoding::from_header(Some(&HeaderValue::from_static(text)));
        assert_eq!(Encoding::from_header(None), Ok(Encoding::Identity));
        assert_eq!(parse("identity"), Ok(Encoding::Identity));
        assert_eq!(parse(" GZIP "), Ok(Encoding::Gzip));
        assert_eq!(parse("zstd"), Ok(Encoding::Zstd));
        assert_eq!(parse("x-gzip"), Ok(Encoding::Gzip));
        assert_eq!(parse("Deflate"), Ok(Encoding::Deflate));
        assert_eq!(parse("br"), Err(Refusal::Encoding("br".to_owned())));
        assert_eq!(parse("gzip, gzip"), Err(Refusal::Encoding("gzip, gzip".to_owned())));
    }

    /// As the decoders for readers do it, which know no limits.
    fn reference(encoding: Encoding, wire: &[u8]) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        let read = match encoding {
            Encoding::Identity => return Some(wire.to_vec()),
            Encoding::Gzip => flate2::read::MultiGzDecoder::new(wire).read_to_end(&mut body),
            Encoding::Deflate if has_zlib_header(wire) => flate2::read::ZlibDecoder::new(wire).read_to_end(&mut body),
            Encoding::Deflate => flate2::read::DeflateDecoder::new(wire).read_to_end(&mut body),
            Encoding::Zstd => zstd::stream::read::Decoder::new(wire).ok()?.read_to_end(&mut body),
        };
        read.is_ok().then_some(body)
    }

    proptest! {
        #[test]
        fn what_was_compressed_comes_back(body in proptest::collection::vec(any::<u8>(), 0..5000)) {
            for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Deflate, Encoding::Zstd] {
                prop_assert_eq!(&inflate(encoding, &deflate(encoding, &body)).unwrap(), &body);
            }
            for level in [0, 1, 9] {
                prop_assert_eq!(&inflate(Encoding::Deflate, &bare_deflate(&body, level)).unwrap(), &body);
            }
        }

        #[test]
        fn what_is_taken_of_noise_and_damage_is_what_other_decoders_read(
            noise in proptest::collection::vec(any::<u8>(), 0..500),
            body in proptest::collection::vec(any::<u8>(), 0..500),
            damage in (any::<prop::sample::Index>(), any::<u8>()),
        ) {
            for (encoding, start) in [
                (Encoding::Gzip, &b""[..]),
                (Encoding::Deflate, b""),
                (Encoding::Zstd, &[0x28, 0xb5, 0x2f, 0xfd]),
            ] {
                let mut damaged = deflate(encoding, &body);
                let at = damage.0.index(damaged.len());
                damaged[at] ^= damage.1;
                for wire in [[start, &noise].concat(), damaged] {
                    match inflate(encoding, &wire) {
                        Ok(inflated) => prop_assert_eq!(Some(inflated), reference(encoding, &wire)),
                        Err(Refusal::Malformed(_) | Refusal::TooLarge { .. }) => {}
                        Err(other) => prop_assert!(false, "{encoding:?}: {other:?}"),
                    }
                }
            }
        }
    }
}
