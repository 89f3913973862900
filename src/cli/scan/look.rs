//! Looks for keys in one stream, and in whatever is packed in it: what it is follows from how it begins, not from its name.

use std::io::{self, ErrorKind, Read};

use proxy::credentials::detect::{self, KEY_BYTES_MAX};
use serde::Serialize;

use super::source::{Budget, Outermost, Source};
use super::{packed, tar, zip};

/// How much is looked at together. Twice the longest key overlaps, so that none is missed between two.
const PIECE_BYTES: usize = 1024 * 1024;
const OVERLAP_BYTES: usize = 2 * KEY_BYTES_MAX;

/// The most findings that are listed of one file, and of all together; and the most parts that were not looked at.
const LISTED_MAX: u64 = 100;
const FINDINGS_MAX: usize = 10_000;
const MISSED_MAX: usize = 1000;

/// How far it is looked into what is packed. Whoever made it may have meant it to have no end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Archives and compressed streams in each other.
    pub(crate) depth: usize,
    /// Entries of one archive.
    pub(crate) entries: u64,
    /// The name of an entry; a longer one is cut.
    pub(crate) name_bytes: usize,
    /// What an archive says of one entry beside its name.
    pub(crate) header_bytes: u64,
    /// All that comes out of what is compressed in one file: so many bytes,
    pub(crate) unpacked_bytes: u64,
    /// or so many times as many as were read of the file.
    pub(crate) unpacked_ratio: u64,
}

impl Default for Bounds {
    /// An image saved by docker is four deep, and a jar in a jar of one is six. A layer of zeros alone comes out a thousand times as long
    /// as it is, and is less than four gigabytes.
    fn default() -> Self {
        Self {
            depth: 12,
            entries: 10_000_000,
            name_bytes: 4096,
            header_bytes: 1024 * 1024,
            unpacked_bytes: 4 * 1024 * 1024 * 1024,
            unpacked_ratio: 100,
        }
    }
}

/// Why something was not wholly looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("compressed ({0}), and not looked into")]
    Closed(&'static str),
    #[error("encrypted, and not looked into")]
    Encrypted,
    #[error("compressed by method {0} of zip, and not looked into")]
    Method(u16),
    #[error("more than {0} archives in each other: it is looked at as it is")]
    Depth(usize),
    #[error("more than {0} entries")]
    Entries(u64),
    #[error("what comes out of it is far too long for what it is")]
    Unpacked,
    #[error("it ends too early")]
    Cut,
    #[error("byte {at} is no {of}: what follows is looked at as it is")]
    Header { of: &'static str, at: u64 },
    #[error("its checksum is wrong")]
    Sum,
    #[error("the record of pax at byte {0} cannot be read")]
    Record(u64),
    #[error(transparent)]
    Read(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        if error.kind() == ErrorKind::UnexpectedEof {
            return Self::Cut;
        }
        Self::Read(error)
    }
}

/// Something that looks like a key.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    /// The file, and where it is an archive the entry in it after `!`.
    pub(crate) file: String,
    pub(crate) line: u64,
    pub(crate) kind: &'static str,
    /// Its first letters.
    pub(crate) begins: String,
    /// The digest of the image's layer that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) layer: Option<String>,
}

/// Something that was not wholly looked at.
#[derive(Debug, Serialize)]
pub(crate) struct Missed {
    pub(crate) file: String,
    pub(crate) why: String,
}

/// What was looked at.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    pub(crate) bounds: Bounds,
    pub(crate) findings: Vec<Finding>,
    /// Findings that are not listed.
    pub(crate) unlisted: u64,
    /// Files, and entries of archives.
    pub(crate) files: u64,
    pub(crate) missed: Vec<Missed>,
    pub(crate) missed_unlisted: u64,
    /// Kept, so that a million small files do not each have one.
    text: Vec<u8>,
}

/// Where it is being looked.
#[derive(Debug, Clone)]
pub(crate) struct Place<'b> {
    pub(crate) name: String,
    layer: Option<String>,
    pub(crate) depth: usize,
    pub(crate) budget: &'b Budget,
}

impl Place<'_> {
    /// What comes out of something compressed has its name.
    pub(crate) fn unpacked(&self) -> Self {
        Self {
            depth: self.depth + 1,
            ..self.clone()
        }
    }

    /// An entry of the archive that is here.
    pub(crate) fn entry(&self, name: &str) -> Self {
        Self {
            name: format!("{}!{name}", self.name),
            layer: digest(&self.name).or_else(|| self.layer.clone()),
            depth: self.depth + 1,
            budget: self.budget,
        }
    }
}

/// The digest in the name of a layer, in the forms of an OCI layout and of what tools save for docker.
fn digest(name: &str) -> Option<String> {
    let last = name.rsplit(['/', '!']).next()?;
    let hex = last.strip_prefix("sha256:").unwrap_or(last);
    let hex = hex.split_once(".tar").map_or(hex, |(hex, _)| hex);
    let is_digest = hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_digest.then(|| format!("sha256:{hex}"))
}

/// How other compressed forms begin, into which nobody looks.
const CLOSED: [(&[u8], &str); 9] = [
    (b"\xfd7zXZ\0", "xz"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "rar"),
    (b"LZIP\x01", "lzip"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x1f\x9d", "compress"),
    (b"hsqs", "squashfs"),
    (b"!<arch>\ndebian-binary", "deb"),
    (b"\xed\xab\xee\xdb", "rpm"),
];

fn closed(begin: &[u8]) -> Option<&'static str> {
    let found = CLOSED.iter().find(|(form, _)| begin.starts_with(form));
    found.map(|(_, kind)| *kind)
}

