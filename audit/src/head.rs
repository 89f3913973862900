//! The newest head of a ledger on disk, with what can be proven under it.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::hash::Hash;
use crate::key::{KeyError, VerifierKey};
use crate::ledger::{CHECKPOINT, StoredTree, VKEY, read_file};
use crate::note::NOTE_BYTES_MAX;
use crate::proof::{Subtree, consistency, inclusion};

/// The newest checkpoint of a ledger, and the key that signed it.
#[derive(Clone, Debug)]
pub struct Head {
    dir: PathBuf,
    key: VerifierKey,
    note: String,
    checkpoint: Checkpoint,
}

/// Why the head of a ledger, or a proof under it, cannot be read.
#[derive(Debug, Error)]
pub enum HeadError {
    /// A file of the ledger cannot be read.
    #[error("read {path}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The ledger's own key is none.
    #[error("the ledger's {VKEY} holds no verifier key")]
    Key {
        /// What is wrong.
        #[source]
        source: KeyError,
    },
    /// There is no checkpoint, or none of the ledger's key.
    #[error("the ledger has no checkpoint of its own")]
    Checkpoint {
        /// What is wrong.
        #[source]
        source: CheckpointError,
    },
    /// A tile is missing, or is not as long as it must be.
    #[error("the ledger's hashes of level {level} at {place} are missing: `botmesh audit verify` says more")]
    NoHash {
        /// The height of the subtree.
        level: u32,
        /// Its place.
        place: u64,
    },
}

impl Head {
    /// Reads the newest checkpoint of the ledger in `dir`.
    ///
    /// # Errors
    ///
    /// When there is none that the ledger's own key signed.
    pub fn read(dir: &Path) -> Result<Self, HeadError> {
        let text = read(&dir.join(VKEY))?;
        let key = VerifierKey::parse(text.trim_end()).map_err(|source| HeadError::Key { source })?;
        let note = read(&dir.join(CHECKPOINT))?;
        let checkpoint = Checkpoint::open(note.as_bytes(), &key).map_err(|source| HeadError::Checkpoint { source })?;
        Ok(Self {
            dir: dir.to_owned(),
            key,
            note,
            checkpoint,
        })
    }

    /// The ledger's key.
    #[must_use]
    pub const fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// The signed note.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }

    /// What it says.
    #[must_use]
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Proves that a record is under it; there is no proof of one that is not.
    ///
    /// # Errors
    ///
    /// When a tile cannot be read.
    pub fn includes(&self, index: u64) -> Result<Option<Vec<Hash>>, HeadError> {
        self.includes_under(index, self.checkpoint.size)
    }

    /// Proves that a record is among the first `size`, of which an older head tells; there is no proof where it is not, and none
    /// under a head that is newer than this one.
    ///
    /// # Errors
    ///
    /// When a tile cannot be read.
    pub fn includes_under(&self, index: u64, size: u64) -> Result<Option<Vec<Hash>>, HeadError> {
        if size > self.checkpoint.size {
            return Ok(None);
        }
        let stored = StoredTree::new(&self.dir, self.checkpoint.size);
        inclusion(index, size, |subtree| self.hash(&stored, subtree))
    }

    /// Proves that the ledger of `old` records is the beginning of it; there is no proof where it had more.
    ///
    /// # Errors
    ///
    /// When a tile cannot be read.
    pub fn extends(&self, old: u64) -> Result<Option<Vec<Hash>>, HeadError> {
        self.extends_under(old, self.checkpoint.size)
    }

    /// Proves that the ledger of `old` records is the beginning of that of `size`, of which an older head tells; there is no proof
    /// where it had more, and none under a head that is newer than this one.
    ///
    /// # Errors
    ///
    /// When a tile cannot be read.
    pub fn extends_under(&self, old: u64, size: u64) -> Result<Option<Vec<Hash>>, HeadError> {
        if size > self.checkpoint.size {
            return Ok(None);
        }
        let stored = StoredTree::new(&self.dir, self.checkpoint.size);
        consistency(old, size, |subtree| self.hash(&stored, subtree))
    }

    /// The hash of a record.
    pub(crate) fn leaf(&self, index: u64) -> Result<Hash, HeadError> {
        let stored = StoredTree::new(&self.dir, self.checkpoint.size);
        self.hash(&stored, Subtree { level: 0, index })
    }

    fn hash(&self, stored: &StoredTree<'_>, subtree: Subtree) -> Result<Hash, HeadError> {
        let found = stored.hash(subtree).map_err(|source| HeadError::Unreadable {
            path: self.dir.join("tile"),
            source,
        })?;
        found.ok_or(HeadError::NoHash {
            level: subtree.level,
            place: subtree.index,
        })
    }
}

fn read(path: &Path) -> Result<String, HeadError> {
    let unreadable = |source| HeadError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let found = read_file(path, NOTE_BYTES_MAX as u64).map_err(unreadable)?;
    let found = found.ok_or_else(|| unreadable(io::ErrorKind::NotFound.into()))?;
    String::from_utf8(found).map_err(|_not_text| unreadable(io::ErrorKind::InvalidData.into()))
}
