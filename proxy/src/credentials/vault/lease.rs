//! Leases: what a vault makes for one process, and takes back.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::Method;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::answer::{self, Fields, Leased};
use super::error::{Cause, VaultError};
use super::session::Session;
use super::settings::{VaultSource, VaultWord, What};
use super::{Ask, Vault, Vaults, unknown};

/// The longest name of a lease, in bytes.
const ID_BYTES_MAX: usize = 1024;

/// The longest time that is believed; whoever gives more is asked again.
const TIME_MAX: Duration = Duration::from_hours(24);

const REVOKE: &str = "revoke a lease";

const RENEW: &str = "renew a lease";

/// The name of a lease, by which it is renewed and revoked. It opens nothing by itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct LeaseId(Arc<str>);

impl TryFrom<String> for LeaseId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let fits = (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits {
            Ok(Self(text.into()))
        } else {
            Err("no name of a lease")
        }
    }
}

impl From<LeaseId> for String {
    fn from(id: LeaseId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeaseId")
    }
}

/// What a vault made.
pub(crate) struct Granted {
    pub(crate) id: LeaseId,
    pub(crate) fields: Fields,
    pub(crate) grant: Grant,
}

/// Until when it is good.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    ends: Instant,
    pub(crate) renewable: bool,
    /// What made it; when that ends the vault takes the lease back.
    session: Arc<Session>,
}

impl Grant {
    #[cfg(test)]
    pub(crate) fn of(ends: Instant) -> Self {
        let session = Arc::new(Session::endless());
        Self {
            ends,
            renewable: false,
            session,
        }
    }

    pub(crate) fn ends(&self) -> Instant {
        self.ends.min(self.session.ends())
    }
}

/// What names a lease to a vault.
#[derive(Serialize)]
struct Body<'a> {
    lease_id: &'a LeaseId,
    /// The answer comes when it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    sync: Option<bool>,
}

impl Vaults {
    fn named(&self, name: &VaultWord, doing: &str) -> Result<&Vault, Arc<VaultError>> {
        self.0.get(name).ok_or_else(|| unknown(Some(name), doing))
    }

    /// Has a vault make something.
    pub(crate) async fn take(&self, source: &VaultSource) -> Result<Granted, Arc<VaultError>> {
        let (What::Lease { path, .. } | What::Kv { path, .. }) = &source.what;
        let doing = format!("read {path}");
        let vault = self.of(source).ok_or_else(|| unknown(source.of.as_ref(), &doing))?;
        let ask = Ask {
            method: Method::GET,
            path: path.as_str(),
            body: None,
            doing: &doing,
            capability: "read",
        };
        let asked = Instant::now();
        let (answer, session) = vault.ask_by(ask).await?;
        let granted = match answer.status {
            ::http::StatusCode::NOT_FOUND => Err(Cause::Nothing),
            _ => answer::read::<Leased>(&answer.body).and_then(|leased| granted(leased, asked, session)),
        };
        granted.map_err(|cause| vault.failed(&doing, cause))
    }

    /// Says that what was made is of no use.
    pub(crate) fn misfit(&self, source: &VaultSource, cause: Cause) -> Arc<VaultError> {
        let (What::Lease { path, .. } | What::Kv { path, .. }) = &source.what;
        let doing = format!("read {path}");
        match self.of(source) {
            Some(vault) => vault.failed(&doing, cause),
            None => unknown(source.of.as_ref(), &doing),
        }
    }

    /// Has a lease live on. An error says whether the vault knows it no more.
    pub(crate) async fn renew(&self, vault: &VaultWord, id: &LeaseId, grant: &Grant) -> Result<Grant, NotRenewed> {
        let vault = self.named(vault, RENEW).map_err(NotRenewed::Later)?;
        vault.keep(&grant.session).await;
        let asked = Instant::now();
        let answer = vault.of_lease("sys/leases/renew", RENEW, id, None).await;
        let answer = answer.map_err(|error| {
            let bad = ::http::StatusCode::BAD_REQUEST;
            if matches!(error.cause, Cause::Status { status } if status == bad) {
                NotRenewed::Gone(error)
            } else {
                NotRenewed::Later(error)
            }
        })?;
        let read = answer::read::<Leased>(&answer.body);
        let renewed = read.map_err(|cause| NotRenewed::Later(vault.failed(RENEW, cause)))?;
        Ok(Grant {
            ends: asked + time(renewed.lease_duration),
            renewable: renewed.renewable,
            session: Arc::clone(&grant.session),
        })
    }

    /// Takes a lease back. One that is gone already is as good.
    pub(crate) async fn revoke(&self, vault: &VaultWord, id: &LeaseId) -> Result<(), Arc<VaultError>> {
        let vault = self.named(vault, REVOKE)?;
        vault
            .of_lease("sys/leases/revoke", REVOKE, id, Some(true))
            .await
            .map(drop)
    }
}

/// Why a lease does not live on.
#[derive(Debug)]
pub(crate) enum NotRenewed {
    /// The vault took it back, or never lets it live on.
    Gone(Arc<VaultError>),
    /// It may, another time.
    Later(Arc<VaultError>),
}

impl Vault {
    async fn of_lease(
        &self,
        path: &str,
        doing: &str,
        id: &LeaseId,
        sync: Option<bool>,
    ) -> Result<super::http::Answer, Arc<VaultError>> {
        let body = serde_json::to_vec(&Body { lease_id: id, sync });
        let body = body.map_err(|_none| self.failed(doing, Cause::Answer))?;
        let ask = Ask {
            method: Method::POST,
            path,
            body: Some(Zeroizing::new(body)),
            doing,
            capability: "update",
        };
        self.ask(ask).await
    }
}

fn time(seconds: u64) -> Duration {
    Duration::from_secs(seconds).min(TIME_MAX)
}

fn granted(leased: Leased, asked: Instant, session: Arc<Session>) -> Result<Granted, Cause> {
    let Leased {
        lease_id,
        lease_duration,
        renewable,
        data: Some(fields),
    } = leased
    else {
        return Err(Cause::Answer);
    };
    if lease_id.is_empty() || lease_duration == 0 {
        return Err(Cause::NoLease);
    }
    Ok(Granted {
        id: LeaseId::try_from(lease_id).map_err(|_no_name| Cause::Answer)?,
        fields,
        grant: Grant {
            ends: asked + time(lease_duration),
            renewable,
            session,
        },
    })
}
