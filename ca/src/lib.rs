//! Issues identity, keeps the mesh file, serves operators.
//!
//! Promise: a certificate leaves this crate only for an ID that the live mesh (or a
//! join token) grants to the very host that asks, only after it was read back and
//! found to say exactly that, and only after it is recorded in the store and in the
//! ledger. So does a token, for the one audience that a rule of the bot is about. A mesh goes live whole or not at all, after its own tests, under a number
//! that only goes up.
//!
//! Deliberately absent: rotation of the root and other key stores, grants, trust
//! domains of others, operators over the network, several CA servers on one
//! database: the configuration keys for these are refused. Nothing here decides a
//! call; that is `policy`, at both ends of the call.
//!
//! - [`Config`] is the file, [`Settings`] what it means.
//! - [`init`] makes a CA, once. [`start`] and [`run`] serve it.
//! - `federation` signs tokens and serves what verifies them, where it is configured.
#![forbid(unsafe_code)]

mod admin;
mod alerts;
mod authority;
mod config;
mod core;
mod cosigner;
mod dashboard;
mod federation;
mod heads;
mod http1;
mod init;
mod issue;
mod journal;
mod keys;
mod mesh_file;
mod metrics;
mod node;
mod observed;
mod quarantine;
mod questions;
mod quota;
mod refusals;
mod rotation;
mod run;
mod server_identity;
mod store;
mod tally;
mod watch;
mod webhook;
mod witness;
mod world;

pub use admin::{SocketError, UnknownUser};
pub use authority::SignError;
pub use config::{
    AdminConfig, Config, ConfigError, DashboardConfig, Defaults, DiskKeysConfig, EndpointConfig, FederationConfig,
    Issuer, IssuerError, Keep, KeysConfig, LedgerSection, NodeApiConfig, Operator, SecretSource, Settings, StoreConfig,
    TlsFiles, WITNESSES_MAX, WatchSettings, WebhookSettings, WitnessConfig, WitnessUrl, WitnessUrlError,
};
pub use cosigner::CosignerError;
pub use federation::{CertificateError, FederationError};
pub use init::{InitError, InitReport, init};
pub use issue::IssueError;
pub use journal::JournalError;
pub use keys::KeyError;
pub use mesh_file::MeshError;
pub use node::ServeError;
pub use run::{Addresses, RunError, Running, run, start};
pub use server_identity::IdentityError;
pub use store::StoreError;
pub use webhook::{SecretError, WebhookError};

/// A SHA-256.
type Digest = [u8; 32];

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
