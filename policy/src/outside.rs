//! Destinations outside of the mesh.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use thiserror::Error;

use crate::credential::CredentialName;

/// The longest name, in bytes (RFC 1035 §2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// The longest label of a name, in bytes (RFC 1035 §2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// How a destination outside of the mesh is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// HTTP over TLS that the proxy opens.
    Https,
    /// HTTP in the clear.
    Http,
    /// TLS that the bot itself opens.
    Tls,
    /// PostgreSQL over TLS that the proxy opens.
    Postgres,
    /// HTTP over TLS that the proxy opens, to an address that is a secret: a credential of that name holds it.
    Secret,
}

impl Scheme {
    /// All of them.
    const ALL: [Self; 5] = [Self::Https, Self::Http, Self::Tls, Self::Postgres, Self::Secret];

    /// Gives the scheme as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Tls => "tls",
            Self::Postgres => "postgres",
            Self::Secret => "secret",
        }
    }

    /// Gives the port where none is written; 0 for a secret, which says its port itself.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Https | Self::Tls => 443,
            Self::Http => 80,
            Self::Postgres => 5432,
            Self::Secret => 0,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A destination outside of the mesh: `https://api.example.com`.
///
/// Its host is a DNS name of at least two labels in lower case, never an address: an address has many spellings, and
/// whom it belongs to changes. It is no name of the mesh. Of `secret://slack-hook` the host is the name of the credential whose
/// value is the address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outside {
    scheme: Scheme,
    host: Arc<str>,
    port: u16,
}

/// Says why a text names no destination outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OutsideError {
    /// It starts with none of the schemes.
    #[error("a destination outside starts with https://, http://, tls://, postgres:// or secret://")]
    Scheme,
    /// Its host is no DNS name.
    #[error("the host is a DNS name in lower case with a dot in it, such as api.example.com")]
    Host,
    /// Its host is an address.
    #[error("the host is a name and not an address; the addresses that a name may have stand under `destinations`")]
    Address,
    /// Its host is a name of the mesh.
    #[error("names below `mesh` and `localhost` are not outside")]
    Mesh,
    /// Its port is no port.
    #[error("the port is a number from 1 to 65535")]
    Port,
    /// The port is the scheme's own, which is left out.
    #[error("the port is the scheme's own: leave it out")]
    OwnPort,
    /// What stands for a secret is no name of a credential.
    #[error("behind secret:// stands the name of a credential, and nothing else: secret://slack-hook")]
    Secret,
    /// Something follows the host.
    #[error("a destination is scheme, host and port; paths stand under `http`")]
    Path,
    /// It has a wildcard where none can be.
    #[error("only tls:// takes a wildcard, as its first label: tls://*.news.example")]
    Wildcard,
}

impl Outside {
    /// Names a destination.
    ///
    /// # Errors
    /// When the host is not a DNS name in lower case, or the port is 0. Of a secret, when the host is not the name of a
    /// credential, or there is a port.
    pub fn new(scheme: Scheme, host: &str, port: u16) -> Result<Self, OutsideError> {
        if scheme == Scheme::Secret {
            let name = CredentialName::parse(host).filter(|_| port == scheme.default_port());
            return name.map(|name| Self::secret(&name)).ok_or(OutsideError::Secret);
        }
        check_host(host)?;
        if port == 0 {
            return Err(OutsideError::Port);
        }
        Ok(Self {
            scheme,
            host: host.into(),
            port,
        })
    }

    /// Names the address that a credential holds.
    pub fn secret(name: &CredentialName) -> Self {
        Self {
            scheme: Scheme::Secret,
            host: name.as_str().into(),
            port: Scheme::Secret.default_port(),
        }
    }

    /// Reads `https://host`, `https://host:port` or `secret://name`.
    ///
    /// # Errors
    /// When the text is not of that form, or has a wildcard.
    pub fn parse(text: &str) -> Result<Self, OutsideError> {
        let pattern = OutsidePattern::parse(text)?;
        if pattern.below {
            return Err(OutsideError::Wildcard);
        }
        Ok(pattern.outside)
    }

    /// Gives how it is spoken to.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Gives the name of the credential that holds its address, where one does.
    pub fn credential(&self) -> Option<&str> {
        (self.scheme == Scheme::Secret).then_some(&*self.host)
    }

