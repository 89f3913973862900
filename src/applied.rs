//! What this user last applied where: the generation that a set of mesh files was last made live as. `apply` sends it along, so that
//! the CA can refuse when somebody else has changed the mesh since.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ca_api::Generation;
use serde::{Deserialize, Serialize};

/// More sets of files than one user applies; the ones applied longest ago are forgotten first.
const ENTRIES_MAX: usize = 500;

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The file that remembers.
#[derive(Debug, Clone)]
pub(crate) struct Applied {
    file: PathBuf,
    key: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Book {
    /// Raised by each entry, so that the oldest can be told.
    turn: u64,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    generation: Generation,
    turn: u64,
}

impl Applied {
    /// Names the memory of these files at this server. The same files reached by another path are the same files.
    pub(crate) fn of(file: PathBuf, socket: &Path, paths: &[PathBuf]) -> Self {
        let real = |path: &Path| {
            path.canonicalize()
                .unwrap_or_else(|_missing| path.to_owned())
                .display()
                .to_string()
        };
        let mut files: Vec<String> = paths.iter().map(|path| real(path)).collect();
        files.sort();
        Self {
            file,
            key: format!("unix:{} {}", real(socket), files.join(" ")),
        }
    }

    /// The generation that they were last applied as, if they ever were.
    pub(crate) fn base(&self) -> Result<Option<Generation>> {
        if !self.file.exists() {
            return Ok(None);
        }
        let mut file = File::open(&self.file).with_context(|| format!("open {}", self.file.display()))?;
        file.lock_shared()
            .with_context(|| format!("lock {}", self.file.display()))?;
        Ok(self
            .read(&mut file)?
            .entries
            .get(&self.key)
            .map(|entry| entry.generation))
    }

    /// Remembers a generation.
    pub(crate) fn remember(&self, generation: Generation) -> Result<()> {
        if let Some(folder) = self.file.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&self.file)
            .with_context(|| format!("open {}", self.file.display()))?;
        file.lock().with_context(|| format!("lock {}", self.file.display()))?;
        let mut book = self.read(&mut file)?;
        book.turn += 1;
        book.entries.insert(
            self.key.clone(),
            Entry {
                generation,
                turn: book.turn,
            },
        );
        while book.entries.len() > ENTRIES_MAX {
            let oldest = book
                .entries
                .iter()
                .min_by_key(|(_, entry)| entry.turn)
                .map(|(key, _)| key.clone());
            oldest.and_then(|key| book.entries.remove(&key));
        }
        let text = serde_json::to_vec_pretty(&book)?;
        file.rewind()
            .and_then(|()| file.write_all(&text))
            .and_then(|()| file.set_len(text.len() as u64))
            .with_context(|| format!("write {}", self.file.display()))
    }

    fn read(&self, file: &mut File) -> Result<Book> {
        let mut text = String::new();
        file.take(FILE_BYTES_MAX)
            .read_to_string(&mut text)
            .with_context(|| format!("read {}", self.file.display()))?;
        if text.is_empty() {
            return Ok(Book::default());
        }
        serde_json::from_str(&text).with_context(|| format!("read {}: delete it to begin anew", self.file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(revision: u64) -> Generation {
        Generation { epoch: 1, revision }
    }

    #[test]
    fn each_set_of_files_at_each_server_is_remembered_apart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state/applied.json");
        let of = |socket: &str, mesh: &str| Applied::of(file.clone(), Path::new(socket), &[PathBuf::from(mesh)]);
        let (one, two) = (of("/a/ca.sock", "/m.yaml"), of("/b/ca.sock", "/m.yaml"));
        assert_eq!(one.base().unwrap(), None);
        one.remember(generation(3)).unwrap();
        one.remember(generation(4)).unwrap();
        two.remember(generation(9)).unwrap();
        assert_eq!(one.base().unwrap(), Some(generation(4)));
        assert_eq!(two.base().unwrap(), Some(generation(9)));
        assert_eq!(of("/a/ca.sock", "/other.yaml").base().unwrap(), None);
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_the_oldest() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("applied.json");
        let of = |n: usize| Applied::of(file.clone(), Path::new("/ca.sock"), &[PathBuf::from(format!("/{n}"))]);
        for n in 0..=ENTRIES_MAX {
            of(n).remember(generation(1)).unwrap();
        }
        assert_eq!(of(0).base().unwrap(), None);
        assert_eq!(of(ENTRIES_MAX).base().unwrap(), Some(generation(1)));
    }
}
