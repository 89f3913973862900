//! The attest helper: a small process that may look into other users' processes, so that the proxy, which parses what
//! strangers send, may not.
//!
//! The proxy starts it ([`start`]) while it is still root, and talks to it over a socketpair ([`Helper`]). The helper
//! ([`run`]) becomes the proxy's user, keeps CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, opens no socket of its own, and
//! answers the questions of `super::sight`: which program a process runs, whether a file is that program and who could
//! have put it there, who holds a socket. It knows neither entries nor policy, and changes nothing.
//!
//! The open memory map of a pinned process comes as a file descriptor (SCM_RIGHTS). The kernel decides at open(2) who may
//! read a map, so the check before each request stays a few local system calls.
//!
//! # How it ends
//! The helper ends when the proxy's end of the socketpair closes. The proxy ends when the helper does: see
//! [`Helper::gone`].
//!
//! # Bounds
//! One question and its answer at a time per channel, [`FAST_MAX`] and [`SLOW_MAX`] channels; a frame has at most
//! [`frame::BODY_BYTES_MAX`] bytes. An answer that does not come in time costs its channel and refuses whoever asked.

mod client;
pub mod frame;
mod process;
mod serve;
mod wire;

pub use client::{FAST_MAX, Helper, SLOW_MAX};
pub use process::{HelperError, run, start};
pub use wire::reads_back;

#[cfg(test)]
pub(super) mod tests;
