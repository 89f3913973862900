//! What gRPC says beside HTTP/2: its statuses, its deadline, and a refusal that its clients understand.
//!
//! gRPC over HTTP/2 (PROTOCOL-HTTP2.md of gRPC). An answer's status is in its trailers, and HTTP says 200 whatever
//! became of the call; who counts failures has to look there.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};

use crate::reason::Reason;

/// "Content-Type": what a request and its answers are known by.
const CONTENT_TYPE: &str = "application/grpc";

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// gRPC proposal A6, "Pushback": when a client that retries may come again.
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The longest `grpc-message` that is made here, before it is escaped.
const MESSAGE_BYTES_MAX: usize = 1024;

/// A status of gRPC, by its number: one of the 17 that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Status(u8);

/// Statuses with their words and with the HTTP status that google.rpc.Code gives them.
const STATUSES: [(&str, u16); 17] = [
    ("OK", 200),
    ("CANCELLED", 499),
    ("UNKNOWN", 500),
    ("INVALID_ARGUMENT", 400),
    ("DEADLINE_EXCEEDED", 504),
    ("NOT_FOUND", 404),
    ("ALREADY_EXISTS", 409),
    ("PERMISSION_DENIED", 403),
    ("RESOURCE_EXHAUSTED", 429),
    ("FAILED_PRECONDITION", 400),
    ("ABORTED", 409),
    ("OUT_OF_RANGE", 400),
    ("UNIMPLEMENTED", 501),
    ("INTERNAL", 500),
    ("UNAVAILABLE", 503),
    ("DATA_LOSS", 500),
    ("UNAUTHENTICATED", 401),
];

impl Status {
    /// Every status.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..).zip(STATUSES).map(|(number, _)| Self(number))
    }

    /// Reads what the head or the trailers of an answer say. What is no status of gRPC is `UNKNOWN`, as its clients
    /// read it.
    pub(crate) fn read(fields: &HeaderMap) -> Option<Self> {
        let said = fields.get(STATUS)?;
        let number = said.to_str().ok().and_then(|said| said.parse::<u8>().ok());
        Some(match number {
            Some(number) if usize::from(number) < STATUSES.len() => Self(number),
            Some(_) | None => Self(2),
        })
    }

    /// Gives the number.
    pub(crate) const fn number(self) -> u8 {
        self.0
    }

    fn row(self) -> (&'static str, u16) {
        // Of 17 there is always one.
        STATUSES.get(usize::from(self.0)).copied().unwrap_or(("UNKNOWN", 500))
    }

    /// Gives its word.
    pub(crate) fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The hundreds of the HTTP status that means the same: 5 where the callee failed, 4 where the call was at fault.
    pub(crate) fn class(self) -> u16 {
        self.row().1 / 100
    }

    /// The HTTP status that means the same.
    pub(crate) fn http(self) -> StatusCode {
        StatusCode::from_u16(self.row().1).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The status by which a client of gRPC is told why its call was not carried.
    ///
    /// Those that gRPC's own libraries never make (`NOT_FOUND`, `INVALID_ARGUMENT`, …) are left to the bots: a client that
    /// deletes takes `NOT_FOUND` for success. Only what may be tried again as it is says `UNAVAILABLE`.
    pub(crate) const fn of(reason: Reason) -> Self {
        Self(match reason {
            Reason::UnknownCaller => 16,
            Reason::NoRule
            | Reason::DeniedByRule
            | Reason::RuleExpired
            | Reason::Quarantined
            | Reason::BrowserRefused
            | Reason::OutsideForbidden
            | Reason::SecretInUrl
            | Reason::SecretInRequest => 7,
            Reason::RateLimited => 8,
            Reason::NoSuchBot => 12,
            Reason::BadRequest | Reason::BadPath => 13,
            Reason::Timeout => 4,
            Reason::CalleeMismatch
            | Reason::PeerMismatch
            | Reason::PeerUnreachable
            | Reason::CredentialUnavailable
            | Reason::NoIdentity
            | Reason::LedgerUnavailable
            | Reason::BreakerOpen
            | Reason::Overloaded => 14,
        })
    }
}

/// Tells whether a request, or an answer, is of gRPC: `application/grpc`, with or without a format, and not gRPC-Web.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(rest) = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(CONTENT_TYPE.as_bytes()))
    else {
        return false;
    };
    matches!(rest.first(), None | Some(b'+' | b';'))
}

/// Tells whether a request is a call of gRPC, whose client reads trailers: by HTTP/1.1 there is none.
pub(crate) fn is_call(version: Version, method: &Method, headers: &HeaderMap) -> bool {
    version == Version::HTTP_2 && method == Method::POST && is_grpc(headers)
}

/// "Timeout": how long the client waits, at most eight digits and a unit.
pub(crate) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let (unit, digits) = headers.get(TIMEOUT)?.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Writes, into the head of an answer without a body, why a call was not carried ("Trailers-Only").
pub(crate) fn refuse(headers: &mut HeaderMap, reason: Reason, text: &str, retry_after: Option<u64>) {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    tell(headers, Status::of(reason), text);
    if let Some(seconds) = retry_after {
        headers.insert(PUSHBACK, HeaderValue::from(seconds.saturating_mul(1000)));
    }
}

