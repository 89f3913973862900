//! The first thing that a caller says in a tunnel to `tls://`: it passes once it asks for the very name that the tunnel was
//! opened to, and nothing does before.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::tunnel::Broken;
use crate::live::Held;
use crate::outside::hello::{self, HelloError};
use crate::reason::Reason;

/// How long a caller may take for its ClientHello: clients send it as soon as the tunnel is open.
const PATIENCE: Duration = Duration::from_secs(10);

/// What has come of a ClientHello.
#[derive(Debug)]
pub(super) struct Greeting {
    host: String,
    said: BytesMut,
    until: Option<Instant>,
    /// The call, which ends where another name is asked for.
    held: Held,
}

impl Greeting {
    /// Waits for one that asks for `host`, which is in lower case.
    pub(super) fn new(host: &str, held: Held) -> Self {
        Self {
            host: host.to_owned(),
            said: BytesMut::new(),
            until: Some(Instant::now() + PATIENCE),
            held,
        }
    }

    /// Takes what the caller says next, and gives what may leave.
    pub(super) fn pass(&mut self, data: Bytes) -> Result<Option<Bytes>, Broken> {
        if self.until.is_none() {
            return Ok(Some(data));
        }
        self.said.extend_from_slice(&data);
        match hello::server_name(&self.said) {
            Ok(None) => Ok(None),
            // RFC 6066 §3: case does not matter in it.
            Ok(Some(name)) if name.eq_ignore_ascii_case(&self.host) => {
                self.until = None;
                Ok(Some(std::mem::take(&mut self.said).freeze()))
            }
            Ok(Some(name)) => {
                tracing::warn!(tunnel = %self.host, asked = %name, "a bot asked for another server than its tunnel leads to");
                Err(self.end(Reason::OutsideForbidden))
            }
            Err(error) => {
                tracing::warn!(tunnel = %self.host, %error, "the first message in a tunnel was refused");
                Err(self.end(match error {
                    HelloError::Encrypted | HelloError::NoName => Reason::OutsideForbidden,
                    HelloError::NotTls | HelloError::Malformed | HelloError::TooLong => Reason::BadRequest,
                }))
            }
        }
    }

    /// Ends a tunnel whose caller has not said whom it wants for too long.
    pub(super) fn in_time(&self) -> Result<(), Broken> {
        if self.until.is_none_or(|until| Instant::now() < until) {
            return Ok(());
        }
        Err(self.end(Reason::Timeout))
    }

    fn end(&self, reason: Reason) -> Broken {
        self.held.end(reason);
        Broken
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// What a real client says to a server of this name, and something behind it.
    fn said_to(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = rustls_pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut said = Vec::new();
        client.write_tls(&mut said).unwrap();
        said.extend_from_slice(b"early");
        said
    }

    #[tokio::test(start_paused = true)]
    async fn every_byte_of_a_caller_that_asks_for_the_right_name_passes_once_the_name_is_seen() {
        for piece in [1, 7, 100_000] {
            let (held, said) = (Held::for_tests(), said_to("www.news.example"));
            let mut greeting = Greeting::new("www.news.example", held.clone());
            let mut passed = Vec::new();
            for chunk in said.chunks(piece) {
                if let Some(bytes) = greeting.pass(Bytes::copy_from_slice(chunk)).unwrap() {
                    passed.extend_from_slice(&bytes);
                }
            }
            assert_eq!(passed, said, "{piece}");
            tokio::time::advance(Duration::from_hours(1)).await;
            assert!(greeting.in_time().is_ok() && held.cut().is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_asks_for_another_or_says_no_hello_is_cut_off() {
        for (said, reason) in [
            (said_to("evil.news.example"), Reason::OutsideForbidden),
            (said_to("news.example"), Reason::OutsideForbidden),
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Reason::BadRequest),
        ] {
            let held = Held::for_tests();
            let mut greeting = Greeting::new("www.news.example", held.clone());
            assert!(greeting.pass(Bytes::from(said)).is_err());
            assert_eq!(held.cut(), Some(reason));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_says_nothing_or_half_of_it_is_waited_for_ten_seconds() {
        let held = Held::for_tests();
        let mut greeting = Greeting::new("www.news.example", held.clone());
        let said = Bytes::from(said_to("www.news.example"));
        assert!(greeting.pass(said.slice(..9)).unwrap().is_none());
        tokio::time::advance(Duration::from_millis(9_999)).await;
        assert!(greeting.in_time().is_ok());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(greeting.in_time().is_err());
        assert_eq!(held.cut(), Some(Reason::Timeout));
    }
}
