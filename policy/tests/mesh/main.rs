//! The crate as its users see it: files in, verdicts out.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::string_slice,
    reason = "tests fail by panicking"
)]

mod brute;
mod credentials;
mod generate;
mod golden;
mod hashed;
mod limits;
mod postgres;
mod properties;
mod protocols;
mod verdicts;
mod webhooks;
