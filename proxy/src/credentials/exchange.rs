//! Exchanges a value for a short token, at the place that the mesh file names for it.
//!
//! What is asked is made of what the mesh file says and of the value (`form`), it goes to an address that was judged and to
//! nobody but the named server (`ask`), and what comes back is read strictly (`answer`). No redirect is followed, and no
//! error holds a byte of a value or of what the server wrote.

pub mod answer;
mod ask;
mod federate;
mod form;
mod github;
mod lineage;
mod text;

use std::sync::Arc;
use std::time::Duration;

use policy::{Credential, CredentialName, Federate, Grant, Injection, Mesh, OutsideDestination, TokenUrl};
use spiffe::id::BotName;
use thiserror::Error;
use zeroize::Zeroizing;

use self::answer::{NoToken, TokenAnswer};
pub(super) use self::form::parts;
pub(super) use self::github::lines;
pub(super) use self::lineage::Lineage;
use super::secret::Secret;
use super::source::{KeyError, Sealer, SourceError};
use super::store::Outward;
use super::svid::Identity;
use super::token::Moment;
use crate::control::MintError;
use crate::outside::connect::OutsideFault;

/// What is exchanged, where, and how that place may be reached.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) injection: Injection,
    what: Subject,
    said: OutsideDestination,
}

/// What is exchanged.
#[derive(Clone, Debug)]
enum Subject {
    /// A value that is on this host.
    Value(Arc<Secret>),
    /// A bot's own JWT-SVID, which is another one each time.
    Svid(Arc<Identity>),
}

/// Why there is no token.
#[derive(Debug, Error)]
pub(crate) enum ExchangeError {
    /// Nobody was there who may be asked.
    #[error("reach {url}")]
    Reach {
        url: TokenUrl,
        #[source]
        source: OutsideFault,
    },
    /// It is no HTTP, or broke off.
    #[error("ask {url}")]
    Http {
        url: TokenUrl,
        #[source]
        source: hyper::Error,
    },
    /// It took too long.
    #[error("{url} did not answer within {within:?}")]
    Slow { url: TokenUrl, within: Duration },
    /// It was refused; `error` is one of the words of RFC 6749 §5.2.
    #[error("{url} answered {status}{word}", word = error.map(|word| format!(" {word}")).unwrap_or_default())]
    Refused {
        url: TokenUrl,
        status: http::StatusCode,
        error: Option<&'static str>,
    },
    /// What came back is no token.
    #[error("the answer of {url} is no token")]
    NoToken {
        url: TokenUrl,
        #[source]
        source: NoToken,
    },
    /// There is no JWT-SVID to be exchanged, or to be sent itself.
    #[error("get a JWT-SVID")]
    Svid {
        #[source]
        source: MintError,
    },
    /// The value on this host is not what is exchanged so.
    #[error("the value on this host cannot be exchanged: {why}")]
    Value { why: &'static str },
    /// The newest refresh token cannot be read, and an older one would be taken for a thief's.
    #[error("read the refresh token that was given last")]
    Lineage {
        #[source]
        source: SourceError,
    },
    /// A new refresh token was given and could not be kept; it is not used before it is.
    #[error("keep the new refresh token")]
    NotKept {
        #[source]
        source: KeyError,
    },
    /// The process is about to end.
    #[error("the proxy is closing")]
    Closing,
}

/// A request to a token endpoint.
#[derive(Debug)]
pub(super) struct TokenRequest {
    /// `Authorization`, where the client says there who it is.
    authorization: Option<http::HeaderValue>,
    accept: &'static str,
    content_type: &'static str,
    body: Zeroizing<Vec<u8>>,
}

impl Exchange {
    /// What has to be done before the credential can be added; nothing where its value is added itself.
    pub(super) fn of(credential: &Credential, value: &Arc<Secret>, mesh: &Mesh) -> Option<Self> {
        let url = credential.injection.token_url()?;
        Some(Self {
            injection: credential.injection.clone(),
            what: Subject::Value(Arc::clone(value)),
            said: mesh.outside_destination(url.outside()).cloned().unwrap_or_default(),
        })
    }

    /// The same for a credential without a value. One that is not exchanged is asked for in the same way: of the CA alone.
    pub(super) fn of_bot(credential: &Credential, identity: &Arc<Identity>, mesh: &Mesh) -> Self {
        let url = credential.injection.token_url();
        let said = url.and_then(|url| mesh.outside_destination(url.outside()).cloned());
        Self {
            injection: credential.injection.clone(),
            what: Subject::Svid(Arc::clone(identity)),
            said: said.unwrap_or_default(),
        }
    }

