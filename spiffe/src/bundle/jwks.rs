//! The JSON form of a bundle.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{BUNDLE_BYTES_MAX, BUNDLE_KEYS_MAX, BundleError, TrustBundle};
use crate::id::TrustDomain;
use crate::jwt::JwtAuthority;
use crate::svid::{Authority, AuthorityKey};

/// The top level of the document. Members that are not named here are ignored (RFC 7517 §5).
#[derive(Deserialize)]
struct Document {
    keys: Vec<Map<String, Value>>,
    #[serde(default)]
    spiffe_sequence: u64,
    #[serde(default)]
    spiffe_refresh_hint: Option<u64>,
}

pub(super) fn parse(trust_domain: &TrustDomain, jwks: &[u8]) -> Result<TrustBundle, BundleError> {
    let domain = || trust_domain.clone();
    if jwks.len() > BUNDLE_BYTES_MAX {
        return Err(BundleError::Oversize {
            trust_domain: domain(),
            bytes: jwks.len(),
        });
    }
    let document: Document = serde_json::from_slice(jwks).map_err(|source| BundleError::NotJwks {
        trust_domain: domain(),
        source,
    })?;
    if document.keys.len() > BUNDLE_KEYS_MAX {
        return Err(BundleError::TooManyKeys {
            trust_domain: domain(),
            keys: document.keys.len(),
        });
    }
    let authorities = of_kind(&document, "x509-svid", |index, key| {
        authority(trust_domain, index, key).transpose()
    })?;
    let jwt_authorities = of_kind(&document, "jwt-svid", |index, key| {
        let read = JwtAuthority::from_jwk(key).transpose()?;
        Some(read.map_err(|source| BundleError::JwtAuthority {
            trust_domain: domain(),
            index,
            source,
        }))
    })?;
    TrustBundle::new(
        domain(),
        authorities,
        document.spiffe_sequence,
        document.spiffe_refresh_hint.map(Duration::from_secs),
    )?
    .with_jwt_authorities(jwt_authorities, document.spiffe_sequence)
}

/// Reads the keys that are meant for this; a reader that gives nothing ignores one.
fn of_kind<T>(
    document: &Document,
    usage: &str,
    read: impl Fn(usize, &Map<String, Value>) -> Option<Result<T, BundleError>>,
) -> Result<Vec<T>, BundleError> {
    let meant = document.keys.iter().enumerate().filter(|(_, key)| is_for(key, usage));
    meant.filter_map(|(index, key)| read(index, key)).collect()
}

/// Reads the certificate of a key; nothing where it has none.
fn authority(
    trust_domain: &TrustDomain,
    index: usize,
    key: &Map<String, Value>,
) -> Result<Option<Authority>, BundleError> {
    let domain = || trust_domain.clone();
    let Some(x5c) = first_certificate(key).ok_or_else(|| BundleError::X5c {
        trust_domain: domain(),
        index,
    })?
    else {
        return Ok(None);
    };
    let der = STANDARD.decode(x5c).map_err(|source| BundleError::Base64 {
        trust_domain: domain(),
        index,
        source,
    })?;
    Authority::parse(&der)
        .map(Some)
        .map_err(|source| BundleError::Authority {
            trust_domain: domain(),
            index,
            source,
        })
}

/// Tells whether a key is meant for this and of a kind that is known.
fn is_for(key: &Map<String, Value>, usage: &str) -> bool {
    let text = |member| key.get(member).and_then(Value::as_str);
    text("use") == Some(usage) && matches!(text("kty"), Some("EC" | "RSA"))
}

/// Gives the first string of `x5c`: inside, `None` where there is none; outside, `None` where it is malformed.
fn first_certificate(key: &Map<String, Value>) -> Option<Option<&str>> {
    let Some(x5c) = key.get("x5c") else {
        return Some(None);
    };
    let Some(first) = x5c.as_array()?.first() else {
        return Some(None);
    };
    first.as_str().map(Some)
}

pub(super) fn write(bundle: &TrustBundle) -> Vec<u8> {
    let x509 = bundle.authorities().iter().map(jwk);
    let jwt = bundle.jwt_authorities().iter().map(JwtAuthority::to_spiffe_jwk);
    let keys: Vec<Value> = x509.chain(jwt).collect();
    let mut document = json!({ "keys": keys, "spiffe_sequence": bundle.sequence() });
    if let (Some(hint), Some(members)) = (bundle.refresh_hint(), document.as_object_mut()) {
        members.insert("spiffe_refresh_hint".to_owned(), json!(hint.as_secs()));
    }
    document.to_string().into_bytes()
}

pub(super) fn write_oidc(bundle: &TrustBundle) -> Vec<u8> {
    let keys: Vec<Value> = bundle.jwt_authorities().iter().map(JwtAuthority::to_oidc_jwk).collect();
    json!({ "keys": keys }).to_string().into_bytes()
}

/// Writes one key with the parameters that RFC 7518 §6 requires beside the certificate.
fn jwk(authority: &Authority) -> Value {
    let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let x5c = [STANDARD.encode(authority.der())];
    let elliptic = |curve: &str, x: &[u8], y: &[u8]| json!({ "kty": "EC", "use": "x509-svid", "crv": curve, "x": number(x), "y": number(y), "x5c": x5c });
    match authority.key() {
        AuthorityKey::P256 { x, y } => elliptic("P-256", x, y),
        AuthorityKey::P384 { x, y } => elliptic("P-384", x, y),
        AuthorityKey::Rsa { n, e } => {
            json!({ "kty": "RSA", "use": "x509-svid", "n": number(n), "e": number(e), "x5c": x5c })
        }
    }
}
