//! The kept checkpoints: notes one after another, a blank line after each.
//!
//! `verify` holds every one of them against the segments, so that an older
//! head that was not a prefix of the newest is found.

/// Bytes after which the history is begun anew; the file before it is kept
/// too. Two files of 1 MiB hold some 7 000 checkpoints.
pub const HISTORY_BYTES_MAX: u64 = 1024 * 1024;

/// A history taken apart: where each note begins, and its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History<'a> {
    /// The whole notes with their offsets, oldest first.
    pub notes: Vec<(usize, &'a [u8])>,
    /// Where a note begins that was not written to its end.
    pub torn: Option<usize>,
}

impl<'a> History<'a> {
    /// Takes a history apart. Whether the pieces are notes is for
    /// [`crate::Checkpoint::open`] to say.
    #[must_use]
    pub fn split(bytes: &'a [u8]) -> Self {
        let mut history = Self::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            let begin = bytes.len().saturating_sub(rest.len());
            let Some((note, after)) = split_one(rest) else {
                history.torn = Some(begin);
                break;
            };
            history.notes.push((begin, note));
            rest = after;
        }
        history
    }
}

/// Returns what is appended for one note.
#[must_use]
pub fn entry(note: &str) -> String {
    format!("{note}\n")
}

/// Splits off text, blank line and signatures, and drops the blank line after.
fn split_one(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let blank = |from: usize| {
        let found = bytes.get(from..)?.windows(2).position(|pair| pair == b"\n\n")?;
        found.checked_add(from)
    };
    let text = blank(0)?;
    let signatures = blank(text.checked_add(2)?)?;
    let (note, after) = bytes.split_at_checked(signatures.checked_add(1)?)?;
    Some((note, after.strip_prefix(b"\n")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_torn_note_is_told_from_whole_ones() {
        let one = "a\n1\nr\n\n- s\n";
        let two = "a\n2\nr\n\n- s\n- t\n";
        let all = entry(one) + &entry(two);
        let history = History::split(all.as_bytes());
        let second = one.len() + 1;
        assert_eq!(history.notes, [(0, one.as_bytes()), (second, two.as_bytes())]);
        assert_eq!(history.torn, None);
        for cut in second + 1..all.len() {
            let history = History::split(&all.as_bytes()[..cut]);
            assert_eq!(history.notes.len(), 1, "{cut}");
            assert_eq!(history.torn, Some(second), "{cut}");
        }
        assert_eq!(History::split(b""), History::default());
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_whole(bytes in "[a\n]{0,60}") {
            let history = History::split(bytes.as_bytes());
            let mut joined = Vec::new();
            for (begin, note) in &history.notes {
                prop_assert_eq!(*begin, joined.len());
                joined.extend_from_slice(note);
                joined.push(b'\n');
            }
            if let Some(torn) = history.torn {
                prop_assert_eq!(torn, joined.len());
                joined.extend_from_slice(&bytes.as_bytes()[torn..]);
            }
            prop_assert_eq!(joined, bytes.as_bytes());
        }
    }
}
