//! The tree while it grows: only its right edge, and the tiles that get full.

use crate::hash::Hash;
use crate::tile::{TILE_LEVELS, TILE_WIDTH, Tile, TileId};

/// The right edge of an RFC 6962 tree: for each level of tiles the hashes of
/// the one that is not full. At most 8 times 255 hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    edge: Vec<Vec<Hash>>,
}

impl Tree {
    /// Starts a tree without leaves.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes up a tree of `size` leaves from its stored partial tiles: `read`
    /// is asked for each tile of the right edge.
    ///
    /// # Errors
    ///
    /// Returns what `read` returns. The tiles are believed: compare
    /// [`Tree::root`] with a checkpoint.
    pub fn restore<E>(size: u64, mut read: impl FnMut(TileId) -> Result<Tile, E>) -> Result<Self, E> {
        let mut edge = Vec::new();
        for id in Self::edge_of(size) {
            let level = usize::from(id.level());
            edge.resize_with(level.saturating_add(1), Vec::new);
            if let Some(last) = edge.last_mut() {
                *last = read(id)?.hashes;
            }
        }
        Ok(Self { size, edge })
    }

    /// Returns the number of leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf, and to `full` each tile that it completes, lowest first.
    pub fn push(&mut self, leaf: Hash, full: &mut Vec<Tile>) {
        self.size = self.size.saturating_add(1);
        let mut carried = Some(leaf);
        for level in 0..TILE_LEVELS {
            let Some(hash) = carried.take() else { break };
            if self.edge.len() <= usize::from(level) {
                self.edge.push(Vec::new());
            }
            let Some(hashes) = self.edge.get_mut(usize::from(level)) else {
                break;
            };
            hashes.push(hash);
            let nodes = self.size >> (8 * u32::from(level));
            let index = (nodes / TILE_WIDTH).saturating_sub(1);
            if nodes.is_multiple_of(TILE_WIDTH)
                && let Some(id) = TileId::new(level, index, TILE_WIDTH)
            {
                let tile = Tile {
                    id,
                    hashes: std::mem::take(hashes),
                };
                carried = Some(root_of(&tile.hashes));
                full.push(tile);
            }
        }
    }

    /// Returns the tiles of the right edge that are not full, lowest first.
    #[must_use]
    pub fn partial_tiles(&self) -> Vec<Tile> {
        Self::edge_of(self.size)
            .into_iter()
            .zip(self.edge.iter().filter(|hashes| !hashes.is_empty()))
            .map(|(id, hashes)| Tile {
                id,
                hashes: hashes.clone(),
            })
            .collect()
    }

    /// Names the tiles that are not full in a tree of `size` leaves, lowest
    /// first.
    #[must_use]
    pub fn edge_of(size: u64) -> Vec<TileId> {
        (0..TILE_LEVELS)
            .filter_map(|level| {
                let nodes = size >> (8 * u32::from(level));
                TileId::new(level, nodes / TILE_WIDTH, nodes % TILE_WIDTH)
            })
            .collect()
    }

    /// Returns the root (RFC 6962 §2.1, "MTH").
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut perfect = Vec::new();
        for hashes in self.edge.iter().rev() {
            split_into_perfect(hashes, &mut perfect);
        }
        // MTH splits at the largest power of two below the size, so the root
        // is the perfect subtrees folded together from the right.
        perfect
            .into_iter()
            .rev()
            .reduce(|right, left| Hash::node(&left, &right))
            .unwrap_or_else(Hash::of_empty_tree)
    }
}

/// Appends the roots of the perfect subtrees of one tile, largest first.
fn split_into_perfect(mut hashes: &[Hash], roots: &mut Vec<Hash>) {
    while let Some(bits) = hashes.len().checked_ilog2() {
        let Some((perfect, rest)) = hashes.split_at_checked(1 << bits) else {
            return;
        };
        roots.push(root_of(perfect));
        hashes = rest;
    }
}