    /// Whose identity is exchanged; nobody's where a value is.
    pub(super) fn bot(&self) -> Option<&BotName> {
        match &self.what {
            Subject::Svid(identity) => Some(identity.bot()),
            Subject::Value(_) => None,
        }
    }

    /// Whether what comes of it is a JWT-SVID itself, whose life is short and known.
    pub(super) fn is_of_svid(&self) -> bool {
        matches!(&self.injection, Injection::Federate(federate) if federate.exchange.is_none())
    }

    /// Says whether a token of `other` is one of this.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        let same = match (&self.what, &other.what) {
            (Subject::Value(one), Subject::Value(other)) => **one == **other,
            (Subject::Svid(one), Subject::Svid(other)) => Arc::ptr_eq(one, other),
            (Subject::Value(_), Subject::Svid(_)) | (Subject::Svid(_), Subject::Value(_)) => false,
        };
        same && self.injection == other.injection
    }

    /// Exchanges the value. One at a time: `lineage` is of the one who does.
    pub(super) async fn run(
        &self,
        name: &CredentialName,
        lineage: &mut Option<Lineage>,
        (outward, sealer): (&Outward, &Sealer),
    ) -> Result<TokenAnswer, ExchangeError> {
        let value = match (&self.what, &self.injection) {
            (Subject::Svid(identity), Injection::Federate(federate)) => {
                return self.run_for_bot(identity, federate, outward).await;
            }
            (Subject::Value(value), _) => value,
            (Subject::Svid(_), _) => return Err(nothing_to_exchange()),
        };
        let oauth = match &self.injection {
            Injection::OAuth(oauth) => oauth,
            Injection::GithubApp(app) => {
                let now = outward.clock.now();
                let answer = self
                    .ask(&app.token_url, github::request(app, value, now)?, outward)
                    .await?;
                return answer.of_github(now).map_err(|why| why.at(&app.token_url));
            }
            Injection::Header { .. }
            | Injection::Bearer
            | Injection::Basic { .. }
            | Injection::Query { .. }
            | Injection::Hmac(_)
            | Injection::Sigv4 { .. }
            | Injection::Postgres { .. }
            | Injection::Federate(_)
            | Injection::Url(_) => return Err(nothing_to_exchange()),
        };
        let token = |answer: answer::Answer| answer.token().map_err(|why| why.at(&oauth.token_url));
        match oauth.grant {
            Grant::ClientCredentials => {
                let request = form::with_secret(oauth, value)?;
                token(self.ask(&oauth.token_url, request, outward).await?)
            }
            Grant::RefreshToken => {
                let newest = Lineage::newest(lineage, name, value, sealer).await?;
                let request = form::with_refresh_token(oauth, value, newest.as_deref())?;
                let mut answer = token(self.ask(&oauth.token_url, request, outward).await?)?;
                if let Some(next) = answer.refresh_token.take() {
                    Lineage::follow(lineage, name, value, next, sealer).await?;
                }
                Ok(answer)
            }
        }
    }

    /// Has a JWT-SVID signed, and exchanges it where the mesh file says so.
    async fn run_for_bot(
        &self,
        identity: &Identity,
        federate: &Federate,
        outward: &Outward,
    ) -> Result<TokenAnswer, ExchangeError> {
        let failed = |source| ExchangeError::Svid { source };
        let Some(exchange) = &federate.exchange else {
            let svid = identity.signed().await.map_err(failed)?;
            return Ok(TokenAnswer {
                token: svid.token,
                expires_in: Some(svid.life),
                refresh_token: None,
            });
        };
        let svid = identity.to_exchange(Moment::of(&outward.clock)).await.map_err(failed)?;
        let asked = self
            .ask(&exchange.token_url, federate::request(exchange, &svid), outward)
            .await;
        if !matches!(asked, Err(ExchangeError::Reach { .. })) {
            identity.was_shown();
        }
        let url = &exchange.token_url;
        asked?
            .token_of(exchange.requested_token_type)
            .map_err(|why| why.at(url))
    }

    async fn ask(
        &self,
        url: &TokenUrl,
        request: TokenRequest,
        outward: &Outward,
    ) -> Result<answer::Answer, ExchangeError> {
        ask::ask(&outward.way_out, url, &self.said, request).await
    }
}

const fn nothing_to_exchange() -> ExchangeError {
    ExchangeError::Value {
        why: "it is sent itself",
    }
}

#[cfg(test)]
mod tests;
