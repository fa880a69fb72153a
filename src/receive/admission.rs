//! How many bytes of request bodies may be held at once, and the buffers that hold them.
//!
//! A request is charged its declared length when it is admitted, and more as its buffer grows; growing
//! never waits. What is charged is the buffer's capacity, so a slow peer cannot hold more memory than
//! it was charged for, and memory is allocated as bytes arrive, so a lie about the length costs none.

use super::refusal::Refusal;
use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Smallest capacity of a buffer.
const SMALLEST: usize = 4 << 10;
/// What a fresh buffer gets before a byte of its body is here.
const FIRST: usize = 64 << 10;
/// What a body of unknown length is expected to need.
const UNKNOWN: usize = 16 << 10;
/// Most idle buffers: bounds the search for one that fits.
const IDLE_BUFFERS: usize = 64;

/// The byte-weighted limit of bodies in flight.
pub(super) struct Admission {
    max_request: usize,
    limit: usize,
    held: AtomicUsize,
    pool: Mutex<BufferPool>,
}

impl Admission {
    /// `max_request`: most bytes of one body. `limit`: most bytes of all. `pooled`: most bytes of idle buffers.
    pub fn new(max_request: usize, limit: usize, pooled: usize) -> Arc<Admission> {
        let pool = BufferPool { idle: VecDeque::new(), bytes: 0, limit: pooled };
        Arc::new(Admission { max_request, limit, held: AtomicUsize::new(0), pool: Mutex::new(pool) })
    }

    /// Admits a body of `declared` bytes (0: unknown), or refuses it.
    pub fn admit(self: &Arc<Self>, declared: usize) -> Result<Buffer, Refusal> {
        if declared > self.max_request {
            return Err(self.too_large());
        }
        if !self.charge(declared) {
            return Err(self.busy());
        }
        let mut buffer = Buffer { bytes: Vec::new(), declared, charged: declared, admission: self.clone() };
        buffer.bytes = self.take_idle(&mut buffer.charged);
        Ok(buffer)
    }

    /// Bytes charged now.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Bytes of idle buffers.
    pub fn pooled(&self) -> usize {
        self.pool().bytes
    }

    /// Most bytes of one body.
    pub fn max_request(&self) -> usize {
        self.max_request
    }

    pub fn too_large(&self) -> Refusal {
        Refusal::TooLarge { limit: self.max_request }
    }

    fn busy(&self) -> Refusal {
        Refusal::Busy { limit: self.limit }
    }

    /// An idle buffer that fits what is charged, or an empty one. A somewhat larger buffer is taken only
    /// if the difference can be charged too.
    fn take_idle(&self, charged: &mut usize) -> Vec<u8> {
        let wanted = if *charged == 0 { UNKNOWN } else { *charged };
        let Some(idle) = self.pool().take(wanted) else {
            return Vec::new();
        };
        let more = idle.capacity().saturating_sub(*charged);
        if !self.charge(more) {
            self.pool().put(idle);
            return Vec::new();
        }
        *charged += more;
        idle
    }

    fn charge(&self, bytes: usize) -> bool {
        let add = |held: usize| held.checked_add(bytes).filter(|&sum| sum <= self.limit);
        self.held.fetch_update(Relaxed, Relaxed, add).is_ok()
    }

    fn pool(&self) -> std::sync::MutexGuard<'_, BufferPool> {
        // Held for a few pointer moves, and consistent after each of them.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of one body, charged until dropped.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    declared: usize,
    /// At least the declared length and the capacity of `bytes`.
    charged: usize,
    admission: Arc<Admission>,
}

impl Buffer {
    pub fn append(&mut self, more: &[u8]) -> Result<(), Refusal> {
        self.make_room(more.len())?;
        self.bytes.extend_from_slice(more);
        Ok(())
    }

    /// Makes room for `more` bytes, at most up to `max_request`. Never waits.
    pub fn make_room(&mut self, more: usize) -> Result<(), Refusal> {
        let needed = self.bytes.len().saturating_add(more);
        if needed > self.admission.max_request {
            return Err(self.admission.too_large());
        }
        if needed <= self.bytes.capacity() {
            return Ok(());
        }
        // Doubling keeps copying linear; the declared length, once it comes true, is not exceeded.
        let ceiling = if needed <= self.declared { self.declared } else { self.admission.max_request };
        let first = FIRST.min(self.declared).max(SMALLEST);
        let generous = first.max(self.bytes.capacity() * 2).min(ceiling).max(needed);
        if self.grow_to(generous) || self.grow_to(needed) { Ok(()) } else { Err(self.admission.busy()) }
    }

    fn grow_to(&mut self, capacity: usize) -> bool {
        let more = capacity.saturating_sub(self.charged);
        if !self.admission.charge(more) {
            return false;
        }
        self.charged += more;
        self.bytes.reserve_exact(capacity - self.bytes.len());
        true
    }

