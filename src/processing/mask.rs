//! Masks: what of a text becomes `****`.

use super::{Hasher, Keys};
use regex::{Captures, Regex, RegexSet};
use std::borrow::Cow;

const STARS: &str = "****";

/// As many as there are bits in the set of those that apply.
pub const MASKS_MAX: usize = 64;

/// What is masked by a word instead of an expression. Boundaries are those of ASCII, so that a number is found in a
/// text that is written without spaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Words {
    Email,
    /// Numbers of payment cards, by their last digit too: so one of ten other long numbers is taken for one.
    Card,
    /// Mobile numbers of China.
    CnMobile,
    /// Identity numbers of China.
    CnId,
}

impl Words {
    pub const ALL: [(&'static str, Words); 4] =
        [("email", Words::Email), ("card", Words::Card), ("cn_mobile", Words::CnMobile), ("cn_id", Words::CnId)];

    fn expression(self) -> &'static str {
        match self {
            Words::Email => r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+",
            Words::Card => r"(?-u:\b)[0-9](?:[ -]?[0-9]){12,18}(?-u:\b)",
            Words::CnMobile => r"(?-u:\b)(?:86[ -]?)?1[3-9][0-9](?:[ -]?[0-9]{4}){2}(?-u:\b)",
            Words::CnId => {
                r"(?-u:\b)[1-9][0-9]{5}(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]{3}[0-9Xx](?-u:\b)"
            }
        }
    }
}

/// What is masked, and where.
#[derive(Clone, Debug)]
pub struct Mask {
    /// In the values of these attributes; everywhere if none.
    keys: Option<Keys>,
    regex: Regex,
    is_card: bool,
}

impl Mask {
    pub fn word(word: Words) -> Mask {
        let regex = Regex::new(word.expression()).expect("a test compiles it");
        Mask { keys: None, regex, is_card: word == Words::Card }
    }

    pub fn new(keys: Option<Keys>, regex: Regex) -> Mask {
        Mask { keys, regex, is_card: false }
    }

    /// The text with something else in place of each match; none if there is no match.
    fn apply(&self, text: &str, apart: Option<&Hasher>) -> Option<String> {
        let mut is_changed = false;
        let masked = self.regex.replace_all(text, |found: &Captures<'_>| {
            let found = found.get_match().as_str();
            if found.is_empty() || self.is_card && !has_card_check_digit(found) {
                return found.to_owned();
            }
            is_changed = true;
            apart.map_or_else(|| STARS.to_owned(), |hasher| hasher.short(found))
        });
        match masked {
            Cow::Owned(masked) if is_changed => Some(masked),
            _ => None,
        }
    }
}

/// The algorithm of Luhn (ISO/IEC 7812-1): every second digit from the right counts twice.
fn has_card_check_digit(number: &str) -> bool {
    let digits = number.bytes().rev().filter(u8::is_ascii_digit).map(|digit| u32::from(digit - b'0'));
    let weighed = digits.enumerate().map(|(place, digit)| match place % 2 {
        0 => digit,
        _ => digit * 2 / 10 + digit * 2 % 10,
    });
    weighed.sum::<u32>() % 10 == 0
}

/// All masks. Which of them apply is a set of bits.
pub(super) struct Masks {
    masks: Vec<Mask>,
    /// Most texts match none, and are looked at once.
    any: RegexSet,
    /// Those without keys.
    pub(super) everywhere: u64,
}

impl Masks {
    pub(super) fn new(masks: Vec<Mask>) -> Masks {
        let any = RegexSet::new(masks.iter().map(|mask| mask.regex.as_str())).expect("each of them is one");
        let everywhere = masks.iter().zip(0..).filter(|(mask, _)| mask.keys.is_none()).map(|(_, bit)| 1 << bit).sum();
        Masks { masks, any, everywhere }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.masks.is_empty()
    }

    /// Those for the values of an attribute by its key.
    pub(super) fn of_key(&self, key: &[u8]) -> u64 {
        let keyed = self.masks.iter().zip(0..).filter(|(mask, _)| mask.keys.as_ref().is_some_and(|keys| keys.has(key)));
        keyed.map(|(_, bit)| 1 << bit).sum()
    }

    /// The text with what these masks match; none if that is nothing. With `apart` different texts stay different.
    pub(super) fn apply(&self, text: &str, which: u64, apart: Option<&Hasher>) -> Option<String> {
        if which == 0 || !self.any.is_match(text) {
            return None;
        }
        let mut masked = None;
        for (mask, _) in self.masks.iter().zip(0..).filter(|(_, bit)| which & 1 << bit != 0) {
            let before = masked.as_deref().unwrap_or(text);
            if let Some(after) = mask.apply(before, apart) {
                masked = Some(after);
            }
        }
        masked
    }
}
