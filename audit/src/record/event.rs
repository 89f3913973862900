//! Records of everything that is not a call.

use std::collections::BTreeMap;

use serde::Deserialize;
use spiffe::time::Timestamp;

use super::words;

/// Something that happened, other than a call.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventRecord {
    /// What happened.
    pub kind: EventKind,
    /// When.
    pub time: Timestamp,
    /// Who did it: `operator:root`, `host:web-1`, `proxy`, `ca`, `ledger`.
    pub actor: String,
    /// What it was done to: a SPIFFE ID, a host, a revision.
    pub subject: String,
    /// What else there is to say; never a secret.
    #[serde(default)]
    pub detail: BTreeMap<String, serde_json::Value>,
}

words! {
    /// What happened. The word is the record's `kind`.
    EventKind {
        /// A process opened its ledger and serves.
        Started = "started",
        /// A process ended in good order.
        Stopped = "stopped",
        /// The ledger cut a torn end off and kept it beside.
        Repaired = "repaired",
        /// The ledger pruned records that were past their time.
        Pruned = "pruned",
        /// A ledger that was put aside, or what a crash tore, was past its time and is gone.
        AsideRemoved = "aside_removed",
        /// An operator had the ledger prune nothing for the time being.
        Held = "held",
        /// An operator let it prune again.
        HoldReleased = "hold_released",
        /// A new epoch of a ledger began: what was there before was lost, set back or changed.
        EpochBegun = "epoch_begun",
        /// A head of a host's ledger was cosigned.
        CheckpointCosigned = "checkpoint_cosigned",
        /// A head of a host's ledger was not cosigned.
        CheckpointRefused = "checkpoint_refused",
        /// Something that an operator should look at.
        Alert = "alert",
        /// An SVID was issued.
        Issued = "issued",
        /// A JWT-SVID was signed.
        JwtIssued = "jwt_issued",
        /// An SVID was asked for and not issued.
        IssueRefused = "issue_refused",
        /// A proxy has a new SVID in use.
        SvidRenewed = "svid_renewed",
        /// A host proved itself and got its node SVID.
        Attested = "attested",
        /// A host did so for the first time.
        HostJoined = "host_joined",
        /// A host's name was freed and its access ended.
        HostEvicted = "host_evicted",
        /// A host's stream to the CA was opened.
        HostConnected = "host_connected",
        /// A host's stream to the CA ended.
        HostDisconnected = "host_disconnected",
        /// A host asked or said what it may not.
        HostRefused = "host_refused",
        /// A join token was made.
        TokenCreated = "token_created",
        /// A join token was refused.
        TokenRefused = "token_refused",
        /// A revision was made, or a proxy applied one.
        PolicyApplied = "policy_applied",
        /// A revision was refused.
        PolicyRefused = "policy_refused",
        /// An earlier revision was made current.
        Rollback = "rollback",
        /// An operator did something else.
        Operator = "operator",
        /// An operator started a bot.
        RunBound = "run_bound",
        /// A new trust bundle is in use.
        BundleChanged = "bundle_changed",
        /// A signing key was prepared.
        KeyPrepared = "key_prepared",
        /// A signing key was put in use.
        KeyActivated = "key_activated",
        /// A signing key was taken away in its time.
        KeyRetired = "key_retired",
        /// A signing key was tainted.
        KeyTainted = "key_tainted",
        /// A signing key was revoked.
        KeyRevoked = "key_revoked",
        /// A bot or host was quarantined.
        Quarantined = "quarantined",
        /// A quarantine was ended.
        Released = "released",
        /// The value of a credential was put on a host.
        CredentialPut = "credential_put",
        /// A new value of a credential was given to the hosts, or the rotation went on or ended.
        CredentialRotated = "credential_rotated",
        /// The value of a credential was exchanged for a token, or was not.
        CredentialToken = "credential_token",
        /// A lease of a credential was taken, renewed or given back, or was not.
        CredentialLease = "credential_lease",
        /// A bot had a statement of a session of its own with a database ended.
        DatabaseCancel = "database_cancel",
        /// A grant was given.
        Granted = "granted",
        /// A grant ended.
        GrantEnded = "grant_ended",
    }
}
