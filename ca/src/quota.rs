//! How many SVIDs one host may have: far more than any host needs, far fewer than
//! would let a broken or stolen one fill the ledger and so stop the CA for all.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use spiffe::id::HostName;
use spiffe::time::Timestamp;
use tokio::time::Instant;

/// What a host may have at once: it starts and warms every bot that it may claim.
const BURST: u64 = 4096;

/// One more for each of these. A host with 1000 bots renews about one per second.
const REFILL: Duration = Duration::from_millis(16);

/// A bucket for each host that has proved itself, so there are no more than hosts.
#[derive(Debug, Default)]
pub(crate) struct Quotas(Mutex<BTreeMap<HostName, Bucket>>);

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: u64,
    /// Until when what was refilled is in `left`.
    filled: Timestamp,
}

impl Quotas {
    /// Takes `count` from the host's bucket, or nothing when it has fewer.
    #[must_use]
    pub(crate) fn take(&self, host: &HostName, count: u64, now: Timestamp) -> bool {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(host.clone()).or_insert(Bucket {
            left: BURST,
            filled: now,
        });
        bucket.refill(now);
        match bucket.left.checked_sub(count) {
            Some(left) => {
                bucket.left = left;
                true
            }
            None => false,
        }
    }
}

impl Bucket {
    fn refill(&mut self, now: Timestamp) {
        let waited = now.duration_since(self.filled);
        let refilled = waited.as_nanos() / REFILL.as_nanos();
        if refilled == 0 {
            return;
        }
        self.left = u64::try_from(refilled).map_or(BURST, |refilled| BURST.min(self.left.saturating_add(refilled)));
        // What is left of the wait is worth less than one and is forgotten.
        self.filled = now;
    }
}

/// Messages up that a host may send at once: what its proxy keeps for a CA that was away, and some.
const MESSAGES_BURST: u64 = 1024;

/// One more for each of these. A proxy sends a few per second.
const MESSAGES_REFILL: Duration = Duration::from_millis(5);

/// A bucket of messages for each host that has proved itself, over all its streams.
#[derive(Debug, Default)]
pub(crate) struct Messages(Mutex<BTreeMap<HostName, (u64, Instant)>>);

impl Messages {
    /// Takes `count` from the host's bucket, or nothing when it has fewer.
    #[must_use]
    pub(crate) fn take(&self, host: &HostName, count: u64, now: Instant) -> bool {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, filled) = buckets.entry(host.clone()).or_insert((MESSAGES_BURST, now));
        let refilled = now.duration_since(*filled).as_nanos() / MESSAGES_REFILL.as_nanos();
        if refilled > 0 {
            let refilled = u64::try_from(refilled).unwrap_or(MESSAGES_BURST);
            *left = left.saturating_add(refilled).min(MESSAGES_BURST);
            *filled = now;
        }
        match left.checked_sub(count) {
            Some(rest) => {
                *left = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostName {
        HostName::parse(name).unwrap()
    }

    #[test]
    fn a_host_that_has_had_its_burst_waits_and_others_do_not() {
        let quotas = Quotas::default();
        let start = Timestamp::from_unix_millis(0);
        assert!(quotas.take(&host("web-1"), BURST, start));
        assert!(!quotas.take(&host("web-1"), 1, start));
        assert!(quotas.take(&host("web-2"), 1, start));
        let later = start + REFILL * 64;
        assert!(!quotas.take(&host("web-1"), 65, later));
        assert!(quotas.take(&host("web-1"), 64, later));
        assert!(!quotas.take(&host("web-1"), 1, later));
    }

    #[test]
    fn waiting_saves_up_no_more_than_a_burst() {
        let quotas = Quotas::default();
        assert!(quotas.take(&host("web-1"), 1, Timestamp::from_unix_millis(0)));
        let later = Timestamp::from_unix_millis(i64::MAX);
        assert!(!quotas.take(&host("web-1"), BURST + 1, later));
        assert!(quotas.take(&host("web-1"), BURST, later));
    }

    #[test]
    fn a_clock_that_goes_back_fills_nothing() {
        let quotas = Quotas::default();
        let now = Timestamp::from_unix_millis(1_000_000);
        assert!(quotas.take(&host("web-1"), BURST, now));
        assert!(!quotas.take(&host("web-1"), 1, Timestamp::from_unix_millis(0)));
    }

    #[test]
    fn messages_come_back_with_time_and_not_with_a_new_stream() {
        let (messages, start) = (Messages::default(), Instant::now());
        assert!(messages.take(&host("web-1"), MESSAGES_BURST, start));
        assert!(!messages.take(&host("web-1"), 1, start));
        assert!(messages.take(&host("web-2"), 1, start));
        let later = start + MESSAGES_REFILL * 3;
        assert!(messages.take(&host("web-1"), 3, later));
        assert!(!messages.take(&host("web-1"), 1, later));
        let much_later = later + MESSAGES_REFILL * 10_000;
        assert!(!messages.take(&host("web-1"), MESSAGES_BURST + 1, much_later));
        assert!(messages.take(&host("web-1"), MESSAGES_BURST, much_later));
    }
}
