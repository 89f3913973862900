//! Why a ledger cannot be opened, and why a record cannot be written.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use crate::budget::ShareFull;
use crate::checkpoint::CheckpointError;
use crate::key::KeyError;
use crate::record::{CallId, RecordError};
use crate::segment::SegmentsError;

/// Why a record was not written. To the peer all of them are the one word
/// `ledger_unavailable`; the text is for the operator.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The record cannot be written as a line.
    #[error("the record cannot be written")]
    Record {
        /// What is wrong with it.
        #[source]
        source: RecordError,
    },
    /// A refusal was to be recorded as an allowed call.
    #[error("call {call} was refused; a refusal gives no receipt")]
    Refused {
        /// The call.
        call: CallId,
    },
    /// The budget has no room for it.
    #[error("the ledger has no room within its max_bytes")]
    Full {
        /// Whose share is used up.
        #[source]
        source: ShareFull,
    },
    /// The disk did not take it. The next record tries again.
    #[error("cannot append to the segment {path}")]
    Append {
        /// The segment.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A new segment cannot be begun. The next record tries again.
    #[error("cannot begin the segment {path}")]
    Begin {
        /// The segment.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The system could not bring records to the disk. After that nobody knows
    /// what is on it, so nothing is written until the ledger is opened again.
    #[error("the ledger could not be synced ({error}); restart to have it checked")]
    Sync {
        /// What the system said then.
        error: String,
    },
    /// More than a million records wait for a disk that does not sync.
    #[error("the disk is more than a million records behind")]
    Behind,
    /// The ledger was shut down.
    #[error("the ledger is shut down")]
    Closed,
    /// The records that were to be written together were not.
    #[error("the records of a turn were not written")]
    Turn {
        /// Why, for all of them.
        #[source]
        source: Arc<Self>,
    },
}

/// Why a ledger cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// A setting is out of bounds.
    #[error("ledger setting {setting} {rule}")]
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// Another process writes this ledger.
    #[error("another process has the ledger {dir} open")]
    Locked {
        /// The ledger's folder.
        dir: PathBuf,
    },
    /// A file cannot be read, written or made.
    #[error("cannot {doing} {path}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The background thread cannot be started.
    #[error("cannot start the ledger's thread")]
    Thread {
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The origin is no key name, or the key file holds no key.
    #[error("the ledger's key {path} cannot be used")]
    Key {
        /// The key file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: KeyError,
    },
    /// Others than the owner can read the key file.
    #[error("the key {path} must be readable by its owner only (mode 0600)")]
    KeyMode {
        /// The key file.
        path: PathBuf,
    },
    /// The key file is that of another ledger, or is lost.
    #[error(
        "the key {path} is not the one that signed this ledger (ledger.vkey); bring it back, or move the ledger's folder away to begin a new one"
    )]
    OtherKey {
        /// The key file.
        path: PathBuf,
    },
    /// The key file is that of a ledger with another name.
    #[error("the key {path} is that of the ledger {found}: is this the state of another host?")]
    OtherLedger {
        /// The key file.
        path: PathBuf,
        /// The name of the ledger.
        found: String,
    },
    /// A checkpoint is not one of this ledger.
    #[error("{path} holds no checkpoint of this ledger; run `botmesh audit verify`")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: CheckpointError,
    },
    /// There are records, and no checkpoint; or checkpoint and history do not
    /// belong together.
    #[error("the ledger {dir} has lost its checkpoint or its history; run `botmesh audit verify`")]
    CheckpointLost {
        /// The ledger's folder.
        dir: PathBuf,
    },
    /// The segments cannot be listed.
    #[error("the ledger's segments cannot be read")]
    Segments {
        /// What is wrong.
        #[source]
        source: SegmentsError,
    },
    /// Fewer records than the checkpoint or the tiles cover.
    #[error("the ledger has {records} records, but {covered} were sealed: it was cut; run `botmesh audit verify`")]
    Shrunken {
        /// Records found.
        records: u64,
        /// Records that checkpoint or tiles cover.
        covered: u64,
    },
    /// A sealed record is not what it was.
    #[error("record {index} ({path}, byte {offset}) is not what was sealed; run `botmesh audit verify`")]
    Altered {
        /// The record; the first of those that may be meant.
        index: u64,
        /// Its segment.
        path: PathBuf,
        /// Where it begins.
        offset: u64,
    },
    /// A record was pruned, and the tile with its hash is lost.
    #[error("record {index} was pruned, and the tile with its hash is lost; run `botmesh audit verify`")]
    HashLost {
        /// The record.
        index: u64,
    },
    /// A segment does not begin where the one before it ends.
    #[error("the segment {path} should begin with record {expected}; run `botmesh audit verify`")]
    Gap {
        /// The segment.
        path: PathBuf,
        /// The record that is next.
        expected: u64,
    },
}

impl OpenError {
    /// Says whether what is there is not what was left: lost, set back or changed. Such a ledger is put aside and a new
    /// epoch begun; whatever else is wrong is mended by others.
    pub(super) const fn is_damage(&self) -> bool {
        match self {
            Self::Key { .. }
            | Self::OtherKey { .. }
            | Self::Checkpoint { .. }
            | Self::CheckpointLost { .. }
            | Self::Segments {
                source: SegmentsError::Stray { .. },
            }
            | Self::Shrunken { .. }
            | Self::Altered { .. }
            | Self::HashLost { .. }
            | Self::Gap { .. } => true,
            Self::Setting { .. }
            | Self::Locked { .. }
            | Self::File { .. }
            | Self::Thread { .. }
            | Self::KeyMode { .. }
            | Self::OtherLedger { .. }
            | Self::Segments { .. } => false,
        }
    }

    /// The word for what was found, in the record of the new epoch.
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Key { .. } | Self::OtherKey { .. } => "key_lost",
            Self::Checkpoint { .. } | Self::CheckpointLost { .. } => "checkpoint_lost",
            Self::Segments { .. } => "stray_file",
            Self::Shrunken { .. } | Self::Gap { .. } => "shrunken",
            Self::Altered { .. } | Self::HashLost { .. } => "altered",
            Self::Setting { .. }
            | Self::Locked { .. }
            | Self::File { .. }
            | Self::Thread { .. }
            | Self::KeyMode { .. }
            | Self::OtherLedger { .. } => "not_opened",
        }
    }
}