/// What something is by how it begins.
enum Form {
    Gzip,
    Zstd,
    Zip,
    Tar,
    Closed(&'static str),
    Plain,
}

impl Form {
    fn of(begin: &[u8]) -> Self {
        match begin {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'P', b'K', 3, 4, ..] => Self::Zip,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => Self::Closed("bzip2"),
            _ if closed(begin).is_some() => closed(begin).map_or(Self::Plain, Self::Closed),
            _ if begin
                .first_chunk()
                .is_some_and(|block| tar::Header::read(block).is_some()) =>
            {
                Self::Tar
            }
            _ => Self::Plain,
        }
    }
}

impl Looked {
    pub(crate) fn within(bounds: Bounds) -> Self {
        Self {
            bounds,
            ..Self::default()
        }
    }

    /// Looks at a file that is open.
    ///
    /// # Errors
    ///
    /// When the file itself cannot be read.
    pub(crate) fn stream(&mut self, name: &str, from: impl Read) -> io::Result<()> {
        let budget = Budget::new(self.bounds);
        let mut from = Outermost {
            from,
            budget: &budget,
            failed: None,
        };
        let place = Place {
            name: name.to_owned(),
            layer: None,
            depth: 0,
            budget: &budget,
        };
        self.files += 1;
        self.look(&place, &mut from);
        from.failed.map_or(Ok(()), Err)
    }

    /// Looks at what is in one place, to its end. What goes wrong there is told, and stops nothing else.
    pub(crate) fn look(&mut self, place: &Place<'_>, from: &mut dyn Read) {
        let mut source = Source::new(from);
        if let Err(fault) = self.content(place, &mut source) {
            self.missed(&place.name, &fault);
        }
    }

    fn content(&mut self, place: &Place<'_>, source: &mut Source<'_>) -> Result<(), Fault> {
        let form = Form::of(source.peek(tar::BLOCK_BYTES)?);
        let too_deep = place.depth >= self.bounds.depth;
        match form {
            Form::Plain => self.bytes(place, source),
            Form::Closed(kind) => self.as_it_is(place, source, Fault::Closed(kind)),
            Form::Gzip | Form::Zstd | Form::Zip | Form::Tar if too_deep => {
                self.as_it_is(place, source, Fault::Depth(self.bounds.depth))
            }
            Form::Gzip => packed::gzip(self, place, source),
            Form::Zstd => packed::zstd(self, place, source),
            Form::Zip => zip::look(self, place, source),
            Form::Tar => tar::look(self, place, source),
        }
    }

    /// Looks at bytes that nobody can read otherwise, and says why.
    pub(crate) fn as_it_is(&mut self, place: &Place<'_>, from: &mut dyn Read, why: Fault) -> Result<(), Fault> {
        self.bytes(place, from)?;
        Err(why)
    }

    /// Names a part that was not wholly looked at, once: what it was in is not wholly looked at for the same reason.
    pub(crate) fn missed(&mut self, name: &str, fault: &Fault) {
        if self.missed.last().is_some_and(|last| last.file == name) {
            return;
        }
        if self.missed.len() >= MISSED_MAX {
            self.missed_unlisted += 1;
            return;
        }
        self.missed.push(Missed {
            file: name.to_owned(),
            why: fault.to_string(),
        });
    }

    /// Looks at bytes as they are, to their end.
    pub(crate) fn bytes(&mut self, place: &Place<'_>, from: &mut dyn Read) -> Result<(), Fault> {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        let done = self.pieces(place, from, &mut text);
        self.text = text;
        Ok(done?)
    }

    fn pieces(&mut self, place: &Place<'_>, from: &mut dyn Read, text: &mut Vec<u8>) -> io::Result<()> {
        let (mut lines, mut looked, mut listed) = (0, 0, 0);
        loop {
            // What came before an error is looked at all the same.
            let read = read_some(from, text, PIECE_BYTES);
            let last = !matches!(read, Ok(1..));
            // A key that begins in the overlap is whole in the next piece, and is told there.
            let end = if last {
                text.len()
            } else {
                text.len().saturating_sub(OVERLAP_BYTES)
            };
            for found in detect::find(text).filter(|found| (looked..end).contains(&found.at.start)) {
                listed += 1;
                if listed <= LISTED_MAX && self.findings.len() < FINDINGS_MAX {
                    self.findings.push(finding(place, lines, text, &found));
                } else {
                    self.unlisted += 1;
                }
            }
            if last {
                return read.map(drop);
            }
            let kept = end.saturating_sub(1);
            lines += newlines(text.get(..kept).unwrap_or_default());
            text.drain(..kept);
            // One byte stays before what was not looked at, to tell where a word begins.
            looked = end - kept;
        }
    }
}

fn finding(place: &Place<'_>, lines: u64, text: &[u8], found: &detect::Detected) -> Finding {
    let before = text.get(..found.at.start).unwrap_or_default();
    let key = text.get(found.at.clone()).unwrap_or_default();
    // As much as says which kind it is, and no more.
    let shown = key.len().min(8);
    Finding {
        file: place.name.clone(),
        line: lines + newlines(before) + 1,
        kind: found.kind,
        begins: String::from_utf8_lossy(key.get(..shown).unwrap_or_default()).into_owned(),
        layer: place.layer.clone(),
    }
}

fn newlines(text: &[u8]) -> u64 {
    text.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

/// Reads so many bytes, or to the end.
fn read_some(from: &mut dyn Read, into: &mut Vec<u8>, most: usize) -> io::Result<usize> {
    loop {
        match from.take(most as u64).read_to_end(into) {
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
}
