//! How an outside witness is asked over HTTP (C2SP tlog-witness, `add-checkpoint`), and what its answer means. The forms alone:
//! whoever has a connection carries them.

use std::time::Duration;

use spiffe::time::Timestamp;
use thiserror::Error;

use crate::checkpoint::Checkpoint;
use crate::cosignature::Cosigner;
use crate::hash::Hash;
use crate::note::{Note, NoteError};

/// What follows the witness's submission prefix.
pub const ADD_CHECKPOINT: &str = "add-checkpoint";

/// The type of an answer that holds a size.
pub const SIZE_TYPE: &str = "text/x.tlog.size";

/// The longest answer that is read: as many lines as a note may have signatures, each of a name and 76 bytes.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How far the time of a cosignature may be from the time at which it was asked for. A witness whose clock is that wrong says
/// nothing of when it saw a ledger.
pub const SKEW_MAX: Duration = Duration::from_mins(10);

/// What a witness was asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The note of the checkpoint.
    pub note: &'a Note,
    /// The checkpoint itself.
    pub checkpoint: &'a Checkpoint,
    /// The size that the proof begins at.
    pub old: u64,
    /// Who was asked.
    pub cosigner: &'a Cosigner,
}

/// An answer, as it came.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The status of HTTP.
    pub status: u16,
    /// The field `Content-Type`, where there is one.
    pub content_type: Option<&'a [u8]>,
    /// The body.
    pub body: &'a [u8],
}

/// A checkpoint that the witness cosigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosigned {
    /// The note with the cosignature of this witness, and with those that it had.
    pub note: Note,
    /// When it was cosigned.
    pub at: Timestamp,
}

/// Why there is no cosignature.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotCosigned {
    /// The witness has seen another size. It can be asked again with a proof that begins there.
    #[error("the witness stands at {size} records")]
    Behind {
        /// Which.
        size: u64,
    },
    /// The witness has cosigned more than the ledger has: it was set back.
    #[error("the witness has cosigned {size} records, and the ledger has {told}")]
    SetBack {
        /// Records that it says it has cosigned.
        size: u64,
        /// Records that it was told of.
        told: u64,
    },
    /// What the witness has cosigned is not the beginning of the ledger.
    #[error("the first {size} records are not those that the witness has cosigned")]
    Forked {
        /// Records that it says it has cosigned.
        size: u64,
    },
    /// The witness does not know the ledger: nobody has told it, or not of this epoch.
    #[error("the witness does not know the ledger {origin}")]
    UnknownLedger {
        /// Its name in this epoch.
        origin: String,
    },
    /// The witness knows the ledger by another key.
    #[error("the witness knows the ledger {origin} by another key")]
    OtherKey {
        /// Its name in this epoch.
        origin: String,
    },
    /// The witness is there and cannot do it now.
    #[error("the witness answers {status}")]
    Away {
        /// The status of HTTP.
        status: u16,
    },
    /// The answer is none that the protocol has.
    #[error("the witness answers {status}, which is none of its protocol, or in a form that is not")]
    Unreadable {
        /// The status of HTTP.
        status: u16,
    },
    /// No line of the answer is a true cosignature of the witness.
    #[error("the witness answers with no cosignature of its own")]
    NotSigned {
        /// What is wrong with them.
        #[source]
        source: NoteError,
    },
    /// The cosignature is of another time.
    #[error("the witness cosigned at {at}, which is not about now")]
    Clock {
        /// What it says.
        at: Timestamp,
    },
}

impl NotCosigned {
    /// The word for it in records, metrics and on the wire.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Behind { .. } => "behind",
            Self::SetBack { .. } => "set_back",
            Self::Forked { .. } => "forked",
            Self::UnknownLedger { .. } => "unknown_ledger",
            Self::OtherKey { .. } => "other_key",
            Self::Away { .. } => "away",
            Self::Unreadable { .. } => "unreadable",
            Self::NotSigned { .. } => "not_signed",
            Self::Clock { .. } => "clock",
        }
    }

    /// Says whether the witness saw another past of the ledger than it has.
    #[must_use]
    pub const fn is_other_past(&self) -> bool {
        matches!(self, Self::SetBack { .. } | Self::Forked { .. })
    }
}

