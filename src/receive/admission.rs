//! How many bytes of request bodies may be held at once, and the buffers that hold them.
//!
//! A body is charged the capacity of its buffer, and the buffer grows with what arrives: what a peer only
//! announces costs nothing. Growing never waits. While more than half of the limit is held, whoever
//! holds bytes and brings too few gives way, so a slow peer cannot keep others out ([`Pace`]).

use super::refusal::Refusal;
use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Smallest capacity of a buffer.
const SMALLEST: usize = 512;
/// A buffer grows to so many times what is here, up to the announced length: reallocations stay few, and
/// a lie about the length costs no more than this.
const AHEAD: usize = 4;
/// Smaller buffers are not worth keeping.
const POOLED_MIN: usize = 4 << 10;
/// Most idle buffers: bounds the search for one that fits.
const IDLE_BUFFERS: usize = 64;
/// A body that holds so many times what it brought since the last look is slow.
const SLOW: usize = 8;

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

    /// Admits a body of `declared` bytes (0: unknown), or refuses one for which there is no room now. Nothing
    /// is charged before a byte is here.
    pub fn admit(self: &Arc<Self>, declared: usize) -> Result<Buffer, Refusal> {
        if declared > self.max_request {
            return Err(self.too_large());
        }
        if declared > self.limit.saturating_sub(self.held()) {
            return Err(self.busy());
        }
        Ok(Buffer { bytes: Vec::new(), declared, admission: self.clone() })
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

    /// Whether so much is held that slow bodies must give way.
    fn is_pressed(&self) -> bool {
        self.held() > self.limit / 2
    }

    fn charge(&self, bytes: usize) -> bool {
        let add = |held: usize| held.checked_add(bytes).filter(|&sum| sum <= self.limit);
        self.held.fetch_update(Relaxed, Relaxed, add).is_ok()
    }

    fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Relaxed);
    }

    fn pool(&self) -> std::sync::MutexGuard<'_, BufferPool> {
        // Held for a few pointer moves, and consistent after each of them.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of one body. Its capacity is charged until it is dropped.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    declared: usize,
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
        // Growing by factors keeps copying linear; the declared length, once it comes true, is not exceeded.
        let (ahead, ceiling) =
            if needed <= self.declared { (AHEAD, self.declared) } else { (2, self.admission.max_request) };
        let generous = needed.saturating_mul(ahead).max(SMALLEST).min(ceiling).max(needed);
        if self.grow_to(generous) || self.grow_to(needed) { Ok(()) } else { Err(self.admission.busy()) }
    }

    /// Moves into an idle buffer that fits, or grows. An idle buffer may be larger, and is charged whole.
    fn grow_to(&mut self, capacity: usize) -> bool {
        let idle = self.admission.pool().take(capacity);
        match idle {
            Some(idle) if self.admission.charge(idle.capacity() - self.bytes.capacity()) => self.move_into(idle),
            Some(idle) => {
                self.admission.pool().put(idle);
                self.grow_in_place(capacity)
            }
            None => self.grow_in_place(capacity),
        }
    }

    fn move_into(&mut self, mut idle: Vec<u8>) -> bool {
        idle.extend_from_slice(&self.bytes);
        let left = std::mem::replace(&mut self.bytes, idle);
        self.admission.pool().put(left);
        true
    }

    fn grow_in_place(&mut self, capacity: usize) -> bool {
        let before = self.bytes.capacity();
        if !self.admission.charge(capacity - before) {
            return false;
        }
        self.bytes.reserve_exact(capacity - self.bytes.len());
        // The allocator may give a little more than was asked for.
        self.admission.held.fetch_add(self.bytes.capacity() - capacity, Relaxed);
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
        self.admission.release(self.bytes.capacity());
        self.admission.pool().put(std::mem::take(&mut self.bytes));
    }
}

/// How a body has come since the last look.
#[derive(Default)]
pub(super) struct Pace {
    seen: usize,
}

impl Pace {
    /// Looks at a body that is still arriving, after a fixed time.
    ///
    /// # Errors
    /// [`Refusal::TooSlow`] if it holds room that others need, and brought less than an eighth of it.
    pub fn review(&mut self, body: &Buffer) -> Result<(), Refusal> {
        let brought = body.len() - std::mem::replace(&mut self.seen, body.len());
        let is_slow = brought.saturating_mul(SLOW) < body.bytes.capacity();
        if is_slow && body.admission.is_pressed() { Err(Refusal::TooSlow) } else { Ok(()) }
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
        let fits = wanted..=wanted.saturating_mul(2);
        let candidates = self.idle.iter().enumerate().filter(|(_, buffer)| fits.contains(&buffer.capacity()));
        let (at, _) = candidates.min_by_key(|(_, buffer)| buffer.capacity())?;
        let buffer = self.idle.remove(at)?;
        self.bytes -= buffer.capacity();
        Some(buffer)
    }

