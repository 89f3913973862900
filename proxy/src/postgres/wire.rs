//! Messages of PostgreSQL, as far as a start-up has them.
//!
//! <https://www.postgresql.org/docs/17/protocol-message-formats.html>. Numbers are big-endian; a length counts itself.

use bytes::{BufMut as _, Bytes, BytesMut};
use thiserror::Error;

/// The longest first message of a client, as the server has it (`MAX_STARTUP_PACKET_LENGTH`).
pub const STARTUP_BYTES_MAX: usize = 10_000;

/// The most parameters of one.
const PARAMETERS_MAX: usize = 64;

/// The length of the key of a session, process id and secret, in protocol 3.0.
pub const KEY_BYTES: usize = 8;

const PROTOCOL_3_0: u32 = 3 << 16;
const CANCEL: u32 = (1234 << 16) | 5678;
const TLS: u32 = (1234 << 16) | 5679;
const GSS: u32 = (1234 << 16) | 5680;

/// The first message of a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum First {
    /// It asks for TLS.
    Tls,
    /// It asks for encryption by GSSAPI.
    Gss,
    /// It ends a statement of another connection, whose key this is.
    Cancel([u8; KEY_BYTES]),
    /// It begins a session.
    Startup(Asked),
}

/// What a session is asked for with.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    /// Of the version, after 3: a server that speaks an older one says so, and the session goes on in that.
    pub minor: u16,
    /// Names and values.
    pub parameters: Vec<(String, String)>,
}

/// Why a message is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// It is too short or too long for what it is.
    #[error("a first message of this length is none of PostgreSQL")]
    Length,
    /// It is of another version.
    #[error("the proxy speaks version 3 of the protocol of PostgreSQL, and this is another one")]
    Version,
    /// It begins with TLS.
    #[error(
        "the connection begins with TLS, which a listener of this host does not take: connect with sslmode=disable"
    )]
    DirectTls,
    /// Its parameters are not text, each once, to the end.
    #[error("the parameters of the start-up could be read in more than one way, or not at all")]
    Parameters,
}

/// Says how many bytes follow the length of a first message.
///
/// # Errors
///
/// When there are too few or too many.
pub fn first_length(length: [u8; 4]) -> Result<usize, WireError> {
    // A record of a TLS handshake (RFC 8446 §5.1), from a client that asks for nothing first.
    if length.starts_with(&[22, 3]) {
        return Err(WireError::DirectTls);
    }
    let length = u32::from_be_bytes(length) as usize;
    if !(8..=STARTUP_BYTES_MAX).contains(&length) {
        return Err(WireError::Length);
    }
    Ok(length - 4)
}

/// Reads what follows the length of a first message.
///
/// # Errors
///
/// When it is none of the four, or not whole.
pub fn first(bytes: &[u8]) -> Result<First, WireError> {
    let (code, rest) = bytes.split_first_chunk().ok_or(WireError::Length)?;
    let alone = |first| {
        if rest.is_empty() {
            Ok(first)
        } else {
            Err(WireError::Length)
        }
    };
    match u32::from_be_bytes(*code) {
        TLS => alone(First::Tls),
        GSS => alone(First::Gss),
        CANCEL => rest.try_into().map(First::Cancel).map_err(|_other| WireError::Length),
        code if code >> 16 == PROTOCOL_3_0 >> 16 => {
            let parameters = parameters(rest)?;
            let minor = u16::try_from(code & 0xffff).unwrap_or(u16::MAX);
            Ok(First::Startup(Asked { minor, parameters }))
        }
        _ => Err(WireError::Version),
    }
}

/// Names and values, each ended by a zero, and a zero after the last of them.
fn parameters(mut bytes: &[u8]) -> Result<Vec<(String, String)>, WireError> {
    let mut found: Vec<(String, String)> = Vec::new();
    loop {
        let name = text(&mut bytes)?;
        if name.is_empty() {
            return if bytes.is_empty() {
                Ok(found)
            } else {
                Err(WireError::Parameters)
            };
        }
        let twice = found.iter().any(|(known, _)| known.eq_ignore_ascii_case(&name));
        if twice || found.len() == PARAMETERS_MAX {
            return Err(WireError::Parameters);
        }
        let value = text(&mut bytes)?;
        found.push((name, value));
    }
}

