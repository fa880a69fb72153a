//! The numbers of a policy's conditions.

use crate::diagnostic::Span;
use crate::trace::question::{Condition, FACTS_MAX, Test};
use crate::yaml::Reader;

/// Numbers the distinct conditions of a policy.
#[derive(Default)]
pub(super) struct FactTable {
    pub(super) conditions: Vec<Condition>,
    pub(super) tests: Vec<Test>,
    /// The conditions of another policy are among them.
    pub(super) is_shared: bool,
}

impl FactTable {
    /// What `compile` makes of the table, and an error at `place` if that is what the table is too small for.
    pub(super) fn fill<T>(
        &mut self,
        reader: &mut Reader,
        place: Span,
        label: &str,
        compile: impl FnOnce(&mut FactTable) -> T,
    ) -> T {
        let was_full = self.is_full();
        let compiled = compile(self);
        if self.is_full() && !was_full {
            let together = if self.is_shared { ", together with the policy in force" } else { "" };
            let title = format!("the policy asks more than {FACTS_MAX} different questions of spans{together}");
            let help = "join alternatives into lists: a list is one question";
            reader.error("P14", place, title, label).help(help);
        }
        compiled
    }

    /// The condition's bit. Beyond the maximum the bit means nothing: the policy is refused.
    pub(super) fn bit_of(&mut self, condition: &Condition) -> usize {
        if let Some(known) = self.conditions.iter().position(|c| c == condition) {
            return known;
        }
        if self.is_full() {
            return 0;
        }
        for test in &condition.tests {
            if !self.tests.contains(test) {
                self.tests.push(test.clone());
            }
        }
        self.conditions.push(condition.clone());
        (self.conditions.len() - 1).min(FACTS_MAX - 1)
    }

    pub(super) fn is_full(&self) -> bool {
        self.conditions.len() > FACTS_MAX || self.tests.len() > FACTS_MAX
    }
}
