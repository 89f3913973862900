//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS as a client (RFC 5802, RFC 7677).
//!
//! A value of a credential is visible ASCII, which SASLprep (RFC 4013) leaves as it is.

use std::num::NonZeroU32;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use aws_lc_rs::pbkdf2;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;
use zeroize::Zeroizing;

/// RFC 7677 §4: no server has fewer.
const ITERATIONS_MIN: u32 = 4096;

/// More would keep a core busy for long.
const ITERATIONS_MAX: u32 = 1_000_000;

/// The longest message of a server.
const MESSAGE_BYTES_MAX: usize = 2048;

/// The names of the two, as servers offer them.
pub const PLAIN: &str = "SCRAM-SHA-256";
/// The same, bound to the certificate of the server.
pub const PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Why a server is not believed. No error has the password in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ScramError {
    /// It offers nothing that proves anything without giving the password away.
    #[error("the server offers neither SCRAM-SHA-256 nor SCRAM-SHA-256-PLUS")]
    NotOffered,
    /// What it says is no message of SCRAM.
    #[error("the server does not speak SCRAM as RFC 5802 has it")]
    Message,
    /// Its count of iterations is not in bounds.
    #[error("the server asks for fewer iterations than 4096, or for more than 1000000")]
    Iterations,
    /// It says that the proof is wrong.
    #[error("the server refuses the proof")]
    Refused,
    /// It does not know the password.
    #[error("the server did not prove that it knows the password")]
    NotTheServer,
}

/// What a client has said first.
#[derive(Debug)]
pub struct Client {
    /// Which of the two it speaks.
    pub mechanism: &'static str,
    /// `gs2-header` and the data of the binding.
    binding: Vec<u8>,
    nonce: String,
    header: &'static str,
}

/// What a client says last, and how the server's answer is judged.
pub struct Last {
    message: Zeroizing<String>,
    server_signature: [u8; 32],
}

impl std::fmt::Debug for Last {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Last")
    }
}

impl Client {
    /// Chooses what to speak of what a server offers. `end_point` is the hash of its certificate (RFC 5929 §4), where it
    /// has one; `nonce` is fresh, and visible ASCII without a comma.
    ///
    /// # Errors
    ///
    /// When it offers neither.
    pub fn new(offered: &[&str], end_point: Option<&[u8]>, nonce: String) -> Result<Self, ScramError> {
        let offers = |name| offered.contains(&name);
        let (mechanism, header, data) = match end_point {
            Some(hash) if offers(PLUS) => (PLUS, "p=tls-server-end-point,,", hash),
            // RFC 5802 §6: a server that could have offered it knows by this that somebody took that away.
            Some(_) if offers(PLAIN) => (PLAIN, "y,,", &[][..]),
            None if offers(PLAIN) => (PLAIN, "n,,", &[][..]),
            Some(_) | None => return Err(ScramError::NotOffered),
        };
        Ok(Self {
            mechanism,
            binding: [header.as_bytes(), data].concat(),
            nonce,
            header,
        })
    }

    /// Gives the first message. PostgreSQL takes the user from the start-up, and there is none here.
    #[must_use]
    pub fn first(&self) -> String {
        format!("{}{}", self.header, self.first_bare(""))
    }

    fn first_bare(&self, user: &str) -> String {
        format!("n={user},r={}", self.nonce)
    }

    /// Answers the first message of a server.
    ///
    /// # Errors
    ///
    /// When it is none, or asks for what no server asks for.
    pub fn last(&self, server_first: &[u8], password: &[u8]) -> Result<Last, ScramError> {
        self.last_as("", server_first, password)
    }

