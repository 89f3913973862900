//! Frames: eight bytes, kind, length and stream, and a payload. Numbers are big-endian.
//!
//! | kind | payload | stream |
//! | --- | --- | --- |
//! | 1 `Head`, 2 `HeadLast` | a head as HTTP/1.1 writes it | opens it, or answers on it |
//! | 3 `Data`, 4 `DataLast` | bytes of a body | |
//! | 5 `Trailers` | field lines and an empty line; ends the body | |
//! | 6 `Reset` | one byte, why | |
//! | 7 `Credit` | four bytes: how much more may be sent | or 0, for all streams |
//! | 8 `Ping`, 9 `Pong` | eight bytes, the same in both | 0 |
//! | 10 `Last` | nothing: no stream that comes after it is begun | 0 |
//! | 11 `Proof` | a piece of what proves an end on | 0 |
//! | 12 `Room` | twice four bytes: how much may be under way of all bodies, and of one; said once | 0 |

use bytes::{BufMut, BytesMut};
use thiserror::Error;

use crate::http1::{HEAD_BYTES_MAX, TRAILER_BYTES_MAX};

/// How many bytes stand before a payload.
pub const HEADER_BYTES: usize = 8;

/// The longest payload.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// The longest piece of a proof.
pub const PROOF_BYTES_MAX: usize = 16 * 1024;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Opens a stream, or answers on it.
    Head(Last),
    /// Bytes of a body.
    Data(Last),
    /// The end of a body, with fields.
    Trailers,
    /// The end of a stream in both directions.
    Reset,
    /// Room for more bytes.
    Credit,
    /// Asks whether the other end is there.
    Ping,
    /// It is.
    Pong,
    /// No stream that comes after it is begun.
    Last,
    /// A piece of what proves an end on.
    Proof,
    /// How much may be under way.
    Room,
}

/// Whether more follows in this direction of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// This is the last of it.
    Yes,
    /// Something follows.
    No,
}

impl Last {
    /// Says it of a truth value.
    #[must_use]
    pub const fn when(last: bool) -> Self {
        if last { Self::Yes } else { Self::No }
    }

    /// Tells whether this is the last.
    #[must_use]
    pub const fn is(self) -> bool {
        matches!(self, Self::Yes)
    }
}

/// The bytes before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame says.
    pub kind: Kind,
    /// The length of the payload.
    pub length: usize,
    /// Of which stream; 0 where it is of none.
    pub stream: u32,
}

