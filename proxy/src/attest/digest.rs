//! Hashes of programs, computed once per content.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;

use aws_lc_rs::digest::{Context, SHA256};
use rustix::fs::{Mode, OFlags, openat};
use spiffe::time::{Clock, Timestamp};

use super::error::{KernelError, Why};
use super::kernel::lock;
use super::pin::asked;

/// How many hashes are remembered.
const FILES_MAX: usize = 256;
/// A file changed more recently than this is hashed each time: its next change might carry the same time stamps.
const SETTLED_MS: u64 = 1_000;

/// One state of one file. Whoever changes the content changes the change time, which nobody can set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Key {
    fn of(file: &File) -> std::io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }

    fn settled(&self, now: Timestamp) -> bool {
        let changed = self
            .changed
            .0
            .saturating_mul(1000)
            .saturating_add(self.changed.1 / 1_000_000);
        now.unix_millis().abs_diff(changed) > SETTLED_MS
    }
}

/// A bounded memory of SHA-256 hashes of program files.
#[derive(Debug)]
pub(super) struct Digests {
    known: Mutex<BTreeMap<Key, String>>,
    bytes_max: u64,
    clock: Clock,
}

impl Digests {
    pub(super) fn new(bytes_max: u64, clock: Clock) -> Self {
        Self {
            known: Mutex::default(),
            bytes_max,
            clock,
        }
    }

    /// Returns the remembered hash of the program that the process in `folder` runs.
    pub(super) fn known(&self, folder: BorrowedFd<'_>, pid: u32) -> Result<Option<String>, Why> {
        let (_file, key) = open(folder, pid)?;
        Ok(lock(&self.known).get(&key).cloned())
    }

    /// Returns the hash of the program that the process in `folder` runs, reading the file where it must, which can
    /// block for as long as the disk takes.
    ///
    /// The file is opened through `/proc/PID/exe`, so it is the program that runs and not whatever its path now names.
    ///
    /// # Errors
    /// When the file is larger than the bound, changes while it is read, or cannot be read.
    pub(super) fn find(&self, folder: BorrowedFd<'_>, pid: u32) -> Result<String, Why> {
        let (mut file, key) = open(folder, pid)?;
        if let Some(hash) = lock(&self.known).get(&key) {
            return Ok(hash.clone());
        }
        if key.size > self.bytes_max {
            return Err(Why::ScanBound("exe_bytes_max"));
        }
        let failed = |error| Why::Kernel(KernelError::new("hash the program of", format!("pid {pid}"), error));
        let hash = hash(&mut file, key.size).map_err(failed)?;
        if Key::of(&file).map_err(failed)? != key {
            return Err(failed(std::io::Error::other("the file changed while it was read")));
        }
        if key.settled(self.clock.now()) {
            let mut known = lock(&self.known);
            if known.len() >= FILES_MAX {
                known.pop_first();
            }
            known.insert(key, hash.clone());
        }
        Ok(hash)
    }
}

fn open(folder: BorrowedFd<'_>, pid: u32) -> Result<(File, Key), Why> {
    let file = openat(folder, c"exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| asked("open the program of", pid, error))?;
    let file = File::from(file);
    let key = Key::of(&file)
        .map_err(|error| Why::Kernel(KernelError::new("read the program of", format!("pid {pid}"), error)))?;
    Ok((file, key))
}

fn hash(file: &mut File, size: u64) -> std::io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0u8; 128 * 1024];
    // One byte more than the size is let through, so that a file that grows is noticed and not cut.
    let mut rest = file.take(size.saturating_add(1));
    loop {
        let read = rest.read(&mut buffer)?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else {
            break;
        };
        context.update(part);
    }
    Ok(context
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

#[cfg(test)]
mod tests;
