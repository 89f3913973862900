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