fn text(bytes: &mut &[u8]) -> Result<String, WireError> {
    let end = bytes.iter().position(|byte| *byte == 0).ok_or(WireError::Parameters)?;
    let (text, rest) = bytes.split_at_checked(end).ok_or(WireError::Parameters)?;
    *bytes = rest.get(1..).unwrap_or_default();
    String::from_utf8(text.to_vec()).map_err(|_not_text| WireError::Parameters)
}

/// Writes the message that asks for TLS.
pub fn ask_for_tls() -> [u8; 8] {
    [0, 0, 0, 8, 4, 210, 22, 47]
}

/// Writes the message that ends a statement.
pub fn cancel(key: [u8; KEY_BYTES]) -> Bytes {
    let mut out = BytesMut::with_capacity(16);
    out.put_u32(16);
    out.put_u32(CANCEL);
    out.put_slice(&key);
    out.freeze()
}

/// Writes the message that begins a session. No text in it has a zero.
pub fn startup<'t>(parameters: impl IntoIterator<Item = (&'t str, &'t str)>) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u32(0);
    out.put_u32(PROTOCOL_3_0);
    for (name, value) in parameters {
        for text in [name, value] {
            out.put_slice(text.as_bytes());
            out.put_u8(0);
        }
    }
    out.put_u8(0);
    with_length(&mut out, 0);
    out.freeze()
}

/// Writes that the session goes on in version 3.0, without these options of the protocol.
pub fn negotiate<'t>(unknown: impl ExactSizeIterator<Item = &'t str>) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u32(PROTOCOL_3_0);
    body.put_u32(u32::try_from(unknown.len()).unwrap_or(u32::MAX));
    for option in unknown {
        body.put_slice(option.as_bytes());
        body.put_u8(0);
    }
    message(b'v', &body)
}

/// Writes a message of a kind.
pub fn message(kind: u8, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(5 + body.len());
    out.put_u8(kind);
    out.put_u32(0);
    out.put_slice(body);
    with_length(&mut out, 1);
    out.freeze()
}

/// Puts the length of what follows `at` there.
fn with_length(out: &mut BytesMut, at: usize) {
    let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

/// An error, as a person reads it.
#[derive(Debug, Default)]
pub struct Told<'t> {
    /// SQLSTATE, five characters.
    pub code: &'t str,
    /// One line.
    pub message: &'t str,
    /// What more there is to say.
    pub detail: &'t str,
    /// What can be done.
    pub hint: &'t str,
}

/// Writes an error after which the connection ends.
pub fn fatal(told: &Told<'_>) -> Bytes {
    let mut body = BytesMut::new();
    let fields = [
        (b'S', "FATAL"),
        (b'V', "FATAL"),
        (b'C', told.code),
        (b'M', told.message),
        (b'D', told.detail),
        (b'H', told.hint),
    ];
    for (field, text) in fields.into_iter().filter(|(_, text)| !text.is_empty()) {
        body.put_u8(field);
        body.extend(text.bytes().filter(|byte| *byte != 0));
        body.put_u8(0);
    }
    body.put_u8(0);
    message(b'E', &body)
}

