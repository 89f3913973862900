//! Which host a connection acts for, asked again for every call.

use spiffe::id::{HostName, IdKind};
use spiffe::time::Timestamp;
use tonic::Status;

use super::Peer;
use crate::Digest;
use crate::authority::sha256;
use crate::core::Core;

/// A host that may act now.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) host: HostName,
    /// SHA-256 of the key that it acts with.
    pub(super) key: Digest,
    /// When its node SVID ends.
    pub(super) not_after: Timestamp,
}

impl Core {
    /// Names the host of a connection. The chain and the trust domain were verified
    /// in the handshake; what is asked here can change while a connection lives.
    pub(super) fn caller(&self, peer: &Peer) -> Result<Caller, Status> {
        let refuse = |reason: &'static str| {
            self.journal.stranger(peer.address.ip(), reason);
            Err(Status::permission_denied(
                "this call needs the valid node SVID of a host that is not evicted",
            ))
        };
        let Some(leaf) = &peer.leaf else {
            return refuse("no_certificate");
        };
        let IdKind::Host(host) = leaf.id().kind() else {
            return refuse("not_a_host");
        };
        if self.now() >= leaf.not_after() {
            return refuse("expired");
        }
        let caller = Caller {
            host,
            key: sha256(leaf.spki()),
            not_after: leaf.not_after(),
        };
        if !self.holds(&caller) {
            return refuse("evicted_or_old_key");
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
}
