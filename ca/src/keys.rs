//! Keys in files: the root's private key and those of JWT-SVIDs, sealed under a key-encryption key.
//!
//! The key-encryption key is a file of mode 0600 in the state directory. Sealing
//! therefore keeps a copy of the key folder or of a backup without that file
//! worthless, and does not stop someone who reads everything as this user.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use spiffe::id::TrustDomain;
use spiffe_tls::PrivateKey;
use zeroize::Zeroizing;

/// Begins a sealed key; the digit is the version of the format.
const MAGIC: &[u8] = b"botmesh sealed key 1\n";

/// A sealed P-256 key is far smaller.
const SEALED_BYTES_MAX: u64 = 4096;

const KEK_BYTES: usize = 32;

/// Why a key could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A folder or file could not be written.
    #[error("write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be read.
    #[error("read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A secret file that others can read or write.
    #[error("{path} has mode {mode:04o}: others than its owner can reach it; make it 0600")]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file that does not hold what it should.
    #[error("{path} is not {wanted}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
    },
    /// The sealed key does not open: changed, of another CA, or sealed under another key-encryption key.
    #[error("{path} does not open with the key-encryption key {kek}: it was changed, or belongs to another CA")]
    Unseal {
        /// The sealed key.
        path: PathBuf,
        /// The key-encryption key.
        kek: PathBuf,
    },
    /// What was sealed is not a usable key.
    #[error("use the key of {path}")]
    Unusable {
        /// The sealed key.
        path: PathBuf,
        /// Why.
        #[source]
        source: spiffe_tls::KeyError,
    },
    /// The key could not be made.
    #[error("make a key")]
    Generate {
        /// Why.
        #[source]
        source: spiffe_tls::KeyError,
    },
    /// The operating system gave no random bytes, or the cipher refused.
    #[error("{operation}: the crypto library refused")]
    Crypto {
        /// What was being done.
        operation: &'static str,
    },
}

/// What a key signs. One of these is never the other, whatever its file is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyUse {
    /// Certificates.
    Root,
    /// JWT-SVIDs.
    Jwt,
}

impl KeyUse {
    /// Begins what the seal of such a key is bound to.
    const fn context(self) -> &'static str {
        match self {
            Self::Root => "botmesh ca key v1",
            Self::Jwt => "botmesh jwt key v1",
        }
    }

    /// Begins the name of its file.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Root => "",
            Self::Jwt => "jwt-",
        }
    }
}

/// The folder of sealed keys and the key-encryption key that opens them.
pub(crate) struct DiskKeys {
    dir: PathBuf,
    kek_file: PathBuf,
    kek: LessSafeKey,
    trust_domain: TrustDomain,
}

impl std::fmt::Debug for DiskKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskKeys")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl DiskKeys {
    /// Makes the folder and the key-encryption key where they are missing.
    pub(crate) fn create(dir: &Path, kek_file: &Path, trust_domain: &TrustDomain) -> Result<Self, KeyError> {
        create_private_dir(dir, 0o700)?;
        if !kek_file.exists() {
            let mut kek = Zeroizing::new([0_u8; KEK_BYTES]);
            rand::fill(kek.as_mut_slice()).map_err(|_opaque| KeyError::Crypto {
                operation: "make a key-encryption key",
            })?;
            write_new_private(kek_file, kek.as_slice())?;
        }
        Self::open(dir, kek_file, trust_domain)
    }

    /// Reads the key-encryption key.
    pub(crate) fn open(dir: &Path, kek_file: &Path, trust_domain: &TrustDomain) -> Result<Self, KeyError> {
        let kek = read_private(kek_file, KEK_BYTES as u64)?;
        let malformed = || KeyError::Malformed {
            path: kek_file.to_owned(),
            wanted: "a key-encryption key of 32 bytes",
        };
        if kek.len() != KEK_BYTES {
            return Err(malformed());
        }
        let kek = UnboundKey::new(&AES_256_GCM, &kek).map_err(|_opaque| malformed())?;
        Ok(Self {
            dir: dir.to_owned(),
            kek_file: kek_file.to_owned(),
            kek: LessSafeKey::new(kek),
            trust_domain: trust_domain.clone(),
        })
    }

    /// Seals a key into a new file.
    pub(crate) fn store(&self, usage: KeyUse, key_id: &str, key: &PrivateKey) -> Result<(), KeyError> {
        const FAILED: KeyError = KeyError::Crypto {
            operation: "seal a key",
        };
        let mut nonce = [0_u8; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_opaque| FAILED)?;
        let mut sealed = key.to_pkcs8().map_err(|source| KeyError::Generate { source })?.to_vec();
        self.kek
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                self.context(usage, key_id),
                &mut sealed,
            )
            .map_err(|_opaque| FAILED)?;
        write_new_private(&self.path(usage, key_id), &[MAGIC, &nonce, &sealed].concat())
    }

    /// Opens a sealed key.
    pub(crate) fn load(&self, usage: KeyUse, key_id: &str) -> Result<PrivateKey, KeyError> {
        let path = self.path(usage, key_id);
        let file = read_private(&path, SEALED_BYTES_MAX)?;
        let Some((nonce, sealed)) = file
            .strip_prefix(MAGIC)
            .and_then(|rest| rest.split_first_chunk::<NONCE_LEN>())
        else {
            return Err(KeyError::Malformed {
                path,
                wanted: "a sealed key",
            });
        };
        let mut buffer = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.kek.open_in_place(nonce, self.context(usage, key_id), &mut buffer);
        match opened {
            Ok(pkcs8) => PrivateKey::from_pkcs8(pkcs8).map_err(|source| KeyError::Unusable { path, source }),
            Err(_opaque) => Err(KeyError::Unseal {
                path,
                kek: self.kek_file.clone(),
            }),
        }
    }

    /// Deletes a sealed key, and is content where it is gone already.
    pub(crate) fn remove(&self, usage: KeyUse, key_id: &str) -> Result<(), KeyError> {
        let path = self.path(usage, key_id);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(KeyError::Write { path, source }),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn path(&self, usage: KeyUse, key_id: &str) -> PathBuf {
        self.dir.join(format!("{}{key_id}.key", usage.prefix()))
    }

    /// Binds the sealed bytes to their use, name and CA, so that files cannot be swapped.
    fn context(&self, usage: KeyUse, key_id: &str) -> Aad<String> {
        Aad::from(format!("{}\n{}\n{key_id}", usage.context(), self.trust_domain))
    }
}

