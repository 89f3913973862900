//! Indexes on disk: `index/` below the ledger's folder, one file for each closed segment.
//!
//! All numbers are little-endian. First the head: the words of the format, what binds it to its segment, the times between
//! which all records are, the numbers of rows, of shapes and of ends of calls, and a SHA-256 over that, so that a segment
//! outside of the times that are asked for costs one small read. Then the columns, one after the other, each as wide as it
//! has to be, the shapes and ends with their lengths, and a SHA-256 over everything.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256, digest};
use spiffe::time::Timestamp;

use super::{INDEX, Index, NO_RECORD, NO_STATUS, NO_TIME};
use crate::segment::{Held, Segment};

/// The words of the format.
const WORDS: &[u8; 16] = b"botmesh index 1\n";

/// Bytes of a SHA-256.
const SUM: usize = 32;

/// Bytes of the head: the words, the binding, two times, three numbers, the sum.
const HEAD: usize = 16 + (8 + 8 + 16 + SUM) + 16 + 24 + SUM;

/// Most lines of a segment that has an index.
const ROWS_MAX: u64 = 8 * 1024 * 1024;

/// Bytes of the beginning and of the end of a segment that bind an index to it.
const EDGE: usize = 4096;

/// Longest index: that of a full segment of the shortest records that there are.
const INDEX_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Which bytes an index was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::query) struct Binding {
    first: u64,
    pub(super) bytes: u64,
    modified: (i64, i64),
    /// SHA-256 of the segment's beginning and its end.
    edges: [u8; SUM],
}

impl Binding {
    /// Reads what an index of a segment has to be bound to.
    pub(in crate::query) fn of(held: &Held) -> io::Result<Self> {
        let mut file = held.file()?;
        let meta = file.metadata()?;
        let mut sum = Context::new(&SHA256);
        let mut edge = Vec::with_capacity(EDGE);
        for at in [0, meta.len().saturating_sub(EDGE as u64)] {
            edge.clear();
            file.seek(SeekFrom::Start(at))?;
            (&file).take(EDGE as u64).read_to_end(&mut edge)?;
            sum.update(&edge);
        }
        let mut edges = [0; SUM];
        copy(&mut edges, sum.finish().as_ref());
        Ok(Self {
            first: held.segment().first,
            bytes: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            edges,
        })
    }
}

/// The head of an index that was found on disk and is of its segment.
#[derive(Debug)]
pub(in crate::query) struct Stored {
    /// The time of the earliest record, and of the latest; none where no record has one.
    pub(in crate::query) span: (Option<Timestamp>, Option<Timestamp>),
}

/// Returns the name of the index of a segment.
fn file_name(first: u64) -> String {
    format!("{first:020}.index")
}

/// Reads a name that [`file_name`] wrote.
pub(super) fn parse_file_name(name: &str) -> Option<u64> {
    let first = name.strip_suffix(".index")?.parse().ok()?;
    (file_name(first) == name).then_some(first)
}

fn path(ledger: &Path, segment: &Segment) -> PathBuf {
    ledger.join(INDEX).join(file_name(segment.first))
}

/// Removes a stored index. One that cannot be removed is of no segment that is there, so nobody uses it.
pub(in crate::query) fn remove(ledger: &Path, segment: &Segment) {
    fs::remove_file(path(ledger, segment)).unwrap_or_default();
}

/// Reads the head of a stored index; `None` if there is none, or it is damaged or of other bytes.
pub(in crate::query) fn stored(ledger: &Path, segment: &Segment, binding: &Binding) -> Option<Stored> {
    let mut head = [0; HEAD];
    File::open(path(ledger, segment)).ok()?.read_exact(&mut head).ok()?;
    let head = Head::parse(&head)?;
    (head.binding == *binding).then(|| Stored { span: head.span() })
}

