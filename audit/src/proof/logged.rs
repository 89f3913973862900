//! A record with all that proves it, in one text (C2SP tlog-proof): for somebody who has neither the ledger nor a server.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use spiffe::time::Timestamp;
use thiserror::Error;

use super::{PROOF_HASHES_MAX, includes};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::hash::Hash;
use crate::head::{Head, HeadError};
use crate::kept;
use crate::key::VerifierKey;
use crate::note::{NOTE_BYTES_MAX, Note, NoteError};
use crate::record::RECORD_BYTES_MAX;
use crate::tail::{ReadError, Start, tail};
use crate::verify::Quorum;

/// The first line.
const VERSION: &str = "c2sp.org/tlog-proof@v1";

/// The longest proof that is read: a note, a record in Base64 and the hashes, with room to spare.
pub const PROOF_BYTES_MAX: usize = NOTE_BYTES_MAX + 2 * RECORD_BYTES_MAX + 64 * PROOF_HASHES_MAX;

/// One record, where it is in its ledger, and what proves that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedRecord {
    /// Its index.
    pub index: u64,
    /// The bytes of its line, without the newline. A proof that others made may be without them.
    pub record: Option<Vec<u8>>,
    /// From the leaf's sibling up.
    pub hashes: Vec<Hash>,
    /// The note of the checkpoint that the hashes lead to.
    pub checkpoint: String,
}

/// Why a text is no proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProofFormError {
    /// It is too long.
    #[error("a proof has at most {PROOF_BYTES_MAX} bytes")]
    TooLong,
    /// It begins with another line.
    #[error("a proof begins with the line {VERSION:?}")]
    Version,
    /// No blank line ends it, or nothing is behind that.
    #[error("a proof ends with a blank line and a checkpoint")]
    NoCheckpoint,
    /// A line is not what stands at its place.
    #[error("line {line} is not {wanted}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What stands there.
        wanted: &'static str,
    },
}

/// Why a proof proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotProven {
    /// Its checkpoint is none of the ledger's.
    #[error("its checkpoint is none that the key signed")]
    Checkpoint {
        /// What is wrong.
        #[source]
        source: CheckpointError,
    },
    /// A signature in the name of a witness is false.
    #[error("its checkpoint has a false signature")]
    Witness {
        /// What is wrong.
        #[source]
        source: NoteError,
    },
    /// Fewer witnesses than must have cosigned its checkpoint have.
    #[error("{found} of the witnesses that were named have cosigned its checkpoint, and {required} must have")]
    TooFewWitnesses {
        /// How many have.
        found: usize,
        /// How many must have.
        required: usize,
    },
    /// It does not hold the record.
    #[error("it does not hold the record that it is about")]
    NoRecord,
    /// The record is another one, or at another place.
    #[error("the record is not number {index} of those under the checkpoint")]
    NotIncluded {
        /// The number.
        index: u64,
    },
}

/// Why there is no proof of a record.
#[derive(Debug, Error)]
pub enum ProveError {
    /// The head of the ledger, or a tile, cannot be read.
    #[error("read the head of the ledger")]
    Head {
        /// Why.
        #[source]
        source: HeadError,
    },
    /// The records cannot be read.
    #[error("read the records")]
    Records {
        /// Why.
        #[source]
        source: ReadError,
    },
    /// No checkpoint covers the record.
    #[error("no checkpoint covers record {index}: the newest is over {covered}; try again in some seconds")]
    NotCovered {
        /// The record.
        index: u64,
        /// Records under the newest checkpoint.
        covered: u64,
    },
    /// The record is not there.
    #[error("record {index} is not in the ledger")]
    NoRecord {
        /// The record.
        index: u64,
    },
    /// It was pruned: that it was there can be proven to whoever has it, and nobody here has.
    #[error("record {index} was pruned: the ledger has its hash, and not the record")]
    Pruned {
        /// The record.
        index: u64,
    },
    /// What was read does not fit together.
    #[error("record {index} is not the one under the checkpoint: `botmesh audit verify` says more")]
    Altered {
        /// The record.
        index: u64,
    },
}

