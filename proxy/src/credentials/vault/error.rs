//! Why a vault gave nothing. No error has a value, a token or a lease in it.

use std::io;
use std::path::PathBuf;

use http::StatusCode;
use thiserror::Error;

use super::super::secret::NoSecret;
use super::settings::{VaultPath, VaultWord};

/// Why a vault did not do what it was asked for.
#[derive(Debug, Error)]
#[error("{doing} of vault {vault} at {address}")]
pub struct VaultError {
    /// What was asked for: `read kv/data/crm`.
    pub doing: String,
    /// Which vault.
    pub vault: VaultWord,
    /// Where it is.
    pub address: String,
    /// Why not.
    #[source]
    pub cause: Cause,
}

/// What happened.
#[derive(Debug, Error)]
pub enum Cause {
    /// Nobody answers.
    #[error("nobody answers there")]
    Connect {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Whoever answers did not prove to be it, or did not take the certificate of this host.
    #[error("TLS with it failed; `ca` names the authorities that may vouch for it")]
    Tls {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file of authorities cannot be used.
    #[error("read the authorities in {file}", file = file.display())]
    Ca {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error("set up TLS")]
    SetUp {
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// It broke off, or does not speak HTTP.
    #[error("it broke off or does not speak HTTP")]
    Http {
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("it did not answer in time")]
    Slow,
    /// Its answer is longer than any.
    #[error("its answer is longer than 64 KiB")]
    Long,
    /// Its answer is none of those that are documented.
    #[error("its answer is not the one that is documented for this question")]
    Answer,
    /// It points elsewhere.
    #[error(
        "it points elsewhere ({status}), and nothing is followed: name the address of the server that answers by itself"
    )]
    Redirect {
        /// How.
        status: StatusCode,
    },
    /// It is sealed, a standby that does not answer, or has trouble of its own.
    #[error("it is sealed or in trouble ({status}): see `bao status` and its log")]
    Away {
        /// How it said so.
        status: StatusCode,
    },
    /// This host has no SVID to log in by.
    #[error("this host has no valid SVID at the moment to log in by: see `botmesh proxy status`")]
    NoSvid,
    /// The token to log in by cannot be read.
    #[error("read the token in {file}", file = file.display())]
    NoToken {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It does not let this host in.
    #[error(
        "it does not let this host in by role {role} of auth/{mount} ({status}){}",
        words.as_ref().map(|words| format!(": {words}")).unwrap_or_default()
    )]
    Login {
        /// Where the method is mounted.
        mount: VaultPath,
        /// The role.
        role: VaultWord,
        /// How it said so.
        status: StatusCode,
        /// What it said.
        words: Option<String>,
    },
    /// The role of this host may not.
    #[error(
        "it does not let this host do that: the policy of its role needs `path {path:?} {{ capabilities = [{capability:?}] }}`"
    )]
    Denied {
        /// Of what.
        path: String,
        /// Which right is missing.
        capability: &'static str,
    },
    /// There is nothing.
    #[error("there is nothing: of KV version 2 the path is MOUNT/data/PATH, and `bao kv get` shows what is there")]
    Nothing,
    /// The newest version was deleted.
    #[error("version {version}, the newest, was deleted: `bao kv undelete` or `bao kv put` brings one back")]
    Deleted {
        /// Which.
        version: u64,
    },
    /// The newest version was destroyed.
    #[error("version {version}, the newest, was destroyed: `bao kv put` makes another one")]
    Destroyed {
        /// Which.
        version: u64,
    },
    /// The secret has no such key.
    #[error("it has no key {key} with a text")]
    NoKey {
        /// The key.
        key: VaultWord,
    },
    /// What is there is no value.
    #[error("what is there is no value of a credential")]
    NoSecret {
        /// Why.
        #[source]
        source: NoSecret,
    },
    /// What it gave does not end.
    #[error("what it gave is no lease, so nobody could revoke it: what does not end is read by `path` and `key`")]
    NoLease,
    /// A lease of another kind than the credential.
    #[error("its lease has no {wanted}, which {injection} needs; another field is named by `key`")]
    Fields {
        /// What is missing.
        wanted: &'static str,
        /// How the value is added.
        injection: &'static str,
    },
    /// There is no such vault any more.
    #[error("credentials.vaults of proxy.yaml has no such vault")]
    Unknown,
    /// Another answer.
    #[error("it answers {status}: its log says why")]
    Status {
        /// Which.
        status: StatusCode,
    },
}
