//! Join tokens: only the SHA-256 of a secret is kept, and one conditional update
//! decides who claims it.

use rusqlite::{Connection, OptionalExtension as _, params};
use spiffe::id::HostName;
use spiffe::time::Timestamp;
use subtle::ConstantTimeEq as _;

use super::hosts::{HostRowState, host_by_name};
use super::{Store, StoreError, failed};
use crate::Digest;

/// How many refusals of one token are events of their own; more only count.
const REFUSALS_RECORDED_MAX: i64 = 16;

/// How many tokens of one host may be open.
const OPEN_TOKENS_MAX: i64 = 64;

/// What a token is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The key claimed it, now or before; this is the host that it becomes.
    Claimed {
        host: HostName,
        /// The first claim, not a repetition by the same key.
        first: bool,
    },
    /// It is good for nothing.
    Refused(TokenRefusal),
}

/// Why a token is good for nothing. The peer is not told which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenRefusal {
    /// No token has this secret.
    Unknown,
    /// It has ended.
    Expired { host: HostName },
    /// Another key claimed it: somebody else has seen the token.
    OtherKey {
        host: HostName,
        /// False once this token has been refused so often that more events would
        /// only fill the ledger.
        record: bool,
    },
    /// The host already acts with another key.
    HostHasKey { host: HostName, record: bool },
}

impl Store {
    /// Writes a token. Answers `None` when the host has too many open ones, else
    /// whether the host already acts with a key.
    pub(crate) async fn create_token(
        &self,
        secret_sha256: Digest,
        host: HostName,
        now: Timestamp,
        expires: Timestamp,
        created_by: String,
        (epoch, revision): (u64, u64),
    ) -> Result<Option<bool>, StoreError> {
        const OPERATION: &str = "write a token";
        self.run(move |db| {
            // Ended tokens of any host are of no use to anybody.
            db.execute("DELETE FROM tokens WHERE expires < ?1", [now.unix_millis()])
                .map_err(failed(OPERATION))?;
            let open: i64 = db
                .query_row("SELECT count(*) FROM tokens WHERE host = ?1", [host.as_str()], |row| {
                    row.get(0)
                })
                .map_err(failed(OPERATION))?;
            if open >= OPEN_TOKENS_MAX {
                return Ok(None);
            }
            db.execute(
                "INSERT INTO tokens (secret_sha256, host, expires, created_by, epoch, revision)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    secret_sha256,
                    host.as_str(),
                    expires.unix_millis(),
                    created_by,
                    epoch.cast_signed(),
                    revision.cast_signed()
                ],
            )
            .map_err(failed(OPERATION))?;
            let row = host_by_name(db, &host)?;
            Ok(Some(row.is_some_and(|row| row.state == HostRowState::Joined)))
        })
        .await
    }

    /// Lets `key` claim a token, and says what it is good for.
    pub(crate) async fn claim_token(
        &self,
        secret_sha256: Digest,
        key: Digest,
        now: Timestamp,
    ) -> Result<Claim, StoreError> {
        self.run(move |db| claim(db, &secret_sha256, &key, now)).await
    }
}

struct Token {
    stored: Digest,
    host: String,
    expires: i64,
    claimed_by: Option<Digest>,
    refusals: i64,
}

fn claim(db: &Connection, secret_sha256: &Digest, key: &Digest, now: Timestamp) -> Result<Claim, StoreError> {
    const OPERATION: &str = "claim a token";
    let Some(token) = find(db, secret_sha256)? else {
        return Ok(Claim::Refused(TokenRefusal::Unknown));
    };
    let host = HostName::parse(&token.host).map_err(|_invalid| StoreError::Corrupt {
        operation: OPERATION,
        value: token.host.clone(),
    })?;
    if Timestamp::from_unix_millis(token.expires) <= now {
        return Ok(Claim::Refused(TokenRefusal::Expired { host }));
    }
    let record = token.refusals < REFUSALS_RECORDED_MAX;
    // One name holds one key until it is evicted.
    if let Some(row) = host_by_name(db, &host)?
        && row.state == HostRowState::Joined
        && !row.holds(key)
    {
        // A claimed token that comes back with another key is the louder alarm.
        let refusal = if token.claimed_by.is_some_and(|claimed_by| claimed_by != *key) {
            TokenRefusal::OtherKey { host, record }
        } else {
            TokenRefusal::HostHasKey { host, record }
        };
        count_refusal(db, secret_sha256)?;
        return Ok(Claim::Refused(refusal));
    }
    // The condition is in the statement, so that of two keys only one can win.
    let won = db
        .prepare_cached("UPDATE tokens SET claimed_by = ?2 WHERE secret_sha256 = ?1 AND claimed_by IS NULL")
        .and_then(|mut statement| statement.execute(params![secret_sha256, key]))
        .map_err(failed(OPERATION))?;
    if won == 1 || token.claimed_by.as_ref() == Some(key) {
        return Ok(Claim::Claimed { host, first: won == 1 });
    }
    count_refusal(db, secret_sha256)?;
    Ok(Claim::Refused(TokenRefusal::OtherKey { host, record }))
}