/// Makes the proof of the record `index` of the ledger in `dir`: under the newest of the checkpoints that the most have cosigned,
/// of those that are kept beside the ledger and cover the record; where there is none, under the newest checkpoint. What is made
/// was checked.
///
/// # Errors
///
/// When the ledger cannot be read, no checkpoint covers the record, or the record is not the one that was sealed.
pub fn prove(dir: &Path, index: u64) -> Result<LoggedRecord, ProveError> {
    let unread = |source| ProveError::Head { source };
    let head = Head::read(dir).map_err(unread)?;
    let covered = head.checkpoint().size;
    if index >= covered {
        return Err(ProveError::NotCovered { index, covered });
    }
    let record = record_of(dir, index)?;
    let mut under = cosigned(dir, head.key());
    under.push((covered, head.note().to_owned()));
    for (size, checkpoint) in under {
        let Some(hashes) = head.includes_under(index, size).map_err(unread)? else {
            continue;
        };
        let logged = LoggedRecord {
            index,
            hashes,
            record: Some(record.clone()),
            checkpoint,
        };
        // A kept head that is not of what is there now, because the ledger was set back, proves nothing.
        if logged.verify(head.key()).is_ok() {
            return Ok(logged);
        }
    }
    Err(ProveError::Altered { index })
}

/// The heads that are kept beside the ledger, each with all cosignatures that it has: those with the most of them first, and of
/// these the newest.
fn cosigned(dir: &Path, key: &VerifierKey) -> Vec<(u64, String)> {
    let mut heads: Vec<(u64, Note)> = Vec::new();
    for (_file, bytes) in kept::notes(dir).unwrap_or_default() {
        let (Ok(checkpoint), Ok(note)) = (Checkpoint::open(&bytes, key), Note::parse(&bytes)) else {
            continue;
        };
        match heads.iter_mut().find(|(_, known)| known.text() == note.text()) {
            Some((_, known)) => known.merge(&note),
            None => heads.push((checkpoint.size, note)),
        }
    }
    heads.sort_by_key(|(size, note)| std::cmp::Reverse((note.signatures(), *size)));
    heads.into_iter().map(|(size, note)| (size, note.to_string())).collect()
}

fn record_of(dir: &Path, index: u64) -> Result<Vec<u8>, ProveError> {
    let unread = |source| ProveError::Records { source };
    let mut tail = tail(dir, Start::Index(index)).map_err(unread)?;
    let entry = tail.next().transpose().map_err(unread)?;
    let found = entry.filter(|entry| entry.index == index);
    match found {
        Some(found) => Ok(found.line),
        // Something is there behind it, or would be.
        None if tail.next_index() > index => Err(ProveError::Pruned { index }),
        None => Err(ProveError::NoRecord { index }),
    }
}

