//! What becomes of a batch that a sink refuses without saying that it will never take it: a token that
//! expired, a path that nobody serves, a fault over there. It may be the sink, and heal; or it may be one
//! bad item, which a gateway or a bug over there trips over.
//!
//! So the batch is tried again, in halves if it stays refused. Where one half is taken, the other one is
//! to blame: it is halved further, down to the bad items, which are given up. Where nothing is taken, all
//! of it waits for so long as the configuration says (`queue.longest_refusal`). The next bad items are given up
//! sooner, so that they do not hold up the good ones batch after batch.

use std::time::Duration;
use tokio::time::Instant;

/// Unless the configuration says more or less.
pub const LONGEST_REFUSAL: Duration = Duration::from_secs(3600);
/// Refusals in a row after which another part of the batch has its turn.
const TRIES: u32 = 3;
/// Single items that are refused for as long, after others of their batch were taken, are to blame themselves: a
/// rollout, or a bad backend among good ones, is over by then.
const LONGEST_ALONE: Duration = Duration::from_secs(600);

/// For so long after a single item was given up, another one that is refused is to blame after [`TRIES`], if others were
/// taken in between: then the sink has shown that it refuses items and not everything.
const KNOWN_FOR: Duration = Duration::from_secs(3600);

/// What to do with a piece that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Again,
    /// In halves; as [`Next::GiveUp`] or [`Next::Again`] says where that cannot be.
    Halve {
        or_give_up: bool,
    },
    /// The others of the same batch first.
    Others,
    GiveUp,
}

/// For how long something was refused and nothing else: the time between refusals that follow each other.
#[derive(Debug, Default)]
pub(super) struct RefusedFor {
    total: Duration,
    /// The last refusal, if nothing came after it.
    last: Option<Instant>,
}

impl RefusedFor {
    /// One more refusal; gives the time with it.
    pub(super) fn refused(&mut self, now: Instant) -> Duration {
        self.total += self.last.replace(now).map_or(Duration::ZERO, |last| now.duration_since(last));
        self.total
    }

    /// Something else than a refusal: until the next one, time does not count.
    pub(super) fn interrupted(&mut self) {
        self.last = None;
    }
}

/// The refusals of the batch that one signal is busy with.
#[derive(Debug)]
pub(super) struct Refusals {
    longest: Duration,
    batch: RefusedFor,
    /// Since a part of the batch was taken.
    since_taken: RefusedFor,
    was_refused: bool,
    /// In a row, of the piece at the front.
    tries: u32,
    /// Pieces that had their turn since one was taken or halved.
    turns: usize,
    /// A part of the batch was taken since it was refused.
    others_taken: bool,
    /// The last single item, of this or another batch.
    given_up: Option<GivenUp>,
}

#[derive(Debug)]
struct GivenUp {
    at: Instant,
    /// Something was taken after it.
    others_taken: bool,
}

impl Refusals {
    pub(super) fn new(longest: Duration) -> Refusals {
        let (batch, since_taken) = Default::default();
        Refusals {
            longest,
            batch,
            since_taken,
            was_refused: false,
            tries: 0,
            turns: 0,
            others_taken: false,
            given_up: None,
        }
    }

    /// The piece at the front was refused; `pieces` are left of its batch, with this one.
    pub(super) fn refused(&mut self, items: u64, pieces: usize, now: Instant) -> Next {
        self.tries += 1;
        self.was_refused = true;
        let since_taken = self.since_taken.refused(now);
        let is_over = self.batch.refused(now) >= self.longest;
        let is_single = items <= 1;
        let is_known = self.refuses_items(now);
        let is_alone_to_blame = self.others_taken && since_taken >= LONGEST_ALONE || is_known && self.tries >= TRIES;
        if is_over && (is_single || !self.others_taken) || is_single && is_alone_to_blame {
            if is_single {
                self.given_up = Some(GivenUp { at: now, others_taken: false });
            }
            return Next::GiveUp;
        }
        if self.tries < TRIES && !is_over && (is_single || !is_known) {
            return Next::Again;
        }
        self.next_piece();
        match (self.others_taken, pieces) {
            (true, _) if !is_single => Next::Halve { or_give_up: true },
            // Each may have a bad item of its own.
            (false, _) if !is_single && self.turns + 1 >= pieces => {
                self.turns = 0;
                Next::Halve { or_give_up: false }
            }
            (_, 1) => Next::Again,
            (_, _) => {
                self.turns += 1;
                Next::Others
            }
        }
    }

    /// Whether single items were refused lately, and others taken.
    fn refuses_items(&self, now: Instant) -> bool {
        self.given_up.as_ref().is_some_and(|given_up| {
            now.duration_since(given_up.at) < KNOWN_FOR && (given_up.others_taken || self.others_taken)
        })
    }

    /// Whether the sink takes others than what it refuses, as far as is known.
    pub(super) fn takes_others(&self, now: Instant) -> bool {
        self.others_taken || self.refuses_items(now)
    }

    /// The piece at the front has been refused.
    pub(super) fn is_refused(&self) -> bool {
        self.tries > 0
    }

    /// A piece was taken.
    pub(super) fn taken(&mut self) {
        if let Some(given_up) = &mut self.given_up {
            given_up.others_taken = true;
        }
        self.batch.interrupted();
        self.since_taken = RefusedFor::default();
        self.next_piece();
        self.turns = 0;
        self.others_taken = self.was_refused;
    }

    /// It could not be sent, or the sink is busy: that says nothing of the batch.
    pub(super) fn interrupted(&mut self) {
        self.batch.interrupted();
        self.since_taken.interrupted();
    }

    /// A piece was taken, given up, divided or put behind others: the next one begins.
    pub(super) fn next_piece(&mut self) {
        self.tries = 0;
    }

