//! Says *did*: the record of every call, in a ledger that cannot be quietly changed.
//!
//! A record is one line of JSON; the exact bytes of the line are a leaf of an
//! RFC 6962 tree whose tiles and signed checkpoints lie beside the segments in
//! the C2SP tlog-tiles layout. What this crate promises:
//!
//! - No [`Receipt`] before the record is in the kernel's hands: what was
//!   answered survives `kill -9`. A power cut costs at most [`LedgerConfig::sync`].
//! - A checkpoint covers only what was synced before it.
//! - A full or broken disk is an error to the caller, never a lost record.
//! - A stranger cannot fill it, and a refused caller neither.
//! - [`verify()`] finds any changed byte with nothing but the public key.
//! - What is past its time is pruned, the ledger says so under its signature, and all that is kept can be proven as before.
//! - [`verify_cosigned`] finds what somebody did who has the ledger's key too: a
//!   witness ([`witness`]) has cosigned a head of it.
//!
//! Deliberately absent: sockets, async code, and any place for header values,
//! bodies or query values. The crate never decides about a call.
//!
//! [`record`], [`hash`], [`tile`], [`tree`], [`key`], [`note`], [`checkpoint`],
//! [`cosignature`], [`cursor`], [`epoch`], [`witness`], [`history`], [`budget`], [`mod@proof`]
//! and [`query::Filter`] are pure; [`ledger`], [`head`], [`verify()`], [`tail()`], [`follow`],
//! [`proof::prove`], [`reconcile`], [`query::run`] and [`query::Counts`] do the
//! reading and writing.

#![forbid(unsafe_code)]

pub mod budget;
pub mod checkpoint;
pub mod cosignature;
pub mod cursor;
pub mod epoch;
pub mod follow;
pub mod hash;
pub mod head;
pub mod history;
pub mod kept;
pub mod key;
pub mod ledger;
pub mod note;
pub mod proof;
mod pruned;
pub mod query;
pub mod reconcile;
pub mod record;
mod refusals;
pub mod segment;
mod strangers;
pub mod tail;
pub mod tile;
pub mod tree;
pub mod verify;
pub mod witness;

pub use checkpoint::Checkpoint;
pub use cosignature::{Cosigner, CosignerKey};
pub use cursor::{Cursor, CursorError};
pub use follow::{Follow, FollowError, Sealed};
pub use head::{Head, HeadError};
pub use key::VerifierKey;
pub use ledger::{
    Begun, Hold, HoldError, Ledger, LedgerConfig, LedgerError, OpenError, OpenReport, Receipt, Recorded, Retention,
    Staged, Stats, Under,
};
pub use record::{
    Actor, CallId, CallRecord, Callee, Direction, EndRecord, EventKind, EventRecord, HASHED_PATH, Hop, Party, Protocol,
    Record, Verdict,
};
pub use segment::kept_again;
pub use tail::{Entry, ReadError, Standing, Start, Tail, tail};
pub use verify::{
    CosignedHead, Finding, Notes, Quorum, Trust, VerifyFailure, VerifyReport, Witnessed, WitnessedBy, verify,
    verify_cosigned, verify_trusting,
};
