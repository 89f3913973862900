//! The stored tiles, and where they differ from computed ones.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Finding, VerifyFailure};
use crate::hash::Hash;
use crate::ledger::read_file;
use crate::tile::{TILE_WIDTH, Tile, TileId};

/// Bytes of a full tile.
const TILE_BYTES: u64 = 256 * 32;

/// A stored tile that is not the computed one.
#[derive(Debug)]
pub(super) struct Differs {
    pub(super) id: TileId,
    /// Offset of the first wrong byte.
    pub(super) offset: u64,
}

/// Returns how many leaves the stored tiles cover, and refuses files among
/// them that are none.
pub(super) fn leaves_covered(dir: &Path) -> Result<u64, VerifyFailure> {
    let mut most = 0;
    let mut folders = vec![dir.join("tile")];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            // A live ledger removes partial tiles once the full one is there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(|source| VerifyFailure::unreadable(&folder, source))?,
        };
        for entry in entries {
            let unreadable = |source| VerifyFailure::unreadable(&folder, source);
            let entry = entry.map_err(unreadable)?;
            let path = entry.path();
            if entry.file_type().map_err(unreadable)?.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(dir).ok().and_then(Path::to_str).unwrap_or_default();
            match TileId::parse(name) {
                Ok(id) => most = most.max(id.leaves()),
                Err(_) => return Err(VerifyFailure::at(path, 0, Finding::Stray)),
            }
        }
    }
    Ok(most)
}

/// Compares everything that is stored at the place of a computed tile: the
/// tile, and the partial ones with the same beginning. Returns whether the
/// tile itself is there.
pub(super) fn compare(dir: &Path, tile: &Tile, differs: &mut Vec<Differs>) -> Result<bool, VerifyFailure> {
    let bytes = tile.to_bytes();
    let mut there = false;
    for id in stored_at(dir, tile.id)? {
        let path = dir.join(id.path());
        let stored = read_file(&path, TILE_BYTES).map_err(|source| VerifyFailure::unreadable(&path, source))?;
        let Some(stored) = stored else { continue };
        there |= id.width() >= tile.id.width();
        let wanted = usize::try_from(id.width().saturating_mul(32)).unwrap_or(usize::MAX);
        let wanted = bytes.get(..wanted).unwrap_or(&bytes);
        if stored != wanted {
            let same = stored.iter().zip(wanted).take_while(|(left, right)| left == right);
            differs.push(Differs {
                id,
                offset: same.count() as u64,
            });
        }
    }
    Ok(there)
}

/// Says whether a partial tile, or the full one of its place, is stored.
pub(super) fn is_there(dir: &Path, id: TileId) -> bool {
    dir.join(id.path()).exists() || dir.join(id.full().path()).exists()
}

/// Names the tiles at one place that hold no more than the given one.
fn stored_at(dir: &Path, id: TileId) -> Result<Vec<TileId>, VerifyFailure> {
    let folder: PathBuf = dir.join(id.partial_folder());
    let mut found = if id == id.full() { vec![id] } else { Vec::new() };
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries.map_err(|source| VerifyFailure::unreadable(&folder, source))?,
    };
    for entry in entries {
        let entry = entry.map_err(|source| VerifyFailure::unreadable(&folder, source))?;
        let name = entry.file_name();
        let width = name.to_str().and_then(|name| name.parse().ok());
        let partial = width.and_then(|width| TileId::new(id.level(), id.index(), width));
        found.extend(partial.filter(|partial| partial.width() <= id.width()));
    }
    found.sort();
    Ok(found)
}

/// The hashes of records as the lowest tiles hold them.
#[derive(Debug)]
pub(super) struct StoredHashes<'a> {
    dir: &'a Path,
    tile: Option<Tile>,
}

impl<'a> StoredHashes<'a> {
    /// Reads nothing yet.
    pub(super) const fn new(dir: &'a Path) -> Self {
        Self { dir, tile: None }
    }

    /// Gives the hash of a record.
    pub(super) fn read(&mut self, index: u64) -> Result<Hash, VerifyFailure> {
        let number = index / TILE_WIDTH;
        let place = usize::try_from(index % TILE_WIDTH).unwrap_or(usize::MAX);
        let held = |tile: &Option<Tile>| {
            let tile = tile.as_ref().filter(|tile| tile.id.index() == number)?;
            tile.hashes.get(place).copied()
        };
        if held(&self.tile).is_none() {
            self.tile = widest(self.dir, number)?;
        }
        held(&self.tile).ok_or_else(|| {
            let path = TileId::new(0, number, TILE_WIDTH).map_or_else(PathBuf::new, |id| self.dir.join(id.path()));
            VerifyFailure::at(path, 0, Finding::TileMissing).with_index(index)
        })
    }
}

/// The tile of the lowest row that holds most at its place.
fn widest(dir: &Path, number: u64) -> Result<Option<Tile>, VerifyFailure> {
    let Some(full) = TileId::new(0, number, TILE_WIDTH) else {
        return Ok(None);
    };
    for id in stored_at(dir, full)?.into_iter().rev() {
        let path = dir.join(id.path());
        let stored = read_file(&path, TILE_BYTES).map_err(|source| VerifyFailure::unreadable(&path, source))?;
        if let Some(tile) = stored.and_then(|bytes| Tile::from_bytes(id, &bytes)) {
            return Ok(Some(tile));
        }
    }
    Ok(None)
}
