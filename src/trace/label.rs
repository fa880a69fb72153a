//! Names that outlive their request: what others send is kept at a stated length, so that a bound on their
//! number bounds their bytes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// No name that is kept is longer.
pub const LABEL_BYTES_MAX: usize = 256;

/// Stands where a name was cut, before a hash of the whole.
const CUT: char = '…';

/// `name`, or if it is too long its beginning, `…` and 16 hexadecimal digits: a hash of the whole, so that two
/// long names stay two. The same in every process.
pub fn shortened(name: Cow<'_, str>) -> Cow<'_, str> {
    if name.len() <= LABEL_BYTES_MAX {
        return name;
    }
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let ending = format!("{CUT}{:016x}", hasher.finish());
    let room = LABEL_BYTES_MAX - ending.len();
    let end = (0..=room).rfind(|&end| name.is_char_boundary(end)).unwrap_or(0);
    Cow::Owned([&name[..end], &ending].concat())
}

/// Other bytes may read like this name: those that were no UTF-8, or a name that was cut.
pub fn may_stand_for_others(name: &str) -> bool {
    name.contains([char::REPLACEMENT_CHARACTER, CUT])
}

/// Stands for all names beyond the bound, and for one that is this word.
const OTHER: &str = "other";

/// Names with numbers, up to a bound on their number; those beyond it share number 0, `other`.
#[derive(Debug)]
pub struct NumberedNames {
    numbers: HashMap<Arc<str>, u32>,
    names: Vec<Arc<str>>,
    most: usize,
}

impl NumberedNames {
    pub fn new(most: usize) -> NumberedNames {
        let other: Arc<str> = OTHER.into();
        NumberedNames { numbers: HashMap::from([(other.clone(), 0)]), names: vec![other], most }
    }

    /// The number of a [`shortened`] name that is there.
    pub fn find(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    /// The number of a name; a new one if there is room. Names that read alike, because they are not UTF-8, are one.
    pub fn id(&mut self, name: &[u8]) -> u32 {
        let name = shortened(String::from_utf8_lossy(name));
        if let Some(known) = self.find(&name) {
            return known;
        }
        if self.names.len() == self.most {
            return 0;
        }
        let (name, id): (Arc<str>, u32) = (name.into(), self.names.len() as u32);
        self.names.push(name.clone());
        self.numbers.insert(name, id);
        id
    }

    /// Names by number.
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kept(name: &str) -> String {
        shortened(name.into()).into_owned()
    }

    #[test]
    fn long_names_are_cut_and_stay_distinct() {
        let (a, b) = (kept(&("é".repeat(1000) + "a")), kept(&("é".repeat(1000) + "b")));
        assert_ne!(a, b);
        assert!(a.starts_with("éé") && may_stand_for_others(&a), "{a}");
        assert_eq!(kept(&a), a, "what was cut stays as it is");
        assert!(!may_stand_for_others("GET /ü"));
    }

    proptest! {
        #[test]
        fn no_name_is_longer_than_the_bound_and_a_short_one_stays(name in "\\PC{0,300}") {
            let kept = kept(&name);
            prop_assert!(kept.len() <= LABEL_BYTES_MAX);
            prop_assert_eq!(kept == name, name.len() <= LABEL_BYTES_MAX);
            let same = kept.chars().zip(name.chars()).take_while(|(a, b)| a == b).map(|(c, _)| c.len_utf8()).sum::<usize>();
            prop_assert!(same == name.len() || same + 19 + 4 > LABEL_BYTES_MAX, "as much of it as there is room for");
        }
    }
}
