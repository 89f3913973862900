//! The record of every certificate, written before the certificate leaves.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use spiffe::id::{HostName, SpiffeId};
use spiffe::time::Timestamp;

use super::hosts::{HostRow, HostRowState, host_by_name, put_host};
use super::tokens::is_claimed_by;
use super::{Store, StoreError, failed};
use crate::Digest;

/// One issued certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Issuance {
    /// Lower hexadecimal.
    pub(crate) serial: String,
    pub(crate) id: SpiffeId,
    /// The host that it was issued to.
    pub(crate) host: HostName,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    pub(crate) spki_sha256: Digest,
    pub(crate) issued_at: Timestamp,
    pub(crate) epoch: u64,
    pub(crate) revision: u64,
}

/// What is known of a bot's SVIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BotIssuance {
    pub(crate) last_issued: Timestamp,
    pub(crate) not_after: Timestamp,
}

impl Store {
    /// Records certificates in one transaction.
    pub(crate) async fn record_issuances(&self, issuances: Vec<Issuance>) -> Result<(), StoreError> {
        self.run(move |db| issuances.iter().try_for_each(|issuance| insert(db, issuance)))
            .await
    }

    /// Records a node SVID and what the host may act with from now on, in one
    /// transaction. `None` means that the host may not have it after all: it was
    /// evicted, or got another key, since its evidence was checked.
    pub(crate) async fn record_node_svid(
        &self,
        issuance: Issuance,
        presented: Presented,
    ) -> Result<Option<HostRow>, StoreError> {
        self.run(move |db| {
            if let Presented::Token { secret_sha256 } = &presented
                && !is_claimed_by(db, secret_sha256, &issuance.spki_sha256)?
            {
                return Ok(None);
            }
            let before = host_by_name(db, &issuance.host)?;
            let Some(host) = next_host(before, &issuance, &presented) else {
                return Ok(None);
            };
            insert(db, &issuance)?;
            put_host(db, &host, issuance.epoch, issuance.revision)?;
            host_by_name(db, &issuance.host)
        })
        .await
    }

    /// Reads, for each ID, when an SVID was last issued and when the last one ends.
    pub(crate) async fn issuances_by_id(&self) -> Result<BTreeMap<String, BotIssuance>, StoreError> {
        const OPERATION: &str = "read the issuances";
        self.run(|db| {
            let mut statement = db
                .prepare_cached("SELECT spiffe_id, max(issued_at), max(not_after) FROM issuances GROUP BY spiffe_id")
                .map_err(failed(OPERATION))?;
            let rows = statement
                .query_map([], |row| {
                    let last_issued = Timestamp::from_unix_millis(row.get(1)?);
                    let not_after = Timestamp::from_unix_millis(row.get(2)?);
                    Ok((row.get(0)?, BotIssuance { last_issued, not_after }))
                })
                .map_err(failed(OPERATION))?;
            rows.collect::<Result<_, _>>().map_err(failed(OPERATION))
        })
        .await
    }

    /// Forgets certificates that ended before `ended`; the ledger still has them.
    pub(crate) async fn prune_issuances(&self, ended: Timestamp) -> Result<usize, StoreError> {
        self.run(move |db| {
            // Bounded, so that others get their turn.
            db.execute(
                "DELETE FROM issuances WHERE serial IN
                    (SELECT serial FROM issuances WHERE not_after < ?1 ORDER BY not_after LIMIT 10000)",
                [ended.unix_millis()],
            )
            .map_err(failed("prune the issuances"))
        })
        .await
    }
}

/// The key that vouched for a node SVID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Presented {
    /// A token, claimed by the key of the CSR; an eviction takes it away.
    Token { secret_sha256: Digest },
    /// The host's own key.
    BoundKey(Digest),
}

/// What the host may act with once the node SVID is out; pure.
fn next_host(before: Option<HostRow>, issuance: &Issuance, presented: &Presented) -> Option<HostRow> {
    let next = |key, pending_key, joined| HostRow {
        name: issuance.host.clone(),
        state: HostRowState::Joined,
        key,
        pending_key,
        serial: issuance.serial.clone(),
        not_after: issuance.not_after,
        joined,
        last_seen: issuance.issued_at,
        // Neither is written with a node SVID.
        advertise: None,
        version: 0,
    };
    let new = issuance.spki_sha256;
    match (before.filter(|host| host.state == HostRowState::Joined), presented) {
        (None, Presented::Token { .. }) => Some(next(new, None, issuance.issued_at)),
        (None, Presented::BoundKey(_)) => None,
        // A lost answer, asked for again by the same key.
        (Some(host), Presented::Token { .. }) if host.holds(&new) => {
            Some(next(host.key, host.pending_key, host.joined))
        }
        (Some(_), Presented::Token { .. }) => None,
        (Some(host), Presented::BoundKey(used)) if host.holds(used) => {
            // Whatever key the host used is the one it certainly has.
            let pending = (new != *used).then_some(new);
            Some(next(*used, pending, host.joined))
        }
        (Some(_), Presented::BoundKey(_)) => None,
    }
}

fn insert(db: &Connection, issuance: &Issuance) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO issuances
            (serial, spiffe_id, host, not_before, not_after, spki_sha256, issued_at, epoch, revision)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )
    .and_then(|mut statement| {
        statement.execute(params![
            issuance.serial,
            issuance.id.as_str(),
            issuance.host.as_str(),
            issuance.not_before.unix_millis(),
            issuance.not_after.unix_millis(),
            issuance.spki_sha256,
            issuance.issued_at.unix_millis(),
            issuance.epoch.cast_signed(),
            issuance.revision.cast_signed(),
        ])
    })
    .map_err(failed("record an issuance"))?;
    Ok(())
}
