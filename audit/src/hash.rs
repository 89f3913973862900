//! The hashes of the tree: RFC 6962 §2.1 over SHA-256.

use std::fmt;

use aws_lc_rs::digest;

/// A node of the ledger's tree: 32 bytes of SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hash([u8; Self::BYTES]);

impl Hash {
    /// Length of a hash, in bytes.
    pub const BYTES: usize = 32;

    /// Takes 32 bytes as they are.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// Writes the hash in lower-case hex.
    #[must_use]
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads what [`Hash::to_hex`] wrote, and no other spelling.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; Self::BYTES];
        let pairs = text.as_bytes().chunks(2);
        if text.len() != 2 * Self::BYTES {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(pairs) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        let hash = Self(bytes);
        (hash.to_hex() == text).then_some(hash)
    }

    /// Hashes one leaf, RFC 6962 §2.1: SHA-256 of 0x00 and the leaf's bytes.
    #[must_use]
    pub fn leaf(bytes: &[u8]) -> Self {
        let mut prefixed = Vec::with_capacity(bytes.len().saturating_add(1));
        prefixed.push(LEAF);
        prefixed.extend_from_slice(bytes);
        Self::prefixed_leaf(&prefixed)
    }

    /// Hashes a leaf whose buffer already opens with the leaf prefix, which
    /// spares the path of a call one copy.
    pub(crate) fn prefixed_leaf(prefixed: &[u8]) -> Self {
        sha256(prefixed)
    }

    /// Hashes two children, RFC 6962 §2.1: SHA-256 of 0x01, left, right.
    #[must_use]
    pub fn node(left: &Self, right: &Self) -> Self {
        let mut bytes = Vec::with_capacity(1 + 2 * Self::BYTES);
        bytes.push(NODE);
        bytes.extend_from_slice(&left.0);
        bytes.extend_from_slice(&right.0);
        sha256(&bytes)
    }

    /// Returns the root of a tree without leaves: SHA-256 of nothing.
    #[must_use]
    pub fn of_empty_tree() -> Self {
        sha256(&[])
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The byte that opens the bytes of a leaf (RFC 6962 §2.1).
pub(crate) const LEAF: u8 = 0x00;
/// The byte that opens the bytes of an inner node (RFC 6962 §2.1).
const NODE: u8 = 0x01;

fn sha256(bytes: &[u8]) -> Hash {
    let digest = digest::digest(&digest::SHA256, bytes);
    let mut out = [0; Hash::BYTES];
    for (to, from) in out.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    Hash(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_rfc_6962() {
        assert_eq!(
            format!("{:?}", Hash::of_empty_tree()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        let empty = Hash::leaf(b"");
        assert_eq!(
            format!("{empty:?}"),
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
        );
        assert_eq!(
            format!("{:?}", Hash::node(&empty, &Hash::leaf(&[0]))),
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
        );
    }

    #[test]
    fn a_prefixed_leaf_is_the_same_leaf() {
        assert_eq!(Hash::prefixed_leaf(b"\0abc"), Hash::leaf(b"abc"));
        assert_eq!(Hash::from_bytes(*Hash::leaf(b"a").as_bytes()), Hash::leaf(b"a"));
    }
}
