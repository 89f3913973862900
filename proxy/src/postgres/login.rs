//! The start-up with a server: the proxy says who the session is of, and proves it.
//!
//! Nothing that gives a password away is answered: no request for it in the clear, and none for its MD5. A server that lets
//! anybody in without a proof is refused too: what it takes for the user, it takes for everybody.

use std::io;
use std::sync::Arc;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::scram::{Client, Last, ScramError};
use super::wire::{self, KEY_BYTES};
use crate::credentials::Secret;

/// The longest message of a start-up, the most of them, and all that a client is told.
const MESSAGE_BYTES_MAX: usize = 32 * 1024;
const MESSAGES_MAX: usize = 256;
const TOLD_BYTES_MAX: usize = 64 * 1024;

/// How the user is proved.
#[derive(Debug)]
pub(crate) enum Proof {
    /// By a password, bound to the server's certificate where that has a hash.
    Password {
        secret: Arc<Secret>,
        end_point: Option<Vec<u8>>,
    },
    /// By the certificate that TLS has shown.
    Certificate,
}

/// A session that has begun.
#[derive(Debug)]
pub(crate) struct Begun {
    /// What the client is told: that it may go on, the server's settings, the key, and that the server is ready.
    pub(crate) told: Bytes,
    /// By what a statement of the session is ended.
    pub(crate) key: Option<[u8; KEY_BYTES]>,
}

/// Why a session does not begin.
#[derive(Debug, Error)]
pub(crate) enum LoginError {
    /// The server says so.
    #[error("the server refuses the session")]
    Server { error: Bytes },
    /// It asks for what gives the password away, or for what the proxy does not have.
    #[error(
        "the server asks for authentication of kind {kind}, and the proxy gives SCRAM-SHA-256 or a certificate alone"
    )]
    Kind { kind: u32 },
    /// It asks for no proof.
    #[error("the server lets the user in without a proof")]
    NoProof,
    /// It is not to be believed.
    #[error("authenticate by SCRAM")]
    Scram {
        #[source]
        source: ScramError,
    },
    /// It does not speak the protocol.
    #[error("what the server says is no start-up of PostgreSQL 3.0")]
    Protocol,
    /// It is gone.
    #[error("talk to the server")]
    Io {
        #[source]
        source: io::Error,
    },
}

impl From<ScramError> for LoginError {
    fn from(source: ScramError) -> Self {
        Self::Scram { source }
    }
}

impl From<io::Error> for LoginError {
    fn from(source: io::Error) -> Self {
        Self::Io { source }
    }
}

/// Begins a session.
///
/// # Errors
///
/// When the server refuses, or is not to be believed.
pub(crate) async fn login<S>(server: &mut S, startup: &Bytes, proof: &Proof) -> Result<Begun, LoginError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    say(server, startup).await?;
    prove(server, proof).await?;
    let mut told = BytesMut::from(&OK[..]);
    let mut key = None;
    for _ in 0..MESSAGES_MAX {
        let (kind, body) = hear(server).await?;
        match (kind, &key) {
            (b'S' | b'N', _) => {}
            (b'K', None) => {
                let read = <[u8; KEY_BYTES]>::try_from(&body[..]);
                key = Some(read.map_err(|_other| LoginError::Protocol)?);
            }
            (b'Z', _) => {
                told.extend_from_slice(&wire::message(kind, &body));
                let told = told.freeze();
                return Ok(Begun { told, key });
            }
            _ => return Err(LoginError::Protocol),
        }
        if told.len() + body.len() > TOLD_BYTES_MAX {
            return Err(LoginError::Protocol);
        }
        told.extend_from_slice(&wire::message(kind, &body));
    }
    Err(LoginError::Protocol)
}

/// `AuthenticationOk`.
const OK: [u8; 9] = [b'R', 0, 0, 0, 8, 0, 0, 0, 0];

/// What servers ask for, by its number.
const SASL: u32 = 10;
const SASL_CONTINUE: u32 = 11;
const SASL_FINAL: u32 = 12;

