//! Heads of hosts' ledgers that the CA cosigned.

use serde::{Deserialize, Serialize};
use spiffe::id::HostName;
use spiffe::time::Timestamp;

/// The newest head of one epoch of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerHead {
    /// Whose ledger.
    pub host: HostName,
    /// The epoch, from 1. A ledger that lost records, or was set back, begins a new one.
    pub epoch: u32,
    /// Whether it is the newest one.
    pub current: bool,
    /// The ledger's verifier key in this epoch: NAME+ID+KEY (C2SP signed-note).
    pub vkey: String,
    /// Records under the head.
    pub size: u64,
    /// When it was cosigned.
    pub cosigned: Timestamp,
    /// The note with the signature of the ledger and the CA's cosignature (C2SP tlog-cosignature).
    pub note: String,
}

/// The heads, by host and epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerHeads {
    /// The verifier key of the cosignatures.
    pub cosigner: String,
    /// They.
    pub heads: Vec<LedgerHead>,
}
