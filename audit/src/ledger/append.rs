//! Appending whole lines or nothing.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;

/// What [`Append`] needs of a file opened for appending.
pub(super) trait Storage {
    /// Writes all bytes at the end; after an error some of them may be there.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file.
    fn set_len(&mut self, len: u64) -> io::Result<()>;
}

/// A file that is appended to, and the length up to which it is good.
#[derive(Debug)]
pub(super) struct Append<S> {
    storage: S,
    len: u64,
    torn: bool,
}

impl<S: Storage> Append<S> {
    /// Takes a file of `len` good bytes.
    pub(super) const fn new(storage: S, len: u64) -> Self {
        Self {
            storage,
            len,
            torn: false,
        }
    }

    /// Returns the good length, in bytes.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Returns the file.
    pub(super) const fn storage(&self) -> &S {
        &self.storage
    }

    /// Appends all of `bytes` or none of them: what a full disk took of them
    /// is cut off again, at the latest before the next bytes are written.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.torn {
            self.storage.set_len(self.len)?;
            self.torn = false;
        }
        if let Err(error) = self.storage.write_all(bytes) {
            self.torn = self.storage.set_len(self.len).is_err();
            return Err(error);
        }
        self.len = self.len.saturating_add(bytes.len() as u64);
        Ok(())
    }
}

impl Storage for Arc<File> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.as_ref().write_all(bytes)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.as_ref().set_len(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with room for `room` bytes, on which cutting may fail.
    #[derive(Debug)]
    struct Disk {
        bytes: Vec<u8>,
        room: usize,
        cuts: bool,
    }

    impl Storage for Disk {
        fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
            let free = self.room - self.bytes.len();
            self.bytes.extend_from_slice(&bytes[..bytes.len().min(free)]);
            if free < bytes.len() {
                Err(io::ErrorKind::StorageFull.into())
            } else {
                Ok(())
            }
        }

        fn set_len(&mut self, len: u64) -> io::Result<()> {
            if !self.cuts {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            self.bytes.truncate(usize::try_from(len).unwrap());
            Ok(())
        }
    }

    #[test]
    fn what_a_full_disk_took_is_cut_off_again() {
        let mut file = Append::new(
            Disk {
                bytes: b"old\n".to_vec(),
                room: 9,
                cuts: true,
            },
            4,
        );
        assert_eq!(file.append(b"longer\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.storage().bytes, b"old\n");
        file.append(b"new\n").unwrap();
        assert_eq!((file.storage().bytes.as_slice(), file.len()), (&b"old\nnew\n"[..], 8));
    }

    #[test]
    fn nothing_is_written_after_a_torn_line_that_cannot_be_cut() {
        let mut file = Append::new(
            Disk {
                bytes: vec![],
                room: 4,
                cuts: false,
            },
            0,
        );
        file.append(b"longer\n").unwrap_err();
        file.storage.room = 100;
        assert_eq!(
            file.append(b"new\n").unwrap_err().kind(),
            io::ErrorKind::PermissionDenied
        );
        assert_eq!(file.storage().bytes, b"long");
        file.storage.cuts = true;
        file.append(b"new\n").unwrap();
        assert_eq!((file.storage().bytes.as_slice(), file.len()), (&b"new\n"[..], 4));
    }
}
