//! The few ways in which the ledger's files are written.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::tile::{Tile, TileId};

/// Mode of the ledger's files: the owner writes, the group reads.
pub(super) const FILE_MODE: u32 = 0o640;

/// Opens a file for appending, making it if need be.
pub(super) fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path)
}

/// Makes a file for appending; it must not exist.
pub(super) fn create_append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)
}

/// Brings the names in a folder to the disk.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Replaces a file as a whole: after a crash it has the old bytes or the new.
/// `draft` is a path on the same file system that is ours alone.
pub(super) fn replace(draft: &Path, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    self::draft(draft, bytes, mode)?.sync_data()?;
    fs::rename(draft, path)
}

/// Replaces a file of the ledger as a whole, and brings its name to the disk.
pub(crate) fn replace_file(draft: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(draft, path, bytes, FILE_MODE)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Makes a file of the ledger anew, to be written.
pub(super) fn create_anew(path: &Path) -> io::Result<File> {
    anew(path, FILE_MODE)
}

fn anew(path: &Path, mode: u32) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

/// Makes a file anew and writes it, not yet to the disk.
fn draft(draft: &Path, bytes: &[u8], mode: u32) -> io::Result<File> {
    let mut file = anew(draft, mode)?;
    file.write_all(bytes)?;
    Ok(file)
}

/// Reads a file of at most `most` bytes; `None` if there is none.
pub(crate) fn read(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(Some(bytes))
}

/// Reads a stored tile, or the beginning of a wider one of the same place;
/// `None` if there is neither in its right length.
pub(super) fn read_tile(ledger: &Path, id: TileId) -> io::Result<Option<Tile>> {
    for stored in [id, id.full()] {
        let bytes = read(&ledger.join(stored.path()), TILE_BYTES)?;
        if let Some(mut tile) = bytes.and_then(|bytes| Tile::from_bytes(stored, &bytes)) {
            tile.hashes.truncate(usize::try_from(id.width()).unwrap_or(usize::MAX));
            return Ok(Some(Tile {
                id,
                hashes: tile.hashes,
            }));
        }
    }
    Ok(None)
}

/// Bytes of a full tile.
const TILE_BYTES: u64 = 256 * 32;

/// Tiles that are written before the first of them is brought to the disk.
const DRAFTS_MAX: usize = 64;

/// Writes tiles and brings them and their names to the disk. The partial tiles
/// that a full one replaces are removed.
///
/// Many at once are cheap: bringing the first of new files to the disk brings
/// the others' inodes along.
pub(super) fn write_tiles(ledger: &Path, tiles: &[Tile]) -> io::Result<()> {
    let mut folders = BTreeSet::new();
    for tiles in tiles.chunks(DRAFTS_MAX) {
        write_some(ledger, tiles, &mut folders)?;
    }
    folders.iter().try_for_each(|folder| sync_folder(folder))
}

fn write_some(ledger: &Path, tiles: &[Tile], folders: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let mut drafts = Vec::new();
    for tile in tiles {
        let path = ledger.join(tile.id.path());
        let bytes = tile.to_bytes();
        if read(&path, TILE_BYTES)?.is_none_or(|stored| stored != bytes) {
            let name = ledger.join(format!("tile-{}.tmp", drafts.len()));
            let file = draft(&name, &bytes, FILE_MODE)?;
            drafts.push((file, name, path));
        }
    }
    drafts.iter().try_for_each(|(file, ..)| file.sync_data())?;
    for (_, name, path) in &drafts {
        let folder = path.parent().unwrap_or(ledger);
        if !folders.contains(folder) {
            fs::create_dir_all(folder)?;
            folders.extend(up_to(ledger, folder));
        }
        fs::rename(name, path)?;
    }
    let full = tiles.iter().filter(|tile| tile.id == tile.id.full());
    full.map(|tile| ledger.join(tile.id.partial_folder()))
        .try_for_each(|folder| remove_folder(&folder))
}

/// Writes partial tiles in the place of all that were there before.
pub(super) fn renew_edge(ledger: &Path, tiles: &[Tile]) -> io::Result<()> {
    tiles
        .iter()
        .try_for_each(|tile| remove_folder(&ledger.join(tile.id.partial_folder())))?;
    write_tiles(ledger, tiles)
}

/// Returns a folder and those above it, up to the ledger's.
fn up_to(ledger: &Path, folder: &Path) -> Vec<PathBuf> {
    let inside = folder.ancestors().take_while(|above| above.starts_with(ledger));
    inside.map(Path::to_path_buf).collect()
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