    /// Nothing is left of the batch.
    pub(super) fn over(&mut self) {
        *self = Refusals { given_up: self.given_up.take(), ..Refusals::new(self.longest) };
    }

    /// How long the batch has been refused.
    pub(super) fn lasted(&self) -> Duration {
        self.batch.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_batch_that_nobody_takes_waits_in_two_halves_until_the_time_is_over() {
        let (mut refusals, start) = (Refusals::new(15 * MINUTE), Instant::now());
        let at = |refusals: &mut Refusals, pieces, minutes| refusals.refused(100, pieces, start + minutes * MINUTE);
        let first: Vec<Next> = (0..3).map(|minute| at(&mut refusals, 1, minute)).collect();
        assert_eq!(first, [Next::Again, Next::Again, Next::Halve { or_give_up: false }]);
        let rest: Vec<Next> = (3..16).map(|minute| at(&mut refusals, 2, minute)).collect();
        let turn = |last| [Next::Again, Next::Again, last];
        let (others, halve) = (turn(Next::Others), turn(Next::Halve { or_give_up: false }));
        assert_eq!(rest, [&others[..], &halve, &others, &halve, &[Next::GiveUp]].concat(), "each may have a bad item");
        assert_eq!(at(&mut refusals, 1, 16), Next::GiveUp, "the other half has waited as long");
        refusals.over();
        assert_eq!(at(&mut refusals, 1, 17), Next::Again, "the next batch has its own time");
    }

    #[test]
    fn time_in_which_the_sink_was_away_does_not_count() {
        let (mut refusals, start) = (Refusals::new(15 * MINUTE), Instant::now());
        assert_eq!(refusals.refused(1, 1, start), Next::Again);
        refusals.interrupted();
        assert_eq!(refusals.refused(1, 1, start + 60 * MINUTE), Next::Again);
        assert_ne!(refusals.refused(1, 1, start + 74 * MINUTE), Next::GiveUp);
        assert_eq!((refusals.refused(1, 1, start + 75 * MINUTE), refusals.lasted()), (Next::GiveUp, 15 * MINUTE));
    }

    #[test]
    fn what_is_refused_while_others_are_taken_is_halved_and_given_up_at_last() {
        let (mut refusals, start) = (Refusals::new(60 * MINUTE), Instant::now());
        let at = |refusals: &mut Refusals, items, minutes| refusals.refused(items, 2, start + minutes * MINUTE);
        let thrice =
            |refusals: &mut Refusals, items| [at(refusals, items, 0), at(refusals, items, 0), at(refusals, items, 0)];
        refusals.taken();
        assert_eq!(thrice(&mut refusals, 2)[2], Next::Others, "what was taken before proves nothing");
        refusals.taken();
        assert_eq!(thrice(&mut refusals, 2)[2], Next::Halve { or_give_up: true });
        let others = [Next::Again, Next::Again, Next::Others];
        assert_eq!(thrice(&mut refusals, 1), others, "however fast the refusals come");
        assert_eq!(at(&mut refusals, 1, 9), Next::Again);
        refusals.interrupted();
        assert_eq!(at(&mut refusals, 1, 12), Next::Again, "the sink was away in between");
        assert_eq!(at(&mut refusals, 1, 13), Next::GiveUp);
        refusals.next_piece();
        assert_eq!(at(&mut refusals, 1, 14), Next::GiveUp, "all that is to blame has waited as long");
        refusals.taken();
        assert_eq!(thrice_from(&mut refusals, 15), [Next::Again, Next::Again, Next::GiveUp], "no ten minutes again");
    }

    fn thrice_from(refusals: &mut Refusals, minutes: u32) -> [Next; 3] {
        let now = Instant::now() + minutes * MINUTE;
        [(); 3].map(|()| refusals.refused(1, 1, now))
    }

    /// One bad item in each batch would hold up the others for ten minutes a batch, and a batch of its own for an hour.
    #[test]
    fn once_an_item_was_given_up_the_next_ones_are_after_three_refusals() {
        let (mut refusals, start) = (Refusals::new(60 * MINUTE), Instant::now());
        let at = |refusals: &mut Refusals, items, minutes| refusals.refused(items, 1, start + minutes * MINUTE);
        assert_eq!(at(&mut refusals, 1, 0), Next::Again);
        assert_eq!(at(&mut refusals, 1, 60), Next::GiveUp);
        refusals.over();
        assert_ne!(thrice_from(&mut refusals, 61)[2], Next::GiveUp, "the sink may still refuse everything");
        refusals.over();
        refusals.taken();
        refusals.over();
        assert_eq!(at(&mut refusals, 9, 62), Next::Halve { or_give_up: false }, "what is larger is halved at once");
        refusals.over();
        assert_eq!(thrice_from(&mut refusals, 63), [Next::Again, Next::Again, Next::GiveUp]);
        refusals.over();
        refusals.taken();
        refusals.over();
        assert_ne!(thrice_from(&mut refusals, 124)[2], Next::GiveUp, "an hour later it is another matter");
    }

    /// Else good items would go with the bad ones of their batch.
    #[test]
    fn beyond_the_longest_time_what_is_mixed_is_halved_at_once_and_only_single_items_are_given_up() {
        let (mut refusals, start) = (Refusals::new(5 * MINUTE), Instant::now());
        assert_eq!(refusals.refused(100, 2, start), Next::Again);
        refusals.taken();
        assert_eq!(refusals.refused(100, 2, start), Next::Again);
        let over = start + 6 * MINUTE;
        assert_eq!(refusals.refused(100, 2, over), Next::Halve { or_give_up: true });
        assert_eq!(refusals.refused(50, 3, over), Next::Halve { or_give_up: true });
        assert_eq!(refusals.refused(1, 3, over), Next::GiveUp);
    }
}
