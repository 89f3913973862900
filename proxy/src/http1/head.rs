//! The head of a request, read by RFC 9112 section by section.

use bytes::Bytes;
use http::Method;
use http::header::{self, HeaderMap};
use policy::Protocol;
use thiserror::Error;

use super::FIELDS_MAX;
use super::field;
use super::framing::{self, Framing, Version};
use super::target::{self, Authority, Target};

/// The longest method that is read.
const METHOD_BYTES_MAX: usize = 32;

/// A request's head. Whatever two readers could read differently was refused.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The method, in upper case.
    pub method: Method,
    /// What is asked for, by its bytes.
    pub target: Target,
    /// Who is asked: the one `Host`, to which the target's own authority is equal if it has one.
    pub authority: Authority,
    /// The version of the sender.
    pub version: Version,
    /// All fields, those of this connection included; values share one piece of memory.
    pub headers: HeaderMap,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether the sender will have the connection go on.
    pub persists: bool,
    /// Whether the sender waits for `100 Continue` before its body.
    pub expects_continue: bool,
    /// What the sender asks to switch to.
    pub upgrade: Option<Protocol>,
}

impl RequestHead {
    /// Reads a whole head, its last empty line included, as [`Scanner`](super::scan::Scanner) cuts it.
    ///
    /// # Errors
    ///
    /// A [`HeadError`] for everything that RFC 9112 forbids and for what it lets a recipient repair.
    pub fn parse(head: &Bytes) -> Result<Self, HeadError> {
        Self::parse_with(head, FIELDS_MAX)
    }

    /// The same with at most `fields_max` fields: another proxy adds its own to those of its bot.
    ///
    /// # Errors
    ///
    /// As [`RequestHead::parse`].
    pub fn parse_with(head: &Bytes, fields_max: usize) -> Result<Self, HeadError> {
        let (line, rest) = field::split_line(head)?;
        let RequestLine {
            method,
            target,
            version,
        } = split_request_line(line)?;
        let method = parse_method(method)?;
        let version = parse_version(version)?;
        let (target, named) = target::parse(&method, &head.slice_ref(target))?;
        let headers = field::parse(&head.slice_ref(rest), fields_max)?;
        let authority = host(&headers, &target, named, version)?;
        let framing = framing::read(&headers, version)?;
        let connection = framing::connection(&headers)?;
        let upgrade = upgrade(&headers, &method, version, connection, framing)?;
        let expects_continue = expects_continue(&headers, version, framing)?;
        let persists = framing::persists(version, connection);
        Ok(Self {
            method,
            target,
            authority,
            version,
            headers,
            framing,
            persists,
            expects_continue,
            upgrade,
        })
    }
}

struct RequestLine<'a> {
    method: &'a [u8],
    target: &'a [u8],
    version: &'a [u8],
}

/// RFC 9112 §3: `method SP request-target SP HTTP-version`, with single spaces and nothing more.
fn split_request_line(line: &[u8]) -> Result<RequestLine<'_>, HeadError> {
    let mut parts = line.split(|byte| *byte == b' ');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(method), Some(target), Some(version), None) if !target.is_empty() => Ok(RequestLine {
            method,
            target,
            version,
        }),
        _ => Err(HeadError::RequestLine),
    }
}

/// Methods are case-sensitive (RFC 9110 §9.1); one that is not in upper case is a client's mistake that some servers
/// would forgive, so that a rule on `GET` would miss their `get`.
///
/// # Errors
///
/// [`HeadError::Method`] for anything but 1 to 32 upper-case letters and `-`, and for `PRI` (RFC 9113 §3.4).
pub fn parse_method(text: &[u8]) -> Result<Method, HeadError> {
    let plain = text.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'-');
    if text.is_empty() || text.len() > METHOD_BYTES_MAX || !plain || text == b"PRI" {
        return Err(HeadError::Method);
    }
    Method::from_bytes(text).map_err(|_invalid| HeadError::Method)
}

fn parse_version(text: &[u8]) -> Result<Version, HeadError> {
    match text {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        _ => Err(HeadError::Version),
    }
}

/// RFC 9112 §3.2: exactly one `Host`, which an absolute target repeats.
fn host(
    headers: &HeaderMap,
    target: &Target,
    named: Option<Authority>,
    version: Version,
) -> Result<Authority, HeadError> {
    // Reading it out of the map again keeps the value's memory shared.
    let mut values = headers.get_all(header::HOST).iter();
    let Some(value) = values.next() else {
        // HTTP/1.0 has no `Host`, and Python before 3.12 opens tunnels by it: the target says where they lead.
        let opens = matches!((target, version), (Target::Authority, Version::Http10));
        return named.filter(|_| opens).ok_or(HeadError::NoHost);
    };
    if values.next().is_some() {
        return Err(HeadError::TwoHosts);
    }
    let host = Authority::parse(&Bytes::copy_from_slice(value.as_bytes()))?;
    match (named, target) {
        // Clients that open a tunnel differ in whether they repeat its port.
        (Some(named), Target::Authority) if host.port().is_none() && host.host() == named.host() => Ok(named),
        (Some(named), _) if named.same(&host, 80) => Ok(named),
        (Some(_), _) => Err(HeadError::HostDiffers),
        (None, _) => Ok(host),
    }
}

