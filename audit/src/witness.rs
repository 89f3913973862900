//! What a witness of ledgers makes of a checkpoint that it is told (C2SP tlog-witness): it remembers the last one of each
//! ledger, and cosigns only one that all it saw before is a beginning of.

pub mod http;

use thiserror::Error;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::epoch;
use crate::hash::Hash;
use crate::key::{KeyName, VerifierKey};
use crate::proof::extends;

/// What a witness remembers of a ledger: the last head that it cosigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The epoch that the ledger is in.
    pub epoch: u32,
    /// The key of that epoch.
    pub key: VerifierKey,
    /// Records under the head.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

/// A head that a witness is told, with what is to prove it.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// The signed note.
    pub note: &'a [u8],
    /// The ledger's own key. A witness believes it of whoever it knows to keep that ledger, once in an epoch.
    pub key: &'a VerifierKey,
    /// The size that the proof begins at.
    pub old: u64,
    /// That the tree of that size is the beginning of this one.
    pub proof: &'a [Hash],
}

/// What a witness does not cosign, and what it says instead.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// The note is no checkpoint of the key.
    #[error("the note is no checkpoint of the ledger's key")]
    Checkpoint {
        /// What is wrong with it.
        #[source]
        source: CheckpointError,
    },
    /// The key is that of another ledger.
    #[error("the key is not one of the ledger")]
    OtherLedger,
    /// The ledger is in a later epoch.
    #[error("the ledger is in its epoch {epoch} already")]
    OldEpoch {
        /// Which.
        epoch: u32,
    },
    /// Within an epoch there is one key.
    #[error("the ledger has another key than it had in this epoch")]
    OtherKey,
    /// There are fewer records than were cosigned.
    #[error("the ledger has {size} records and had {seen}")]
    Shrunken {
        /// Records now.
        size: u64,
        /// Records that were cosigned.
        seen: u64,
    },
    /// The proof begins somewhere else. The ledger may try again.
    #[error("the proof does not begin at {seen} records, which were cosigned last")]
    Behind {
        /// Where it has to begin.
        seen: u64,
    },
    /// The records are not those that were cosigned.
    #[error("the first {seen} records are not those that were cosigned")]
    Forked {
        /// Records that were cosigned.
        seen: u64,
    },
}

impl Refused {
    /// The word for it in records and on the wire.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Checkpoint { .. } => "no_checkpoint",
            Self::OtherLedger => "other_ledger",
            Self::OldEpoch { .. } => "old_epoch",
            Self::OtherKey => "other_key",
            Self::Shrunken { .. } => "shrunken",
            Self::Behind { .. } => "behind",
            Self::Forked { .. } => "forked",
        }
    }
}

/// A head that may be cosigned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Judged {
    /// What the witness remembers from now on: before it cosigns, or it could be made to say two things.
    pub seen: Seen,
    /// The epoch before, which ended with this head; its own cosigned head stays true.
    pub ended: Option<u32>,
}

