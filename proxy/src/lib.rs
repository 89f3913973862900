//! Attests local bots, decides their calls, records them, and carries them: the proxy of one host.
//!
//! Promise: no byte of a call leaves this host, and none reaches a bot of this host, without a [`policy::Permit`] and
//! an [`audit::Receipt`]; forwarding consumes both. Whoever calls was named by the kernel ([`attest`]) or by an SVID
//! that was verified; whoever is called was too. What two readers could read differently is refused ([`http1`]).
//!
//! Deliberately absent: keys on disk, policy of its own (it can only narrow what the mesh file allows), redirects
//! that are followed, PROXY headers that come in, retries after a byte of an answer, and any grant by address.
//!
//! - [`config`]: `proxy.yaml`. [`run()`] and [`start`]: the process.
//! - [`control`]: the host's identity, its slice of the mesh file, the SVIDs of its bots.
//! - [`attest`]: which process is which bot.
//! - [`outside`]: what leads out of the mesh.
//! - [`http1`]: one strict reading of HTTP/1.1. [`reason`]: the words for refusals.
#![forbid(unsafe_code)]

mod admin;
pub mod attest;
mod bots;
mod call;
mod callee;
pub mod config;
mod connection;
pub mod control;
pub mod credentials;
mod ends;
mod grpc;
pub mod hop;
pub mod http1;
mod http2;
mod known;
mod limiter;
mod live;
mod mesh;
mod metrics;
pub mod outside;
mod places;
mod plain;
mod pool;
pub mod postgres;
pub mod privileges;
mod proven;
mod proxy;
pub mod reason;
mod reproof;
mod rotation;
mod run;
mod seldom;
mod tcp;
mod upstream;
mod whoami;
mod windows;

pub use config::{Config, Settings};
pub use run::{Descent, DescentError, Manager, Passed, PassedError, RunError, Running, Variables, run, start};
