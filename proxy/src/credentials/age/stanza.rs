//! The header of a file: for each key to which it is encrypted a stanza, and a signature of them all.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::KEY_BYTES;

/// The most stanzas that are read: a credential is for a few hosts.
const STANZAS_MAX: usize = 256;

/// How many characters a line of a body has; the last has less.
const COLUMNS: usize = 64;

/// What one key needs to open the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stanza<'a> {
    words: Vec<&'a str>,
    pub(super) body: Vec<u8>,
}

impl Stanza<'_> {
    /// Gives the other half of the agreement, of a stanza for an X25519 key.
    pub(super) fn x25519(&self, kind: &str) -> Option<[u8; KEY_BYTES]> {
        let [found, share] = self.words[..] else { return None };
        let share = STANDARD_NO_PAD.decode(share).ok()?;
        (found == kind).then(|| share.try_into().ok()).flatten()
    }
}

/// All that stands before the payload.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header<'a> {
    pub(super) stanzas: Vec<Stanza<'a>>,
    /// How many bytes are signed: up to the three dashes, with them.
    pub(super) signed: usize,
    pub(super) mac: Vec<u8>,
    /// How many bytes it has.
    pub(super) length: usize,
}

impl<'a> Header<'a> {
    /// Reads a header, whose version line was taken off.
    pub(super) fn read(text: &'a [u8]) -> Option<Self> {
        let mut stanzas = Vec::new();
        let mut at = 0;
        loop {
            let (line, next) = line(text, at)?;
            if let Some(mac) = line.strip_prefix("--- ") {
                let mac = STANDARD_NO_PAD.decode(mac).ok()?;
                return (!stanzas.is_empty()).then_some(Self {
                    stanzas,
                    signed: at + 3,
                    mac,
                    length: next,
                });
            }
            let words: Vec<&str> = line.strip_prefix("-> ")?.split(' ').collect();
            let visible = |word: &&str| !word.is_empty() && word.bytes().all(|byte| matches!(byte, b'!'..=b'~'));
            if stanzas.len() >= STANZAS_MAX || !words.iter().all(visible) {
                return None;
            }
            let (body, next) = body(text, next)?;
            stanzas.push(Stanza { words, body });
            at = next;
        }
    }
}

/// Reads lines of Base64 up to the first that is not full.
fn body(text: &[u8], mut at: usize) -> Option<(Vec<u8>, usize)> {
    let mut encoded = String::new();
    loop {
        let (line, next) = line(text, at)?;
        at = next;
        encoded.push_str(line);
        if line.len() > COLUMNS {
            return None;
        }
        if line.len() < COLUMNS {
            return Some((STANDARD_NO_PAD.decode(encoded).ok()?, at));
        }
    }
}

/// Reads a line that ends in a line feed, and says where the next begins.
fn line(text: &[u8], at: usize) -> Option<(&str, usize)> {
    let rest = text.get(at..)?;
    let end = memchr::memchr(b'\n', rest)?;
    let line = std::str::from_utf8(rest.get(..end)?).ok()?;
    Some((line, at + end + 1))
}