    /// Gives its host name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Gives its port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// RFC 1123 §2.1. The last label is never a number, so that no reader takes the name for an IPv4 address.
pub(crate) fn check_host(host: &str) -> Result<(), OutsideError> {
    let label = |label: &str| {
        let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(known)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.len() > HOST_BYTES_MAX || !host.split('.').all(label) {
        return Err(OutsideError::Host);
    }
    let Some((_, last)) = host.rsplit_once('.') else {
        return Err(OutsideError::Host);
    };
    if matches!(last, "mesh" | "localhost") {
        return Err(OutsideError::Mesh);
    }
    // Some readers take 0x7f for a number too.
    if last.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(OutsideError::Address);
    }
    Ok(())
}

impl fmt::Display for Outside {
    /// Writes it without its port where that is the scheme's own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, "")
    }
}

impl Outside {
    fn write(&self, f: &mut fmt::Formatter<'_>, wildcard: &str) -> fmt::Result {
        write!(f, "{}://{wildcard}{}", self.scheme, self.host)?;
        if self.port == self.scheme.default_port() {
            return Ok(());
        }
        write!(f, ":{}", self.port)
    }
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outside({self})")
    }
}

impl Serialize for Outside {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A destination outside as rules name it, or with `tls://*.` all whose names have one label more.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OutsidePattern {
    /// Without the wildcard.
    outside: Outside,
    below: bool,
}

impl OutsidePattern {
    pub(crate) fn parse(text: &str) -> Result<Self, OutsideError> {
        let (scheme, rest) = text.split_once("://").ok_or(OutsideError::Scheme)?;
        let scheme = Scheme::ALL
            .into_iter()
            .find(|known| known.as_str() == scheme)
            .ok_or(OutsideError::Scheme)?;
        if rest.contains(['/', '?', '#', '@']) {
            return Err(OutsideError::Path);
        }
        let (host, below) = match rest.strip_prefix("*.") {
            Some(rest) if scheme == Scheme::Tls => (rest, true),
            _ if rest.contains('*') => return Err(OutsideError::Wildcard),
            _ => (rest, false),
        };
        if scheme == Scheme::Secret && host.contains(':') {
            return Err(OutsideError::Secret);
        }
        if host.starts_with('[') {
            return Err(OutsideError::Address);
        }
        let (host, port) = match host.split_once(':') {
            Some((host, port)) => (host, read_port(port, scheme)?),
            None => (host, scheme.default_port()),
        };
        let outside = Outside::new(scheme, host, port)?;
        Ok(Self { outside, below })
    }

    pub(crate) fn scheme(&self) -> Scheme {
        self.outside.scheme
    }

    /// Gives the name of the credential that holds its address, where one does.
    pub(crate) fn credential(&self) -> Option<&str> {
        self.outside.credential()
    }

    /// Gives the destination, unless it stands for several.
    pub(crate) fn exact(&self) -> Option<&Outside> {
        (!self.below).then_some(&self.outside)
    }

    /// Says whether every destination of `other` is one of this.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self == other || other.exact().and_then(Self::above).is_some_and(|above| above == *self)
    }

    /// Gives the pattern whose wildcard would cover a destination: the names with its first label left out.
    pub(crate) fn above(outside: &Outside) -> Option<Self> {
        let (_, rest) = outside.host.split_once('.')?;
        (outside.scheme == Scheme::Tls).then(|| Self {
            outside: Outside {
                host: rest.into(),
                ..outside.clone()
            },
            below: true,
        })
    }
}

impl From<Outside> for OutsidePattern {
    fn from(outside: Outside) -> Self {
        Self { outside, below: false }
    }
}

fn read_port(text: &str, scheme: Scheme) -> Result<u16, OutsideError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    let port = text.parse().ok().filter(|_| digits).ok_or(OutsideError::Port)?;
    // One destination has one spelling: rules, limits and records are compared by it.
    if port == scheme.default_port() {
        return Err(OutsideError::OwnPort);
    }
    Ok(port)
}

impl fmt::Display for OutsidePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.outside.write(f, if self.below { "*." } else { "" })
    }
}

