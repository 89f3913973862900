//! The JSON of the proxy's admin socket (operators) and of the questions that a
//! bot may ask about itself on the bot socket.
//!
//! Refusals are [`crate::admin::Problem`]s.

mod calls;
mod credentials;
mod doctor;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spiffe::id::{BotName, HostName, TrustDomain};
use spiffe::selector::Facts;
use spiffe::time::Timestamp;

pub use calls::{CalleeCalls, Calls, EndpointCalls, ShutOut};
pub use credentials::{
    BotToken, Consumer, CredentialPut, CredentialStatus, CredentialTest, CredentialsResponse, TokenStatus,
};
pub use doctor::{Alike, CalleeFound, CalleeLook, Doctor, Replayed, ShareLook, TokenLook};

use crate::Generation;
use crate::admin::{Quarantine, Quarantined};

/// The paths of the admin API and of the bot side's own questions.
pub mod path {
    /// `GET` → [`ProxyStatus`](super::ProxyStatus).
    pub const STATUS: &str = "/v1/status";
    /// `GET ?pid=` or `?port=` → [`WhoisResponse`](super::WhoisResponse).
    pub const WHOIS: &str = "/v1/whois";
    /// `POST` a [`RunRequest`](super::RunRequest) → [`RunResponse`](super::RunResponse).
    pub const RUN: &str = "/v1/run";
    /// `POST` a [`QuarantineRequest`](crate::admin::QuarantineRequest) → [`LocalQuarantines`](super::LocalQuarantines):
    /// enforced on this host when the answer comes, with the CA or without it.
    pub const QUARANTINE: &str = "/v1/quarantine";
    /// `POST` a [`ReleaseRequest`](crate::admin::ReleaseRequest) → [`LocalQuarantines`](super::LocalQuarantines); only
    /// what was set on this host can be released on it.
    pub const RELEASE: &str = "/v1/release";
    /// `GET` → [`LocalQuarantines`](super::LocalQuarantines).
    pub const QUARANTINES: &str = "/v1/quarantines";
    /// `GET` → [`BotsResponse`](super::BotsResponse).
    pub const BOTS: &str = "/v1/bots";
    /// `GET` → [`Doctor`](super::Doctor): what only the proxy can try.
    pub const DOCTOR: &str = "/v1/doctor";
    /// `GET` → [`CredentialsResponse`](super::CredentialsResponse).
    pub const CREDENTIALS: &str = "/v1/credentials";
    /// `POST` a [`CredentialPut`](super::CredentialPut) → [`CredentialsResponse`](super::CredentialsResponse): the next call gets
    /// the value.
    pub const CREDENTIAL_PUT: &str = "/v1/credentials/put";
    /// `POST` a [`CredentialTest`](super::CredentialTest) → [`CredentialsResponse`](super::CredentialsResponse): the value is read
    /// anew.
    pub const CREDENTIAL_TEST: &str = "/v1/credentials/test";
    /// `POST` a [`HoldRequest`](super::HoldRequest) → [`LedgerHold`](super::LedgerHold): nothing of the ledger is pruned.
    pub const LEDGER_HOLD: &str = "/v1/ledger/hold";
    /// `POST` → [`LedgerHold`](super::LedgerHold): what is past its time is pruned again.
    pub const LEDGER_RELEASE: &str = "/v1/ledger/release";
    /// `GET` → [`WhoAmI`](super::WhoAmI); about the process that asks.
    pub const WHOAMI: &str = "/v1/whoami";
}

