//! Tells whether a process runs a configured program, and whether it could have put that program there itself.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use rustix::fs::getxattr_query;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::procfs::Credentials;

/// The most symbolic links followed on the way to one program, as the kernel does (path_resolution(7)).
const LINKS_MAX: u32 = 40;

/// The identity of a file: its device and inode.
pub(super) type FileId = (u64, u64);

/// Returns the identity of the file at `path`, as this process's own mount namespace sees it.
pub(super) fn file_id(path: &Path) -> Option<FileId> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// Who must not be able to change the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Suspect {
    pub(super) uid: u32,
    /// Each group that it is in or can be in.
    pub(super) groups: Vec<u32>,
}

impl Suspect {
    pub(super) fn new(uid: u32, credentials: &Credentials) -> Self {
        let mut groups = credentials.groups.clone();
        groups.extend(credentials.gids);
        Self { uid, groups }
    }
}

/// Why a configured program is not believed although it is the one that runs.
#[derive(Debug, Error)]
pub(super) enum Doubt {
    #[error("the bot can write {}", .0.display())]
    Writable(PathBuf),
    #[error("{} is not an absolute path", .0.display())]
    NotAbsolute(PathBuf),
    #[error("{} goes through too many symbolic links", .0.display())]
    TooManyLinks(PathBuf),
    #[error("cannot look at {}", .0.display())]
    Unreadable(PathBuf, #[source] io::Error),
}

/// Checks that a suspect can change neither the program nor what its path leads to: not the file, no folder on the
/// way, no symbolic link nor the folder that it leads through.
///
/// Owner, group and other bits are read to the suspect's favour, so a doubt can be raised where the kernel would refuse
/// the write. In a folder with the sticky bit only the owner of an entry may replace it, and the owner of each entry is
/// looked at in any case. Where there is an access control list a group bit may stand for anyone in it.
///
/// # Errors
/// With the first thing on the way that the suspect can change, or that cannot be looked at.
pub(super) fn check_unwritable(path: &Path, suspect: &Suspect) -> Result<(), Doubt> {
    if !path.is_absolute() {
        return Err(Doubt::NotAbsolute(path.to_owned()));
    }
    let mut at = PathBuf::from("/");
    let mut rest: VecDeque<OsString> = names(path).collect();
    let mut links = 0;
    check_entry(&at, &look(&at)?, suspect)?;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        let meta = look(&next)?;
        check_entry(&next, &meta, suspect)?;
        if !meta.is_symlink() {
            at = next;
            continue;
        }
        links += 1;
        if links > LINKS_MAX {
            return Err(Doubt::TooManyLinks(path.to_owned()));
        }
        let target = fs::read_link(&next).map_err(|error| Doubt::Unreadable(next.clone(), error))?;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
            rest.push_front(name);
        }
    }
    Ok(())
}

fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn look(path: &Path) -> Result<fs::Metadata, Doubt> {
    fs::symlink_metadata(path).map_err(|error| Doubt::Unreadable(path.to_owned(), error))
}

fn check_entry(path: &Path, meta: &fs::Metadata, suspect: &Suspect) -> Result<(), Doubt> {
    const GROUP: u32 = 0o020;
    const OTHER: u32 = 0o002;
    const STICKY: u32 = 0o1000;
    let mode = meta.mode();
    let sticky = meta.is_dir() && mode & STICKY != 0;
    // A symbolic link has no permissions of its own; what counts is its owner and the folder that it is in.
    let judged = !meta.is_symlink() && !sticky;
    let in_group = || suspect.groups.contains(&meta.gid()) || getxattr_query(path, c"system.posix_acl_access").is_ok();
    if meta.uid() == suspect.uid || judged && (mode & OTHER != 0 || mode & GROUP != 0 && in_group()) {
        return Err(Doubt::Writable(path.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
