//! How a host proves itself: the first time by a join token, then by its own key,
//! even when the SVID of that key has ended, so that there is no lock-out.
//!
//! Both proofs sign the TLS exporter of the connection that carries them: relayed
//! over another connection they are worth nothing.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ca_api::node::attest_request::Evidence;
use ca_api::node::{AttestRequest, AttestResponse, BoundKeyEvidence, TokenEvidence, attest_message};
use ca_api::{JoinToken, TokenError, token};
use rustls::ClientConfig;
use spiffe::bundle::TrustBundle;
use spiffe::id::{HostName, SpiffeId, TrustDomain};
use spiffe::time::{Clock, Timestamp};
use spiffe_tls::{Expect, KeyError, PrivateKey, Svid, TlsError, client_config};
use tonic::Code;
use zeroize::Zeroizing;

use super::dial::{DialError, Dialer};
use super::snapshot::{BundleRefusal, parse_bundle};

/// From question to answer.
const ATTEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What a CA answers with: this host's SVID and whom to trust.
pub(super) struct Attested {
    pub(super) svid: Svid,
    /// JWK Set.
    pub(super) bundle: Vec<u8>,
    pub(super) ca_time: Timestamp,
}

/// Who asks, and what for.
#[derive(Debug)]
pub(super) struct Applicant<'a> {
    pub(super) dialer: &'a Dialer,
    pub(super) clock: &'a Clock,
    pub(super) trust_domain: &'a TrustDomain,
    pub(super) host: &'a HostName,
}

/// Why this host has no new node SVID.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// There is neither a key nor a token.
    #[error(
        "this host has not joined yet and there is no join token in {}: write one there \
         (`botmesh host token {host}` where the CA runs)",
        path.display()
    )]
    NoToken {
        /// `join.token_file`.
        path: PathBuf,
        /// This host.
        host: HostName,
    },
    /// The token could not be read.
    #[error("read the join token in {}", path.display())]
    ReadToken {
        /// `join.token_file`.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not a token.
    #[error("the join token in {} is not valid", path.display())]
    BadToken {
        /// `join.token_file`.
        path: PathBuf,
        /// Why.
        #[source]
        source: TokenError,
    },
    /// It is another host's token.
    #[error("the join token is for host {named} of {named_domain}; proxy.yaml says {host} of {trust_domain}")]
    OtherHost {
        /// The host that the token names.
        named: HostName,
        /// The trust domain that the token names.
        named_domain: TrustDomain,
        /// `host`.
        host: HostName,
        /// `trust_domain`.
        trust_domain: TrustDomain,
    },
    /// The CA names this host differently.
    #[error("the CA calls this host {named}; proxy.yaml says {host}")]
    NamedOtherwise {
        /// The CA's name for it.
        named: String,
        /// `host`.
        host: HostName,
    },
    /// It has ended.
    #[error("the join token expired at {expired}: make another with `botmesh host token {host}` where the CA runs")]
    TokenExpired {
        /// When.
        expired: Timestamp,
        /// This host.
        host: HostName,
    },
    /// The CA refused.
    #[error("the CA refused this host: {message}")]
    Refused {
        /// What it said.
        message: String,
    },
    /// The CA was reached and could not answer.
    #[error("the CA did not answer: {message}")]
    NoAnswer {
        /// What happened.
        message: String,
    },
    /// No CA could be reached.
    #[error("the CA is not reachable")]
    Dial {
        /// Why.
        #[source]
        source: DialError,
    },
    /// A key could not be made or used.
    #[error("make or use the node key")]
    Key {
        /// Why.
        #[source]
        source: KeyError,
    },
    /// TLS could not be set up.
    #[error("set up TLS towards the CA")]
    Tls {
        /// Why.
        #[source]
        source: TlsError,
    },
    /// What the CA issued is not usable.
    #[error("the CA issued an SVID that is not usable")]
    Svid {
        /// Why.
        #[source]
        source: TlsError,
    },
    /// The trust bundle is not usable.
    #[error("the CA sent a trust bundle that is not usable")]
    Bundle {
        /// Why.
        #[source]
        source: BundleRefusal,
    },
    /// The state directory could not be used.
    #[error("keep the node key")]
    State {
        /// Why.
        #[source]
        source: super::StateError,
    },
    /// The ledger could not be written.
    #[error("record that this host joined")]
    Record {
        /// Why.
        #[source]
        source: audit::LedgerError,
    },
}

impl JoinError {
    /// Whether the same question may be answered better in a while. The others
    /// need an operator.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::NoAnswer { .. } => true,
            Self::Dial { source } => !source.is_not_the_ca(),
            Self::NoToken { .. }
            | Self::ReadToken { .. }
            | Self::BadToken { .. }
            | Self::OtherHost { .. }
            | Self::NamedOtherwise { .. }
            | Self::TokenExpired { .. }
            | Self::Refused { .. }
            | Self::Key { .. }
            | Self::Tls { .. }
            | Self::Svid { .. }
            | Self::Bundle { .. }
            | Self::State { .. }
            | Self::Record { .. } => false,
        }
    }
}

/// Reads the join token; the text is wiped from memory.
pub(super) fn read_token(path: &Path, host: &HostName) -> Result<JoinToken, JoinError> {
    let mut text = Zeroizing::new(String::new());
    let bound = u64::try_from(token::TEXT_BYTES_MAX)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    match File::open(path).and_then(|file| file.take(bound).read_to_string(&mut text)) {
        Ok(_bytes) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(JoinError::NoToken {
                path: path.to_owned(),
                host: host.clone(),
            });
        }
        Err(source) => {
            return Err(JoinError::ReadToken {
                path: path.to_owned(),
                source,
            });
        }
    }
    JoinToken::parse(&text).map_err(|source| JoinError::BadToken {
        path: path.to_owned(),
        source,
    })
}

