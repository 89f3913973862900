//! Trust domains and SPIFFE IDs, and the names that botmesh builds them from.
//!
//! The grammar is SPIFFE-ID §2, read strictly: only the exact lower-case `spiffe://` is accepted, and nothing is
//! normalised. Two IDs are equal exactly when their bytes are.

mod bot;
mod error;
mod host;
mod spiffe_id;
mod text;
mod trust_domain;

pub use bot::{BOT_NAME_SEGMENTS_MAX, BotName};
pub use error::IdError;
pub use host::{HostName, HostPattern};
pub use spiffe_id::{IdKind, SPIFFE_ID_BYTES_MAX, SpiffeId};
pub use trust_domain::{TRUST_DOMAIN_BYTES_MAX, TrustDomain};

#[cfg(test)]
mod tests;
