//! A legal hold: nothing is pruned as long as it lasts.
//!
//! It is a file in the ledger's folder, so that it outlives the process, and a record, so that it can be proven. Where the
//! file cannot be read the ledger is held all the same: what is deleted does not come back.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use spiffe::time::Timestamp;
use thiserror::Error;

use super::{Ledger, LedgerError, disk};
use crate::record::{EventKind, EventRecord};

/// The file.
pub(super) const HOLD: &str = "hold";

/// Longest file.
const HOLD_BYTES_MAX: u64 = 16 * 1024;

/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 1024;

/// A legal hold of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Why, for people.
    pub reason: String,
    /// Who began it.
    pub by: String,
    /// When.
    pub since: Timestamp,
    /// When it ends by itself.
    #[serde(default)]
    pub until: Option<Timestamp>,
}

/// Why a ledger cannot be held or let go.
#[derive(Debug, Error)]
pub enum HoldError {
    /// The reason is empty or too long.
    #[error("a hold has a reason of 1 to 1024 bytes")]
    Reason,
    /// It would have ended already.
    #[error("a hold ends in the future")]
    Until,
    /// There is no hold.
    #[error("the ledger is not held")]
    NotHeld,
    /// It could not be recorded, so it was not done.
    #[error("record it")]
    Record {
        /// Why.
        #[source]
        source: LedgerError,
    },
    /// Its file could not be written.
    #[error("keep it beside the ledger")]
    File {
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl Hold {
    /// Reads the hold of a ledger. A file that is none holds for ever.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        let unreadable = |why: String| Self {
            reason: format!("the file of a hold cannot be read: {why}"),
            by: "ledger".to_owned(),
            since: Timestamp::MIN,
            until: None,
        };
        match disk::read(&dir.join(HOLD), HOLD_BYTES_MAX) {
            Ok(None) => None,
            Ok(Some(bytes)) => {
                let read = serde_json::from_slice(&bytes);
                Some(read.unwrap_or_else(|error| unreadable(error.to_string())))
            }
            Err(error) => Some(unreadable(error.to_string())),
        }
    }

    /// Says whether it holds at this time.
    pub(super) fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// Removes the file, if there is one.
fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(HOLD)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => disk::sync_folder(dir),
    }
}

impl Ledger {
    /// Has the ledger prune nothing until it is let go, or until a time. One that is held already is held by the new words.
    ///
    /// # Errors
    ///
    /// When the reason or the time is out of bounds, or it can be neither recorded nor kept.
    pub fn hold(&self, reason: &str, until: Option<Timestamp>, by: &str) -> Result<Hold, HoldError> {
        let shared = &self.owner.shared;
        let since = shared.clock.now();
        if reason.is_empty() || reason.len() > REASON_BYTES_MAX {
            return Err(HoldError::Reason);
        }
        if until.is_some_and(|until| until <= since) {
            return Err(HoldError::Until);
        }
        let hold = Hold {
            reason: reason.to_owned(),
            by: by.to_owned(),
            since,
            until,
        };
        // One at a time, and never while something is deleted.
        let mut held = shared.held();
        let mut detail = vec![("reason".to_owned(), Value::from(reason))];
        detail.extend(until.map(|until| ("until".to_owned(), until.to_string().into())));
        self.record_hold(EventKind::Held, by, detail)?;
        let text = serde_json::to_vec(&hold).map_err(|error| HoldError::File { source: error.into() })?;
        // It holds from here on, also where the file cannot be written.
        *held = Some(hold.clone());
        let written = disk::replace_file(&shared.dir.join("hold.tmp"), &shared.dir.join(HOLD), &text);
        written.map_err(|source| HoldError::File { source })?;
        Ok(hold)
    }

    /// Ends a hold.
    ///
    /// # Errors
    ///
    /// When there is none, or the end can be neither recorded nor kept: then the hold lasts.
    pub fn release_hold(&self, by: &str) -> Result<(), HoldError> {
        let shared = &self.owner.shared;
        let mut held = shared.held();
        let Some(hold) = held.as_ref() else {
            return Err(HoldError::NotHeld);
        };
        let detail = vec![("reason".to_owned(), hold.reason.clone().into())];
        self.record_hold(EventKind::HoldReleased, by, detail)?;
        remove(&shared.dir).map_err(|source| HoldError::File { source })?;
        *held = None;
        Ok(())
    }

    /// The hold that the ledger is under.
    #[must_use]
    pub fn held(&self) -> Option<Hold> {
        let shared = &self.owner.shared;
        let now = shared.clock.now();
        shared.held().clone().filter(|hold| hold.holds(now))
    }

    fn record_hold(&self, kind: EventKind, by: &str, detail: Vec<(String, Value)>) -> Result<(), HoldError> {
        let record = EventRecord {
            kind,
            time: self.owner.shared.clock.now(),
            actor: by.to_owned(),
            subject: "ledger".to_owned(),
            detail: detail.into_iter().collect(),
        };
        let recorded = self.event(&record).map_err(|source| HoldError::Record { source });
        recorded.map(drop)
    }
}