impl Header {
    /// Reads what stands before a payload. Whatever no peer of ours writes is refused here, before its payload is waited for.
    ///
    /// # Errors
    ///
    /// For a kind that is none, a length that the kind cannot have, and a stream where there is none or none where there is one.
    pub fn read(bytes: [u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let [kind, high, middle, low, stream @ ..] = bytes;
        let kind = Kind::of(kind).ok_or(FrameError::Kind { kind })?;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let stream = u32::from_be_bytes(stream);
        if !kind.lengths().contains(&length) {
            return Err(FrameError::Length { kind, length });
        }
        let of_none = kind.is_of_none();
        if (kind != Kind::Credit && of_none != (stream == 0)) || stream > STREAM_MAX {
            return Err(FrameError::Stream { kind, stream });
        }
        Ok(Self { kind, length, stream })
    }

    /// Gives what stands before a payload.
    #[must_use]
    pub const fn bytes(self) -> [u8; HEADER_BYTES] {
        let [.., high, middle, low] = self.length.to_be_bytes();
        let [a, b, c, d] = self.stream.to_be_bytes();
        [self.kind.number(), high, middle, low, a, b, c, d]
    }

    /// Appends what stands before a payload.
    pub fn put(self, out: &mut BytesMut) {
        out.put_slice(&self.bytes());
    }
}

/// The highest number of a stream.
pub const STREAM_MAX: u32 = u32::MAX >> 1;

impl Kind {
    const fn of(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Head(Last::No),
            2 => Self::Head(Last::Yes),
            3 => Self::Data(Last::No),
            4 => Self::Data(Last::Yes),
            5 => Self::Trailers,
            6 => Self::Reset,
            7 => Self::Credit,
            8 => Self::Ping,
            9 => Self::Pong,
            10 => Self::Last,
            11 => Self::Proof,
            12 => Self::Room,
            _ => return None,
        })
    }

    const fn number(self) -> u8 {
        match self {
            Self::Head(Last::No) => 1,
            Self::Head(Last::Yes) => 2,
            Self::Data(Last::No) => 3,
            Self::Data(Last::Yes) => 4,
            Self::Trailers => 5,
            Self::Reset => 6,
            Self::Credit => 7,
            Self::Ping => 8,
            Self::Pong => 9,
            Self::Last => 10,
            Self::Proof => 11,
            Self::Room => 12,
        }
    }

    /// It is of no stream.
    const fn is_of_none(self) -> bool {
        matches!(self, Self::Ping | Self::Pong | Self::Last | Self::Proof | Self::Room)
    }

    /// How long its payload may be. Only the last piece of a body may be empty: others would cost work and say nothing.
    const fn lengths(self) -> std::ops::RangeInclusive<usize> {
        match self {
            Self::Head(_) => 1..=HEAD_BYTES_MAX,
            Self::Data(Last::No) => 1..=PAYLOAD_BYTES_MAX,
            Self::Data(Last::Yes) => 0..=PAYLOAD_BYTES_MAX,
            Self::Trailers => 2..=TRAILER_BYTES_MAX,
            Self::Reset => 1..=1,
            Self::Credit => 4..=4,
            Self::Ping | Self::Pong | Self::Room => 8..=8,
            Self::Last => 0..=0,
            Self::Proof => 1..=PROOF_BYTES_MAX,
        }
    }
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// No kind of frame has this number.
    #[error("no frame is of kind {kind}")]
    Kind {
        /// The number.
        kind: u8,
    },
    /// No frame of that kind is so long, or so short.
    #[error("a frame {kind:?} has {length} bytes")]
    Length {
        /// What the frame would say.
        kind: Kind,
        /// How long it would be.
        length: usize,
    },
    /// It names a stream where there is none, or none where there is one.
    #[error("a frame {kind:?} is of stream {stream}")]
    Stream {
        /// What the frame would say.
        kind: Kind,
        /// Of which stream.
        stream: u32,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Header, FrameError> {
        Header::read(bytes.try_into().unwrap())
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_as_it_came(bytes: [u8; HEADER_BYTES]) {
            if let Ok(header) = Header::read(bytes) {
                let mut out = BytesMut::new();
                header.put(&mut out);
                prop_assert_eq!(&out[..], &bytes[..]);
            }
        }

        #[test]
        fn what_is_written_is_read_again(number in 1u8..=12, stream in 1u32..=STREAM_MAX, at in 0usize..=PAYLOAD_BYTES_MAX) {
            let kind = Kind::of(number).unwrap();
            let lengths = kind.lengths();
            let length = lengths.start() + at % (lengths.end() - lengths.start() + 1);
            let header = Header { kind, length, stream: if kind.is_of_none() { 0 } else { stream } };
            let mut out = BytesMut::new();
            header.put(&mut out);
            prop_assert_eq!(read(&out), Ok(header));
        }
    }

    #[test]
    fn what_no_peer_of_ours_writes_is_no_frame() {
        assert_eq!(read(&[0, 0, 0, 0, 0, 0, 0, 1]), Err(FrameError::Kind { kind: 0 }));
        assert_eq!(read(&[13, 0, 0, 0, 0, 0, 0, 1]), Err(FrameError::Kind { kind: 13 }));
        for (what, bytes) in [
            ("an empty head", [1, 0, 0, 0, 0, 0, 0, 1]),
            ("a head that is too long", [2, 0, 0x80, 1, 0, 0, 0, 1]),
            ("an empty piece that is not the last", [3, 0, 0, 0, 0, 0, 0, 1]),
            ("a piece that is too long", [3, 1, 0, 1, 0, 0, 0, 1]),
            ("a reset without a reason", [6, 0, 0, 0, 0, 0, 0, 1]),
            ("a credit of five bytes", [7, 0, 0, 5, 0, 0, 0, 1]),
            ("a ping of seven bytes", [8, 0, 0, 7, 0, 0, 0, 0]),
            ("a word too many", [10, 0, 0, 1, 0, 0, 0, 0]),
        ] {
            assert!(matches!(read(&bytes), Err(FrameError::Length { .. })), "{what}");
        }
        for (what, bytes) in [
            ("a head of no stream", [1, 0, 0, 1, 0, 0, 0, 0]),
            ("a ping of a stream", [8, 0, 0, 8, 0, 0, 0, 1]),
            ("a proof of a stream", [11, 0, 0, 8, 0, 0, 0, 1]),
            ("room of a stream", [12, 0, 0, 8, 0, 0, 0, 1]),
            ("a number beyond the highest", [3, 0, 0, 1, 0x80, 0, 0, 0]),
        ] {
            assert!(matches!(read(&bytes), Err(FrameError::Stream { .. })), "{what}");
        }
    }
}
