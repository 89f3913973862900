//! Mesh files from disk: the files named, and the `*.yaml`, `*.yml` and `*.json` files of folders named.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use policy::{Mesh, Source};

use crate::config::read_bounded;
use crate::exit::Failure;
use crate::output::Screen;

/// More files than a mesh of 10 000 rules is split into.
const FILES_MAX: usize = 1_000;

/// The most that all of them may hold, as the CA's admin API takes it.
const BYTES_MAX: u64 = ca_api::admin::REQUEST_BYTES_MAX as u64;

/// Reads mesh files; the files of a folder come in the order of their names.
///
/// # Errors
///
/// A [`Failure`] with exit code 3 that names the path.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Source>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(in_folder(path)?);
        } else {
            files.push(path.clone());
        }
    }
    if files.len() > FILES_MAX {
        return Err(Failure::invalid_file(format!("{} mesh files are more than {FILES_MAX}", files.len())).into());
    }
    files
        .iter()
        .map(|path| {
            Ok(Source {
                name: path.display().to_string(),
                text: read_bounded(path, BYTES_MAX)?,
            })
        })
        .collect()
}

fn in_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |error| Failure::invalid_file(format!("cannot read {}: {error}", folder.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if is_mesh_file(&path) {
            files.push(path);
        }
    }
    if files.is_empty() {
        let message = format!("{} holds no *.yaml, *.yml or *.json file", folder.display());
        return Err(Failure::invalid_file(message).into());
    }
    files.sort();
    Ok(files)
}

/// Says whether a file of a folder belongs to the mesh: hidden files, as editors leave them, do not.
fn is_mesh_file(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_none_or(|name| name.to_string_lossy().starts_with('.'));
    let suffix = path.extension().and_then(|suffix| suffix.to_str());
    !hidden && matches!(suffix, Some("yaml" | "yml" | "json")) && path.is_file()
}

/// Parses and validates sources; warnings go to stderr.
///
/// # Errors
///
/// A [`Failure`] with exit code 3 that shows every error with its place.
pub(crate) fn load(sources: &[Source], screen: &Screen) -> Result<Mesh> {
    match policy::load(sources) {
        Ok(mesh) => {
            enforced(&mesh.not_enforced())?;
            if !mesh.warnings().is_empty() {
                screen.warn(mesh.warnings().render(screen.color()));
            }
            Ok(mesh)
        }
        Err(diagnostics) => Err(Failure::invalid_file(diagnostics.render(screen.color()).trim_end()).into()),
    }
}

/// Refuses a mesh that asks for what no proxy of this version enforces.
fn enforced(missing: &BTreeSet<&'static str>) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let words: Vec<_> = missing.iter().copied().collect();
    let told = format!(
        "BM0190: not enforced by this version: {}\ntake out what says so, or update botmesh",
        words.join(", ")
    );
    Err(Failure::invalid_file(told).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{Exit, code_of};

    #[test]
    fn a_folder_gives_its_mesh_files_in_order_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", "c.json", ".hidden.yaml", "notes.txt", "a.yaml~"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        std::fs::create_dir(dir.path().join("d.yaml")).unwrap();
        let sources = read(&[dir.path().to_owned()]).unwrap();
        let texts: Vec<&str> = sources.iter().map(|source| source.text.as_str()).collect();
        assert_eq!(texts, ["a.yml", "b.yaml", "c.json"]);
    }

    #[test]
    fn a_mesh_that_no_proxy_of_this_version_enforces_is_invalid_input() {
        let error = enforced(&BTreeSet::from(["later"])).unwrap_err();
        assert_eq!(code_of(&error), Exit::InvalidFile);
        assert!(
            error.to_string().contains("BM0190") && error.to_string().contains("later"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_file_and_an_empty_folder_are_invalid_input() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().to_owned(), dir.path().join("none.yaml")] {
            assert_eq!(code_of(&read(&[path]).unwrap_err()), Exit::InvalidFile);
        }
    }
}
