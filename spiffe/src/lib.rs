//! Says *who*: SPIFFE IDs, SVIDs, trust bundles, selectors and entries, each parsed once and valid ever after.
//!
//! A value of a type in this crate *is* valid: there is no `validate()`. Every rule of the SPIFFE standards that refuses
//! an identity is here, with its own error variant, so that no two parts of the mesh can read one certificate
//! differently.
//!
//! Deliberately absent: sockets, files, TLS, chain validation (`spiffe_tls` does that), keys that can sign, and any
//! decision about who may call whom. The one effect in this crate is [`time::Clock`], the only place in the whole
//! program that reads the wall clock.
//!
//! - [`id`]: trust domains, SPIFFE IDs, bot names, host names.
//! - [`svid`]: the leaf and signing certificates of X.509-SVID.
//! - [`jwt`]: JWT-SVIDs, for those who speak no mutual TLS.
//! - [`bundle`]: the trust bundle of one trust domain, as a JWK Set.
//! - [`selector`] and [`entry`]: which process is which bot.
//! - [`time`]: timestamps and the clock.

#![forbid(unsafe_code)]

pub mod bundle;
pub mod entry;
pub mod id;
pub mod jwt;
pub mod selector;
pub mod svid;
pub mod time;

#[cfg(test)]
mod forge;
