//! The Ed25519 keys that sign and check notes and cosign them, in the text forms of C2SP
//! signed-note, which Go's `sumdb/note` package reads as well.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{self, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::epoch;

/// Bytes of an Ed25519 seed and of a public key (RFC 8032 §5.1.5).
const KEY_BYTES: usize = 32;

/// What a key signs, which is marked in its text form and in its id (C2SP signed-note, "Signature types"): a key of one
/// use is none of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Notes, by Ed25519.
    Notes = 0x01,
    /// Cosignatures of notes, by Ed25519 with a time (C2SP tlog-cosignature).
    Cosignatures = 0x04,
}

/// Longest key name and checkpoint origin that this crate takes, in bytes.
pub const NAME_BYTES_MAX: usize = 512;

/// The name of a key, which is also the origin of the ledger that it signs:
/// not empty, at most 512 bytes, no space, no control character and no plus.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyName(String);

/// Checks notes of one ledger: what an auditor needs, and all of it.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: KeyName,
    purpose: Use,
    public: [u8; KEY_BYTES],
}

/// Signs the checkpoints of one ledger.
pub struct SignerKey {
    name: KeyName,
    purpose: Use,
    seed: Zeroizing<[u8; KEY_BYTES]>,
    pair: Ed25519KeyPair,
}

/// Why a text is no key. It never holds any of that text, which may be secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The name is empty, too long, or has a space, a control character or a
    /// plus.
    #[error("the key's name is empty, longer than 512 bytes, or has a space, a control character or '+'")]
    Name,
    /// The text is not in the form of C2SP signed-note.
    #[error("this is not an Ed25519 key in the form of a signed note's keys")]
    Form,
    /// The key id in the text is not the one that name and key have.
    #[error("the key's id does not belong to its name and key")]
    Id,
    /// The operating system gave no random bytes, or the library no key.
    #[error("no Ed25519 key could be made")]
    Generate,
}

impl KeyName {
    /// Checks a name (C2SP signed-note, "Key name").
    ///
    /// # Errors
    ///
    /// [`KeyError::Name`] as the type says.
    pub fn parse(name: &str) -> Result<Self, KeyError> {
        let refused = |c: char| c.is_whitespace() || c.is_control() || c == '+';
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(refused) {
            return Err(KeyError::Name);
        }
        Ok(Self(name.to_owned()))
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl VerifierKey {
    /// Reads `NAME+ID+KEY`.
    ///
    /// # Errors
    ///
    /// When the text is not exactly the one that the key it holds would have.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        Self::parse_for(Use::Notes, text)
    }

    pub(crate) fn parse_for(purpose: Use, text: &str) -> Result<Self, KeyError> {
        let (name, id, public) = split_key(purpose, text)?;
        let key = Self {
            name,
            purpose,
            public: *public,
        };
        if format!("{:08x}", key.id()) == id {
            Ok(key)
        } else {
            Err(KeyError::Id)
        }
    }

    /// Returns the key's name.
    #[must_use]
    pub const fn name(&self) -> &KeyName {
        &self.name
    }

    /// Returns the id that signature lines carry before the signature.
    #[must_use]
    pub fn id(&self) -> u32 {
        key_id(&self.name, self.purpose, &self.public)
    }

    /// Returns the key of an epoch of the same ledger, up to this one's, that has this name.
    pub(crate) fn in_epoch(&self, name: &KeyName) -> Option<Self> {
        let (ledger, newest) = epoch::split(&self.name);
        let found = epoch::of(&ledger, name).filter(|epoch| *epoch <= newest);
        found.map(|_epoch| Self {
            name: name.clone(),
            ..self.clone()
        })
    }

    /// Says whether another key is this one in another epoch, or is this one.
    pub(crate) fn is_same_in_an_epoch(&self, other: &Self) -> bool {
        let same = self.public == other.public && self.purpose == other.purpose;
        same && epoch::split(&self.name).0 == epoch::split(&other.name).0
    }

    /// Says whether `signature` is this key's over `message`.
    #[must_use]
    pub fn accepts(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&signature::ED25519, self.public)
            .verify(message, signature)
            .is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}+{:08x}+{}",
            self.name,
            self.id(),
            encode_key(self.purpose, &self.public).as_str()
        )
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({self})")
    }
}

