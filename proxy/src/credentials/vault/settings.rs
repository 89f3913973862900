//! Where a vault is and how this host proves itself to it, as `proxy.yaml` says.
//!
//! There is no place for a token: whoever read one could be this host for as long as it lives, and it would be one more key in a
//! file.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use http::Uri;
use http::uri::Scheme;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

/// The most `credentials.vaults`.
pub const VAULTS_MAX: usize = 16;

/// The longest path in a vault, in bytes.
const PATH_BYTES_MAX: usize = 512;

/// The longest name of a vault, a mount, a role, a namespace or a key, in bytes.
const WORD_BYTES_MAX: usize = 128;

/// One of `credentials.vaults`: an OpenBao, or a Vault of HashiCorp.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultConfig {
    /// Where it listens.
    pub address: VaultAddress,
    /// Certificates in PEM that alone may vouch for it; by default the web's authorities.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The namespace of everything that is asked for.
    #[serde(default)]
    pub namespace: Option<VaultPath>,
    /// How this host logs in.
    #[serde(deserialize_with = "login")]
    pub login: Login,
    /// Refused.
    #[serde(default, deserialize_with = "stored", alias = "token_file", alias = "token_env")]
    pub token: Option<Stored>,
}

/// The value of a setting that would store a token: no value of it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {}

/// How a host logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// By its own node SVID, as the certificate of a client.
    Cert(ByCert),
    /// By a token of somebody who makes a new one in time, such as a projected token of Kubernetes.
    Jwt(ByJwt),
}

/// `login: {cert: …}`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByCert {
    /// Where the method is mounted.
    #[serde(default = "cert")]
    pub mount: VaultPath,
    /// The role.
    pub role: VaultWord,
}

/// `login: {jwt: …}`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByJwt {
    /// Where the method is mounted.
    #[serde(default = "jwt")]
    pub mount: VaultPath,
    /// The role.
    pub role: VaultWord,
    /// Holds the token, which is read anew for each login.
    pub file: PathBuf,
}

fn cert() -> VaultPath {
    VaultPath("cert".into())
}

fn jwt() -> VaultPath {
    VaultPath("jwt".into())
}

/// As written; exactly one way is meant.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoginConfig {
    #[serde(default)]
    cert: Option<ByCert>,
    #[serde(default)]
    jwt: Option<ByJwt>,
    #[serde(
        default,
        deserialize_with = "stored",
        rename = "token",
        alias = "token_file",
        alias = "approle",
        alias = "userpass",
        alias = "ldap",
        alias = "radius"
    )]
    _stored: Option<Stored>,
}

fn login<'de, D: Deserializer<'de>>(input: D) -> Result<Login, D::Error> {
    let written = LoginConfig::deserialize(input)?;
    match (written.cert, written.jwt) {
        (Some(cert), None) => Ok(Login::Cert(cert)),
        (None, Some(jwt)) => Ok(Login::Jwt(jwt)),
        (Some(_), Some(_)) | (None, None) => Err(D::Error::custom(
            "login: write one of `cert: {role: …}` and `jwt: {role: …, file: …}`",
        )),
    }
}

fn stored<'de, D: Deserializer<'de>>(_input: D) -> Result<Option<Stored>, D::Error> {
    Err(D::Error::custom(
        "a stored token or password is refused: whoever reads it is this host for as long as it lives. Log in by `cert`, with this \
         host's own SVID, or by `jwt`, with a token that somebody else makes anew in time",
    ))
}

/// Where a vault listens: `https://HOST:PORT`, `http://` with a loopback address, or `unix:/ABSOLUTE/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VaultAddress {
    /// Over TLS, by a name or an address.
    Https {
        /// The name or the address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// In the clear, on this host.
    Http(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// What is wrong with the text of a [`VaultAddress`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "this is not the address of a vault: write https://HOST:PORT, http:// with a loopback address such as 127.0.0.1:8200, or unix:/ABSOLUTE/PATH"
)]
pub struct VaultAddressError;

impl FromStr for VaultAddress {
    type Err = VaultAddressError;

