//! The SVIDs of bots with their keys, so that a proxy that starts while the CA is
//! away carries calls at once.
//!
//! A 0600 file in a 0700 folder of its own; nothing seals it (no TPM). Whoever
//! reads it is these bots until their SVIDs end, and not longer: it holds nothing
//! by which an SVID can be renewed.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::PoisonError;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{FILE_BYTES_MAX, SavedSvid, StateDir, StateError, SvidFile, replace};

const FOLDER: &str = "svids";
const FILE: &str = "svids/svids.json";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VaultFile {
    svids: Vec<SvidFile>,
}

impl StateDir {
    /// The file, for messages.
    pub(in crate::control) fn svids_file(&self) -> PathBuf {
        self.path.join(FILE)
    }

    /// The SVIDs that were kept.
    pub(in crate::control) fn svids(&self) -> Result<Vec<SavedSvid>, StateError> {
        self.check_folder()?;
        let Some(bytes) = self.read_secret(FILE)? else {
            return Ok(Vec::new());
        };
        let file: VaultFile = self.parse(FILE, &bytes)?;
        let damaged = |error: base64::DecodeError| StateError::Damaged {
            path: self.svids_file(),
            what: error.to_string(),
        };
        file.svids
            .iter()
            .map(SvidFile::read)
            .collect::<Result<_, _>>()
            .map_err(damaged)
    }

    /// Keeps what `take` gives. It is called while nobody else writes or forgets, so
    /// that what was forgotten in between is not written again.
    pub(in crate::control) fn save_svids(&self, take: impl FnOnce() -> Vec<SavedSvid>) -> Result<(), StateError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let svids = take();
        if svids.is_empty() {
            return self.remove(FILE);
        }
        let path = self.svids_file();
        let write = || -> io::Result<()> {
            make_private(&self.path.join(FOLDER))?;
            replace(&path, &encode(&svids)?)
        };
        write().map_err(|source| StateError::Write { path, source })
    }

    pub(super) fn forget_svids(&self) -> Result<(), StateError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.remove(FILE)
    }

    /// Others who may enter the folder may have put their own file there.
    fn check_folder(&self) -> Result<(), StateError> {
        let path = self.path.join(FOLDER);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.permissions().mode() & 0o077 != 0 || !found.is_dir() => Err(StateError::Exposed {
                path,
                mode: found.permissions().mode() & 0o777,
            }),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(source) => Err(StateError::Read { path, source }),
        }
    }
}

/// Makes the folder, and shuts one that others may enter.
fn make_private(folder: &std::path::Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

/// The bytes of the file, made without leaving copies of keys behind.
fn encode(svids: &[SavedSvid]) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = VaultFile {
        svids: svids.iter().map(SvidFile::new).collect(),
    };
    let length = |svid: &SvidFile| {
        // Names, quotes and commas around each text.
        let texts = svid.chain.iter().map(|der| der.len() + 3).sum::<usize>();
        svid.key.len() + texts + 64
    };
    let room = file.svids.iter().map(length).sum::<usize>() + 64;
    if u64::try_from(room).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(io::Error::new(
            ErrorKind::FileTooLarge,
            format!("{} SVIDs are more than can be read back", svids.len()),
        ));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    serde_json::to_writer(&mut *bytes, &file)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path().join("state")).unwrap();
        (dir, state)
    }

    fn svid(byte: u8) -> SavedSvid {
        SavedSvid {
            key: Zeroizing::new(vec![byte; 138]),
            chain: vec![vec![byte; 700], vec![byte; 500]],
        }
    }

    fn mode(path: &std::path::Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn svids_are_found_again_in_a_file_of_their_owner_only() {
        let (_dir, state) = open();
        assert!(state.svids().unwrap().is_empty());
        state.save_svids(|| vec![svid(1), svid(2)]).unwrap();
        let found = state.svids().unwrap();
        assert_eq!(found.len(), 2);
        for (found, kept) in found.iter().zip([svid(1), svid(2)]) {
            assert_eq!((&*found.key, &found.chain), (&*kept.key, &kept.chain));
        }
        assert_eq!(mode(&state.svids_file()), 0o600);
        assert_eq!(mode(&state.path.join(FOLDER)), 0o700);
    }

    #[test]
    fn the_room_for_the_file_is_enough() {
        let svids = [svid(1), svid(2), svid(3)];
        let bytes = encode(&svids).unwrap();
        assert!(bytes.len() <= bytes.capacity());
        let texts: usize = svids.iter().map(|_| 184 + 936 + 668).sum();
        assert!(
            bytes.capacity() < texts + 3 * 80 + 65,
            "it did not grow: {}",
            bytes.capacity()
        );
    }

    #[test]
    fn what_others_could_have_read_or_put_there_is_refused() {
        let (_dir, state) = open();
        state.save_svids(|| vec![svid(1)]).unwrap();
        fs::set_permissions(state.svids_file(), fs::Permissions::from_mode(0o604)).unwrap();
        assert!(matches!(state.svids(), Err(StateError::Exposed { mode: 0o604, .. })));
        fs::set_permissions(state.svids_file(), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(state.path.join(FOLDER), fs::Permissions::from_mode(0o770)).unwrap();
        assert!(matches!(state.svids(), Err(StateError::Exposed { mode: 0o770, .. })));
        state.save_svids(|| vec![svid(1)]).unwrap();
        assert_eq!(state.svids().unwrap().len(), 1, "writing shuts the folder again");
    }

    #[test]
    fn a_folder_that_leads_elsewhere_is_refused() {
        let (dir, state) = open();
        let elsewhere = dir.path().join("elsewhere");
        DirBuilder::new().mode(0o700).create(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, state.path.join(FOLDER)).unwrap();
        assert!(matches!(state.svids(), Err(StateError::Exposed { .. })));
    }

    #[test]
    fn no_svids_leave_no_file_and_forgetting_removes_it() {
        let (_dir, state) = open();
        state.save_svids(|| vec![svid(1)]).unwrap();
        state.save_svids(Vec::new).unwrap();
        assert!(!state.svids_file().exists());
        state.save_svids(|| vec![svid(1)]).unwrap();
        state.forget().unwrap();
        assert!(!state.svids_file().exists());
    }

    #[test]
    fn more_than_can_be_read_back_is_not_written() {
        let (_dir, state) = open();
        let large = || SavedSvid {
            key: Zeroizing::new(vec![1; 138]),
            chain: vec![vec![1; 7 << 20]],
        };
        assert!(matches!(
            state.save_svids(|| vec![large()]),
            Err(StateError::Write { .. })
        ));
    }

    #[test]
    fn damage_is_said_without_the_keys() {
        let (_dir, state) = open();
        state.save_svids(|| vec![svid(1)]).unwrap();
        let text = fs::read_to_string(state.svids_file()).unwrap();
        for damaged in [
            text.strip_suffix('}').unwrap(),
            &text.replace("chain", "chains"),
            &text.replacen('A', "*", 1),
        ] {
            fs::write(state.svids_file(), damaged).unwrap();
            let Err(StateError::Damaged { what, .. }) = state.svids() else {
                panic!("{damaged}");
            };
            assert!(!what.contains("AQEB"), "{what}");
        }
    }
}
