//! What an operator put into files: where alerts are sent, and the key that signs them. Both are secrets: whoever knows the
//! address of a chat's webhook may post there.

use std::fmt;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use http::uri::Scheme;
use zeroize::{Zeroize as _, Zeroizing};

/// The longest file.
const FILE_BYTES_MAX: usize = 4 * 1024;

/// The shortest key: 128 bits.
const KEY_BYTES_MIN: usize = 16;

/// How keys of Standard Webhooks are written.
const KEY_PREFIX: &str = "whsec_";

/// Why what is in the files cannot be used. No word of the files is in it.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// systemd passed nothing.
    #[error("systemd passed no credentials to the CA: there is no $CREDENTIALS_DIRECTORY")]
    NoSystemd,
    /// A file could not be read.
    #[error("read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is longer than any address or key.
    #[error("{path} has more than 4096 bytes")]
    TooLong {
        /// Which.
        path: PathBuf,
    },
    /// Everybody on this machine can read it.
    #[error("{path} has mode {mode:04o}: everybody can read it; make it 0640 or 0600")]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is no address to which anything may be sent.
    #[error(
        "{path} holds no address of a webhook: one line, https:// with a host, without user and fragment; http:// to a loopback address"
    )]
    Address {
        /// Which.
        path: PathBuf,
    },
    /// It is no key.
    #[error("{path} holds no key: one line of 16 bytes and more, or whsec_ and base64 of so many")]
    Key {
        /// Which.
        path: PathBuf,
    },
}

/// Where alerts are sent.
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) is_tls: bool,
    /// Path and query.
    pub(super) target: Zeroizing<String>,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address(<redacted>)")
    }
}

impl Address {
    pub(super) fn read(path: &Path) -> Result<Self, SecretError> {
        Self::parse(&line(path)?).ok_or_else(|| SecretError::Address { path: path.to_owned() })
    }

    fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let authority = uri.authority()?;
        // A parser of URIs drops fragments, and what stands before an `@` is sent to whoever stands after it.
        if text.contains(['#', '\\']) || authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let is_tls = uri.scheme() == Some(&Scheme::HTTPS);
        let is_near = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let is_plain = uri.scheme() == Some(&Scheme::HTTP) && is_near;
        if !is_tls && !is_plain {
            return None;
        }
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        Some(Self {
            port: authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            host,
            is_tls,
            target: Zeroizing::new(target.to_owned()),
        })
    }
}

/// What alerts are signed with.
pub(super) struct Key(Zeroizing<Vec<u8>>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(<redacted>)")
    }
}

impl Key {
    pub(super) fn read(path: &Path) -> Result<Self, SecretError> {
        Self::parse(&line(path)?).ok_or_else(|| SecretError::Key { path: path.to_owned() })
    }

    fn parse(text: &str) -> Option<Self> {
        let key = match text.strip_prefix(KEY_PREFIX) {
            Some(encoded) => STANDARD.decode(encoded).ok()?,
            None => text.as_bytes().to_vec(),
        };
        let key = Zeroizing::new(key);
        (key.len() >= KEY_BYTES_MIN).then_some(Self(key))
    }

    /// The value of `webhook-signature` (Standard Webhooks, "Signature scheme"): HMAC-SHA256 over id, time and body.
    pub(super) fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &self.0);
        let mut context = aws_lc_rs::hmac::Context::with_key(&key);
        context.update(format!("{id}.{seconds}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign().as_ref()))
    }
}

/// The one line of a file that not everybody can read.
fn line(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    let failed = |source| SecretError::Read {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o007 != 0 {
        let path = path.to_owned();
        return Err(SecretError::Exposed { path, mode });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX + 1));
    let mut most = file.take(FILE_BYTES_MAX as u64 + 1);
    most.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(SecretError::TooLong { path: path.to_owned() });
    }
    let text = String::from_utf8(std::mem::take(&mut *bytes)).map_err(|error| {
        let is = io::Error::new(io::ErrorKind::InvalidData, error.utf8_error());
        error.into_bytes().zeroize();
        failed(is)
    })?;
    let text = Zeroizing::new(text);
    Ok(Zeroizing::new(text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_address_is_https_or_on_this_machine() {
        for (text, host, port, target) in [
            (
                "https://hooks.slack.com/services/T0/B0/x",
                "hooks.slack.com",
                443,
                "/services/T0/B0/x",
            ),
            (
                "https://alerts.acme.example:8443/in?key=1",
                "alerts.acme.example",
                8443,
                "/in?key=1",
            ),
            ("https://[2001:db8::1]", "2001:db8::1", 443, "/"),
            ("http://127.0.0.1:9000/x", "127.0.0.1", 9000, "/x"),
            ("http://[::1]/x", "::1", 80, "/x"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(
                (address.host.as_str(), address.port, address.target.as_str()),
                (host, port, target)
            );
            assert_eq!(address.is_tls, text.starts_with("https"));
            assert!(!format!("{address:?}").contains(host), "it is a secret");
        }
        for text in [
            "",
            "hooks.slack.com/services",
            "/services",
            "http://alerts.acme.example/in",
            "http://localhost/in",
            "http://10.0.0.1/in",
            "ftp://alerts.acme.example/in",
            "https://user@alerts.acme.example/in",
            "https://good.example@evil.example/in",
            "https://alerts.acme.example/in#part",
            "https://alerts.acme.example\\@evil.example/in",
            "https://alerts.acme.example/in\nhttps://other.example",
            "https:///in",
        ] {
            assert!(Address::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_signature_is_the_one_of_standard_webhooks() {
        // The example of its specification.
        let key = Key::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signature = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(Key::parse("fifteen bytes..").is_none() && Key::parse("sixteen bytes...").is_some());
        assert!(Key::parse("whsec_c2hvcnQ=").is_none() && Key::parse("whsec_%").is_none());
        assert_eq!(format!("{key:?}"), "Key(<redacted>)");
    }

    #[test]
    fn a_file_that_everybody_can_read_or_that_is_too_long_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("url");
        let write = |text: &[u8], mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        write(b"https://alerts.acme.example/in\n", 0o640);
        assert_eq!(Address::read(&path).unwrap().target.as_str(), "/in");
        for (text, mode, why) in [
            (
                b"https://alerts.acme.example/in".to_vec(),
                0o644,
                "everybody can read it",
            ),
            (vec![b'x'; FILE_BYTES_MAX + 1], 0o600, "more than 4096 bytes"),
            (b"hunter2".to_vec(), 0o600, "no address of a webhook"),
            (vec![0xff], 0o600, "read "),
        ] {
            write(&text, mode);
            let refused = Address::read(&path).unwrap_err().to_string();
            assert!(refused.contains(why) && !refused.contains("hunter2"), "{refused}");
        }
    }
}