/// Returns the root over a power of two of hashes.
pub(crate) fn root_of(hashes: &[Hash]) -> Hash {
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        let (pairs, _) = row.as_chunks::<2>();
        row = pairs.iter().map(|[left, right]| Hash::node(left, right)).collect();
    }
    row.first().copied().unwrap_or_else(Hash::of_empty_tree)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// RFC 6962 §2.1, written down as the text has it.
    fn reference(leaves: &[Vec<u8>]) -> Hash {
        match leaves {
            [] => Hash::of_empty_tree(),
            [one] => Hash::leaf(one),
            many => {
                let mut k = 1;
                while k * 2 < many.len() {
                    k *= 2;
                }
                Hash::node(&reference(&many[..k]), &reference(&many[k..]))
            }
        }
    }

    fn leaves(count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|i| format!("leaf {i}").into_bytes()).collect()
    }

    fn grown(leaves: &[Vec<u8>]) -> (Tree, Vec<Tile>) {
        let (mut tree, mut tiles) = (Tree::new(), Vec::new());
        for leaf in leaves {
            tree.push(Hash::leaf(leaf), &mut tiles);
        }
        (tree, tiles)
    }

    #[test]
    fn roots_are_the_published_ones_of_certificate_transparency() {
        let inputs: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut tree = Tree::new();
        for (input, root) in inputs.iter().zip(roots) {
            tree.push(Hash::leaf(input), &mut Vec::new());
            assert_eq!(format!("{:?}", tree.root()), root);
        }
    }

    #[test]
    fn every_size_up_to_three_levels_has_the_reference_root() {
        let all = leaves(66_000);
        let (mut tree, mut tiles) = (Tree::new(), Vec::new());
        assert_eq!(tree.root(), reference(&[]));
        for (i, leaf) in all.iter().enumerate() {
            tree.push(Hash::leaf(leaf), &mut tiles);
            let size = i + 1;
            if size < 600 || [65_535, 65_536, 65_537, 65_793, 66_000].contains(&size) {
                assert_eq!(tree.root(), reference(&all[..size]), "{size}");
            }
        }
        assert_eq!(tiles.iter().filter(|tile| tile.id.level() == 1).count(), 1);
    }

    #[test]
    fn a_full_tile_holds_its_leaves_and_its_parent_holds_its_root() {
        let all = leaves(65_536);
        let (tree, tiles) = grown(&all);
        assert_eq!(tiles.len(), 257);
        assert_eq!(tree.size(), 65_536);
        assert_eq!(tiles[0].id, TileId::new(0, 0, 256).unwrap());
        assert_eq!(tiles[1].hashes[3], Hash::leaf(&all[256 + 3]));
        assert_eq!(tiles[256].id, TileId::new(1, 0, 256).unwrap());
        assert_eq!(tiles[256].hashes[9], reference(&all[9 * 256..10 * 256]));
        assert_eq!(tree.partial_tiles().len(), 1);
        assert_eq!(tree.partial_tiles()[0].id, TileId::new(2, 0, 1).unwrap());
    }

    #[test]
    fn the_edge_names_the_tiles_that_are_not_full() {
        assert_eq!(Tree::edge_of(0), []);
        assert_eq!(Tree::edge_of(256), [TileId::new(1, 0, 1).unwrap()]);
        assert_eq!(
            Tree::edge_of(65_536 + 5),
            [TileId::new(0, 256, 5).unwrap(), TileId::new(2, 0, 1).unwrap()]
        );
    }

    proptest! {
        #[test]
        fn a_tree_taken_up_from_its_tiles_goes_on_as_before(size in 0_usize..1500, more in 0_usize..600) {
            let all = leaves(size + more);
            let (tree, _) = grown(&all[..size]);
            let stored: BTreeMap<TileId, Tile> =
                tree.partial_tiles().into_iter().map(|tile| (tile.id, tile)).collect();
            let mut taken_up =
                Tree::restore(tree.size(), |id| stored.get(&id).cloned().ok_or(())).unwrap();
            prop_assert_eq!(taken_up.root(), tree.root());
            for leaf in &all[size..] {
                taken_up.push(Hash::leaf(leaf), &mut Vec::new());
            }
            prop_assert_eq!(taken_up.root(), reference(&all));
            prop_assert_eq!(&taken_up.partial_tiles(), &grown(&all).0.partial_tiles());
        }
    }
}
