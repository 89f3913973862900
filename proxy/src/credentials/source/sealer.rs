//! Files that are encrypted to the key of this host (age-encryption.org/v1), and that key.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use policy::CredentialName;
use thiserror::Error;
use zeroize::Zeroizing;

use super::super::age::{Identity, NotOpened};
use super::super::secret::Secret;
use super::{Shape, SourceError, read_file};

/// The folder of values that were put on this host, below the state directory.
const FOLDER: &str = "credentials";

/// The file of the host's key, in it.
const KEY: &str = "host.key";

/// Encrypts values to this host, and reads them.
#[derive(Clone, Debug)]
pub struct Sealer {
    folder: PathBuf,
}

/// Why the host's key cannot be used.
#[derive(Debug, Error)]
pub enum KeyError {
    /// It cannot be read, made, or a value cannot be written beside it.
    #[error("use {path}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
    /// What is in the file is no key.
    #[error("{path} holds no key that begins with AGE-SECRET-KEY-1: restore it, or remove it and put every value again", path = path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// A key could not be made, or a value not be encrypted.
    #[error("the cryptography of the host's key failed")]
    Crypto,
}

impl Sealer {
    /// Keeps values below this state directory.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self {
            folder: state_dir.join(FOLDER),
        }
    }

    /// Where a value is that was put on this host.
    #[must_use]
    pub fn file(&self, name: &CredentialName) -> PathBuf {
        self.folder.join(format!("{name}.age"))
    }

    /// Where a value is that is not the one in use.
    pub(crate) fn file_of(&self, name: &CredentialName, which: Which) -> PathBuf {
        match which {
            Which::Current => self.file(name),
            // No name of a credential has a dot in it, so none of these is another one's.
            Which::Next => self.folder.join(format!("{name}.age.next")),
            Which::Old => self.folder.join(format!("{name}.age.old")),
        }
    }

    /// Where it is kept which rotation the value in use came by.
    fn done_file(&self, name: &CredentialName) -> PathBuf {
        self.folder.join(format!("{name}.rotation"))
    }

    /// Which rotation brought a value last; 0 where none did.
    ///
    /// # Errors
    ///
    /// When that cannot be read: then nobody knows whether a value is newer than the one in use.
    pub(crate) async fn done(&self, name: &CredentialName) -> Result<u64, KeyError> {
        let path = self.done_file(name);
        let failed = |source| KeyError::File {
            path: path.clone(),
            source,
        };
        match tokio::fs::read_to_string(&path).await {
            Ok(text) => {
                let invalid = |_no_number| std::io::Error::other("it holds no number of a rotation");
                text.trim().parse().map_err(invalid).map_err(failed)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(failed(error)),
        }
    }

    /// Notes which rotation brought the value in use.
    pub(crate) async fn note_done(&self, name: &CredentialName, rotation: u64) -> Result<(), KeyError> {
        self.keep(self.done_file(name), format!("{rotation}\n").into_bytes())
            .await
    }

    /// To whom `age -r` encrypts for this host. Makes the key where there is none.
    ///
    /// # Errors
    ///
    /// When the key cannot be read or made.
    pub fn recipient(&self) -> Result<String, KeyError> {
        self.identity()?.recipient().map_err(|_failed| KeyError::Crypto)
    }

    fn identity(&self) -> Result<Identity, KeyError> {
        let path = self.folder.join(KEY);
        let failed = |source| KeyError::File {
            path: path.clone(),
            source,
        };
        match std::fs::read_to_string(&path).map(Zeroizing::new) {
            Ok(text) => Identity::parse(text.trim()).ok_or(KeyError::NoKey { path: path.clone() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let identity = Identity::generate().map_err(|_failed| KeyError::Crypto)?;
                let text = identity.text().map_err(|_failed| KeyError::Crypto)?;
                self.write(&path, text.as_bytes()).map_err(failed)?;
                Ok(identity)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Writes a file that nobody else may read, in one step: whoever reads it sees what was there before, or all of this.
    fn write(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        let beside = path.with_extension("new");
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        std::fs::File::open(&self.folder)?.sync_all()
    }

    /// Encrypts a value to this host and keeps it.
    ///
    /// # Errors
    ///
    /// When the key or the file cannot be used.
    pub async fn put(&self, name: &CredentialName, secret: &Arc<Secret>) -> Result<(), KeyError> {
        let secret = Arc::clone(secret);
        self.seal(self.file(name), move || secret.bytes().to_vec()).await
    }

    async fn seal(&self, path: PathBuf, bytes: impl FnOnce() -> Vec<u8> + Send + 'static) -> Result<(), KeyError> {
        let sealer = self.clone();
        let seal = move || {
            let identity = sealer.identity()?;
            let sealed = identity.seal(&Zeroizing::new(bytes()));
            let written = sealer.write(&path, &sealed.map_err(|_failed| KeyError::Crypto)?);
            written.map_err(|source| KeyError::File { path, source })
        };
        tokio::task::spawn_blocking(seal).await.unwrap_or(Err(KeyError::Crypto))
    }

    /// Where the refresh token is that took the place of the value. No credential has a dot in its name.
    fn newest_file(&self, name: &CredentialName) -> PathBuf {
        self.folder.join(format!("{name}.newest.age"))
    }

    /// Keeps the refresh token that took the place of the value with the fingerprint `root`.
    pub(in crate::credentials) async fn put_newest(
        &self,
        name: &CredentialName,
        root: &str,
        newest: &Arc<Secret>,
    ) -> Result<(), KeyError> {
        let (root, newest) = (root.to_owned(), Arc::clone(newest));
        let both = move || [root.as_bytes(), b" ", newest.bytes()].concat();
        self.seal(self.newest_file(name), both).await
    }

    /// Reads what [`Self::put_newest`] kept: the fingerprint and the token.
    pub(in crate::credentials) async fn newest(&self, name: &CredentialName) -> Result<(String, Secret), SourceError> {
        let path = self.newest_file(name);
        let both = self.open(path.clone(), Shape::Line).await?;
        let mut halves = both.bytes().splitn(2, |byte| *byte == b' ');
        let root = halves.next().and_then(|root| std::str::from_utf8(root).ok());
        let (Some(root), Some(newest)) = (root, halves.next()) else {
            let why = NotOpened::Damaged;
            return Err(SourceError::Damaged { path, why });
        };
        Ok((root.to_owned(), Secret::new(newest.to_vec())?))
    }

    /// Keeps a value that came sealed to this host, as it came.
    pub(crate) async fn keep(&self, path: PathBuf, sealed: Vec<u8>) -> Result<(), KeyError> {
        let sealer = self.clone();
        blocking(move || {
            let written = sealer.write(&path, &sealed);
            written.map_err(|source| KeyError::File { path, source })
        })
        .await
    }

    /// Puts the next value in the place of the one in use, which is kept as the old one.
    pub(crate) async fn promote(&self, name: &CredentialName) -> Result<(), KeyError> {
        let (sealer, [current, next, old]) = (
            self.clone(),
            [Which::Current, Which::Next, Which::Old].map(|which| self.file_of(name, which)),
        );
        blocking(move || {
            let failed = |path: &Path| {
                let path = path.to_owned();
                move |source| KeyError::File { path, source }
            };
            // Written anew and not renamed: there is a value in use at every moment.
            match std::fs::read(&current) {
                Ok(sealed) => sealer.write(&old, &sealed).map_err(failed(&old))?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(&current)(error)),
            }
            std::fs::rename(&next, &current).map_err(failed(&next))?;
            let folder = std::fs::File::open(&sealer.folder).and_then(|folder| folder.sync_all());
            folder.map_err(failed(&sealer.folder))
        })
        .await
    }

    /// Deletes a value that is worth nothing; one that is not there is deleted already.
    pub(crate) async fn delete(&self, path: PathBuf) -> Result<(), KeyError> {
        blocking(move || match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(KeyError::File { path, source }),
            Ok(()) | Err(_) => Ok(()),
        })
        .await
    }

    /// Reads and decrypts a file.
    pub(crate) async fn open(&self, path: PathBuf, shape: Shape) -> Result<Secret, SourceError> {
        let sealed = read_file(path.clone()).await?;
        self.unseal(path, sealed, shape).await
    }

    /// Decrypts what `path` holds or is to hold.
    pub(crate) async fn unseal(
        &self,
        path: PathBuf,
        sealed: Zeroizing<Vec<u8>>,
        shape: Shape,
    ) -> Result<Secret, SourceError> {
        let sealer = self.clone();
        let open = move || {
            let opened = sealer.identity()?.open(&sealed);
            let mut opened = opened.map_err(|why| match why {
                NotOpened::NotAge => SourceError::NotEncrypted { path },
                NotOpened::OtherKey => SourceError::OtherKey { path },
                NotOpened::Damaged | NotOpened::Long => SourceError::Damaged { path, why },
            })?;
            Ok(shape.secret(std::mem::take(&mut *opened))?)
        };
        tokio::task::spawn_blocking(open)
            .await
            .unwrap_or(Err(SourceError::Slow))
    }
}

/// The values of a credential that a host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// That in use.
    Current,
    /// One that is to be.
    Next,
    /// One that was, until the service refuses it.
    Old,
}

/// Works on files away from the threads that serve calls.
async fn blocking(work: impl FnOnce() -> Result<(), KeyError> + Send + 'static) -> Result<(), KeyError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(KeyError::Crypto))
}
