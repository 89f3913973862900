//! `scan`: looks for keys in files, folders and streams by the same looks as the proxy, and in the archives and images among them.
//!
//! What is below this file knows nothing of the rest of the program, so that it can be fuzzed alone.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use self::look::{Bounds, Fault, Finding, Looked};
use crate::args::{Format, Scan};
use crate::exit::Exit;
use crate::output::{Screen, bold, printable};

mod look;
mod packed;
mod source;
#[cfg(test)]
mod specs;
mod tar;
mod zip;

/// How deep folders are looked into.
const DEPTH_MAX: usize = 64;

/// Runs the command.
pub(crate) fn run(args: &Scan, screen: &Screen) -> Result<Exit> {
    let mut looked = Looked::within(Bounds::default());
    for path in &args.paths {
        if path == Path::new("-") {
            looked
                .stream("standard input", io::stdin().lock())
                .context("read standard input")?;
        } else {
            looked
                .named(path)
                .with_context(|| format!("look at {}", path.display()))?;
        }
    }
    print(&looked, screen)?;
    let is_whole = looked.missed.is_empty();
    if looked.findings.is_empty() {
        screen.note(format!("nothing that looks like a key in {} files", looked.files));
        return Ok(if is_whole || !args.strict {
            Exit::Fine
        } else {
            Exit::Findings
        });
    }
    screen.note(
        "revoke each at its service; then put the new one on the host (`botmesh secret put`) and have the proxy add it (`botmesh help BM0149`)",
    );
    Ok(Exit::Findings)
}

fn print(looked: &Looked, screen: &Screen) -> io::Result<()> {
    let row = |finding: &Finding| {
        vec![
            bold(&format!("{}:{}", printable(&finding.file), finding.line)),
            finding.kind.to_owned(),
            format!("{}…", printable(&finding.begins)),
        ]
    };
    match screen.format {
        Format::Json => screen.document(&serde_json::json!({
            "items": looked.findings,
            "unlisted": looked.unlisted,
            "files": looked.files,
            "missed": looked.missed,
        }))?,
        Format::Jsonl | Format::Table => screen.list(&looked.findings, &["WHERE", "WHAT", "BEGINS"], row)?,
    }
    if looked.unlisted > 0 {
        screen.warn(format!("{} more are not listed", looked.unlisted));
    }
    for missed in &looked.missed {
        let (file, why) = (printable(&missed.file), printable(&missed.why));
        screen.warn(format!("not wholly looked at: {file}: {why}"));
    }
    if looked.missed_unlisted > 0 {
        screen.warn(format!("not wholly looked at: {} more", looked.missed_unlisted));
    }
    Ok(())
}

impl Looked {
    /// Looks at what was asked for by name, wherever a link leads and whatever it is.
    fn named(&mut self, path: &Path) -> io::Result<()> {
        if std::fs::metadata(path)?.is_dir() {
            return self.folder(path, 0);
        }
        self.stream(&path.display().to_string(), File::open(path)?)
    }

    fn folder(&mut self, path: &Path, depth: usize) -> io::Result<()> {
        if depth >= DEPTH_MAX {
            return Err(io::Error::other("too deep"));
        }
        let entries: io::Result<Vec<PathBuf>> = std::fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect();
        let mut entries = entries?;
        entries.sort();
        for entry in entries {
            // One that is gone or closed is told and stops nothing.
            if let Err(error) = self.found(&entry, depth) {
                self.missed(&entry.display().to_string(), &Fault::Read(error));
            }
        }
        Ok(())
    }

    /// Looks at what is in a folder: neither at links, which lead elsewhere, nor at devices and pipes, which may have no end.
    fn found(&mut self, path: &Path, depth: usize) -> io::Result<()> {
        let found = std::fs::symlink_metadata(path)?;
        if found.is_dir() {
            return self.folder(path, depth + 1);
        }
        if found.is_file() {
            self.stream(&path.display().to_string(), File::open(path)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = concat!("sk-ant-", "api03-0123456789abcdef");

    #[test]
    fn folders_are_looked_through_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        std::fs::write(folder.path().join("a/.env"), format!("X=1\nKEY={KEY}\n")).unwrap();
        std::fs::write(folder.path().join("log.xz"), b"\xfd7zXZ\0...").unwrap();
        std::fs::write(elsewhere.path().join("f"), KEY).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("link")).unwrap();
        let mut looked = Looked::default();
        looked.named(folder.path()).unwrap();
        assert_eq!((looked.findings.len(), looked.files, looked.missed.len()), (1, 2, 1));
        assert_eq!(
            (looked.findings[0].line, looked.findings[0].begins.as_str()),
            (2, "sk-ant-a")
        );
        assert!(looked.findings[0].file.ends_with("a/.env"));
        let mut by_name = Looked::default();
        by_name.named(&folder.path().join("link")).unwrap();
        assert_eq!(by_name.findings.len(), 1, "a link that was asked for is followed");
    }

    #[test]
    fn folders_that_have_no_end_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut at = folder.path().to_owned();
        for _ in 0..=DEPTH_MAX {
            at.push("d");
        }
        std::fs::create_dir_all(&at).unwrap();
        std::fs::write(at.join("f"), KEY).unwrap();
        let mut looked = Looked::default();
        looked.named(folder.path()).unwrap();
        assert_eq!((looked.findings.len(), looked.missed.len()), (0, 1));
        assert_eq!(looked.missed[0].why, "too deep");
    }
}