impl Applicant<'_> {
    /// Joins with a token: the CA is known by the pins in it.
    pub(super) async fn by_token(&self, token: &JoinToken, key: PrivateKey) -> Result<Attested, JoinError> {
        if token.host() != self.host || token.trust_domain() != self.trust_domain {
            return Err(JoinError::OtherHost {
                named: token.host().clone(),
                named_domain: token.trust_domain().clone(),
                host: self.host.clone(),
                trust_domain: self.trust_domain.clone(),
            });
        }
        // The pins are the only trust there is: an empty bundle trusts nobody else.
        let nobody =
            TrustBundle::new(self.trust_domain.clone(), Vec::new(), 0, None).map_err(|source| JoinError::Bundle {
                source: BundleRefusal::Parse { source },
            })?;
        let sha256 = token.pins().to_vec();
        let expect = Expect::PinnedRoots {
            trust_domain: self.trust_domain.clone(),
            sha256,
        };
        let secret = token.secret().expose_text().to_string();
        let evidence = Proof::Token(TokenEvidence { secret });
        let refused = self.ask(self.tls(&Arc::new(nobody), expect)?, evidence, key).await;
        // The CA tells nobody why a token is worth nothing; this host can see one reason.
        let expired = Timestamp::from_unix_seconds(token.expires_unix_seconds());
        match refused {
            Err(JoinError::Refused { .. }) if expired <= self.clock.now() => Err(JoinError::TokenExpired {
                expired,
                host: self.host.clone(),
            }),
            other => other,
        }
    }

    /// Proves this host by the key that it holds; a new key takes its place.
    pub(super) async fn by_key(&self, held: &PrivateKey, bundle: &Arc<TrustBundle>) -> Result<Attested, JoinError> {
        let key = PrivateKey::generate().map_err(|source| JoinError::Key { source })?;
        let expect = Expect::AnyCa(self.trust_domain.clone());
        self.ask(self.tls(bundle, expect)?, Proof::Key(held), key).await
    }

    fn tls(&self, bundle: &Arc<TrustBundle>, expect: Expect) -> Result<Arc<ClientConfig>, JoinError> {
        client_config(None, bundle, expect, self.clock, &[ca_api::node::ALPN])
            .map_err(|source| JoinError::Tls { source })
    }

    async fn ask(&self, tls: Arc<ClientConfig>, proof: Proof<'_>, key: PrivateKey) -> Result<Attested, JoinError> {
        let mut dialed = self
            .dialer
            .dial(&tls)
            .await
            .map_err(|source| JoinError::Dial { source })?;
        let id = SpiffeId::for_host(self.trust_domain, self.host);
        let csr = key.csr(&id).map_err(|source| JoinError::Key { source })?;
        let message = attest_message(&dialed.exporter, &csr);
        let sign = |key: &PrivateKey| key.sign(&message).map_err(|source| JoinError::Key { source });
        let (host, evidence) = match proof {
            Proof::Token(token) => (String::new(), Evidence::Token(token)),
            Proof::Key(held) => {
                let evidence = BoundKeyEvidence {
                    public_key: held.spki_der(),
                    proof: sign(held)?,
                };
                (self.host.to_string(), Evidence::BoundKey(evidence))
            }
        };
        let request = AttestRequest {
            host,
            proof: sign(&key)?,
            csr,
            evidence: Some(evidence),
        };
        let answer = match tokio::time::timeout(ATTEST_TIMEOUT, dialed.client.attest(request)).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return Err(refusal(&status)),
            Err(_elapsed) => {
                return Err(JoinError::NoAnswer {
                    message: "it took too long".to_owned(),
                });
            }
        };
        self.accept(answer, &id, key)
    }

    fn accept(&self, answer: AttestResponse, id: &SpiffeId, key: PrivateKey) -> Result<Attested, JoinError> {
        if answer.host != self.host.as_str() {
            return Err(JoinError::NamedOtherwise {
                named: answer.host,
                host: self.host.clone(),
            });
        }
        parse_bundle(self.trust_domain, &answer.bundle).map_err(|source| JoinError::Bundle { source })?;
        let svid = Svid::new(answer.chain, key).map_err(|source| JoinError::Svid { source })?;
        if svid.leaf().id() != id {
            return Err(JoinError::NamedOtherwise {
                named: svid.leaf().id().to_string(),
                host: self.host.clone(),
            });
        }
        Ok(Attested {
            svid,
            bundle: answer.bundle,
            ca_time: Timestamp::from_unix_millis(answer.ca_time_unix_ms),
        })
    }
}

enum Proof<'a> {
    Token(TokenEvidence),
    Key(&'a PrivateKey),
}

/// Tells a refusal from a CA that has no answer at the moment.
fn refusal(status: &tonic::Status) -> JoinError {
    let message = if status.message().is_empty() {
        status.code().to_string()
    } else {
        status.message().to_owned()
    };
    if is_refusal(status) {
        JoinError::Refused { message }
    } else {
        JoinError::NoAnswer { message }
    }
}

/// Whether the CA decided, as opposed to could not.
pub(super) fn is_refusal(status: &tonic::Status) -> bool {
    matches!(
        status.code(),
        Code::Unauthenticated
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::NotFound
            | Code::AlreadyExists
            | Code::Unimplemented
    )
}
