//! Hosts: one name, one key, until evicted.

use std::net::SocketAddr;

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use spiffe::id::HostName;
use spiffe::time::Timestamp;

use super::quarantines::revoke_of;
use super::{Store, StoreError, failed};
use crate::Digest;

/// Whether a host may act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostRowState {
    /// It may.
    Joined,
    /// Its key is worth nothing; a new token is needed.
    Evicted,
}

/// One host, as kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostRow {
    pub(crate) name: HostName,
    pub(crate) state: HostRowState,
    /// SHA-256 of the SubjectPublicKeyInfo that the host acts with.
    pub(crate) key: Digest,
    /// The key of the newest node SVID, until it is used for the first time: the
    /// answer that carried it may be lost, and the host must not be locked out.
    pub(crate) pending_key: Option<Digest>,
    /// The serial of the newest node SVID, lower hexadecimal.
    pub(crate) serial: String,
    pub(crate) not_after: Timestamp,
    pub(crate) joined: Timestamp,
    pub(crate) last_seen: Timestamp,
    pub(crate) advertise: Option<SocketAddr>,
    /// Raised by each change, so that snapshots taken out of order are put right.
    pub(crate) version: u64,
}

impl HostRow {
    /// Whether the host may act with this key.
    pub(crate) fn holds(&self, key: &Digest) -> bool {
        self.state == HostRowState::Joined && (self.key == *key || self.pending_key.as_ref() == Some(key))
    }
}

impl Store {
    /// Reads all hosts.
    pub(crate) async fn hosts(&self) -> Result<Vec<HostRow>, StoreError> {
        self.run(|db| {
            let mut statement = db
                .prepare_cached(&format!("{SELECT} ORDER BY name"))
                .map_err(failed("read the hosts"))?;
            let rows = statement.query_map([], read).map_err(failed("read the hosts"))?;
            let rows = rows.collect::<Result<Vec<_>, _>>().map_err(failed("read the hosts"))?;
            rows.into_iter().map(RawHost::check).collect()
        })
        .await
    }

    /// Writes that the host's stream is up: the pending key, once used, is the key. Other hosts lose an address that is
    /// this one's, and are given too. `None` when the host may not act with this key.
    pub(crate) async fn host_seen(
        &self,
        name: HostName,
        key: Digest,
        now: Timestamp,
        advertise: Option<SocketAddr>,
    ) -> Result<Option<Vec<HostRow>>, StoreError> {
        self.run(move |db| {
            let changed = db
                .prepare_cached(
                    "UPDATE hosts SET key = ?2, last_seen = ?3, advertise = coalesce(?4, advertise),
                        pending_key = CASE WHEN key = ?2 THEN pending_key ELSE NULL END, version = version + 1
                     WHERE name = ?1 AND state = 'joined' AND (key = ?2 OR pending_key = ?2)",
                )
                .and_then(|mut statement| {
                    let advertise = advertise.map(|address| address.to_string());
                    statement.execute(params![name.as_str(), key, now.unix_millis(), advertise])
                })
                .map_err(failed("write that a host was seen"))?;
            if changed != 1 {
                return Ok(None);
            }
            let mut rows = match advertise {
                Some(address) => take_address(db, &name, address)?,
                None => Vec::new(),
            };
            rows.extend(host_by_name(db, &name)?);
            Ok(Some(rows))
        })
        .await
    }

    /// Ends a host: it keeps its name and loses its key and every open token.
    pub(crate) async fn evict_host(&self, name: HostName, now: Timestamp) -> Result<Evicted, StoreError> {
        self.run(move |db| {
            let tokens = db
                .execute("DELETE FROM tokens WHERE host = ?1", [name.as_str()])
                .map_err(failed("delete the tokens of an evicted host"))?;
            let changed = db
                .execute(
                    "UPDATE hosts SET state = 'evicted', evicted = ?2, pending_key = NULL, advertise = NULL,
                        version = version + 1
                     WHERE name = ?1 AND state = 'joined'",
                    params![name.as_str(), now.unix_millis()],
                )
                .map_err(failed("evict a host"))?;
            revoke_of(db, &name, now)?;
            db.execute("DELETE FROM rotation_values WHERE host = ?1", [name.as_str()])
                .map_err(failed("delete the sealed values of an evicted host"))?;
            let row = if changed == 1 { host_by_name(db, &name)? } else { None };
            Ok(Evicted { row, tokens })
        })
        .await
    }
}

