//! Attestation against real processes, real users and real sockets.
//!
//! The processes are this very test binary, copied to a path of its own and started again as an *actor* that does what
//! the test tells it: connect, send, pass a socket on, execute, leave. Where this runs as root each actor has a user of
//! its own; tests that need that say `skipped: …` elsewhere.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]
#![expect(
    clippy::print_stdout,
    reason = "actors answer and skips are told on the standard output"
)]

#[path = "attest/actor.rs"]
mod actor;
#[path = "attest/callee.rs"]
mod callee;
#[path = "attest/cgroup.rs"]
mod cgroup;
#[path = "attest/facts.rs"]
mod facts;
#[path = "attest/group.rs"]
mod group;
#[path = "attest/run.rs"]
mod run;
#[path = "attest/tcp.rs"]
mod tcp;
#[path = "attest/unix.rs"]
mod unix;
#[path = "attest/watched.rs"]
mod watched;
#[path = "attest/world.rs"]
mod world;

#[test]
#[ignore = "not a test: what the other tests start as their actors"]
fn actor() {
    actor::act();
}