/// Reads a stored index whole; `None` if there is none, or it is damaged or of other bytes.
pub(in crate::query) fn load(ledger: &Path, segment: &Segment, binding: &Binding) -> Option<Index> {
    let file = File::open(path(ledger, segment)).ok()?;
    let length = file.metadata().ok().filter(fs::Metadata::is_file)?.len();
    let mut bytes = Vec::with_capacity(usize::try_from(length.min(INDEX_BYTES_MAX)).ok()?);
    file.take(INDEX_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let (found, index) = parse(&bytes)?;
    (found == *binding).then_some(index)
}

/// Stores an index. A crash leaves the old one, or one whose sum is wrong.
pub(in crate::query) fn write(ledger: &Path, segment: &Segment, binding: &Binding, index: &Index) -> io::Result<()> {
    let bytes = encode(binding, index);
    if bytes.len() as u64 > INDEX_BYTES_MAX || index.rows() as u64 > ROWS_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let folder = ledger.join(INDEX);
    match fs::DirBuilder::new().mode(0o750).create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Two that ask at once write two drafts, of which the later stays.
    let draft = folder.join(format!("{}.{}", file_name(segment.first), std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o640)
        .open(&draft)
        .and_then(|mut file| file.write_all(&bytes))
        .and_then(|()| fs::rename(&draft, path(ledger, segment)));
    if written.is_err() {
        fs::remove_file(&draft).unwrap_or_default();
    }
    written
}

/// Writes an index as bytes.
pub(super) fn encode(binding: &Binding, index: &Index) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + index.rows() * 32);
    out.extend_from_slice(WORDS);
    out.extend_from_slice(&binding.first.to_le_bytes());
    out.extend_from_slice(&binding.bytes.to_le_bytes());
    out.extend_from_slice(&binding.modified.0.to_le_bytes());
    out.extend_from_slice(&binding.modified.1.to_le_bytes());
    out.extend_from_slice(&binding.edges);
    let (earliest, latest) = index.span();
    for time in [earliest, latest] {
        out.extend_from_slice(&time.map_or(NO_TIME, Timestamp::unix_millis).to_le_bytes());
    }
    for number in [index.rows(), index.shapes.len(), index.parties.len()] {
        out.extend_from_slice(&(number as u64).to_le_bytes());
    }
    seal(&mut out);
    let codes = |column: &[u32]| column.iter().map(|code| u64::from(*code)).collect::<Vec<_>>();
    let shorts = |column: &[u16]| column.iter().map(|short| u64::from(*short)).collect::<Vec<_>>();
    // 0 is no record and no status, and everything else is one more.
    let wrapped = |column: &[u64], none: u64| {
        column
            .iter()
            .map(|one| if *one == none { 0 } else { one + 1 })
            .collect()
    };
    put(&mut out, &wrapped(&codes(&index.shape), u64::from(NO_RECORD)));
    put(&mut out, &codes(&index.from));
    put(&mut out, &codes(&index.to));
    put(&mut out, &shorts(&index.length));
    put(
        &mut out,
        &index.time.iter().map(|time| since(*time, earliest)).collect(),
    );
    put(&mut out, &index.id);
    put(&mut out, &index.peer);
    put(&mut out, &wrapped(&shorts(&index.status), u64::from(NO_STATUS)));
    for text in index.shapes.iter().chain(&index.parties) {
        // Neither is longer than its line.
        out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(text);
    }
    seal(&mut out);
    out
}

/// Milliseconds since just before the earliest time; 0 for none.
fn since(time: i64, earliest: Option<Timestamp>) -> u64 {
    match earliest {
        Some(earliest) if time != NO_TIME => time.abs_diff(earliest.unix_millis()).saturating_add(1),
        _ => 0,
    }
}

fn seal(out: &mut Vec<u8>) {
    let sum = digest(&SHA256, out);
    out.extend_from_slice(sum.as_ref());
}

/// Writes a column as narrow as its largest number lets it be, after its width in bytes.
fn put(out: &mut Vec<u8>, column: &Vec<u64>) {
    let width = match column.iter().max() {
        None | Some(0) => 0,
        Some(..=0xff) => 1,
        Some(..=0xffff) => 2,
        Some(..=0xffff_ffff) => 4,
        Some(_) => 8,
    };
    out.push(width);
    for number in column {
        out.extend(number.to_le_bytes().iter().take(usize::from(width)));
    }
}

/// Reads what [`encode`] wrote, and nothing else.
pub(super) fn parse(bytes: &[u8]) -> Option<(Binding, Index)> {
    let (content, sum) = bytes.split_at_checked(bytes.len().checked_sub(SUM)?)?;
    if digest(&SHA256, content).as_ref() != sum {
        return None;
    }
    let (head, mut rest) = content.split_at_checked(HEAD)?;
    let head = Head::parse(head)?;
    let rows = head.rows;
    let index = Index {
        shape: narrow(&mut rest, rows, |code| {
            code.checked_sub(1)
                .map_or(Some(NO_RECORD), |code| u32::try_from(code).ok())
        })?,
        from: narrow(&mut rest, rows, |code| u32::try_from(code).ok())?,
        to: narrow(&mut rest, rows, |code| u32::try_from(code).ok())?,
        length: narrow(&mut rest, rows, |length| u16::try_from(length).ok())?,
        time: narrow(&mut rest, rows, |since| head.time(since))?,
        id: narrow(&mut rest, rows, Some)?,
        peer: narrow(&mut rest, rows, Some)?,
        status: narrow(&mut rest, rows, |code| {
            code.checked_sub(1)
                .map_or(Some(NO_STATUS), |code| u16::try_from(code).ok())
        })?,
        shapes: texts(&mut rest, head.shapes)?,
        parties: texts(&mut rest, head.parties)?,
    };
    let is_of = |codes: &[u32], count: usize, none: u32| {
        let is_there = |code: &u32| *code == none || usize::try_from(*code).is_ok_and(|at| at < count);
        codes.iter().all(is_there)
    };
    let is_whole = rest.is_empty()
        && is_of(&index.shape, index.shapes.len(), NO_RECORD)
        && is_of(&index.from, index.parties.len(), 0)
        && is_of(&index.to, index.parties.len(), 0)
        && index.bytes() == head.binding.bytes
        && index.span() == head.span();
    is_whole.then_some((head.binding, index))
}

