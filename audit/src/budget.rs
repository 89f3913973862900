//! The byte budget: who may still write how much.
//!
//! A stranger must not be able to fill the ledger, nor a refused caller, so
//! each class has a share of its own and can exhaust no other's.

use thiserror::Error;

/// Smallest budget that makes sense, in bytes: a segment's worth.
pub const MAX_BYTES_MIN: u64 = 64 * 1024;

/// Who pays for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Calls, their ends, and events: 80 %.
    Calls,
    /// Refusals of callers that have a name: 15 %.
    Refusals,
    /// Everything that unauthenticated peers cause: 5 %.
    Strangers,
}

/// Which part of its share a record may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// All but the reserve.
    Keep,
    /// The reserve too: ends of admitted calls, and the ledger's own alerts.
    Spend,
    /// More than there is: the word of what is pruned, which makes room.
    Exceed,
}

/// How much of its share a class has spent, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Share {
    /// The word for it in metrics: `calls`, `refusals`, `strangers`.
    pub class: &'static str,
    /// Spent so far.
    pub spent: u64,
    /// Of so many.
    pub most: u64,
}

/// The share of a class is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the ledger's share for {} is used up", .class.as_str())]
pub struct ShareFull {
    /// Whose share.
    pub class: Class,
}

/// What has been spent of `max_bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    max_bytes: u64,
    calls: u64,
    refusals: u64,
    strangers: u64,
    /// What was given back: calls, refusals, strangers. What was spent is never made smaller, for that is what segments
    /// begin with, and those stay as they were written.
    freed: [u64; 3],
}

impl Class {
    /// Returns the word in alerts and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Refusals => "refusals",
            Self::Strangers => "strangers",
        }
    }
}

impl Budget {
    /// Starts with what is spent already: calls, refusals, strangers.
    #[must_use]
    pub const fn new(max_bytes: u64, [calls, refusals, strangers]: [u64; 3]) -> Self {
        Self {
            max_bytes,
            calls,
            refusals,
            strangers,
            freed: [0; 3],
        }
    }

    /// Gives back what pruned records have cost: calls, refusals, strangers.
    pub fn free(&mut self, bytes: [u64; 3]) {
        for (freed, more) in self.freed.iter_mut().zip(bytes) {
            *freed = freed.saturating_add(more);
        }
    }

    /// Returns the bytes that pruning a record gives back: all but its hash, which stays.
    #[must_use]
    pub const fn freed_by(json_bytes: usize) -> u64 {
        (json_bytes as u64).saturating_add(1)
    }

    /// Returns the bytes that are in use: calls, refusals, strangers.
    #[must_use]
    pub const fn used(&self) -> [u64; 3] {
        let [calls, refusals, strangers] = self.freed;
        [
            self.calls.saturating_sub(calls),
            self.refusals.saturating_sub(refusals),
            self.strangers.saturating_sub(strangers),
        ]
    }

    /// Returns the bytes that a record costs: the line, its newline, and its
    /// hash in a tile.
    #[must_use]
    pub const fn cost(json_bytes: usize) -> u64 {
        (json_bytes as u64).saturating_add(1 + 32)
    }

    /// Returns the bytes spent so far, those that were given back among them: calls, refusals, strangers.
    #[must_use]
    pub const fn spent(&self) -> [u64; 3] {
        [self.calls, self.refusals, self.strangers]
    }

    /// Returns how much each class has spent of its share: calls, refusals, strangers.
    #[must_use]
    pub fn shares(&self) -> [Share; 3] {
        let percent = self.max_bytes / 100;
        let share = |class: Class, spent, percents: u64| Share {
            class: class.as_str(),
            spent,
            most: percent.saturating_mul(percents),
        };
        let [calls, refusals, strangers] = self.used();
        [
            share(Class::Calls, calls, 80),
            share(Class::Refusals, refusals, 15),
            share(Class::Strangers, strangers, 5),
        ]
    }

