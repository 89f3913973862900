//! How many peers there are at a time, and how many of one source that have not proved anything yet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spiffe::id::SpiffeId;

use crate::proxy::Bounds;

/// Counts connections and handshakes.
#[derive(Debug)]
pub(super) struct Peers {
    bounds: Bounds,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: usize,
    /// Handshakes under way; as many entries as there are such connections at most.
    handshakes: BTreeMap<IpAddr, usize>,
    /// Connections by whose SVID they were opened with; as many entries as there are connections at most.
    of_id: BTreeMap<SpiffeId, usize>,
}

/// One connection that was let in. Dropped, it leaves its place to another.
#[derive(Debug)]
pub(super) struct Admitted {
    peers: Arc<Peers>,
    source: Option<IpAddr>,
    id: Option<SpiffeId>,
}

impl Peers {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            counts: Mutex::default(),
        }
    }

    /// Lets a connection in, unless there are too many.
    pub(super) fn admit(self: &Arc<Self>, source: IpAddr) -> Option<Admitted> {
        let mut counts = self.counts();
        let handshakes = counts.handshakes.get(&source).copied().unwrap_or(0);
        if counts.connections >= self.bounds.peers || handshakes >= self.bounds.handshakes_of_source {
            return None;
        }
        counts.connections += 1;
        counts.handshakes.insert(source, handshakes + 1);
        drop(counts);
        Some(Admitted {
            peers: Arc::clone(self),
            source: Some(source),
            id: None,
        })
    }

    /// A thread that panicked while it held the lock left whole counts.
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admitted {
    /// Notes who the peer is; tells whether one more connection of that ID has a place.
    pub(super) fn is(&mut self, id: &SpiffeId) -> bool {
        let mut counts = self.peers.counts();
        let count = counts.of_id.entry(id.clone()).or_default();
        if *count >= self.peers.bounds.peers_of_id {
            return false;
        }
        *count += 1;
        drop(counts);
        self.id = Some(id.clone());
        true
    }

    /// Notes that the handshake is done.
    pub(super) fn shaken(&mut self) {
        let Some(source) = self.source.take() else {
            return;
        };
        let mut counts = self.peers.counts();
        if let Some(count) = counts.handshakes.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                counts.handshakes.remove(&source);
            }
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.shaken();
        let mut counts = self.peers.counts();
        counts.connections -= 1;
        if let Some(id) = self.id.take()
            && let Some(count) = counts.of_id.get_mut(&id)
        {
            *count -= 1;
            if *count == 0 {
                counts.of_id.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_a_bound_on_handshakes_and_all_have_one_on_connections() {
        let bounds = Bounds {
            peers: 3,
            handshakes_of_source: 2,
            ..Bounds::default()
        };
        let peers = Arc::new(Peers::new(bounds));
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut first = peers.admit(one).unwrap();
        let second = peers.admit(one).unwrap();
        assert!(peers.admit(one).is_none(), "two handshakes are under way");
        first.shaken();
        let third = peers.admit(one).unwrap();
        assert!(peers.admit(other).is_none(), "three connections are open");
        drop(third);
        assert!(peers.admit(other).is_some());
        drop((first, second));
        assert!(peers.counts().handshakes.is_empty());
        assert_eq!(peers.counts().connections, 0);
    }

    #[test]
    fn one_id_does_not_take_the_places_of_all() {
        let bounds = Bounds {
            peers_of_id: 2,
            ..Bounds::default()
        };
        let peers = Arc::new(Peers::new(bounds));
        let id = |text: &str| SpiffeId::parse(text).unwrap();
        let (greedy, other) = (id("spiffe://acme.internal/a"), id("spiffe://acme.internal/b"));
        let mut all: Vec<Admitted> = (0..4)
            .map(|n| peers.admit(IpAddr::from([10, 0, 0, n])).unwrap())
            .collect();
        assert!(all[0].is(&greedy) && all[1].is(&greedy));
        assert!(!all[2].is(&greedy), "from wherever it comes");
        assert!(all[3].is(&other));
        drop(all.remove(0));
        assert!(all[1].is(&greedy));
        drop(all);
        assert!(peers.counts().of_id.is_empty());
    }
}
