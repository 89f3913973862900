//! `scan`: looks for keys in files, folders and streams by the same looks as the proxy.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use proxy::credentials::detect::{self, KEY_BYTES_MAX};
use serde::Serialize;

use crate::args::Scan;
use crate::exit::Exit;
use crate::output::{Screen, bold, printable};

/// How much is looked at together. Twice the longest key overlaps, so that none is missed between two.
const PIECE_BYTES: usize = 1024 * 1024;
const OVERLAP_BYTES: usize = 2 * KEY_BYTES_MAX;

/// The most findings of one file that are listed.
const LISTED_MAX: usize = 100;

/// How deep folders are looked into.
const DEPTH_MAX: usize = 64;

/// How the compressed forms begin into which nobody looks.
const COMPRESSED: [(&[u8], &str); 4] = [
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
];

/// Something that looks like a key.
#[derive(Debug, Serialize)]
struct Finding {
    file: String,
    line: u64,
    kind: &'static str,
    /// Its first letters.
    begins: String,
}

/// What was looked at.
#[derive(Debug, Default)]
struct Looked {
    findings: Vec<Finding>,
    files: u64,
    unreadable: Vec<String>,
    compressed: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Scan, screen: &Screen) -> Result<Exit> {
    let mut looked = Looked::default();
    for path in &args.paths {
        if path == Path::new("-") {
            looked
                .stream("standard input", std::io::stdin().lock())
                .context("read standard input")?;
        } else {
            looked
                .path(path, 0)
                .with_context(|| format!("look at {}", path.display()))?;
        }
    }
    let row = |finding: &Finding| {
        vec![
            bold(&format!("{}:{}", printable(&finding.file), finding.line)),
            finding.kind.to_owned(),
            format!("{}…", printable(&finding.begins)),
        ]
    };
    screen.list(&looked.findings, &["WHERE", "WHAT", "BEGINS"], row)?;
    for file in &looked.unreadable {
        screen.warn(format!("not read: {}", printable(file)));
    }
    for file in &looked.compressed {
        screen.warn(format!("compressed, and not looked into: {}", printable(file)));
    }
    if looked.findings.is_empty() {
        screen.note(format!("nothing that looks like a key in {} files", looked.files));
        return Ok(Exit::Fine);
    }
    screen.note(
        "revoke each at its service; then put the new one on the host (`botmesh secret put`) and have the proxy add it (`botmesh help BM0149`)",
    );
    Ok(Exit::Findings)
}

impl Looked {
    fn path(&mut self, path: &Path, depth: usize) -> std::io::Result<()> {
        let found = std::fs::symlink_metadata(path)?;
        if found.is_dir() {
            if depth >= DEPTH_MAX {
                self.unreadable.push(format!("{}: too deep", path.display()));
                return Ok(());
            }
            let entries: std::io::Result<Vec<PathBuf>> = std::fs::read_dir(path)?
                .map(|entry| entry.map(|entry| entry.path()))
                .collect();
            let mut entries = entries?;
            entries.sort();
            for entry in entries {
                // One that is gone or closed is told and stops nothing.
                if let Err(error) = self.path(&entry, depth + 1) {
                    self.unreadable.push(format!("{}: {error}", entry.display()));
                }
            }
            return Ok(());
        }
        // Neither links, which lead elsewhere, nor devices and pipes, which may have no end.
        if found.is_file() {
            self.stream(&path.display().to_string(), File::open(path)?)?;
        }
        Ok(())
    }

