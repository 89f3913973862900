//! How far somebody has read a ledger, as one line of JSON that is kept between two readings.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::epoch::{self, EPOCH_MAX};
use crate::hash::Hash;
use crate::key::{KeyError, KeyName};

/// Longest text of a cursor, in bytes.
pub const CURSOR_BYTES_MAX: usize = 32 * 1024;

/// The form of the text.
const SCHEMA: &str = "botmesh/cursor/v1";

/// A place in a ledger: behind a record, which is named by its number and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The ledger, whatever its epoch.
    pub ledger: KeyName,
    /// The epoch that the record was written in.
    pub epoch: u32,
    /// The number of the record.
    pub record: u64,
    /// The hash of the record's leaf.
    pub hash: Hash,
    /// The first record that must not be missing: of those before it some may have been pruned before the reading began.
    pub whole_from: u64,
    /// What was asked of the records, in the reader's own words.
    pub filter: String,
}

/// Why a text is no cursor.
#[derive(Debug, Error)]
pub enum CursorError {
    /// It is longer than a cursor can be.
    #[error("it is longer than a cursor is")]
    TooLong,
    /// It is no JSON of this form.
    #[error("it is not the JSON of a cursor")]
    Form {
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// It is of another version.
    #[error("it is a cursor of the form {found:?}, and {SCHEMA} is what is read here")]
    Schema {
        /// The version.
        found: String,
    },
    /// The ledger's name is none.
    #[error("the ledger in it has no name")]
    Ledger {
        /// What is wrong.
        #[source]
        source: KeyError,
    },
    /// The epoch or the hash is none.
    #[error("its {key} is none")]
    Value {
        /// Which.
        key: &'static str,
    },
    /// It says what a cursor says, in other bytes than ours.
    #[error("it was written by somebody else: its bytes are not those that a cursor has")]
    NotOurs,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    schema: String,
    ledger: String,
    epoch: u32,
    record: u64,
    hash: String,
    whole_from: u64,
    filter: String,
}

impl Cursor {
    /// Reads a cursor, and nothing but the very bytes that one is written as.
    ///
    /// # Errors
    ///
    /// When there is anything else.
    pub fn parse(bytes: &[u8]) -> Result<Self, CursorError> {
        if bytes.len() > CURSOR_BYTES_MAX {
            return Err(CursorError::TooLong);
        }
        let text: Text = serde_json::from_slice(bytes).map_err(|source| CursorError::Form { source })?;
        if text.schema != SCHEMA {
            return Err(CursorError::Schema { found: text.schema });
        }
        let ledger = KeyName::parse(&text.ledger).map_err(|source| CursorError::Ledger { source })?;
        if epoch::split(&ledger).0 != ledger {
            return Err(CursorError::Value { key: "ledger" });
        }
        if !(1..=EPOCH_MAX).contains(&text.epoch) {
            return Err(CursorError::Value { key: "epoch" });
        }
        let cursor = Self {
            ledger,
            epoch: text.epoch,
            record: text.record,
            hash: Hash::from_hex(&text.hash).ok_or(CursorError::Value { key: "hash" })?,
            whole_from: text.whole_from,
            filter: text.filter,
        };
        if cursor.to_string().as_bytes() == bytes {
            Ok(cursor)
        } else {
            Err(CursorError::NotOurs)
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Text {
            schema: SCHEMA.to_owned(),
            ledger: self.ledger.to_string(),
            epoch: self.epoch,
            record: self.record,
            hash: self.hash.to_hex(),
            whole_from: self.whole_from,
            filter: self.filter.clone(),
        };
        let text = serde_json::to_string(&text).map_err(|_never| fmt::Error)?;
        writeln!(f, "{text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cursor() -> Cursor {
        Cursor {
            ledger: KeyName::parse("acme.internal/host/web-1").unwrap(),
            epoch: 2,
            record: 17,
            hash: Hash::leaf(b"x"),
            whole_from: 5,
            filter: "verdict=deny".to_owned(),
        }
    }

    #[test]
    fn a_cursor_is_one_line_of_json() {
        let text = cursor().to_string();
        assert!(
            text.starts_with(
                r#"{"schema":"botmesh/cursor/v1","ledger":"acme.internal/host/web-1","epoch":2,"record":17,"hash":""#
            ),
            "{text}"
        );
        assert!(
            text.ends_with("\",\"whole_from\":5,\"filter\":\"verdict=deny\"}\n"),
            "{text}"
        );
        assert_eq!(Cursor::parse(text.as_bytes()).unwrap(), cursor());
    }

    #[test]
    fn what_was_changed_in_any_place_is_no_cursor_or_another_one() {
        let text = cursor().to_string().into_bytes();
        for place in 0..text.len() {
            let mut changed = text.clone();
            changed[place] ^= 1;
            if let Ok(read) = Cursor::parse(&changed) {
                assert_ne!(read, cursor(), "byte {place}");
            }
            let cut = Cursor::parse(&text[..place]);
            assert!(cut.is_err(), "{place}: {cut:?}");
        }
    }

    #[test]
    fn other_texts_are_refused_and_told_apart() {
        let text = cursor().to_string();
        let told = |text: &str| Cursor::parse(text.as_bytes()).unwrap_err().to_string();
        for (from, to, wanted) in [
            ("cursor/v1", "cursor/v2", "of the form \"botmesh/cursor/v2\""),
            ("\"epoch\":2", "\"epoch\":0", "epoch"),
            ("\"epoch\":2", "\"epoch\":1000001", "epoch"),
            ("acme.internal/host/web-1", "", "no name"),
            ("acme.internal/host/web-1", "acme.internal/host/web-1/epoch/2", "ledger"),
            ("\"record\":17", "\"record\":17,\"more\":1", "not the JSON"),
            ("\"record\":17", "\"record\":-1", "not the JSON"),
            (",\"epoch\"", ", \"epoch\"", "somebody else"),
            ("}\n", "}", "somebody else"),
        ] {
            let told = told(&text.replace(from, to));
            assert!(told.contains(wanted), "{from} → {to}: {told}");
        }
        let upper = text.replace(&cursor().hash.to_hex(), &cursor().hash.to_hex().to_uppercase());
        assert!(told(&upper).contains("hash"), "{}", told(&upper));
        assert!(matches!(
            Cursor::parse(&vec![b' '; CURSOR_BYTES_MAX + 1]),
            Err(CursorError::TooLong)
        ));
    }

    proptest! {
        #[test]
        fn every_cursor_reads_back(
            ledger in "[a-z.]{1,20}(/[a-z0-9-]{1,9}){0,3}",
            epoch in 1..=EPOCH_MAX,
            record: u64,
            hash: [u8; 32],
            whole_from: u64,
            filter in "\\PC{0,60}",
        ) {
            let cursor = Cursor { ledger: KeyName::parse(&ledger).unwrap(), epoch, record, hash: Hash::from_bytes(hash), whole_from, filter };
            prop_assert_eq!(Cursor::parse(cursor.to_string().as_bytes()).unwrap(), cursor);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            if let Ok(cursor) = Cursor::parse(&bytes) {
                prop_assert_eq!(cursor.to_string().into_bytes(), bytes);
            }
        }
    }
}
