//! Quarantines, and SVIDs that an eviction made worthless.
//!
//! They live beside the mesh file: no revision of it touches them. Their list has a
//! counter of its own, which every change raises in the same transaction.

use std::collections::{BTreeMap, BTreeSet};

use ca_api::admin::{Quarantine, Quarantined};
use rusqlite::{Connection, Row, params};
use spiffe::id::{BotName, HostName, IdKind, SpiffeId};
use spiffe::time::Timestamp;

use super::{Store, StoreError, failed};

/// The most quarantines at a time. With names of the greatest length they fill less
/// than half of a message to a host.
pub(crate) const QUARANTINES_MAX: usize = 4096;

/// The most serial numbers in the list; with [`QUARANTINES_MAX`] they fit a message.
/// Where there are more, the bots that they are of are cut off whole: a host that was
/// taken over must not get an SVID out of the list by asking for many.
const SERIALS_MAX: u32 = 50_000;

/// Everything that is cut off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct QuarantineRows {
    /// The number of the list.
    pub(crate) revision: u64,
    pub(crate) quarantines: BTreeMap<Quarantined, Quarantine>,
    /// SVIDs of bots, by serial number: those that quarantined hosts hold, and those
    /// that evicted hosts held. None of them has ended.
    pub(crate) serials: Vec<String>,
    /// The bots of those SVIDs, where they are too many to be listed one by one.
    pub(crate) bots_of_serials: BTreeSet<BotName>,
}

/// SVIDs that are worth nothing although they have not ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Worthless {
    serials: Vec<String>,
    bots: BTreeSet<BotName>,
}

impl Store {
    /// Reads all.
    pub(crate) async fn quarantines(&self, now: Timestamp) -> Result<QuarantineRows, StoreError> {
        self.run(move |db| read_all(db, now)).await
    }

    /// Writes a quarantine. Of two about the same, the later end counts: asking twice
    /// never shortens one. `None` when there are too many.
    pub(crate) async fn put_quarantine(&self, quarantine: Quarantine) -> Result<Option<QuarantineRows>, StoreError> {
        self.run(move |db| {
            let now = quarantine.since;
            let before = read_all(db, now)?;
            if before.quarantines.len() >= QUARANTINES_MAX && !before.quarantines.contains_key(&quarantine.whom) {
                return Ok(None);
            }
            let (kind, name) = key(&quarantine.whom);
            let revision = raise(db)?;
            db.execute(
                "INSERT INTO quarantines (kind, name, reason, actor, since, until, epoch, revision)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'epoch'), ?7)
                 ON CONFLICT (kind, name) DO UPDATE SET reason = ?3, actor = ?4, epoch = excluded.epoch, revision = ?7,
                    until = CASE WHEN until IS NULL OR ?6 IS NULL THEN NULL ELSE max(until, ?6) END",
                params![
                    kind,
                    name,
                    quarantine.reason,
                    quarantine.actor,
                    now.unix_millis(),
                    quarantine.until.map(Timestamp::unix_millis),
                    revision.cast_signed(),
                ],
            )
            .map_err(failed("write a quarantine"))?;
            read_all(db, now).map(Some)
        })
        .await
    }

    /// Ends a quarantine; `None` when there is none.
    pub(crate) async fn end_quarantine(
        &self,
        whom: Quarantined,
        now: Timestamp,
    ) -> Result<Option<QuarantineRows>, StoreError> {
        self.run(move |db| {
            let (kind, name) = key(&whom);
            let ended = db
                .execute("DELETE FROM quarantines WHERE kind = ?1 AND name = ?2", [kind, name])
                .map_err(failed("end a quarantine"))?;
            if ended == 0 {
                return Ok(None);
            }
            raise(db)?;
            read_all(db, now).map(Some)
        })
        .await
    }