    fn from_str(text: &str) -> Result<Self, VaultAddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = Some(PathBuf::from(path)).filter(|path| path.is_absolute());
            return path.map(Self::Unix).ok_or(VaultAddressError);
        }
        let uri: Uri = text.parse().map_err(|_invalid| VaultAddressError)?;
        let authority = uri.authority().ok_or(VaultAddressError)?;
        // A user in it would be a stored password, and a path would come before every other one.
        let plain = !authority.as_str().contains('@') && uri.path() == "/" && uri.query().is_none();
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        if !plain || host.is_empty() || authority.port_u16() == Some(0) {
            return Err(VaultAddressError);
        }
        match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => Ok(Self::Https {
                host: host.to_owned(),
                port: authority.port_u16().unwrap_or(443),
            }),
            Some(scheme) if *scheme == Scheme::HTTP => {
                let ip = host.parse().map_err(|_name| VaultAddressError)?;
                let address = SocketAddr::new(ip, authority.port_u16().unwrap_or(80));
                let local = Some(address).filter(|address| address.ip().is_loopback());
                local.map(Self::Http).ok_or(VaultAddressError)
            }
            Some(_) | None => Err(VaultAddressError),
        }
    }
}

impl fmt::Display for VaultAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Https { host, port } if host.contains(':') => write!(f, "https://[{host}]:{port}"),
            Self::Https { host, port } => write!(f, "https://{host}:{port}"),
            Self::Http(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for VaultAddress {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for VaultWord {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_str(&self.0)
    }
}

/// A name in a vault: 1 to 128 letters, digits and `_`, `-`, `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VaultWord(Arc<str>);

/// A path in a vault: segments of letters, digits and `_`, `-`, `.`, `@`, `:`, `+`, `=`, parted by `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VaultPath(Arc<str>);

impl VaultWord {
    /// Reads a name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let fits = (1..=WORD_BYTES_MAX).contains(&text.len());
        (fits && text.bytes().all(letter)).then(|| Self(text.into()))
    }

    /// Gives the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Stands for no name, in an error.
    pub(super) fn unnamed() -> Self {
        Self("-".into())
    }
}

impl VaultPath {
    /// Reads a path.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let letter =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'@' | b':' | b'+' | b'=');
        let is_segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(letter);
        (text.len() <= PATH_BYTES_MAX && text.split('/').all(is_segment)).then(|| Self(text.into()))
    }

    /// Gives the path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VaultWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for VaultPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for VaultWord {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        Self::parse(&text)
            .ok_or_else(|| D::Error::custom("a name in a vault has 1 to 128 letters, digits, `_`, `-` and `.`"))
    }
}

impl<'de> Deserialize<'de> for VaultPath {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        Self::parse(&text).ok_or_else(|| {
            D::Error::custom("a path in a vault has no `/` at its ends and segments of letters, digits and `_-.@:+=`")
        })
    }
}

/// `{vault: …}` of `credentials.sources`: what is read where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultSource {
    /// Which of `credentials.vaults`; may be left out where there is one.
    pub of: Option<VaultWord>,
    /// What is read there.
    pub what: What,
}

/// What is read of a vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A key of a secret that an operator put there (KV version 2).
    Kv {
        /// `MOUNT/data/PATH`.
        path: VaultPath,
        /// The key.
        key: VaultWord,
    },
    /// What is made anew for each process of a bot, and ends with it.
    Lease {
        /// Where it is made, such as `database/creds/ROLE`.
        path: VaultPath,
        /// The field that alone is the value, where it is not made of those that its kind has.
        key: Option<VaultWord>,
    },
}

/// As written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceConfig {
    #[serde(default)]
    lease: Option<VaultPath>,
    #[serde(default)]
    of: Option<VaultWord>,
    #[serde(default)]
    path: Option<VaultPath>,
    #[serde(default)]
    key: Option<VaultWord>,
}

impl<'de> Deserialize<'de> for VaultSource {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let SourceConfig { of, lease, path, key } = SourceConfig::deserialize(input)?;
        let what = match (path, lease, key) {
            (Some(path), None, Some(key)) => {
                // The mount may have segments of its own.
                if !path.as_str().split('/').skip(1).any(|segment| segment == "data") {
                    let how = "vault: a secret of KV version 2 is read at MOUNT/data/PATH, and version 1 is not read: it has no versions to go back to";
                    return Err(D::Error::custom(how));
                }
                What::Kv { path, key }
            }
            (None, Some(path), key) => What::Lease { path, key },
            (Some(_), None, None) | (Some(_), Some(_), _) | (None, None, _) => {
                return Err(D::Error::custom(
                    "vault: write `path: MOUNT/data/PATH` with `key: NAME`, or `lease: database/creds/ROLE` and its like",
                ));
            }
        };
        Ok(Self { of, what })
    }
}
