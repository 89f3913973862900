//! Where the hashes of the tree lie on disk: C2SP tlog-tiles, height 8.

use std::fmt::Write as _;

use thiserror::Error;

use crate::hash::Hash;

/// Hashes in a full tile (C2SP tlog-tiles, "Merkle Tree": height 8).
pub const TILE_WIDTH: u64 = 256;

/// Levels of tiles that a tree of `u64` leaves can have.
pub const TILE_LEVELS: u8 = 8;

/// Names one tile: its level, its place in the level, and how many hashes it
/// holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TileId {
    level: u8,
    index: u64,
    width: u64,
}

/// A tile and its hashes, as many as its width says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Which tile this is.
    pub id: TileId,
    /// Its hashes, from left to right.
    pub hashes: Vec<Hash>,
}

/// Why a path names no tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no tile of a ledger has this path")]
pub struct NotATile;

impl TileId {
    /// Names a tile; `None` unless `level` is below 8, `width` between 1 and
    /// 256, and the tile's leaves can be counted in 64 bits.
    #[must_use]
    pub fn new(level: u8, index: u64, width: u64) -> Option<Self> {
        let nodes = index.checked_mul(TILE_WIDTH)?.checked_add(width)?;
        let fits = level < TILE_LEVELS && nodes <= u64::MAX >> (8 * u32::from(level));
        (fits && (1..=TILE_WIDTH).contains(&width)).then_some(Self { level, index, width })
    }

    /// Returns the level: hashes of level `n` cover 256 to the power `n` leaves.
    #[must_use]
    pub const fn level(&self) -> u8 {
        self.level
    }

    /// Returns the tile's place in its level.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// Returns how many hashes the tile holds, 1 to 256.
    #[must_use]
    pub const fn width(&self) -> u64 {
        self.width
    }

    /// Returns the same place with all 256 hashes.
    #[must_use]
    pub const fn full(&self) -> Self {
        Self {
            width: TILE_WIDTH,
            ..*self
        }
    }

    /// Returns the index of the first leaf under the hash at `place` of this
    /// tile.
    #[must_use]
    pub fn first_leaf(&self, place: u64) -> u64 {
        let node = self.index.saturating_mul(TILE_WIDTH).saturating_add(place);
        node.checked_shl(8 * u32::from(self.level)).unwrap_or(u64::MAX)
    }

    /// Returns how many leaves a tree must have for all of this tile's hashes
    /// to be final.
    #[must_use]
    pub fn leaves(&self) -> u64 {
        self.first_leaf(self.width)
    }

    /// Returns the path below the ledger's folder: `tile/0/x001/234.p/17`.
    #[must_use]
    pub fn path(&self) -> String {
        let mut groups = vec![self.index % 1000];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        let mut path = format!("tile/{}", self.level);
        for (place, group) in groups.iter().enumerate().rev() {
            let mark = if place == 0 { "" } else { "x" };
            // Writing to a String cannot fail.
            write!(path, "/{mark}{group:03}").unwrap_or_default();
        }
        if self.width < TILE_WIDTH {
            write!(path, ".p/{}", self.width).unwrap_or_default();
        }
        path
    }

    /// Returns the folder, below the ledger's, that holds the partial tiles of
    /// this place: `tile/0/x001/234.p`.
    #[must_use]
    pub fn partial_folder(&self) -> String {
        format!("{}.p", self.full().path())
    }

    /// Reads a path that [`TileId::path`] wrote.
    ///
    /// # Errors
    ///
    /// When the path is not exactly the one that the tile it names would have.
    pub fn parse(path: &str) -> Result<Self, NotATile> {
        let parsed = Self::parse_loosely(path).ok_or(NotATile)?;
        if parsed.path() == path {
            Ok(parsed)
        } else {
            Err(NotATile)
        }
    }

    fn parse_loosely(path: &str) -> Option<Self> {
        let (level, place) = path.strip_prefix("tile/")?.split_once('/')?;
        let (place, width) = match place.split_once(".p/") {
            Some((place, width)) => (place, width.parse().ok()?),
            None => (place, TILE_WIDTH),
        };
        let mut index: u64 = 0;
        for group in place.split('/') {
            let number: u64 = group.strip_prefix('x').unwrap_or(group).parse().ok()?;
            index = index.checked_mul(1000)?.checked_add(number)?;
        }
        Self::new(level.parse().ok()?, index, width)
    }
}

