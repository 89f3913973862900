//! Exchanges a value for a short token, at the place that the mesh file names for it.
//!
//! What is asked is made of what the mesh file says and of the value (`form`), it goes to an address that was judged and to
//! nobody but the named server (`ask`), and what comes back is read strictly (`answer`). No redirect is followed, and no
//! error holds a byte of a value or of what the server wrote.

pub mod answer;
mod ask;
mod form;
mod github;
mod lineage;
mod text;

use std::sync::Arc;
use std::time::Duration;

use policy::{Credential, CredentialName, Grant, Injection, Mesh, OutsideDestination, TokenUrl};
use thiserror::Error;
use zeroize::Zeroizing;

use self::answer::{NoToken, TokenAnswer};
pub(super) use self::form::parts;
pub(super) use self::github::lines;
pub(super) use self::lineage::Lineage;
use super::secret::Secret;
use super::source::{KeyError, Sealer, SourceError};
use super::store::Outward;
use crate::outside::connect::OutsideFault;

/// What is exchanged, where, and how that place may be reached.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) injection: Injection,
    pub(super) value: Arc<Secret>,
    said: OutsideDestination,
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
            value: Arc::clone(value),
            said: mesh.outside_destination(url.outside()).cloned().unwrap_or_default(),
        })
    }

    /// Says whether a token of `other` is one of this.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        self.injection == other.injection && *self.value == *other.value
    }

    /// Exchanges the value. One at a time: `lineage` is of the one who does.
    pub(super) async fn run(
        &self,
        name: &CredentialName,
        lineage: &mut Option<Lineage>,
        (outward, sealer): (&Outward, &Sealer),
    ) -> Result<TokenAnswer, ExchangeError> {
        let oauth = match &self.injection {
            Injection::OAuth(oauth) => oauth,
            Injection::GithubApp(app) => {
                let now = outward.clock.now();
                let answer = self
                    .ask(&app.token_url, github::request(app, &self.value, now)?, outward)
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
            | Injection::Url(_) => {
                return Err(ExchangeError::Value {
                    why: "it is sent itself",
                });
            }
        };
        let token = |answer: answer::Answer| answer.token().map_err(|why| why.at(&oauth.token_url));
        match oauth.grant {
            Grant::ClientCredentials => {
                let request = form::with_secret(oauth, &self.value)?;
                token(self.ask(&oauth.token_url, request, outward).await?)
            }
            Grant::RefreshToken => {
                let newest = Lineage::newest(lineage, name, &self.value, sealer).await?;
                let request = form::with_refresh_token(oauth, &self.value, newest.as_deref())?;
                let mut answer = token(self.ask(&oauth.token_url, request, outward).await?)?;
                if let Some(next) = answer.refresh_token.take() {
                    Lineage::follow(lineage, name, &self.value, next, sealer).await?;
                }
                Ok(answer)
            }
        }
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

#[cfg(test)]
mod tests;
