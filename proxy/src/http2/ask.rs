//! One reading of a request that came by HTTP/2: by the rules of HTTP/1.1, because that is what the callee reads.
//!
//! hyper and h2 have refused what RFC 9113 §8.1.1 calls malformed: upper-case names, fields of the connection, `te`
//! other than `trailers`, pseudo-fields twice or out of place, a `content-length` that the data does not keep. A
//! fragment they have cut off the path before anybody here sees it; decided on and forwarded is what is left.

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::uri::Scheme;
use http::{Method, Request, Uri};
use hyper::body::Incoming;

use crate::bots::Wish;
use crate::call::{Refusal, RequestBody};
use crate::grpc;
use crate::http1::FIELDS_MAX;
use crate::http1::field;
use crate::http1::head::{HeadError, parse_method};
use crate::http1::target::{self, Authority, Target};
use crate::reason::Reason;

/// Reads a request, or says why it is refused.
pub(super) fn read(request: Request<Incoming>) -> Result<Wish, (Method, Box<Refusal>)> {
    let (parts, body) = request.into_parts();
    match place(&parts.method, &parts.uri, &parts.headers) {
        Ok((authority, target)) => Ok(Wish {
            grpc: grpc::is_call(parts.version, &parts.method, &parts.headers),
            authority,
            target,
            method: parts.method,
            headers: parts.headers,
            body: RequestBody::http2(body),
            upgrade: None,
        }),
        Err(refused) => Err((parts.method, refused.into())),
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// As a head of HTTP/1.1 would be.
    Head(HeadError),
    /// A tunnel over one stream.
    Connect,
    /// Neither `http` nor `https`.
    Scheme,
}

impl From<HeadError> for Refused {
    fn from(error: HeadError) -> Self {
        Self::Head(error)
    }
}

impl From<Refused> for Box<Refusal> {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Head(error) => Refusal::boxed(Reason::BadRequest, error.to_string()),
            Refused::Connect => Refusal::boxed(
                Reason::BadRequest,
                "CONNECT is served by HTTP/1.1 only; by HTTP/2 every stream is a call",
            ),
            Refused::Scheme => Refusal::boxed(Reason::BadRequest, "the scheme is not http"),
        }
    }
}

/// Checks what holds for every request that came by HTTP/2, whoever sent it; at most `max` fields are taken.
///
/// # Errors
///
/// For a tunnel over one stream, for a scheme that is no HTTP, and for what a head of HTTP/1.1 would be refused for.
pub(crate) fn check(method: &Method, uri: &Uri, headers: &HeaderMap, max: usize) -> Result<(), Box<Refusal>> {
    plain(method, uri, headers, max).map_err(Box::from)
}

fn plain(method: &Method, uri: &Uri, headers: &HeaderMap, max: usize) -> Result<(), Refused> {
    if method == Method::CONNECT {
        return Err(Refused::Connect);
    }
    parse_method(method.as_str().as_bytes())?;
    fields(headers, max)?;
    match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS => Ok(()),
        // h2 has seen a scheme, and forgets it where no `:authority` stands beside it.
        None if uri.authority().is_none() => Ok(()),
        Some(_) | None => Err(Refused::Scheme),
    }
}

