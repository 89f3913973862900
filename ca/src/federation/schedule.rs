//! When a key for JWT-SVIDs is published, signs, and is taken away; pure.
//!
//! A relying party keeps the set of keys that it fetched, and may be away from this CA, or be given the set by hand. So a key
//! is published long before it signs, and stays published after its last token has ended.

use std::time::Duration;

use spiffe::time::Timestamp;

/// How long a key signs, as a rule.
const KEY_LIFE: Duration = Duration::from_hours(30 * 24);

/// From when on the next key is published: half of the life.
const PREPARE_AFTER: Duration = Duration::from_secs(KEY_LIFE.as_secs() / 2);

/// From when on the next key signs, as a rule: with a sixth of the life left. That leaves ten days to bring a new set to
/// somebody who cannot fetch it.
const ACTIVATE_AFTER: Duration = Duration::from_secs(KEY_LIFE.as_secs() / 6 * 5);

/// No key signs before it was published so long: whoever fetches the set once a day has it.
const PUBLISHED_MIN: Duration = Duration::from_hours(24);

/// How long a token lasts. A bearer can show it as often as it wants, and nobody can take it back.
pub(crate) const TOKEN_TTL: Duration = Duration::from_mins(5);

/// How long a key is published after the last token that it signed has ended.
const KEPT_AFTER: Duration = Duration::from_hours(1);

/// What is planned for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) published: Timestamp,
    /// Later than that of every key before it.
    pub(crate) signs_from: Timestamp,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make the next key, publish it, and have it sign from this time on.
    Publish { signs_from: Timestamp },
    /// Take the first key away.
    Retire,
}

/// Gives what is due now. `plans` are those of the keys that are published, in their order.
pub(crate) fn due(plans: &[Plan], now: Timestamp) -> Option<Step> {
    let Some(newest) = plans.last() else {
        // Nobody has a set of keys that this one is missing from.
        return Some(Step::Publish { signs_from: now });
    };
    if now >= newest.signs_from + PREPARE_AFTER {
        let signs_from = (newest.signs_from + ACTIVATE_AFTER).max(now + PUBLISHED_MIN);
        return Some(Step::Publish { signs_from });
    }
    (now >= first_ends(plans)?).then_some(Step::Retire)
}

/// Gives when to look again; later than `now` where nothing is due.
pub(crate) fn next(plans: &[Plan], now: Timestamp) -> Timestamp {
    let prepare = plans.last().map(|newest| newest.signs_from + PREPARE_AFTER);
    let begins = plans.iter().map(|plan| plan.signs_from).find(|from| *from > now);
    [prepare, begins, first_ends(plans)]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(now)
}

/// Gives the place of the key that signs now: the newest whose time has come. The one before it signs until then, beyond its
/// life where the CA was away when the next was due; a clock that went back has the first sign.
pub(crate) fn signing(plans: &[Plan], now: Timestamp) -> usize {
    plans.iter().rposition(|plan| plan.signs_from <= now).unwrap_or(0)
}

/// Gives when a key is taken away: an hour after the last token that it signed. Not known before there is a next.
pub(crate) fn ends(plans: &[Plan], place: usize) -> Option<Timestamp> {
    plans
        .get(place + 1)
        .map(|next| next.signs_from + TOKEN_TTL + KEPT_AFTER)
}

fn first_ends(plans: &[Plan]) -> Option<Timestamp> {
    ends(plans, 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn at(days: u32) -> Timestamp {
        Timestamp::from_unix_millis(0) + DAY * days
    }

    /// Does what is due at a time, as the CA does, and says what it was.
    fn run(plans: &mut Vec<Plan>, now: Timestamp) -> Vec<&'static str> {
        let mut done = Vec::new();
        while let Some(step) = due(plans, now) {
            match step {
                Step::Publish { signs_from } => {
                    plans.push(Plan {
                        published: now,
                        signs_from,
                    });
                    done.push("publish");
                }
                Step::Retire => {
                    plans.remove(0);
                    done.push("retire");
                }
            }
        }
        done
    }

    #[test]
    fn a_ca_that_is_always_there_publishes_at_half_and_signs_with_a_sixth_left() {
        let mut plans = Vec::new();
        assert_eq!(run(&mut plans, at(0)), ["publish"]);
        assert_eq!((plans[0].signs_from, signing(&plans, at(0))), (at(0), 0));
        assert_eq!(next(&plans, at(0)), at(15));
        let just_before = at(15) - Duration::from_millis(1);
        assert_eq!(run(&mut plans, just_before), [""; 0]);
        assert_eq!(run(&mut plans, at(15)), ["publish"]);
        assert_eq!(plans[1].signs_from, at(25));
        assert_eq!(next(&plans, at(15)), at(25), "to say who signs");
        assert_eq!(signing(&plans, at(25) - Duration::from_millis(1)), 0);
        assert_eq!(signing(&plans, at(25)), 1);
        let gone = at(25) + TOKEN_TTL + KEPT_AFTER;
        assert_eq!((next(&plans, at(25)), ends(&plans, 0)), (gone, Some(gone)));
        assert_eq!(run(&mut plans, gone - Duration::from_millis(1)), [""; 0]);
        assert_eq!(run(&mut plans, gone), ["retire"]);
        assert_eq!((plans.len(), next(&plans, gone)), (1, at(40)));
        assert_eq!(run(&mut plans, at(40)), ["publish"]);
        assert_eq!(plans[1].signs_from, at(50));
    }

    #[test]
    fn a_key_that_comes_late_is_published_for_a_day_all_the_same() {
        for late in [24, 29, 30, 300] {
            let mut plans = Vec::new();
            run(&mut plans, at(0));
            assert_eq!(run(&mut plans, at(late)), ["publish"]);
            assert_eq!(plans[1].signs_from, at(late + 1), "{late}");
            let before = at(late + 1) - Duration::from_millis(1);
            assert_eq!((signing(&plans, before), signing(&plans, at(late + 1))), (0, 1));
        }
    }

    #[test]
    fn a_clock_that_goes_back_finds_a_key_and_makes_none() {
        let mut plans = Vec::new();
        run(&mut plans, at(100));
        assert_eq!(run(&mut plans, at(99)), [""; 0]);
        assert_eq!(signing(&plans, at(99)), 0);
    }

    proptest! {
        /// Whenever the CA happens to be there: whoever took the set at most 23 hours ago has the key that signs now, and the
        /// key of every token that has not ended is published.
        #[test]
        fn nobody_meets_a_key_that_he_could_not_have(waits in proptest::collection::vec(0_u32..2000, 1..60)) {
            let (mut plans, mut now) = (Vec::new(), at(0));
            run(&mut plans, now);
            let mut sets: Vec<(Timestamp, Vec<Plan>)> = Vec::new();
            let mut tokens: Vec<(Timestamp, Plan)> = Vec::new();
            for wait in waits {
                now = now + Duration::from_mins(u64::from(wait));
                run(&mut plans, now);
                let signer = plans[signing(&plans, now)].clone();
                for (fetched, set) in &sets {
                    if now.duration_since(*fetched) <= Duration::from_hours(23) {
                        prop_assert!(set.contains(&signer), "{signer:?} {set:?}");
                    }
                }
                for (ends, signer) in &tokens {
                    prop_assert!(now >= *ends || plans.contains(signer));
                }
                prop_assert!(plans.len() <= 3);
                prop_assert!(next(&plans, now) > now);
                tokens.push((now + TOKEN_TTL, signer));
                sets.push((now, plans.clone()));
            }
        }
    }
}
