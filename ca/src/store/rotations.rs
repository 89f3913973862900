//! Rotations of credentials: the newest of each name, with the values sealed to the hosts that need them.
//!
//! What is kept here opens nothing: only a host has the key to its value.

use std::collections::{BTreeMap, BTreeSet};

use ca_api::rotation::Phase;
use rusqlite::{Connection, Row, params};
use spiffe::id::{BotName, HostName};
use spiffe::time::Timestamp;

use super::{Store, StoreError, failed};

const READ: &str = "read the rotations of credentials";
const WRITE: &str = "write a rotation of a credential";

/// The newest rotation of one credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RotationRow {
    pub(crate) name: String,
    /// Names the rotation; a newer one has a higher number, whatever its name.
    pub(crate) rotation: u64,
    pub(crate) phase: Phase,
    pub(crate) canary: (BotName, HostName),
    pub(crate) fingerprint: String,
    pub(crate) actor: String,
    pub(crate) reason: String,
    pub(crate) started: Timestamp,
    pub(crate) changed: Timestamp,
    /// When a value of this name was in use on all hosts the last time.
    pub(crate) rotated: Option<Timestamp>,
    /// The sealed value by host.
    pub(crate) values: BTreeMap<HostName, Vec<u8>>,
}

impl Store {
    /// Reads the newest rotation of each name.
    pub(crate) async fn rotations(&self) -> Result<Vec<RotationRow>, StoreError> {
        self.run(read_all).await
    }

    /// Writes a rotation in the place of the one before of its name, and gives it its number. Forgets those of names that
    /// are not in `known`.
    pub(crate) async fn begin_rotation(
        &self,
        row: RotationRow,
        known: BTreeSet<String>,
    ) -> Result<RotationRow, StoreError> {
        self.run(move |db| {
            for name in names(db)?.difference(&known) {
                forget(db, name)?;
            }
            let row = RotationRow {
                rotation: next_number(db, row.started)?,
                ..row
            };
            forget(db, &row.name)?;
            write(db, &row)?;
            Ok(row)
        })
        .await
    }

    /// Notes how far a rotation has come.
    pub(crate) async fn advance_rotation(&self, row: RotationRow) -> Result<(), StoreError> {
        self.run(move |db| {
            db.execute(
                "UPDATE rotations SET phase = ?2, changed = ?3, rotated = ?4 WHERE name = ?1",
                params![
                    row.name,
                    row.phase.as_str(),
                    row.changed.unix_millis(),
                    row.rotated.map(Timestamp::unix_millis)
                ],
            )
            .map_err(failed(WRITE))
            .map(drop)
        })
        .await
    }
}

/// The second in which it begins, or the next after the one before: a store that was put back to what it was gives no number
/// again that hosts know for another rotation.
fn next_number(db: &Connection, now: Timestamp) -> Result<u64, StoreError> {
    db.query_row(
        "INSERT INTO meta (key, value) VALUES ('rotations', CAST(?1 AS TEXT))
         ON CONFLICT (key) DO UPDATE SET value = CAST(max(CAST(value AS INTEGER) + 1, ?1) AS TEXT)
         RETURNING CAST(value AS INTEGER)",
        [now.unix_seconds()],
        |row| row.get::<_, i64>(0),
    )
    .map(i64::cast_unsigned)
    .map_err(failed("number a rotation"))
}

fn forget(db: &Connection, name: &str) -> Result<(), StoreError> {
    for statement in [
        "DELETE FROM rotation_values WHERE name = ?1",
        "DELETE FROM rotations WHERE name = ?1",
    ] {
        db.execute(statement, [name]).map_err(failed(WRITE))?;
    }
    Ok(())
}

fn write(db: &Connection, row: &RotationRow) -> Result<(), StoreError> {
    let (bot, host) = &row.canary;
    db.execute(
        "INSERT INTO rotations (name, rotation, phase, canary_bot, canary_host, fingerprint, actor, reason, started, changed, rotated)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            row.name,
            row.rotation.cast_signed(),
            row.phase.as_str(),
            bot.as_str(),
            host.as_str(),
            row.fingerprint,
            row.actor,
            row.reason,
            row.started.unix_millis(),
            row.changed.unix_millis(),
            row.rotated.map(Timestamp::unix_millis),
        ],
    )
    .map_err(failed(WRITE))?;
    for (host, sealed) in &row.values {
        db.execute(
            "INSERT INTO rotation_values (name, host, sealed) VALUES (?1, ?2, ?3)",
            params![row.name, host.as_str(), sealed],
        )
        .map_err(failed(WRITE))?;
    }
    Ok(())
}

fn names(db: &Connection) -> Result<BTreeSet<String>, StoreError> {
    let mut statement = db.prepare_cached("SELECT name FROM rotations").map_err(failed(READ))?;
    let rows = statement.query_map([], |row| row.get(0)).map_err(failed(READ))?;
    rows.collect::<Result<_, _>>().map_err(failed(READ))
}

