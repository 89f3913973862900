//! HTTP/1.1, read and written strictly: RFC 9112 without its repairs.
//!
//! **Why our own and not hyper's HTTP/1.** Whatever a bot or a foreign peer sends by HTTP/1 is read here, and so is
//! what a callee answers. hyper accepts and silently repairs input that two readers could read differently: two
//! `Host` fields, `Content-Length` beside `Transfer-Encoding`, bare line feeds, a fragment in the target. A gate in
//! front of it would have to parse every head and every chunk a second time. One strict reader is less work per
//! request, keeps no buffer for an idle connection, and leaves one reading of the bytes: what was decided on is what
//! is forwarded. HTTP/2, whose framing is not ambiguous, stays with hyper.
//!
//! Nothing here knows of bots, rules or ledgers.
//!
//! - [`scan`] finds the end of a head; [`head`] and [`status`] read requests and answers, out of [`field`]s,
//!   [`target`]s and [`framing`].
//! - [`chunk`] reads chunked bodies; [`body`] streams a body out of a [`read::Reader`] that comes home afterwards.
//! - [`encode`] turns messages into bytes, [`mod@write`] sends them, [`answer`] streams an answer; [`date`] and
//!   [`deadline`] serve them.

pub mod answer;
pub mod body;
pub mod chunk;
pub mod date;
pub mod deadline;
pub mod encode;
pub mod field;
pub mod framing;
pub mod head;
pub mod read;
pub mod scan;
pub mod status;
pub mod target;
pub mod write;

#[cfg(test)]
mod tests;

use std::time::Duration;

/// The longest head of a request or an answer, its last empty line included. RFC 9112 §3 asks for at least 8000 bytes
/// of request line; heads beyond this are the amplification of RFC 9113 §10.5.1.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;

/// The most fields in a head.
pub const FIELDS_MAX: usize = 100;

/// The most bytes of trailers, their empty line included.
pub const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// The most fields in trailers.
pub const TRAILER_FIELDS_MAX: usize = 32;

/// The deadlines and bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first byte of a head to its last: what a slow sender may take.
    pub head: Duration,
    /// How long a connection may stay open between two calls.
    pub idle: Duration,
    /// The longest silence inside a body, in either direction.
    pub body_idle: Duration,
    /// The most bytes of one body. Bodies are streamed: this bounds time and money, not memory.
    pub body_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            body_idle: Duration::from_secs(30),
            body_bytes_max: 1 << 40,
        }
    }
}