    fn last_as(&self, user: &str, server_first: &[u8], password: &[u8]) -> Result<Last, ScramError> {
        let challenge = Challenge::read(server_first, &self.nonce)?;
        let mut salted = Zeroizing::new([0_u8; 32]);
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            challenge.iterations,
            &challenge.salt,
            password,
            &mut *salted,
        );
        let salted = Key::new(HMAC_SHA256, &*salted);
        let client_key = Zeroizing::new(tag(&salted, b"Client Key"));
        let stored_key = digest(&SHA256, &*client_key);
        let without_proof = format!("c={},r={}", STANDARD.encode(&self.binding), challenge.nonce);
        let said = std::str::from_utf8(server_first).map_err(|_not_text| ScramError::Message)?;
        let auth_message = format!("{},{said},{without_proof}", self.first_bare(user));
        let signature = tag(&Key::new(HMAC_SHA256, stored_key.as_ref()), auth_message.as_bytes());
        let mut proof = client_key;
        for (byte, mask) in proof.iter_mut().zip(signature) {
            *byte ^= mask;
        }
        let server_key = tag(&salted, b"Server Key");
        Ok(Last {
            message: Zeroizing::new(format!("{without_proof},p={}", STANDARD.encode(*proof))),
            server_signature: tag(&Key::new(HMAC_SHA256, &server_key), auth_message.as_bytes()),
        })
    }
}

impl Last {
    /// Gives the message.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Judges the last message of a server.
    ///
    /// # Errors
    ///
    /// When it does not prove that the server knows the password.
    pub fn check(&self, server_last: &[u8]) -> Result<(), ScramError> {
        if server_last.starts_with(b"e=") {
            return Err(ScramError::Refused);
        }
        let encoded = server_last.strip_prefix(b"v=").ok_or(ScramError::Message)?;
        let signature = STANDARD.decode(encoded).map_err(|_other| ScramError::Message)?;
        verify_slices_are_equal(&signature, &self.server_signature).map_err(|_other| ScramError::NotTheServer)
    }
}

/// The first message of a server: `r=NONCE,s=SALT,i=COUNT`, in this order and with nothing else.
#[derive(Debug, PartialEq, Eq)]
pub struct Challenge<'m> {
    nonce: &'m str,
    salt: Vec<u8>,
    iterations: NonZeroU32,
}

impl<'m> Challenge<'m> {
    /// Reads one that answers a nonce.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn read(message: &'m [u8], own: &str) -> Result<Self, ScramError> {
        let text = std::str::from_utf8(message).map_err(|_not_text| ScramError::Message)?;
        if text.len() > MESSAGE_BYTES_MAX {
            return Err(ScramError::Message);
        }
        let mut parts = text.split(',');
        let mut part = |name: &str| parts.next()?.strip_prefix(name);
        let (nonce, salt, count) = (part("r="), part("s="), part("i="));
        let (Some(nonce), Some(salt), Some(count), None) = (nonce, salt, count, parts.next()) else {
            return Err(ScramError::Message);
        };
        let added = nonce.strip_prefix(own).ok_or(ScramError::Message)?;
        let salt = STANDARD.decode(salt).map_err(|_other| ScramError::Message)?;
        let visible = added.bytes().all(|byte| matches!(byte, b'!'..=b'~'));
        let digits = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
        let plain = digits && !count.starts_with('0');
        if added.is_empty() || !visible || salt.is_empty() || !plain {
            return Err(ScramError::Message);
        }
        let count = count.parse().map_err(|_long| ScramError::Iterations)?;
        let in_bounds = (ITERATIONS_MIN..=ITERATIONS_MAX).contains(&count);
        let iterations = NonZeroU32::new(count).filter(|_| in_bounds);
        Ok(Self {
            nonce,
            salt,
            iterations: iterations.ok_or(ScramError::Iterations)?,
        })
    }
}

