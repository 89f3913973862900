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
    /// The witnesses outside that the CA carries heads to.
    #[serde(default)]
    pub witnesses: Vec<LedgerWitness>,
    /// What witnesses have cosigned, by ledger, epoch and witness.
    #[serde(default)]
    pub witnessed: Vec<WitnessedHead>,
}

/// A witness outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerWitness {
    /// Its verifier key.
    pub vkey: String,
    /// Where it is asked.
    pub url: String,
    /// Since when it does not answer, or not with what could be used.
    pub away_since: Option<Timestamp>,
    /// Why.
    pub why: Option<String>,
}

/// The newest head of one epoch of a ledger that one witness cosigned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessedHead {
    /// Whose ledger; none where it is the CA's own.
    pub host: Option<HostName>,
    /// The name of its first epoch.
    pub ledger: String,
    /// The epoch.
    pub epoch: u32,
    /// The verifier key of the witness.
    pub witness: String,
    /// Records under the head.
    pub size: u64,
    /// When it was cosigned, as the witness says.
    pub cosigned: Timestamp,
    /// The note with the signature of the ledger and the cosignature of the witness.
    pub note: String,
}
