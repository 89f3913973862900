//! Request targets (RFC 9112 §3.2) and authorities (RFC 3986 §3.2).

use std::net::IpAddr;

use bytes::Bytes;

use super::head::HeadError;

/// The longest host name (RFC 1035 §2.3.4).
const HOST_BYTES_MAX: usize = 255;

/// What a request line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `/path?query`: the bytes as they came, not yet read as a path.
    Origin(Bytes),
    /// `http://host/path?query`: path and query, `/` where there was none.
    Absolute(Bytes),
    /// `https://host/…`: the caller wants TLS that it did not open.
    AbsoluteTls,
    /// `host:port`, of CONNECT.
    Authority,
    /// `*`, of OPTIONS.
    Asterisk,
}

/// A host and perhaps a port, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    host: Bytes,
    port: Option<u16>,
}

impl Authority {
    /// Reads `host`, `host:port`, `1.2.3.4:port` or `[v6]:port`.
    ///
    /// # Errors
    ///
    /// [`HeadError::Host`] for user info, an empty host or port, a trailing dot, percent-encoding, and anything else
    /// that could be read in two ways.
    pub fn parse(text: &Bytes) -> Result<Self, HeadError> {
        let (host, port) = split_port(text)?;
        if host.is_empty() || host.len() > HOST_BYTES_MAX {
            return Err(HeadError::Host);
        }
        check_host(host)?;
        let host = if host.iter().any(u8::is_ascii_uppercase) {
            Bytes::from(host.to_ascii_lowercase())
        } else {
            text.slice_ref(host)
        };
        Ok(Self { host, port })
    }

    /// Returns the host in lower case, a v6 address with its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        // `check_host` let only ASCII through.
        std::str::from_utf8(&self.host).unwrap_or_default()
    }

    /// Returns the host as shared bytes.
    #[must_use]
    pub const fn host_bytes(&self) -> &Bytes {
        &self.host
    }

    /// Returns the port, if it was said.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// Tells whether both mean the same end where `default` is the port that is not said.
    #[must_use]
    pub fn same(&self, other: &Self, default: u16) -> bool {
        self.host == other.host && self.port.unwrap_or(default) == other.port.unwrap_or(default)
    }

    /// Returns the address, when the host is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        let host = self.host();
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        bare.parse().ok()
    }
}

/// Reads the target of a request line. The authority is only there for the forms that carry one.
///
/// # Errors
///
/// For a form that does not go with `method`, for bytes that no target has, and for user info.
pub fn parse(method: &http::Method, target: &Bytes) -> Result<(Target, Option<Authority>), HeadError> {
    // A space cannot be here, the request line is split at it. Bytes above ASCII are left to the reading of the path,
    // which knows the better word for the refusal.
    if target.iter().any(|byte| *byte < 0x21 || *byte == 0x7f) {
        return Err(HeadError::Target);
    }
    if method == http::Method::CONNECT {
        let authority = Authority::parse(target)?;
        return if authority.port.is_some() {
            Ok((Target::Authority, Some(authority)))
        } else {
            Err(HeadError::Target)
        };
    }
    match target.first() {
        Some(b'/') => Ok((Target::Origin(target.clone()), None)),
        Some(b'*') if target.len() == 1 && method == http::Method::OPTIONS => Ok((Target::Asterisk, None)),
        Some(_) => absolute(method, target),
        None => Err(HeadError::Target),
    }
}

/// RFC 9112 §3.2.2.
fn absolute(method: &http::Method, target: &Bytes) -> Result<(Target, Option<Authority>), HeadError> {
    if strip_scheme(target, b"https://").is_some() {
        return Ok((Target::AbsoluteTls, None));
    }
    let rest = strip_scheme(target, b"http://").ok_or(HeadError::Target)?;
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#' | b'\\'))
        .unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, &[]));
    let authority = Authority::parse(&target.slice_ref(authority))?;
    let path = match path.first() {
        Some(b'/') => target.slice_ref(path),
        // RFC 9112 §3.2.4: an empty path of OPTIONS would mean `*` to the last proxy and `/` to all others.
        None if method != http::Method::OPTIONS => Bytes::from_static(b"/"),
        Some(_) | None => return Err(HeadError::Target),
    };
    Ok((Target::Absolute(path), Some(authority)))
}

/// Takes off a scheme, whose case does not matter (RFC 3986 §3.1).
fn strip_scheme<'a>(target: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = target.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

fn split_port(text: &[u8]) -> Result<(&[u8], Option<u16>), HeadError> {
    let name_end = match text.first() {
        Some(b'[') => text.iter().position(|byte| *byte == b']').ok_or(HeadError::Host)? + 1,
        Some(_) | None => text.iter().position(|byte| *byte == b':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at_checked(name_end).ok_or(HeadError::Host)?;
    match rest.split_first() {
        None => Ok((host, None)),
        Some((b':', digits)) => Ok((host, Some(parse_port(digits)?))),
        Some(_) => Err(HeadError::Host),
    }
}

/// Reads a port of one to five digits without a leading zero.
fn parse_port(digits: &[u8]) -> Result<u16, HeadError> {
    let plain = (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    if !plain || digits.first() == Some(&b'0') {
        return Err(HeadError::Host);
    }
    std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(HeadError::Host)
}

/// Lets through DNS names (with `_`, which names of services have) and addresses.
fn check_host(host: &[u8]) -> Result<(), HeadError> {
    if let Some(bare) = host.strip_prefix(b"[") {
        let bare = bare.strip_suffix(b"]").ok_or(HeadError::Host)?;
        let text = std::str::from_utf8(bare).map_err(|_not_text| HeadError::Host)?;
        return text
            .parse::<std::net::Ipv6Addr>()
            .map(|_address| ())
            .map_err(|_no_address| HeadError::Host);
    }
    let named = host
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    let dotted = host.starts_with(b".") || host.ends_with(b".") || host.windows(2).any(|pair| pair == b"..");
    if named && !dotted { Ok(()) } else { Err(HeadError::Host) }
}