    /// Takes a buffer back; the oldest make room for it, so that sizes follow the traffic.
    fn put(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() < POOLED_MIN || buffer.capacity() > self.limit {
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
    use proptest::prelude::*;

    #[test]
    fn what_is_announced_costs_nothing_and_what_arrives_is_charged_until_it_is_dropped() {
        let admission = Admission::new(1 << 20, 1 << 20, 0);
        let mut body = admission.admit(600_000).unwrap();
        let _silent: Vec<Buffer> = (0..1000).map(|_| admission.admit(1 << 20).unwrap()).collect();
        assert_eq!(admission.held(), 0);
        body.append(&[7; 600_000]).unwrap();
        assert_eq!(admission.held(), 600_000, "an honest length costs no more than itself");
        assert_eq!(admission.admit(500_000).err(), Some(Refusal::Busy { limit: 1 << 20 }), "it would not fit now");
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
        let mut other = admission.admit(30_000).unwrap();
        other.make_room(30_000).unwrap();
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
        let mut other = admission.admit(20_000).unwrap();
        other.make_room(20_000).unwrap();
        let mut exact = admission.admit(80_000).unwrap();
        exact.make_room(80_000).unwrap();
        assert_eq!((exact.bytes.capacity(), admission.held()), (80_000, 100_000));
        drop((other, exact));

        let admission = Admission::new(100_000, 100_000, 100_000);
        admission.admit(90_000).unwrap().append(&[0; 90_000]).unwrap();
        let mut whole = admission.admit(80_000).unwrap();
        whole.make_room(80_000).unwrap();
        assert_eq!((whole.bytes.capacity(), admission.held()), (90_000, 90_000));
    }

    #[test]
    fn a_slow_body_gives_way_only_while_others_need_its_room() {
        let admission = Admission::new(100_000, 100_000, 0);
        let mut slow = admission.admit(50_000).unwrap();
        let mut pace = Pace::default();
        slow.append(&[0; 40_000]).unwrap();
        assert_eq!(pace.review(&slow), Ok(()), "it came at once");
        assert_eq!(pace.review(&slow), Ok(()), "nobody needs its room");
        let mut other = admission.admit(10_000).unwrap();
        other.make_room(10_000).unwrap();
        assert_eq!(pace.review(&slow), Err(Refusal::TooSlow));
        slow.append(&[0; 6_250]).unwrap();
        assert_eq!(pace.review(&slow), Ok(()), "an eighth of what it holds came");
        slow.append(&[0; 100]).unwrap();
        assert_eq!(pace.review(&slow), Err(Refusal::TooSlow));
    }

    proptest! {
        /// The account is what all buffers can hold, whatever they are asked for and however it ends.
        #[test]
        fn the_account_is_the_sum_of_all_capacities(
            steps in proptest::collection::vec((0..4usize, 0..60_000usize), 1..60),
        ) {
            let admission = Admission::new(50_000, 120_000, 60_000);
            let mut bodies: Vec<(Buffer, usize)> = Vec::new();
            for (kind, size) in steps {
                match (kind, bodies.len()) {
                    (0, _) | (_, 0) => bodies.extend(admission.admit(size).ok().map(|body| (body, 0))),
                    (1, count) => drop(bodies.swap_remove(size % count)),
                    (_, count) => {
                        let (body, arrived) = &mut bodies[size % count];
                        let more = vec![1; size / 4];
                        *arrived += if body.append(&more).is_ok() { more.len() } else { 0 };
                    }
                }
                let capacities: usize = bodies.iter().map(|(body, _)| body.bytes.capacity()).sum();
                prop_assert_eq!(admission.held(), capacities);
                prop_assert!(capacities <= 120_000 && admission.pooled() <= 60_000);
                for (body, arrived) in &bodies {
                    prop_assert_eq!(body.len(), *arrived);
                    // Four times ahead, in an idle buffer of at most twice that.
                    prop_assert!(body.bytes.capacity() <= (2 * AHEAD * arrived).max(2 * SMALLEST));
                }
            }
            drop(bodies);
            prop_assert_eq!(admission.held(), 0);
        }
    }
}
