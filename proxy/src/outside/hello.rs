//! The first message of a bot's own TLS, read for the name in it.
//!
//! A tunnel to `tls://www.news.example` must not become one to somebody else who is served at the same address, so the
//! name that the bot asks for is read before a byte leaves. What could hide another name is refused: no name at all,
//! two names, an encrypted one (ECH, where the outer name is not the one that counts), and bytes that some reader might
//! take for something else.

use thiserror::Error;

/// The most bytes of the message with its records: no client sends as much.
pub const HELLO_BYTES_MAX: usize = 16 * 1024;

/// The most records that it may come in.
const RECORDS_MAX: usize = 16;

/// RFC 8446 §5.1.
const HANDSHAKE: u8 = 22;

/// RFC 8446 §4.
const CLIENT_HELLO: u8 = 1;

/// RFC 6066 §3.
const SERVER_NAME: u16 = 0;

/// RFC 9849 §11.1, and its forerunner ESNI.
const ENCRYPTED: [u16; 2] = [0xfe0d, 0xffce];

/// Why a first message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HelloError {
    /// It is not TLS.
    #[error("what comes first is no TLS handshake")]
    NotTls,
    /// It is not what RFC 8446 §4.1.2 says.
    #[error("the ClientHello is malformed")]
    Malformed,
    /// It is longer than any that is meant.
    #[error("the ClientHello is too long, or comes in too many pieces")]
    TooLong,
    /// It names nobody.
    #[error("the ClientHello names no server")]
    NoName,
    /// It names somebody in secret.
    #[error("the ClientHello is encrypted, or says that it might be")]
    Encrypted,
}

/// Reads the name of the server from the first bytes of a connection; `None` while more must come. The name is as the
/// client wrote it.
///
/// # Errors
///
/// When the bytes are not one ClientHello with one name, or cannot become one.
pub fn server_name(bytes: &[u8]) -> Result<Option<String>, HelloError> {
    let Some(message) = message(bytes)? else {
        return Ok(None);
    };
    let mut hello = Bytes(&message);
    // legacy_version, random.
    hello.take(2 + 32)?;
    let session = hello.vector8()?;
    let suites = hello.vector16()?;
    let compression = hello.vector8()?;
    let mut extensions = Bytes(hello.vector16()?);
    let well_formed = session.len() <= 32
        && !suites.is_empty()
        && suites.len().is_multiple_of(2)
        && compression.contains(&0)
        && hello.is_empty();
    if !well_formed {
        return Err(HelloError::Malformed);
    }
    let (mut seen, mut name) = (Vec::new(), None);
    while !extensions.is_empty() {
        let kind = extensions.number16()?;
        let content = extensions.vector16()?;
        // RFC 8446 §4.2: no extension comes twice.
        if seen.contains(&kind) {
            return Err(HelloError::Malformed);
        }
        seen.push(kind);
        if ENCRYPTED.contains(&kind) {
            return Err(HelloError::Encrypted);
        }
        if kind == SERVER_NAME {
            name = Some(one_name(content)?);
        }
    }
    name.map(Some).ok_or(HelloError::NoName)
}

/// RFC 6066 §3: a list with one entry, which is a host name.
fn one_name(content: &[u8]) -> Result<String, HelloError> {
    let mut content = Bytes(content);
    let mut list = Bytes(content.vector16()?);
    let kind = list.take(1)?;
    let name = list.vector16()?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if !content.is_empty() || !list.is_empty() || kind != [0] || name.is_empty() || !name.iter().all(plain) {
        return Err(HelloError::Malformed);
    }
    String::from_utf8(name.to_vec()).map_err(|_never| HelloError::Malformed)
}