async fn prove<S>(server: &mut S, proof: &Proof) -> Result<(), LoginError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (kind, asked) = authentication(server).await?;
    match (kind, proof) {
        (0, Proof::Certificate) => Ok(()),
        (0, Proof::Password { .. }) => Err(LoginError::NoProof),
        (SASL, Proof::Password { secret, end_point }) => {
            let client = client(&asked, end_point.as_deref())?;
            scram(server, client, secret).await
        }
        (kind, Proof::Password { .. } | Proof::Certificate) => Err(LoginError::Kind { kind }),
    }
}

/// Reads which mechanisms are offered: names, each ended by a zero, and a zero.
fn client(offered: &[u8], end_point: Option<&[u8]>) -> Result<Client, LoginError> {
    let names: Result<Vec<&str>, _> = offered.split(|byte| *byte == 0).map(std::str::from_utf8).collect();
    let names = names.map_err(|_not_text| LoginError::Protocol)?;
    let mut nonce = [0; 24];
    rand::fill(&mut nonce).map_err(|_none| io::Error::other("no randomness"))?;
    Ok(Client::new(&names, end_point, STANDARD.encode(nonce))?)
}

async fn scram<S>(server: &mut S, client: Client, secret: &Arc<Secret>) -> Result<(), LoginError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let first = client.first();
    let mut body = BytesMut::from(client.mechanism.as_bytes());
    body.extend_from_slice(&[0]);
    body.extend_from_slice(&u32::try_from(first.len()).unwrap_or(u32::MAX).to_be_bytes());
    body.extend_from_slice(first.as_bytes());
    say(server, &wire::message(b'p', &body)).await?;
    let challenge = expect(server, SASL_CONTINUE).await?;
    let secret = Arc::clone(secret);
    // A server decides how long this takes, within bounds; nobody else waits for it.
    let deriving = tokio::task::spawn_blocking(move || client.last(&challenge, secret.bytes()));
    let last: Last = deriving.await.map_err(io::Error::other)??;
    say(server, &wire::message(b'p', last.message().as_bytes())).await?;
    let verifier = expect(server, SASL_FINAL).await?;
    last.check(&verifier)?;
    match authentication(server).await? {
        (0, _) => Ok(()),
        (kind, _) => Err(LoginError::Kind { kind }),
    }
}

async fn expect<S: AsyncRead + Unpin>(server: &mut S, wanted: u32) -> Result<Bytes, LoginError> {
    match authentication(server).await? {
        (kind, rest) if kind == wanted => Ok(rest),
        (kind, _) => Err(LoginError::Kind { kind }),
    }
}

/// Hears what kind of authentication is asked for.
async fn authentication<S: AsyncRead + Unpin>(server: &mut S) -> Result<(u32, Bytes), LoginError> {
    for _ in 0..MESSAGES_MAX {
        let (kind, body) = hear(server).await?;
        match (kind, body.split_first_chunk()) {
            (b'R', Some((code, rest))) => return Ok((u32::from_be_bytes(*code), body.slice_ref(rest))),
            // It says something besides.
            (b'N', _) => {}
            _ => return Err(LoginError::Protocol),
        }
    }
    Err(LoginError::Protocol)
}

/// Hears one message; an error of the server's is one here.
async fn hear<S: AsyncRead + Unpin>(server: &mut S) -> Result<(u8, Bytes), LoginError> {
    let mut head = [0; 5];
    server.read_exact(&mut head).await?;
    let [kind, length @ ..] = head;
    let length = (u32::from_be_bytes(length) as usize)
        .checked_sub(4)
        .filter(|length| *length <= MESSAGE_BYTES_MAX);
    let mut body = vec![0; length.ok_or(LoginError::Protocol)?];
    server.read_exact(&mut body).await?;
    let body = Bytes::from(body);
    if kind == b'E' {
        return Err(LoginError::Server { error: body });
    }
    Ok((kind, body))
}