/// The trailers of a call that was under way and may not go on.
pub(crate) fn trailers(status: Status, text: &str) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    tell(&mut trailers, status, text);
    trailers
}

fn tell(fields: &mut HeaderMap, status: Status, text: &str) {
    fields.insert(STATUS, HeaderValue::from(u16::from(status.number())));
    if let Ok(message) = HeaderValue::from_maybe_shared(Bytes::from(message(text))) {
        fields.insert(MESSAGE, message);
    }
}

/// "Status-Message": percent-encoded but for what is printed in ASCII.
fn message(text: &str) -> String {
    let end = text.floor_char_boundary(MESSAGE_BYTES_MAX);
    let mut message = String::with_capacity(end);
    for byte in text.bytes().take(end) {
        match byte {
            b' '..=b'~' if byte != b'%' => message.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => write!(message, "%{byte:02X}").unwrap_or_default(),
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect()
    }

    #[test]
    fn a_call_of_grpc_is_known_by_its_type_and_comes_by_http2() {
        let call = |version, value| is_call(version, &Method::POST, &fields(&[("content-type", value)]));
        for value in ["application/grpc", "application/grpc+proto", "application/grpc;a=b"] {
            assert!(call(Version::HTTP_2, value), "{value}");
            assert!(!call(Version::HTTP_11, value), "its client would read 200");
        }
        for value in [
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/json",
            "",
        ] {
            assert!(!call(Version::HTTP_2, value), "{value}");
        }
        assert!(!is_call(Version::HTTP_2, &Method::POST, &HeaderMap::new()));
        let typed = fields(&[("content-type", "application/grpc")]);
        assert!(!is_call(Version::HTTP_2, &Method::GET, &typed));
    }

    #[test]
    fn a_status_is_one_of_seventeen() {
        let read = |value| Status::read(&fields(&[("grpc-status", value)])).map(Status::as_str);
        assert_eq!(read("0"), Some("OK"));
        assert_eq!(read("13"), Some("INTERNAL"));
        assert_eq!(read("16"), Some("UNAUTHENTICATED"));
        for value in ["17", "255", "256", "-1", "", "x"] {
            assert_eq!(read(value), Some("UNKNOWN"), "{value:?}");
        }
        assert_eq!(Status::read(&HeaderMap::new()), None);
        assert_eq!(Status::all().count(), 17);
    }

    #[test]
    fn a_failure_counts_as_one_although_http_says_200() {
        let of_class = |class| -> Vec<u8> {
            let found = Status::all().filter(|status| status.class() == class);
            found.map(Status::number).collect()
        };
        assert_eq!(of_class(2), [0]);
        assert_eq!(of_class(4), [1, 3, 5, 6, 7, 8, 9, 10, 11, 16]);
        assert_eq!(of_class(5), [2, 4, 12, 13, 14, 15]);
    }

    #[test]
    fn every_reason_has_a_status_that_no_bot_means_by_it() {
        for reason in Reason::ALL {
            let status = Status::of(reason);
            assert!(![0, 3, 5, 6, 9, 10, 11, 15].contains(&status.number()), "{reason}");
        }
        assert_eq!(Status::of(Reason::NoRule).as_str(), "PERMISSION_DENIED");
        assert_eq!(Status::of(Reason::RateLimited).as_str(), "RESOURCE_EXHAUSTED");
        assert_eq!(Status::of(Reason::PeerUnreachable).as_str(), "UNAVAILABLE");
        assert_eq!(
            Status::of(Reason::Timeout).as_str(),
            "DEADLINE_EXCEEDED",
            "what may have been done is not tried again"
        );
    }

    #[test]
    fn a_deadline_has_a_number_and_a_unit() {
        let read = |value| timeout(&fields(&[("grpc-timeout", value)]));
        assert_eq!(read("1S"), Some(Duration::from_secs(1)));
        assert_eq!(read("100m"), Some(Duration::from_millis(100)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(read("5M"), Some(Duration::from_secs(300)));
        assert_eq!(
            (read("7u"), read("7n")),
            (Some(Duration::from_micros(7)), Some(Duration::from_nanos(7)))
        );
        for value in ["", "S", "1", "1s", "-1S", "1.5S", "123456789S", "1 S"] {
            assert_eq!(read(value), None, "{value:?}");
        }
        assert_eq!(timeout(&HeaderMap::new()), None);
    }

    #[test]
    fn a_refusal_is_a_head_that_says_all() {
        let mut headers = HeaderMap::new();
        refuse(&mut headers, Reason::RateLimited, "50% caf\u{e9}\n", Some(2));
        let expected = fields(&[
            ("content-type", "application/grpc"),
            ("grpc-status", "8"),
            ("grpc-message", "50%25 caf%C3%A9%0A"),
            ("grpc-retry-pushback-ms", "2000"),
        ]);
        assert_eq!(headers, expected);
        let long = trailers(Status::of(Reason::NoRule), &"\u{e9}".repeat(1000));
        assert_eq!(long["grpc-message"].len(), MESSAGE_BYTES_MAX * 3);
    }
}