    /// Ends those whose time is over; `None` when there are none.
    pub(crate) async fn end_quarantines(&self, now: Timestamp) -> Result<Option<QuarantineRows>, StoreError> {
        self.run(move |db| {
            let ended = db
                .execute("DELETE FROM quarantines WHERE until <= ?1", [now.unix_millis()])
                .map_err(failed("end quarantines whose time is over"))?;
            if ended == 0 {
                return Ok(None);
            }
            raise(db)?;
            read_all(db, now).map(Some)
        })
        .await
    }
}

/// Makes the SVIDs of a host's bots worthless, for the host is evicted.
pub(super) fn revoke_of(db: &Connection, host: &HostName, now: Timestamp) -> Result<(), StoreError> {
    const OPERATION: &str = "revoke the SVIDs of an evicted host";
    let revision = raise(db)?;
    db.execute("DELETE FROM revoked WHERE not_after <= ?1", [now.unix_millis()])
        .map_err(failed(OPERATION))?;
    db.execute(
        "INSERT OR IGNORE INTO revoked (serial, host, not_after, epoch, revision)
         SELECT serial, host, not_after, (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'epoch'), ?3
         FROM issuances WHERE host = ?1 AND not_after > ?2",
        params![host.as_str(), now.unix_millis(), revision.cast_signed()],
    )
    .map_err(failed(OPERATION))?;
    Ok(())
}

fn raise(db: &Connection) -> Result<u64, StoreError> {
    db.query_row(
        "UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'quarantines' RETURNING CAST(value AS INTEGER)",
        [],
        |row| row.get::<_, i64>(0),
    )
    .map(i64::cast_unsigned)
    .map_err(failed("number the list of quarantines"))
}

fn read_all(db: &Connection, now: Timestamp) -> Result<QuarantineRows, StoreError> {
    const OPERATION: &str = "read the quarantines";
    let revision = db
        .query_row(
            "SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'quarantines'",
            [],
            |row| row.get::<_, i64>(0),
        )
        .map_err(failed(OPERATION))?;
    let mut statement = db
        .prepare_cached("SELECT kind, name, reason, actor, since, until FROM quarantines")
        .map_err(failed(OPERATION))?;
    let rows = statement.query_map([], read).map_err(failed(OPERATION))?;
    let rows = rows.collect::<Result<Vec<_>, _>>().map_err(failed(OPERATION))?;
    let quarantines = rows.into_iter().map(|row| {
        let quarantine = row.check()?;
        Ok((quarantine.whom.clone(), quarantine))
    });
    let worthless = worthless(db, now, SERIALS_MAX)?;
    Ok(QuarantineRows {
        revision: revision.cast_unsigned(),
        quarantines: quarantines.collect::<Result<_, _>>()?,
        serials: worthless.serials,
        bots_of_serials: worthless.bots,
    })
}

/// The worthless SVIDs one by one, or by their bots where there are more than `most`.
fn worthless(db: &Connection, now: Timestamp, most: u32) -> Result<Worthless, StoreError> {
    const SERIALS: &str = "SELECT serial FROM revoked WHERE not_after > ?1
        UNION
        SELECT serial FROM issuances
        WHERE host IN (SELECT name FROM quarantines WHERE kind = 'host') AND not_after > ?1";
    let now = now.unix_millis();
    let serials = texts(
        db,
        &format!("{SERIALS} ORDER BY serial LIMIT ?2"),
        params![now, most.saturating_add(1)],
    )?;
    if serials.len() <= most as usize {
        return Ok(Worthless {
            serials,
            bots: BTreeSet::new(),
        });
    }
    let ids = texts(
        db,
        &format!("SELECT DISTINCT spiffe_id FROM issuances WHERE serial IN ({SERIALS})"),
        params![now],
    )?;
    let bots = ids.iter().filter_map(|id| match SpiffeId::parse(id).ok()?.kind() {
        IdKind::Bot(bot) => Some(bot),
        IdKind::TrustDomain | IdKind::Host(_) | IdKind::Ca(_) | IdKind::Operator(_) | IdKind::Foreign => None,
    });
    Ok(Worthless {
        serials: Vec::new(),
        bots: bots.collect(),
    })
}

