//! `federation:`, which lets anyone verify tokens of this mesh.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{self, Deserializer};

/// The longest issuer: what AWS takes as the URL of a provider (CreateOpenIDConnectProvider).
const ISSUER_BYTES_MAX: usize = 255;

/// `federation:`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct FederationConfig {
    /// What tokens say in `iss`, and where relying parties find the documents.
    pub issuer: Issuer,
    /// Where the documents are served; nowhere when an operator brings them to those who need them.
    pub endpoint: Option<EndpointConfig>,
}

/// Where the documents are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    /// The address.
    pub listen: SocketAddr,
    /// Without it, HTTP in the clear: on loopback, for a web server in front.
    pub tls: Option<TlsFiles>,
}

/// `federation.tls:`, files in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate for the issuer's name, and those between it and an authority of the web.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The section as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    issuer: Issuer,
    #[serde(default)]
    listen: Option<SocketAddr>,
    #[serde(default)]
    tls: Option<TlsFiles>,
}

impl TryFrom<Written> for FederationConfig {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let endpoint = match (written.listen, written.tls) {
            (None, None) => None,
            (None, Some(_)) => return Err("federation.tls is for an endpoint, and federation.listen is missing"),
            (Some(listen), None) if !listen.ip().is_loopback() => {
                return Err(
                    "federation.tls is missing: other machines reach federation.listen, and believe HTTPS only",
                );
            }
            (Some(listen), tls) => Some(EndpointConfig { listen, tls }),
        };
        Ok(Self {
            issuer: written.issuer,
            endpoint,
        })
    }
}

/// The URL that names who signs the tokens: `https://`, a host in lower case, perhaps a port and a path (OpenID Connect
/// Discovery §3). Relying parties compare it byte by byte, so there is one way to write each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    url: String,
    path_at: usize,
}

impl Issuer {
    /// Parses an issuer.
    ///
    /// # Errors
    ///
    /// With what it should be.
    pub fn parse(text: &str) -> Result<Self, IssuerError> {
        if text.len() > ISSUER_BYTES_MAX {
            return Err(IssuerError::TooLong);
        }
        let rest = text.strip_prefix("https://").ok_or(IssuerError::NotHttps)?;
        let authority = rest.split('/').next().unwrap_or_default();
        let path = rest.strip_prefix(authority).unwrap_or_default();
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        if !is_host(host) || !port.is_none_or(is_port) {
            return Err(IssuerError::Authority);
        }
        if !path.split('/').skip(1).all(is_segment) {
            return Err(IssuerError::Path);
        }
        Ok(Self {
            path_at: text.len() - path.len(),
            url: text.to_owned(),
        })
    }

    /// The whole URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// Its path, without a slash at the end: empty, or `/…`.
    #[must_use]
    pub fn path(&self) -> &str {
        self.url.get(self.path_at..).unwrap_or_default()
    }

    /// The name that a certificate for it has.
    #[must_use]
    pub fn host(&self) -> &str {
        let rest = self.url.strip_prefix("https://").unwrap_or_default();
        rest.split(['/', ':']).next().unwrap_or_default()
    }
}

/// RFC 1123 §2.1, in lower case.
fn is_host(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    host.split('.').all(is_label)
}

/// In the one form that a port has: without zeros before it, and not there where it goes without saying.
fn is_port(port: &str) -> bool {
    port.parse::<u16>()
        .is_ok_and(|number| !matches!(number, 0 | 443) && number.to_string() == port)
}

/// Characters that no URL has to escape (RFC 3986 §2.3), and no step up or to itself.
fn is_segment(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..")
        && segment
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'))
}

/// Why a text is not an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssuerError {
    /// OpenID Connect Discovery §3: the scheme.
    #[error("an issuer begins with https://")]
    NotHttps,
    /// Longer than 255 bytes.
    #[error("an issuer has at most 255 characters")]
    TooLong,
    /// The host or port.
    #[error("after https:// an issuer has a host name in lower case, and perhaps a port")]
    Authority,
    /// The path.
    #[error(
        "an issuer ends in its host or in a path of letters, digits and -._~, without a slash at the end, a query or a fragment"
    )]
    Path,
}

