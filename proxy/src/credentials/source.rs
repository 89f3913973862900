//! Where the value of a credential is on this host.

mod command;
mod sealer;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use policy::{Injection, Outside};
use serde::Deserialize;
use thiserror::Error;
use zeroize::Zeroizing;

pub(crate) use sealer::Which;
pub use sealer::{KeyError, Sealer};

use super::age::NotOpened;
use super::hook;
use super::secret::{NoSecret, SECRET_BYTES_MAX, Secret};
use super::vault::{VaultError, VaultSource, Vaults, What};

/// How long reading a value may take.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The most that is read of a source: a value, and what encryption adds to it.
const SOURCE_BYTES_MAX: usize = SECRET_BYTES_MAX * 2 + 4096;

/// One of `credentials.sources`: where a value is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    /// A file that is encrypted to this host's key (age-encryption.org/v1), binary or in ASCII armour.
    File(PathBuf),
    /// What a program writes to its standard output: `sops -d`, a vault's own client.
    Command(Vec<String>),
    /// A credential that systemd passed to the proxy: `LoadCredentialEncrypted=`, below `$CREDENTIALS_DIRECTORY`.
    Systemd(String),
    /// A variable of the proxy's environment. Every process of its user may read it, and it is said aloud at start.
    Env(String),
    /// A secret in an OpenBao or a Vault, one of `credentials.vaults`.
    Vault(VaultSource),
}

/// What a value looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One line, which is sent as it is.
    Line,
    /// A document, of which parts are sent.
    Lines,
    /// The address of a webhook at this destination.
    Address(Outside),
}

impl Shape {
    /// What the value of a credential looks like that is added so.
    pub(crate) fn of(injection: &Injection) -> Self {
        if let Injection::Url(to) = injection {
            Self::Address(to.clone())
        } else if injection.takes_lines() {
            Self::Lines
        } else {
            Self::Line
        }
    }

    pub(crate) fn secret(&self, bytes: Vec<u8>) -> Result<Secret, NoSecret> {
        let secret = match self {
            Self::Line | Self::Address(_) => Secret::new(bytes)?,
            Self::Lines => Secret::lines(bytes)?,
        };
        self.fits(&secret).map(|()| secret)
    }

    /// Says whether a value is what it should be: the mesh file may have changed since it was read.
    pub(super) fn fits(&self, secret: &Secret) -> Result<(), NoSecret> {
        match self {
            Self::Line | Self::Lines => Ok(()),
            Self::Address(to) => hook::target(secret.bytes(), to).map(drop).map_err(NoSecret::Address),
        }
    }
}

/// What of the environment sources need.
#[derive(Clone, Copy, Debug)]
pub struct Environment(pub fn(&str) -> Option<OsString>);

impl Environment {
    fn get(self, name: &str) -> Option<OsString> {
        (self.0)(name)
    }
}