/// Says whether the head may be cosigned. `ledger` is the name of the first epoch, and `seen` what is remembered of it.
///
/// # Errors
///
/// Why it may not, and what the ledger can do.
pub fn judge(ledger: &KeyName, seen: Option<&Seen>, told: Told<'_>) -> Result<Judged, Refused> {
    let epoch = epoch::of(ledger, told.key.name()).ok_or(Refused::OtherLedger)?;
    let checkpoint = Checkpoint::open(told.note, told.key).map_err(|source| Refused::Checkpoint { source })?;
    let now = Seen {
        epoch,
        key: told.key.clone(),
        size: checkpoint.size,
        root: checkpoint.root,
    };
    let Some(seen) = seen else {
        return Ok(Judged { seen: now, ended: None });
    };
    if epoch < seen.epoch {
        return Err(Refused::OldEpoch { epoch: seen.epoch });
    }
    if epoch > seen.epoch {
        return Ok(Judged {
            seen: now,
            ended: Some(seen.epoch),
        });
    }
    if now.key != seen.key {
        return Err(Refused::OtherKey);
    }
    if now.size < seen.size {
        return Err(Refused::Shrunken {
            size: now.size,
            seen: seen.size,
        });
    }
    if told.old != seen.size {
        return Err(Refused::Behind { seen: seen.size });
    }
    if !extends((seen.size, &seen.root), (now.size, &now.root), told.proof) {
        return Err(Refused::Forked { seen: seen.size });
    }
    Ok(Judged { seen: now, ended: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SignerKey;
    use crate::proof::{Subtree, consistency};
    use crate::tree::Tree;

    fn ledger() -> KeyName {
        KeyName::parse("acme.internal/host/web-1").unwrap()
    }

    /// A ledger of which every record is its number and a letter.
    struct Log {
        key: SignerKey,
        letters: Vec<u8>,
    }

    impl Log {
        fn new(epoch: u32, letters: &[u8]) -> Self {
            let key = SignerKey::generate(epoch::name(&ledger(), epoch).unwrap()).unwrap();
            Self {
                key,
                letters: letters.to_vec(),
            }
        }

        fn root(&self, from: u64, to: u64) -> Hash {
            let mut tree = Tree::new();
            for index in from..to {
                let letter = self.letters[usize::try_from(index).unwrap()];
                tree.push(Hash::leaf(&[letter, u8::try_from(index).unwrap()]), &mut Vec::new());
            }
            tree.root()
        }

        fn tell(&self, seen: Option<&Seen>, old: u64, size: u64) -> Result<Judged, Refused> {
            let read = |Subtree { level, index }| Ok::<_, ()>(self.root(index << level, (index + 1) << level));
            let proof = consistency(old, size, read).unwrap().unwrap_or_default();
            let checkpoint = Checkpoint {
                origin: self.key.verifier().name().clone(),
                size,
                root: self.root(0, size),
            };
            let note = checkpoint.sign(&self.key).unwrap();
            let told = Told {
                note: note.as_bytes(),
                key: &self.key.verifier(),
                old,
                proof: &proof,
            };
            judge(&ledger(), seen, told)
        }
    }

    #[test]
    fn a_ledger_that_only_grows_is_cosigned() {
        let log = Log::new(1, b"aaaaaaaaaa");
        let first = log.tell(None, 0, 3).unwrap();
        assert_eq!((first.seen.size, first.ended), (3, None));
        let next = log.tell(Some(&first.seen), 3, 7).unwrap();
        assert_eq!((next.seen.size, next.ended), (7, None));
        let same = log.tell(Some(&next.seen), 7, 7).unwrap();
        assert_eq!(same.seen, next.seen);
    }

    #[test]
    fn a_fork_and_a_shrunken_ledger_are_not() {
        let log = Log::new(1, b"aaaaaaaaaa");
        let seen = log.tell(None, 0, 7).unwrap().seen;
        assert_eq!(log.tell(Some(&seen), 6, 6), Err(Refused::Shrunken { size: 6, seen: 7 }));
        let fork = Log {
            letters: b"aaaaaabaaa".to_vec(),
            ..Log::new(1, b"")
        };
        let fork = Log { key: log.key, ..fork };
        assert_eq!(fork.tell(Some(&seen), 7, 9), Err(Refused::Forked { seen: 7 }));
        assert_eq!(fork.tell(Some(&seen), 7, 7), Err(Refused::Forked { seen: 7 }));
        assert_eq!(fork.tell(Some(&seen), 6, 9), Err(Refused::Behind { seen: 7 }));
    }

    #[test]
    fn another_key_needs_a_new_epoch_and_no_epoch_comes_back() {
        let log = Log::new(1, b"aaaaaaaaaa");
        let seen = log.tell(None, 0, 7).unwrap().seen;
        let stranger = Log::new(1, b"aaaaaaaaaa");
        assert_eq!(stranger.tell(Some(&seen), 7, 9), Err(Refused::OtherKey));
        let begun = Log::new(2, b"bb").tell(Some(&seen), 0, 2).unwrap();
        assert_eq!((begun.seen.epoch, begun.seen.size, begun.ended), (2, 2, Some(1)));
        assert_eq!(log.tell(Some(&begun.seen), 7, 9), Err(Refused::OldEpoch { epoch: 2 }));
    }

    #[test]
    fn the_head_of_another_ledger_or_of_another_key_is_none() {
        let log = Log::new(1, b"aaa");
        let other = KeyName::parse("acme.internal/host/web-2").unwrap();
        let checkpoint = Checkpoint {
            origin: ledger(),
            size: 0,
            root: Hash::of_empty_tree(),
        };
        let note = checkpoint.sign(&log.key).unwrap();
        let told = |key| Told {
            note: note.as_bytes(),
            key,
            old: 0,
            proof: &[],
        };
        let key = log.key.verifier();
        assert_eq!(judge(&other, None, told(&key)), Err(Refused::OtherLedger));
        let stranger = Log::new(1, b"").key.verifier();
        let refused = judge(&ledger(), None, told(&stranger)).unwrap_err();
        assert!(matches!(refused, Refused::Checkpoint { .. }));
        assert_eq!(refused.as_str(), "no_checkpoint");
    }
}
