//! When an SVID is renewed: a pure function of its life and a random number.

use spiffe::time::Timestamp;

/// Renewal happens not before this share of the life, in percent.
const EARLIEST_PERCENT: u64 = 35;

/// Renewal happens before this share of the life, in percent: of a one-hour SVID
/// at least half an hour is always left when its renewal starts.
const LATEST_PERCENT: u64 = 45;

/// A random number that spreads renewals, so that the bots of a mesh that was
/// started at once do not ask the CA at once for ever after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Jitter(pub(super) u32);

/// Returns the time to renew an SVID that is valid from `not_before` to
/// `not_after`: between 35 % and 45 % of its life.
pub(super) fn renew_at(not_before: Timestamp, not_after: Timestamp, jitter: Jitter) -> Timestamp {
    let life_ms = not_after
        .unix_millis()
        .saturating_sub(not_before.unix_millis())
        .max(0)
        .unsigned_abs();
    // In parts of 100 * 2^32, so that nothing is rounded before the one division.
    let share =
        (u128::from(EARLIEST_PERCENT) << 32) + u128::from(LATEST_PERCENT - EARLIEST_PERCENT) * u128::from(jitter.0);
    let offset_ms = (u128::from(life_ms) * share / (100 << 32))
        .try_into()
        .unwrap_or(i64::MAX);
    Timestamp::from_unix_millis(not_before.unix_millis().saturating_add(offset_ms))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    fn check(life_ms: i64, jitter: u32) -> i64 {
        let start = Timestamp::from_unix_millis(1_000_000);
        let end = Timestamp::from_unix_millis(1_000_000 + life_ms);
        renew_at(start, end, Jitter(jitter)).unix_millis() - 1_000_000
    }

    #[test]
    fn the_earliest_renewal_is_at_35_percent() {
        assert_eq!(check(HOUR_MS, 0), HOUR_MS * 35 / 100);
    }

    #[test]
    fn the_latest_renewal_is_just_before_45_percent() {
        assert_eq!(check(HOUR_MS, u32::MAX), HOUR_MS * 45 / 100 - 1);
    }

    #[test]
    fn jitter_in_the_middle_renews_in_the_middle() {
        assert_eq!(check(HOUR_MS, 1 << 31), HOUR_MS * 40 / 100);
    }

    #[test]
    fn an_svid_without_life_is_renewed_at_once() {
        assert_eq!(check(0, 7), 0);
        assert_eq!(check(-5, 7), 0, "an end before the start is no life");
    }

    proptest! {
        #[test]
        fn renewal_is_always_inside_the_window(life_ms in 0..400 * 24 * HOUR_MS, jitter in any::<u32>()) {
            let offset = check(life_ms, jitter);
            prop_assert!(offset >= life_ms * 35 / 100);
            prop_assert!(offset <= life_ms * 45 / 100);
        }

        #[test]
        fn more_jitter_is_never_earlier(life_ms in 0..HOUR_MS, a in any::<u32>(), b in any::<u32>()) {
            prop_assert!(check(life_ms, a.min(b)) <= check(life_ms, a.max(b)));
        }
    }
}