impl<'de> Deserialize<'de> for Issuer {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(input)?).map_err(de::Error::custom)
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<FederationConfig, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn an_issuer_has_one_form() {
        for (text, host, path) in [
            ("https://ids.acme.example", "ids.acme.example", ""),
            ("https://ids.acme.example:8443", "ids.acme.example", ""),
            ("https://acme.example/mesh/prod-1", "acme.example", "/mesh/prod-1"),
            ("https://127.0.0.1:8443/a", "127.0.0.1", "/a"),
        ] {
            let issuer = Issuer::parse(text).unwrap();
            assert_eq!((issuer.as_str(), issuer.host(), issuer.path()), (text, host, path));
        }
        for (text, why) in [
            ("http://ids.acme.example", IssuerError::NotHttps),
            ("HTTPS://ids.acme.example", IssuerError::NotHttps),
            ("ids.acme.example", IssuerError::NotHttps),
            ("https://", IssuerError::Authority),
            ("https:///path", IssuerError::Authority),
            ("https://IDS.acme.example", IssuerError::Authority),
            ("https://ids..example", IssuerError::Authority),
            ("https://-ids.example", IssuerError::Authority),
            ("https://ids_acme.example", IssuerError::Authority),
            ("https://user@ids.acme.example", IssuerError::Authority),
            ("https://[::1]", IssuerError::Authority),
            ("https://ids.acme.example:", IssuerError::Authority),
            ("https://ids.acme.example:0", IssuerError::Authority),
            ("https://ids.acme.example:443", IssuerError::Authority),
            ("https://ids.acme.example:08443", IssuerError::Authority),
            ("https://ids.acme.example:65536", IssuerError::Authority),
            ("https://ids.acme.example?a=b", IssuerError::Authority),
            ("https://ids.acme.example/", IssuerError::Path),
            ("https://ids.acme.example/a/", IssuerError::Path),
            ("https://ids.acme.example//a", IssuerError::Path),
            ("https://ids.acme.example/../a", IssuerError::Path),
            ("https://ids.acme.example/./a", IssuerError::Path),
            ("https://ids.acme.example/a?b", IssuerError::Path),
            ("https://ids.acme.example/a#b", IssuerError::Path),
            ("https://ids.acme.example/a%2fb", IssuerError::Path),
            ("https://ids.acme.example/{a}", IssuerError::Path),
            ("https://ids.acme.example/a b", IssuerError::Path),
        ] {
            assert_eq!(Issuer::parse(text), Err(why), "{text}");
        }
        let long = |bytes: usize| format!("https://a/{}", "b".repeat(bytes - 10));
        assert!(Issuer::parse(&long(ISSUER_BYTES_MAX)).is_ok());
        assert_eq!(Issuer::parse(&long(ISSUER_BYTES_MAX + 1)), Err(IssuerError::TooLong));
    }

    #[test]
    fn an_endpoint_that_others_reach_has_tls() {
        let issuer = r#""issuer": "https://ids.acme.example""#;
        let tls = r#""tls": {"certificate": "/c.pem", "key": "/k.pem"}"#;
        let none = parse(&format!("{{{issuer}}}")).unwrap();
        assert_eq!(none.endpoint, None);
        let near = parse(&format!(r#"{{{issuer}, "listen": "127.0.0.1:8080"}}"#)).unwrap();
        assert_eq!(near.endpoint.unwrap().tls, None);
        for listen in ["0.0.0.0:8443", "127.0.0.1:8443", "[::1]:8443"] {
            let far = parse(&format!(r#"{{{issuer}, "listen": "{listen}", {tls}}}"#)).unwrap();
            assert!(far.endpoint.unwrap().tls.is_some());
        }
        for (text, why) in [
            (format!(r#"{{{issuer}, "listen": "0.0.0.0:8443"}}"#), "tls is missing"),
            (format!(r#"{{{issuer}, "listen": "10.0.0.1:80"}}"#), "tls is missing"),
            (format!("{{{issuer}, {tls}}}"), "listen is missing"),
            (r#"{"listen": "127.0.0.1:80"}"#.to_owned(), "issuer"),
            (
                format!(r#"{{{issuer}, "listen": "ids.acme.example:443"}}"#),
                "socket address",
            ),
            (format!(r#"{{{issuer}, "port": 1}}"#), "unknown field"),
            (format!(r#"{{{issuer}, "tls": {{"certificate": "/c.pem"}}}}"#), "key"),
        ] {
            let refused = parse(&text).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
