//! Reads tar as it comes: ustar and pax (POSIX.1-2017, `pax`), GNU's long names and sparse files, and what was before them.
//!
//! Long names and records are kept in memory no further than a bound, and a size that only a pax record has is used: a reader that knows one
//! of both would lose its way in large layers.

use std::io::{self, BufRead as _, Read as _};

use super::look::{Fault, Looked, Place};
use super::source::{Part, Source};

pub(crate) const BLOCK_BYTES: usize = 512;

type Block = [u8; BLOCK_BYTES];

/// What one block says of the entry that follows.
#[derive(Debug)]
pub(crate) struct Header {
    kind: u8,
    name: Vec<u8>,
    size: u64,
    /// More blocks say where the holes of a sparse file are.
    more_holes: bool,
}

impl Header {
    /// Reads a block, where it is a header: its sum is the proof.
    pub(crate) fn read(block: &Block) -> Option<Self> {
        let sum = number(block.get(148..156)?)?;
        let bytes = block.iter().enumerate();
        let counted = bytes.map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
        let (plain, signed) = counted.fold((0, 0), |(plain, signed), byte| {
            (plain + u64::from(byte), signed + i64::from(byte.cast_signed()))
        });
        // Some old programs added up signed bytes.
        if sum != plain && i64::try_from(sum) != Ok(signed) {
            return None;
        }
        let name = until_zero(block.get(..100)?);
        let prefix = until_zero(block.get(345..500)?);
        let is_ustar = block.get(257..263)? == b"ustar\0";
        Some(Self {
            kind: *block.get(156)?,
            name: if is_ustar && !prefix.is_empty() {
                [prefix, name].join(&b'/')
            } else {
                name.to_vec()
            },
            size: number(block.get(124..136)?)?,
            more_holes: *block.get(482)? != 0,
        })
    }

    /// Says whether data follows. What an archive of another kind of entry says of its size is the size of what it leads to, or nothing.
    fn has_data(&self) -> bool {
        let is_old_folder = self.kind == 0 && self.name.ends_with(b"/");
        !matches!(self.kind, b'1'..=b'6') && !is_old_folder
    }
}

/// A number in octal, or as GNU writes it where octal is too short.
fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // The two uppermost bits are the mark and the sign; less than nothing is no size.
        return rest.iter().try_fold(u64::from(first & 0x7f), |number, byte| {
            number.checked_mul(256).map(|number| number | u64::from(*byte))
        });
    }
    let text = std::str::from_utf8(until_zero(field)).ok()?.trim_matches(' ');
    if text.is_empty() {
        return Some(0);
    }
    text.bytes().try_fold(0_u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 8)?;
        number.checked_mul(8)?.checked_add(u64::from(digit))
    })
}

