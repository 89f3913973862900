//! Reads zip as it comes, by the header before each entry (APPNOTE.TXT 6.3, 4.3.7): jars, wheels and whatever else is one.
//!
//! The directory at the end, which other readers go by, is not needed: what it does not name is in the file all the same.

use std::io::{self, BufRead as _, Read};

use flate2::bufread::DeflateDecoder;

use super::look::{Fault, Looked, Place};
use super::source::{AHEAD_BYTES, Part, Source, Unpacked};
use super::tar::shown;

const ENTRY: [u8; 4] = *b"PK\x03\x04";
const SIZES: [u8; 4] = *b"PK\x07\x08";
/// That mark, a sum, and two sizes.
const SIZES_BYTES: usize = 24;
/// What may be after the last entry: the directory, or its end.
const DIRECTORY: [[u8; 4]; 3] = [*b"PK\x01\x02", *b"PK\x05\x06", *b"PK\x06\x06"];

/// The methods whose data says by itself what it is: none, bzip2, zstd and xz.
const BY_CONTENT: [u16; 4] = [0, 12, 93, 95];
const DEFLATE: u16 = 8;

/// What an entry says of itself.
struct Header {
    encrypted: bool,
    method: u16,
    /// None where it is told after the data.
    size: Option<u64>,
    name: Vec<u8>,
}

impl Header {
    fn take(source: &mut Source<'_>) -> Result<Self, Fault> {
        let [
            _,
            _,
            _,
            _,
            _,
            _,
            flags,
            _,
            method,
            more,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            sizes @ ..,
        ] = source.take::<30>()?;
        let [a, b, c, d, e, f, g, h, name_low, name_high, extra_low, extra_high] = sizes;
        let (small, full) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let mut name = vec![0; usize::from(u16::from_le_bytes([name_low, name_high]))];
        let mut extra = vec![0; usize::from(u16::from_le_bytes([extra_low, extra_high]))];
        source.read_exact(&mut name)?;
        source.read_exact(&mut extra)?;
        let size = match small {
            u32::MAX => large(&extra, full),
            _ if flags & 8 != 0 && small == 0 => None,
            _ => Some(u64::from(small)),
        };
        Ok(Self {
            encrypted: flags & 1 != 0,
            method: u16::from_le_bytes([method, more]),
            size: size.filter(|size| *size > 0 || flags & 8 == 0),
            name,
        })
    }
}

/// The size of the data where it has 64 bits (4.5.3): after that of the file, where that has 64 bits too.
fn large(mut extra: &[u8], full: u32) -> Option<u64> {
    while let [id_low, id_high, low, high, rest @ ..] = extra {
        let (field, after) = rest.split_at_checked(usize::from(u16::from_le_bytes([*low, *high])))?;
        if [*id_low, *id_high] == [1, 0] {
            let at = if full == u32::MAX { 8 } else { 0 };
            return field.get(at..)?.first_chunk().copied().map(u64::from_le_bytes);
        }
        extra = after;
    }
    None
}

pub(crate) fn look(looked: &mut Looked, place: &Place<'_>, source: &mut Source<'_>) -> Result<(), Fault> {
    let mut entries = 0;
    loop {
        let at = source.passed();
        match source.peek(4)?.first_chunk() {
            Some(&ENTRY) => {}
            // Comments are here too.
            Some(begin) if DIRECTORY.contains(begin) => return looked.bytes(place, source),
            None => return looked.as_it_is(place, source, Fault::Cut),
            Some(_) => {
                let of = "header of zip";
                return looked.as_it_is(place, source, Fault::Header { of, at });
            }
        }
        entries += 1;
        if entries > looked.bounds.entries {
            return looked.as_it_is(place, source, Fault::Entries(looked.bounds.entries));
        }
        let header = Header::take(source)?;
        let inside = place.entry(&shown(&header.name, looked.bounds.name_bytes));
        looked.files += 1;
        match (header.size, header.method) {
            (Some(size), _) => {
                let mut part = Part::new(source, size);
                data(looked, &inside, &header, &mut part);
                part.finish()?;
            }
            (None, DEFLATE) if !header.encrypted => {
                let (small, full) = deflated(looked, &inside, source);
                let at = source.passed();
                if !skip_sizes(source, small, full)? {
                    let of = "size of an entry of zip";
                    return looked.as_it_is(place, source, Fault::Header { of, at });
                }
            }
            (None, method) => {
                let is_stored = method == 0 && !header.encrypted;
                let mut part = Unmeasured::new(source, is_stored);
                data(looked, &inside, &header, &mut part);
                // Where it was not wholly read, its end is yet to be found.
                io::copy(&mut part, &mut io::sink())?;
            }
        }
    }
}