impl SignerKey {
    /// Makes a key from fresh random bytes.
    ///
    /// # Errors
    ///
    /// [`KeyError::Generate`] when the operating system has no random bytes.
    pub fn generate(name: KeyName) -> Result<Self, KeyError> {
        Self::generate_for(Use::Notes, name)
    }

    pub(crate) fn generate_for(purpose: Use, name: KeyName) -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; KEY_BYTES]);
        if aws_lc_rs::rand::fill(seed.as_mut_slice()).is_err() {
            return Err(KeyError::Generate);
        }
        Self::from_seed(purpose, name, seed)
    }

    /// Reads `PRIVATE+KEY+NAME+ID+SEED`, the form in which a key is stored.
    ///
    /// # Errors
    ///
    /// When the text has another form, or its id is not the key's.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        Self::parse_for(Use::Notes, text)
    }

    pub(crate) fn parse_for(purpose: Use, text: &str) -> Result<Self, KeyError> {
        let Some(text) = text.strip_prefix(PRIVATE) else {
            return Err(KeyError::Form);
        };
        let (name, id, seed) = split_key(purpose, text)?;
        let key = Self::from_seed(purpose, name, seed)?;
        if format!("{:08x}", key.verifier().id()) == id {
            Ok(key)
        } else {
            Err(KeyError::Id)
        }
    }

    /// Returns the text that [`SignerKey::parse`] reads: the secret itself,
    /// for the key file and nothing else.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        let id = self.verifier().id();
        let seed = encode_key(self.purpose, &self.seed);
        Zeroizing::new(format!("{PRIVATE}{}+{id:08x}+{}", self.name, seed.as_str()))
    }

    /// Returns the public half.
    #[must_use]
    pub fn verifier(&self) -> VerifierKey {
        let mut public = [0; KEY_BYTES];
        for (to, from) in public.iter_mut().zip(self.pair.public_key().as_ref()) {
            *to = *from;
        }
        VerifierKey {
            name: self.name.clone(),
            purpose: self.purpose,
            public,
        }
    }

    /// Returns the key under another name, as an epoch has it.
    pub(crate) fn renamed(&self, name: KeyName) -> Result<Self, KeyError> {
        Self::from_seed(self.purpose, name, self.seed.clone())
    }

    /// Signs a message (RFC 8032 Ed25519, deterministic).
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }

    fn from_seed(purpose: Use, name: KeyName, seed: Zeroizing<[u8; KEY_BYTES]>) -> Result<Self, KeyError> {
        match Ed25519KeyPair::from_seed_unchecked(seed.as_slice()) {
            Ok(pair) => Ok(Self {
                name,
                purpose,
                seed,
                pair,
            }),
            Err(_) => Err(KeyError::Generate),
        }
    }
}

impl fmt::Debug for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignerKey({}, redacted)", self.name)
    }
}

/// Opens the text of a private key (Go's `sumdb/note`, "Generating keys").
const PRIVATE: &str = "PRIVATE+KEY+";

/// Splits `NAME+ID+KEY`; whether the id is the right one only the caller knows.
fn split_key(purpose: Use, text: &str) -> Result<(KeyName, &str, Zeroizing<[u8; KEY_BYTES]>), KeyError> {
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(KeyError::Form);
    };
    let name = KeyName::parse(name)?;
    let Ok(bytes) = BASE64.decode(key).map(Zeroizing::new) else {
        return Err(KeyError::Form);
    };
    let Some((mark, key)) = bytes.split_first() else {
        return Err(KeyError::Form);
    };
    if *mark != purpose as u8 {
        return Err(KeyError::Form);
    }
    let Ok(key) = <[u8; KEY_BYTES]>::try_from(key) else {
        return Err(KeyError::Form);
    };
    Ok((name, id, Zeroizing::new(key)))
}

fn encode_key(purpose: Use, key: &[u8; KEY_BYTES]) -> Zeroizing<String> {
    let mut typed = Zeroizing::new(vec![purpose as u8]);
    typed.extend_from_slice(key);
    Zeroizing::new(BASE64.encode(typed.as_slice()))
}

