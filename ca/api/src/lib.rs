//! The contract between CA, proxy and command line: the node API (gRPC), the
//! join token, and the JSON of both admin sockets.
//!
//! Promise: a type here says what may be on the wire and nothing else. Both ends
//! build against this one crate, so that a field, a path, a bound or a reason
//! word cannot mean two things.
//!
//! Deliberately absent: clients, servers and sockets, any decision about what is
//! in a message, and any type of the policy (slices travel as JSON bytes that the
//! mesh-file parser reads).
#![forbid(unsafe_code)]

pub mod admin;
pub mod generation;
mod hex;
pub mod node;
pub mod observation;
pub mod proxy_admin;
pub mod rotation;
pub mod token;

pub use generation::Generation;
pub use token::{JoinToken, TokenError, TokenSecret};
