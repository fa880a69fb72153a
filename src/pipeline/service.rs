//! Numbers for service names, the same in the whole process, so that shards count by number.

use crate::trace::label::{NumberedNames, shortened};
use std::sync::{Arc, RwLock};

/// Services beyond this many share number 0, `other`. Their names take at most 1 MiB, because each is cut.
pub const SERVICES_MAX: usize = 4096;

/// All services seen so far. Read at every request, written when a service is new: hence a lock for readers.
#[derive(Debug)]
pub struct Services(RwLock<NumberedNames>);

impl Default for Services {
    fn default() -> Services {
        Services(RwLock::new(NumberedNames::new(SERVICES_MAX)))
    }
}

impl Services {
    /// The number of a service; a new one if there is room. Names that read alike, because they are not
    /// valid UTF-8, are one service: a metric may not say the same name twice.
    pub fn id(&self, service: &[u8]) -> u32 {
        let name = shortened(String::from_utf8_lossy(service));
        let known = self.0.read().expect("no code panics under this lock").find(&name);
        known.unwrap_or_else(|| self.0.write().expect("no code panics under this lock").id(service))
    }

    /// Names by number.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.0.read().expect("no code panics under this lock").names().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::label::LABEL_BYTES_MAX;
    use std::collections::HashSet;

    #[test]
    fn services_keep_their_number_and_the_last_ones_share_one() {
        let services = Services::default();
        assert_eq!((services.id(b"a"), services.id(b"b"), services.id(b"a")), (1, 2, 1));
        assert_eq!((services.id(b"\xfe"), services.id(b"\xff")), (3, 3), "they read alike");
        for n in 0..SERVICES_MAX {
            services.id(n.to_string().as_bytes());
        }
        assert_eq!((services.id(b"one too many"), services.names().len()), (0, SERVICES_MAX));
    }

    #[test]
    fn long_names_are_kept_cut_and_apart() {
        let services = Services::default();
        let long = |ending: &str| ["x".repeat(1 << 20).as_str(), ending].concat();
        let ids = ["a", "b", "a"].map(|ending| services.id(long(ending).as_bytes()));
        assert_eq!(ids, [1, 2, 1]);
        // Not valid UTF-8, and three times as long when it is read.
        assert_eq!(services.id(&[0xff; 1 << 20]), 3);
        let names = services.names();
        assert!(names.iter().all(|name| name.len() <= LABEL_BYTES_MAX), "{names:?}");
        let kept = names[1].clone();
        assert_eq!(services.id(kept.as_bytes()), 1, "a name that reads like one that was cut is the same service");
    }

    #[test]
    fn no_name_stands_twice() {
        let services = Services::default();
        for name in ["other", "shop", "other", ""] {
            services.id(name.as_bytes());
        }
        let names = services.names();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "a page says {names:?} each once");
    }
}
