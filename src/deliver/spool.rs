//! The queue on disk.

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