/// RFC 9110 §7.8. `h2c` may be ignored and is. Of all others one is asked for, by a request that says so in `Connection`
/// too; a list would leave the choice to whoever reads it. A body before the switch would be read by two protocols.
fn upgrade(
    headers: &HeaderMap,
    method: &Method,
    version: Version,
    connection: framing::Connection,
    framing: Framing,
) -> Result<Option<Protocol>, HeadError> {
    let Some(upgrade) = field::one(headers, &header::UPGRADE, HeadError::Upgrade)? else {
        return Ok(None);
    };
    if !matches!(framing, Framing::None) {
        return Err(HeadError::UpgradeWithBody);
    }
    if upgrade.eq_ignore_ascii_case(b"h2c") {
        return Ok(None);
    }
    let asked = version == Version::Http11 && connection.upgrade && method != Method::CONNECT;
    let protocol = Protocol::parse(upgrade).filter(|_| asked);
    protocol.map(Some).ok_or(HeadError::Upgrade)
}

/// RFC 9110 §10.1.1; an HTTP/1.0 client's expectation is ignored, as that section demands.
fn expects_continue(headers: &HeaderMap, version: Version, framing: Framing) -> Result<bool, HeadError> {
    match field::one(headers, &header::EXPECT, HeadError::Expect)? {
        None => Ok(false),
        Some(value) if value.eq_ignore_ascii_case(b"100-continue") => {
            Ok(version == Version::Http11 && !matches!(framing, Framing::None | Framing::Length(0)))
        }
        Some(_) => Err(HeadError::Expect),
    }
}

/// Why a head is refused; each is the sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum HeadError {
    /// A TLS handshake where a head should be.
    #[error("this is TLS; the proxy opens TLS by itself, so call http:// and not https://")]
    Tls,
    /// Longer than [`HEAD_BYTES_MAX`](super::HEAD_BYTES_MAX).
    #[error("the head is longer than 32 KiB")]
    TooLong,
    /// More than [`FIELDS_MAX`] fields, or too many in trailers.
    #[error("the head has too many fields")]
    TooManyFields,
    /// A line that ends in LF alone.
    #[error("a line ends without CRLF")]
    BareLineFeed,
    /// A CR that no LF follows.
    #[error("a field holds a bare CR")]
    BareCarriageReturn,
    /// Not three parts with single spaces between them.
    #[error("the request line is not `METHOD target HTTP/1.1`")]
    RequestLine,
    /// No method, or one not in upper case.
    #[error("the method is not 1 to 32 upper-case letters")]
    Method,
    /// No target of RFC 9112 §3.2 for that method.
    #[error("the request target has none of the forms that go with its method")]
    Target,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    #[error("the version is neither HTTP/1.1 nor HTTP/1.0")]
    Version,
    /// The status line of an answer is none.
    #[error("the status line is not `HTTP/1.1 NNN reason`")]
    StatusLine,
    /// A line without a colon.
    #[error("a field line has no colon")]
    NoColon,
    /// A name that is no token.
    #[error("a field name is not a token")]
    FieldName,
    /// A name that some read as the name of a field that frames.
    #[error("a field name is Content-Length or Transfer-Encoding in another spelling")]
    Disguised,
    /// White space between name and colon.
    #[error("white space stands before a colon")]
    SpaceBeforeColon,
    /// A continued line.
    #[error("a field is folded over two lines")]
    Fold,
    /// A control character in a value.
    #[error("a field value holds a control character")]
    FieldValue,
    /// No `Host`.
    #[error("there is no Host field")]
    NoHost,
    /// Several `Host` fields.
    #[error("there is more than one Host field")]
    TwoHosts,
    /// A host that is none.
    #[error("the host is neither a name nor an address, with a port or without")]
    Host,
    /// The target names another authority than `Host`.
    #[error("the target and the Host field name different hosts")]
    HostDiffers,
    /// A length that is not digits, or too large.
    #[error("Content-Length is not a number up to 2^63")]
    Length,
    /// Several lengths, equal or not.
    #[error("there is more than one Content-Length")]
    TwoLengths,
    /// Both ways to end a body.
    #[error("there is both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    /// A coding that is not exactly `chunked`.
    #[error("Transfer-Encoding is not exactly `chunked`")]
    Coding,
    /// A coding in a version that has none.
    #[error("Transfer-Encoding stands in an HTTP/1.0 message")]
    CodingOnHttp10,
    /// `Connection` holds what is no option.
    #[error("Connection names what is no connection option")]
    Connection,
    /// A field of a connection between two proxies, where connections have no fields.
    #[error("a field of a connection stands in a call between two proxies")]
    OfConnection,
    /// An upgrade beside a body.
    #[error("Upgrade stands beside a body")]
    UpgradeWithBody,
    /// An upgrade that is not served.
    #[error("Upgrade asks for a protocol that is not served")]
    Upgrade,
    /// An expectation that is not `100-continue`.
    #[error("Expect asks for something other than 100-continue")]
    Expect,
}

impl HeadError {
    /// Returns the word for records and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::TooLong => "head_too_long",
            Self::TooManyFields => "too_many_fields",
            Self::BareLineFeed => "bare_lf",
            Self::BareCarriageReturn => "bare_cr",
            Self::RequestLine => "request_line",
            Self::Method => "method",
            Self::Target => "target",
            Self::Version => "version",
            Self::StatusLine => "status_line",
            Self::NoColon => "no_colon",
            Self::FieldName => "field_name",
            Self::Disguised => "disguised",
            Self::SpaceBeforeColon => "space_before_colon",
            Self::Fold => "fold",
            Self::FieldValue => "field_value",
            Self::NoHost => "no_host",
            Self::TwoHosts => "two_hosts",
            Self::Host => "host",
            Self::HostDiffers => "host_differs",
            Self::Length => "length",
            Self::TwoLengths => "two_lengths",
            Self::LengthAndCoding => "length_and_coding",
            Self::Coding => "coding",
            Self::CodingOnHttp10 => "coding_on_http10",
            Self::Connection => "connection",
            Self::OfConnection => "of_connection",
            Self::UpgradeWithBody => "upgrade_with_body",
            Self::Upgrade => "upgrade",
            Self::Expect => "expect",
        }
    }
}
