//! Counts what unauthenticated sources do, per source and minute.

use std::collections::BTreeMap;
use std::net::IpAddr;

use spiffe::time::Timestamp;

use crate::record::StrangersRecord;

/// Pairs of source and reason that are told apart in a minute; those beyond
/// are one.
pub(crate) const STRANGERS_MAX: usize = 1024;

/// Longest reason that is kept, in bytes.
const REASON_BYTES_MAX: usize = 64;

const MINUTE_MS: i64 = 60_000;

/// The counts of the minute that runs.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    counts: BTreeMap<(IpAddr, String), Count>,
    beyond: Option<Count>,
    minute: i64,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    count: u64,
    first: Timestamp,
    last: Timestamp,
}

impl Strangers {
    /// Counts one refusal of an unauthenticated peer. An IPv4 address in IPv6
    /// form is the IPv4 address.
    pub(crate) fn count(&mut self, now: Timestamp, source: IpAddr, reason: &str) {
        if self.is_empty() {
            self.minute = minute(now);
        }
        let reason = reason
            .get(..reason.floor_char_boundary(REASON_BYTES_MAX))
            .unwrap_or_default();
        let key = (source.to_canonical(), reason.to_owned());
        let new = Count {
            count: 0,
            first: now,
            last: now,
        };
        let count = if self.counts.len() < STRANGERS_MAX || self.counts.contains_key(&key) {
            self.counts.entry(key).or_insert(new)
        } else {
            self.beyond.get_or_insert(new)
        };
        count.count = count.count.saturating_add(1);
        count.last = now;
    }

    /// Returns the counts if their minute is over, or in any case, and starts
    /// anew.
    pub(crate) fn take(&mut self, now: Timestamp, all: bool) -> Vec<StrangersRecord> {
        if !all && minute(now) == self.minute {
            return Vec::new();
        }
        let named = std::mem::take(&mut self.counts)
            .into_iter()
            .map(|((source, reason), count)| count.into_record(now, Some(source), reason));
        let beyond = self.beyond.take();
        named
            .chain(beyond.map(|count| count.into_record(now, None, "other".to_owned())))
            .collect()
    }

    /// Says whether nothing waits to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.beyond.is_none()
    }
}

impl Count {
    const fn into_record(self, now: Timestamp, source: Option<IpAddr>, reason: String) -> StrangersRecord {
        StrangersRecord {
            time: now,
            source,
            reason,
            count: self.count,
            first: self.first,
            last: self.last,
        }
    }
}

const fn minute(now: Timestamp) -> i64 {
    now.unix_millis().div_euclid(MINUTE_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_unix_millis(millis)
    }

    fn source(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn counts_are_handed_over_when_their_minute_is_over() {
        let mut strangers = Strangers::default();
        assert!(strangers.is_empty());
        strangers.count(at(119_000), source(1), "expired");
        strangers.count(at(119_500), source(1), "expired");
        assert!(!strangers.is_empty());
        assert_eq!(strangers.take(at(119_999), false), []);
        let taken = strangers.take(at(120_000), false);
        assert_eq!(taken.len(), 1);
        assert_eq!(
            (taken[0].count, taken[0].first, taken[0].last),
            (2, at(119_000), at(119_500))
        );
        assert_eq!((taken[0].time, taken[0].source), (at(120_000), Some(source(1))));
        assert!(strangers.is_empty());
        // The next minute is the one in which counting begins again.
        strangers.count(at(185_000), source(1), "expired");
        assert_eq!(strangers.take(at(185_001), false), []);
        assert_eq!(strangers.take(at(185_001), true).len(), 1);
    }

    #[test]
    fn sources_beyond_those_that_are_told_apart_share_a_count() {
        let mut strangers = Strangers::default();
        for number in 0..1030 {
            strangers.count(at(0), source(number), "expired");
        }
        strangers.count(at(0), source(5), "expired");
        let taken = strangers.take(at(60_000), false);
        assert_eq!(taken.len(), 1025);
        assert_eq!((taken[5].count, taken[1024].count, taken[1024].source), (2, 6, None));
        assert_eq!(taken[1024].reason, "other");
        assert!(strangers.is_empty());
    }

    #[test]
    fn a_reason_is_kept_to_64_bytes_of_whole_characters() {
        let mut strangers = Strangers::default();
        strangers.count(at(0), source(1), &"\u{e9}".repeat(40));
        strangers.count(at(0), source(1), &format!("x{}", "\u{e9}".repeat(40)));
        let taken = strangers.take(at(0), true);
        let lengths: Vec<usize> = taken.iter().map(|record| record.reason.len()).collect();
        assert_eq!(lengths, [63, 64]);
    }
}
