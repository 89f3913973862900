//! Heads of ledgers that witnesses outside cosigned: the newest of each epoch and each witness.

use audit::Cosigner;
use audit::key::KeyName;
use rusqlite::{Connection, Row, params};
use spiffe::time::Timestamp;

use super::{Store, StoreError, failed};

const READ: &str = "read what witnesses have cosigned";

/// Epochs of one ledger that are remembered.
const EPOCHS_MAX: u32 = 16;

/// A head that a witness cosigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WitnessedRow {
    /// The name of the first epoch of its ledger.
    pub(crate) ledger: KeyName,
    pub(crate) epoch: u32,
    pub(crate) witness: Cosigner,
    /// Records under it.
    pub(crate) size: u64,
    /// The note with the cosignature.
    pub(crate) note: String,
    pub(crate) at: Timestamp,
}

impl Store {
    /// Reads what is kept of all ledgers, or of one, by ledger, epoch and witness.
    pub(crate) async fn witnessed(&self, ledger: Option<KeyName>) -> Result<Vec<WitnessedRow>, StoreError> {
        self.run(move |db| {
            let mut statement = db
                .prepare_cached(
                    "SELECT ledger, epoch, witness, size, note, cosigned FROM witnessed
                     WHERE ?1 IS NULL OR ledger = ?1 ORDER BY ledger, epoch, witness",
                )
                .map_err(failed(READ))?;
            let ledger = ledger.as_ref().map(KeyName::as_str);
            let rows = statement.query_map([ledger], read).map_err(failed(READ))?;
            let rows = rows.collect::<Result<Vec<_>, _>>().map_err(failed(READ))?;
            rows.into_iter().map(Raw::check).collect()
        })
        .await
    }

    /// Keeps a head in place of the one before, unless that covers more: answers may overtake each other.
    pub(crate) async fn keep_witnessed(&self, row: WitnessedRow) -> Result<(), StoreError> {
        self.run(move |db| write(db, &row)).await
    }
}

fn write(db: &Connection, row: &WitnessedRow) -> Result<(), StoreError> {
    const WRITE: &str = "write what a witness has cosigned";
    db.execute(
        "INSERT INTO witnessed (ledger, epoch, witness, size, note, cosigned) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (ledger, epoch, witness) DO UPDATE SET
            size = excluded.size, note = excluded.note, cosigned = excluded.cosigned
         WHERE excluded.size >= size",
        params![
            row.ledger.as_str(),
            row.epoch,
            row.witness.to_string(),
            row.size.cast_signed(),
            row.note,
            row.at.unix_millis(),
        ],
    )
    .map_err(failed(WRITE))?;
    db.execute(
        "DELETE FROM witnessed WHERE ledger = ?1 AND epoch <= ?2",
        params![row.ledger.as_str(), i64::from(row.epoch) - i64::from(EPOCHS_MAX)],
    )
    .map_err(failed(WRITE))
    .map(drop)
}

/// A row as it is stored.
struct Raw {
    ledger: String,
    epoch: u32,
    witness: String,
    size: i64,
    note: String,
    at: i64,
}

fn read(row: &Row<'_>) -> Result<Raw, rusqlite::Error> {
    Ok(Raw {
        ledger: row.get(0)?,
        epoch: row.get(1)?,
        witness: row.get(2)?,
        size: row.get(3)?,
        note: row.get(4)?,
        at: row.get(5)?,
    })
}

impl Raw {
    fn check(self) -> Result<WitnessedRow, StoreError> {
        let corrupt = |value: &str| StoreError::Corrupt {
            operation: READ,
            value: value.to_owned(),
        };
        Ok(WitnessedRow {
            ledger: KeyName::parse(&self.ledger).map_err(|_invalid| corrupt(&self.ledger))?,
            epoch: self.epoch,
            witness: Cosigner::parse(&self.witness).map_err(|_invalid| corrupt(&self.witness))?,
            size: self.size.cast_unsigned(),
            note: self.note,
            at: Timestamp::from_unix_millis(self.at),
        })
    }
}
