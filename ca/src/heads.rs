//! When the newest heads of hosts' ledgers were cosigned, for the metrics: the store is not asked for each scrape.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use spiffe::id::HostName;
use spiffe::time::Timestamp;

use crate::store::HeadRow;

/// By host; one that was evicted is forgotten.
#[derive(Debug, Default)]
pub(crate) struct CosignedTimes(Mutex<BTreeMap<HostName, Timestamp>>);

impl CosignedTimes {
    /// Begins with what is kept, by host and epoch.
    pub(crate) fn new(rows: Vec<HeadRow>) -> Self {
        Self(Mutex::new(rows.into_iter().map(|row| (row.host, row.at)).collect()))
    }

    pub(crate) fn cosigned(&self, host: &HostName, at: Timestamp) {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        times.insert(host.clone(), at);
    }

    pub(crate) fn forget(&self, host: &HostName) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(host);
    }

    /// Of these hosts, the time of that whose newest head was cosigned longest ago: 1970 where one has none, and nothing where
    /// there are no hosts.
    pub(crate) fn oldest<'a>(&self, hosts: impl Iterator<Item = &'a HostName>) -> Option<Timestamp> {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let never = Timestamp::from_unix_millis(0);
        hosts.map(|host| times.get(host).copied().unwrap_or(never)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_that_is_longest_behind_is_told_and_one_that_left_is_not() {
        let at = Timestamp::from_unix_millis;
        let [one, two, three] = ["web-1", "web-2", "web-3"].map(|host| HostName::parse(host).unwrap());
        let times = CosignedTimes::default();
        assert_eq!(times.oldest([].into_iter()), None);
        times.cosigned(&one, at(5000));
        times.cosigned(&two, at(7000));
        assert_eq!(times.oldest([&one, &two].into_iter()), Some(at(5000)));
        assert_eq!(times.oldest([&two].into_iter()), Some(at(7000)));
        assert_eq!(times.oldest([&two, &three].into_iter()), Some(at(0)));
        times.cosigned(&one, at(8000));
        assert_eq!(times.oldest([&one, &two].into_iter()), Some(at(7000)));
        times.forget(&two);
        assert_eq!(times.oldest([&one, &two].into_iter()), Some(at(0)));
    }
}
