//! Peers that speak nothing newer than TLS 1.2, as bytes: this build of rustls cannot speak it.

use rustls::{ClientConnection, ServerConnection};

use super::wire::{feed_client, feed_server};
use super::*;

/// Wraps a handshake message in its header and a record.
fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap();
    let [high, low] = length.to_be_bytes();
    let message = [&[kind, 0, high, low], body].concat();
    let [high, low] = (length + 4).to_be_bytes();
    [&[0x16, 3, 3, high, low], &message[..]].concat()
}

/// RFC 5246 §7.4.1.2: version, random, no session, two suites, no compression, and the extensions every client sends.
fn client_hello(version: [u8; 2]) -> Vec<u8> {
    let groups = [0, 10, 0, 4, 0, 2, 0, 23];
    let signatures = [0, 13, 0, 4, 0, 2, 4, 3];
    let extensions = [groups, signatures].concat();
    let [high, low] = u16::try_from(extensions.len()).unwrap().to_be_bytes();
    let start = [&version[..], &[7; 32], &[0], &[0, 4, 0xc0, 0x2b, 0xc0, 0x2f], &[1, 0]].concat();
    record(1, &[&start[..], &[high, low], &extensions].concat())
}

#[test]
fn a_client_of_tls_1_2_or_older_is_refused() {
    for version in [[3, 3], [3, 2], [3, 1]] {
        let mut server = ServerConnection::new(Mesh::new().server_config()).unwrap();
        let error = feed_server(&mut server, &client_hello(version)).unwrap_err();
        assert_eq!(
            HandshakeRefusal::of(&error),
            Some(HandshakeRefusal::NotTls13),
            "{error:?}"
        );
    }
}

#[test]
fn a_server_of_tls_1_2_is_refused() {
    let mut client = ClientConnection::new(Mesh::new().client_config(), sni_for(&orders())).unwrap();
    // RFC 5246 §7.4.1.3: version, random, no session, a suite, no compression.
    let hello = [&[3, 3][..], &[7; 32], &[0], &[0xc0, 0x2b], &[0]].concat();
    let error = feed_client(&mut client, &record(2, &hello)).unwrap_err();
    assert_eq!(
        HandshakeRefusal::of(&error),
        Some(HandshakeRefusal::NotTls13),
        "{error:?}"
    );
}

#[test]
fn a_server_that_answers_with_the_version_alert_is_refused() {
    let mut client = ClientConnection::new(Mesh::new().client_config(), sni_for(&orders())).unwrap();
    let protocol_version = [0x15, 3, 3, 0, 2, 2, 70];
    let error = feed_client(&mut client, &protocol_version).unwrap_err();
    assert_eq!(
        HandshakeRefusal::of(&error),
        Some(HandshakeRefusal::NotTls13),
        "{error:?}"
    );
}

#[test]
fn no_alert_and_no_other_fault_of_a_peer_is_a_refusal_of_ours() {
    let mut client = ClientConnection::new(Mesh::new().client_config(), sni_for(&orders())).unwrap();
    let certificate_unknown = [0x15, 3, 3, 0, 2, 2, 46];
    let error = feed_client(&mut client, &certificate_unknown).unwrap_err();
    assert_eq!(HandshakeRefusal::of(&error), None);

    let mut server = ServerConnection::new(Mesh::new().server_config()).unwrap();
    let error = feed_server(&mut server, b"GET / HTTP/1.1\r\n\r\n").unwrap_err();
    assert_eq!(HandshakeRefusal::of(&error), None);
}