    fn stream(&mut self, name: &str, mut from: impl Read) -> std::io::Result<()> {
        self.files += 1;
        let mut text = Vec::with_capacity(PIECE_BYTES + OVERLAP_BYTES);
        let (mut lines, mut looked, mut listed) = (0, 0, 0);
        loop {
            let before = text.len();
            let read = read_some(&mut from, &mut text, PIECE_BYTES)?;
            if looked == 0 && before == 0 {
                let begins = COMPRESSED.iter().find(|(begin, _)| text.starts_with(begin));
                self.compressed
                    .extend(begins.map(|(_, kind)| format!("{name} ({kind})")));
            }
            // A key that begins in the overlap is whole in the next piece, and is told there.
            let end = if read == 0 {
                text.len()
            } else {
                text.len().saturating_sub(OVERLAP_BYTES)
            };
            for found in detect::find(&text).filter(|found| (looked..end).contains(&found.at.start)) {
                listed += 1;
                if listed <= LISTED_MAX {
                    self.findings.push(finding(name, lines, &text, &found));
                }
            }
            if read == 0 {
                return Ok(());
            }
            let kept = end.saturating_sub(1);
            lines += newlines(text.get(..kept).unwrap_or_default());
            text.drain(..kept);
            // One byte stays before what was not looked at, to tell where a word begins.
            looked = end - kept;
        }
    }
}

fn finding(name: &str, lines: u64, text: &[u8], found: &detect::Detected) -> Finding {
    let before = text.get(..found.at.start).unwrap_or_default();
    let key = text.get(found.at.clone()).unwrap_or_default();
    // As much as says which kind it is, and no more.
    let shown = key.len().min(8);
    Finding {
        file: name.to_owned(),
        line: lines + newlines(before) + 1,
        kind: found.kind,
        begins: String::from_utf8_lossy(key.get(..shown).unwrap_or_default()).into_owned(),
    }
}

fn newlines(text: &[u8]) -> u64 {
    text.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

/// Reads so many bytes, or to the end.
fn read_some(from: &mut impl Read, into: &mut Vec<u8>, most: usize) -> std::io::Result<usize> {
    loop {
        match from.by_ref().take(most as u64).read_to_end(into) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = concat!("sk-ant-", "api03-0123456789abcdef");

    fn scan(text: &[u8]) -> Vec<(u64, &'static str)> {
        let mut looked = Looked::default();
        looked.stream("f", text).unwrap();
        let findings = looked.findings.iter();
        findings.map(|finding| (finding.line, finding.kind)).collect()
    }

    #[test]
    fn a_key_is_found_once_wherever_pieces_end() {
        for before in [
            0,
            1,
            PIECE_BYTES - OVERLAP_BYTES,
            PIECE_BYTES - 30,
            PIECE_BYTES - 5,
            PIECE_BYTES,
            PIECE_BYTES + 1,
        ] {
            let mut text = vec![b'\n'; before];
            text.extend(KEY.as_bytes());
            text.extend(vec![b'\n'; PIECE_BYTES]);
            let line = before as u64 + 1;
            assert_eq!(scan(&text), [(line, "Anthropic API key")], "{before}");
        }
    }

    #[test]
    fn a_word_that_was_cut_is_no_key() {
        for before in PIECE_BYTES - OVERLAP_BYTES - 3..PIECE_BYTES - OVERLAP_BYTES + 3 {
            let mut text = vec![b'x'; before];
            text.extend(KEY.as_bytes());
            text.extend(vec![b'\n'; PIECE_BYTES]);
            assert_eq!(scan(&text), [], "{before}");
        }
    }

    #[test]
    fn folders_are_looked_through_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        std::fs::write(folder.path().join("a/.env"), format!("X=1\nKEY={KEY}\n")).unwrap();
        std::fs::write(folder.path().join("layer.tar.gz"), b"\x1f\x8b\x08...").unwrap();
        std::fs::write(elsewhere.path().join("f"), KEY).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("link")).unwrap();
        let mut looked = Looked::default();
        looked.path(folder.path(), 0).unwrap();
        assert_eq!(
            (looked.findings.len(), looked.files, looked.compressed.len()),
            (1, 2, 1)
        );
        assert_eq!(
            (looked.findings[0].line, looked.findings[0].begins.as_str()),
            (2, "sk-ant-a")
        );
        assert!(looked.findings[0].file.ends_with("a/.env"));
    }
}
