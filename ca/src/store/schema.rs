//! The tables, their migrations, and the facts that `ca init` writes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};
use spiffe::id::{HostName, TrustDomain};
use spiffe::time::Timestamp;

use super::{Store, StoreError, failed};

/// Each entry brings the schema from its index to the next number; entries are
/// only ever added. `user_version` holds the number.
const MIGRATIONS: &[&str] = &[
    r"
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE authorities (
    key_id      TEXT PRIMARY KEY,
    certificate BLOB NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('active')),
    epoch       INTEGER NOT NULL,
    revision    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE revisions (
    epoch      INTEGER NOT NULL,
    revision   INTEGER NOT NULL,
    sources    TEXT NOT NULL,
    sha256     TEXT NOT NULL,
    applied_at INTEGER NOT NULL,
    actor      TEXT NOT NULL,
    PRIMARY KEY (epoch, revision)
) STRICT, WITHOUT ROWID;

CREATE TABLE hosts (
    name        TEXT PRIMARY KEY,
    state       TEXT NOT NULL CHECK (state IN ('joined', 'evicted')),
    key         BLOB NOT NULL,
    pending_key BLOB,
    serial      TEXT NOT NULL,
    not_after   INTEGER NOT NULL,
    joined      INTEGER NOT NULL,
    evicted     INTEGER,
    last_seen   INTEGER NOT NULL,
    advertise   TEXT,
    version     INTEGER NOT NULL,
    epoch       INTEGER NOT NULL,
    revision    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
    secret_sha256 BLOB PRIMARY KEY,
    host          TEXT NOT NULL,
    expires       INTEGER NOT NULL,
    claimed_by    BLOB,
    refusals      INTEGER NOT NULL DEFAULT 0,
    created_by    TEXT NOT NULL,
    epoch         INTEGER NOT NULL,
    revision      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tokens_by_host ON tokens (host);

CREATE TABLE issuances (
    serial      TEXT PRIMARY KEY,
    spiffe_id   TEXT NOT NULL,
    host        TEXT NOT NULL,
    not_before  INTEGER NOT NULL,
    not_after   INTEGER NOT NULL,
    spki_sha256 BLOB NOT NULL,
    issued_at   INTEGER NOT NULL,
    epoch       INTEGER NOT NULL,
    revision    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX issuances_by_id ON issuances (spiffe_id, issued_at);
CREATE INDEX issuances_by_end ON issuances (not_after);
",
    r"
CREATE TABLE quarantines (
    kind     TEXT NOT NULL CHECK (kind IN ('bot', 'host')),
    name     TEXT NOT NULL,
    reason   TEXT NOT NULL,
    actor    TEXT NOT NULL,
    since    INTEGER NOT NULL,
    until    INTEGER,
    epoch    INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE revoked (
    serial    TEXT PRIMARY KEY,
    host      TEXT NOT NULL,
    not_after INTEGER NOT NULL,
    epoch     INTEGER NOT NULL,
    revision  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX issuances_by_host ON issuances (host, not_after);

-- Hosts know lists under the numbers of revisions from before; new ones must be newer.
INSERT INTO meta (key, value) SELECT 'quarantines', CAST(coalesce(max(revision), 0) AS TEXT) FROM revisions;
",
    r"
CREATE TABLE rotations (
    name        TEXT PRIMARY KEY,
    rotation    INTEGER NOT NULL,
    phase       TEXT NOT NULL CHECK (phase IN ('staged', 'canary', 'current', 'revoked', 'aborted')),
    canary_bot  TEXT NOT NULL,
    canary_host TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    actor       TEXT NOT NULL,
    reason      TEXT NOT NULL,
    started     INTEGER NOT NULL,
    changed     INTEGER NOT NULL,
    rotated     INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE rotation_values (
    name   TEXT NOT NULL,
    host   TEXT NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (name, host)
) STRICT, WITHOUT ROWID;
",
    r"
CREATE TABLE heads (
    host     TEXT NOT NULL,
    epoch    INTEGER NOT NULL,
    vkey     TEXT NOT NULL,
    size     INTEGER NOT NULL,
    root     BLOB NOT NULL,
    note     TEXT NOT NULL,
    cosigned INTEGER NOT NULL,
    PRIMARY KEY (host, epoch)
) STRICT, WITHOUT ROWID;
",
    r"
CREATE TABLE jwt_keys (
    kid        TEXT PRIMARY KEY,
    point      BLOB NOT NULL,
    published  INTEGER NOT NULL,
    signs_from INTEGER NOT NULL,
    activated  INTEGER,
    retired    INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE jwts (
    jti       TEXT PRIMARY KEY,
    spiffe_id TEXT NOT NULL,
    audience  TEXT NOT NULL,
    host      TEXT NOT NULL,
    kid       TEXT NOT NULL,
    issued_at INTEGER NOT NULL,
    not_after INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX jwts_by_end ON jwts (not_after);
",
    r"
CREATE TABLE watched (
    kind   TEXT NOT NULL CHECK (kind IN ('hours', 'rule', 'bot', 'carried', 'refused')),
    bot    TEXT NOT NULL,
    callee TEXT NOT NULL,
    rule   TEXT NOT NULL,
    state  TEXT NOT NULL,
    PRIMARY KEY (kind, bot, callee, rule)
) STRICT, WITHOUT ROWID;
",
    r"
CREATE TABLE witnessed (
    ledger   TEXT NOT NULL,
    epoch    INTEGER NOT NULL,
    witness  TEXT NOT NULL,
    size     INTEGER NOT NULL,
    note     TEXT NOT NULL,
    cosigned INTEGER NOT NULL,
    PRIMARY KEY (ledger, epoch, witness)
) STRICT, WITHOUT ROWID;
",
];

/// Opens the file and brings its schema up to date, in one transaction per step.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let opened = |source| StoreError::Open {
        path: path.to_owned(),
        source: Arc::new(source),
    };
    let connection = Connection::open(path).map_err(opened)?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(opened)?;
    // FULL: an issuance that was answered survives a power cut, in WAL mode too.
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
             PRAGMA trusted_schema = OFF;",
        )
        .map_err(opened)?;
    connection.set_prepared_statement_cache_capacity(64);
    migrate(&connection)?;
    Ok(connection)
}

fn migrate(connection: &Connection) -> Result<(), StoreError> {
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    let found: u32 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failed("read the schema's number"))?;
    if found > known {
        return Err(StoreError::NewerSchema { found, known });
    }
    for (number, step) in (0..known).zip(MIGRATIONS).skip(found as usize) {
        let next = number + 1;
        connection
            .execute_batch(&format!(
                "BEGIN IMMEDIATE; {step} PRAGMA user_version = {next}; COMMIT;"
            ))
            .map_err(failed("migrate the schema"))?;
    }
    Ok(())
}

/// The facts that `ca init` writes once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) trust_domain: TrustDomain,
    /// The name of this CA server.
    pub(crate) server: HostName,
    pub(crate) epoch: u64,
    pub(crate) created: Timestamp,
}

/// A signing certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authority {
    /// Names its sealed key.
    pub(crate) key_id: String,
    pub(crate) certificate: Vec<u8>,
}

impl Store {
    /// Reads what `ca init` wrote; `None` on a fresh database.
    pub(crate) async fn meta(&self) -> Result<Option<Meta>, StoreError> {
        self.run(read_meta).await
    }

    /// Writes the facts and the first authority. Refuses to replace any.
    pub(crate) async fn initialise(&self, meta: Meta, authority: Authority) -> Result<(), StoreError> {
        self.run(move |db| {
            let facts = [
                ("trust_domain", meta.trust_domain.to_string()),
                ("server", meta.server.to_string()),
                ("epoch", meta.epoch.to_string()),
                ("created", meta.created.unix_millis().to_string()),
            ];
            for (key, value) in facts {
                db.execute("INSERT INTO meta (key, value) VALUES (?1, ?2)", [key, &value])
                    .map_err(failed("write the CA's facts"))?;
            }
            db.execute(
                "INSERT INTO authorities (key_id, certificate, state, epoch, revision) VALUES (?1, ?2, 'active', ?3, 0)",
                params![authority.key_id, authority.certificate, meta.epoch.cast_signed()],
            )
            .map_err(failed("write the authority"))?;
            Ok(())
        })
        .await
    }

    /// Reads the active authority.
    pub(crate) async fn authority(&self) -> Result<Option<Authority>, StoreError> {
        self.run(|db| {
            db.query_row(
                "SELECT key_id, certificate FROM authorities WHERE state = 'active'",
                [],
                |row| {
                    Ok(Authority {
                        key_id: row.get(0)?,
                        certificate: row.get(1)?,
                    })
                },
            )
            .optional()
            .map_err(failed("read the authority"))
        })
        .await
    }
}

fn read_meta(db: &Connection) -> Result<Option<Meta>, StoreError> {
    const OPERATION: &str = "read the CA's facts";
    let fact = |key: &str| {
        db.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| {
            row.get::<_, String>(0)
        })
        .optional()
        .map_err(failed(OPERATION))
    };
    let (Some(trust_domain), Some(server), Some(epoch), Some(created)) =
        (fact("trust_domain")?, fact("server")?, fact("epoch")?, fact("created")?)
    else {
        return Ok(None);
    };
    let corrupt = |value: &str| StoreError::Corrupt {
        operation: OPERATION,
        value: value.to_owned(),
    };
    Ok(Some(Meta {
        trust_domain: TrustDomain::parse(&trust_domain).map_err(|_invalid| corrupt(&trust_domain))?,
        server: HostName::parse(&server).map_err(|_invalid| corrupt(&server))?,
        epoch: epoch.parse().map_err(|_invalid| corrupt(&epoch))?,
        created: Timestamp::from_unix_millis(created.parse().map_err(|_invalid| corrupt(&created))?),
    }))
}
