//! Cutting off what a crash left behind the last whole record. The bytes are
//! kept beside the ledger: they may hold a call that was never receipted.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::scan::TornAt;
use super::{OpenError, disk};
use crate::segment::Segment;

/// Names that are tried for what was cut off at one record.
const NAMES_MAX: u32 = 1000;

/// Moves the torn bytes, and segments after them, out of the ledger. Returns
/// how many bytes were moved and the first file they are in.
pub(super) fn cut(dir: &Path, segments: &mut Vec<Segment>, torn: &TornAt) -> Result<(u64, PathBuf), OpenError> {
    let later = segments.split_off(torn.segment.saturating_add(1).min(segments.len()));
    let Some(segment) = segments.last() else {
        return Ok((0, dir.to_owned()));
    };
    let path = &segment.path;
    let failed = |source| OpenError::File {
        doing: "repair",
        path: path.clone(),
        source,
    };
    let kept = keep(dir, path, torn).map_err(failed)?;
    let mut moved = kept.1;
    for segment in later {
        let failed = |source| OpenError::File {
            doing: "move",
            path: segment.path.clone(),
            source,
        };
        let name = free_name(dir, segment.first).map_err(failed)?;
        moved = moved.saturating_add(fs::metadata(&segment.path).map_err(failed)?.len());
        fs::rename(&segment.path, name).map_err(failed)?;
    }
    Ok((moved, kept.0))
}

/// Copies the torn bytes away, and cuts them off when the copy is safe.
fn keep(dir: &Path, path: &Path, torn: &TornAt) -> io::Result<(PathBuf, u64)> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    file.seek(SeekFrom::Start(torn.offset))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let name = free_name(dir, torn.index)?;
    disk::replace(&dir.join("torn.tmp"), &name, &bytes, disk::FILE_MODE)?;
    disk::sync_folder(dir)?;
    file.set_len(torn.offset)?;
    file.sync_all()?;
    Ok((name, bytes.len() as u64))
}

fn free_name(dir: &Path, index: u64) -> io::Result<PathBuf> {
    for attempt in 0..NAMES_MAX {
        let name = match attempt {
            0 => format!("torn-{index}.bin"),
            again => format!("torn-{index}-{again}.bin"),
        };
        let path = dir.join(name);
        if !path.try_exists()? {
            return Ok(path);
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