impl LoggedRecord {
    /// Reads a proof. Nothing is said about its truth.
    ///
    /// # Errors
    ///
    /// When the bytes are not of that form, with the line.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofFormError> {
        if bytes.len() > PROOF_BYTES_MAX {
            return Err(ProofFormError::TooLong);
        }
        let text = std::str::from_utf8(bytes).map_err(|_not_text| ProofFormError::Version)?;
        let (first, _) = text.split_once('\n').ok_or(ProofFormError::Version)?;
        if first != VERSION {
            return Err(ProofFormError::Version);
        }
        let (head, checkpoint) = text.split_once("\n\n").ok_or(ProofFormError::NoCheckpoint)?;
        let mut lines = (1..).zip(head.split('\n')).skip(1).peekable();
        let extra = lines.next_if(|(_, line)| line.starts_with("extra "));
        let record = extra
            .map(|(line, text)| {
                let base64 = text.strip_prefix("extra ").unwrap_or_default();
                let record = BASE64.decode(base64).ok().filter(|record| !record.is_empty());
                record.ok_or(ProofFormError::Line {
                    line,
                    wanted: "`extra` and Base64",
                })
            })
            .transpose()?;
        let index = lines.next().and_then(|(_, line)| {
            let digits = line.strip_prefix("index ")?;
            let index: u64 = digits.parse().ok()?;
            (index.to_string() == digits).then_some(index)
        });
        let index = index.ok_or(ProofFormError::Line {
            line: if record.is_some() { 3 } else { 2 },
            wanted: "`index` and a number",
        })?;
        let hashes = lines.map(|(line, text)| hash(text).ok_or(ProofFormError::Line { line, wanted: "a hash" }));
        let hashes: Vec<Hash> = hashes.collect::<Result<_, _>>()?;
        if hashes.len() > PROOF_HASHES_MAX {
            return Err(ProofFormError::TooLong);
        }
        Ok(Self {
            index,
            record,
            hashes,
            checkpoint: checkpoint.to_owned(),
        })
    }

    /// Says when each of the witnesses cosigned the checkpoint.
    ///
    /// # Errors
    ///
    /// When the checkpoint is no note, there is a false signature in the name of one, or fewer have than must have.
    pub fn witnessed(&self, quorum: Quorum<'_>) -> Result<Vec<Option<Timestamp>>, NotProven> {
        let note = Note::parse(self.checkpoint.as_bytes());
        let times = note.and_then(|note| quorum.times(&note));
        let times = times.map_err(|source| NotProven::Witness { source })?;
        let (found, required) = (times.iter().flatten().count(), quorum.require);
        if found < required || required == 0 {
            return Err(NotProven::TooFewWitnesses { found, required });
        }
        Ok(times)
    }

    /// Says which checkpoint of the key's ledger the record is under.
    ///
    /// # Errors
    ///
    /// When it is under none.
    pub fn verify(&self, key: &VerifierKey) -> Result<Checkpoint, NotProven> {
        let checkpoint = Checkpoint::open(self.checkpoint.as_bytes(), key);
        let checkpoint = checkpoint.map_err(|source| NotProven::Checkpoint { source })?;
        let leaf = Hash::leaf(self.record.as_deref().ok_or(NotProven::NoRecord)?);
        if includes(&checkpoint.root, checkpoint.size, self.index, &leaf, &self.hashes) {
            Ok(checkpoint)
        } else {
            Err(NotProven::NotIncluded { index: self.index })
        }
    }
}

fn hash(line: &str) -> Option<Hash> {
    let bytes = BASE64.decode(line).ok()?;
    bytes.try_into().ok().map(Hash::from_bytes)
}

