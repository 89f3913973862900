//! Adds a credential to a request that may be made.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderMap, HeaderValue, Method};
use policy::Injection;
use spiffe::time::Timestamp;
use thiserror::Error;
use zeroize::Zeroizing;

use super::hook::{self, NoHook};
use super::percent::{self, Plus};
use super::secret::Secret;
use super::{exchange, hmac, sigv4, svid};

/// What of a request a credential is added to, or signs.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) method: &'a Method,
    /// As `Host` has it.
    pub(crate) host: &'a str,
    /// Path and query.
    pub(crate) target: &'a mut Bytes,
    pub(crate) headers: &'a mut HeaderMap,
    /// All of the body, where it is to be signed.
    pub(crate) body: &'a [u8],
}

/// Why a value does not fit the way in which it is to be added. No error has the value in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Misfit {
    /// It cannot stand in the field.
    #[error("the value cannot stand in its field")]
    Field,
    /// It is for databases.
    #[error("the value is for a database, and not for requests")]
    Database,
    /// A signature of AWS needs two parts.
    #[error("the value is not ID:SECRET or ID:SECRET:SESSION_TOKEN, as sigv4 needs it")]
    AccessKey,
    /// The address of a webhook leads elsewhere: the mesh file has changed since it was read.
    #[error("the value is not the address that is meant")]
    Address(#[source] NoHook),
}

/// The parts of a value that nobody but the service may read. Of an access key the first part is public.
pub(crate) fn guarded(injection: &Injection, secret: &Secret) -> Vec<Zeroizing<Vec<u8>>> {
    let whole = || secret.copy();
    match injection {
        Injection::Basic { user } => vec![whole(), basic(user, secret)],
        Injection::OAuth(oauth) => exchange::parts(oauth, secret),
        Injection::GithubApp(_) => exchange::lines(secret),
        Injection::Sigv4 { .. } => match sigv4::AccessKey::read(secret.bytes()) {
            Some(key) => {
                let parts = [Some(key.secret), key.session];
                parts
                    .into_iter()
                    .flatten()
                    .map(|part| Zeroizing::new(part.to_vec()))
                    .collect()
            }
            None => vec![whole()],
        },
        Injection::Header { .. }
        | Injection::Bearer
        | Injection::Query { .. }
        | Injection::Hmac(_)
        | Injection::Postgres { .. }
        | Injection::Url(_) => {
            // Of an address, whatever it is there for, the host is known and short parts are keys.
            let parts = hook::parts(secret.bytes());
            if parts.is_empty() { vec![whole()] } else { parts }
        }
        Injection::Federate(_) => match svid::signature(secret) {
            end if end.len() == secret.bytes().len() => vec![whole()],
            end => vec![whole(), Zeroizing::new(end.to_vec())],
        },
    }
}

/// Drops what the bot sent in the place of a credential: it holds none, and what it sends there is a dummy or a lie.
fn drop_own(injection: &Injection, headers: &mut HeaderMap) {
    for name in injection.fields() {
        headers.remove(name);
    }
}

/// Adds the credential.
///
/// # Errors
///
/// When the value does not fit the way. Nothing may be sent then.
pub(crate) fn inject(injection: &Injection, secret: &Secret, now: Timestamp, to: Target<'_>) -> Result<(), Misfit> {
    drop_own(injection, to.headers);
    if injection.sends_value() {
        // An answer that is compressed could not be looked through.
        to.headers
            .insert(http::header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    match injection {
        Injection::Header { name, prefix } => {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_invalid| Misfit::Field)?;
            put(to.headers, name, &[prefix.as_bytes(), secret.bytes()])
        }
        // What stands there was exchanged for the value, or signed for the bot.
        Injection::Bearer | Injection::OAuth(_) | Injection::GithubApp(_) | Injection::Federate(_) => {
            put(to.headers, AUTHORIZATION, &[b"Bearer ", secret.bytes()])
        }
        Injection::Basic { user } => put(to.headers, AUTHORIZATION, &[b"Basic ", &basic(user, secret)]),
        Injection::Query { name, .. } => {
            *to.target = with_parameter(to.target, name, secret.bytes());
            Ok(())
        }
        Injection::Hmac(of) => hmac::sign(of, secret, now, to.headers, to.body),
        Injection::Postgres { .. } => Err(Misfit::Database),
        Injection::Url(at) => {
            let target = hook::target(secret.bytes(), at).map_err(Misfit::Address)?;
            *to.target = Bytes::copy_from_slice(target);
            Ok(())
        }
        Injection::Sigv4 { region, service } => {
            let key = sigv4::AccessKey::read(secret.bytes()).ok_or(Misfit::AccessKey)?;
            sigv4::sign(&key, sigv4::Scope { region, service }, now, to)
        }
    }
}

/// Sets a field, and has nobody show its value.
pub(super) fn put(headers: &mut HeaderMap, name: HeaderName, parts: &[&[u8]]) -> Result<(), Misfit> {
    let whole = Zeroizing::new(parts.concat());
    let mut value = HeaderValue::from_bytes(&whole).map_err(|_invalid| Misfit::Field)?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}

fn basic(user: &str, secret: &Secret) -> Zeroizing<Vec<u8>> {
    let pair = Zeroizing::new([user.as_bytes(), b":", secret.bytes()].concat());
    Zeroizing::new(STANDARD.encode(&*pair).into_bytes())
}

/// Puts a parameter at the end of a query, in the place of those of its name.
fn with_parameter(target: &Bytes, name: &str, value: &[u8]) -> Bytes {
    let at = memchr::memchr(b'?', target);
    let (path, query) = match at {
        Some(at) => (target.slice(..at), target.slice(at + 1..)),
        None => (target.clone(), Bytes::new()),
    };
    let mut out = BytesMut::with_capacity(target.len() + name.len() + 3 * value.len() + 2);
    out.put_slice(&path);
    out.put_u8(b'?');
    let others = query.split(|byte| *byte == b'&').filter(|parameter| {
        let own = parameter.split(|byte| *byte == b'=').next().unwrap_or_default();
        !parameter.is_empty() && percent::decode(own, Plus::Space) != name.as_bytes()
    });
    for parameter in others {
        out.put_slice(parameter);
        out.put_u8(b'&');
    }
    out.put_slice(name.as_bytes());
    out.put_u8(b'=');
    percent::encode(value, &mut out);
    out.freeze()
}

#[cfg(test)]
mod tests;
