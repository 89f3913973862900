//! The CA over its real sockets: hosts by mutual TLS, operators by a Unix socket.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests fail by panicking"
)]

mod admin;
mod federation;
mod heads;
mod issue;
mod join;
mod ledgers;
mod profile;
mod quarantine;
mod restart;
mod rotation;
mod support;
mod sync;
mod watch;
mod webhook;
#[path = "../../../tests/support/witness.rs"]
mod witness;
mod witnesses;
