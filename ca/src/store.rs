//! The state that outlives the process: SQLite, owned by one thread.
//!
//! One thread, because SQLite has one writer anyway and because that thread can
//! then commit the work of many callers at once: with `synchronous=FULL` a commit
//! costs an fsync, and sharing it is what lets one CA record thousands of
//! issuances per second durably. Each caller's work runs in a savepoint of its
//! own, so one failure undoes one caller's work only, and nobody is answered
//! before the commit.

mod heads;
mod hosts;
mod issuances;
mod jwts;
mod owner;
mod quarantines;
mod revisions;
mod rotations;
mod schema;
mod tokens;
mod watched;
mod witnessed;

use std::path::PathBuf;
use std::sync::Arc;

pub(crate) use heads::{Cosigned, HeadRow, ToldHead};
pub(crate) use hosts::{HostRow, HostRowState};
pub(crate) use issuances::{Issuance, Presented};
pub(crate) use jwts::{JwtKeyRow, JwtKeyRows, JwtRecord};
pub(crate) use owner::{Store, StoreThread};
pub(crate) use quarantines::QuarantineRows;
pub(crate) use revisions::{RevisionRow, RevisionSummary};
pub(crate) use rotations::RotationRow;
pub(crate) use schema::{Authority, Meta};
pub(crate) use tokens::{Claim, TokenRefusal};
pub(crate) use witnessed::WitnessedRow;

/// Why the store could not do something.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The database file could not be opened or set up.
    #[error("open database {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// The owner thread could not be started.
    #[error("start the thread that owns the database")]
    Thread {
        /// Why.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The database was written by a newer version.
    #[error("the database has schema {found}, this version knows up to {known}; use the version that wrote it")]
    NewerSchema {
        /// What the file has.
        found: u32,
        /// What this version has.
        known: u32,
    },
    /// `ca init` has not been run.
    #[error("the database holds no CA; run `botmesh ca init` first")]
    NotInitialised,
    /// One statement failed.
    #[error("{operation}")]
    Query {
        /// What was being done.
        operation: &'static str,
        /// Why.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// A stored value breaks its own rules: the file was changed by something else.
    #[error("{operation}: the stored value {value:?} is invalid")]
    Corrupt {
        /// What was being done.
        operation: &'static str,
        /// The value.
        value: String,
    },
    /// The commit failed; nothing of the batch was kept.
    #[error("commit")]
    Commit {
        /// Why.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// The queue is full: more work is waiting than the disk can take.
    #[error("the store is overloaded")]
    Overloaded,
    /// The owner thread has ended.
    #[error("the store is closed")]
    Closed,
}

/// Gives a failed statement its operation.
fn failed(operation: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |source| StoreError::Query {
        operation,
        source: Arc::new(source),
    }
}