/// Why a value was not read.
#[derive(Debug, Error)]
pub enum SourceError {
    /// A file could not be read.
    #[error("read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
    /// A file that is no encrypted one.
    #[error("{path} is not encrypted: write it by `botmesh secret put NAME`, or by `age -r RECIPIENT` with the recipient of `botmesh secret recipient`", path = path.display())]
    NotEncrypted {
        /// The file.
        path: PathBuf,
    },
    /// It is encrypted to other keys.
    #[error("{path} is not encrypted to the key of this host", path = path.display())]
    OtherKey {
        /// The file.
        path: PathBuf,
    },
    /// It was changed, or is longer than any credential.
    #[error("{path} cannot be opened: {why}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: NotOpened,
    },
    /// The host's own key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A program did not do what it should. What it wrote is not shown: it may be the value.
    #[error("the program {program} {problem}")]
    Command {
        /// Its path.
        program: String,
        /// What it did.
        problem: String,
    },
    /// There is no such credential of systemd.
    #[error("systemd passed no credentials to the proxy: there is no $CREDENTIALS_DIRECTORY")]
    NoSystemd,
    /// There is no such variable.
    #[error("the proxy's environment has no variable {name}")]
    NoVariable {
        /// Its name.
        name: String,
    },
    /// What was read is no value.
    #[error(transparent)]
    NoSecret(#[from] NoSecret),
    /// Nobody put a value.
    #[error(
        "there is no value on this host: `botmesh secret put {name}`, or name its place in credentials.sources of proxy.yaml"
    )]
    Nowhere {
        /// The credential.
        name: String,
    },
    /// There is nothing to be read, and somebody says from where.
    #[error(
        "there is no value to read: `federate` has each bot's own JWT-SVID; take the {kind} out of credentials.sources of proxy.yaml"
    )]
    NoValue {
        /// Of the source.
        kind: &'static str,
    },
    /// There are too many bots.
    #[error("{all} bots of this host have a token of their own by `federate`, which is as many as are kept")]
    Pairs {
        /// How many.
        all: usize,
    },
    /// A vault did not give it.
    #[error(transparent)]
    Vault(#[from] Arc<VaultError>),
    /// There are too many leases.
    #[error(
        "there are {all} leases on this host, {own} of them of this bot: each of its processes has one, and no more are taken until some have ended"
    )]
    Leases {
        /// On this host, with those that wait to be given back.
        all: usize,
        /// Of the bot.
        own: usize,
    },
    /// A lease whose name cannot be kept is not used: nobody would give it back after a crash.
    #[error("write {path}, where leases are noted before they are used", path = path.display())]
    Remember {
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
    /// Nobody is there to have it.
    #[error("the process that called has ended, or runs another program")]
    ProcessEnded,
    /// Nothing is taken any more.
    #[error("the proxy stops")]
    Stopping,
    /// It cannot be looked for.
    #[error("its value cannot be looked for in answers")]
    NoFinder,
    /// It took too long.
    #[error("it was not read within {}s", READ_TIMEOUT.as_secs())]
    Slow,
}

impl Source {
    /// Reads the value.
    ///
    /// # Errors
    ///
    /// See [`SourceError`]; none of them holds anything of the value.
    pub(crate) async fn read(
        &self,
        shape: Shape,
        sealer: &Sealer,
        environment: Environment,
        vaults: &Vaults,
    ) -> Result<Secret, SourceError> {
        let reading = async {
            match self {
                Self::File(path) => sealer.open(path.clone(), shape).await,
                Self::Command(words) => Ok(shape.secret(command::output(words, environment.get("HOME")).await?)?),
                Self::Systemd(name) => {
                    let folder = environment.get("CREDENTIALS_DIRECTORY").ok_or(SourceError::NoSystemd)?;
                    let mut bytes = read_file(PathBuf::from(folder).join(name)).await?;
                    Ok(shape.secret(std::mem::take(&mut *bytes))?)
                }
                Self::Env(name) => match environment.get(name) {
                    Some(value) => Ok(shape.secret(value.into_vec())?),
                    None => Err(SourceError::NoVariable { name: name.clone() }),
                },
                Self::Vault(source) => Ok(vaults.read(shape, source).await?),
            }
        };
        tokio::time::timeout(READ_TIMEOUT, reading)
            .await
            .unwrap_or(Err(SourceError::Slow))
    }

    /// The word for how long a value lives.
    #[must_use]
    pub(crate) const fn class(&self) -> &'static str {
        match self {
            Self::Vault(VaultSource {
                what: What::Lease { .. },
                ..
            }) => "dynamic",
            Self::File(_) | Self::Command(_) | Self::Systemd(_) | Self::Env(_) | Self::Vault(_) => "static",
        }
    }

    /// The word for its kind.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Command(_) => "command",
            Self::Systemd(_) => "systemd",
            Self::Env(_) => "env",
            Self::Vault(_) => "vault",
        }
    }
}

/// Reads a file of bounded length, away from the threads that serve calls.
async fn read_file(path: PathBuf) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    let shown = path.clone();
    let failed = |source| SourceError::Read { path: shown, source };
    let read = tokio::task::spawn_blocking(move || {
        use std::io::Read as _;
        let file = std::fs::File::open(&path)?;
        // Room for all of it, so that no copy of a part is left behind by growing.
        let mut bytes = Zeroizing::new(Vec::with_capacity(SOURCE_BYTES_MAX + 1));
        file.take(SOURCE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > SOURCE_BYTES_MAX {
            return Err(std::io::Error::other("it is longer than any credential"));
        }
        Ok(bytes)
    });
    read.await
        .map_err(std::io::Error::other)
        .and_then(|read| read)
        .map_err(failed)
}

#[cfg(test)]
mod tests;
