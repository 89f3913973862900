//! Verifying a ledger offline, with nothing but its folder and a public key.

mod cosigned;
mod heads;
mod quorum;
mod stored;
mod walk;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use spiffe::time::Timestamp;
use thiserror::Error;

use crate::checkpoint::CheckpointError;
use crate::key::KeyError;
use crate::note::NoteError;
use crate::segment::{self, SegmentsError};
use cosigned::CosignedHeads;
use heads::Heads;
use walk::Walk;

pub use cosigned::{CosignedHead, Notes, Trust, Witnessed};
pub use quorum::{Quorum, WitnessedBy};

/// What a ledger that verifies holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// Name of the ledger.
    pub origin: String,
    /// The public key that everything was checked with.
    pub key: String,
    /// Records in all segments, those that were pruned among them.
    pub records: u64,
    /// Records that the newest checkpoint covers: only those are proven.
    pub covered: u64,
    /// Records after it. A ledger that was shut down has none.
    pub not_covered: u64,
    /// Bytes after the last whole record; a crash leaves them, and opening the
    /// ledger moves them away.
    pub torn_bytes: u64,
    /// Checkpoints of the history that were found to be prefixes.
    pub checkpoints: u64,
    /// Segments read.
    pub segments: u64,
    /// The epoch that the ledger is in; it begins a new one where it is not what it was.
    pub epoch: u32,
    /// The newest head of this epoch that a witness cosigned, which the ledger begins with.
    pub cosigned: Option<CosignedHead>,
    /// What each of the witnesses that were asked about has cosigned.
    pub witnesses: Vec<WitnessedBy>,
    /// How many records enough of them have cosigned; nothing where none was asked about.
    pub witnessed: Option<u64>,
    /// Cosigned heads of earlier epochs that cover what is not here any more.
    pub set_back: u64,
    /// Records that the ledger pruned, and said so. Their hashes are there and proven; what they said is not.
    pub pruned: u64,
    /// Time of the newest of them.
    pub pruned_until: Option<Timestamp>,
}

/// The first thing that is wrong with a ledger, and where.
#[derive(Debug)]
pub struct VerifyFailure {
    /// The record, where one can be named.
    pub index: Option<u64>,
    /// The file.
    pub file: PathBuf,
    /// Offset in the file: of the record, the tile's hash or the checkpoint.
    pub offset: u64,
    /// What is wrong.
    pub what: Finding,
}

/// What can be wrong with a ledger.
#[derive(Debug, Error)]
pub enum Finding {
    /// The file cannot be read.
    #[error("the file cannot be read")]
    Unreadable {
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The text is no verifier key.
    #[error("this is no verifier key")]
    Key {
        /// What is wrong with it.
        #[source]
        source: KeyError,
    },
    /// The ledger's own key is not the one that was given.
    #[error("the ledger names another key than the one given")]
    OtherKey,
    /// A checkpoint is not signed by the key, or is none.
    #[error("this is no checkpoint of the ledger")]
    Checkpoint {
        /// What is wrong with it.
        #[source]
        source: CheckpointError,
    },
    /// There is no checkpoint, so nothing is proven.
    #[error("the ledger has no checkpoint, so nothing is proven")]
    NoCheckpoint,
    /// The history is torn, out of order, or does not lead to the checkpoint.
    #[error("the history of checkpoints does not lead to the newest one")]
    History,
    /// There is a file that is no part of a ledger.
    #[error("this file is no part of the ledger")]
    Stray,
    /// There are more segments than can be.
    #[error("there are more than a million segments")]
    TooManySegments,
    /// A segment does not begin with the record its name says.
    #[error("this segment should begin with record {expected}")]
    Gap {
        /// The record that is next.
        expected: u64,
    },
    /// The line is longer than 32 KiB or is not one JSON object.
    #[error("the line is not one JSON object of at most 32 KiB")]
    NotARecord,
    /// The record is not the one that was sealed.
    #[error("the record is not the one that was sealed")]
    Record,
    /// Records end before the checkpoint or the tiles do.
    #[error("the records end here, but {covered} were sealed")]
    Missing {
        /// Records that were sealed.
        covered: u64,
    },
    /// The tile's hash is not that of the records, which are as sealed.
    #[error("the hash in the tile is not that of the sealed records")]
    Tile,
    /// Records are gone of which the ledger does not say that it pruned them, or what is kept beside them is not what was.
    #[error("records from here to {last} are gone, and the ledger does not say that it pruned them and kept just this")]
    NotPruned {
        /// The last record of the segment.
        last: u64,
    },
    /// A record says that others were pruned, and the ledger's key has not signed that.
    #[error("this record tells of pruning, and the ledger has not signed it")]
    ForgedPruning,
    /// A tile that the checkpoint needs is not there.
    #[error("a tile under the checkpoint is missing")]
    TileMissing,
    /// A witness cosigned more than is there.
    #[error("the records end here, but {cosigned} were cosigned: the ledger was cut or set back")]
    CutOff {
        /// Records under the cosigned head.
        cosigned: u64,
    },
    /// A witness cosigned something else.
    #[error("this head was cosigned, and the ledger does not begin with what it covers: it was forked or exchanged")]
    NotAsCosigned,
    /// A head that is said to be cosigned is not.
    #[error("this head has no true cosignature of the witness")]
    NotCosigned {
        /// What is wrong.
        #[source]
        source: NoteError,
    },
    /// There is no head of this ledger among those that were cosigned.
    #[error("no head of this ledger is among those that were cosigned")]
    NoneCosigned,
    /// Fewer witnesses than must have cosigned a head of this epoch have.
    #[error(
        "{found} of the witnesses that were named have cosigned a head of this ledger in its epoch, and {required} must have"
    )]
    TooFewWitnesses {
        /// How many have.
        found: usize,
        /// How many must have.
        required: usize,
    },
    /// A head of a later epoch was cosigned.
    #[error("this head is of epoch {cosigned}, and the ledger is in epoch {own}: it was set back")]
    OldEpoch {
        /// The ledger's.
        own: u32,
        /// The head's.
        cosigned: u32,
    },
    /// An older checkpoint, signed, says something else than the newest.
    #[error("this checkpoint is not a prefix of the newest one: the ledger was forked")]
    NotAPrefix,
}