/// Reads one column of text.
fn texts(db: &Connection, query: &str, params: impl rusqlite::Params) -> Result<Vec<String>, StoreError> {
    const OPERATION: &str = "read the SVIDs of quarantined and evicted hosts";
    let mut statement = db.prepare_cached(query).map_err(failed(OPERATION))?;
    let rows = statement
        .query_map(params, |row| row.get(0))
        .map_err(failed(OPERATION))?;
    rows.collect::<Result<_, _>>().map_err(failed(OPERATION))
}

fn key(whom: &Quarantined) -> (&'static str, &str) {
    match whom {
        Quarantined::Bot(bot) => ("bot", bot.as_str()),
        Quarantined::Host(host) => ("host", host.as_str()),
    }
}

struct RawQuarantine {
    kind: String,
    name: String,
    reason: String,
    actor: String,
    since: i64,
    until: Option<i64>,
}

fn read(row: &Row<'_>) -> rusqlite::Result<RawQuarantine> {
    Ok(RawQuarantine {
        kind: row.get(0)?,
        name: row.get(1)?,
        reason: row.get(2)?,
        actor: row.get(3)?,
        since: row.get(4)?,
        until: row.get(5)?,
    })
}

impl RawQuarantine {
    fn check(self) -> Result<Quarantine, StoreError> {
        let invalid = || StoreError::Corrupt {
            operation: "read the quarantines",
            value: format!("{} {}", self.kind, self.name),
        };
        let whom = match self.kind.as_str() {
            "bot" => BotName::parse(&self.name).map(Quarantined::Bot),
            "host" => HostName::parse(&self.name).map(Quarantined::Host),
            _ => return Err(invalid()),
        };
        Ok(Quarantine {
            whom: whom.map_err(|_invalid| invalid())?,
            reason: self.reason,
            actor: self.actor,
            since: Timestamp::from_unix_millis(self.since),
            until: self.until.map(Timestamp::from_unix_millis),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(db: &Connection, serial: &str, id: &str, host: &str, not_after: i64) -> Result<(), StoreError> {
        db.execute(
            "INSERT INTO issuances VALUES (?1, ?2, ?3, 0, ?4, x'00', 0, 1, 1)",
            params![serial, id, host, not_after],
        )
        .map_err(failed("insert"))
        .map(drop)
    }

    #[tokio::test]
    async fn more_serials_than_a_list_holds_cut_their_bots_off_and_lose_none() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _thread) = Store::open(&dir.path().join("db")).unwrap();
        let now = Timestamp::from_unix_millis(1_000);
        let [three, two] = store
            .run(move |db| {
                issue(db, "01", "spiffe://acme.internal/prod/a", "web-1", 2_000)?;
                issue(db, "02", "spiffe://acme.internal/prod/a", "web-1", 3_000)?;
                issue(db, "03", "spiffe://acme.internal/prod/b", "web-1", 3_000)?;
                issue(db, "04", "spiffe://acme.internal/prod/ended", "web-1", 1_000)?;
                issue(db, "05", "spiffe://acme.internal/prod/c", "web-2", 3_000)?;
                db.execute_batch("INSERT INTO quarantines VALUES ('host', 'web-1', 'r', 'a', 0, NULL, 1, 1)")
                    .map_err(failed("insert"))?;
                Ok([worthless(db, now, 3)?, worthless(db, now, 2)?])
            })
            .await
            .unwrap();
        assert_eq!(three.serials, ["01", "02", "03"]);
        assert!(three.bots.is_empty());
        assert!(two.serials.is_empty());
        assert_eq!(
            two.bots.iter().map(BotName::as_str).collect::<Vec<_>>(),
            ["prod/a", "prod/b"]
        );
    }
}