/// Puts the message together from its records (RFC 8446 §5.1); nothing else may be in them.
fn message(bytes: &[u8]) -> Result<Option<Vec<u8>>, HelloError> {
    let (mut rest, mut message) = (Bytes(bytes), Vec::new());
    for _ in 0..RECORDS_MAX {
        // What has come is looked at as it comes: what cannot become TLS is not waited for.
        match rest.0 {
            [] | [HANDSHAKE] | [HANDSHAKE, 3] => return Ok(None),
            [HANDSHAKE, 3, minor, ..] if *minor <= 4 => {}
            _ if message.is_empty() => return Err(HelloError::NotTls),
            _ => return Err(HelloError::Malformed),
        }
        let Ok(head) = rest.take(3).and_then(|_head| rest.number16()) else {
            return Ok(None);
        };
        // A record of a handshake is not empty, and has at most 2^14 bytes.
        if !(1..=1 << 14).contains(&head) {
            return Err(HelloError::Malformed);
        }
        let length = usize::from(head);
        let whole = rest.0.len() >= length;
        message.extend_from_slice(rest.take(length.min(rest.0.len()))?);
        let wanted = match message.as_slice() {
            [CLIENT_HELLO, high, middle, low, ..] => {
                4 + (usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low))
            }
            [] | [CLIENT_HELLO, ..] => usize::MAX,
            _ => return Err(HelloError::NotTls),
        };
        if wanted != usize::MAX && wanted > HELLO_BYTES_MAX || bytes.len() > HELLO_BYTES_MAX {
            return Err(HelloError::TooLong);
        }
        if !whole {
            return Ok(None);
        }
        if message.len() > wanted {
            // A second message before the server has answered.
            return Err(HelloError::Malformed);
        }
        if message.len() == wanted {
            return Ok(Some(message.split_off(4)));
        }
    }
    Err(HelloError::TooLong)
}

/// Bytes that are taken from the front.
struct Bytes<'b>(&'b [u8]);

