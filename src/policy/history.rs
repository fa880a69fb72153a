//! The texts of the policies that were in force before the present one.

use super::Policy;
use crate::yaml::TEXT_MAX;
use std::sync::Arc;

/// A policy that was in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Former {
    pub number: u32,
    pub hash: String,
    pub text: Arc<str>,
}

/// The former policies of a process, the newest last.
#[derive(Clone, Debug, Default)]
pub struct History(Vec<Former>);

impl History {
    /// So many policies, with so many bytes together; the oldest are forgotten. The newest always fits.
    pub const POLICIES_MAX: usize = 8;
    pub const BYTES_MAX: usize = TEXT_MAX;

    /// This history, and `policy` as the newest.
    pub fn followed_by(&self, policy: &Policy) -> History {
        let former = Former { number: policy.number, hash: policy.hash.clone(), text: policy.text.as_str().into() };
        let mut all = self.0.clone();
        all.push(former);
        let mut bytes = 0;
        let fits = |former: &&Former| {
            bytes += former.text.len();
            bytes <= History::BYTES_MAX
        };
        let kept = all.iter().rev().take(History::POLICIES_MAX).take_while(fits).count();
        History(all.split_off(all.len() - kept))
    }

    pub fn newest(&self) -> Option<&Former> {
        self.0.last()
    }

    pub fn without_newest(&self) -> History {
        History(self.0[..self.0.len().saturating_sub(1)].to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::RuleNames;

    fn policy(number: u32, length: usize) -> Policy {
        let rules = "version: 1\notherwise: { keep: all }\n";
        let text = rules.to_owned() + &"\n".repeat(length - rules.len());
        Policy::compile("policy.yaml", &text, number, &mut RuleNames::default()).0.expect("it is right")
    }

    #[test]
    fn the_newest_are_kept_within_their_bounds() {
        let numbers = |history: &History| history.0.iter().map(|former| former.number).collect::<Vec<_>>();
        let mut history = History::default();
        assert_eq!(history.newest(), None);
        for number in 1..=20 {
            history = history.followed_by(&policy(number, 50));
        }
        assert_eq!(numbers(&history), (13..=20).collect::<Vec<_>>());
        assert_eq!(numbers(&history.without_newest()), (13..=19).collect::<Vec<_>>());
        assert_eq!(numbers(&History::default().without_newest()), [0; 0]);
        let large = history.followed_by(&policy(21, History::BYTES_MAX / 2)).followed_by(&policy(22, 50));
        assert_eq!(numbers(&large), (15..=22).collect::<Vec<_>>());
        assert_eq!(numbers(&large.followed_by(&policy(23, History::BYTES_MAX / 2))), [22, 23]);
        assert_eq!(numbers(&large.followed_by(&policy(23, History::BYTES_MAX))), [23]);
    }
}