    /// Says whether a record of this cost may still be written.
    ///
    /// # Errors
    ///
    /// [`ShareFull`] when it would not fit its share.
    pub const fn check(&self, class: Class, reserve: Reserve, cost: u64) -> Result<(), ShareFull> {
        let percent = self.max_bytes / 100;
        let [calls, refusals, strangers] = self.used();
        let (spent, share) = match (class, reserve) {
            // One of the 80 is kept back for ends and alerts, so that a call
            // that was admitted can always be ended.
            (Class::Calls, Reserve::Keep) => (calls, percent.saturating_mul(79)),
            (Class::Calls, Reserve::Spend) => (calls, percent.saturating_mul(80)),
            (Class::Calls, Reserve::Exceed) => return Ok(()),
            (Class::Refusals, _) => (refusals, percent.saturating_mul(15)),
            (Class::Strangers, _) => (strangers, percent.saturating_mul(5)),
        };
        if spent.saturating_add(cost) <= share {
            Ok(())
        } else {
            Err(ShareFull { class })
        }
    }

    /// Counts a record as written.
    pub const fn spend(&mut self, class: Class, cost: u64) {
        let spent = match class {
            Class::Calls => &mut self.calls,
            Class::Refusals => &mut self.refusals,
            Class::Strangers => &mut self.strangers,
        };
        *spent = spent.saturating_add(cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_its_own_share() {
        let mut budget = Budget::new(10_000, [0; 3]);
        for (class, reserve, share) in [
            (Class::Calls, Reserve::Keep, 7_900),
            (Class::Calls, Reserve::Spend, 8_000),
            (Class::Refusals, Reserve::Keep, 1_500),
            (Class::Refusals, Reserve::Spend, 1_500),
            (Class::Strangers, Reserve::Keep, 500),
        ] {
            assert_eq!(budget.check(class, reserve, share), Ok(()));
            assert_eq!(budget.check(class, reserve, share + 1), Err(ShareFull { class }));
        }
        budget.spend(Class::Strangers, 500);
        budget.spend(Class::Refusals, 1_499);
        assert!(budget.check(Class::Strangers, Reserve::Keep, 1).is_err());
        assert_eq!(budget.check(Class::Refusals, Reserve::Keep, 1), Ok(()));
        assert_eq!(budget.check(Class::Calls, Reserve::Keep, 7_900), Ok(()));
        budget.spend(Class::Calls, 7_900);
        assert!(budget.check(Class::Calls, Reserve::Keep, 1).is_err());
        assert_eq!(budget.check(Class::Calls, Reserve::Spend, 100), Ok(()));
        assert!(budget.check(Class::Calls, Reserve::Spend, 101).is_err());
        assert_eq!(budget.check(Class::Calls, Reserve::Exceed, 101), Ok(()));
        assert_eq!(budget.spent(), [7_900, 1_499, 500]);
        let told = budget.shares().map(|share| (share.class, share.spent, share.most));
        assert_eq!(
            told,
            [
                ("calls", 7_900, 8_000),
                ("refusals", 1_499, 1_500),
                ("strangers", 500, 500)
            ]
        );
    }

    #[test]
    fn what_was_spent_before_is_charged_to_its_class() {
        let budget = Budget::new(10_000, [7_000, 1_000, 400]);
        assert_eq!(budget.spent(), [7_000, 1_000, 400]);
        assert!(budget.check(Class::Calls, Reserve::Keep, 901).is_err());
        assert!(budget.check(Class::Refusals, Reserve::Keep, 501).is_err());
        assert!(budget.check(Class::Strangers, Reserve::Keep, 101).is_err());
    }

    #[test]
    fn what_was_pruned_is_given_back_but_for_the_hashes() {
        let mut budget = Budget::new(10_000, [7_900, 0, 0]);
        assert!(budget.check(Class::Calls, Reserve::Keep, 1).is_err());
        assert_eq!(Budget::freed_by(100), 101);
        budget.free([101, 0, 0]);
        assert_eq!(budget.check(Class::Calls, Reserve::Keep, 101), Ok(()));
        assert!(budget.check(Class::Calls, Reserve::Keep, 102).is_err());
        assert_eq!((budget.spent(), budget.used()), ([7_900, 0, 0], [7_799, 0, 0]));
        assert_eq!(budget.shares()[0].spent, 7_799);
    }

    #[test]
    fn a_record_costs_its_line_its_newline_and_its_hash() {
        assert_eq!(Budget::cost(100), 133);
    }

    #[test]
    fn the_refusal_names_the_share() {
        let full = ShareFull { class: Class::Refusals };
        assert_eq!(full.to_string(), "the ledger's share for refusals is used up");
        assert_eq!(Class::Calls.as_str(), "calls");
        assert_eq!(Class::Strangers.as_str(), "strangers");
    }
}
