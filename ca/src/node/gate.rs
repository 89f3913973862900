//! How many connections there may be, and of whom.
//!
//! Strangers (still in the handshake, or without a host's certificate) have a
//! budget of their own and a share per source, so that no number of them can keep
//! a host out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections of hosts.
const HOSTS_MAX: usize = 1024;

/// Connections of strangers.
const STRANGERS_MAX: usize = 128;

/// Connections of strangers from one address (IPv6: one /64, which is what one
/// machine has, RFC 4291 §2.5.4).
const STRANGERS_PER_SOURCE_MAX: u32 = 32;

#[derive(Debug)]
pub(super) struct Gate {
    hosts: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    sources: Arc<Mutex<BTreeMap<IpAddr, u32>>>,
}

/// A stranger's place.
#[derive(Debug)]
pub(super) struct StrangerPlace {
    _permit: OwnedSemaphorePermit,
    _share: Share,
}

#[derive(Debug)]
struct Share {
    source: IpAddr,
    sources: Arc<Mutex<BTreeMap<IpAddr, u32>>>,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            hosts: Arc::new(Semaphore::new(HOSTS_MAX)),
            strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
            sources: Arc::default(),
        }
    }

    /// Gives a new connection a place, or none.
    pub(super) fn stranger(&self, source: IpAddr) -> Option<StrangerPlace> {
        let permit = Arc::clone(&self.strangers).try_acquire_owned().ok()?;
        let source = network(source);
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sources.entry(source).or_insert(0);
        if *count >= STRANGERS_PER_SOURCE_MAX {
            return None;
        }
        *count += 1;
        Some(StrangerPlace {
            _permit: permit,
            _share: Share {
                source,
                sources: Arc::clone(&self.sources),
            },
        })
    }

    /// Gives a host a place, or none.
    pub(super) fn host(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.hosts).try_acquire_owned().ok()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = sources.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
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
        assert!(gate.host().is_some());
    }
}