async fn say<S: AsyncWrite + Unpin>(server: &mut S, message: &Bytes) -> Result<(), LoginError> {
    server.write_all(message).await?;
    Ok(server.flush().await?)
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    fn password() -> Proof {
        Proof::Password {
            secret: Arc::new(Secret::new(b"correct horse".to_vec()).unwrap()),
            end_point: None,
        }
    }

    fn asks(kind: u32, rest: &[u8]) -> Bytes {
        wire::message(b'R', &[&kind.to_be_bytes()[..], rest].concat())
    }

    /// What comes of a server that says this whatever it hears.
    async fn told(says: &[Bytes], proof: &Proof) -> Result<Begun, LoginError> {
        let (mut client, mut server) = duplex(256 * 1024);
        for message in says {
            server.write_all(message).await.unwrap();
        }
        // Whoever waits for more than that hears that there is none.
        server.shutdown().await.unwrap();
        let startup = wire::startup([("user", "robot")]);
        let (mut read, _write) = tokio::io::split(server);
        let begun = login(&mut client, &startup, proof).await;
        let mut heard = vec![0; startup.len()];
        read.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, startup);
        drop(client);
        let mut rest = Vec::new();
        read.read_to_end(&mut rest).await.unwrap();
        assert!(memchr::memmem::find(&rest, b"correct horse").is_none());
        begun
    }

    fn rest() -> [Bytes; 3] {
        [
            wire::message(b'S', b"server_version\x0017\0"),
            wire::message(b'K', b"pid_secr"),
            wire::message(b'Z', b"I"),
        ]
    }

    #[tokio::test]
    async fn a_certificate_alone_begins_a_session_and_what_the_server_says_then_is_passed_on() {
        let [settings, key, ready] = rest();
        let says = [asks(0, b""), settings, key, ready];
        let begun = told(&says, &Proof::Certificate).await.unwrap();
        assert_eq!(begun.told, says.concat());
        assert_eq!(begun.key, Some(*b"pid_secr"));
    }

    #[tokio::test]
    async fn nothing_that_gives_the_password_away_is_answered() {
        // In the clear, MD5, GSSAPI, SSPI.
        for kind in [3, 5, 7, 9, 11, 12] {
            let refused = told(&[asks(kind, b"salt")], &password()).await.unwrap_err();
            assert!(
                matches!(refused, LoginError::Kind { kind: asked } if asked == kind),
                "{refused:?}"
            );
        }
        let refused = told(&[asks(SASL, b"SCRAM-SHA-1\0\0")], &password()).await.unwrap_err();
        assert!(matches!(
            refused,
            LoginError::Scram {
                source: ScramError::NotOffered
            }
        ));
    }

    #[tokio::test]
    async fn a_server_that_asks_for_no_proof_or_for_another_one_is_refused() {
        let refused = told(&[asks(0, b"")], &password()).await.unwrap_err();
        assert!(matches!(refused, LoginError::NoProof), "{refused:?}");
        let refused = told(&[asks(SASL, b"SCRAM-SHA-256\0\0")], &Proof::Certificate).await;
        assert!(matches!(refused.unwrap_err(), LoginError::Kind { kind: SASL }));
        // Right after the challenge, without the signature.
        let says = [asks(SASL, b"SCRAM-SHA-256\0\0"), asks(0, b"")];
        assert!(matches!(
            told(&says, &password()).await.unwrap_err(),
            LoginError::Kind { kind: 0 }
        ));
    }

    #[tokio::test]
    async fn an_error_of_the_server_is_its_own_and_what_is_no_message_is_none() {
        let error = wire::message(b'E', b"C28P01\0\0");
        let refused = told(&[error], &password()).await.unwrap_err();
        assert!(
            matches!(&refused, LoginError::Server { error } if &error[..] == b"C28P01\0\0"),
            "{refused:?}"
        );
        let [settings, key, _] = rest();
        let many = std::iter::once(asks(0, b"")).chain(std::iter::repeat_n(settings, MESSAGES_MAX));
        let long = wire::message(b'N', &vec![b'x'; TOLD_BYTES_MAX / 3]);
        let long = std::iter::once(asks(0, b"")).chain(std::iter::repeat_n(long, 3));
        let [_, _, ready] = rest();
        for says in [
            vec![Bytes::from_static(b"R\0\0\0\x03")],
            vec![Bytes::from_static(b"R\0\0\xff\xff")],
            vec![wire::message(b'R', b"\0\0")],
            vec![wire::message(b'v', b"")],
            vec![asks(0, b""), wire::message(b'D', b"")],
            vec![asks(0, b""), wire::message(b'K', b"longer than it is")],
            vec![asks(0, b""), key.clone(), key],
            many.collect(),
            long.chain([ready]).collect(),
        ] {
            let refused = told(&says, &Proof::Certificate).await.unwrap_err();
            assert!(matches!(refused, LoginError::Protocol), "{says:?}: {refused:?}");
        }
    }
}
