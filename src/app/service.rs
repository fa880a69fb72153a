//! Numbers for service names, the same in the whole process, so that shards count by number.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

/// Services beyond this many share number 0, `other`.
pub const SERVICES_MAX: usize = 4096;

/// All services seen so far. Read at every request, written when a service is new: hence a lock for readers.
#[derive(Debug)]
pub struct Services(RwLock<Table>);

#[derive(Debug)]
struct Table {
    numbers: HashMap<Arc<str>, u32>,
    names: Vec<Arc<str>>,
}

impl Default for Services {
    fn default() -> Services {
        Services(RwLock::new(Table { numbers: HashMap::new(), names: vec!["other".into()] }))
    }
}

impl Services {
    /// The number of a service; a new one if there is room. Names that read alike, because they are not
    /// valid UTF-8, are one service: a metric may not say the same name twice.
    pub fn id(&self, service: &[u8]) -> u32 {
        let name = String::from_utf8_lossy(service);
        let known = |table: &Table| table.numbers.get(&*name).copied();
        if let Some(id) = known(&self.0.read().expect("no code panics under this lock")) {
            return id;
        }
        let mut table = self.0.write().expect("no code panics under this lock");
        if let Some(id) = known(&table) {
            return id;
        }
        if table.names.len() == SERVICES_MAX {
            return 0;
        }
        let id = table.names.len() as u32;
        let name: Arc<str> = name.into();
        table.names.push(name.clone());
        table.numbers.insert(name, id);
        id
    }

    /// Names by number.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.0.read().expect("no code panics under this lock").names.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
