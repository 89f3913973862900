//! How many connections there may be, and of whom.
//!
//! Strangers (still in the handshake, or without a host's certificate) have a
//! budget of their own and a share per source, so that no number of them can keep
//! a host out. The federation endpoint, where there are strangers only, has a gate of its own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use spiffe::id::HostName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::alerts::network;

/// Connections of hosts.
const HOSTS_MAX: usize = 1024;

/// Connections of one host: its stream, one that replaces it, and its renewals. Who holds the SVID of one host must not
/// keep the others out.
const PER_HOST_MAX: u32 = 16;

/// Connections of strangers.
const STRANGERS_MAX: usize = 128;

/// Connections of strangers from one address (IPv6: one /64, which is what one
/// machine has, RFC 4291 §2.5.4).
const STRANGERS_PER_SOURCE_MAX: u32 = 32;

#[derive(Debug)]
pub(crate) struct Gate {
    hosts: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    sources: Shares<IpAddr>,
    names: Shares<HostName>,
}

/// How many places each has.
type Shares<K> = Arc<Mutex<BTreeMap<K, u32>>>;

/// A stranger's place.
#[derive(Debug)]
pub(crate) struct StrangerPlace {
    _permit: OwnedSemaphorePermit,
    _share: Share<IpAddr>,
}

/// A host's place.
#[derive(Debug)]
pub(super) struct HostPlace {
    _permit: OwnedSemaphorePermit,
    _share: Share<HostName>,
}

/// Why a host gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// It has its share.
    ForThisHost,
    /// There is none for any host.
    ForAny,
}

/// One place of the share of somebody.
#[derive(Debug)]
struct Share<K: Ord> {
    whose: K,
    shares: Shares<K>,
}

impl<K: Ord + Clone> Share<K> {
    fn take(shares: &Shares<K>, whose: &K, most: u32) -> Option<Self> {
        let mut counts = shares.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(whose.clone()).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Self {
            whose: whose.clone(),
            shares: Arc::clone(shares),
        })
    }
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            hosts: Arc::new(Semaphore::new(HOSTS_MAX)),
            strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
            sources: Arc::default(),
            names: Arc::default(),
        }
    }

    /// Gives a new connection a place, or none.
    pub(crate) fn stranger(&self, source: IpAddr) -> Option<StrangerPlace> {
        let permit = Arc::clone(&self.strangers).try_acquire_owned().ok()?;
        let share = Share::take(&self.sources, &network(source), STRANGERS_PER_SOURCE_MAX)?;
        Some(StrangerPlace {
            _permit: permit,
            _share: share,
        })
    }

    /// Gives a host a place, or none.
    pub(super) fn host(&self, host: &HostName) -> Result<HostPlace, NoPlace> {
        let share = Share::take(&self.names, host, PER_HOST_MAX).ok_or(NoPlace::ForThisHost)?;
        let permit = Arc::clone(&self.hosts).try_acquire_owned();
        let permit = permit.map_err(|_none_left| NoPlace::ForAny)?;
        Ok(HostPlace {
            _permit: permit,
            _share: share,
        })
    }
}

impl<K: Ord> Drop for Share<K> {
    fn drop(&mut self) {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = shares.get_mut(&self.whose) {
            *count -= 1;
            if *count == 0 {
                shares.remove(&self.whose);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_has_a_share_and_gets_it_back() {
        let gate = Gate::new();
        let near: IpAddr = "2001:db8::1".parse().unwrap();
        let same: IpAddr = "2001:db8::2".parse().unwrap();
        let far: IpAddr = "2001:db8:1::1".parse().unwrap();
        let mut places: Vec<_> = (0..STRANGERS_PER_SOURCE_MAX)
            .map(|_| gate.stranger(near).unwrap())
            .collect();
        assert!(gate.stranger(same).is_none());
        assert!(gate.stranger(far).is_some());
        places.pop();
        assert!(gate.stranger(same).is_some());
        places.clear();
        assert!(gate.sources.lock().unwrap().is_empty());
    }

    #[test]
    fn strangers_do_not_take_the_places_of_hosts() {
        let gate = Gate::new();
        let places: Vec<_> = (0..=255_u8)
            .filter_map(|n| gate.stranger(IpAddr::from([10, 0, 0, n])))
            .collect();
        assert_eq!(places.len(), STRANGERS_MAX);
        assert!(gate.host(&HostName::parse("web-1").unwrap()).is_ok());
    }

    #[test]
    fn one_host_does_not_take_the_places_of_the_others() {
        let gate = Gate::new();
        let (one, other) = (HostName::parse("web-1").unwrap(), HostName::parse("web-2").unwrap());
        let mut places: Vec<_> = (0..PER_HOST_MAX).map(|_| gate.host(&one).unwrap()).collect();
        assert_eq!(gate.host(&one).unwrap_err(), NoPlace::ForThisHost);
        assert!(gate.host(&other).is_ok());
        places.pop();
        assert!(gate.host(&one).is_ok());
        places.clear();
        assert!(gate.names.lock().unwrap().is_empty());
    }
}
