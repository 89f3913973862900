//! The keys that sign JWT-SVIDs, and the record of every one, written before the token leaves.

use rusqlite::{Connection, params};
use spiffe::id::{HostName, SpiffeId};
use spiffe::jwt::JwtAuthority;
use spiffe::time::Timestamp;

use super::{Store, StoreError, failed};

/// A key that is published. Rows of those that were taken away are kept: they count the changes of the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JwtKeyRow {
    pub(crate) authority: JwtAuthority,
    pub(crate) published: Timestamp,
    pub(crate) signs_from: Timestamp,
    /// When its first moment as the key that signs was noticed.
    pub(crate) activated: Option<Timestamp>,
}

/// The keys, in the order in which they sign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct JwtKeyRows {
    pub(crate) published: Vec<JwtKeyRow>,
    /// How many were taken away.
    pub(crate) retired: u64,
}

/// One signed token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JwtRecord {
    /// `jti`.
    pub(crate) token_id: String,
    pub(crate) id: SpiffeId,
    pub(crate) audience: String,
    /// The host that it was given to.
    pub(crate) host: HostName,
    pub(crate) key_id: String,
    pub(crate) issued_at: Timestamp,
    pub(crate) not_after: Timestamp,
}

impl Store {
    /// Reads the keys.
    pub(crate) async fn jwt_keys(&self) -> Result<JwtKeyRows, StoreError> {
        self.run(read_keys).await
    }

    /// Writes a key that is published from now on.
    pub(crate) async fn publish_jwt_key(&self, row: JwtKeyRow) -> Result<(), StoreError> {
        self.run(move |db| {
            db.execute(
                "INSERT INTO jwt_keys (kid, point, published, signs_from, activated) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    row.authority.key_id(),
                    row.authority.point(),
                    row.published.unix_millis(),
                    row.signs_from.unix_millis(),
                    row.activated.map(Timestamp::unix_millis),
                ],
            )
            .map_err(failed("write a key for JWT-SVIDs"))
            .map(drop)
        })
        .await
    }

    /// Writes that a key has begun to sign.
    pub(crate) async fn activate_jwt_key(&self, key_id: String, at: Timestamp) -> Result<(), StoreError> {
        self.run(move |db| {
            db.execute(
                "UPDATE jwt_keys SET activated = ?2 WHERE kid = ?1 AND activated IS NULL",
                params![key_id, at.unix_millis()],
            )
            .map_err(failed("activate a key for JWT-SVIDs"))
            .map(drop)
        })
        .await
    }

    /// Writes that a key is published no longer.
    pub(crate) async fn retire_jwt_key(&self, key_id: String, at: Timestamp) -> Result<(), StoreError> {
        self.run(move |db| {
            db.execute(
                "UPDATE jwt_keys SET retired = ?2 WHERE kid = ?1 AND retired IS NULL",
                params![key_id, at.unix_millis()],
            )
            .map_err(failed("retire a key for JWT-SVIDs"))
            .map(drop)
        })
        .await
    }

    /// Records a token.
    pub(crate) async fn record_jwt(&self, record: JwtRecord) -> Result<(), StoreError> {
        self.run(move |db| {
            db.prepare_cached(
                "INSERT INTO jwts (jti, spiffe_id, audience, host, kid, issued_at, not_after)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )
            .and_then(|mut statement| {
                statement.execute(params![
                    record.token_id,
                    record.id.as_str(),
                    record.audience,
                    record.host.as_str(),
                    record.key_id,
                    record.issued_at.unix_millis(),
                    record.not_after.unix_millis(),
                ])
            })
            .map_err(failed("record a JWT-SVID"))
            .map(drop)
        })
        .await
    }

    /// Forgets tokens that ended before `ended`; the ledger still has them.
    pub(crate) async fn prune_jwts(&self, ended: Timestamp) -> Result<usize, StoreError> {
        self.run(move |db| {
            // Bounded, so that others get their turn.
            db.execute(
                "DELETE FROM jwts WHERE jti IN (SELECT jti FROM jwts WHERE not_after < ?1 ORDER BY not_after LIMIT 10000)",
                [ended.unix_millis()],
            )
            .map_err(failed("prune the JWT-SVIDs"))
        })
        .await
    }
}

fn read_keys(db: &Connection) -> Result<JwtKeyRows, StoreError> {
    const OPERATION: &str = "read the keys for JWT-SVIDs";
    let mut statement = db
        .prepare(
            "SELECT kid, point, published, signs_from, activated FROM jwt_keys WHERE retired IS NULL
             ORDER BY signs_from, published",
        )
        .map_err(failed(OPERATION))?;
    let rows = statement
        .query_map([], |row| {
            let times: (i64, i64, Option<i64>) = (row.get(2)?, row.get(3)?, row.get(4)?);
            Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?, times))
        })
        .map_err(failed(OPERATION))?;
    let mut published = Vec::new();
    for row in rows {
        let (key_id, point, (at, signs_from, activated)) = row.map_err(failed(OPERATION))?;
        // A name that is not the key's own would name a file of somebody's choice.
        let authority = JwtAuthority::from_point(&point)
            .ok()
            .filter(|authority| authority.key_id() == key_id)
            .ok_or(StoreError::Corrupt {
                operation: OPERATION,
                value: key_id,
            })?;
        published.push(JwtKeyRow {
            authority,
            published: Timestamp::from_unix_millis(at),
            signs_from: Timestamp::from_unix_millis(signs_from),
            activated: activated.map(Timestamp::from_unix_millis),
        });
    }
    let retired: i64 = db
        .query_row("SELECT count(*) FROM jwt_keys WHERE retired IS NOT NULL", [], |row| {
            row.get(0)
        })
        .map_err(failed(OPERATION))?;
    Ok(JwtKeyRows {
        published,
        retired: retired.cast_unsigned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_row_whose_name_is_not_its_keys_own_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let (store, _thread) = Store::open(&path).unwrap();
        let point = [&[4], &[1; 64][..]].concat();
        let row = JwtKeyRow {
            authority: JwtAuthority::from_point(&point).unwrap(),
            published: Timestamp::from_unix_millis(1),
            signs_from: Timestamp::from_unix_millis(2),
            activated: None,
        };
        store.publish_jwt_key(row.clone()).await.unwrap();
        assert_eq!(store.jwt_keys().await.unwrap().published, [row]);
        let db = Connection::open(&path).unwrap();
        db.execute("UPDATE jwt_keys SET kid = '../kek'", []).unwrap();
        assert!(matches!(store.jwt_keys().await, Err(StoreError::Corrupt { .. })));
    }
}
