//! From evidence about a host to its node SVID.
//!
//! The peer hears one sentence whatever is wrong. What is wrong is in the ledger:
//! as an event of its own when the peer proved that it knows a token or a key, and
//! counted by source when anybody could have sent it.

use std::sync::Arc;

use audit::EventKind;
use ca_api::TokenSecret;
use ca_api::node::attest_request::Evidence;
use ca_api::node::{AttestRequest, AttestResponse, BoundKeyEvidence, CSR_BYTES_MAX, attest_message};
use serde_json::json;
use spiffe::id::{HostName, SpiffeId};
use tonic::Status;

use super::Peer;
use crate::Digest;
use crate::alerts::AlertKind;
use crate::authority::{Issued, sha256};
use crate::core::{Core, NODE_SVID_TTL};
use crate::issue::{IssueError, Order};
use crate::refusals::HostRefusal;
use crate::store::{Claim, Presented, TokenRefusal};

/// A P-256 SubjectPublicKeyInfo has 91 bytes.
const PUBLIC_KEY_BYTES_MAX: usize = 256;

/// Why evidence was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Refusal {
    /// Anybody could have sent this.
    Stranger(&'static str),
    /// Somebody who knows a token's secret.
    Token(TokenRefusal),
    /// Somebody who holds the key that a host once had.
    OldKey { host: HostName },
    /// The host itself, which is cut off.
    Quarantined { host: HostName },
}

/// Evidence that held.
#[derive(Clone, Debug)]
struct Attested {
    host: HostName,
    presented: Presented,
    /// The word for metrics and ledger.
    how: &'static str,
}

pub(super) async fn attest(core: &Arc<Core>, peer: &Peer, request: AttestRequest) -> Result<AttestResponse, Status> {
    let spki = match prove(peer, &request) {
        Ok(spki) => spki,
        Err(refusal) => return Err(refused(core, peer, &refusal)),
    };
    let evidence = check_evidence(core, peer, &request, &spki)
        .await
        .map_err(|error| failed(core, &error))?;
    let attested = match evidence {
        Ok(attested) => attested,
        Err(refusal) => return Err(refused(core, peer, &refusal)),
    };
    if !core.quotas.take(&attested.host, 1, core.now()) {
        core.metrics.issued.with_label_values(&["host", "limited"]).inc();
        core.host_refused(&attested.host, peer.address.ip(), HostRefusal::SvidsLimited, "its own");
        return Err(Status::resource_exhausted(
            "more SVIDs than a host needs; try again later",
        ));
    }
    if core.quarantines.list().has_host(&attested.host) {
        return Err(refused(core, peer, &Refusal::Quarantined { host: attested.host }));
    }
    match admit(core, peer, &attested, spki).await {
        Ok(Some(_late)) if core.quarantines.list().has_host(&attested.host) => {
            Err(refused(core, peer, &Refusal::Quarantined { host: attested.host }))
        }
        Ok(Some(issued)) => {
            if matches!(attested.presented, Presented::BoundKey(_)) {
                core.acted(&attested.host, peer.address.ip());
            }
            core.metrics.attested.with_label_values(&[attested.how]).inc();
            core.metrics.issued.with_label_values(&["host", "issued"]).inc();
            Ok(AttestResponse {
                chain: vec![issued.der],
                bundle: core.bundle.to_jwks(),
                host: attested.host.to_string(),
                ca_time_unix_ms: core.now().unix_millis(),
            })
        }
        Ok(None) => Err(refused(core, peer, &Refusal::OldKey { host: attested.host })),
        Err(error) => Err(failed(core, &error)),
    }
}

/// Checks that the peer holds the key of its CSR, on this very connection.
fn prove(peer: &Peer, request: &AttestRequest) -> Result<Vec<u8>, Refusal> {
    if request.csr.len() > CSR_BYTES_MAX {
        return Err(Refusal::Stranger("attest_bad_csr"));
    }
    let spki = spiffe_tls::csr_public_key(&request.csr).map_err(|_vague| Refusal::Stranger("attest_bad_csr"))?;
    let message = attest_message(&peer.exporter, &request.csr);
    spiffe_tls::verify_p256(&spki, &message, &request.proof).map_err(|_vague| Refusal::Stranger("attest_bad_proof"))?;
    Ok(spki)
}

async fn check_evidence(
    core: &Core,
    peer: &Peer,
    request: &AttestRequest,
    spki: &[u8],
) -> Result<Result<Attested, Refusal>, IssueError> {
    match &request.evidence {
        None => Ok(Err(Refusal::Stranger("attest_no_evidence"))),
        Some(Evidence::Token(token)) => check_token(core, &request.host, &token.secret, sha256(spki)).await,
        Some(Evidence::BoundKey(bound)) => Ok(check_bound_key(core, peer, request, bound)),
    }
}

async fn check_token(
    core: &Core,
    host: &str,
    secret: &str,
    key: Digest,
) -> Result<Result<Attested, Refusal>, IssueError> {
    let Ok(secret) = TokenSecret::from_text(secret) else {
        return Ok(Err(Refusal::Token(TokenRefusal::Unknown)));
    };
    // The token names the host; a peer that names another one is confused or worse.
    if !host.is_empty() {
        return Ok(Err(Refusal::Stranger("attest_named_host")));
    }
    let secret_sha256 = sha256(secret.expose());
    let claim = core
        .store
        .claim_token(secret_sha256, key, core.now())
        .await
        .map_err(|source| IssueError::Record { source })?;
    Ok(match claim {
        Claim::Claimed { host, first } => {
            let how = if first { "joined" } else { "repeated" };
            Ok(Attested {
                host,
                presented: Presented::Token { secret_sha256 },
                how,
            })
        }
        Claim::Refused(refusal) => Err(Refusal::Token(refusal)),
    })
}

