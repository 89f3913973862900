//! From root to the proxy's own user, before anything is served.
//!
//! The order: the helper starts and the process narrows itself while it has one thread ([`Descent::begin`]); listeners
//! are bound; folders are given to the user; the process becomes the user ([`Descent::finish`]); only then is the ledger
//! opened, the CA called and a connection accepted.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use nix::unistd::{Uid, User as Account, geteuid};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, chownat, fchown, fstat, openat, statat};
use thiserror::Error;

use crate::attest::Helper;
use crate::attest::helper::{self, HelperError};
use crate::config::{Operator, Settings};
use crate::privileges::{self, PrivilegeError, User};

/// How deep, and how many files, the folders of a proxy are; a ledger of 20 GiB has some thousand.
const DEPTH_MAX: usize = 16;
const ENTRIES_MAX: usize = 1 << 20;

/// A proxy that root started, on its way down.
#[derive(Debug)]
pub struct Descent {
    helper: Helper,
    user: User,
}

/// Why a proxy that root started cannot become its user.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DescentError {
    /// There is no such user.
    #[error(
        "user: this host has no user {name}. `deploy/install.sh proxy` makes it, and so does \
         `useradd --system --user-group {name}`; `user: root` in proxy.yaml does without, and then the part of the proxy \
         that reads strangers' requests may do everything on this host"
    )]
    NoUser {
        /// Its name.
        name: String,
    },
    /// The user could not be looked up.
    #[error("look up the user {name}")]
    LookUp {
        /// Its name or number.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The attest helper does not run.
    #[error("start what looks into processes")]
    Helper {
        /// Why.
        #[source]
        source: HelperError,
    },
    /// A right could not be given up.
    #[error("become the user of the proxy")]
    Privileges {
        /// Why.
        #[source]
        source: PrivilegeError,
    },
    /// A folder could not be given to the user.
    #[error("give {path} to uid {uid}")]
    Give {
        /// The folder.
        path: String,
        /// The user.
        uid: u32,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A folder is somebody else's.
    #[error("{path} belongs to uid {owner}; the proxy runs as uid {uid}: chown -R {uid} {path}, if it is the proxy's")]
    Foreign {
        /// The folder.
        path: String,
        /// Whose it is.
        owner: u32,
        /// The user.
        uid: u32,
    },
}

impl Descent {
    /// Starts the helper and takes from this process the way back up; nothing where it is not root, or is to stay root.
    ///
    /// To be called while the process has one thread. In any case it is closed to other processes of its user
    /// afterwards.
    ///
    /// # Errors
    /// A [`DescentError`]; the proxy must then not start.
    pub fn begin(settings: &Settings) -> Result<Option<Self>, DescentError> {
        let privileges = |source| DescentError::Privileges { source };
        if !geteuid().is_root() {
            privileges::seal().map_err(privileges)?;
            return Ok(None);
        }
        let user = look_up(&settings.user)?;
        if user.uid == 0 {
            privileges::seal().map_err(privileges)?;
            return Ok(None);
        }
        let helper = helper::start(user).map_err(|source| DescentError::Helper { source })?;
        privileges::narrow().map_err(privileges)?;
        Ok(Some(Self { helper, user }))
    }

    /// Gives the user what it must write, and becomes the user.
    pub(super) fn finish(self, settings: &Settings) -> Result<Helper, DescentError> {
        let sockets = settings.bots_socket.with_file_name("bots");
        for (path, mode) in [
            (&settings.state_dir, 0o700),
            (&settings.ledger_dir, 0o700),
            (&sockets, 0o755),
        ] {
            // One that cannot be made here is made by the user, or is missed by name.
            let _missed_later = DirBuilder::new().recursive(true).mode(mode).create(path);
            self.give(path)?;
        }
        self.give_token(&settings.token_file)?;
        privileges::become_user(self.user).map_err(|source| DescentError::Privileges { source })?;
        Ok(self.helper)
    }

    /// Gives a folder and all that is in it to the user, when it is root's: what a proxy of an earlier version left.
    ///
    /// The folder itself is given last. So whatever is found below it was put there by root, and no link of the user's
    /// can lead to another file of root.
    fn give(&self, path: &Path) -> Result<(), DescentError> {
        let uid = self.user.uid;
        let failed = |source: io::Error| DescentError::Give {
            path: path.display().to_string(),
            uid,
            source,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = match openat(CWD, path, flags, Mode::empty()) {
            Ok(folder) => folder,
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(failed(error.into())),
        };
        match fstat(&folder).map_err(|error| failed(error.into()))?.st_uid {
            owner if owner == uid => Ok(()),
            0 => {
                let mut left = ENTRIES_MAX;
                self.give_all(&folder, DEPTH_MAX, &mut left).map_err(failed)?;
                self.chown(&folder).map_err(failed)
            }
            owner => Err(DescentError::Foreign {
                path: path.display().to_string(),
                owner,
                uid,
            }),
        }
    }

    fn give_all(&self, folder: &OwnedFd, depth: usize, left: &mut usize) -> io::Result<()> {
        let depth = depth.checked_sub(1).ok_or(io::ErrorKind::QuotaExceeded)?;
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            *left = left.checked_sub(1).ok_or(io::ErrorKind::QuotaExceeded)?;
            let found = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let below = openat(folder, name, flags, Mode::empty())?;
                self.give_all(&below, depth, left)?;
                self.chown(&below)?;
            } else {
                let (uid, gid) = self.ids();
                chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
        }
        Ok(())
    }

    /// A join token is for its reader alone, and the reader is the proxy.
    fn give_token(&self, path: &Path) -> Result<(), DescentError> {
        let failed = |source: io::Error| DescentError::Give {
            path: path.display().to_string(),
            uid: self.user.uid,
            source,
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        // There may be none; whatever cannot be opened now is said when it is read.
        let Ok(file) = openat(CWD, path, flags, Mode::empty()) else {
            return Ok(());
        };
        let found = fstat(&file).map_err(|error| failed(error.into()))?;
        if is_tokens(&found) {
            self.chown(&file).map_err(failed)?;
        }
        Ok(())
    }

    fn chown(&self, file: &OwnedFd) -> io::Result<()> {
        let (uid, gid) = self.ids();
        Ok(fchown(file, uid, gid)?)
    }

    fn ids(&self) -> (Option<rustix::fs::Uid>, Option<rustix::fs::Gid>) {
        let User { uid, gid } = self.user;
        (
            Some(rustix::fs::Uid::from_raw(uid)),
            Some(rustix::fs::Gid::from_raw(gid)),
        )
    }
}

/// A plain file of root's that has no second name: no link to it can have been made to be given away.
fn is_tokens(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::RegularFile && found.st_uid == 0 && found.st_nlink == 1
}

/// A number need have no name; its group is then of the same number.
fn look_up(user: &Operator) -> Result<User, DescentError> {
    let failed = |name: String| {
        move |error: nix::errno::Errno| DescentError::LookUp {
            name,
            source: error.into(),
        }
    };
    let account = match user {
        Operator::Name(name) => {
            let found = Account::from_name(name).map_err(failed(name.clone()))?;
            found.ok_or_else(|| DescentError::NoUser { name: name.clone() })?
        }
        Operator::Uid(uid) => {
            let found = Account::from_uid(Uid::from_raw(*uid)).map_err(failed(uid.to_string()))?;
            let Some(found) = found else {
                return Ok(User { uid: *uid, gid: *uid });
            };
            found
        }
    };
    Ok(User {
        uid: account.uid.as_raw(),
        gid: account.gid.as_raw(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_looked_up_by_name_or_number_and_one_that_is_missing_is_named_with_what_to_do() {
        assert_eq!(
            look_up(&Operator::Name("root".to_owned())).unwrap(),
            User { uid: 0, gid: 0 }
        );
        assert_eq!(look_up(&Operator::Uid(0)).unwrap(), User { uid: 0, gid: 0 });
        let number = User {
            uid: 2_000_000_101,
            gid: 2_000_000_101,
        };
        assert_eq!(look_up(&Operator::Uid(number.uid)).unwrap(), number);
        let missing = look_up(&Operator::Name("no-such-user".to_owned()))
            .unwrap_err()
            .to_string();
        assert!(
            missing.contains("no-such-user") && missing.contains("install.sh proxy"),
            "{missing}"
        );
    }

    #[test]
    fn only_a_plain_file_of_root_with_one_name_is_given_as_a_token() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        std::fs::write(&one, "x").unwrap();
        let look = |path: &Path| statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        assert_eq!(is_tokens(&look(&one)), geteuid().is_root());
        assert!(!is_tokens(&look(dir.path())));
        std::fs::hard_link(&one, &two).unwrap();
        assert!(!is_tokens(&look(&one)), "it has a second name");
    }
}