fn place(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(Authority, Target), Refused> {
    plain(method, uri, headers, FIELDS_MAX)?;
    let authority = authority(uri, headers)?;
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let (target, named) = target::parse(method, &Bytes::copy_from_slice(target.as_bytes()))?;
    if named.is_some() {
        return Err(HeadError::Target.into());
    }
    // Told apart, so that its caller learns who opens TLS here.
    let tls = uri.scheme().is_some_and(|scheme| *scheme == Scheme::HTTPS);
    Ok((authority, if tls { Target::AbsoluteTls } else { target }))
}

/// RFC 9113 §8.2.1: white space around a value is malformed, and the callee would read the value without it.
fn fields(headers: &HeaderMap, max: usize) -> Result<(), HeadError> {
    if headers.len() > max {
        return Err(HeadError::TooManyFields);
    }
    if headers
        .values()
        .any(|value| field::trim(value.as_bytes()) != value.as_bytes())
    {
        return Err(HeadError::FieldValue);
    }
    field::one(headers, &header::HOST, HeadError::TwoHosts)?;
    // As in a head of HTTP/1.1; the expectation itself is met by not waiting (RFC 9110 §10.1.1).
    match field::one(headers, &header::EXPECT, HeadError::Expect)? {
        Some(value) if !value.eq_ignore_ascii_case(b"100-continue") => Err(HeadError::Expect),
        Some(_) | None => Ok(()),
    }
}

/// RFC 9113 §8.3.1: `:authority`, or `Host` where there is none; both say the same.
fn authority(uri: &Uri, headers: &HeaderMap) -> Result<Authority, HeadError> {
    let parse = |text: &[u8]| Authority::parse(&Bytes::copy_from_slice(text));
    let named = uri
        .authority()
        .map(|named| parse(named.as_str().as_bytes()))
        .transpose()?;
    let host = field::one(headers, &header::HOST, HeadError::TwoHosts)?
        .map(parse)
        .transpose()?;
    match (named, host) {
        (Some(named), Some(host)) if !named.same(&host, 80) => Err(HeadError::HostDiffers),
        (Some(named), _) => Ok(named),
        (None, Some(host)) => Ok(host),
        (None, None) => Err(HeadError::NoHost),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn read(method: &str, uri: &str, fields: &[(&'static str, &'static str)]) -> Result<(String, Target), Refused> {
        let mut all = HeaderMap::new();
        for (name, value) in fields {
            all.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let (authority, target) = place(&method, &uri.parse().unwrap(), &all)?;
        let port = authority.port().map(|port| format!(":{port}")).unwrap_or_default();
        Ok((format!("{}{port}", authority.host()), target))
    }

    #[test]
    fn whom_a_request_is_for_is_said_once_or_twice_the_same() {
        let path = || Target::Origin(Bytes::from_static(b"/a?b"));
        let told = |uri, fields: &[_]| read("GET", uri, fields);
        let expected = Ok(("orders.prod.mesh".to_owned(), path()));
        assert_eq!(told("http://orders.prod.mesh/a?b", &[]), expected);
        assert_eq!(
            told("http://ORDERS.prod.mesh/a?b", &[("host", "orders.prod.mesh:80")]),
            expected
        );
        let differs = Err(HeadError::HostDiffers.into());
        assert_eq!(
            told("http://orders.prod.mesh/a", &[("host", "stock.prod.mesh")]),
            differs
        );
        assert_eq!(
            told("http://orders.prod.mesh/a", &[("host", "orders.prod.mesh:81")]),
            differs
        );
        let twice = [("host", "orders.prod.mesh"), ("host", "orders.prod.mesh")];
        assert_eq!(
            told("http://orders.prod.mesh/a", &twice),
            Err(HeadError::TwoHosts.into())
        );
        assert_eq!(told("http://u@orders.prod.mesh/a", &[]), Err(HeadError::Host.into()));
        assert_eq!(read("GET", "/a", &[]), Err(HeadError::NoHost.into()));
    }

    #[test]
    fn what_is_no_call_by_http_is_refused() {
        let uri = "http://orders.prod.mesh/a";
        assert_eq!(read("CONNECT", "orders.prod.mesh:80", &[]), Err(Refused::Connect));
        assert_eq!(read("get", uri, &[]), Err(HeadError::Method.into()));
        assert_eq!(read("PRI", uri, &[]), Err(HeadError::Method.into()));
        assert_eq!(read("GET", "ftp://orders.prod.mesh/a", &[]), Err(Refused::Scheme));
        let tls = read("GET", "https://orders.prod.mesh/a", &[]).unwrap();
        assert_eq!(tls.1, Target::AbsoluteTls);
    }

    #[test]
    fn fields_that_the_callee_would_read_otherwise_are_refused() {
        let told = |fields: &[_]| read("GET", "http://orders.prod.mesh/a", fields).map(|_| ());
        assert_eq!(told(&[("x", " a")]), Err(HeadError::FieldValue.into()));
        assert_eq!(told(&[("x", "a\t")]), Err(HeadError::FieldValue.into()));
        assert_eq!(told(&[("expect", "200-ok")]), Err(HeadError::Expect.into()));
        assert_eq!(told(&[("expect", "100-continue"), ("x", "a b")]), Ok(()));
        assert_eq!(told(&[("x", "1"); FIELDS_MAX]), Ok(()));
        assert_eq!(
            told(&[("x", "1"); FIELDS_MAX + 1]),
            Err(HeadError::TooManyFields.into())
        );
    }
}
