//! Files of the format `age-encryption.org/v1` that are encrypted to X25519 keys, as far as a credential needs it: a value that
//! fits into one piece.
//!
//! Source: the age specification of the C2SP (`age.md`). Written here because the format is a page long, and the library for
//! it would bring a second set of ciphers. What other programs write is read, and they read what is written here.

mod stanza;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bech32::{Bech32, Hrp};
use thiserror::Error;
use zeroize::Zeroizing;

use stanza::Header;

/// The line with which a file begins.
const VERSION: &[u8] = b"age-encryption.org/v1\n";

/// The kind of a stanza that wraps the file's key for an X25519 key.
const KIND: &str = "X25519";

/// What a wrapped key is bound to.
const WRAP_INFO: &[u8] = b"age-encryption.org/v1/X25519";

const KEY_BYTES: usize = 32;
const FILE_KEY_BYTES: usize = 16;
const NONCE_BYTES: usize = 16;
const TAG_BYTES: usize = 16;

/// The longest piece of a payload; a credential has one.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// Around a file in ASCII armour.
const ARMOUR: (&str, &str) = ("-----BEGIN AGE ENCRYPTED FILE-----", "-----END AGE ENCRYPTED FILE-----");

/// Why a file was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotOpened {
    /// It does not begin as such a file does.
    #[error("it is no file of age")]
    NotAge,
    /// It begins so, and does not go on so.
    #[error("it is a damaged file of age")]
    Damaged,
    /// None of its keys is wrapped for this one.
    #[error("it is encrypted to other keys")]
    OtherKey,
    /// The payload is longer than a credential can be.
    #[error("it holds more than a credential")]
    Long,
}

/// A key that opens what is encrypted to it.
#[derive(Debug)]
pub struct Identity {
    key: PrivateKey,
    bytes: Zeroizing<Vec<u8>>,
    public: [u8; KEY_BYTES],
}

/// Somebody to whom values are encrypted: another host, whose key is not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient([u8; KEY_BYTES]);

impl Recipient {
    /// Reads what [`Identity::recipient`] writes: `age1…`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (hrp, bytes) = bech32::decode(text).ok()?;
        let canonical = text == text.to_ascii_lowercase() && hrp.as_str() == "age";
        let bytes = bytes.try_into().ok()?;
        canonical.then_some(Self(bytes))
    }

    /// Encrypts a value, which its key alone opens.
    ///
    /// # Errors
    ///
    /// When the value is longer than one piece, there is no randomness, or the key is no key.
    pub fn seal(&self, value: &[u8]) -> Result<Vec<u8>, Failed> {
        if value.len() > PIECE_BYTES_MAX {
            return Err(Failed);
        }
        let (mut file_key, mut nonce) = (Zeroizing::new([0; FILE_KEY_BYTES]), [0; NONCE_BYTES]);
        rand::fill(&mut *file_key)?;
        rand::fill(&mut nonce)?;
        let share = Identity::generate()?;
        let wrap = share.wrap_key(&self.0, &share.public, &self.0)?;
        let mut wrapped = file_key.to_vec();
        seal_with(&wrap, [0; 12], &mut wrapped)?;

        let mut file = VERSION.to_vec();
        let (share, wrapped) = (STANDARD_NO_PAD.encode(share.public), STANDARD_NO_PAD.encode(&wrapped));
        file.extend(format!("-> {KIND} {share}\n{wrapped}\n---").into_bytes());
        let mac = hmac::sign(&header_key(&file_key)?, &file);
        file.extend(format!(" {}\n", STANDARD_NO_PAD.encode(mac.as_ref())).into_bytes());

        file.extend(nonce);
        let mut payload = Zeroizing::new(Vec::with_capacity(value.len() + TAG_BYTES));
        payload.extend_from_slice(value);
        seal_with(&payload_key(&file_key, &nonce)?, LAST_PIECE, &mut payload)?;
        file.extend_from_slice(&payload);
        Ok(file)
    }
}

/// Something was amiss with the provider of cryptography.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the cryptography failed")]
pub struct Failed;

impl From<Unspecified> for Failed {
    fn from(_unspecified: Unspecified) -> Self {
        Self
    }
}

impl Identity {
    /// Makes a key.
    ///
    /// # Errors
    ///
    /// When there is no randomness.
    pub fn generate() -> Result<Self, Failed> {
        let mut bytes = Zeroizing::new(vec![0; KEY_BYTES]);
        rand::fill(&mut bytes)?;
        Self::of(bytes).ok_or(Failed)
    }

    fn of(bytes: Zeroizing<Vec<u8>>) -> Option<Self> {
        let key = PrivateKey::from_private_key(&X25519, &bytes).ok()?;
        let public = key.compute_public_key().ok()?;
        let public = public.as_ref().try_into().ok()?;
        Some(Self { key, bytes, public })
    }