impl fmt::Debug for OutsidePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutsidePattern({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_has_one_spelling() {
        for text in [
            "https://api.example.com",
            "https://api.example.com:8443",
            "http://a.b",
            "http://a.b:443",
            "tls://www.news.example",
            "tls://www.news.example:80",
            "postgres://db.example.com",
            "postgres://db.example.com:6432",
            "https://xn--bcher-kva.example",
            "secret://slack-hook",
        ] {
            let outside = Outside::parse(text).unwrap();
            assert_eq!(outside.to_string(), text);
            assert_eq!(
                Outside::new(outside.scheme(), outside.host(), outside.port()),
                Ok(outside)
            );
        }
        assert_eq!(
            OutsidePattern::parse("tls://*.news.example").unwrap().to_string(),
            "tls://*.news.example"
        );
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (text, error) in [
            ("api.example.com", OutsideError::Scheme),
            ("ftp://a.b", OutsideError::Scheme),
            ("HTTPS://a.b", OutsideError::Scheme),
            ("https://a.b:443", OutsideError::OwnPort),
            ("postgres://a.b:5432", OutsideError::OwnPort),
            ("postgres://*.a.b", OutsideError::Wildcard),
            ("secret://*", OutsideError::Wildcard),
            ("secret://", OutsideError::Secret),
            ("secret://a.b", OutsideError::Secret),
            ("secret://A", OutsideError::Secret),
            ("secret://a:443", OutsideError::Secret),
            ("secret://a:0", OutsideError::Secret),
            ("secret://a/x", OutsideError::Path),
            ("postgresql://a.b", OutsideError::Scheme),
            ("postgres://u@a.b", OutsideError::Path),
            ("postgres://a.b/orders", OutsideError::Path),
            ("http://a.b:80", OutsideError::OwnPort),
            ("https://a.b:0", OutsideError::Port),
            ("https://a.b:", OutsideError::Port),
            ("https://a.b:65536", OutsideError::Port),
            ("https://a.b:0443", OutsideError::Port),
            ("https://a.b:+1", OutsideError::Port),
            ("https://", OutsideError::Host),
            ("https://a", OutsideError::Host),
            ("https://A.b", OutsideError::Host),
            ("https://a.b.", OutsideError::Host),
            ("https://.a.b", OutsideError::Host),
            ("https://a..b", OutsideError::Host),
            ("https://-a.b", OutsideError::Host),
            ("https://a_b.c", OutsideError::Host),
            ("https://\u{e9}.b", OutsideError::Host),
            ("https://10.0.0.1", OutsideError::Address),
            ("https://1.0x7f", OutsideError::Address),
            ("https://[::1]", OutsideError::Address),
            ("https://a.mesh", OutsideError::Mesh),
            ("https://a.localhost", OutsideError::Mesh),
            ("https://a.b/", OutsideError::Path),
            ("https://u@a.b", OutsideError::Path),
            ("https://*.a.b", OutsideError::Wildcard),
            ("tls://a.*.b", OutsideError::Wildcard),
            ("tls://*", OutsideError::Wildcard),
            ("tls://**.a.b", OutsideError::Wildcard),
        ] {
            assert_eq!(OutsidePattern::parse(text).unwrap_err(), error, "{text}");
        }
        let long = format!("https://{}.b", "a".repeat(64));
        assert_eq!(OutsidePattern::parse(&long).unwrap_err(), OutsideError::Host);
        let long = format!("https://{}b", "a.".repeat(127));
        assert_eq!(OutsidePattern::parse(&long).unwrap_err(), OutsideError::Host);
        assert_eq!(Outside::parse("tls://*.a.b"), Err(OutsideError::Wildcard));
    }

    #[test]
    fn a_wildcard_is_one_label() {
        let pattern = OutsidePattern::parse("tls://*.news.example").unwrap();
        let above = |text: &str| OutsidePattern::above(&Outside::parse(text).unwrap());
        assert_eq!(above("tls://www.news.example"), Some(pattern.clone()));
        for other in [
            "tls://news.example",
            "tls://a.www.news.example",
            "tls://www.news.example:8443",
        ] {
            assert_ne!(above(other), Some(pattern.clone()), "{other}");
        }
        assert_eq!(above("https://www.news.example"), None);
    }
}
