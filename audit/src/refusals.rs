//! Counts refusals of one caller that come faster than they are written.

use std::collections::BTreeMap;
use std::time::Duration;

use spiffe::time::Timestamp;

use crate::record::{CallRecord, Party, PartyKey, RefusalsRecord, Verdict};

/// Refusals of one caller that are written one by one in a second (DESIGN §8).
pub(crate) const REFUSALS_PER_SECOND: u32 = 50;

/// Callers whose rate is followed; those beyond share one.
const CALLERS_MAX: usize = 4096;

/// Counts that are kept apart by caller, reason and rule; those beyond are one.
const COUNTS_MAX: usize = 1024;

/// How long a caller's rate and a count are kept before they start anew.
const WINDOW: Duration = Duration::from_secs(1);

/// What to do with one refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Admission {
    /// Write it.
    Write,
    /// It is counted and will be in a [`RefusalsRecord`].
    Counted,
}

/// The rates of callers and the counts that wait to be written.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    rates: BTreeMap<PartyKey, Rate>,
    counts: BTreeMap<Key, Count>,
    beyond: Option<Count>,
}

#[derive(Debug)]
struct Rate {
    since: Timestamp,
    written: u32,
}

type Key = (PartyKey, String, Option<String>);

/// How many, since when, until when; the party is kept to be written.
#[derive(Debug)]
struct Count {
    from: Party,
    count: u64,
    first: Timestamp,
    last: Timestamp,
}

impl Refusals {
    /// Decides about one refusal, and counts it if it is not to be written.
    pub(crate) fn admit(&mut self, now: Timestamp, record: &CallRecord) -> Admission {
        let caller = record.from.key();
        let full = self.rates.len() >= CALLERS_MAX && !self.rates.contains_key(&caller);
        if full {
            self.count(now, record, None);
            return Admission::Counted;
        }
        let rate = self
            .rates
            .entry(caller.clone())
            .or_insert(Rate { since: now, written: 0 });
        if over(rate.since, now) {
            *rate = Rate { since: now, written: 0 };
        }
        if rate.written < REFUSALS_PER_SECOND {
            rate.written = rate.written.saturating_add(1);
            return Admission::Write;
        }
        self.count(now, record, Some(caller));
        Admission::Counted
    }

    /// Returns the counts that are a second old, or all of them, and forgets
    /// the callers that have gone quiet.
    pub(crate) fn take(&mut self, now: Timestamp, all: bool) -> Vec<RefusalsRecord> {
        self.rates.retain(|_, rate| !over(rate.since, now));
        let due = |count: &Count| all || over(count.first, now);
        let mut records: Vec<RefusalsRecord> = self
            .counts
            .extract_if(.., |_, count| due(count))
            .map(|((_, reason, rule), count)| count.into_record(now, reason, rule))
            .collect();
        if let Some(beyond) = self.beyond.take_if(|count| due(count)) {
            records.push(beyond.into_record(now, "other".to_owned(), None));
        }
        records
    }

    /// Says whether anything waits to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.beyond.is_none()
    }

    fn count(&mut self, now: Timestamp, record: &CallRecord, caller: Option<PartyKey>) {
        let count = match caller {
            Some(caller) => {
                let reason = record.reason.clone().unwrap_or_default();
                let key = (caller, reason, record.rule.clone());
                if self.counts.len() < COUNTS_MAX || self.counts.contains_key(&key) {
                    self.counts
                        .entry(key)
                        .or_insert_with(|| Count::new(now, record.from.clone()))
                } else {
                    self.beyond.get_or_insert_with(|| Count::new(now, Party::default()))
                }
            }
            None => self.beyond.get_or_insert_with(|| Count::new(now, Party::default())),
        };
        count.count = count.count.saturating_add(1);
        count.last = now;
    }
}

impl Count {
    const fn new(now: Timestamp, from: Party) -> Self {
        Self {
            from,
            count: 0,
            first: now,
            last: now,
        }
    }

    fn into_record(self, now: Timestamp, reason: String, rule: Option<String>) -> RefusalsRecord {
        RefusalsRecord {
            time: now,
            verdict: Verdict::Deny,
            from: self.from,
            reason,
            rule,
            count: self.count,
            first: self.first,
            last: self.last,
        }
    }
}

