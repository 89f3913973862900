//! The key that cosigns heads of hosts' ledgers: a file of mode 0600 beside that of the CA's own ledger.

use std::path::{Path, PathBuf};

use audit::CosignerKey;
use audit::key::{KeyError as NoteKeyError, KeyName};
use spiffe::id::{HostName, TrustDomain};
use zeroize::Zeroizing;

use crate::keys::{self, KeyError};

/// A key of one line is far shorter.
const KEY_BYTES_MAX: u64 = 2048;

/// Why the CA cannot cosign.
#[derive(Debug, thiserror::Error)]
pub enum CosignerError {
    /// The file cannot be read or written.
    #[error("use the file of the cosigner's key")]
    File {
        /// Why.
        #[source]
        source: KeyError,
    },
    /// It holds no such key.
    #[error("{path} holds no cosigner's key")]
    Key {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: NoteKeyError,
    },
    /// It is the key of another CA.
    #[error("{path} holds the key of the cosigner {found}")]
    Other {
        /// Which file.
        path: PathBuf,
        /// The name in it.
        found: String,
    },
}

/// Reads the key, or makes it.
pub(crate) fn load(path: &Path, trust_domain: &TrustDomain, server: &HostName) -> Result<CosignerKey, CosignerError> {
    let wrong = |source| CosignerError::Key {
        path: path.to_owned(),
        source,
    };
    let file = |source| CosignerError::File { source };
    let name = KeyName::parse(&format!("{trust_domain}/ca/{server}/cosigner")).map_err(wrong)?;
    if !keys::exists(path) {
        let key = CosignerKey::generate(name).map_err(wrong)?;
        let text = Zeroizing::new(format!("{}\n", key.expose().as_str()));
        keys::write_new_private(path, text.as_bytes()).map_err(file)?;
        return Ok(key);
    }
    let bytes = keys::read_private(path, KEY_BYTES_MAX).map_err(file)?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    let key = CosignerKey::parse(text.trim_end()).map_err(wrong)?;
    if *key.verifier().name() != name {
        return Err(CosignerError::Other {
            path: path.to_owned(),
            found: key.verifier().name().to_string(),
        });
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn of(dir: &Path, server: &str) -> Result<CosignerKey, CosignerError> {
        let domain = TrustDomain::parse("acme.internal").unwrap();
        load(&dir.join("cosigner.key"), &domain, &HostName::parse(server).unwrap())
    }

    #[test]
    fn a_key_is_made_once_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let made = of(dir.path(), "ca-1").unwrap().verifier();
        assert_eq!(made.name().as_str(), "acme.internal/ca/ca-1/cosigner");
        assert_eq!(of(dir.path(), "ca-1").unwrap().verifier(), made);
        let file = dir.path().join("cosigner.key");
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(of(dir.path(), "ca-2"), Err(CosignerError::Other { .. })));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(of(dir.path(), "ca-1"), Err(CosignerError::File { .. })));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&file, "no key").unwrap();
        assert!(matches!(of(dir.path(), "ca-1"), Err(CosignerError::Key { .. })));
    }
}
