//! The tree of a ledger as it lies on disk: the hash of any subtree, from the tile that holds it.

use std::cell::RefCell;
use std::io;
use std::path::Path;

use super::disk;
use crate::hash::Hash;
use crate::proof::Subtree;
use crate::tile::{TILE_WIDTH, Tile, TileId};
use crate::tree::root_of;

/// The bits of a level that lie inside one tile (C2SP tlog-tiles: height 8).
const TILE_HEIGHT: u32 = 8;

/// The stored tiles of a ledger of which a checkpoint covers `size` records.
#[derive(Debug)]
pub(crate) struct StoredTree<'a> {
    dir: &'a Path,
    size: u64,
    /// The tile that was read last: a proof asks for several hashes of one.
    held: RefCell<Option<Tile>>,
}

impl<'a> StoredTree<'a> {
    /// Reads nothing yet. `size` is that of a checkpoint: there are partial tiles for it.
    pub(crate) const fn new(dir: &'a Path, size: u64) -> Self {
        Self {
            dir,
            size,
            held: RefCell::new(None),
        }
    }

    /// Gives the hash of a subtree, if a tile holds it.
    pub(crate) fn hash(&self, subtree: Subtree) -> io::Result<Option<Hash>> {
        let Some((id, first, count)) = self.place(subtree) else {
            return Ok(None);
        };
        if self.held.borrow().as_ref().is_none_or(|held| held.id != id) {
            *self.held.borrow_mut() = disk::read_tile(self.dir, id)?;
        }
        let held = self.held.borrow();
        let hashes = held.as_ref().and_then(|tile| {
            let end = first.checked_add(count)?;
            tile.hashes.get(first..end)
        });
        Ok(hashes.map(root_of))
    }

    /// Names the tile, and where in it the hashes under the subtree lie.
    fn place(&self, subtree: Subtree) -> Option<(TileId, usize, usize)> {
        let level = u8::try_from(subtree.level / TILE_HEIGHT).ok()?;
        let inside = subtree.level % TILE_HEIGHT;
        let first = subtree.index.checked_mul(1 << inside)?;
        let index = first / TILE_WIDTH;
        let nodes = self.size.checked_shr(TILE_HEIGHT.checked_mul(level.into())?)?;
        let width = nodes.checked_sub(index.checked_mul(TILE_WIDTH)?)?.min(TILE_WIDTH);
        let place = usize::try_from(first % TILE_WIDTH).ok()?;
        Some((TileId::new(level, index, width)?, place, 1 << inside))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::{consistency, extends, includes, inclusion};
    use crate::tree::Tree;

    /// Stores the tree of `size` leaves as a ledger would, with a checkpoint at each of `seals`.
    fn stored(dir: &Path, seals: &[u64]) -> Vec<Hash> {
        let (mut tree, mut full) = (Tree::new(), Vec::new());
        let mut roots = vec![Hash::of_empty_tree()];
        for index in 0..*seals.last().unwrap() {
            tree.push(leaf(index), &mut full);
            roots.push(tree.root());
            if seals.contains(&tree.size()) {
                disk::write_tiles(dir, &std::mem::take(&mut full)).unwrap();
                disk::write_tiles(dir, &tree.partial_tiles()).unwrap();
            }
        }
        roots
    }

    fn leaf(index: u64) -> Hash {
        Hash::leaf(&index.to_be_bytes())
    }

    #[test]
    fn stored_tiles_prove_every_record_and_every_earlier_tree() {
        let dir = tempfile::tempdir().unwrap();
        let size = 66_100;
        let roots = stored(dir.path(), &[3, 255, 256, 300, 65_540, size]);
        let root = |size: u64| &roots[usize::try_from(size).unwrap()];
        let tree = StoredTree::new(dir.path(), size);
        let read = |subtree| tree.hash(subtree).unwrap().ok_or(subtree);
        for index in (0..size).step_by(97).chain(65_530..65_545).chain(size - 5..size) {
            let proof = inclusion(index, size, read).unwrap().unwrap();
            assert!(includes(root(size), size, index, &leaf(index), &proof), "{index}");
        }
        for old in (1..size).step_by(1009).chain(250..260).chain(65_530..65_545) {
            let proof = consistency(old, size, read).unwrap().unwrap();
            assert!(extends((old, root(old)), (size, root(size)), &proof), "{old}");
        }
    }

    #[test]
    fn what_no_tile_holds_has_no_hash() {
        let dir = tempfile::tempdir().unwrap();
        stored(dir.path(), &[300]);
        let tree = StoredTree::new(dir.path(), 300);
        let at = |level, index| tree.hash(Subtree { level, index }).unwrap();
        assert_eq!(at(0, 299), Some(leaf(299)));
        assert_eq!(at(0, 300), None);
        assert_eq!(at(3, 37), None, "its last leaves are not there yet");
        assert!(at(8, 0).is_some());
        assert_eq!(at(8, 1), None);
        assert_eq!(at(64, 0), None);
        assert_eq!(at(0, u64::MAX), None);
        assert_eq!(at(63, 1), None);
        std::fs::remove_dir_all(dir.path().join("tile/0")).unwrap();
        let tree = StoredTree::new(dir.path(), 300);
        assert_eq!(tree.hash(Subtree { level: 0, index: 1 }).unwrap(), None);
    }
}
