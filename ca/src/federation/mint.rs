//! Sign, verify, record, answer: the one way a token leaves.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use spiffe::id::{HostName, SpiffeId};
use spiffe::jwt::{Claims, UnsignedJwt};
use spiffe::time::Timestamp;
use spiffe_tls::{JwsError, verify_jwt};

use super::Federation;
use super::keys::KeySet;
use super::schedule::TOKEN_TTL;
use crate::core::Core;
use crate::journal::JournalError;
use crate::store::{JwtRecord, StoreError};

/// What makes a token's name: 128 random bits and a few more.
const TOKEN_ID_BYTES: usize = 18;

/// One token to sign: an ID and an audience that have been authorised, and the longest that an SVID of that ID lasts.
#[derive(Clone, Debug)]
pub(crate) struct JwtOrder {
    pub(crate) id: SpiffeId,
    pub(crate) audience: String,
    pub(crate) svid_ttl: Duration,
}

/// A token that has been verified after signing, and is recorded. It cannot be printed.
pub(crate) struct Minted {
    pub(crate) token: String,
    pub(crate) expires: Timestamp,
}

/// Why no token leaves; the CA's fault in every case.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MintError {
    #[error("too many signatures are waiting")]
    Overloaded,
    #[error("the signer was stopped")]
    Stopped,
    #[error("no key signs at this time: did the clock go back?")]
    NoKey,
    #[error("the operating system gave no random bytes")]
    Random,
    #[error("sign a JWT-SVID of {id}")]
    Sign {
        id: SpiffeId,
        #[source]
        source: JwsError,
    },
    #[error("the token just signed for {id} does not say what was meant")]
    Differs { id: SpiffeId },
    #[error("record a JWT-SVID")]
    Record {
        #[source]
        source: StoreError,
    },
    #[error("write a JWT-SVID into the ledger")]
    Ledger {
        #[source]
        source: JournalError,
    },
}

impl Core {
    /// Signs and records; only what is recorded in both places is returned.
    pub(crate) async fn mint(
        self: &Arc<Self>,
        federation: &Federation,
        order: JwtOrder,
        host: &HostName,
    ) -> Result<Minted, MintError> {
        let _waiting = self
            .signing_queue
            .try_acquire()
            .map_err(|_full| MintError::Overloaded)?;
        let _turn = self.signing.acquire().await.map_err(|_closed| MintError::Stopped)?;
        let (set, now) = (federation.set.load_full(), self.now());
        let issuer = federation.issuer.to_string();
        let signed = self.tasks.spawn_blocking(move || sign(&set, issuer, order, now));
        let signed = signed.await.map_err(|_panicked| MintError::Stopped)??;
        let record = signed.record(host);
        self.store
            .record_jwt(record.clone())
            .await
            .map_err(|source| MintError::Record { source })?;
        self.journal
            .jwt_issued(&record)
            .map_err(|source| MintError::Ledger { source })?;
        Ok(Minted {
            token: signed.token,
            expires: record.not_after,
        })
    }
}

/// A token and what it says.
struct Signed {
    token: String,
    key_id: String,
    audience: String,
    token_id: String,
    issued_at: Timestamp,
    claims: Claims,
}

impl Signed {
    fn record(&self, host: &HostName) -> JwtRecord {
        JwtRecord {
            token_id: self.token_id.clone(),
            id: self.claims.subject.clone(),
            audience: self.audience.clone(),
            host: host.clone(),
            key_id: self.key_id.clone(),
            issued_at: self.issued_at,
            not_after: self.claims.expires,
        }
    }
}

fn sign(set: &KeySet, issuer: String, order: JwtOrder, now: Timestamp) -> Result<Signed, MintError> {
    let key = set.signer(now).ok_or(MintError::NoKey)?;
    let mut random = [0; TOKEN_ID_BYTES];
    aws_lc_rs::rand::fill(&mut random).map_err(|_opaque| MintError::Random)?;
    let token_id = URL_SAFE_NO_PAD.encode(random);
    let issued_at = Timestamp::from_unix_seconds(now.unix_seconds());
    let JwtOrder { id, audience, svid_ttl } = order;
    let ttl = Duration::from_secs(TOKEN_TTL.min(svid_ttl).as_secs());
    let claims = Claims {
        subject: id.clone(),
        audience: vec![audience.clone()],
        expires: issued_at + ttl,
        issued_at: Some(issued_at),
        not_before: None,
        issuer: Some(issuer),
        token_id: Some(token_id.clone()),
    };
    let key_id = key.authority().key_id().to_owned();
    let token = key
        .sign(UnsignedJwt::new(&key_id, &claims))
        .map_err(|source| MintError::Sign { id, source })?;
    check(set, &token, &key_id, &audience, &claims, now)?;
    Ok(Signed {
        token,
        key_id,
        audience,
        token_id,
        issued_at,
        claims,
    })
}

/// Reads what was just signed as a relying party does, by the keys that are published.
fn check(
    set: &KeySet,
    token: &str,
    key_id: &str,
    audience: &str,
    meant: &Claims,
    now: Timestamp,
) -> Result<(), MintError> {
    let id = || meant.subject.clone();
    let read = verify_jwt(token, set.bundle(), audience, now).map_err(|source| MintError::Sign { id: id(), source })?;
    if read.claims() == meant && read.key_id() == key_id {
        Ok(())
    } else {
        Err(MintError::Differs { id: id() })
    }
}
