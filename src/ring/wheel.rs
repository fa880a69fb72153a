//! One coarse timer wheel. A timer is a link in the entry that it belongs to, so setting, moving
//! and clearing one costs no memory and no search. A timer that is further away than one turn of the
//! wheel fires after one turn: whoever set it asks whether it is due, and puts it back.

/// A tenth of a second of monotonic time since the process started.
pub type Tick = u32;

/// Milliseconds of one tick.
pub const TICK_MS: u64 = 100;

const SLOTS: usize = 1024;
const NIL: u32 = u32::MAX;

/// The timer of one entry.
#[derive(Clone, Copy, Debug)]
pub struct Timer {
    next: u32,
    previous: u32,
    /// When it fires; meaningful while it is set.
    at: Tick,
    set: bool,
}

impl Default for Timer {
    fn default() -> Self {
        Timer { next: NIL, previous: NIL, at: 0, set: false }
    }
}

/// Gives the wheel the timer of an entry.
pub trait Timers {
    fn timer(&mut self, entry: u32) -> &mut Timer;
}

/// Timers by the tick at which they fire, modulo the wheel's size.
#[derive(Debug)]
pub struct Wheel {
    heads: Vec<u32>,
    now: Tick,
}

impl Wheel {
    pub fn new() -> Wheel {
        Wheel { heads: vec![NIL; SLOTS], now: 0 }
    }

    /// Sets or moves the entry's timer to `at`, but not before the next tick nor beyond this turn.
    pub fn set(&mut self, timers: &mut impl Timers, entry: u32, at: Tick) {
        let at = at.clamp(self.now + 1, self.now + SLOTS as Tick);
        let timer = *timers.timer(entry);
        if timer.set && timer.at == at {
            return;
        }
        self.clear(timers, entry);
        let head = &mut self.heads[at as usize % SLOTS];
        *timers.timer(entry) = Timer { next: *head, previous: NIL, at, set: true };
        if *head != NIL {
            timers.timer(*head).previous = entry;
        }
        *head = entry;
    }

    pub fn clear(&mut self, timers: &mut impl Timers, entry: u32) {
        let timer = std::mem::take(timers.timer(entry));
        if !timer.set {
            return;
        }
        match timer.previous {
            NIL => self.heads[timer.at as usize % SLOTS] = timer.next,
            previous => timers.timer(previous).next = timer.next,
        }
        if timer.next != NIL {
            timers.timer(timer.next).previous = timer.previous;
        }
    }

    /// The tick at which the entry's timer fires, if it is set.
    pub fn at(timers: &mut impl Timers, entry: u32) -> Option<Tick> {
        let timer = timers.timer(entry);
        timer.set.then_some(timer.at)
    }

    /// Takes one entry whose timer has fired by `now`, while there is budget.
    pub fn fire(&mut self, timers: &mut impl Timers, now: Tick, budget: &mut usize) -> Option<u32> {
        // After a pause longer than a turn every slot is looked at once.
        self.now = self.now.max(now.saturating_sub(SLOTS as Tick));
        while self.now < now {
            let entry = self.heads[(self.now + 1) as usize % SLOTS];
            if entry != NIL {
                *budget = budget.checked_sub(1)?;
                self.clear(timers, entry);
                return Some(entry);
            }
            self.now += 1;
        }
        None
    }
}

impl Default for Wheel {
    fn default() -> Self {
        Wheel::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Timers for Vec<Timer> {
        fn timer(&mut self, entry: u32) -> &mut Timer {
            &mut self[entry as usize]
        }
    }

    #[test]
    fn timers_far_away_hold_nobody_up() {
        const MANY: u32 = 1000;
        let (mut wheel, mut timers) = (Wheel::new(), vec![Timer::default(); MANY as usize + 1]);
        (1..=MANY).for_each(|entry| wheel.set(&mut timers, entry, 3 * SLOTS as Tick + 5));
        wheel.set(&mut timers, 0, 6);
        let mut fired = 0;
        for call in 0.. {
            assert!(call < 100, "the wheel does not get on");
            let mut budget = 256;
            while wheel.fire(&mut timers, 6, &mut budget).is_some() {
                fired += 1;
            }
            if budget > 0 {
                break;
            }
        }
        assert_eq!(fired, 1);
    }

    proptest! {
        /// Against the slow way: a list of pairs.
        #[test]
        fn timers_fire_at_their_tick_and_once(sets in prop::collection::vec((0u32..20, 0u32..3000, 0u32..40), 1..80)) {
            let (mut wheel, mut timers) = (Wheel::new(), vec![Timer::default(); 20]);
            let mut expected: Vec<Option<Tick>> = vec![None; 20];
            let mut now = 0;
            for (entry, delay, step) in sets {
                let at = (now + delay).max(now + 1);
                wheel.set(&mut timers, entry, at);
                expected[entry as usize] = Some(at);
                now += step;
                let mut fired = Vec::new();
                while let Some(entry) = wheel.fire(&mut timers, now, &mut usize::MAX.clone()) {
                    match expected[entry as usize] {
                        Some(at) if at > now => wheel.set(&mut timers, entry, at),
                        _ => fired.push(entry),
                    }
                }
                fired.sort();
                let due: Vec<u32> = (0..20).filter(|&e| expected[e as usize].is_some_and(|at| at <= now)).collect();
                due.iter().for_each(|&e| expected[e as usize] = None);
                prop_assert_eq!(fired, due);
            }
        }
    }
}
