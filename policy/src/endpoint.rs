//! Where a bot that opens its own mutual TLS is reached.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use thiserror::Error;

use crate::outside;

/// A host and a port at which a bot answers mutual TLS itself: `10.0.0.7:8443`, `[2001:db8::7]:8443`,
/// `ledger.corp.example:8443`.
///
/// Whoever answers there is believed by its SVID alone, so a name or an address that leads elsewhere leads to a refusal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// An address.
    Address(SocketAddr),
    /// A DNS name, looked up by the caller's proxy.
    Name(Arc<str>, u16),
}

/// Says why a text names no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EndpointError {
    /// It is not a host and a port.
    #[error("an endpoint is a host and a port, such as 10.0.0.7:8443 or ledger.corp.example:8443")]
    Form,
    /// Its port is no port.
    #[error("the port is a number from 1 to 65535")]
    Port,
    /// Its host is neither.
    #[error("the host is an IP address, or a DNS name in lower case with a dot in it")]
    Host,
    /// Nobody can be reached there.
    #[error("nobody can be reached at this address")]
    Nobody,
    /// Another text means the same address.
    #[error("an address has one spelling, its shortest; one of IPv4 is not written as IPv6")]
    Spelling,
}

impl Endpoint {
    /// Reads an endpoint.
    ///
    /// # Errors
    /// When the text is none.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        let (host, port) = text.rsplit_once(':').ok_or(EndpointError::Form)?;
        let digits = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
        let port: u16 = port.parse().ok().filter(|_| digits).ok_or(EndpointError::Port)?;
        if host.starts_with('[') || host.parse::<IpAddr>().is_ok() {
            let address: SocketAddr = text.parse().map_err(|_invalid| EndpointError::Form)?;
            // The number of an interface is of one host.
            if matches!(address, SocketAddr::V6(address) if address.scope_id() != 0) {
                return Err(EndpointError::Form);
            }
            let mapped = address.ip().to_canonical() != address.ip();
            if mapped || address.to_string() != text {
                return Err(EndpointError::Spelling);
            }
            let ip = address.ip();
            let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
            if ip.is_unspecified() || ip.is_multicast() || broadcast {
                return Err(EndpointError::Nobody);
            }
            return Ok(Self::Address(address));
        }
        outside::check_host(host).map_err(|_invalid| EndpointError::Host)?;
        Ok(Self::Name(host.into(), port))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_endpoint_has_one_spelling() {
        for text in [
            "10.0.0.7:8443",
            "127.0.0.1:1",
            "[2001:db8::7]:65535",
            "[::1]:8443",
            "ledger.corp.example:8443",
        ] {
            assert_eq!(
                Endpoint::parse(text).map(|found| found.to_string()),
                Ok(text.to_owned())
            );
        }
        for (text, error) in [
            ("", EndpointError::Form),
            ("10.0.0.7", EndpointError::Form),
            ("[::1]", EndpointError::Port),
            ("::1:8443", EndpointError::Form),
            ("[10.0.0.7]:1", EndpointError::Form),
            ("10.0.0.7:", EndpointError::Port),
            ("10.0.0.7:0", EndpointError::Port),
            ("10.0.0.7:08443", EndpointError::Port),
            ("10.0.0.7:+1", EndpointError::Port),
            ("10.0.0.7:65536", EndpointError::Port),
            ("10.0.0.07:1", EndpointError::Host),
            ("10.7:1", EndpointError::Host),
            ("ledger:1", EndpointError::Host),
            ("Ledger.corp.example:1", EndpointError::Host),
            ("orders.prod.mesh:1", EndpointError::Host),
            ("https://a.example:1", EndpointError::Host),
            ("a.example/b:1", EndpointError::Host),
            ("0.0.0.0:1", EndpointError::Nobody),
            ("[::]:1", EndpointError::Nobody),
            ("224.0.0.1:1", EndpointError::Nobody),
            ("255.255.255.255:1", EndpointError::Nobody),
            ("[ff02::1]:1", EndpointError::Nobody),
            ("[::ffff:10.0.0.7]:1", EndpointError::Spelling),
            ("[2001:DB8::7]:1", EndpointError::Spelling),
            ("[fe80::1%1]:1", EndpointError::Form),
        ] {
            let found = Endpoint::parse(text);
            // Which of two reasons is told where both hold does not matter; that there is one does.
            assert!(found.is_err(), "{text}");
            assert_eq!(found, Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(text in "(\\[?[0-9a-f:.%]{1,20}\\]?|[a-zA-Z0-9.-]{1,20}):[0-9]{1,6}") {
            if let Ok(endpoint) = Endpoint::parse(&text) {
                prop_assert_eq!(endpoint.to_string(), text);
            }
        }

        #[test]
        fn every_address_that_can_be_reached_is_an_endpoint(ip: IpAddr, port in 1u16..) {
            let text = SocketAddr::new(ip, port).to_string();
            let ip = ip.to_canonical();
            let reached = !ip.is_unspecified() && !ip.is_multicast() && ip.to_string() != "255.255.255.255";
            prop_assert_eq!(Endpoint::parse(&text).is_ok(), reached && text == SocketAddr::new(ip, port).to_string());
        }
    }
}
