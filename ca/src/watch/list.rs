//! The newest alerts, for operators who look and for those who follow.

use std::collections::{BTreeMap, VecDeque};

use ca_api::admin::WatchAlert;
use spiffe::id::HostName;

use super::alert::Alert;

/// Alerts of one host that are kept, so that none can push out those of others.
const OF_HOST_MAX: usize = 100;

/// Numbered in the order in which they were raised.
#[derive(Debug, Default)]
pub(super) struct List {
    by_host: BTreeMap<HostName, VecDeque<WatchAlert>>,
    newest: u64,
}

impl List {
    /// Adds one; gives its number.
    pub(super) fn push(&mut self, alert: &Alert) -> u64 {
        self.newest += 1;
        let of_host = self.by_host.entry(alert.host.clone()).or_default();
        if of_host.len() >= OF_HOST_MAX {
            of_host.pop_front();
        }
        of_host.push_back(alert.to_api(self.newest));
        self.newest
    }

    /// Those after a number, oldest first.
    pub(super) fn after(&self, number: u64) -> Vec<WatchAlert> {
        let all = self.by_host.values().flatten().filter(|alert| alert.id > number);
        let mut all: Vec<WatchAlert> = all.cloned().collect();
        all.sort_by_key(|alert| alert.id);
        all
    }

    /// The number of the newest.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// Forgets a host that was evicted.
    pub(super) fn forget(&mut self, host: &HostName) {
        self.by_host.remove(host);
    }
}

#[cfg(test)]
mod tests {
    use spiffe::id::BotName;
    use spiffe::time::Timestamp;

    use super::*;
    use crate::watch::alert::WatchKind;

    #[test]
    fn the_newest_of_each_host_are_kept_in_the_order_in_which_they_came() {
        let mut list = List::default();
        let alert = |host: &str| Alert {
            kind: WatchKind::FirstSeen,
            time: Timestamp::from_unix_millis(0),
            host: HostName::parse(host).unwrap(),
            from: BotName::parse("a").unwrap(),
            to: "b".to_owned(),
            route: String::new(),
            excess: None,
            destinations: Vec::new(),
            refused: false,
            count: 1,
        };
        list.push(&alert("web-2"));
        for _ in 0..OF_HOST_MAX + 5 {
            list.push(&alert("web-1"));
        }
        let ids: Vec<u64> = list.after(0).iter().map(|alert| alert.id).collect();
        assert_eq!((ids.len(), ids[0], ids[1], list.newest()), (OF_HOST_MAX + 1, 1, 7, 106));
        assert_eq!(list.after(105).len(), 1);
        list.forget(&HostName::parse("web-2").unwrap());
        assert_eq!(list.after(0).len(), OF_HOST_MAX);
    }
}
