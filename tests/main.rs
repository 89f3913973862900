//! The suite: the real binary, real sockets, real certificates. Each module is one subject.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say by printing why one cannot run"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "the suite is the outside world: it reads clocks and the environment as a user would"
)]

mod agreement;
mod aside;
mod asking;
mod attestation;
mod away;
mod callee;
mod check;
mod clients;
mod cosigning;
mod crash;
mod credentials;
mod databases;
mod destinations;
mod disk;
mod endpoints;
mod export;
mod federation;
mod floods;
mod foreign;
mod grpc;
mod h2c;
mod hashed;
mod hostile;
mod idle;
mod imports;
mod kill;
mod layout;
mod lifetimes;
mod malicious_host;
mod metrics;
mod netns;
mod newcomer;
mod outside;
mod passes;
mod privileges;
mod proofs;
mod reconcile;
mod reproof;
mod resilience;
mod restart;
mod retention;
mod rules;
mod scan;
mod seen;
mod skew;
mod soak;
mod spine;
mod support;
mod tcp;
mod upgrade;
mod watching;
mod ways;
mod websocket;
mod witnessing;