/// First four bytes of SHA-256 over name, newline, type and public key (C2SP
/// signed-note, "Key ID").
fn key_id(name: &KeyName, purpose: Use, public: &[u8; KEY_BYTES]) -> u32 {
    let mut bytes = name.as_str().as_bytes().to_vec();
    bytes.extend_from_slice(&[b'\n', purpose as u8]);
    bytes.extend_from_slice(public);
    let digest = digest::digest(&digest::SHA256, &bytes);
    digest
        .as_ref()
        .first_chunk()
        .map_or(0, |first| u32::from_be_bytes(*first))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys in the documentation of Go's `sumdb/note` package.
    const PUBLIC: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const SECRET: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";

    #[test]
    fn keys_of_go_are_read_and_written_alike() {
        let signer = SignerKey::parse(SECRET).unwrap();
        assert_eq!(signer.verifier().to_string(), PUBLIC);
        assert_eq!(signer.expose().as_str(), SECRET);
        assert_eq!(VerifierKey::parse(PUBLIC).unwrap(), signer.verifier());
        assert_eq!(signer.verifier().name().to_string(), "PeterNeumann");
    }

    #[test]
    fn a_fresh_key_signs_what_its_public_half_accepts() {
        let signer = SignerKey::generate(KeyName::parse("acme.internal/host/web-1").unwrap()).unwrap();
        let signature = signer.sign(b"message");
        assert!(signer.verifier().accepts(b"message", &signature));
        assert!(!signer.verifier().accepts(b"massage", &signature));
        assert!(!VerifierKey::parse(PUBLIC).unwrap().accepts(b"message", &signature));
        let other = SignerKey::generate(KeyName::parse("x").unwrap()).unwrap();
        assert_ne!(other.expose(), signer.expose());
        assert_eq!(
            SignerKey::parse(&signer.expose()).unwrap().verifier(),
            signer.verifier()
        );
    }

    #[test]
    fn debug_shows_no_secret() {
        let signer = SignerKey::parse(SECRET).unwrap();
        assert_eq!(format!("{signer:?}"), "SignerKey(PeterNeumann, redacted)");
        assert_eq!(format!("{:?}", signer.verifier()), format!("VerifierKey({PUBLIC})"));
    }

    #[test]
    fn every_flipped_byte_of_a_public_key_is_refused() {
        for place in 0..PUBLIC.len() {
            for bit in 0..7 {
                let mut bytes = PUBLIC.as_bytes().to_vec();
                bytes[place] ^= 1 << bit;
                let text = String::from_utf8(bytes).unwrap();
                assert!(VerifierKey::parse(&text).is_err(), "{text}");
            }
        }
    }

    #[test]
    fn names_that_would_break_a_note_are_refused() {
        for name in ["", "a b", "a+b", "a\nb", "a\u{a0}b", "a\u{7f}", &"n".repeat(513)] {
            assert_eq!(KeyName::parse(name), Err(KeyError::Name), "{name:?}");
        }
        assert_eq!(KeyName::parse(&"n".repeat(512)).unwrap().as_str().len(), 512);
    }

    #[test]
    fn other_forms_of_a_key_are_refused() {
        for (text, error) in [
            ("", KeyError::Form),
            ("name+00000000", KeyError::Form),
            ("name+00000000+!!!", KeyError::Form),
            ("name+00000000+", KeyError::Form),
            ("name+00000000+AQ==", KeyError::Form),
            (
                "name+00000000+AhpcAQcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
                KeyError::Form,
            ),
            (
                "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
                KeyError::Id,
            ),
            ("+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", KeyError::Name),
        ] {
            assert_eq!(VerifierKey::parse(text), Err(error), "{text}");
        }
        assert_eq!(SignerKey::parse(PUBLIC).unwrap_err(), KeyError::Form);
        assert_eq!(
            SignerKey::parse(&SECRET.replace("c74f20a3", "c74f20a4")).unwrap_err(),
            KeyError::Id
        );
    }
}