impl Tile {
    /// Returns the bytes of the tile's file: its hashes, one after another.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
    }

    /// Reads the bytes of a tile's file; `None` when there are not exactly as
    /// many hashes as `id` says.
    #[must_use]
    pub fn from_bytes(id: TileId, bytes: &[u8]) -> Option<Self> {
        let (chunks, rest) = bytes.as_chunks::<{ Hash::BYTES }>();
        let hashes: Vec<Hash> = chunks.iter().map(|chunk| Hash::from_bytes(*chunk)).collect();
        let counted = u64::try_from(hashes.len()).ok()?;
        (rest.is_empty() && counted == id.width).then_some(Self { id, hashes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(level: u8, index: u64, width: u64) -> TileId {
        TileId::new(level, index, width).unwrap()
    }

    #[test]
    fn paths_are_those_of_tlog_tiles() {
        assert_eq!(id(0, 0, 256).path(), "tile/0/000");
        assert_eq!(id(0, 1_234_067, 256).path(), "tile/0/x001/x234/067");
        assert_eq!(id(1, 999, 255).path(), "tile/1/999.p/255");
        assert_eq!(id(1, 1000, 1).path(), "tile/1/x001/000.p/1");
        assert_eq!(id(2, 1000, 1).partial_folder(), "tile/2/x001/000.p");
    }

    #[test]
    fn other_spellings_of_a_path_are_refused() {
        for path in [
            "",
            "tile",
            "tile/0",
            "tile/0/",
            "tile/00/000",
            "tile/0/0",
            "tile/0/x000/000",
            "tile/0/001/000",
            "tile/0/x001",
            "tile/8/000",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/07",
            "tile/0/000.p/",
            "tile/0/+00",
            "/tile/0/000",
            "tile/0/000/",
            "tile/0/000.p/1/",
            "tile/entries/000",
        ] {
            assert_eq!(TileId::parse(path), Err(NotATile), "{path}");
        }
    }

    #[test]
    fn a_tile_beyond_64_bits_of_leaves_is_none() {
        assert_eq!(TileId::new(0, u64::MAX / 256 + 1, 1), None);
        assert_eq!(TileId::new(7, 0, 256), None);
        assert_eq!(id(7, 0, 255).leaves(), 255 << 56);
        assert_eq!(TileId::new(8, 0, 1), None);
        assert_eq!(TileId::new(0, 0, 257), None);
        assert_eq!(TileId::new(0, 0, 0), None);
    }

    #[test]
    fn a_tile_knows_its_leaves() {
        assert_eq!(id(0, 3, 5).first_leaf(2), 770);
        assert_eq!(id(1, 1, 5).first_leaf(2), (256 + 2) * 256);
        assert_eq!(id(0, 3, 5).leaves(), 773);
        assert_eq!(
            (id(1, 2, 3).level(), id(1, 2, 3).index(), id(1, 2, 3).width()),
            (1, 2, 3)
        );
        assert_eq!(id(1, 2, 3).full(), id(1, 2, 256));
    }

    #[test]
    fn a_file_of_another_length_is_no_tile() {
        let two = [7; 64];
        assert_eq!(Tile::from_bytes(id(0, 0, 2), &two).unwrap().to_bytes(), two);
        assert_eq!(Tile::from_bytes(id(0, 0, 3), &two), None);
        assert_eq!(Tile::from_bytes(id(0, 0, 1), &two), None);
        assert_eq!(Tile::from_bytes(id(0, 0, 1), &[7; 63]), None);
        assert_eq!(Tile::from_bytes(id(0, 0, 1), &[7; 33]), None);
    }

    proptest! {
        #[test]
        fn every_path_reads_back(level in 0_u8..7, index in 0..1_u64 << 8, wide in any::<u32>(), width in 1..=256_u64) {
            for index in [index, u64::from(wide) % (u64::MAX >> (8 * u32::from(level) + 8))] {
                let id = id(level, index, width);
                prop_assert_eq!(TileId::parse(&id.path()), Ok(id));
            }
        }

        #[test]
        fn no_path_panics(path in "[tile0-9/.px]{0,40}") {
            if let Ok(id) = TileId::parse(&path) {
                prop_assert_eq!(id.path(), path);
            }
        }
    }
}
