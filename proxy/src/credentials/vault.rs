//! Values in an OpenBao or a Vault, by its HTTP API.
//!
//! This host logs in by what it is: its own node SVID, or a token that somebody else makes anew in time. What it gets for that
//! is kept in memory, renewed while it is used, and given back at the end. Nothing that a vault answers is followed, and no
//! error says what it answered.

mod answer;
mod error;
mod http;
mod lease;
mod session;
mod settings;
mod token;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ::http::{Method, StatusCode};
use rustls::sign::CertifiedKey;
use spiffe::time::Clock;
use zeroize::Zeroizing;

pub(crate) use answer::Fields;
pub use error::{Cause, VaultError};
pub(crate) use lease::{Grant, Granted, LeaseId, NotRenewed};
pub use settings::{
    ByCert, ByJwt, Login, Stored, VAULTS_MAX, VaultAddress, VaultAddressError, VaultConfig, VaultPath, VaultSource,
    VaultWord, What,
};

use super::secret::Secret;
use super::source::Shape;
use http::{Answer, Ends, Question};
use session::{Kept, Session};

/// Gives the node SVID of this host, where one is valid now.
#[derive(Clone)]
pub(crate) struct NodeIdentity(pub(crate) Arc<dyn Fn() -> Option<Arc<CertifiedKey>> + Send + Sync>);

impl fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeIdentity")
    }
}

/// All of them, by name.
#[derive(Debug, Default)]
pub(crate) struct Vaults(BTreeMap<VaultWord, Vault>);

impl Vaults {
    pub(crate) fn new(configs: BTreeMap<VaultWord, VaultConfig>, node: &NodeIdentity, clock: &Clock) -> Self {
        let vault = |(name, config): (VaultWord, VaultConfig)| {
            let vault = Vault {
                name: name.clone(),
                config,
                node: node.clone(),
                clock: clock.clone(),
                kept: tokio::sync::Mutex::default(),
            };
            (name, vault)
        };
        Self(configs.into_iter().map(vault).collect())
    }

    /// The vault of a source. Where the configuration was read, there is one of that name.
    fn of(&self, source: &VaultSource) -> Option<&Vault> {
        source.of.as_ref().and_then(|name| self.0.get(name))
    }

    /// Reads what operators put there.
    pub(crate) async fn read(&self, shape: Shape, source: &VaultSource) -> Result<Secret, Arc<VaultError>> {
        match (self.of(source), &source.what) {
            (Some(vault), What::Kv { path, key }) => vault.kv(shape, path, key).await,
            // A lease is taken for a process of a bot, and by nobody else.
            (Some(_), What::Lease { path, .. }) => Err(unknown(source.of.as_ref(), &format!("read {path}"))),
            (None, What::Kv { path, .. } | What::Lease { path, .. }) => {
                Err(unknown(source.of.as_ref(), &format!("read {path}")))
            }
        }
    }

    /// Gives the tokens back.
    pub(crate) async fn log_out(&self) {
        for vault in self.0.values() {
            vault.log_out().await;
        }
    }
}

fn unknown(vault: Option<&VaultWord>, doing: &str) -> Arc<VaultError> {
    Arc::new(VaultError {
        doing: doing.to_owned(),
        vault: vault.cloned().unwrap_or_else(VaultWord::unnamed),
        address: "no address".to_owned(),
        cause: Cause::Unknown,
    })
}

/// One of them.
#[derive(Debug)]
struct Vault {
    name: VaultWord,
    config: VaultConfig,
    node: NodeIdentity,
    clock: Clock,
    /// What the last login gave. One logs in at a time, and the others wait for what that gives.
    kept: tokio::sync::Mutex<Kept>,
}

/// What is asked for, and what is said of it where it fails.
struct Ask<'a> {
    method: Method,
    path: &'a str,
    body: Option<Zeroizing<Vec<u8>>>,
    doing: &'a str,
    /// The right that it takes.
    capability: &'static str,
}

impl Vault {
    async fn kv(&self, shape: Shape, path: &VaultPath, key: &VaultWord) -> Result<Secret, Arc<VaultError>> {
        let doing = format!("read {path}");
        let ask = Ask {
            method: Method::GET,
            path: path.as_str(),
            body: None,
            doing: &doing,
            capability: "read",
        };
        let answer = self.ask(ask).await?;
        let read = match answer.status {
            // A version that is gone is described in an answer of that status.
            StatusCode::NOT_FOUND => Err(match answer::kv(&answer.body, key, &shape) {
                Err(gone @ (Cause::Deleted { .. } | Cause::Destroyed { .. })) => gone,
                Ok(_) | Err(_) => Cause::Nothing,
            }),
            _ => answer::kv(&answer.body, key, &shape),
        };
        read.map_err(|cause| self.failed(&doing, cause))
    }

    /// Asks with the token of this host, and gives an answer that is good, or 404.
    async fn ask(&self, ask: Ask<'_>) -> Result<Answer, Arc<VaultError>> {
        self.ask_by(ask).await.map(|(answer, _session)| answer)
    }

    /// The same, and with whose token.
    async fn ask_by(&self, ask: Ask<'_>) -> Result<(Answer, Arc<Session>), Arc<VaultError>> {
        let mut session = self.session().await?;
        let mut answer = self.send(&ask, session.token()).await?;
        // The token may have been revoked, or forgotten by a vault that began anew.
        if answer.status == StatusCode::FORBIDDEN && !self.lives(&session).await {
            self.forget(&session).await;
            session = self.session().await?;
            answer = self.send(&ask, session.token()).await?;
        }
        match cause(answer.status) {
            None => Ok((answer, session)),
            Some(Cause::Denied { .. }) => {
                let denied = Cause::Denied {
                    path: ask.path.to_owned(),
                    capability: ask.capability,
                };
                Err(self.failed(ask.doing, denied))
            }
            Some(cause) => Err(self.failed(ask.doing, cause)),
        }
    }

    async fn send(&self, ask: &Ask<'_>, token: &token::Token) -> Result<Answer, Arc<VaultError>> {
        let question = Question {
            method: ask.method.clone(),
            path: ask.path,
            token: Some(token),
            body: ask.body.clone(),
        };
        self.question(question)
            .await
            .map_err(|cause| self.failed(ask.doing, cause))
    }

    /// Asks, and gives whatever the answer is.
    async fn question(&self, question: Question<'_>) -> Result<Answer, Cause> {
        let own = match &self.config.login {
            Login::Cert(_) => Some((self.node.0)().ok_or(Cause::NoSvid)?),
            Login::Jwt(_) => None,
        };
        let ends = Ends {
            config: &self.config,
            clock: &self.clock,
            own,
        };
        // Rare, and of much room.
        Box::pin(ends.ask(question)).await
    }

    fn failed(&self, doing: &str, cause: Cause) -> Arc<VaultError> {
        Arc::new(VaultError {
            doing: doing.to_owned(),
            vault: self.name.clone(),
            address: self.config.address.to_string(),
            cause,
        })
    }
}

/// What is wrong with an answer of this status; nothing where it is good, or says that there is nothing.
fn cause(status: StatusCode) -> Option<Cause> {
    match status.as_u16() {
        200..=299 | 404 => None,
        300..=399 => Some(Cause::Redirect { status }),
        403 => Some(Cause::Denied {
            path: String::new(),
            capability: "",
        }),
        // 472 and 473 are standbys (sys/health, and all else where they do not pass it on).
        429 | 472 | 473 | 502..=504 => Some(Cause::Away { status }),
        _ => Some(Cause::Status { status }),
    }
}

#[cfg(test)]
mod tests;
