//! The tree at the end of a ledger: from the stored tiles where they are good,
//! from the records where they are not.

use std::path::Path;

use super::scan::{self, At, Found};
use super::{OpenError, disk};
use crate::checkpoint::Checkpoint;
use crate::hash::Hash;
use crate::segment::Segment;
use crate::tile::{TILE_WIDTH, Tile, TileId};
use crate::tree::Tree;

/// Tiles that are collected before they are stored, when all are made again.
const TILES_AT_ONCE: usize = 256;

/// A ledger taken up.
#[derive(Debug)]
pub(super) struct Rebuilt {
    /// The tree over all records.
    pub(super) tree: Tree,
    /// Full tiles that are not stored yet.
    pub(super) tiles: Vec<Tile>,
    pub(super) found: Found,
    pub(super) tiles_rebuilt: bool,
}

/// Why the short way did not do.
enum Doubt {
    /// A tile is missing or does not fit: look at the records themselves.
    Tiles,
    /// There is no way on.
    Error(OpenError),
}

/// Takes up the tree. The records must be those that `newest` sealed.
pub(super) fn rebuild(dir: &Path, segments: &[Segment], newest: Option<&Checkpoint>) -> Result<Rebuilt, OpenError> {
    let sealed = newest.map_or(0, |checkpoint| checkpoint.size);
    let stored = Stored::find(dir, sealed);
    match from_tiles(&stored, segments, newest) {
        Ok(rebuilt) => return Ok(rebuilt),
        Err(Doubt::Error(error)) => return Err(error),
        Err(Doubt::Tiles) => {}
    }
    check_records(&stored, segments, newest)?;
    from_records(&stored, segments)
}

/// Restores the tree from its edge and reads only the end of the records.
fn from_tiles(stored: &Stored<'_>, segments: &[Segment], newest: Option<&Checkpoint>) -> Result<Rebuilt, Doubt> {
    let mut tree = Tree::restore(stored.sealed, |id| match disk::read_tile(stored.dir, id) {
        Ok(Some(tile)) => Ok(tile),
        Ok(None) | Err(_) => Err(Doubt::Tiles),
    })?;
    if newest.is_some_and(|checkpoint| checkpoint.root != tree.root()) {
        return Err(Doubt::Tiles);
    }
    let mut tiles = Vec::new();
    let mut doubt = false;
    let mut row = Row::new(stored);
    let from = scan::begin(segments, stored.sealed).map_err(Doubt::Error)?;
    let found = scan::scan(segments, from, stored.covered, |at| {
        // Nothing is pruned before it is sealed.
        let Some(line) = at.line else {
            return if at.index < stored.sealed {
                Ok(())
            } else {
                Err(altered(at))
            };
        };
        let hash = Hash::leaf(line);
        doubt |= at.index < stored.covered && !row.holds(at.index, hash);
        if at.index >= stored.sealed {
            tree.push(hash, &mut tiles);
        }
        Ok(())
    });
    match found {
        _ if doubt => Err(Doubt::Tiles),
        Ok(found) if found.size < stored.covered => Err(Doubt::Error(stored.shrunken(&found))),
        Ok(found) => Ok(Rebuilt {
            tree,
            tiles,
            found,
            tiles_rebuilt: false,
        }),
        Err(error) => Err(Doubt::Error(error)),
    }
}

/// Reads all records and holds them against the checkpoint.
fn check_records(stored: &Stored<'_>, segments: &[Segment], newest: Option<&Checkpoint>) -> Result<(), OpenError> {
    let mut tree = Tree::new();
    let mut differs: Option<OpenError> = None;
    let mut row = Row::new(stored);
    let found = scan::scan(segments, 0, stored.covered, |at| {
        let hash = hash_of(at, &mut row)?;
        if differs.is_none() && at.index < stored.covered && !row.holds(at.index, hash) {
            differs = Some(altered(at));
        }
        tree.push(hash, &mut Vec::new());
        let sealed_here = newest.filter(|checkpoint| checkpoint.size == tree.size());
        match sealed_here {
            Some(checkpoint) if checkpoint.root != tree.root() => Err(differs.take().unwrap_or_else(|| altered(at))),
            // The records are those that were sealed, so the tiles differ.
            Some(_) => {
                differs = None;
                Ok(())
            }
            None => Ok(()),
        }
    })?;
    match differs {
        // Behind the checkpoint nothing tells which of the two is right.
        Some(error) => Err(error),
        None if found.size < stored.covered => Err(stored.shrunken(&found)),
        None => Ok(()),
    }
}

