//! Sampling probability as OpenTelemetry's consistent probability sampling writes it: a 56-bit
//! threshold `th` against a trace's 56-bit randomness (`rv`, or part of the trace id).
//! Source: OpenTelemetry specification, "TraceState: Probability Sampling".

use super::TraceId;
use std::fmt;

const SPACE: u64 = 1 << 56;

/// A trace is kept when its randomness is at or above the threshold.
/// Zero keeps all, 2^56 keeps none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Threshold(u64);

impl Threshold {
    pub const ALL: Threshold = Threshold(0);
    pub const NONE: Threshold = Threshold(SPACE);

    /// The threshold that keeps `share` (0 to 1) of traces.
    pub fn from_share(share: f64) -> Threshold {
        // Subtracting last keeps all 56 bits: 1.0 - share would round to 53.
        Threshold(SPACE - (share.clamp(0.0, 1.0) * SPACE as f64).round() as u64)
    }

    /// The share (0 to 1) of traces that it keeps.
    pub fn share(self) -> f64 {
        (SPACE - self.0) as f64 / SPACE as f64
    }

    /// `th` of a tracestate: 1 to 14 hexadecimal digits, trailing zeros left out.
    pub fn parse(digits: &[u8]) -> Option<Threshold> {
        parse_hex(digits, 1).map(|(value, count)| Threshold(value << (4 * (14 - count))))
    }

    /// The 56-bit number, at most 2^56.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// From a number that [`Threshold::bits`] gave.
    pub fn from_bits(bits: u64) -> Threshold {
        Threshold(bits.min(SPACE))
    }
}

impl fmt::Display for Threshold {
    /// The shortest `th`: `0` for "all", no trailing zeros otherwise.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:014x}", self.0.min(SPACE - 1));
        let short = digits.trim_end_matches('0');
        f.write_str(if short.is_empty() { "0" } else { short })
    }
}

/// The 56 random bits of a trace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Randomness(u64);

impl Randomness {
    pub fn from_bits(bits: u64) -> Randomness {
        Randomness(bits & (SPACE - 1))
    }

    pub fn bits(self) -> u64 {
        self.0
    }

    /// `rv` of a tracestate: exactly 14 hexadecimal digits.
    pub fn parse(digits: &[u8]) -> Option<Randomness> {
        parse_hex(digits, 14).map(|(value, _)| Randomness(value))
    }

    pub fn passes(self, threshold: Threshold) -> bool {
        self.0 >= threshold.0
    }

    /// The randomness of a trace that carries no `rv`: the id's low 56 bits, unless they are not
    /// random; then a fixed hash of the id, which must be written as `rv` (second value true).
    pub fn of_trace(id: TraceId, random_flag: bool) -> (Randomness, bool) {
        if random_flag || !looks_like_eagleeye(id) {
            let low = u64::from_be_bytes(id.0[8..].try_into().expect("eight bytes"));
            (Randomness::from_bits(low), false)
        } else {
            (Randomness::from_bits(fixed_hash(id)), true)
        }
    }
}

impl fmt::Display for Randomness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:014x}", self.0)
    }
}

/// Hexadecimal digits to a number, at least `min` and at most 14 of them, lowercase only (W3C).
fn parse_hex(digits: &[u8], min: usize) -> Option<(u64, u32)> {
    if digits.len() < min || digits.len() > 14 {
        return None;
    }
    let mut value = 0;
    for &c in digits {
        let digit = match c {
            b'0'..=b'9' => c - b'0',
            b'a'..=b'f' => c - b'a' + 10,
            _ => return None,
        };
        value = value << 4 | u64::from(digit);
    }
    Some((value, digits.len() as u32))
}

/// EagleEye ids, which ARMS agents write, are 8 hexadecimal digits of an address (or `ea` and a
/// hash), then 13 decimal digits of milliseconds, then counters: their low bits are not random.
fn looks_like_eagleeye(id: TraceId) -> bool {
    let mut digits = [0u8; 32];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(id.0) {
        pair[0] = byte >> 4;
        pair[1] = byte & 15;
    }
    let mut millis = 0u64;
    for &digit in &digits[8..21] {
        if digit > 9 {
            return false;
        }
        millis = millis * 10 + u64::from(digit);
    }
    // 2015-01-01 to 2040-01-01, Unix milliseconds.
    (1_420_070_400_000..2_208_988_800_000).contains(&millis)
}

/// Two rounds of the 64-bit finalizer of MurmurHash3 over both halves. Frozen: replicas of
/// different versions must agree, so this may never change.
fn fixed_hash(id: TraceId) -> u64 {
    let mix = |mut x: u64| {
        x ^= x >> 33;
        x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
        x ^= x >> 33;
        x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        x ^ x >> 33
    };
    let high = u64::from_be_bytes(id.0[..8].try_into().expect("eight bytes"));
    let low = u64::from_be_bytes(id.0[8..].try_into().expect("eight bytes"));
    mix(mix(high).wrapping_add(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_written_as_the_specification_writes_them() {
        // Pairs of probability and `th` from the specification's table.
        for (share, th) in [(1.0, "0"), (0.5, "8"), (0.25, "c"), (0.01, "fd70a3d70a3d71"), (0.1, "e6666666666666")] {
            assert_eq!(Threshold::from_share(share).to_string(), th);
            assert_eq!(Threshold::parse(th.as_bytes()), Some(Threshold::from_share(share)));
        }
        assert_eq!(Threshold::parse(b""), None);
        assert_eq!(Threshold::parse(b"FD"), None);
        assert_eq!(Threshold::parse(b"123456789012345"), None);
    }

    #[test]
    fn eagleeye_ids_get_a_hash_and_others_their_own_bits() {
        let eagleeye = TraceId::parse("ea1bad1416371360000000001d0001a1").unwrap();
        assert!(Randomness::of_trace(eagleeye, false).1);
        assert!(!Randomness::of_trace(eagleeye, true).1);
        let random = TraceId::parse("4bf92f3577b34da6a3ce929d0e0e4736").unwrap();
        assert_eq!(Randomness::of_trace(random, false), (Randomness(0xce929d0e0e4736), false));
    }

    #[test]
    fn the_fallback_hash_is_frozen() {
        let id = |text| TraceId::parse(text).unwrap();
        assert_eq!(fixed_hash(id("ea1bad1416371360000000001d0001a1")), FROZEN[0]);
        assert_eq!(fixed_hash(id("0a0000011700000000000000100001aa")), FROZEN[1]);
    }
    const FROZEN: [u64; 2] = [13402933326347133835, 1592525307950791104];

    #[test]
    fn eagleeye_traces_are_thinned_to_the_share() {
        let kept = (0..20_000u32)
            .filter(|n| {
                let id = TraceId::parse(&format!("0a000001{}{:05}0001fa", 1_763_000_000_000u64 + u64::from(n / 7), n))
                    .unwrap();
                Randomness::of_trace(id, false).0.passes(Threshold::from_share(0.05))
            })
            .count();
        assert!((850..1150).contains(&kept), "{kept} of 20000 at 5 %");
    }
}
