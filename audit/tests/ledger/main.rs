//! The ledger on a real disk: appending, repairing, sealing, verifying, reading.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod counts;
mod crash;
mod epochs;
mod follow;
mod full;
mod indexed;
mod open;
mod read;
mod reconciled;
mod retention;
mod support;
mod tamper;
mod write;
