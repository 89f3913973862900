//! The key by which paths are hashed that rules keep out of records (`path: hashed`).
//!
//! It is made at the first start and never leaves the state directory. One path has one hash on this host as long as the key
//! lives, and another on every other host. Who has the key can try paths until a hash fits, so a deleted key is how hashes
//! are made to say nothing for good.

use std::fmt;

use audit::HASHED_PATH;
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use zeroize::Zeroizing;

use super::state_dir::{StateDir, StateError};

/// Bytes of the key: those of the hash (RFC 2104 §3).
const KEY_BYTES: usize = 32;

/// Bytes of the hash that are written: no two paths of a host ever have the same.
const HASH_BYTES: usize = 16;

/// The key.
pub(crate) struct PathKey(hmac::Key);

impl PathKey {
    /// Reads the key, or makes it where there is none yet.
    pub(super) fn load(files: &StateDir) -> Result<Self, StateError> {
        if let Some(kept) = files.path_key()? {
            if kept.len() != KEY_BYTES {
                return Err(files.no_path_key(format!("it has {} bytes, and not {KEY_BYTES}", kept.len())));
            }
            return Ok(Self(hmac::Key::new(HMAC_SHA256, &kept)));
        }
        let mut made = Zeroizing::new([0; KEY_BYTES]);
        aws_lc_rs::rand::fill(&mut *made)
            .map_err(|_unspecified| files.no_path_key("this host has no randomness to make it of".to_owned()))?;
        files.save_path_key(&*made)?;
        Ok(Self(hmac::Key::new(HMAC_SHA256, &*made)))
    }

    /// Hashes a path, for records.
    pub(crate) fn hash(&self, path: &str) -> String {
        use fmt::Write as _;
        let tag = hmac::sign(&self.0, path.as_bytes());
        let mut text = String::with_capacity(HASHED_PATH.len().saturating_add(2 * HASH_BYTES));
        text.push_str(HASHED_PATH);
        for byte in tag.as_ref().iter().take(HASH_BYTES) {
            // Writing to a string cannot fail.
            write!(text, "{byte:02x}").unwrap_or_default();
        }
        text
    }
}

impl fmt::Debug for PathKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PathKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_hash_on_a_host_and_another_on_every_other() {
        let dir = tempfile::tempdir().unwrap();
        let files = StateDir::open(dir.path().join("a")).unwrap();
        let key = PathKey::load(&files).unwrap();
        let hash = key.hash("/patients/17");
        assert_eq!(hash.len(), "hashed:".len() + 32);
        assert!(hash.starts_with("hashed:"), "{hash}");
        assert_eq!(
            PathKey::load(&files).unwrap().hash("/patients/17"),
            hash,
            "after a restart"
        );
        assert_ne!(key.hash("/patients/18"), hash);
        let other = StateDir::open(dir.path().join("b")).unwrap();
        assert_ne!(PathKey::load(&other).unwrap().hash("/patients/17"), hash);
        assert_eq!(format!("{key:?}"), "PathKey");
    }

    #[test]
    fn it_is_the_hmac_that_others_compute() {
        let dir = tempfile::tempdir().unwrap();
        let files = StateDir::open(dir.path().to_owned()).unwrap();
        files.save_path_key(&[7; KEY_BYTES]).unwrap();
        // python3: hmac.new(b'\7' * 32, b'/patients/17', 'sha256').hexdigest()[:32]
        assert_eq!(
            PathKey::load(&files).unwrap().hash("/patients/17"),
            "hashed:d6bafdaf6d170779366dd7410c191365"
        );
    }

    #[test]
    fn a_key_that_is_none_or_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let files = StateDir::open(dir.path().to_owned()).unwrap();
        files.save_path_key(&[7; KEY_BYTES - 1]).unwrap();
        let refused = PathKey::load(&files).unwrap_err();
        assert!(matches!(refused, StateError::Damaged { .. }), "{refused}");
        files.save_path_key(&[7; KEY_BYTES]).unwrap();
        let path = dir.path().join("path.key");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        let refused = PathKey::load(&files).unwrap_err();
        assert!(matches!(refused, StateError::Exposed { .. }), "{refused}");
    }
}