/// Makes all tiles again. Of what was pruned only the hashes of the lowest row are there to make them from.
fn from_records(stored: &Stored<'_>, segments: &[Segment]) -> Result<Rebuilt, OpenError> {
    let dir = stored.dir;
    let mut row = Row::new(stored);
    let failed = |source| OpenError::File {
        doing: "store tiles in",
        path: dir.to_owned(),
        source,
    };
    let (mut tree, mut tiles) = (Tree::new(), Vec::new());
    let found = scan::scan(segments, 0, stored.covered, |at| {
        tree.push(hash_of(at, &mut row)?, &mut tiles);
        if tiles.len() < TILES_AT_ONCE {
            return Ok(());
        }
        disk::write_tiles(dir, &std::mem::take(&mut tiles)).map_err(failed)
    })?;
    disk::renew_edge(dir, &tree.partial_tiles()).map_err(failed)?;
    Ok(Rebuilt {
        tree,
        tiles,
        found,
        tiles_rebuilt: true,
    })
}

/// The hash of a record; of one that was pruned, the one in its tile.
fn hash_of(at: &At<'_>, row: &mut Row<'_>) -> Result<Hash, OpenError> {
    match at.line {
        Some(line) => Ok(Hash::leaf(line)),
        None => row.hash(at.index).ok_or(OpenError::HashLost { index: at.index }),
    }
}

fn altered(at: &At<'_>) -> OpenError {
    OpenError::Altered {
        index: at.index,
        path: at.path.to_owned(),
        offset: at.offset,
    }
}

/// What checkpoint and tiles say about the records.
#[derive(Debug)]
struct Stored<'a> {
    dir: &'a Path,
    /// Records that the checkpoint covers.
    sealed: u64,
    /// Records that the checkpoint or full tiles cover. Tiles are stored only
    /// over what was synced, so no honest crash takes these records away.
    covered: u64,
}

impl<'a> Stored<'a> {
    fn find(dir: &'a Path, sealed: u64) -> Self {
        let mut covered = sealed;
        let first = sealed / TILE_WIDTH;
        for index in first..u64::MAX / TILE_WIDTH {
            let full = TileId::new(0, index, TILE_WIDTH);
            if !full.is_some_and(|id| dir.join(id.path()).exists()) {
                break;
            }
            covered = covered.max(index.saturating_add(1).saturating_mul(TILE_WIDTH));
        }
        Self { dir, sealed, covered }
    }

    const fn shrunken(&self, found: &Found) -> OpenError {
        OpenError::Shrunken {
            records: found.size,
            covered: self.covered,
        }
    }
}

/// The stored leaf hashes, read a tile at a time.
#[derive(Debug)]
struct Row<'a> {
    stored: &'a Stored<'a>,
    tile: Option<(u64, Vec<Hash>)>,
}

impl<'a> Row<'a> {
    const fn new(stored: &'a Stored<'a>) -> Self {
        Self { stored, tile: None }
    }

    /// Says whether the tiles hold this hash for this record.
    fn holds(&mut self, index: u64, hash: Hash) -> bool {
        self.hash(index) == Some(hash)
    }

    /// The hash that the tiles hold for a record.
    fn hash(&mut self, index: u64) -> Option<Hash> {
        let number = index / TILE_WIDTH;
        if self.tile.as_ref().is_none_or(|(held, _)| *held != number) {
            self.tile = Some((number, self.read(number).unwrap_or_default()));
        }
        let place = usize::try_from(index % TILE_WIDTH).unwrap_or(usize::MAX);
        self.tile.as_ref().and_then(|(_, hashes)| hashes.get(place)).copied()
    }

    fn read(&self, number: u64) -> Option<Vec<Hash>> {
        let width = self.stored.covered.saturating_sub(number.saturating_mul(TILE_WIDTH));
        let id = TileId::new(0, number, width.min(TILE_WIDTH))?;
        disk::read_tile(self.stored.dir, id)
            .ok()
            .flatten()
            .map(|tile| tile.hashes)
    }
}
