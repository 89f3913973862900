//! `ledger.witnesses:`, who outside cosigns the heads of ledgers.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use audit::Cosigner;
use http::Uri;
use http::uri::Scheme;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::ConfigError;

/// The most `ledger.witnesses`: each is told each head of each host.
pub const WITNESSES_MAX: usize = 8;

/// The longest prefix of a witness's paths, in bytes.
const PREFIX_BYTES_MAX: usize = 512;

/// A witness outside, which speaks C2SP tlog-witness.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessConfig {
    /// Its submission prefix.
    pub url: WitnessUrl,
    /// Its verifier key.
    #[serde(deserialize_with = "key")]
    pub key: Cosigner,
    /// Certificates in PEM that alone may vouch for it; by default the web's authorities.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

fn key<'de, D: Deserializer<'de>>(input: D) -> Result<Cosigner, D::Error> {
    let text = String::deserialize(input)?;
    Cosigner::parse(&text).map_err(|error| {
        D::Error::custom(format!(
            "this is no verifier key of a witness ({error}): it is NAME+ID+KEY, of Ed25519 cosignatures (C2SP tlog-cosignature, type 4); \
             ML-DSA-44 is not read by this version"
        ))
    })
}

/// Where a witness is: `https://HOST[:PORT][/PREFIX]`, or `http://` with a loopback address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessUrl {
    pub(crate) place: WitnessPlace,
    /// Before `/add-checkpoint`: empty, or a path without a slash at its end.
    pub(crate) prefix: String,
}

/// Who is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WitnessPlace {
    /// Over TLS, by a name or an address without brackets.
    Https { host: String, port: u16 },
    /// In the clear, on this machine.
    Http(SocketAddr),
}

/// What is wrong with the text of a [`WitnessUrl`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is no address of a witness: write https://HOST[:PORT][/PREFIX], or http:// with a loopback address such as 127.0.0.1:7380; \
     without a user, a query and a fragment"
)]
pub struct WitnessUrlError;

impl FromStr for WitnessUrl {
    type Err = WitnessUrlError;

    fn from_str(text: &str) -> Result<Self, WitnessUrlError> {
        let uri: Uri = text.parse().map_err(|_invalid| WitnessUrlError)?;
        let authority = uri.authority().ok_or(WitnessUrlError)?;
        // The parser drops a fragment without a word, and a user would be a stored password.
        let plain = !authority.as_str().contains('@') && uri.query().is_none() && !text.contains(['#', '?']);
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        if !plain || host.is_empty() || authority.port_u16() == Some(0) || uri.path().len() > PREFIX_BYTES_MAX {
            return Err(WitnessUrlError);
        }
        let place = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => WitnessPlace::Https {
                host: host.to_owned(),
                port: authority.port_u16().unwrap_or(443),
            },
            Some(scheme) if *scheme == Scheme::HTTP => {
                let ip = host.parse().map_err(|_name| WitnessUrlError)?;
                let address = SocketAddr::new(ip, authority.port_u16().unwrap_or(80));
                let local = Some(address).filter(|address| address.ip().is_loopback());
                WitnessPlace::Http(local.ok_or(WitnessUrlError)?)
            }
            Some(_) | None => return Err(WitnessUrlError),
        };
        Ok(Self {
            place,
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl<'de> Deserialize<'de> for WitnessUrl {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?.parse().map_err(D::Error::custom)
    }
}

impl WitnessUrl {
    /// The authority, as the field `Host` has it.
    pub(crate) fn authority(&self) -> String {
        match &self.place {
            WitnessPlace::Https { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            WitnessPlace::Https { host, port } => format!("{host}:{port}"),
            WitnessPlace::Http(address) => address.to_string(),
        }
    }
}

impl fmt::Display for WitnessUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match &self.place {
            WitnessPlace::Https { .. } => "https",
            WitnessPlace::Http(_) => "http",
        };
        write!(f, "{scheme}://{}{}", self.authority(), self.prefix)
    }
}

/// Refuses what parses and cannot be kept.
pub(super) fn resolve(witnesses: Vec<WitnessConfig>) -> Result<Vec<WitnessConfig>, ConfigError> {
    if witnesses.len() > WITNESSES_MAX {
        return Err(ConfigError::Witnesses { count: witnesses.len() });
    }
    for (place, witness) in witnesses.iter().enumerate() {
        let name = || witness.key.name().to_string();
        if witnesses.iter().take(place).any(|before| before.key == witness.key) {
            return Err(ConfigError::WitnessTwice { name: name() });
        }
        let in_the_clear = matches!(witness.url.place, WitnessPlace::Http(_));
        if witness.ca.as_ref().is_some_and(|ca| in_the_clear || !ca.is_absolute()) {
            return Err(ConfigError::WitnessCa { name: name() });
        }
    }
    Ok(witnesses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_witness_is_reached_over_tls_or_on_this_machine() {
        for (text, shown, prefix) in [
            ("https://w.example", "https://w.example:443", ""),
            ("https://w.example:8443/", "https://w.example:8443", ""),
            ("https://w.example/a/b/", "https://w.example:443/a/b", "/a/b"),
            ("https://[2001:db8::1]/w", "https://[2001:db8::1]:443/w", "/w"),
            ("http://127.0.0.1:7380", "http://127.0.0.1:7380", ""),
            ("http://[::1]:80/w", "http://[::1]:80/w", "/w"),
        ] {
            let url: WitnessUrl = text.parse().unwrap();
            assert_eq!((url.to_string().as_str(), url.prefix.as_str()), (shown, prefix));
        }
        let long = format!("https://w.example/{}", "p".repeat(PREFIX_BYTES_MAX));
        for text in [
            "",
            "w.example",
            "ftp://w.example",
            "http://w.example",
            "http://10.0.0.1",
            "http://localhost",
            "https://user@w.example",
            "https://w.example?q",
            "https://w.example/?",
            "https://w.example/#f",
            "https://w.example:0",
            "https://",
            &long,
        ] {
            assert_eq!(text.parse::<WitnessUrl>(), Err(WitnessUrlError), "{text}");
        }
    }
}
