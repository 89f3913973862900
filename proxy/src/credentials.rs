//! Credentials that this proxy adds to calls of its bots, so that no bot holds one.
//!
//! The mesh file names them and says how they are added; the values are on this host (`source`), are kept in memory for a
//! bounded time and wiped after it (`store`), are exchanged for short tokens where the mesh file says so (`exchange`,
//! `token`), are a bot's own JWT-SVID where the mesh file has no value at all (`svid`), are handed out against a `Permit` alone, and are taken out of whatever a
//! service answers (`mask`). Errors, logs and records hold names and fingerprints, never a value.

pub mod age;
pub mod detect;
mod events;
pub mod exchange;
mod forms;
mod hmac;
mod hook;
pub(crate) mod inject;
pub(crate) mod lease;
pub(crate) mod mask;
mod percent;
mod secret;
mod sigv4;
mod source;
mod store;
mod svid;
mod token;
mod vault;

pub(crate) use events::Events;
pub use hook::NoHook;
pub use secret::{NoSecret, SECRET_BYTES_MAX, SECRET_BYTES_MIN, Secret};
pub use source::{Environment, KeyError, Sealer, Source, SourceError};
pub(crate) use source::{Shape, Which};
pub(crate) use store::{Credentials, Loaded, Outward, PutError, RotateError, State, Unavailable};
pub(crate) use svid::Signer;
pub(crate) use token::Counts;
pub(crate) use token::TokenState;
pub use vault::{
    ByCert, ByJwt, Cause, Login, Stored, VAULTS_MAX, VaultAddress, VaultAddressError, VaultConfig, VaultError,
    VaultPath, VaultSource, VaultWord, What,
};
pub(crate) use vault::{NodeIdentity, Vaults};

/// The longest body that is signed: all of it has to be here before the first byte of the request is sent.
pub(crate) const SIGNED_BODY_MAX: usize = 1024 * 1024;

/// Writes bytes in lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to memory does not fail.
            let _written: std::fmt::Result = write!(text, "{byte:02x}");
            text
        })
}