/// Reads one field of the body of an error.
pub fn field(body: &[u8], wanted: u8) -> Option<&str> {
    let mut fields = body.split(|byte| *byte == 0);
    let found = fields.find(|field| field.first() == Some(&wanted))?;
    std::str::from_utf8(found.get(1..)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(message: &[u8]) -> Result<First, WireError> {
        let (length, rest) = message.split_first_chunk().ok_or(WireError::Length)?;
        assert_eq!(first_length(*length)?, rest.len());
        first(rest)
    }

    fn asked(minor: u16, found: &[(&str, &str)]) -> First {
        let parameters = found
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        First::Startup(Asked { minor, parameters })
    }

    #[test]
    fn the_four_first_messages_are_read_as_the_documentation_has_them() {
        assert_eq!(read(&ask_for_tls()), Ok(First::Tls));
        assert_eq!(read(&[0, 0, 0, 8, 4, 210, 22, 48]), Ok(First::Gss));
        assert_eq!(read(&cancel(*b"pid_secr")), Ok(First::Cancel(*b"pid_secr")));
        let known = b"\0\0\0\x24\0\x03\0\0user\0robot\0database\0orders\0\0".to_vec();
        let wanted = [("user", "robot"), ("database", "orders")];
        assert_eq!(read(&known), Ok(asked(0, &wanted)));
        assert_eq!(startup(wanted), known);
        let newer = b"\0\0\0\x10\0\x03\0\x02user\0\x61\0\0".to_vec();
        assert_eq!(read(&newer), Ok(asked(2, &[("user", "a")])));
        assert_eq!(
            &negotiate(["_pq_.a"].into_iter())[..],
            b"v\0\0\0\x13\0\x03\0\0\0\0\0\x01_pq_.a\0"
        );
        assert_eq!(&negotiate([].into_iter())[..], b"v\0\0\0\x0c\0\x03\0\0\0\0\0\0");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let of = |rest: &[u8]| first(&[b"\0\x03\0\0", rest].concat());
        for rest in [
            &b""[..],
            b"user",
            b"user\0",
            b"user\0a",
            b"user\0a\0",
            b"user\0a\0\0more",
            b"user\0a\0user\0b\0\0",
            b"user\0a\0USER\0b\0\0",
            b"user\0\xff\0\0",
        ] {
            assert_eq!(of(rest), Err(WireError::Parameters), "{rest:?}");
        }
        assert_eq!(of(b"\0"), Ok(asked(0, &[])));
        let many: Vec<u8> = (0..=PARAMETERS_MAX)
            .flat_map(|number| format!("p{number}\0\0").into_bytes())
            .chain([0])
            .collect();
        assert_eq!(of(&many), Err(WireError::Parameters));
        for other in [
            &b"\0\x02\0\0"[..],
            b"\0\x04\0\0user\0a\0\0",
            b"\x04\xd2\x16\x31",
            b"GET ",
        ] {
            assert_eq!(first(other), Err(WireError::Version), "{other:?}");
        }
        assert_eq!(first(b"\x04\xd2\x16\x2fmore"), Err(WireError::Length));
        assert_eq!(first(b"\x04\xd2\x16\x2eshort"), Err(WireError::Length));
        for length in [0, 7, 10_001, u32::MAX] {
            assert_eq!(first_length(length.to_be_bytes()), Err(WireError::Length), "{length}");
        }
        assert_eq!(first_length([22, 3, 1, 2]), Err(WireError::DirectTls));
    }

    #[test]
    fn an_error_has_its_fields_and_no_empty_one() {
        let told = Told {
            code: "42501",
            message: "no",
            detail: "",
            hint: "ask\0somebody",
        };
        let written = fatal(&told);
        assert_eq!(
            &written[..],
            b"E\0\0\0\x2bSFATAL\0VFATAL\0C42501\0Mno\0Hasksomebody\0\0"
        );
        assert_eq!(field(&written[5..], b'C'), Some("42501"));
        assert_eq!(field(&written[5..], b'D'), None);
    }

    proptest! {
        #[test]
        fn a_start_up_is_read_as_it_was_written(names in prop::collection::btree_set("[a-z_]{1,12}", 0..20), value in "[^\0]{0,30}") {
            let parameters: Vec<_> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
            prop_assert_eq!(read(&startup(parameters.clone())), Ok(asked(0, &parameters)));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let with_version = [b"\0\x03\0\0", &bytes[..]].concat();
            let _either: (Result<First, WireError>, Result<First, WireError>) = (first(&bytes), first(&with_version));
        }
    }
}