/// Takes a column off the front. Before anything is set aside for it, its bytes are there.
fn narrow<T>(bytes: &mut &[u8], rows: usize, read: impl Fn(u64) -> Option<T>) -> Option<Vec<T>> {
    let (width, rest) = bytes.split_first()?;
    let width = usize::from(*width);
    // A column of nothing but zeroes has no bytes that would say how many.
    let (column, after) = rest.split_at_checked(rows.checked_mul(width)?)?;
    *bytes = after;
    match width {
        0 => (0..rows).map(|_row| read(0)).collect(),
        1 => column.iter().map(|byte| read(u64::from(*byte))).collect(),
        2 => wide(column, |bytes| read(u64::from(u16::from_le_bytes(bytes)))),
        4 => wide(column, |bytes| read(u64::from(u32::from_le_bytes(bytes)))),
        8 => wide(column, |bytes| read(u64::from_le_bytes(bytes))),
        _ => None,
    }
}

fn wide<T, const N: usize>(column: &[u8], read: impl Fn([u8; N]) -> Option<T>) -> Option<Vec<T>> {
    let (numbers, _none) = column.as_chunks::<N>();
    numbers.iter().map(|number| read(*number)).collect()
}

/// Takes texts with their lengths off the front.
fn texts(bytes: &mut &[u8], count: usize) -> Option<Vec<Box<[u8]>>> {
    let mut texts = Vec::new();
    for _ in 0..count {
        let length = take(bytes, 1, u32::from_le_bytes)?.pop()?;
        let (text, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
        texts.push(text.into());
        *bytes = rest;
    }
    Some(texts)
}

#[derive(Debug)]
struct Head {
    binding: Binding,
    earliest: i64,
    latest: i64,
    rows: usize,
    shapes: usize,
    parties: usize,
}

impl Head {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (content, sum) = bytes.split_at_checked(HEAD.checked_sub(SUM)?)?;
        if digest(&SHA256, content).as_ref() != sum {
            return None;
        }
        let mut rest = content.strip_prefix(WORDS)?;
        let [first, bytes] = take(&mut rest, 2, u64::from_le_bytes)?.try_into().ok()?;
        let [seconds, nanos] = take(&mut rest, 2, i64::from_le_bytes)?.try_into().ok()?;
        let (edges, after) = rest.split_first_chunk::<SUM>()?;
        rest = after;
        let [earliest, latest] = take(&mut rest, 2, i64::from_le_bytes)?.try_into().ok()?;
        let [rows, shapes, parties] = take(&mut rest, 3, u64::from_le_bytes)?.try_into().ok()?;
        let length = |number: u64| usize::try_from(number).ok();
        // Each line has at least its newline.
        if rows > bytes || rows > ROWS_MAX {
            return None;
        }
        Some(Self {
            binding: Binding {
                first,
                bytes,
                modified: (seconds, nanos),
                edges: *edges,
            },
            earliest,
            latest,
            rows: length(rows)?,
            shapes: length(shapes)?,
            parties: length(parties)?,
        })
    }

    /// Reads a time that [`since`] wrote.
    fn time(&self, since: u64) -> Option<i64> {
        match since.checked_sub(1) {
            None => Some(NO_TIME),
            Some(after) => self.earliest.checked_add_unsigned(after),
        }
    }

    fn span(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        let stamp = |time: i64| (time != NO_TIME).then(|| Timestamp::from_unix_millis(time));
        (stamp(self.earliest), stamp(self.latest))
    }
}

/// Takes `count` numbers off the front.
fn take<T, const N: usize>(bytes: &mut &[u8], count: usize, from_bytes: fn([u8; N]) -> T) -> Option<Vec<T>> {
    let (column, rest) = bytes.split_at_checked(count.checked_mul(N)?)?;
    *bytes = rest;
    let (numbers, _none) = column.as_chunks::<N>();
    Some(numbers.iter().map(|number| from_bytes(*number)).collect())
}

