//! What waits to be written: small frames beside each other in one buffer, long pieces of bodies where they are.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::frame::{HEADER_BYTES, Header, Kind};

/// From how many bytes on a piece of a body is not copied.
const APART_BYTES: usize = 4 * 1024;

/// What is kept of a buffer between two writes.
const KEEP_BYTES: usize = 8 * 1024;

/// How many pieces go to one write.
pub(super) const SLICES: usize = 16;

/// Bytes that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Out {
    /// What goes first.
    before: VecDeque<Bytes>,
    /// What goes last; small frames are written into it.
    tail: BytesMut,
    /// How many bytes are in `before`.
    before_bytes: usize,
}

/// A head is longer than any may be.
#[derive(Debug)]
pub(super) struct TooLong;

impl Out {
    pub(super) fn len(&self) -> usize {
        self.before_bytes + self.tail.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a frame whose payload is short.
    pub(super) fn frame(&mut self, kind: Kind, stream: u32, payload: &[u8]) {
        let length = payload.len();
        Header { kind, length, stream }.put(&mut self.tail);
        self.tail.put_slice(payload);
    }

    /// Appends a frame with a piece of a body.
    pub(super) fn data(&mut self, kind: Kind, stream: u32, data: Bytes) {
        if data.len() < APART_BYTES {
            return self.frame(kind, stream, &data);
        }
        let length = data.len();
        Header { kind, length, stream }.put(&mut self.tail);
        for piece in [self.tail.split().freeze(), data] {
            self.before_bytes += piece.len();
            self.before.push_back(piece);
        }
    }

    /// Appends a frame whose payload `write` writes, of at most `max` bytes. One that is longer is not appended.
    pub(super) fn write(
        &mut self,
        kind: Kind,
        stream: u32,
        max: usize,
        write: impl FnOnce(&mut BytesMut),
    ) -> Result<(), TooLong> {
        let start = self.tail.len();
        self.tail.put_bytes(0, HEADER_BYTES);
        write(&mut self.tail);
        let length = self.tail.len() - start - HEADER_BYTES;
        if length > max {
            self.tail.truncate(start);
            return Err(TooLong);
        }
        let header = Header { kind, length, stream }.bytes();
        if let Some(place) = self.tail.get_mut(start..start + HEADER_BYTES) {
            place.copy_from_slice(&header);
        }
        Ok(())
    }

    /// Lists what goes first.
    pub(super) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES]) -> usize {
        let pieces = self.before.iter().map(|piece| &piece[..]);
        let mut count = 0;
        for (place, piece) in slices.iter_mut().zip(pieces.chain(std::iter::once(&self.tail[..]))) {
            *place = IoSlice::new(piece);
            count += 1;
        }
        count
    }

    /// Takes off what was written.
    pub(super) fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.before.front_mut() {
            if written == 0 {
                return;
            }
            let from_first = written.min(first.len());
            first.advance(from_first);
            self.before_bytes -= from_first;
            written -= from_first;
            if first.is_empty() {
                self.before.pop_front();
            }
        }
        self.tail.advance(written.min(self.tail.len()));
    }

    /// Readies an empty buffer for what comes next: it keeps its memory, if that is not much.
    pub(super) fn reuse(&mut self) {
        if self.tail.is_empty() {
            self.tail.clear();
            if self.tail.capacity() > KEEP_BYTES {
                self.tail = BytesMut::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::Last;
    use super::*;

    fn written(out: &Out) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = out.slices(&mut slices);
        slices[..count].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn frames_leave_in_their_order_whether_they_are_copied_or_not() {
        let mut out = Out::default();
        out.frame(Kind::Ping, 0, &[7; 8]);
        let long = Bytes::from(vec![b'x'; APART_BYTES]);
        out.data(Kind::Data(Last::No), 1, long.clone());
        out.data(Kind::Data(Last::Yes), 1, Bytes::from_static(b"end"));
        out.write(Kind::Head(Last::Yes), 2, 4, |head| head.put_slice(b"head"))
            .unwrap();
        let whole = written(&out);
        let mut expected = BytesMut::new();
        for (kind, stream, payload) in [
            (Kind::Ping, 0, Bytes::from(vec![7; 8])),
            (Kind::Data(Last::No), 1, long),
            (Kind::Data(Last::Yes), 1, Bytes::from_static(b"end")),
            (Kind::Head(Last::Yes), 2, Bytes::from_static(b"head")),
        ] {
            let length = payload.len();
            Header { kind, length, stream }.put(&mut expected);
            expected.put_slice(&payload);
        }
        assert_eq!((&whole[..], out.len()), (&expected[..], expected.len()));
        // However a write cuts them.
        let mut taken = Vec::new();
        while !out.is_empty() {
            let part: Vec<u8> = written(&out).into_iter().take(1001).collect();
            out.advance(part.len());
            taken.extend(part);
        }
        assert_eq!(taken, whole);
    }

    #[test]
    fn a_head_that_is_too_long_leaves_nothing_behind() {
        let mut out = Out::default();
        out.frame(Kind::Ping, 0, &[7; 8]);
        let before = out.len();
        out.write(Kind::Head(Last::No), 1, 3, |head| head.put_slice(b"head"))
            .unwrap_err();
        assert_eq!(out.len(), before);
    }
}