fn until_zero(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// What records before an entry say of it.
#[derive(Debug, Default)]
struct Said {
    /// By a pax record, which has the last word.
    path: Option<Vec<u8>>,
    /// Of a sparse file, whose path is where GNU tar would put it in pieces.
    sparse_name: Option<Vec<u8>>,
    long_name: Option<Vec<u8>>,
    size: Option<u64>,
    /// The data begins with a map of its holes.
    map: bool,
}

impl Said {
    /// Takes up the records of a pax header, `LENGTH KEY=VALUE\n` each, up to what is none.
    fn records(&mut self, mut text: &[u8]) -> Option<()> {
        while text.iter().any(|byte| *byte != 0) {
            let space = text.iter().position(|byte| *byte == b' ')?;
            let length = usize::try_from(decimal(text.get(..space)?)?).ok()?;
            let (record, rest) = text.split_at_checked(length)?;
            let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            match record.split_at_checked(equals)? {
                (b"path", path) => self.path = Some(path.get(1..)?.to_vec()),
                (b"GNU.sparse.name", name) => self.sparse_name = Some(name.get(1..)?.to_vec()),
                (b"size", size) => self.size = Some(decimal(size.get(1..)?)?),
                (b"GNU.sparse.major", major) => self.map = major == b"=1",
                _ => {}
            }
            text = rest;
        }
        Some(())
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Looks at the entries of an archive, and of those that were put after it.
pub(crate) fn look(looked: &mut Looked, place: &Place<'_>, source: &mut Source<'_>) -> Result<(), Fault> {
    let mut said = Said::default();
    let mut entries = 0;
    loop {
        let at = source.passed();
        let begin = source.peek(BLOCK_BYTES)?;
        let Some(block) = begin.first_chunk::<BLOCK_BYTES>() else {
            let is_end = begin.iter().all(|byte| *byte == 0);
            looked.bytes(place, source)?;
            return if is_end { Ok(()) } else { Err(Fault::Cut) };
        };
        if block.iter().all(|byte| *byte == 0) {
            source.consume(BLOCK_BYTES);
            continue;
        }
        let Some(header) = Header::read(block) else {
            let of = "header of tar";
            return looked.as_it_is(place, source, Fault::Header { of, at });
        };
        source.consume(BLOCK_BYTES);
        entries += 1;
        if entries > looked.bounds.entries {
            return looked.as_it_is(place, source, Fault::Entries(looked.bounds.entries));
        }
        match header.kind {
            b'x' | b'g' | b'L' | b'K' => before(looked, place, source, &header, &mut said)?,
            _ => entry(looked, place, source, header, std::mem::take(&mut said))?,
        }
    }
}

/// Reads an entry that says something of the one after it.
fn before(
    looked: &mut Looked,
    place: &Place<'_>,
    source: &mut Source<'_>,
    header: &Header,
    said: &mut Said,
) -> Result<(), Fault> {
    let most = match header.kind {
        b'L' | b'K' => looked.bounds.name_bytes as u64 + 1,
        // Cut where a record begins, the rest could be read as another archive than others see.
        _ if header.size > looked.bounds.header_bytes => {
            let (of, at) = (
                "header of tar that is short enough",
                source.passed() - BLOCK_BYTES as u64,
            );
            return looked.as_it_is(place, source, Fault::Header { of, at });
        }
        _ => header.size,
    };
    let at = source.passed() - BLOCK_BYTES as u64;
    let mut text = Vec::new();
    let mut data = Part::new(source, header.size);
    data.by_ref().take(most).read_to_end(&mut text)?;
    data.finish()?;
    fill(source, header.size)?;
    match header.kind {
        b'L' => said.long_name = Some(until_zero(&text).to_vec()),
        b'x' if said.records(&text).is_none() => looked.missed(&place.name, &Fault::Record(at)),
        _ => {}
    }
    // Attributes of files are here too.
    looked.bytes(place, &mut text.as_slice())
}

fn entry(
    looked: &mut Looked,
    place: &Place<'_>,
    source: &mut Source<'_>,
    mut header: Header,
    said: Said,
) -> Result<(), Fault> {
    if !header.has_data() {
        return Ok(());
    }
    while header.kind == b'S' && header.more_holes {
        let block: Block = source.take()?;
        header.more_holes = block.get(504).is_some_and(|more| *more != 0);
    }
    let size = said.size.unwrap_or(header.size);
    let name = said.sparse_name.or(said.path).or(said.long_name).unwrap_or(header.name);
    let place = place.entry(&shown(&name, looked.bounds.name_bytes));
    looked.files += 1;
    let mut data = Part::new(source, size);
    if said.map
        && let Err(fault) = skip_map(&mut data)
    {
        looked.missed(&place.name, &fault);
    }
    looked.look(&place, &mut data);
    data.finish()?;
    fill(source, size)
}

/// Passes over what fills the last block of so many bytes.
fn fill(source: &mut Source<'_>, bytes: u64) -> Result<(), Fault> {
    let block = BLOCK_BYTES as u64;
    source.skip((block - bytes % block) % block)
}

/// Passes over the map of holes that GNU tar puts before the data, so that lines are counted as in the file: a count, and two numbers for each,
/// one a line, filled to a block.
fn skip_map(data: &mut Part<'_, '_>) -> Result<(), Fault> {
    let mut passed = 0;
    let mut line = || {
        let mut number = 0_u64;
        loop {
            let mut byte = [0];
            data.read_exact(&mut byte)?;
            passed += 1;
            match byte {
                [b'\n'] => return Ok::<_, Fault>(number),
                [digit] => {
                    number = number
                        .saturating_mul(10)
                        .saturating_add(u64::from(digit.wrapping_sub(b'0')))
                }
            }
        }
    };
    let holes = line()?;
    for _ in 0..holes.saturating_mul(2) {
        line()?;
    }
    let block = BLOCK_BYTES as u64;
    io::copy(&mut data.take((block - passed % block) % block), &mut io::sink())?;
    Ok(())
}

/// A name as text, no longer than a bound.
pub(crate) fn shown(name: &[u8], most: usize) -> String {
    let text = String::from_utf8_lossy(name.get(..most).unwrap_or(name)).into_owned();
    if name.len() > most { text + "…" } else { text }
}