/// How the proxy is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Its host.
    pub host: HostName,
    /// Its software.
    pub version: String,
    /// Its time.
    pub now: Timestamp,
    /// Whether it can carry calls.
    pub ready: bool,
    /// Why not, one sentence each.
    pub not_ready: Vec<String>,
    /// Whether the stream to the CA is up.
    pub ca_connected: bool,
    /// When the CA was last heard.
    pub ca_heard: Option<Timestamp>,
    /// The policy that it enforces.
    pub generation: Option<Generation>,
    /// When its node SVID ends.
    pub node_svid_not_after: Option<Timestamp>,
    /// Started without root: identities among processes of one user are a
    /// convenience, not a boundary.
    pub same_user: bool,
    /// Listener → bound address.
    pub listeners: BTreeMap<String, String>,
    /// The folder of its ledger.
    pub ledger: String,
    /// The user that it runs as, and so the owner of its sockets; a proxy of an earlier version does not say.
    #[serde(default)]
    pub uid: Option<u32>,
    /// The folder of its key and its cache; a proxy of an earlier version does not say.
    #[serde(default)]
    pub state_dir: Option<String>,
    /// Its process; a proxy of an earlier version does not say.
    #[serde(default)]
    pub pid: Option<u32>,
    /// Its calls and their callees; a proxy of an earlier version does not say.
    #[serde(default)]
    pub calls: Option<Calls>,
    /// What an operator should know.
    pub notes: Vec<String>,
}

/// To hold the ledger of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldRequest {
    /// Why, for whoever finds it.
    pub reason: String,
    /// It ends by itself after so many seconds.
    #[serde(default)]
    pub for_seconds: Option<u64>,
}

/// The hold of a ledger; nothing where there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerHold {
    /// Why.
    pub reason: Option<String>,
    /// Who began it.
    pub by: Option<String>,
    /// When.
    pub since: Option<Timestamp>,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
}

/// What the proxy knows of one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoisResponse {
    /// What the kernel says.
    pub facts: Facts,
    /// The bot that it is.
    pub bot: Option<BotName>,
    /// Why it is none, one sentence.
    pub message: String,
    /// The entry that came nearest.
    pub nearest: Option<BotName>,
    /// What differed there: selector, wanted, found.
    pub differs: Option<SelectorDifference>,
    /// A `bots:` entry for it, ready to paste.
    pub entry: String,
}

/// One selector that missed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelectorDifference {
    /// Its name: `user`, `exe`, …
    pub selector: String,
    /// What the entry has.
    pub wanted: String,
    /// What the process has.
    pub found: String,
}

/// The quarantines that this host enforces: the union of both lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalQuarantines {
    /// Set on this host.
    pub local: Vec<Quarantine>,
    /// Set at the CA.
    pub mesh: Vec<Quarantined>,
    /// Streams that the request cut.
    pub streams_cut: u64,
}

/// Asks to bind a bot to the process that asks (by its peer credentials).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// The bot.
    pub bot: BotName,
}

/// What a process started by `botmesh run` is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunResponse {
    /// The bot.
    pub bot: BotName,
    /// Its SPIFFE ID.
    pub id: String,
    /// The process that was bound.
    pub pid: u32,
    /// Environment variables to set.
    pub environment: BTreeMap<String, String>,
    /// Environment variables to empty.
    pub unset: Vec<String>,
}

/// One bot that this host may claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotStatus {
    /// Its name.
    pub bot: BotName,
    /// Its SPIFFE ID.
    pub id: String,
    /// Whether it has a valid SVID.
    pub ready: bool,
    /// The serial of its SVID, lower hexadecimal.
    pub serial: Option<String>,
    /// When the SVID ends.
    pub not_after: Option<Timestamp>,
    /// Where it serves on this host.
    pub serves: Option<String>,
    /// The ports of 127.0.0.1 that it serves on, which every process of the host can reach unless they are guarded.
    #[serde(default)]
    pub open_ports: Vec<u16>,
    /// What is wrong with it, one sentence each.
    pub notes: Vec<String>,
}

/// The bots that this host may claim, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotsResponse {
    /// They.
    pub bots: Vec<BotStatus>,
}

/// Who the asking process is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoAmI {
    /// The bot that it is.
    pub bot: Option<BotName>,
    /// Its SPIFFE ID.
    pub id: Option<String>,
    /// The host.
    pub host: HostName,
    /// What the kernel says.
    pub facts: Facts,
    /// When its SVID ends.
    pub svid_not_after: Option<Timestamp>,
    /// Why it is nobody, or that the identity is a convenience only.
    pub message: String,
    /// The bots that it may call.
    pub may_call: Vec<BotName>,
}