/// What an eviction took away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Evicted {
    /// The host, if it could act.
    pub(crate) row: Option<HostRow>,
    /// How many tokens it had.
    pub(crate) tokens: usize,
}

/// Takes an address from every host but this one.
fn take_address(db: &Connection, name: &HostName, address: SocketAddr) -> Result<Vec<HostRow>, StoreError> {
    let taken = db
        .prepare_cached(
            "UPDATE hosts SET advertise = NULL, version = version + 1 WHERE advertise = ?1 AND name <> ?2
             RETURNING name, state, key, pending_key, serial, not_after, joined, last_seen, advertise, version",
        )
        .and_then(|mut statement| {
            let rows = statement.query_map(params![address.to_string(), name.as_str()], read)?;
            rows.collect::<Result<Vec<_>, _>>()
        })
        .map_err(failed("take an address from other hosts"))?;
    taken.into_iter().map(RawHost::check).collect()
}

const SELECT: &str = "SELECT name, state, key, pending_key, serial, not_after, joined, last_seen, advertise, version
     FROM hosts";

pub(super) fn host_by_name(db: &Connection, name: &HostName) -> Result<Option<HostRow>, StoreError> {
    db.prepare_cached(&format!("{SELECT} WHERE name = ?1"))
        .and_then(|mut statement| statement.query_row([name.as_str()], read).optional())
        .map_err(failed("read a host"))?
        .map(RawHost::check)
        .transpose()
}

/// Writes a host that has just proved itself. `key` is what it acts with, and
/// `pending_key` what it will act with once it uses it.
pub(super) fn put_host(db: &Connection, host: &HostRow, epoch: u64, revision: u64) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO hosts (name, state, key, pending_key, serial, not_after, joined, last_seen, version, epoch,
            revision)
         VALUES (?1, 'joined', ?2, ?3, ?4, ?5, ?6, ?7, 1, ?8, ?9)
         ON CONFLICT (name) DO UPDATE SET state = 'joined', key = ?2, pending_key = ?3, serial = ?4,
            not_after = ?5, joined = ?6, evicted = NULL, last_seen = ?7, version = version + 1,
            epoch = ?8, revision = ?9",
    )
    .and_then(|mut statement| {
        statement.execute(params![
            host.name.as_str(),
            host.key,
            host.pending_key,
            host.serial,
            host.not_after.unix_millis(),
            host.joined.unix_millis(),
            host.last_seen.unix_millis(),
            epoch.cast_signed(),
            revision.cast_signed(),
        ])
    })
    .map_err(failed("write a host"))?;
    Ok(())
}

struct RawHost {
    name: String,
    state: String,
    key: Digest,
    pending_key: Option<Digest>,
    serial: String,
    not_after: i64,
    joined: i64,
    last_seen: i64,
    advertise: Option<String>,
    version: i64,
}

fn read(row: &Row<'_>) -> rusqlite::Result<RawHost> {
    Ok(RawHost {
        name: row.get(0)?,
        state: row.get(1)?,
        key: row.get(2)?,
        pending_key: row.get(3)?,
        serial: row.get(4)?,
        not_after: row.get(5)?,
        joined: row.get(6)?,
        last_seen: row.get(7)?,
        advertise: row.get(8)?,
        version: row.get(9)?,
    })
}

impl RawHost {
    fn check(self) -> Result<HostRow, StoreError> {
        let invalid = |value: &str| corrupt("read a host", value);
        Ok(HostRow {
            name: HostName::parse(&self.name).map_err(|_invalid| invalid(&self.name))?,
            state: match self.state.as_str() {
                "joined" => HostRowState::Joined,
                "evicted" => HostRowState::Evicted,
                other => return Err(invalid(other)),
            },
            key: self.key,
            pending_key: self.pending_key,
            serial: self.serial,
            not_after: Timestamp::from_unix_millis(self.not_after),
            joined: Timestamp::from_unix_millis(self.joined),
            last_seen: Timestamp::from_unix_millis(self.last_seen),
            advertise: match self.advertise {
                Some(text) => Some(text.parse().map_err(|_invalid| invalid(&text))?),
                None => None,
            },
            version: self.version.cast_unsigned(),
        })
    }
}

fn corrupt(operation: &'static str, value: &str) -> StoreError {
    StoreError::Corrupt {
        operation,
        value: value.to_owned(),
    }
}
