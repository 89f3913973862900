//! What two proxies of this kind speak to each other: many calls on one connection, and as little between them as can be.
//!
//! **Why our own and not HTTP/2.** A call is one head and one body each way, and both ends are this program. With HTTP/2
//! each call costs its fields two codings, two tasks at the calling end and one at the called one, and some hand-overs
//! between them (`BENCHMARKS.md` has the figures). Here a head is written as HTTP/1.1 writes it and is read by the same
//! strict reader ([`crate::http1`]); whoever calls writes its frames itself, and one task for each connection reads and
//! writes the socket: whatever is ready together leaves in one write. It is chosen by ALPN (`ALPN`), so a foreign peer
//! never sees it.
//!
//! - [`frame`] is the wire; `state` knows what may be said, and bounds all that a peer can make this end keep; `drive` is
//!   the task; `link`, `caller` and `called` are what others use.
//!
//! Bounds: `STREAMS_MAX` calls at a time; of bodies that were sent and not taken yet as much as each end says (`Room`),
//! within the budget of the process (`crate::windows`), where each piece counts `PIECE_COST` more than its bytes; heads
//! and trailers as in HTTP/1.1. Calls that are broken off, and what a peer makes this end say while it reads nothing, are
//! bounded too.

mod called;
mod caller;
mod drive;
mod first;
pub mod frame;
mod link;
mod out;
mod state;
mod stream;
#[cfg(test)]
mod tests;

use thiserror::Error;

use crate::http1::head::HeadError;
use crate::http1::scan::Scanner;
use crate::windows::Window;

pub(crate) use called::{Call, Called, serve};
pub(crate) use caller::{Caller, NotCalled, PROOFS_MAX, begin};
pub(crate) use link::{Body, Proofs, Unneeded};

/// What two proxies choose when they shake hands.
pub(crate) const ALPN: &[u8] = b"botmesh-hop/1";

/// The most calls at a time on one connection.
pub(crate) const STREAMS_MAX: usize = crate::mesh::STREAMS_MAX as usize;

/// How much of bodies may be under way in one direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    /// Of all of them: more than one slow call can hold.
    all: usize,
    /// Of one.
    one: usize,
}

impl Room {
    /// What both ends have until the other says more.
    const LEAST: Self = Self {
        all: 64 * 1024 - 1,
        one: 16 * 1024 - 1,
    };

    /// The most that an end may say.
    const MOST: Self = Self {
        all: crate::mesh::CONNECTION_WINDOW as usize,
        one: crate::mesh::STREAM_WINDOW as usize,
    };

    fn of(window: &Window) -> Self {
        // Both are less than the most.
        let bytes = |bytes: u32| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            all: bytes(window.bytes()),
            one: bytes(window.of_stream()),
        }
    }

    fn payload(self) -> [u8; 8] {
        let number = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let both = u64::from(number(self.all)) << 32 | u64::from(number(self.one));
        both.to_be_bytes()
    }

    /// Reads what the other end says; nothing where it says less than the least or more than the most.
    fn read(payload: &[u8]) -> Option<Self> {
        let (all, one) = payload.split_first_chunk::<4>()?;
        let number = |bytes: [u8; 4]| usize::try_from(u32::from_be_bytes(bytes)).ok();
        let room = Self {
            all: number(*all)?,
            one: number(one.try_into().ok()?)?,
        };
        let all = (Self::LEAST.all..=Self::MOST.all).contains(&room.all);
        let one = (Self::LEAST.one..=Self::MOST.one).contains(&room.one);
        (all && one).then_some(room)
    }
}

/// What a piece of a body counts beside its bytes: the memory that it needs beside them.
const PIECE_COST: usize = 64;

/// Takes a head only as the reader of heads cuts it off a connection: nothing is missing, and nothing follows it.
///
/// # Errors
///
/// As the scanner's, and for a head that is not whole or goes on.
pub(crate) fn check_whole(head: &[u8]) -> Result<(), HeadError> {
    match Scanner::default().scan(head)? {
        Some(length) if length == head.len() => Ok(()),
        Some(_) | None => Err(HeadError::BareLineFeed),
    }
}

/// Tells whether field lines end where they end: nothing follows the empty line.
fn are_whole(lines: &[u8]) -> bool {
    let end = lines.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
    lines == b"\r\n" || (!lines.starts_with(b"\r\n") && end == Some(lines.len()))
}

/// Why a connection, or a stream of it, has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Ended {
    /// The peer closed it, or nobody needs it.
    #[error("the connection was closed")]
    Closed,
    /// It failed.
    #[error("the connection broke off")]
    Broken,
    /// The peer said what no peer of ours says.
    #[error("the other proxy broke the rules of the hop")]
    Protocol,
    /// The peer made this end say or begin too much.
    #[error("the other proxy asked for too much that it did not take")]
    Flood,
    /// The peer says nothing any more.
    #[error("the other proxy says nothing any more")]
    Silent,
    /// The peer ended the stream.
    #[error("the other proxy ended the call: {0:?}")]
    Reset(Reset),
    /// What this end sends on the stream broke off.
    #[error("the body of the call broke off")]
    Body,
    /// A body was not as long as its head says.
    #[error("the body of the call is not as long as its head says")]
    Length,
}

impl Ended {
    /// The word by which a connection counts that the peer's fault has ended.
    pub(crate) const fn blame(self) -> Option<&'static str> {
        match self {
            Self::Protocol => Some("protocol"),
            Self::Flood => Some("flood"),
            Self::Closed | Self::Broken | Self::Silent | Self::Reset(_) | Self::Body | Self::Length => None,
        }
    }
}

/// Why one end ended a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reset {
    /// It has not begun to carry the call.
    Refused,
    /// The caller wants no answer any more.
    Cancel,
    /// The answer is whole; the rest of the request is not needed.
    Enough,
    /// It cannot go on.
    Failed,
    /// Whoever it got the body from ended that with this error code of HTTP/2 (RFC 9113 §7), one of [`CODES`].
    Code(u8),
}

/// The error codes of HTTP/2.
const CODES: std::ops::RangeInclusive<u8> = 0..=13;

/// What the number of the first of them is in a frame.
const CODES_FROM: u8 = 16;

impl Reset {
    /// Says why a body broke off, by what its error has to say of it.
    fn by(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut at = Some(error);
        while let Some(error) = at {
            let reason = error.downcast_ref::<h2::Error>().and_then(h2::Error::reason);
            if let Some(reason) = reason {
                let code = u8::try_from(u32::from(reason)).ok().filter(|code| CODES.contains(code));
                return code.map_or(Self::Failed, Self::Code);
            }
            at = error.source();
        }
        Self::Failed
    }

    const fn number(self) -> u8 {
        match self {
            Self::Refused => 1,
            Self::Cancel => 2,
            Self::Enough => 3,
            Self::Failed => 4,
            Self::Code(code) => CODES_FROM + code,
        }
    }

    fn of(payload: &[u8]) -> Self {
        match payload {
            [1] => Self::Refused,
            [2] => Self::Cancel,
            [3] => Self::Enough,
            [number] => {
                let code = number.checked_sub(CODES_FROM).filter(|code| CODES.contains(code));
                code.map_or(Self::Failed, Self::Code)
            }
            _ => Self::Failed,
        }
    }
}