/// Says whether a window that began at `since` is over. A clock that went back
/// ends it too, else it would stay open for as long as the jump was wide.
fn over(since: Timestamp, now: Timestamp) -> bool {
    now < since || now.duration_since(since) >= WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Actor, CallId, Direction};
    use spiffe::id::SpiffeId;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_unix_millis(millis)
    }

    fn refusal(bot: Option<&str>, reason: &str, rule: Option<&str>) -> CallRecord {
        let id = bot.map(|bot| SpiffeId::parse(&format!("spiffe://acme.internal/{bot}")).unwrap());
        CallRecord {
            actor: Actor::Bot,
            from: Party { id, ..Party::default() },
            method: "GET".into(),
            path: "/".into(),
            rule: rule.map(str::to_owned),
            reason: Some(reason.into()),
            epoch: 1,
            revision: 1,
            ..CallRecord::new(CallId::from_bytes([0; 16]), at(0), Direction::Out)
        }
    }

    fn admitted(refusals: &mut Refusals, now: i64, times: u32) -> u32 {
        let record = refusal(Some("prod/a"), "no_rule", None);
        (0..times)
            .map(|_| u32::from(refusals.admit(at(now), &record) == Admission::Write))
            .sum()
    }

    #[test]
    fn a_second_admits_fifty_and_the_next_fifty_more() {
        let mut refusals = Refusals::default();
        assert_eq!(admitted(&mut refusals, 0, 60), 50);
        assert_eq!(admitted(&mut refusals, 999, 60), 0);
        assert_eq!(admitted(&mut refusals, 1000, 60), 50);
    }

    #[test]
    fn a_clock_that_goes_back_begins_a_new_second() {
        let mut refusals = Refusals::default();
        assert_eq!(admitted(&mut refusals, 10_000, 60), 50);
        assert_eq!(admitted(&mut refusals, 0, 60), 50);
        assert_eq!(refusals.take(at(0), false).len(), 1);
    }

    #[test]
    fn a_count_is_handed_over_a_second_after_its_first() {
        let mut refusals = Refusals::default();
        assert!(refusals.is_empty());
        admitted(&mut refusals, 100, 53);
        admitted(&mut refusals, 700, 2);
        assert!(!refusals.is_empty());
        assert_eq!(refusals.take(at(1099), false), []);
        let taken = refusals.take(at(1100), false);
        assert_eq!(taken.len(), 1);
        assert_eq!(
            (taken[0].time, taken[0].first, taken[0].last),
            (at(1100), at(100), at(700))
        );
        assert_eq!(
            (taken[0].count, taken[0].reason.as_str(), taken[0].rule.as_deref()),
            (5, "no_rule", None)
        );
        assert!(refusals.is_empty());
    }

    #[test]
    fn callers_that_went_quiet_are_forgotten_and_busy_ones_are_not() {
        let mut refusals = Refusals::default();
        admitted(&mut refusals, 0, 50);
        refusals.take(at(500), false);
        assert_eq!(refusals.rates.len(), 1);
        assert_eq!(admitted(&mut refusals, 500, 1), 0);
        refusals.take(at(1000), false);
        assert_eq!(refusals.rates.len(), 0);
    }

    #[test]
    fn more_counts_than_are_kept_apart_share_one() {
        let mut refusals = Refusals::default();
        admitted(&mut refusals, 0, 50);
        for rule in 0..1030 {
            let record = refusal(Some("prod/a"), "denied_by_rule", Some(&format!("rule-{rule}")));
            assert_eq!(refusals.admit(at(0), &record), Admission::Counted);
            assert_eq!(refusals.admit(at(0), &record), Admission::Counted);
        }
        let taken = refusals.take(at(5), true);
        assert_eq!(taken.len(), 1025);
        let other = &taken[1024];
        assert_eq!(
            (other.count, other.reason.as_str(), &other.from),
            (12, "other", &Party::default())
        );
        assert_eq!(taken.iter().map(|record| record.count).sum::<u64>(), 2060);
        assert!(refusals.is_empty());
    }

    #[test]
    fn callers_beyond_those_that_are_followed_are_counted_together() {
        let mut refusals = Refusals::default();
        for bot in 0..4100 {
            let record = refusal(Some(&format!("prod/b{bot}")), "no_rule", None);
            assert_eq!(refusals.admit(at(0), &record) == Admission::Write, bot < 4096);
        }
        assert!(!refusals.is_empty());
        // One of the followed is still written.
        let followed = refusal(Some("prod/b7"), "no_rule", None);
        assert_eq!(refusals.admit(at(0), &followed), Admission::Write);
        let taken = refusals.take(at(1000), false);
        assert_eq!((taken.len(), taken[0].count), (1, 4));
        assert!(refusals.is_empty());
    }

    #[test]
    fn callers_without_a_name_are_told_apart_by_uid() {
        let mut refusals = Refusals::default();
        let nobody = refusal(None, "unknown_caller", None);
        let mut local = nobody.clone();
        local.from.facts = Some(std::sync::Arc::new(spiffe::selector::Facts::new(1, 7, 7)));
        let written = (0..60).filter(|_| refusals.admit(at(0), &nobody) == Admission::Write);
        assert_eq!(written.count(), 50);
        assert_eq!(refusals.admit(at(0), &local), Admission::Write);
        assert_eq!(refusals.take(at(0), true)[0].count, 10);
    }
}
