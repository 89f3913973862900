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