fn read_all(db: &Connection) -> Result<Vec<RotationRow>, StoreError> {
    let mut statement = db
        .prepare_cached(
            "SELECT name, rotation, phase, canary_bot, canary_host, fingerprint, actor, reason, started, changed, rotated
             FROM rotations",
        )
        .map_err(failed(READ))?;
    let rows = statement.query_map([], read).map_err(failed(READ))?;
    let rows = rows.collect::<Result<Vec<_>, _>>().map_err(failed(READ))?;
    let whole = rows.into_iter().map(|row| {
        let values = values(db, &row.name)?;
        row.check(values)
    });
    whole.collect()
}

fn values(db: &Connection, name: &str) -> Result<BTreeMap<HostName, Vec<u8>>, StoreError> {
    let mut statement = db
        .prepare_cached("SELECT host, sealed FROM rotation_values WHERE name = ?1")
        .map_err(failed(READ))?;
    let rows = statement
        .query_map([name], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))
        .map_err(failed(READ))?;
    let rows = rows.collect::<Result<Vec<_>, _>>().map_err(failed(READ))?;
    let checked = rows.into_iter().map(|(host, sealed)| {
        let host = HostName::parse(&host).map_err(|_invalid| corrupt(host.clone()))?;
        Ok((host, sealed))
    });
    checked.collect()
}

fn corrupt(value: String) -> StoreError {
    StoreError::Corrupt { operation: READ, value }
}

struct RawRotation {
    name: String,
    rotation: i64,
    phase: String,
    canary: (String, String),
    fingerprint: String,
    actor: String,
    reason: String,
    started: i64,
    changed: i64,
    rotated: Option<i64>,
}

fn read(row: &Row<'_>) -> rusqlite::Result<RawRotation> {
    Ok(RawRotation {
        name: row.get(0)?,
        rotation: row.get(1)?,
        phase: row.get(2)?,
        canary: (row.get(3)?, row.get(4)?),
        fingerprint: row.get(5)?,
        actor: row.get(6)?,
        reason: row.get(7)?,
        started: row.get(8)?,
        changed: row.get(9)?,
        rotated: row.get(10)?,
    })
}

impl RawRotation {
    fn check(self, values: BTreeMap<HostName, Vec<u8>>) -> Result<RotationRow, StoreError> {
        let (bot, host) = &self.canary;
        let bot = BotName::parse(bot).map_err(|_invalid| corrupt(bot.clone()))?;
        let host = HostName::parse(host).map_err(|_invalid| corrupt(host.clone()))?;
        Ok(RotationRow {
            phase: Phase::from_word(&self.phase).ok_or_else(|| corrupt(self.phase.clone()))?,
            name: self.name,
            rotation: self.rotation.cast_unsigned(),
            canary: (bot, host),
            fingerprint: self.fingerprint,
            actor: self.actor,
            reason: self.reason,
            started: Timestamp::from_unix_millis(self.started),
            changed: Timestamp::from_unix_millis(self.changed),
            rotated: self.rotated.map(Timestamp::from_unix_millis),
            values,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, sealed: &[u8]) -> RotationRow {
        let host = HostName::parse("web-1").unwrap();
        RotationRow {
            name: name.to_owned(),
            rotation: 0,
            phase: Phase::Staged,
            canary: (BotName::parse("prod/support").unwrap(), host.clone()),
            fingerprint: "0011223344556677".to_owned(),
            actor: "root".to_owned(),
            reason: "quarterly".to_owned(),
            started: Timestamp::from_unix_seconds(100),
            changed: Timestamp::from_unix_seconds(100),
            rotated: None,
            values: BTreeMap::from([(host, sealed.to_vec())]),
        }
    }

    fn known(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[tokio::test]
    async fn the_newest_rotation_of_a_name_is_kept_and_numbers_never_come_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let (store, thread) = Store::open(&path).unwrap();
        let first = store.begin_rotation(row("a", b"1"), known(&["a"])).await.unwrap();
        let second = store.begin_rotation(row("a", b"2"), known(&["a"])).await.unwrap();
        let other = store.begin_rotation(row("b", b"3"), known(&["a", "b"])).await.unwrap();
        assert_eq!([first.rotation, second.rotation, other.rotation], [100, 101, 102]);
        let advanced = RotationRow {
            phase: Phase::Current,
            changed: Timestamp::from_unix_millis(5),
            rotated: Some(Timestamp::from_unix_millis(5)),
            ..second
        };
        store.advance_rotation(advanced.clone()).await.unwrap();
        drop(store);
        thread.join();
        let (store, _thread) = Store::open(&path).unwrap();
        assert_eq!(
            store.rotations().await.unwrap(),
            [advanced, other],
            "after a restart too"
        );
        let later = RotationRow {
            started: Timestamp::from_unix_seconds(7_000),
            ..row("c", b"4")
        };
        let third = store.begin_rotation(later, known(&["c"])).await.unwrap();
        assert_eq!(
            third.rotation, 7_000,
            "as it would be in a store that knows nothing of the others"
        );
        assert_eq!(store.rotations().await.unwrap(), [third]);
        let values = store.run(|db| {
            db.query_row("SELECT count(*) FROM rotation_values", [], |row| row.get::<_, i64>(0))
                .map_err(failed("count"))
        });
        assert_eq!(values.await.unwrap(), 1, "and so are their values");
    }
}
