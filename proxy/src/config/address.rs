//! Addresses: of CA servers, which may be names, and of listeners, which may be
//! Unix sockets.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// The longest host name (RFC 1035 §2.3.4) and a port.
const CA_ADDRESS_BYTES_MAX: usize = 253 + ":65535".len();

/// `host:port` of a CA server. The name is looked up at each connection, and
/// nothing is believed of it: the server proves itself by its SVID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaAddress(String);

impl CaAddress {
    /// `host:port`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is wrong with the text of a [`CaAddress`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the address of a CA server: write host:port, as in ca.acme.internal:7443")]
pub struct CaAddressError {
    text: String,
}

impl FromStr for CaAddress {
    type Err = CaAddressError;

    fn from_str(text: &str) -> Result<Self, CaAddressError> {
        let valid = || {
            let (host, port) = text.rsplit_once(':')?;
            let bare = host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'))
                .unwrap_or(host);
            let port: u16 = port.parse().ok()?;
            let named = !bare.is_empty() && !bare.contains(|c: char| c.is_whitespace() || c.is_control());
            // A bare IPv6 address would lose its last group to the port.
            let bracketed = !host.contains(':') || host.starts_with('[');
            (named && bracketed && port != 0 && text.len() <= CA_ADDRESS_BYTES_MAX).then_some(())
        };
        match valid() {
            Some(()) => Ok(Self(text.to_owned())),
            None => Err(CaAddressError {
                text: text.chars().take(64).collect(),
            }),
        }
    }
}

impl fmt::Display for CaAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for CaAddress {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?.parse().map_err(D::Error::custom)
    }
}

/// Where a listener listens: `127.0.0.1:15101`, or `unix:/run/botmesh/orders.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket, by its absolute path.
    Unix(PathBuf),
}

/// What is wrong with the text of a [`ListenAddress`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an address to listen on: write 127.0.0.1:PORT or unix:/ABSOLUTE/PATH")]
pub struct ListenAddressError {
    text: String,
}

impl FromStr for ListenAddress {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<Self, ListenAddressError> {
        let parsed = match text.strip_prefix("unix:") {
            Some(path) => Some(PathBuf::from(path))
                .filter(|path| path.is_absolute())
                .map(Self::Unix),
            None => text.parse().ok().map(Self::Tcp),
        };
        parsed.ok_or_else(|| ListenAddressError {
            text: text.chars().take(64).collect(),
        })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_address_is_a_name_or_an_ip_and_a_port() {
        for text in ["ca.acme.internal:7443", "127.0.0.1:1", "[::1]:7443"] {
            assert_eq!(text.parse::<CaAddress>().unwrap().as_str(), text);
        }
        for text in ["", "ca", "ca:", ":7443", "ca:0", "ca:70000", "::1:7443", "c a:7443"] {
            assert!(text.parse::<CaAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_listener_is_a_port_or_an_absolute_socket_path() {
        for text in ["127.0.0.1:0", "unix:/run/x.sock"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for text in ["", "15101", "localhost:1", "unix:", "unix:x.sock", "/run/x.sock"] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }
}