fn check_bound_key(
    core: &Core,
    peer: &Peer,
    request: &AttestRequest,
    bound: &BoundKeyEvidence,
) -> Result<Attested, Refusal> {
    let Ok(host) = HostName::parse(&request.host) else {
        return Err(Refusal::Stranger("attest_bad_host"));
    };
    if bound.public_key.len() > PUBLIC_KEY_BYTES_MAX {
        return Err(Refusal::Stranger("attest_bad_key"));
    }
    let message = attest_message(&peer.exporter, &request.csr);
    spiffe_tls::verify_p256(&bound.public_key, &message, &bound.proof)
        .map_err(|_vague| Refusal::Stranger("attest_bad_proof"))?;
    let key = sha256(&bound.public_key);
    match core.world.hosts().get(&host) {
        Some(view) if view.row.holds(&key) => Ok(Attested {
            host,
            presented: Presented::BoundKey(key),
            how: "renewed",
        }),
        Some(view) if view.row.key == key => Err(Refusal::OldKey { host }),
        _ => Err(Refusal::Stranger("attest_unknown_key")),
    }
}

/// Signs, records and makes the host known. `None`: it lost its right meanwhile.
async fn admit(
    core: &Arc<Core>,
    peer: &Peer,
    attested: &Attested,
    spki: Vec<u8>,
) -> Result<Option<Issued>, IssueError> {
    let host = &attested.host;
    let order = Order {
        id: SpiffeId::for_host(core.trust_domain(), host),
        spki,
        ttl: NODE_SVID_TTL,
    };
    let Some(issued) = core.sign(vec![order]).await?.pop() else {
        return Err(IssueError::Stopped);
    };
    let record = core.issuance(&issued, host);
    let row = core
        .store
        .record_node_svid(record.clone(), attested.presented.clone())
        .await
        .map_err(|source| IssueError::Record { source })?;
    let Some(row) = row else { return Ok(None) };
    let ledger = |source| IssueError::Ledger { source };
    let kind = if row.joined == record.issued_at {
        EventKind::HostJoined
    } else {
        EventKind::Attested
    };
    let detail = [
        ("how", json!(attested.how)),
        ("source", json!(peer.address.ip())),
        ("key_sha256", json!(crate::hex(&record.spki_sha256))),
        ("serial", json!(record.serial)),
    ];
    core.journal
        .event(kind, &format!("host:{host}"), record.id.as_str(), detail)
        .map_err(ledger)?;
    core.journal.issued(&record).map_err(ledger)?;
    core.world.put_row(row);
    Ok(Some(issued))
}

/// Tells the operator what, and the peer that.
fn refused(core: &Core, peer: &Peer, refusal: &Refusal) -> Status {
    let source = peer.address.ip();
    let (word, recorded) = match refusal {
        Refusal::Stranger(word) => (*word, None),
        Refusal::Token(TokenRefusal::Unknown) => ("token_unknown", None),
        Refusal::Token(TokenRefusal::Expired { .. }) => ("token_expired", None),
        Refusal::Token(TokenRefusal::OtherKey { host, record }) => {
            let hint = "another machine holds this token: find out who, then `botmesh host evict` and a new token";
            (
                "token_other_key",
                record.then_some((EventKind::TokenRefused, host, hint)),
            )
        }
        Refusal::Token(TokenRefusal::HostHasKey { host, record }) => {
            let hint = "the host already holds a key: `botmesh host evict` it first, if that is meant";
            ("host_has_key", record.then_some((EventKind::TokenRefused, host, hint)))
        }
        Refusal::OldKey { .. } => ("key_not_current", None),
        Refusal::Quarantined { .. } => ("quarantined", None),
    };
    core.metrics.attested.with_label_values(&[word]).inc();
    match (recorded, refusal) {
        (_, Refusal::OldKey { host }) => core.key_refused(host, source),
        (_, Refusal::Quarantined { host }) => core.host_refused(host, source, HostRefusal::Quarantined, "its own"),
        (Some((kind, host, hint)), _) => {
            let detail = [
                ("reason", json!(word)),
                ("source", json!(source)),
                ("hint", json!(hint)),
            ];
            core.journal
                .note(kind, &format!("address:{source}"), &format!("host:{host}"), detail);
            if matches!(refusal, Refusal::Token(TokenRefusal::OtherKey { .. })) {
                core.alert(host, AlertKind::TokenTwice, vec![source]);
            }
        }
        (None, _) => core.journal.stranger(source, word),
    }
    // Whoever proved to be the host may know, and its operator has to.
    if matches!(refusal, Refusal::Quarantined { .. }) {
        return Status::permission_denied("this host is quarantined: it gets no SVID until it is released");
    }
    Status::permission_denied("the evidence was refused; the CA's ledger says why")
}

fn failed(core: &Core, error: &IssueError) -> Status {
    core.metrics.issued.with_label_values(&["host", "failed"]).inc();
    tracing::error!(error = error as &dyn std::error::Error, "a host could not be attested");
    Status::unavailable("the CA could not issue; try again")
}
