//! The one verifier of both directions.

use rustls_pki_types::{CertificateDer, TrustAnchor};
use spiffe::bundle::TrustBundle;
use spiffe::id::{IdKind, SpiffeId, TrustDomain};
use spiffe::svid::{Authority, Leaf};
use spiffe::time::Timestamp;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::crypto::{SIGNATURES, unix_time};
use crate::refusal::HandshakeRefusal;

/// The most certificates that a peer may present: a leaf, two intermediates and a root.
pub const CHAIN_CERTIFICATES_MAX: usize = 4;

/// Gives the peer's leaf from what a finished handshake kept of its chain.
///
/// # Errors
/// When the peer presented no certificate, or (never after a handshake of this crate) one that is no SVID.
pub fn peer_leaf(certificates: Option<&[CertificateDer<'_>]>) -> Result<Leaf, HandshakeRefusal> {
    let first = certificates
        .and_then(<[_]>::first)
        .ok_or(HandshakeRefusal::NoCertificate)?;
    Ok(Leaf::parse(first)?)
}

/// Whose signatures count.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Roots<'a> {
    /// The authorities of the bundle.
    Bundle(&'a TrustBundle),
    /// The authorities that the peer presents itself, where their key has one of these hashes.
    Pinned {
        trust_domain: &'a TrustDomain,
        sha256: &'a [[u8; 32]],
    },
}

/// Who the peer has to be, beside a member of the trust domain.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Peer<'a> {
    Exact(&'a SpiffeId),
    Ca,
    Member,
}

/// Which end the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The end that was called.
    Server,
    /// The end that called.
    Client,
}

/// Verifies a presented chain, and gives its leaf.
///
/// The leaf's own rules come first, because they give the better reason. That cannot let anyone in: the chain and the
/// expected ID are verified after them in every case, and each step can only refuse.
pub(crate) fn verify(
    leaf_der: &CertificateDer<'_>,
    rest: &[CertificateDer<'_>],
    roots: Roots<'_>,
    peer: Peer<'_>,
    role: Role,
    now: Timestamp,
) -> Result<Leaf, HandshakeRefusal> {
    let certificates = rest.len().saturating_add(1);
    if certificates > CHAIN_CERTIFICATES_MAX {
        return Err(HandshakeRefusal::ChainTooLong { certificates });
    }
    let leaf = Leaf::parse(leaf_der)?;
    member(leaf.id(), roots.trust_domain())?;
    if now < leaf.not_before() {
        return Err(HandshakeRefusal::NotYetValid);
    }
    if now > leaf.not_after() {
        return Err(HandshakeRefusal::Expired);
    }
    let presented = intermediates(rest, roots.trust_domain())?;
    chain(leaf_der, rest, &roots.authorities(&presented, now)?, role, now)?;
    expect(&leaf, peer)?;
    Ok(leaf)
}

impl<'a> Roots<'a> {
    fn trust_domain(&self) -> &'a TrustDomain {
        match self {
            Self::Bundle(bundle) => bundle.trust_domain(),
            Self::Pinned { trust_domain, .. } => trust_domain,
        }
    }

    /// Gives the authorities that count at `now`. webpki does not look at the validity of a trust anchor, so this does.
    fn authorities<'b>(
        &self,
        presented: &'b [Authority],
        now: Timestamp,
    ) -> Result<Vec<&'b Authority>, HandshakeRefusal>
    where
        'a: 'b,
    {
        let valid = |authority: &&Authority| authority.not_before() <= now && now <= authority.not_after();
        match self {
            Self::Bundle(bundle) => Ok(bundle.authorities().iter().filter(valid).collect()),
            // Only the key of a pinned certificate is authentic, but what that key signed is all that it is used for.
            Self::Pinned { sha256, .. } => {
                let pinned: Vec<_> = presented
                    .iter()
                    .filter(|root| sha256.contains(root.spki_sha256()))
                    .collect();
                if pinned.is_empty() {
                    return Err(HandshakeRefusal::UnpinnedRoot);
                }
                Ok(pinned.into_iter().filter(valid).collect())
            }
        }
    }
}

/// Parses what follows the leaf: signing certificates of this trust domain, and nothing else.
fn intermediates(rest: &[CertificateDer<'_>], domain: &TrustDomain) -> Result<Vec<Authority>, HandshakeRefusal> {
    rest.iter()
        .map(|der| {
            let authority = Authority::parse(der).map_err(|source| HandshakeRefusal::BadIntermediate { source })?;
            authority.id().map_or(Ok(()), |id| member(id, domain))?;
            Ok(authority)
        })
        .collect()
}

fn member(id: &SpiffeId, domain: &TrustDomain) -> Result<(), HandshakeRefusal> {
    if id.is_member_of(domain) {
        return Ok(());
    }
    Err(HandshakeRefusal::OtherTrustDomain {
        expected: domain.clone(),
        got: id.trust_domain(),
    })
}

/// Validates the path by RFC 5280 §6: signatures, validity, CA bits, path lengths, extended key usage.
fn chain(
    leaf: &CertificateDer<'_>,
    rest: &[CertificateDer<'_>],
    roots: &[&Authority],
    role: Role,
    now: Timestamp,
) -> Result<(), HandshakeRefusal> {
    let ders: Vec<CertificateDer<'_>> = roots.iter().map(|root| CertificateDer::from(root.der())).collect();
    let anchors = ders
        .iter()
        .map(anchor_from_trusted_cert)
        .collect::<Result<Vec<TrustAnchor<'_>>, _>>()
        .map_err(refusal)?;
    let usage = match role {
        Role::Server => KeyUsage::server_auth(),
        Role::Client => KeyUsage::client_auth(),
    };
    let leaf = EndEntityCert::try_from(leaf).map_err(refusal)?;
    leaf.verify_for_usage(SIGNATURES.all, &anchors, rest, unix_time(now), usage, None, None)
        .map_err(refusal)?;
    Ok(())
}

fn refusal(source: webpki::Error) -> HandshakeRefusal {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every other error of the chain has one reason"
    )]
    match source {
        webpki::Error::CertExpired { .. } => HandshakeRefusal::Expired,
        webpki::Error::CertNotValidYet { .. } => HandshakeRefusal::NotYetValid,
        webpki::Error::RequiredEkuNotFoundContext(_) => HandshakeRefusal::WrongEku,
        source => HandshakeRefusal::UntrustedChain { source },
    }
}

fn expect(leaf: &Leaf, peer: Peer<'_>) -> Result<(), HandshakeRefusal> {
    let got = leaf.id();
    match peer {
        Peer::Member => Ok(()),
        Peer::Exact(expected) if got == expected => Ok(()),
        Peer::Exact(expected) => Err(HandshakeRefusal::WrongId {
            expected: expected.clone(),
            got: got.clone(),
        }),
        Peer::Ca if matches!(got.kind(), IdKind::Ca(_)) => Ok(()),
        Peer::Ca => Err(HandshakeRefusal::NotCa { got: got.clone() }),
    }
}
