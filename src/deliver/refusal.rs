//! What becomes of a batch that a sink refuses without saying that it will never take it: a token that
//! expired, a path that nobody serves, a fault over there. It may be the sink, and heal; or it may be one
//! bad item, which a gateway or a bug over there trips over.
//!
//! So the batch is tried again, in halves if it stays refused. Where one half is taken, the other one is
//! to blame: it is halved further, down to the bad items, which are given up. Where nothing is taken, all
//! of it waits for so long as the configuration says (`queue.longest_refusal`).

use std::time::Duration;
use tokio::time::Instant;

/// Unless the configuration says more or less.
pub const LONGEST_REFUSAL: Duration = Duration::from_secs(3600);
/// Refusals in a row after which another part of the batch has its turn.
const TRIES: u32 = 3;
/// Refusals in a row of a single item, while the sink takes others, that are no accident: with the pauses between them
/// some ten minutes, in which a rollout or a bad backend among good ones is over.
const LAST_TRIES: u32 = 40;

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

/// The refusals of the batch that one signal is busy with.
#[derive(Debug)]
pub(super) struct Refusals {
    longest: Duration,
    /// How long it was refused and nothing else: between refusals that follow each other.
    lasted: Duration,
    /// The last refusal, if nothing came after it.
    last: Option<Instant>,
    was_refused: bool,
    /// In a row, of the piece at the front.
    tries: u32,
    /// A part of the batch was taken since it was refused.
    others_taken: bool,
}

impl Refusals {
    pub(super) fn new(longest: Duration) -> Refusals {
        Refusals { longest, lasted: Duration::ZERO, last: None, was_refused: false, tries: 0, others_taken: false }
    }

    /// The piece at the front was refused; `pieces` are left of its batch, with this one.
    pub(super) fn refused(&mut self, items: u64, pieces: usize, now: Instant) -> Next {
        self.tries += 1;
        self.was_refused = true;
        self.lasted += self.last.replace(now).map_or(Duration::ZERO, |last| now.duration_since(last));
        if self.lasted >= self.longest {
            return Next::GiveUp;
        }
        let is_last = self.others_taken && items <= 1;
        if self.tries < if is_last { LAST_TRIES } else { TRIES } {
            return Next::Again;
        }
        self.tries = 0;
        match (self.others_taken, pieces) {
            (true, _) if is_last => Next::GiveUp,
            (true, _) => Next::Halve { or_give_up: true },
            (false, 1) => Next::Halve { or_give_up: false },
            (false, _) => Next::Others,
        }
    }

    /// A piece was taken.
    pub(super) fn taken(&mut self) {
        (self.last, self.tries) = (None, 0);
        self.others_taken = self.was_refused;
    }

    /// It could not be sent, or the sink is busy: that says nothing of the batch.
    pub(super) fn interrupted(&mut self) {
        self.last = None;
    }

    /// A piece was given up or divided: the next one begins.
    pub(super) fn next_piece(&mut self) {
        self.tries = 0;
    }

    /// Nothing is left of the batch.
    pub(super) fn over(&mut self) {
        *self = Refusals::new(self.longest);
    }

    /// How long the batch has been refused.
    pub(super) fn lasted(&self) -> Duration {
        self.lasted
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
        let turn = [Next::Again, Next::Again, Next::Others];
        assert_eq!(rest, [&turn.repeat(4)[..], &[Next::GiveUp]].concat());
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
        let (mut refusals, now) = (Refusals::new(15 * MINUTE), Instant::now());
        let times =
            |refusals: &mut Refusals, items, times| (0..times).map(|_| refusals.refused(items, 2, now)).last().unwrap();
        refusals.taken();
        assert_eq!(times(&mut refusals, 2, TRIES), Next::Others, "what was taken before proves nothing");
        refusals.taken();
        assert_eq!(times(&mut refusals, 2, TRIES), Next::Halve { or_give_up: true });
        assert_eq!(times(&mut refusals, 1, LAST_TRIES - 1), Next::Again);
        assert_eq!(times(&mut refusals, 1, 1), Next::GiveUp);
    }
}