    /// Reads a key as it is written: `AGE-SECRET-KEY-1…`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (hrp, bytes) = bech32::decode(text).ok()?;
        let bytes = Zeroizing::new(bytes);
        let canonical = text == text.to_ascii_uppercase() && hrp.to_lowercase() == "age-secret-key-";
        (canonical && bytes.len() == KEY_BYTES)
            .then(|| Self::of(bytes))
            .flatten()
    }

    /// Writes the key.
    ///
    /// # Errors
    ///
    /// Never in practice: every key can be written.
    pub fn text(&self) -> Result<Zeroizing<String>, Failed> {
        let hrp = Hrp::parse("age-secret-key-").map_err(|_invalid| Failed)?;
        let text = bech32::encode_upper::<Bech32>(hrp, &self.bytes).map_err(|_long| Failed)?;
        Ok(Zeroizing::new(text))
    }

    /// Writes to whom others encrypt: `age1…`.
    ///
    /// # Errors
    ///
    /// Never in practice: every key can be written.
    pub fn recipient(&self) -> Result<String, Failed> {
        let hrp = Hrp::parse("age").map_err(|_invalid| Failed)?;
        bech32::encode::<Bech32>(hrp, &self.public).map_err(|_long| Failed)
    }

    /// Encrypts a value to this key.
    ///
    /// # Errors
    ///
    /// When the value is longer than one piece, or there is no randomness.
    pub fn seal(&self, value: &[u8]) -> Result<Vec<u8>, Failed> {
        Recipient(self.public).seal(value)
    }

    /// Decrypts a file, as it is or in ASCII armour.
    ///
    /// # Errors
    ///
    /// See [`NotOpened`].
    pub fn open(&self, file: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
        if file.starts_with(ARMOUR.0.as_bytes()) {
            return self.open_binary(&unarmoured(file).ok_or(NotOpened::Damaged)?);
        }
        self.open_binary(file)
    }

    fn open_binary(&self, file: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
        let lines = file.strip_prefix(VERSION).ok_or(NotOpened::NotAge)?;
        let header = Header::read(lines).ok_or(NotOpened::Damaged)?;
        let file_key = header.stanzas.iter().find_map(|stanza| self.unwrap(stanza));
        let file_key = file_key.ok_or(NotOpened::OtherKey)?;
        let signed = file.get(..VERSION.len() + header.signed).ok_or(NotOpened::Damaged)?;
        let key = header_key(&file_key).map_err(|_failed| NotOpened::Damaged)?;
        hmac::verify(&key, signed, &header.mac).map_err(|_forged| NotOpened::Damaged)?;
        let payload = lines.get(header.length..).ok_or(NotOpened::Damaged)?;
        let (nonce, piece) = payload.split_first_chunk::<NONCE_BYTES>().ok_or(NotOpened::Damaged)?;
        if piece.len() > PIECE_BYTES_MAX + TAG_BYTES {
            return Err(NotOpened::Long);
        }
        let key = payload_key(&file_key, nonce).map_err(|_failed| NotOpened::Damaged)?;
        let mut piece = Zeroizing::new(piece.to_vec());
        let length = open_with(&key, LAST_PIECE, &mut piece).ok_or(NotOpened::Damaged)?;
        piece.truncate(length);
        Ok(piece)
    }

    /// Takes the file's key out of a stanza that is for this key.
    fn unwrap(&self, stanza: &stanza::Stanza<'_>) -> Option<Zeroizing<[u8; FILE_KEY_BYTES]>> {
        let share = stanza.x25519(KIND)?;
        let wrap = self.wrap_key(&share, &share, &self.public).ok()?;
        let mut wrapped = Zeroizing::new(stanza.body.clone());
        if wrapped.len() != FILE_KEY_BYTES + TAG_BYTES {
            return None;
        }
        let length = open_with(&wrap, [0; 12], &mut wrapped)?;
        wrapped.get(..length)?.try_into().ok().map(Zeroizing::new)
    }

    /// Derives what wraps a file's key, from what this key and the other have in common.
    fn wrap_key(&self, other: &[u8; KEY_BYTES], share: &[u8; KEY_BYTES], to: &[u8; KEY_BYTES]) -> Result<Key, Failed> {
        let other = UnparsedPublicKey::new(&X25519, other);
        let salt = [*share, *to].concat();
        // A point of small order is refused: then both have nothing in common.
        agree(&self.key, other, Failed, |common| derive(&salt, common, WRAP_INFO))
    }
}

type Key = Zeroizing<[u8; KEY_BYTES]>;

/// The nonce of the one piece of a payload, which is the last.
const LAST_PIECE: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

#[derive(Clone, Copy)]
struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

/// HKDF with SHA-256 (RFC 5869).
fn derive(salt: &[u8], secret: &[u8], info: &[u8]) -> Result<Key, Failed> {
    let mut out = Zeroizing::new([0; KEY_BYTES]);
    let pseudorandom = Salt::new(HKDF_SHA256, salt).extract(secret);
    pseudorandom.expand(&[info], Length)?.fill(&mut *out)?;
    Ok(out)
}

fn header_key(file_key: &[u8; FILE_KEY_BYTES]) -> Result<hmac::Key, Failed> {
    let key = derive(&[], file_key, b"header")?;
    Ok(hmac::Key::new(HMAC_SHA256, &*key))
}

fn payload_key(file_key: &[u8; FILE_KEY_BYTES], nonce: &[u8; NONCE_BYTES]) -> Result<Key, Failed> {
    derive(nonce, file_key, b"payload")
}

fn cipher(key: &Key) -> Result<LessSafeKey, Failed> {
    Ok(LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &**key)?))
}

fn seal_with(key: &Key, nonce: [u8; 12], text: &mut Vec<u8>) -> Result<(), Failed> {
    let nonce = Nonce::assume_unique_for_key(nonce);
    cipher(key)?.seal_in_place_append_tag(nonce, Aad::empty(), text)?;
    Ok(())
}

fn open_with(key: &Key, nonce: [u8; 12], text: &mut [u8]) -> Option<usize> {
    let nonce = Nonce::assume_unique_for_key(nonce);
    let opened = cipher(key).ok()?.open_in_place(nonce, Aad::empty(), text).ok()?;
    Some(opened.len())
}

/// Takes a file out of its armour.
fn unarmoured(file: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(file).ok()?.trim_ascii();
    let inside = text.strip_prefix(ARMOUR.0)?.strip_suffix(ARMOUR.1)?;
    let lines = inside.split(['\n', '\r']).filter(|line| !line.is_empty());
    STANDARD.decode(lines.collect::<String>()).ok()
}

#[cfg(test)]
mod tests;
