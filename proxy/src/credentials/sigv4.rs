//! Signs a request as AWS asks: Signature Version 4, in the `Authorization` field.
//!
//! Source: "Create a signed AWS API request" of the IAM user guide. Signed are the method, the path, the query, `host`, every
//! `x-amz-` field, and the hash of the body.

use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{AUTHORIZATION, HeaderName};
use spiffe::time::Timestamp;
use zeroize::Zeroizing;

use super::hex;
use super::inject::{Misfit, Target, put};
use super::percent::{self, Plus};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const BODY_HASH: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const SESSION: HeaderName = HeaderName::from_static("x-amz-security-token");

/// The one service that reads a path as it came; the others read it encoded once more.
const S3: &str = "s3";

/// The parts of an access key.
pub(super) struct AccessKey<'s> {
    pub(super) id: &'s [u8],
    pub(super) secret: &'s [u8],
    /// Of keys that end soon.
    pub(super) session: Option<&'s [u8]>,
}

impl<'s> AccessKey<'s> {
    /// Reads `ID:SECRET` or `ID:SECRET:SESSION_TOKEN`; no part has a colon.
    pub(super) fn read(value: &'s [u8]) -> Option<Self> {
        let mut parts = value.split(|byte| *byte == b':');
        let (id, secret, session) = (parts.next()?, parts.next()?, parts.next());
        let whole = !id.is_empty() && secret.len() >= super::secret::SECRET_BYTES_MIN;
        let plain = id.iter().all(u8::is_ascii_alphanumeric);
        (whole && plain && parts.next().is_none()).then_some(Self { id, secret, session })
    }
}

/// For which region and service a signature is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    pub(super) region: &'a str,
    pub(super) service: &'a str,
}

/// Signs the request.
pub(super) fn sign(key: &AccessKey<'_>, scope: Scope<'_>, now: Timestamp, to: Target<'_>) -> Result<(), Misfit> {
    let time = basic_time(now);
    let day = time.get(..8).unwrap_or_default();
    let body_hash = hex(digest::digest(&SHA256, to.body).as_ref());
    put(to.headers, DATE, &[time.as_bytes()])?;
    put(to.headers, BODY_HASH, &[body_hash.as_bytes()])?;
    if let Some(session) = key.session {
        put(to.headers, SESSION, &[session])?;
    }
    let mut fields: Vec<(&str, Vec<u8>)> = vec![("host", to.host.as_bytes().to_vec())];
    for name in to.headers.keys().filter(|name| name.as_str().starts_with("x-amz-")) {
        let values: Vec<_> = to
            .headers
            .get_all(name)
            .iter()
            .map(|value| value.as_bytes().trim_ascii())
            .collect();
        fields.push((name.as_str(), values.join(&b","[..])));
    }
    fields.sort();
    let signed = fields.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");

    let mut canonical = BytesMut::new();
    canonical.put_slice(to.method.as_str().as_bytes());
    canonical.put_u8(b'\n');
    let (path, query) = parts(to.target);
    put_path(path, scope.service, &mut canonical);
    canonical.put_u8(b'\n');
    put_query(query, &mut canonical);
    canonical.put_u8(b'\n');
    for (name, value) in &fields {
        canonical.put_slice(name.as_bytes());
        canonical.put_u8(b':');
        canonical.put_slice(value);
        canonical.put_u8(b'\n');
    }
    canonical.put_u8(b'\n');
    canonical.put_slice(signed.as_bytes());
    canonical.put_u8(b'\n');
    canonical.put_slice(body_hash.as_bytes());

    let Scope { region, service } = scope;
    let credential_scope = format!("{day}/{region}/{service}/aws4_request");
    let request_hash = hex(digest::digest(&SHA256, &canonical).as_ref());
    let to_sign = format!("{ALGORITHM}\n{time}\n{credential_scope}\n{request_hash}");
    let signature = hex(&signing_key(key.secret, day, scope, to_sign.as_bytes()));
    let parts: [&[u8]; 8] = [
        ALGORITHM.as_bytes(),
        b" Credential=",
        key.id,
        b"/",
        credential_scope.as_bytes(),
        b", SignedHeaders=",
        signed.as_bytes(),
        b", Signature=",
    ];
    put(to.headers, AUTHORIZATION, &[&parts.concat(), signature.as_bytes()])
}

/// Derives the key of one day, region and service, and signs with it.
fn signing_key(secret: &[u8], day: &str, scope: Scope<'_>, text: &[u8]) -> Vec<u8> {
    let mut key = Zeroizing::new([b"AWS4", secret].concat());
    for part in [
        day.as_bytes(),
        scope.region.as_bytes(),
        scope.service.as_bytes(),
        b"aws4_request",
        text,
    ] {
        key = Zeroizing::new(hmac::sign(&Key::new(HMAC_SHA256, &key), part).as_ref().to_vec());
    }
    key.to_vec()
}

/// `20150830T123600Z`.
fn basic_time(now: Timestamp) -> String {
    let text = now.to_string();
    let whole = text.get(..19).unwrap_or_default();
    let digits: String = whole.chars().filter(|letter| !matches!(letter, '-' | ':')).collect();
    format!("{digits}Z")
}

fn parts(target: &Bytes) -> (&[u8], &[u8]) {
    match memchr::memchr(b'?', target) {
        Some(at) => (
            target.get(..at).unwrap_or_default(),
            target.get(at + 1..).unwrap_or_default(),
        ),
        None => (target, b""),
    }
}

/// The path is encoded already, in the one way that it was read in.
fn put_path(path: &[u8], service: &str, out: &mut BytesMut) {
    if service == S3 {
        // As the service decodes it: `%7E` is `~` there.
        return path
            .split(|byte| *byte == b'/')
            .enumerate()
            .for_each(|(number, segment)| {
                if number > 0 {
                    out.put_u8(b'/');
                }
                percent::encode(&percent::decode(segment, Plus::Plus), out);
            });
    }
    for (number, segment) in path.split(|byte| *byte == b'/').enumerate() {
        if number > 0 {
            out.put_u8(b'/');
        }
        percent::encode(segment, out);
    }
}

/// Names and values, decoded and encoded in the one way, in the order of the encoded bytes.
fn put_query(query: &[u8], out: &mut BytesMut) {
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = query
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let at = memchr::memchr(b'=', pair);
            let (name, value) = match at {
                Some(at) => (
                    pair.get(..at).unwrap_or_default(),
                    pair.get(at + 1..).unwrap_or_default(),
                ),
                None => (pair, &b""[..]),
            };
            let again = |text: &[u8]| {
                let mut out = BytesMut::new();
                percent::encode(&percent::decode(text, Plus::Plus), &mut out);
                out.to_vec()
            };
            (again(name), again(value))
        })
        .collect();
    pairs.sort();
    for (number, (name, value)) in pairs.iter().enumerate() {
        if number > 0 {
            out.put_u8(b'&');
        }
        out.put_slice(name);
        out.put_u8(b'=');
        out.put_slice(value);
    }
}

#[cfg(test)]
mod tests;
