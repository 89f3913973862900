//! Compressed streams: gzip (RFC 1952) and zstd (RFC 8878), of as many members or frames as there are.

use std::io::{self, Read};

use flate2::bufread::GzDecoder;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use super::look::{Fault, Looked, Place};
use super::source::{Part, Source, Unpacked};

/// How far back a frame of zstd may reach, which is kept in memory: as far as the tool itself allows, and in the depth as far as its levels but
/// the highest three do.
const WIDE_BYTES: u64 = 128 * 1024 * 1024;
const NARROW_BYTES: u64 = 8 * 1024 * 1024;
const WIDE_DEPTH: usize = 3;

pub(crate) fn gzip(looked: &mut Looked, place: &Place<'_>, source: &mut Source<'_>) -> Result<(), Fault> {
    let members = Members {
        now: Some(GzDecoder::new(source)),
    };
    inside(looked, place, members);
    rest(looked, place, source)
}

pub(crate) fn zstd(looked: &mut Looked, place: &Place<'_>, source: &mut Source<'_>) -> Result<(), Fault> {
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(if place.depth < WIDE_DEPTH {
        WIDE_BYTES
    } else {
        NARROW_BYTES
    });
    let frames = Frames {
        between: Some((source, decoder)),
        now: None,
    };
    inside(looked, place, frames);
    rest(looked, place, source)
}

fn inside(looked: &mut Looked, place: &Place<'_>, from: impl Read) {
    let mut from = Unpacked {
        from,
        budget: place.budget,
    };
    looked.look(&place.unpacked(), &mut from);
}

/// Looks at what is after a compressed stream, or after the place where it is broken. Often there is nothing, or zeros that fill a block.
fn rest(looked: &mut Looked, place: &Place<'_>, source: &mut Source<'_>) -> Result<(), Fault> {
    looked.bytes(place, source)
}

/// The members of a gzip file, one after the other.
struct Members<'s, 'a> {
    now: Option<GzDecoder<&'s mut Source<'a>>>,
}

impl Read for Members<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.now {
            let read = member.read(into)?;
            if read > 0 || into.is_empty() {
                return Ok(read);
            }
            let Some(source) = self.now.take().map(GzDecoder::into_inner) else {
                return Ok(0);
            };
            if source.peek(2)?.starts_with(&[0x1f, 0x8b]) {
                self.now = Some(GzDecoder::new(source));
            }
        }
        Ok(0)
    }
}

/// The frames of a zstd file, one after the other. Those that a reader is to skip hold what is known of the others.
struct Frames<'s, 'a> {
    between: Option<(&'s mut Source<'a>, FrameDecoder)>,
    now: Option<StreamingDecoder<&'s mut Source<'a>, FrameDecoder>>,
}

impl Frames<'_, '_> {
    /// Goes on to the next frame, where there is one.
    fn next(&mut self) -> io::Result<()> {
        while let Some((source, decoder)) = self.between.take() {
            match source.peek(8)? {
                [0x50..=0x5f, 0x2a, 0x4d, 0x18, a, b, c, d, ..] => {
                    let bytes = u64::from(u32::from_le_bytes([*a, *b, *c, *d])) + 8;
                    Part::new(source, bytes).finish().map_err(io::Error::other)?;
                    self.between = Some((source, decoder));
                }
                [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                    self.now = Some(StreamingDecoder::new_with_decoder(source, decoder).map_err(io::Error::other)?);
                    return Ok(());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Read for Frames<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            if self.now.is_none() {
                self.next()?;
            }
            let Some(frame) = &mut self.now else { return Ok(0) };
            let read = frame.read(into)?;
            if read > 0 {
                return Ok(read);
            }
            let decoder = &frame.decoder;
            let told = decoder.get_checksum_from_data();
            if told.is_some() && told != decoder.get_calculated_checksum() {
                return Err(io::Error::other(Fault::Sum));
            }
            self.between = self.now.take().map(StreamingDecoder::into_parts);
        }
    }
}