/// Verifies a ledger: every line, every hash, every tile, the newest
/// checkpoint and all kept ones before it. `key` is the verifier key to trust;
/// without one the ledger's own `ledger.vkey` is taken, which proves only that
/// nothing was changed by somebody who could not replace that file too.
///
/// Reads segments as a stream; a live ledger may be verified while it is
/// written.
///
/// # Errors
///
/// The first finding, with the record, the file and the byte.
pub fn verify(dir: &Path, key: Option<&str>) -> Result<VerifyReport, VerifyFailure> {
    verified(dir, key, Trust::default())
}

/// Verifies a ledger as [`verify`] does, and that it begins with what a witness has cosigned of it: so that nothing was cut
/// off or exchanged by somebody who has its key.
///
/// # Errors
///
/// As [`verify`], and the first cosigned head that the ledger does not begin with.
pub fn verify_cosigned(dir: &Path, key: Option<&str>, witnessed: Witnessed<'_>) -> Result<VerifyReport, VerifyFailure> {
    verified(dir, key, witnessed.into())
}

/// Verifies a ledger as [`verify`] does, and that it begins with what those whom an auditor believes have cosigned of it.
///
/// # Errors
///
/// As [`verify_cosigned`], and where fewer witnesses than the auditor wants have cosigned any of it.
pub fn verify_trusting(dir: &Path, key: Option<&str>, trust: Trust<'_>) -> Result<VerifyReport, VerifyFailure> {
    verified(dir, key, trust)
}

fn verified(dir: &Path, key: Option<&str>, trust: Trust<'_>) -> Result<VerifyReport, VerifyFailure> {
    let heads = Heads::read(dir, key)?;
    let cosigned = CosignedHeads::read(dir, &heads.key, trust)?;
    // Tiles are stored over records that are in the segments already, so what
    // the tiles cover now must be there when the segments are read after it.
    let tiled = stored::leaves_covered(dir)?;
    let segments = segment::list(dir).map_err(|error| VerifyFailure::of_segments(dir, error))?;
    let mut walk = Walk::new(dir, &heads, cosigned);
    walk.begin();
    for (place, segment) in segments.iter().enumerate() {
        walk.segment(segment, place.saturating_add(1) == segments.len())?;
    }
    walk.finish(tiled)
}

impl VerifyFailure {
    fn at(file: impl Into<PathBuf>, offset: u64, what: Finding) -> Self {
        Self {
            index: None,
            file: file.into(),
            offset,
            what,
        }
    }

    fn unreadable(file: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::at(file, 0, Finding::Unreadable { source })
    }

    const fn with_index(mut self, index: u64) -> Self {
        self.index = Some(index);
        self
    }

    fn of_segments(dir: &Path, error: SegmentsError) -> Self {
        match error {
            SegmentsError::List { path, source } => Self::unreadable(path, source),
            SegmentsError::Stray { path } => Self::at(path, 0, Finding::Stray),
            SegmentsError::TooMany { .. } => Self::at(dir, 0, Finding::TooManySegments),
        }
    }
}

impl fmt::Display for VerifyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(index) = self.index {
            write!(f, "record {index}, ")?;
        }
        write!(f, "{}, byte {}: {}", self.file.display(), self.offset, self.what)
    }
}

impl std::error::Error for VerifyFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.what.source()
    }
}
