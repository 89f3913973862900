//! Carries bytes between two connections until both are done.

use std::io;
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls_pki_types::ServerName;

use crate::{HandshakeRefusal, refusal_of};

/// More rounds than any handshake of TLS 1.3 takes.
const ROUNDS: usize = 10;

/// Both ends after a handshake, and how it went for each.
pub(super) struct Ends {
    pub(super) client: ClientConnection,
    pub(super) server: ServerConnection,
    pub(super) client_result: Result<(), rustls::Error>,
    pub(super) server_result: Result<(), rustls::Error>,
}

impl Ends {
    /// Both ends, which must have come to an end of the handshake.
    pub(super) fn established(self) -> Self {
        assert_eq!((&self.client_result, &self.server_result), (&Ok(()), &Ok(())));
        assert!(!self.client.is_handshaking() && !self.server.is_handshaking());
        self
    }

    pub(super) fn client_refusal(&self) -> HandshakeRefusal {
        reason(&self.client_result)
    }

    pub(super) fn server_refusal(&self) -> HandshakeRefusal {
        assert!(self.server.is_handshaking(), "the server went on");
        reason(&self.server_result)
    }
}

/// The reason in a result, found through an I/O error as `tokio_rustls` makes it.
fn reason(result: &Result<(), rustls::Error>) -> HandshakeRefusal {
    let error = result.clone().expect_err("nobody was refused");
    let of_rustls = HandshakeRefusal::of(&error).unwrap_or_else(|| panic!("no refusal: {error}"));
    let of_io = refusal_of(&io::Error::new(io::ErrorKind::InvalidData, error)).unwrap();
    assert_eq!(of_rustls, of_io);
    of_io
}

pub(super) fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>, name: ServerName<'static>) -> Ends {
    let mut ends = Ends {
        client: ClientConnection::new(client, name).unwrap(),
        server: ServerConnection::new(server).unwrap(),
        client_result: Ok(()),
        server_result: Ok(()),
    };
    for _ in 0..ROUNDS {
        let mut wire = Vec::new();
        while ends.client.wants_write() {
            ends.client.write_tls(&mut wire).unwrap();
        }
        if ends.server_result.is_ok() {
            ends.server_result = feed_server(&mut ends.server, &wire);
        }
        let mut wire = Vec::new();
        while ends.server.wants_write() {
            ends.server.write_tls(&mut wire).unwrap();
        }
        if ends.client_result.is_ok() {
            ends.client_result = feed_client(&mut ends.client, &wire);
        }
    }
    ends
}

pub(super) fn feed_server(server: &mut ServerConnection, mut wire: &[u8]) -> Result<(), rustls::Error> {
    while !wire.is_empty() {
        server.read_tls(&mut wire).unwrap();
        server.process_new_packets()?;
    }
    Ok(())
}

pub(super) fn feed_client(client: &mut ClientConnection, mut wire: &[u8]) -> Result<(), rustls::Error> {
    while !wire.is_empty() {
        client.read_tls(&mut wire).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}