/// Writes the body of the question. `proof` has at most as many hashes as a proof may, which is as many as a witness takes.
#[must_use]
pub fn question(old: u64, proof: &[Hash], note: &Note) -> String {
    use base64::Engine as _;
    let mut text = format!("old {old}\n");
    for hash in proof {
        text.push_str(&base64::engine::general_purpose::STANDARD.encode(hash.as_bytes()));
        text.push('\n');
    }
    format!("{text}\n{note}")
}

/// Says what the answer means.
///
/// # Errors
///
/// Why the checkpoint is not cosigned.
pub fn read(asked: Asked<'_>, answer: Answer<'_>, now: Timestamp) -> Result<Cosigned, NotCosigned> {
    let status = answer.status;
    let origin = || asked.checkpoint.origin.to_string();
    if answer.body.len() > ANSWER_BYTES_MAX {
        return Err(NotCosigned::Unreadable { status });
    }
    match status {
        200 => cosigned(asked, answer.body, now),
        403 => Err(NotCosigned::OtherKey { origin: origin() }),
        404 => Err(NotCosigned::UnknownLedger { origin: origin() }),
        409 => Err(conflict(asked, answer)),
        // The proof was made of the tree under the checkpoint, so it is the beginning that is another one.
        422 => Err(NotCosigned::Forked { size: asked.old }),
        429 | 500..=599 => Err(NotCosigned::Away { status }),
        _ => Err(NotCosigned::Unreadable { status }),
    }
}

/// A witness that stands somewhere else says where; one that stands there and saw another root need not.
fn conflict(asked: Asked<'_>, answer: Answer<'_>) -> NotCosigned {
    let told = asked.checkpoint.size;
    match size(answer) {
        Some(size) if size > told => NotCosigned::SetBack { size, told },
        Some(size) if size != asked.old => NotCosigned::Behind { size },
        Some(size) => NotCosigned::Forked { size },
        None if asked.old == told => NotCosigned::Forked { size: told },
        None => NotCosigned::Unreadable { status: answer.status },
    }
}

fn size(answer: Answer<'_>) -> Option<u64> {
    let kind = answer.content_type?.split(|byte| *byte == b';').next()?;
    if !kind.trim_ascii().eq_ignore_ascii_case(SIZE_TYPE.as_bytes()) {
        return None;
    }
    let digits = std::str::from_utf8(answer.body).ok()?.strip_suffix('\n')?;
    let size: u64 = digits.parse().ok()?;
    (size.to_string() == digits).then_some(size)
}

/// Takes the lines of the witness that was asked, and no others.
fn cosigned(asked: Asked<'_>, body: &[u8], now: Timestamp) -> Result<Cosigned, NotCosigned> {
    let unreadable = || NotCosigned::Unreadable { status: 200 };
    let lines = std::str::from_utf8(body).map_err(|_not_text| unreadable())?;
    // Read as the signatures of the note: the form is the same (C2SP tlog-witness, "add-checkpoint").
    let answered = format!("{}\n{lines}", asked.note.text());
    let answered = Note::parse(answered.as_bytes()).map_err(|_no_lines| unreadable())?;
    let not_signed = |source| NotCosigned::NotSigned { source };
    // Text with a blank line in it would have moved where the signatures begin.
    if answered.text() != asked.note.text() {
        return Err(unreadable());
    }
    let (at, line) = asked.cosigner.newest(&answered).map_err(not_signed)?;
    let apart = at.duration_since(now).max(now.duration_since(at));
    if apart > SKEW_MAX {
        return Err(NotCosigned::Clock { at });
    }
    let mut note = asked.note.clone();
    asked.cosigner.replace(&mut note, line.to_vec()).map_err(not_signed)?;
    Ok(Cosigned { note, at })
}

#[cfg(test)]
mod tests;