fn tag(key: &Key, message: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    // HMAC-SHA-256 gives 32 bytes.
    out.copy_from_slice(sign(key, message).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const FIRST: &[u8] = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn client(end_point: Option<&[u8]>, offered: &[&str]) -> Result<Client, ScramError> {
        Client::new(offered, end_point, NONCE.to_owned())
    }

    #[test]
    fn the_example_of_rfc_7677_is_spoken_to_the_letter() {
        // §3: user "user", password "pencil".
        let client = client(None, &[PLAIN]).unwrap();
        assert_eq!(client.first(), "n,,n=,r=rOprNGfwEbeRWgbNEkqO");
        let last = client.last_as("user", FIRST, b"pencil").unwrap();
        assert_eq!(
            last.message(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert_eq!(last.check(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Ok(()));
        for other in [
            &b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5="[..],
            b"v=AAAATRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ] {
            assert!(last.check(other).is_err());
        }
        assert_eq!(last.check(b"v="), Err(ScramError::NotTheServer));
        assert_eq!(last.check(b"e=invalid-proof"), Err(ScramError::Refused));
        assert_eq!(last.check(b""), Err(ScramError::Message));
        let wrong = client.last_as("user", FIRST, b"pencils").unwrap();
        assert_eq!(
            wrong.check(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="),
            Err(ScramError::NotTheServer)
        );
    }

    #[test]
    fn a_server_that_offers_a_binding_is_bound_and_one_that_hides_it_is_told() {
        let bound = client(Some(b"hash"), &[PLUS, PLAIN]).unwrap();
        assert_eq!(bound.mechanism, PLUS);
        assert!(bound.first().starts_with("p=tls-server-end-point,,n=,r="));
        let last = bound.last(FIRST, b"pencil").unwrap();
        let binding = STANDARD.encode("p=tls-server-end-point,,hash");
        assert!(last.message().starts_with(&format!("c={binding},r=")));
        let hidden = client(Some(b"hash"), &[PLAIN]).unwrap();
        assert_eq!((hidden.mechanism, hidden.header), (PLAIN, "y,,"));
        let none = client(None, &[PLUS, PLAIN]).unwrap();
        assert_eq!((none.mechanism, none.header), (PLAIN, "n,,"));
        for (end_point, offered) in [(None, &[PLUS][..]), (Some(&b"hash"[..]), &["SCRAM-SHA-1"]), (None, &[])] {
            assert_eq!(client(end_point, offered).unwrap_err(), ScramError::NotOffered);
        }
    }

    #[test]
    fn a_challenge_that_is_not_to_the_letter_is_refused() {
        let own = "abc";
        for (text, error) in [
            ("r=abcd,s=c2FsdA==,i=4095", ScramError::Iterations),
            ("r=abcd,s=c2FsdA==,i=1000001", ScramError::Iterations),
            ("r=abcd,s=c2FsdA==,i=99999999999", ScramError::Iterations),
            ("r=abcd,s=c2FsdA==,i=04096", ScramError::Message),
            ("r=abcd,s=c2FsdA==,i=+4096", ScramError::Message),
            ("r=abcd,s=c2FsdA==,i=", ScramError::Message),
            ("r=abc,s=c2FsdA==,i=4096", ScramError::Message),
            ("r=xbcd,s=c2FsdA==,i=4096", ScramError::Message),
            ("r=abc d,s=c2FsdA==,i=4096", ScramError::Message),
            ("r=abcd,s=,i=4096", ScramError::Message),
            ("r=abcd,s=c2FsdA,i=4096", ScramError::Message),
            ("s=c2FsdA==,r=abcd,i=4096", ScramError::Message),
            ("m=x,r=abcd,s=c2FsdA==,i=4096", ScramError::Message),
            ("r=abcd,s=c2FsdA==,i=4096,x=y", ScramError::Message),
            ("r=abcd,s=c2FsdA==", ScramError::Message),
            ("", ScramError::Message),
        ] {
            assert_eq!(Challenge::read(text.as_bytes(), own), Err(error), "{text}");
        }
        assert!(Challenge::read(b"r=abcd,s=c2FsdA==,i=4096", own).is_ok());
        let long = format!("r=abc{},s=c2FsdA==,i=4096", "d".repeat(MESSAGE_BYTES_MAX));
        assert_eq!(Challenge::read(long.as_bytes(), own), Err(ScramError::Message));
    }

    proptest! {
        #[test]
        fn a_challenge_is_read_as_it_was_written(
            own in "[!-+.-~]{1,30}", added in "[!-+.-~]{1,30}", salt in prop::collection::vec(any::<u8>(), 1..40),
            count in ITERATIONS_MIN..=ITERATIONS_MAX,
        ) {
            let text = format!("r={own}{added},s={},i={count}", STANDARD.encode(&salt));
            let read = Challenge::read(text.as_bytes(), &own).unwrap();
            prop_assert_eq!(read.nonce, format!("{own}{added}"));
            prop_assert_eq!((read.salt, read.iterations.get()), (salt, count));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _read: Result<Challenge<'_>, ScramError> = Challenge::read(&bytes, "r");
        }
    }
}
