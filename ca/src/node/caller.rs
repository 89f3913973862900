//! Which host a connection acts for, asked again for every call.

use std::net::IpAddr;

use spiffe::id::HostName;
use spiffe::time::Timestamp;
use tonic::Status;

use super::Peer;
use crate::Digest;
use crate::alerts::AlertKind;
use crate::authority::sha256;
use crate::core::Core;
use crate::refusals::HostRefusal;
use crate::store::HostRowState;

/// A host that may act now.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) host: HostName,
    /// Where it acts from.
    pub(super) source: IpAddr,
    /// SHA-256 of the key that it acts with.
    pub(super) key: Digest,
    /// When its node SVID ends.
    pub(super) not_after: Timestamp,
}

impl Core {
    /// Names the host of a connection. The chain and the trust domain were verified
    /// in the handshake; what is asked here can change while a connection lives.
    pub(super) fn caller(&self, peer: &Peer) -> Result<Caller, Status> {
        let refused = || Status::permission_denied("this call needs the valid node SVID of a host that is not evicted");
        let source = peer.address.ip().to_canonical();
        let (Some(leaf), Some(host)) = (&peer.leaf, peer.host()) else {
            let reason = if peer.leaf.is_none() {
                "no_certificate"
            } else {
                "not_a_host"
            };
            self.journal.stranger(source, reason);
            return Err(refused());
        };
        let caller = Caller {
            host,
            source,
            key: sha256(leaf.spki()),
            not_after: leaf.not_after(),
        };
        if self.now() >= leaf.not_after() {
            self.host_refused(&caller.host, source, HostRefusal::SvidExpired, "");
            return Err(refused());
        }
        if !self.holds(&caller) {
            self.key_refused(&caller.host, source);
            return Err(refused());
        }
        Ok(caller)
    }

    /// Whether the host is still not evicted and still acts with that key.
    pub(super) fn holds(&self, caller: &Caller) -> bool {
        self.world
            .hosts()
            .get(&caller.host)
            .is_some_and(|view| view.row.holds(&caller.key))
    }

    /// Records that somebody proved to hold a key of a host which it may not act with.
    pub(super) fn key_refused(&self, host: &HostName, source: IpAddr) {
        match self.world.hosts().get(host).map(|view| view.row.state) {
            None => self.host_refused(host, source, HostRefusal::UnknownHost, ""),
            Some(HostRowState::Evicted) => self.host_refused(host, source, HostRefusal::Evicted, ""),
            Some(HostRowState::Joined) => {
                self.host_refused(host, source, HostRefusal::OldKey, "");
                self.alert(host, AlertKind::OldKey, vec![source]);
            }
        }
    }

    /// Records that somebody asked for a path that the node API does not have.
    pub(super) fn unknown_rpc(&self, peer: &Peer, path: &str) {
        let source = peer.address.ip();
        match peer.host() {
            Some(host) => self.host_refused(&host, source, HostRefusal::UnknownRpc, path),
            None => self.journal.stranger(source, HostRefusal::UnknownRpc.as_str()),
        }
    }
}