fn copy(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let sum = digest(&SHA256, &bytes);
        bytes.extend_from_slice(sum.as_ref());
        bytes
    }

    fn bound(index: &Index) -> Binding {
        Binding {
            first: 7,
            bytes: index.bytes(),
            modified: (-1, 999),
            edges: [3; SUM],
        }
    }

    fn index() -> impl Strategy<Value = Index> {
        let texts = |count| prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), count);
        let wide = prop_oneof![0..3_u64, 0..300_u64, any::<u64>()];
        let row = (any::<(u32, u32, u16, Option<i64>, u16)>(), wide.clone(), wide);
        (texts(0..5), texts(1..5), prop::collection::vec(row, 0..50)).prop_map(|(shapes, parties, rows)| {
            let known = u32::try_from(shapes.len()).unwrap();
            let ends = u32::try_from(parties.len()).unwrap();
            let mut index = Index {
                shapes: shapes.into_iter().map(Box::from).collect(),
                parties: parties.into_iter().map(Box::from).collect(),
                ..Index::default()
            };
            for ((shape, party, length, time, status), id, peer) in rows {
                index.from.push(party % ends);
                index.to.push((party >> 8) % ends);
                index.shape.push(shape.checked_rem(known).unwrap_or(NO_RECORD));
                index.length.push(length);
                index
                    .time
                    .push(time.map_or(NO_TIME, |time| Timestamp::from_unix_millis(time).unix_millis()));
                index.id.push(id);
                index.peer.push(peer);
                index.status.push(status);
            }
            index
        })
    }

    proptest! {
        #[test]
        fn every_index_reads_back(index in index()) {
            let binding = bound(&index);
            let bytes = encode(&binding, &index);
            let head = Head::parse(&bytes[..HEAD]).unwrap();
            prop_assert_eq!(head.span(), index.span());
            prop_assert_eq!(parse(&bytes), Some((binding, index)));
        }
    }

    #[test]
    fn what_contradicts_itself_is_no_index_though_its_sums_are_right() {
        let whole = Index {
            shapes: vec![b"{}".as_slice().into()],
            parties: vec![b"".as_slice().into()],
            shape: vec![0, NO_RECORD],
            from: vec![0, 0],
            to: vec![0, 0],
            length: vec![5, 6],
            time: vec![9, NO_TIME],
            id: vec![1, 0],
            peer: vec![0, 0],
            status: vec![200, u16::MAX],
        };
        let binding = bound(&whole);
        assert!(parse(&encode(&binding, &whole)).is_some());
        let shape = Index {
            shape: vec![1, NO_RECORD],
            ..whole.clone()
        };
        assert_eq!(parse(&encode(&binding, &shape)), None, "a shape that is not there");
        let other = Binding {
            bytes: binding.bytes + 1,
            ..binding.clone()
        };
        assert_eq!(parse(&encode(&other, &whole)), None, "lines of another length");
        let mut more = encode(&binding, &whole);
        more.truncate(more.len() - SUM);
        more.push(0);
        assert_eq!(parse(&sealed(more)), None, "a byte too many");
        let mut fewer = encode(&binding, &whole);
        fewer.truncate(fewer.len() - SUM - 1);
        assert_eq!(parse(&sealed(fewer)), None, "a byte too few");
        let from = Index {
            from: vec![1, 0],
            ..whole.clone()
        };
        assert_eq!(parse(&encode(&binding, &from)), None, "a caller that is not there");
        let later = Index {
            time: vec![9, 12],
            ..whole.clone()
        };
        let (head, columns) = (encode(&binding, &whole), encode(&binding, &later));
        let mut mixed = [&head[..HEAD], &columns[HEAD..]].concat();
        mixed.truncate(mixed.len() - SUM);
        assert_eq!(parse(&sealed(mixed)), None, "a time outside of the span");
    }

    #[test]
    fn a_head_that_asks_for_more_than_there_is_gets_nothing() {
        let binding = bound(&Index::default());
        let mut bytes = encode(&binding, &Index::default());
        bytes.truncate(HEAD - SUM);
        let rows = bytes.len() - 24;
        for huge in [u64::MAX, 1 << 60, u64::from(u32::MAX)] {
            for at in [rows, rows + 8, rows + 16] {
                let mut head = bytes.clone();
                head[at..at + 8].copy_from_slice(&huge.to_le_bytes());
                assert_eq!(parse(&sealed(sealed(head))), None, "{huge} at {at}");
            }
        }
    }
}