impl<'b> Bytes<'b> {
    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> Result<&'b [u8], HelloError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(HelloError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number16(&mut self) -> Result<u16, HelloError> {
        match self.take(2)? {
            [high, low] => Ok(u16::from_be_bytes([*high, *low])),
            _ => Err(HelloError::Malformed),
        }
    }

    fn vector8(&mut self) -> Result<&'b [u8], HelloError> {
        let length = self.take(1)?.iter().map(|byte| usize::from(*byte)).sum();
        self.take(length)
    }

    fn vector16(&mut self) -> Result<&'b [u8], HelloError> {
        let length = self.number16()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn vector16(bytes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(bytes.len()).unwrap();
        [&length.to_be_bytes()[..], bytes].concat()
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &vector16(content)].concat()
    }

    fn named(name: &[u8]) -> Vec<u8> {
        extension(0, &vector16(&[&[0][..], &vector16(name)].concat()))
    }

    /// The message, without records.
    fn hello(extensions: &[u8]) -> Vec<u8> {
        let body = [
            &[3, 3][..],
            &[7; 32],
            &[0],
            &vector16(&[0x13, 0x01]),
            &[1, 0],
            &vector16(extensions),
        ]
        .concat();
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[1], &length[1..], &body].concat()
    }

    /// Puts a message into records that end at these places.
    fn records(message: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mut cuts: Vec<usize> = cuts
            .iter()
            .map(|cut| cut % message.len())
            .filter(|cut| *cut > 0)
            .collect();
        cuts.push(message.len());
        cuts.sort_unstable();
        cuts.dedup();
        let mut from = 0;
        let record = |to: usize| {
            let part = &message[from..to];
            from = to;
            [&[22, 3, 1][..], &vector16(part)].concat()
        };
        cuts.into_iter().flat_map(record).collect()
    }

    fn read(extensions: &[u8]) -> Result<Option<String>, HelloError> {
        server_name(&records(&hello(extensions), &[]))
    }

    proptest! {
        #[test]
        fn the_name_that_was_written_is_read_however_it_is_cut(
            name in "[a-zA-Z0-9.-]{1,60}",
            before in proptest::collection::vec((1_u16..1_000, proptest::collection::vec(any::<u8>(), 0..40)), 0..4),
            cuts in proptest::collection::vec(any::<usize>(), 0..10),
        ) {
            let mut kinds: Vec<u16> = before.iter().map(|(kind, _)| *kind).collect();
            kinds.sort_unstable();
            kinds.dedup();
            prop_assume!(kinds.len() == before.len());
            let others: Vec<u8> = before.iter().flat_map(|(kind, content)| extension(*kind, content)).collect();
            let bytes = records(&hello(&[others, named(name.as_bytes())].concat()), &cuts);
            for end in 0..bytes.len() {
                prop_assert_eq!(server_name(&bytes[..end]), Ok(None), "{} of {}", end, bytes.len());
            }
            prop_assert_eq!(server_name(&bytes), Ok(Some(name)));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            drop(server_name(&bytes));
        }
    }

    #[test]
    fn what_a_real_client_says_is_read() {
        let roots = rustls::RootCertStore::empty();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = rustls_pki_types::ServerName::try_from("www.news.example").unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        assert_eq!(server_name(&bytes), Ok(Some("www.news.example".to_owned())));
    }

    #[test]
    fn what_hides_the_name_or_has_two_is_refused() {
        assert_eq!(read(&[]), Err(HelloError::NoName));
        assert_eq!(read(&extension(5, b"x")), Err(HelloError::NoName));
        for encrypted in ENCRYPTED {
            let extensions = [named(b"a.b"), extension(encrypted, &[0; 9])].concat();
            assert_eq!(read(&extensions), Err(HelloError::Encrypted));
        }
        let two_entries = vector16(&[&[0][..], &vector16(b"a.b"), &[0], &vector16(b"c.d")].concat());
        for extensions in [
            [named(b"a.b"), named(b"c.d")].concat(),
            extension(0, &two_entries),
            extension(0, &vector16(&[&[1][..], &vector16(b"a.b")].concat())),
            extension(
                0,
                &[vector16(&[&[0][..], &vector16(b"a.b")].concat()), vec![0]].concat(),
            ),
            extension(0, &[]),
            named(b""),
            named(b"a\0b"),
            named(b"a b"),
            named("\u{e9}.b".as_bytes()),
            [named(b"a.b"), vec![0]].concat(),
        ] {
            assert_eq!(read(&extensions), Err(HelloError::Malformed), "{extensions:?}");
        }
    }

    #[test]
    fn what_is_not_one_client_hello_is_refused_as_soon_as_it_shows() {
        let good = records(&hello(&named(b"a.b")), &[]);
        assert_eq!(server_name(b"GET / HTTP/1.1\r\n"), Err(HelloError::NotTls));
        assert_eq!(server_name(b"\x16\x02"), Err(HelloError::NotTls));
        assert_eq!(server_name(b"\x16\x03\x05"), Err(HelloError::NotTls));
        assert_eq!(server_name(b"\x16\x03\x01\x00\x00"), Err(HelloError::Malformed));
        assert_eq!(server_name(b"\x16\x03\x01\x40\x01"), Err(HelloError::Malformed));
        assert_eq!(server_name(b"\x16\x03\x01\x00\x05\x02"), Err(HelloError::NotTls));
        assert_eq!(
            server_name(b"\x16\x03\x01\x3f\xff\x01\x00\x40\x00"),
            Err(HelloError::TooLong)
        );
        // Another message behind the first, in its record and in one of its own inside the same message.
        let message = [hello(&named(b"a.b")), vec![1, 0, 0, 0]].concat();
        assert_eq!(server_name(&records(&message, &[])), Err(HelloError::Malformed));
        // An alert between two pieces.
        let mut cut = records(&hello(&named(b"a.b")), &[10]);
        let second = 5 + 10;
        cut[second] = 21;
        assert_eq!(server_name(&cut), Err(HelloError::Malformed));
        let pieces: Vec<usize> = (1..40).collect();
        assert_eq!(
            server_name(&records(&hello(&named(b"a.b")), &pieces)),
            Err(HelloError::TooLong)
        );
        // What follows the whole message is not looked at: it may be early data.
        assert!(matches!(server_name(&[good, vec![23, 3, 3]].concat()), Ok(Some(_))));
    }
}
