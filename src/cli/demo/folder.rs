//! Where a demo keeps what it makes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::cli::site;
use crate::exit::Failure;

/// Says that a folder was made by a demo, so that the next one may empty it.
const MARKER: &str = ".botmesh-demo";

/// What a demo makes in its folder, and all that the next one removes.
const MADE: [&str; 5] = ["ca", "web-1", "web-2", "thief", "tampered"];

/// The demo's folder: the user's, or one that goes when the demo does.
#[derive(Debug)]
pub(crate) enum Folder {
    Kept(PathBuf),
    Temporary(TempDir),
}

impl Folder {
    /// Makes it, or empties it of an earlier demo.
    pub(crate) fn new(dir: Option<&Path>) -> Result<Self> {
        match dir {
            Some(dir) => {
                let dir = site::absolute(dir)?;
                prepare(&dir)?;
                Ok(Self::Kept(dir))
            }
            None => {
                let dir = tempfile::Builder::new().prefix("botmesh-").tempdir();
                let dir = dir.context("make a temporary folder")?;
                prepare(dir.path())?;
                Ok(Self::Temporary(dir))
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(dir) => dir.path(),
        }
    }
}

/// Empties a folder that an earlier demo made, and refuses one that holds anything else.
fn prepare(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let marker = dir.join(MARKER);
    let mut entries = std::fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
    if !marker.exists() && entries.next().is_some() {
        let message = format!("{} is not empty and was not made by a demo", dir.display());
        return Err(Failure::usage(message).hint("choose another --dir").into());
    }
    std::fs::write(&marker, "made by botmesh demo\n").with_context(|| format!("write {}", marker.display()))?;
    for name in MADE {
        let made = dir.join(name);
        if made.exists() {
            std::fs::remove_dir_all(&made).with_context(|| format!("remove the earlier {}", made.display()))?;
        }
    }
    for name in ["ca", "web-1", "web-2"] {
        std::fs::create_dir(dir.join(name)).with_context(|| format!("create {name}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{Exit, code_of};

    #[test]
    fn a_folder_with_other_things_in_it_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.tex"), "").unwrap();
        assert_eq!(code_of(&prepare(dir.path()).unwrap_err()), Exit::Usage);
        assert!(dir.path().join("thesis.tex").exists());
    }

    #[test]
    fn a_second_demo_removes_what_the_first_made_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path()).unwrap();
        std::fs::write(dir.path().join("web-1/old"), "").unwrap();
        std::fs::write(dir.path().join("notes.txt"), "").unwrap();
        prepare(dir.path()).unwrap();
        assert!(!dir.path().join("web-1/old").exists());
        assert!(dir.path().join("web-1").exists() && dir.path().join("notes.txt").exists());
    }
}
