//! What is asked of a token endpoint (RFC 6749 §4.4.2, §6), and what the value on the host is for it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use http::HeaderValue;
use policy::{ClientAuth, Grant, OAuth};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::super::percent;
use super::super::secret::{SECRET_BYTES_MIN, Secret};
use super::text::Text;
use super::{ExchangeError, TokenRequest};

/// What is sent of a value.
type Part = Zeroizing<Vec<u8>>;

/// The value of a client that has a secret and a refresh token, as Google's tools write it. Others of its keys are passed over.
#[derive(Deserialize)]
struct Authorized {
    client_secret: Text,
    refresh_token: Text,
}

/// The client's secret and the refresh token of a value, where it has either.
fn split(oauth: &OAuth, value: &Secret) -> Result<(Option<Part>, Option<Part>), ExchangeError> {
    let whole = || Zeroizing::new(value.bytes().to_vec());
    match (oauth.grant, oauth.auth) {
        (Grant::ClientCredentials, _) => Ok((Some(whole()), None)),
        (Grant::RefreshToken, ClientAuth::None) => Ok((None, Some(whole()))),
        (Grant::RefreshToken, ClientAuth::Basic | ClientAuth::Post) => {
            let read: Result<Authorized, _> = serde_json::from_slice(value.bytes());
            let Ok(read) = read else {
                let why = "it is no JSON object with client_secret and refresh_token (`auth: none` is for a client without a secret)";
                return Err(ExchangeError::Value { why });
            };
            let part = |text: &Text| Zeroizing::new(text.bytes().to_vec());
            let parts = [part(&read.client_secret), part(&read.refresh_token)];
            if parts.iter().any(|part| !is_text(part)) {
                let why = "its client_secret or refresh_token is shorter than 8 bytes, or no visible ASCII";
                return Err(ExchangeError::Value { why });
            }
            let [secret, token] = parts;
            Ok((Some(secret), Some(token)))
        }
    }
}

/// RFC 6749 appendix A, and no shorter than what can be looked for.
fn is_text(part: &[u8]) -> bool {
    part.len() >= SECRET_BYTES_MIN && part.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

/// The parts of a value that nobody but the authorization server may read.
pub(in crate::credentials) fn parts(oauth: &OAuth, value: &Secret) -> Vec<Part> {
    match split(oauth, value) {
        Ok((secret, token)) => [secret, token].into_iter().flatten().collect(),
        Err(_whole) => vec![Zeroizing::new(value.bytes().to_vec())],
    }
}

/// Asks for a token in the client's own name.
pub(super) fn with_secret(oauth: &OAuth, value: &Secret) -> Result<TokenRequest, ExchangeError> {
    let (secret, _) = split(oauth, value)?;
    request(oauth, secret.as_deref().map(Vec::as_slice), None)
}

/// Asks for a token by a refresh token: the newest that was given, or else the one that was put.
pub(super) fn with_refresh_token(
    oauth: &OAuth,
    value: &Secret,
    newest: Option<&Secret>,
) -> Result<TokenRequest, ExchangeError> {
    let (secret, put) = split(oauth, value)?;
    let token = newest.map(Secret::bytes).or(put.as_deref().map(Vec::as_slice));
    request(oauth, secret.as_deref().map(Vec::as_slice), token)
}

fn request(oauth: &OAuth, secret: Option<&[u8]>, refresh: Option<&[u8]>) -> Result<TokenRequest, ExchangeError> {
    let mut body = Form::default();
    body.put("grant_type", oauth.grant.as_str().as_bytes());
    let said = [
        ("scope", &oauth.scope),
        ("audience", &oauth.audience),
        ("resource", &oauth.resource),
    ];
    for (name, value) in said {
        if let Some(value) = value {
            body.put(name, value.as_bytes());
        }
    }
    if let Some(refresh) = refresh {
        body.put("refresh_token", refresh);
    }
    let mut authorization = None;
    match (oauth.auth, secret) {
        (ClientAuth::Basic, Some(secret)) => authorization = Some(basic(&oauth.client_id, secret)?),
        (ClientAuth::Post, Some(secret)) => {
            body.put("client_id", oauth.client_id.as_bytes());
            body.put("client_secret", secret);
        }
        (ClientAuth::None, _) | (_, None) => body.put("client_id", oauth.client_id.as_bytes()),
    }
    Ok(TokenRequest {
        authorization,
        accept: "application/json",
        content_type: "application/x-www-form-urlencoded",
        body: body.0,
    })
}

/// RFC 6749 §2.3.1: name and secret are written as a form's before they are joined.
fn basic(client_id: &str, secret: &[u8]) -> Result<HeaderValue, ExchangeError> {
    let mut pair = Form::default();
    pair.escape(client_id.as_bytes());
    pair.0.push(b':');
    pair.escape(secret);
    let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(&*pair.0)));
    let Ok(mut value) = HeaderValue::from_str(&text) else {
        return Err(ExchangeError::Value {
            why: "it cannot stand in a field",
        });
    };
    value.set_sensitive(true);
    Ok(value)
}

/// `application/x-www-form-urlencoded`, wiped when it is dropped.
#[derive(Default)]
pub(super) struct Form(Zeroizing<Vec<u8>>);

impl Form {
    pub(super) fn with_room(bytes: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(bytes)))
    }

    pub(super) fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.0
    }

    pub(super) fn put(&mut self, name: &str, value: &[u8]) {
        if !self.0.is_empty() {
            self.0.push(b'&');
        }
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'=');
        self.escape(value);
    }

    fn escape(&mut self, text: &[u8]) {
        let mut out = BytesMut::with_capacity(3 * text.len());
        percent::encode(text, &mut out);
        self.0.extend_from_slice(&out);
        zeroize::Zeroize::zeroize(&mut *out);
    }
}