    /// Bytes that can be written without growing.
    pub fn spare(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }

    /// The bytes, for writing within [`Buffer::spare`]: growing them here would not be charged.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.admission.held.fetch_sub(self.charged, Relaxed);
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() >= SMALLEST {
            self.admission.pool().put(bytes);
        }
    }
}

/// Idle buffers, oldest first. Reusing them spares a steady load the page faults of fresh memory.
struct BufferPool {
    idle: VecDeque<Vec<u8>>,
    bytes: usize,
    limit: usize,
}

impl BufferPool {
    /// The smallest buffer of `wanted` bytes, unless more than half of it would lie idle.
    fn take(&mut self, wanted: usize) -> Option<Vec<u8>> {
        let fits = wanted..=wanted.max(SMALLEST) * 2;
        let candidates = self.idle.iter().enumerate().filter(|(_, buffer)| fits.contains(&buffer.capacity()));
        let (at, _) = candidates.min_by_key(|(_, buffer)| buffer.capacity())?;
        let buffer = self.idle.remove(at)?;
        self.bytes -= buffer.capacity();
        Some(buffer)
    }

    /// Takes a buffer back; the oldest make room for it, so that sizes follow the traffic.
    fn put(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() > self.limit {
            return;
        }
        buffer.clear();
        self.bytes += buffer.capacity();
        self.idle.push_back(buffer);
        while self.bytes > self.limit || self.idle.len() > IDLE_BUFFERS {
            let oldest = self.idle.pop_front().expect("bytes are counted only while a buffer is idle");
            self.bytes -= oldest.capacity();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_charged_until_it_is_dropped() {
        let admission = Admission::new(1 << 20, 1 << 20, 0);
        let mut body = admission.admit(600_000).unwrap();
        assert_eq!(admission.held(), 600_000);
        assert_eq!(body.bytes.capacity(), 0, "a declared length allocates nothing");
        assert_eq!(admission.admit(500_000).err(), Some(Refusal::Busy { limit: 1 << 20 }));
        body.append(&[7; 600_000]).unwrap();
        assert_eq!(admission.held(), 600_000, "an honest length costs no more than itself");
        assert_eq!(&body[599_999..], [7]);
        drop(body);
        assert_eq!(admission.held(), 0);
    }

    #[test]
    fn a_body_grows_up_to_the_limit_of_one_request_and_not_a_byte_beyond() {
        let admission = Admission::new(100_000, 1 << 20, 1 << 20);
        let mut body = admission.admit(0).unwrap();
        for _ in 0..100 {
            body.append(&[1; 1000]).unwrap();
        }
        assert_eq!(body.append(&[1]), Err(Refusal::TooLarge { limit: 100_000 }));
        assert_eq!(admission.admit(100_001).err(), Some(Refusal::TooLarge { limit: 100_000 }));
        assert!(admission.held() <= 100_000);
    }

    #[test]
    fn growing_takes_the_last_byte_before_it_is_refused() {
        let admission = Admission::new(50_000, 70_000, 0);
        let _other = admission.admit(30_000).unwrap();
        let mut body = admission.admit(0).unwrap();
        body.append(&[0; 30_000]).unwrap();
        body.append(&[0; 10_000]).unwrap();
        assert_eq!(body.append(&[0]), Err(Refusal::Busy { limit: 70_000 }));
        assert_eq!(admission.held(), 70_000);
    }

    #[test]
    fn buffers_are_reused_by_bodies_of_their_size_within_the_bound() {
        let admission = Admission::new(1 << 20, 1 << 22, 300_000);
        let fill = |size: usize| {
            let mut body = admission.admit(size).unwrap();
            body.append(&vec![0; size]).unwrap();
            body.as_ptr()
        };
        let first = fill(200_000);
        assert_eq!(fill(150_000), first, "a buffer of nearly the size is taken");
        assert_eq!(admission.pooled(), 200_000);
        fill(20_000);
        assert_eq!(admission.pooled(), 220_000, "a small body does not take a large buffer");
        fill(250_000);
        assert_eq!(admission.pooled(), 270_000, "the oldest makes room");
        fill(500_000);
        assert_eq!(admission.pooled(), 270_000, "a buffer beyond the bound is not kept");
        assert_eq!(admission.held(), 0);
    }

    #[test]
    fn a_pooled_buffer_is_charged_whole_or_not_taken() {
        let admission = Admission::new(100_000, 100_000, 100_000);
        admission.admit(90_000).unwrap().append(&[0; 90_000]).unwrap();
        let other = admission.admit(20_000).unwrap();
        let exact = admission.admit(80_000).unwrap();
        assert_eq!((exact.bytes.capacity(), admission.held()), (0, 100_000));
        drop((other, exact));
        let whole = admission.admit(80_000).unwrap();
        assert_eq!((whole.bytes.capacity(), admission.held()), (90_000, 90_000));
    }
}
