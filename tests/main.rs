//! The suite: the real binary, real sockets, real certificates. Each module is one subject.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "the suite is the outside world: it reads the environment as a user would"
)]

mod agreement;
mod attestation;
mod clients;
mod crash;
mod foreign;
mod layout;
mod lifetimes;
mod newcomer;
mod spine;
mod support;
