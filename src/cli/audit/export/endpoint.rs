//! Where a collector is.

use std::fmt;
use std::net::IpAddr;

use http::Uri;

use crate::exit::Failure;

/// The port of OTLP over HTTP (OTLP specification, "OTLP/HTTP Default Port").
const PORT: u16 = 4318;

/// The path of requests with log records.
const PATH: &str = "/v1/logs";

/// A collector's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) tls: bool,
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: String,
}

/// Says whether a text names a collector and no file.
pub(super) fn is_url(text: &str) -> bool {
    text.contains("://")
}

impl Endpoint {
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = |what: &str| {
            Failure::usage(format!(
                "--to {what}; write otlp+https://HOST:PORT/v1/logs, or otlp+http://"
            ))
        };
        let url = text.strip_prefix("otlp+").unwrap_or(text);
        let uri: Uri = url.parse().map_err(|_invalid| wrong("is no URL"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("is spoken to by another protocol")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong(
                "holds a user, and an argument is no place for a password: see --headers",
            ));
        }
        if uri.query().is_some() || url.contains('#') {
            return Err(wrong("holds a query: what is secret goes into --headers"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(wrong("names no host"));
        }
        let port = match authority.port_u16() {
            Some(0) => return Err(wrong("has no port")),
            Some(port) => port,
            None if authority.as_str() == authority.host() => PORT,
            None => return Err(wrong("has no port")),
        };
        let path = match uri.path() {
            "" | "/" => PATH,
            path => path,
        };
        Ok(Self {
            tls,
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        })
    }

    /// What `Host` says.
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Says whether what is sent can be read on the way.
    pub(super) fn is_open(&self) -> bool {
        let is_here = match self.host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_name) => self.host == "localhost",
        };
        !self.tls && !is_here
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_with_its_defaults() {
        for (text, wanted, is_open) in [
            ("otlp+http://collector", "http://collector:4318/v1/logs", true),
            ("otlp+http://collector:4318/", "http://collector:4318/v1/logs", true),
            (
                "otlp+https://otel.example:443/otlp/v1/logs",
                "https://otel.example:443/otlp/v1/logs",
                false,
            ),
            (
                "https://[2001:db8::1]:4318/v1/logs",
                "https://[2001:db8::1]:4318/v1/logs",
                false,
            ),
            ("http://127.0.0.1:1", "http://127.0.0.1:1/v1/logs", false),
            ("otlp+http://[::1]", "http://[::1]:4318/v1/logs", false),
            ("otlp+http://localhost", "http://localhost:4318/v1/logs", false),
            (
                "otlp+http://localhost.example",
                "http://localhost.example:4318/v1/logs",
                true,
            ),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(
                (endpoint.to_string().as_str(), endpoint.is_open()),
                (wanted, is_open),
                "{text}"
            );
        }
    }

    #[test]
    fn an_address_that_holds_a_secret_or_is_none_is_refused_and_not_repeated() {
        for text in [
            "otlp+grpc://collector:4317",
            "otlp+http://",
            "otlp+http:///v1/logs",
            "otlp+http://collector:0",
            "otlp+http://collector:port",
            "otlp+https://user:Hunter2@collector",
            "otlp+https://collector/v1/logs?key=Hunter2",
            "otlp+https://collector/v1/logs#Hunter2",
            "ftp://collector/Hunter2",
        ] {
            let told = Endpoint::parse(text).unwrap_err().to_string();
            assert!(told.contains("--to") && !told.contains("Hunter2"), "{text}: {told}");
        }
    }
}
