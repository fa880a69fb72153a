//! Hashes that take the place of values: equal ones stay equal, and nobody reads them.

use super::any_value::{BOOL, DOUBLE, INT, LAST, TEXT};
use crate::otlp::walk::fields_of;
use crate::otlp::wire::Value;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Digits of a hash that stands for a part of a text: 64 bits tell values of one attribute apart.
const SHORT: usize = 16;

/// SHA-256 in hexadecimal, or HMAC-SHA-256 with a key.
#[derive(Clone)]
pub struct Hasher(Option<Hmac<Sha256>>);

impl Hasher {
    pub fn plain() -> Hasher {
        Hasher(None)
    }

    pub fn keyed(key: &[u8]) -> Hasher {
        Hasher(Some(Hmac::new_from_slice(key).expect("a key of HMAC has any length")))
    }

    /// 64 hexadecimal digits.
    pub fn of(&self, bytes: &[u8]) -> String {
        let hash = match &self.0 {
            None => Sha256::digest(bytes),
            Some(keyed) => keyed.clone().chain_update(bytes).finalize().into_bytes(),
        };
        let mut text = String::with_capacity(2 * hash.len());
        for byte in hash {
            write!(text, "{byte:02x}").expect("a string takes all");
        }
        text
    }

    pub(super) fn short(&self, text: &str) -> String {
        let mut hash = self.of(text.as_bytes());
        hash.truncate(SHORT);
        hash
    }

    /// The hash of an `AnyValue`: of a text or of bytes as they are, of a number or bool as it is written, of a list or
    /// map by its encoding. None if there is nothing in it.
    pub(super) fn of_value(&self, value: &[u8]) -> Option<String> {
        let field = fields_of(value).filter(|field| (TEXT..=LAST).contains(&field.number)).last()?;
        match (field.number, field.value) {
            (_, Value::Bytes([])) => None,
            (_, Value::Bytes(bytes)) => Some(self.of(bytes)),
            (BOOL, Value::Varint(value)) => Some(self.of((value != 0).to_string().as_bytes())),
            (INT, Value::Varint(value)) => Some(self.of((value as i64).to_string().as_bytes())),
            (DOUBLE, Value::Fixed64(bits)) => Some(self.of(f64::from_bits(bits).to_string().as_bytes())),
            _ => None,
        }
    }
}
