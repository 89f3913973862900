//! What is kept of a segment that was pruned: a head, then the lines that are kept, each behind its index.
//!
//! ```text
//! {"first":0,"end":1200,"began":"2026-11-05T10:00:00Z","newest":"2026-11-05T23:10:00Z","freed":[510233,0,0]}
//! 17 {"kind":"quarantined",…}
//! ```
//!
//! `cut -d' ' -f2- | jq` reads it. The hash of the whole file is in the record that tells of the pruning.

use serde::{Deserialize, Serialize};
use spiffe::time::Timestamp;

use crate::record::RECORD_BYTES_MAX;

/// Digits of the longest index, and the space behind it.
const INDEX_BYTES: usize = 21;

/// Longest line of such a file.
pub(super) const LINE_BYTES_MAX: usize = RECORD_BYTES_MAX + INDEX_BYTES;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeptHead {
    /// Index of the first record that the segment had.
    pub first: u64,
    /// Index behind the last one.
    pub end: u64,
    /// When the segment was begun.
    pub began: Timestamp,
    /// Time of the newest record that is kept and may be pruned later.
    pub newest: Option<Timestamp>,
    /// Bytes that the budget got back: calls, refusals, strangers.
    pub freed: [u64; 3],
}

impl KeptHead {
    /// Reads the first line; none if it is another one.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let head: Self = serde_json::from_slice(line).ok()?;
        (head.first < head.end).then_some(head)
    }
}

/// Writes a line that is kept, with its newline.
pub(crate) fn line_of(index: u64, record: &[u8]) -> Vec<u8> {
    [format!("{index} ").as_bytes(), record, b"\n"].concat()
}

/// Reads the index of a line that [`line_of`] wrote, and leaves the record in it.
pub(super) fn take_index(line: &mut Vec<u8>) -> Option<u64> {
    let space = line.iter().take(INDEX_BYTES).position(|byte| *byte == b' ')?;
    let text = std::str::from_utf8(line.get(..space)?).ok()?;
    let index: u64 = text.parse().ok()?;
    if index.to_string() != text {
        return None;
    }
    line.drain(..=space);
    Some(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_line_reads_back(index: u64, record in "[^\n]{0,40}") {
            let mut line = line_of(index, record.as_bytes());
            prop_assert_eq!(line.pop(), Some(b'\n'));
            prop_assert_eq!(take_index(&mut line), Some(index));
            prop_assert_eq!(line, record.as_bytes());
        }

        #[test]
        fn no_line_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut line = bytes.clone();
            if let Some(index) = take_index(&mut line) {
                prop_assert_eq!(line_of(index, &line), [&bytes[..], b"\n"].concat());
            }
            if let Some(head) = KeptHead::parse(&bytes) {
                prop_assert!(head.first < head.end);
            }
        }
    }

    proptest! {
        #[test]
        fn every_file_reads_back(records in proptest::collection::btree_map(5..90_u64, "[^\n]{0,40}", 0..9), cut in 0..400_usize) {
            let head = r#"{"first":5,"end":90,"began":"2026-11-05T10:00:00.000Z","newest":null,"freed":[1,2,3]}"#;
            let mut file = [head.as_bytes(), b"\n"].concat();
            file.extend(records.iter().flat_map(|(index, record)| line_of(*index, record.as_bytes())));
            prop_assert_eq!(crate::kept_again(&file), Some(file.clone()));
            // Of one that ends earlier, whole lines are what it is.
            let cut = &file[..cut.min(file.len())];
            let whole = cut.len() > head.len() && cut.ends_with(b"\n");
            prop_assert_eq!(crate::kept_again(cut), whole.then(|| cut.to_vec()));
        }
    }

    #[test]
    fn lines_out_of_order_or_of_other_segments_are_none() {
        let head = r#"{"first":5,"end":9,"began":"2026-11-05T10:00:00.000Z","newest":null,"freed":[1,2,3]}"#;
        let file = |lines: &str| crate::kept_again(format!("{head}\n{lines}").as_bytes()).is_some();
        assert!(file("") && file("5 a\n") && file("5 a\n8 b\n"));
        for lines in ["4 a\n", "9 a\n", "6 a\n6 b\n", "6 a\n5 b\n", "a\n", "6 a"] {
            assert!(!file(lines), "{lines:?}");
        }
    }

    #[test]
    fn other_spellings_of_an_index_are_none() {
        for text in ["", "1", " 1", "01 {}", "+1 {}", "18446744073709551616 {}", "1\t{}"] {
            assert_eq!(take_index(&mut text.as_bytes().to_vec()), None, "{text}");
        }
        assert_eq!(
            KeptHead::parse(br#"{"first":5,"end":5,"began":"2026-11-05T10:00:00Z","newest":null,"freed":[0,0,0]}"#),
            None
        );
    }
}