/// Makes a folder, and those above it that are missing, with this mode.
pub(crate) fn create_private_dir(dir: &Path, mode: u32) -> Result<(), KeyError> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(dir)
        .map_err(|source| KeyError::Write {
            path: dir.to_owned(),
            source,
        })
}

/// Writes a file that is not there yet, for its owner only, and durably.
pub(crate) fn write_new_private(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let failed = |source| KeyError::Write {
        path: path.to_owned(),
        source,
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    // The name is durable only once its folder is.
    match path.parent() {
        Some(dir) => File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed),
        None => Ok(()),
    }
}

/// Reads a file that only its owner can reach.
pub(crate) fn read_private(path: &Path, bytes_max: u64) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let failed = |source| KeyError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(512));
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        return Err(KeyError::Malformed {
            path: path.to_owned(),
            wanted: "a key file: it is too long",
        });
    }
    Ok(bytes)
}

/// Whether a path is there; an error counts as there, so that nothing is overwritten.
pub(crate) fn exists(path: &Path) -> bool {
    fs::exists(path).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn keys(dir: &Path, domain: &str) -> DiskKeys {
        DiskKeys::create(
            &dir.join("keys"),
            &dir.join("kek"),
            &TrustDomain::parse(domain).unwrap(),
        )
        .unwrap()
    }

    #[test]
    fn a_sealed_key_comes_back_and_is_not_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let key = PrivateKey::generate().unwrap();
        keys(dir.path(), "acme.internal")
            .store(KeyUse::Root, "a", &key)
            .unwrap();
        let back = keys(dir.path(), "acme.internal").load(KeyUse::Root, "a").unwrap();
        assert_eq!(back.spki_der(), key.spki_der());
        let file = fs::read(dir.path().join("keys/a.key")).unwrap();
        let secret = key.to_pkcs8().unwrap();
        assert!(
            !file
                .windows(32)
                .any(|window| secret.windows(32).any(|part| part == window))
        );
        let mode = fs::metadata(dir.path().join("keys/a.key")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_changed_byte_another_name_or_another_ca_does_not_open() {
        let dir = tempfile::tempdir().unwrap();
        let keys_here = keys(dir.path(), "acme.internal");
        keys_here
            .store(KeyUse::Root, "a", &PrivateKey::generate().unwrap())
            .unwrap();
        let path = dir.path().join("keys/a.key");
        fs::copy(&path, dir.path().join("keys/b.key")).unwrap();
        assert!(matches!(
            keys_here.load(KeyUse::Root, "b"),
            Err(KeyError::Unseal { .. })
        ));
        assert!(matches!(
            keys(dir.path(), "other.internal").load(KeyUse::Root, "a"),
            Err(KeyError::Unseal { .. })
        ));
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(
            keys_here.load(KeyUse::Root, "a"),
            Err(KeyError::Unseal { .. })
        ));
        fs::write(&path, b"botmesh sealed key 2\n").unwrap();
        assert!(matches!(
            keys_here.load(KeyUse::Root, "a"),
            Err(KeyError::Malformed { .. })
        ));
    }

    #[test]
    fn a_key_of_one_use_is_none_of_the_other_whatever_its_file_is_called() {
        let dir = tempfile::tempdir().unwrap();
        let keys = keys(dir.path(), "acme.internal");
        let (root, jwt) = (dir.path().join("keys/a.key"), dir.path().join("keys/jwt-a.key"));
        keys.store(KeyUse::Root, "a", &PrivateKey::generate().unwrap()).unwrap();
        keys.store(KeyUse::Jwt, "a", &PrivateKey::generate().unwrap()).unwrap();
        assert!(keys.load(KeyUse::Root, "a").is_ok() && keys.load(KeyUse::Jwt, "a").is_ok());
        let (sealed_root, sealed_jwt) = (fs::read(&root).unwrap(), fs::read(&jwt).unwrap());
        fs::write(&root, sealed_jwt).unwrap();
        fs::write(&jwt, sealed_root).unwrap();
        for usage in [KeyUse::Root, KeyUse::Jwt] {
            assert!(
                matches!(keys.load(usage, "a"), Err(KeyError::Unseal { .. })),
                "{usage:?}"
            );
        }
        keys.remove(KeyUse::Jwt, "a").unwrap();
        assert!(!jwt.exists() && root.exists());
        keys.remove(KeyUse::Jwt, "a").unwrap();
    }

    #[test]
    fn a_key_encryption_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(keys(dir.path(), "acme.internal"));
        fs::set_permissions(dir.path().join("kek"), fs::Permissions::from_mode(0o640)).unwrap();
        let domain = TrustDomain::parse("acme.internal").unwrap();
        let again = DiskKeys::create(&dir.path().join("keys"), &dir.path().join("kek"), &domain);
        assert!(matches!(again, Err(KeyError::Exposed { mode: 0o640, .. })));
    }
}
