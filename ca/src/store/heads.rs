//! Heads of hosts' ledgers that were cosigned: the newest of each epoch.

use audit::note::{Note, NoteError};
use audit::witness::{Judged, Refused, Seen, Told, judge};
use audit::{CosignerKey, VerifierKey};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use spiffe::id::HostName;
use spiffe::time::Timestamp;

use std::sync::Arc;
use std::time::Duration;

use super::{Store, StoreError, failed};

const READ: &str = "read the heads of ledgers";

/// How often the heads of one ledger are cosigned at most: each is a record of the CA's own ledger, for good.
pub(crate) const COSIGN_EVERY: Duration = Duration::from_mins(1);

/// Epochs of one ledger that are remembered: the newest is what counts, the others are for whoever looks back.
const EPOCHS_MAX: u32 = 16;

/// A head that was cosigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeadRow {
    pub(crate) host: HostName,
    pub(crate) seen: Seen,
    /// The note with the cosignature.
    pub(crate) note: String,
    pub(crate) at: Timestamp,
}

/// A head that a host tells.
#[derive(Clone, Debug)]
pub(crate) struct ToldHead {
    pub(crate) host: HostName,
    /// The name of the first epoch of its ledger.
    pub(crate) ledger: audit::key::KeyName,
    pub(crate) key: VerifierKey,
    pub(crate) note: Note,
    pub(crate) old: u64,
    pub(crate) proof: Vec<audit::hash::Hash>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cosigned {
    /// It is cosigned, and that is kept. Says which epoch ended with it.
    Yes { row: HeadRow, ended: Option<u32> },
    /// It is the one that was cosigned last.
    Before(HeadRow),
    /// It may be, but not so soon after the last.
    TooSoon(HeadRow),
    /// It may not be.
    No { why: Refused, last: Option<HeadRow> },
}

impl Store {
    /// Cosigns a head, if it may be, and remembers it: both or neither, and one at a time.
    pub(crate) async fn cosign(
        &self,
        told: ToldHead,
        key: Arc<CosignerKey>,
        now: Timestamp,
    ) -> Result<Cosigned, StoreError> {
        self.run(move |db| cosign(db, &told, &key, now)).await
    }

    /// Reads the heads of all ledgers, or of one host's, by host and epoch.
    pub(crate) async fn heads(&self, host: Option<HostName>) -> Result<Vec<HeadRow>, StoreError> {
        self.run(move |db| {
            let mut statement = db
                .prepare_cached(
                    "SELECT host, epoch, vkey, size, root, note, cosigned FROM heads
                     WHERE ?1 IS NULL OR host = ?1 ORDER BY host, epoch",
                )
                .map_err(failed(READ))?;
            let host = host.as_ref().map(HostName::as_str);
            let rows = statement.query_map([host], read).map_err(failed(READ))?;
            let rows = rows.collect::<Result<Vec<_>, _>>().map_err(failed(READ))?;
            rows.into_iter().map(Raw::check).collect()
        })
        .await
    }
}

fn cosign(db: &Connection, told: &ToldHead, key: &CosignerKey, now: Timestamp) -> Result<Cosigned, StoreError> {
    let last = newest(db, &told.host)?;
    let seen = last.as_ref().map(|row| &row.seen);
    let note = told.note.to_string();
    let head = Told {
        note: note.as_bytes(),
        key: &told.key,
        old: told.old,
        proof: &told.proof,
    };
    let Judged { seen, ended } = match judge(&told.ledger, seen, head) {
        Ok(judged) => judged,
        Err(why) => return Ok(Cosigned::No { why, last }),
    };
    match last {
        Some(last) if last.seen == seen => return Ok(Cosigned::Before(last)),
        Some(last) if ended.is_none() && now < last.at + COSIGN_EVERY && last.at <= now => {
            return Ok(Cosigned::TooSoon(last));
        }
        Some(_) | None => {}
    }
    let cosigned = key
        .cosign(&told.note, now)
        .map_err(|error: NoteError| StoreError::Corrupt {
            operation: "cosign a head",
            value: error.to_string(),
        })?;
    let row = HeadRow {
        host: told.host.clone(),
        seen,
        note: cosigned.to_string(),
        at: now,
    };
    write(db, &row)?;
    Ok(Cosigned::Yes { row, ended })
}

fn newest(db: &Connection, host: &HostName) -> Result<Option<HeadRow>, StoreError> {
    db.query_row(
        "SELECT host, epoch, vkey, size, root, note, cosigned FROM heads WHERE host = ?1 ORDER BY epoch DESC LIMIT 1",
        [host.as_str()],
        read,
    )
    .optional()
    .map_err(failed(READ))?
    .map(Raw::check)
    .transpose()
}

fn write(db: &Connection, row: &HeadRow) -> Result<(), StoreError> {
    const WRITE: &str = "write the head of a ledger";
    db.execute(
        "INSERT INTO heads (host, epoch, vkey, size, root, note, cosigned) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (host, epoch) DO UPDATE SET
            vkey = excluded.vkey, size = excluded.size, root = excluded.root, note = excluded.note,
            cosigned = excluded.cosigned",
        params![
            row.host.as_str(),
            row.seen.epoch,
            row.seen.key.to_string(),
            row.seen.size.cast_signed(),
            row.seen.root.as_bytes().as_slice(),
            row.note,
            row.at.unix_millis(),
        ],
    )
    .map_err(failed(WRITE))?;
    db.execute(
        "DELETE FROM heads WHERE host = ?1 AND epoch <= ?2",
        params![row.host.as_str(), i64::from(row.seen.epoch) - i64::from(EPOCHS_MAX)],
    )
    .map_err(failed(WRITE))
    .map(drop)
}

/// A row as it is stored.
struct Raw {
    host: String,
    epoch: u32,
    vkey: String,
    size: i64,
    root: Vec<u8>,
    note: String,
    at: i64,
}

fn read(row: &Row<'_>) -> Result<Raw, rusqlite::Error> {
    Ok(Raw {
        host: row.get(0)?,
        epoch: row.get(1)?,
        vkey: row.get(2)?,
        size: row.get(3)?,
        root: row.get(4)?,
        note: row.get(5)?,
        at: row.get(6)?,
    })
}

impl Raw {
    fn check(self) -> Result<HeadRow, StoreError> {
        let corrupt = |value: &str| StoreError::Corrupt {
            operation: READ,
            value: value.to_owned(),
        };
        let root = <[u8; 32]>::try_from(self.root).map_err(|_length| corrupt("root"))?;
        Ok(HeadRow {
            host: HostName::parse(&self.host).map_err(|_invalid| corrupt(&self.host))?,
            seen: Seen {
                epoch: self.epoch,
                key: VerifierKey::parse(&self.vkey).map_err(|_invalid| corrupt(&self.vkey))?,
                size: self.size.cast_unsigned(),
                root: audit::hash::Hash::from_bytes(root),
            },
            note: self.note,
            at: Timestamp::from_unix_millis(self.at),
        })
    }
}
