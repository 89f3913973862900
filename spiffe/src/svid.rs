//! The two certificates of X.509-SVID: the leaf that authenticates, and the authority that signs.
//!
//! Parsing checks every rule that one certificate can break by itself. Whether a chain leads to a trusted authority, and
//! whether now is inside the validity, is for `spiffe_tls`.

mod authority;
mod error;
mod extensions;
mod leaf;
mod serial;

pub use authority::{Authority, AuthorityKey};
pub use error::SvidError;
pub use leaf::Leaf;
pub use serial::{SERIAL_BYTES_MAX, Serial, SerialError};

/// The most bytes that a certificate may have. Public certificates are around one or two KiB; this bounds what a
/// stranger can make us parse.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests;