/// Looks at the data of an entry whose end is known.
fn data(looked: &mut Looked, place: &Place<'_>, header: &Header, from: &mut dyn Read) {
    let why = match header.method {
        _ if header.encrypted => Fault::Encrypted,
        DEFLATE => {
            deflated(looked, place, &mut Source::new(from));
            return;
        }
        method if BY_CONTENT.contains(&method) => return looked.look(place, from),
        method => Fault::Method(method),
    };
    if let Err(fault) = looked.as_it_is(place, from, why) {
        looked.missed(&place.name, &fault);
    }
}

/// Looks at deflated data, which tells its end by itself. Gives its size and that of what came out of it.
fn deflated(looked: &mut Looked, place: &Place<'_>, source: &mut Source<'_>) -> (u64, u64) {
    let mut from = Unpacked {
        from: DeflateDecoder::new(source),
        budget: place.budget,
    };
    looked.look(&place.unpacked(), &mut from);
    (from.from.total_in(), from.from.total_out())
}

/// Passes over what says of an entry, after it, how long it is (4.3.9): four or eight bytes a size, and a mark that may be missing.
fn skip_sizes(source: &mut Source<'_>, small: u64, full: u64) -> Result<bool, Fault> {
    let ready = source.peek(SIZES_BYTES)?;
    let before = if ready.starts_with(&SIZES) { 8 } else { 4 };
    let sizes = ready.get(before..).unwrap_or_default();
    let bytes = length(sizes, small, Some(full)).map(|bytes| before + bytes);
    source.consume(bytes.unwrap_or_default());
    Ok(bytes.is_some())
}

/// How many bytes both sizes take, where they are these. That of the file may be unknown.
fn length(sizes: &[u8], small: u64, full: Option<u64>) -> Option<usize> {
    let is = |at: usize, bytes: &[u8]| sizes.get(at..).is_some_and(|sizes| sizes.starts_with(bytes));
    if is(0, &small.to_le_bytes()) && full.is_none_or(|full| is(8, &full.to_le_bytes())) {
        return Some(16);
    }
    // A writer that knows no more cuts them.
    let cut = |size: u64| size.to_le_bytes().first_chunk::<4>().copied().unwrap_or_default();
    (is(0, &cut(small)) && full.is_none_or(|full| is(4, &cut(full)))).then_some(8)
}

/// Data of which nobody says before how long it is, nor does it itself: it ends where its size is told, rightly.
struct Unmeasured<'s, 'a> {
    from: &'s mut Source<'a>,
    /// As long as the file.
    is_stored: bool,
    passed: u64,
    ended: bool,
}

impl<'s, 'a> Unmeasured<'s, 'a> {
    fn new(from: &'s mut Source<'a>, is_stored: bool) -> Self {
        Self {
            from,
            is_stored,
            passed: 0,
            ended: false,
        }
    }
}

impl Read for Unmeasured<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.ended || into.is_empty() {
            return Ok(0);
        }
        let most = AHEAD_BYTES.min(into.len() + SIZES_BYTES);
        let ready = self.from.peek(most)?;
        let ready = ready.get(..most).unwrap_or(ready);
        let mut given = into.len().min(ready.len());
        let mut told = None;
        let marks = ready
            .windows(SIZES.len())
            .enumerate()
            .filter(|(_, window)| **window == SIZES);
        for (at, _) in marks {
            let size = self.passed + at as u64;
            let sizes = ready.get(at + SIZES.len() + 4..).unwrap_or_default();
            if let Some(bytes) = length(sizes, size, self.is_stored.then_some(size)) {
                (given, told) = (given.min(at), Some((at, SIZES.len() + 4 + bytes)));
                break;
            }
        }
        // A mark at the end may be the one, once more is there.
        if told.is_none() && ready.len() > SIZES_BYTES {
            given = given.min(ready.len() - SIZES_BYTES);
        }
        let (Some(from), Some(to)) = (ready.get(..given), into.get_mut(..given)) else {
            return Ok(0);
        };
        to.copy_from_slice(from);
        self.from.consume(given);
        self.passed += given as u64;
        if let Some((at, bytes)) = told
            && at == given
        {
            self.from.consume(bytes);
            self.ended = true;
        }
        if given == 0 && !self.ended {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, Fault::Cut));
        }
        Ok(given)
    }
}