impl fmt::Display for LoggedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{VERSION}")?;
        if let Some(record) = &self.record {
            writeln!(f, "extra {}", BASE64.encode(record))?;
        }
        writeln!(f, "index {}", self.index)?;
        for hash in &self.hashes {
            writeln!(f, "{}", BASE64.encode(hash.as_bytes()))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::{KeyName, SignerKey};

    fn logged(record: &[u8]) -> (LoggedRecord, VerifierKey) {
        let key = SignerKey::generate(KeyName::parse("acme.internal/host/web-1").unwrap()).unwrap();
        let other = Hash::leaf(b"other");
        let checkpoint = Checkpoint {
            origin: key.verifier().name().clone(),
            size: 2,
            root: Hash::node(&other, &Hash::leaf(record)),
        };
        let logged = LoggedRecord {
            index: 1,
            record: Some(record.to_vec()),
            hashes: vec![other],
            checkpoint: checkpoint.sign(&key).unwrap(),
        };
        (logged, key.verifier())
    }

    #[test]
    fn a_proof_reads_back_and_proves_its_record() {
        let (proof, key) = logged(b"{}");
        let text = proof.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..3], ["c2sp.org/tlog-proof@v1", "extra e30=", "index 1"]);
        assert_eq!(lines[3].len(), 44);
        assert_eq!(lines[4..7], ["", "acme.internal/host/web-1", "2"]);
        let read = LoggedRecord::parse(text.as_bytes()).unwrap();
        assert_eq!(read, proof);
        assert_eq!(read.verify(&key).unwrap().size, 2);
    }

    #[test]
    fn another_record_place_hash_or_key_proves_nothing() {
        let (proof, key) = logged(b"{}");
        let moved = LoggedRecord {
            index: 0,
            ..proof.clone()
        };
        assert_eq!(moved.verify(&key), Err(NotProven::NotIncluded { index: 0 }));
        let other = LoggedRecord {
            record: Some(b"{ }".to_vec()),
            ..proof.clone()
        };
        assert_eq!(other.verify(&key), Err(NotProven::NotIncluded { index: 1 }));
        let without = LoggedRecord {
            record: None,
            ..proof.clone()
        };
        assert_eq!(without.verify(&key), Err(NotProven::NoRecord));
        let (_, stranger) = logged(b"{}");
        assert!(matches!(proof.verify(&stranger), Err(NotProven::Checkpoint { .. })));
    }

    #[test]
    fn other_forms_are_refused_with_the_line() {
        let hash = BASE64.encode([0; 32]);
        let line = |line, wanted| Err(ProofFormError::Line { line, wanted });
        let index = "`index` and a number";
        for (text, error) in [
            (String::new(), Err(ProofFormError::Version)),
            (
                "c2sp.org/tlog-proof@v2\nindex 1\n\nx".into(),
                Err(ProofFormError::Version),
            ),
            (format!("{VERSION}\nindex 1\n"), Err(ProofFormError::NoCheckpoint)),
            (format!("{VERSION}\n\nx"), line(2, index)),
            (format!("{VERSION}\nindex 01\n\nx"), line(2, index)),
            (format!("{VERSION}\nindex +1\n\nx"), line(2, index)),
            (
                format!("{VERSION}\nextra !\nindex 1\n\nx"),
                line(2, "`extra` and Base64"),
            ),
            (
                format!("{VERSION}\nextra \nindex 1\n\nx"),
                line(2, "`extra` and Base64"),
            ),
            (format!("{VERSION}\nextra YQ==\n{hash}\n\nx"), line(3, index)),
            (format!("{VERSION}\nindex 1\n{hash}\nAAAA\n\nx"), line(4, "a hash")),
            (
                format!("{VERSION}\nindex 1\n{}\nx", format!("{hash}\n").repeat(64)),
                Err(ProofFormError::TooLong),
            ),
            ("a".repeat(PROOF_BYTES_MAX + 1), Err(ProofFormError::TooLong)),
        ] {
            assert_eq!(LoggedRecord::parse(text.as_bytes()), error, "{text:.80}");
        }
        let most = format!("{VERSION}\nindex 1\n{}\nx", format!("{hash}\n").repeat(63));
        assert_eq!(LoggedRecord::parse(most.as_bytes()).unwrap().hashes.len(), 63);
    }

    proptest! {
        #[test]
        fn every_proof_reads_back(
            index: u64,
            record in prop::option::of(prop::collection::vec(any::<u8>(), 1..40)),
            hashes in prop::collection::vec(any::<[u8; 32]>(), 0..5),
        ) {
            let hashes = hashes.into_iter().map(Hash::from_bytes).collect();
            let proof = LoggedRecord { index, record, hashes, checkpoint: "o\n1\nr\n\n- s\n".to_owned() };
            prop_assert_eq!(LoggedRecord::parse(proof.to_string().as_bytes()).unwrap(), proof);
        }

        #[test]
        fn what_is_read_is_written_alike(lines in "(index [0-9]{1,3}\n)?(extra [A-Z=]{0,4}\n)?(index [0-9]{0,3}\n)?([A-Z=]{44}\n)?\nx\n") {
            let text = format!("{VERSION}\n{lines}");
            if let Ok(proof) = LoggedRecord::parse(text.as_bytes()) {
                prop_assert_eq!(proof.to_string(), text);
            }
        }
    }
}