fn find(db: &Connection, secret_sha256: &Digest) -> Result<Option<Token>, StoreError> {
    let token = db
        .prepare_cached(
            "SELECT secret_sha256, host, expires, claimed_by, refusals FROM tokens WHERE secret_sha256 = ?1",
        )
        .and_then(|mut statement| {
            statement
                .query_row([secret_sha256], |row| {
                    Ok(Token {
                        stored: row.get(0)?,
                        host: row.get(1)?,
                        expires: row.get(2)?,
                        claimed_by: row.get(3)?,
                        refusals: row.get(4)?,
                    })
                })
                .optional()
        })
        .map_err(failed("find a token"))?;
    // The index is walked with a hash of the secret: how long that takes says
    // something about hashes that the peer cannot steer. The last word is compared
    // in constant time all the same.
    Ok(token.filter(|token| bool::from(token.stored.ct_eq(secret_sha256))))
}

fn count_refusal(db: &Connection, secret_sha256: &Digest) -> Result<(), StoreError> {
    db.execute(
        "UPDATE tokens SET refusals = refusals + 1 WHERE secret_sha256 = ?1",
        [secret_sha256],
    )
    .map_err(failed("count a refused token"))?;
    Ok(())
}

/// Whether the token is still there and belongs to `key`.
pub(super) fn is_claimed_by(db: &Connection, secret_sha256: &Digest, key: &Digest) -> Result<bool, StoreError> {
    Ok(find(db, secret_sha256)?.is_some_and(|token| token.claimed_by.as_ref() == Some(key)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECRET: Digest = [7; 32];
    const ANN: Digest = [1; 32];
    const BOB: Digest = [2; 32];

    fn web1() -> HostName {
        HostName::parse("web-1").unwrap()
    }

    fn start() -> Timestamp {
        Timestamp::from_unix_millis(1_000_000)
    }

    /// A store with one token that ends after ten minutes.
    async fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let (store, _thread) = Store::open(&dir.path().join("db")).unwrap();
        let ends = start() + Duration::from_mins(10);
        let host_has_key = store
            .create_token(SECRET, web1(), start(), ends, "root".into(), (1, 0))
            .await
            .unwrap();
        assert_eq!(host_has_key, Some(false));
        (dir, store)
    }

    async fn claim(store: &Store, key: Digest) -> Claim {
        store.claim_token(SECRET, key, start()).await.unwrap()
    }

    #[tokio::test]
    async fn a_claimed_token_is_refused_to_another_key_before_any_host_has_joined() {
        let (_dir, store) = store().await;
        assert_eq!(
            claim(&store, ANN).await,
            Claim::Claimed {
                host: web1(),
                first: true
            }
        );
        let other = Claim::Refused(TokenRefusal::OtherKey {
            host: web1(),
            record: true,
        });
        assert_eq!(claim(&store, BOB).await, other);
        assert_eq!(
            claim(&store, ANN).await,
            Claim::Claimed {
                host: web1(),
                first: false
            }
        );
    }

    #[tokio::test]
    async fn of_keys_that_claim_at_once_one_wins() {
        let (_dir, store) = store().await;
        let (ann, bob) = tokio::join!(claim(&store, ANN), claim(&store, BOB));
        let claimed = |claim: &Claim| matches!(claim, Claim::Claimed { .. });
        assert_eq!([ann, bob].iter().filter(|one| claimed(one)).count(), 1);
    }

    #[tokio::test]
    async fn refusals_of_one_token_are_recorded_a_few_times_and_then_only_counted() {
        let (_dir, store) = store().await;
        claim(&store, ANN).await;
        let mut recorded = 0;
        for _ in 0..40 {
            match claim(&store, BOB).await {
                Claim::Refused(TokenRefusal::OtherKey { record, .. }) => recorded += i64::from(record),
                other @ (Claim::Claimed { .. } | Claim::Refused(_)) => panic!("{other:?}"),
            }
        }
        assert_eq!(recorded, REFUSALS_RECORDED_MAX);
    }

    #[tokio::test]
    async fn an_ended_token_is_refused_even_to_the_key_that_claimed_it() {
        let (_dir, store) = store().await;
        claim(&store, ANN).await;
        let late = store
            .claim_token(SECRET, ANN, start() + Duration::from_mins(10))
            .await
            .unwrap();
        assert_eq!(late, Claim::Refused(TokenRefusal::Expired { host: web1() }));
    }

    #[tokio::test]
    async fn an_eviction_takes_a_claimed_token_away_before_its_certificate_is_recorded() {
        let (_dir, store) = store().await;
        claim(&store, ANN).await;
        store.evict_host(web1(), start()).await.unwrap();
        let issuance = crate::store::Issuance {
            serial: "01".into(),
            id: spiffe::id::SpiffeId::parse("spiffe://acme.internal/botmesh/host/web-1").unwrap(),
            host: web1(),
            not_before: start(),
            not_after: start() + Duration::from_hours(1),
            spki_sha256: ANN,
            issued_at: start(),
            epoch: 1,
            revision: 0,
        };
        let presented = crate::store::Presented::Token { secret_sha256: SECRET };
        assert_eq!(store.record_node_svid(issuance, presented).await.unwrap(), None);
        assert_eq!(store.issuances_by_id().await.unwrap().len(), 0);
    }
}
