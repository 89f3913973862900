//! The JSON of the CA's admin API: HTTP/1.1 on a Unix socket, for operators.
//!
//! Every refusal is `application/problem+json` (RFC 9457), a [`Problem`].

mod alerts;
mod federation;
mod heads;
mod ledgers;
mod observed;
pub mod path;
mod quarantine;
mod rotation;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use spiffe::id::{BotName, HostName, HostPattern, TrustDomain};
use spiffe::time::Timestamp;

use crate::Generation;

pub use alerts::{CallRate, WatchAlert, WatchAlerts};
pub use federation::{BundleDocuments, EndpointStatus, EndpointTls, FederationStatus, JwtKeyState, JwtKeyStatus};
pub use heads::{LedgerHead, LedgerHeads, LedgerWitness, WitnessedHead};
pub use ledgers::{LEDGERS_WAIT_MAX, LedgerAnswered, LedgersAnswer, LedgersQuestion};
pub use observed::{Denied, EdgeCount, EdgeList, EventList, MINUTES_MAX, ToldBy};
pub use quarantine::{
    InvalidQuarantine, Quarantine, QuarantineRequest, QuarantineStatus, Quarantined, REASON_CHARS_MAX, ReleaseRequest,
};

pub use rotation::{
    AdvanceRequest, CanaryStatus, FleetCredential, FleetCredentials, FleetHost, ProbeStatus, RotateRequest,
    RotationStatus, Use,
};

/// The largest body of a request: the mesh file, whose slices must fit
/// [`crate::node::DOWN_MESSAGE_BYTES_MAX`].
pub const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The longest that [`path::GENERATION`] waits.
pub const WAIT_SECONDS_MAX: u64 = 30;

/// How long a join token is taken when nothing else is asked (DESIGN: 10 minutes).
pub const TOKEN_TTL_SECONDS: u64 = 600;

/// The media type of a [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Why a request was refused (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `about:blank`, or the URI of a kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// One line.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What to do about it; several lines for diagnostics.
    pub detail: String,
    /// One stable word: `not_an_operator`, `bad_request`, `invalid_mesh`,
    /// `tests_failed`, `base_mismatch`, `other_trust_domain`, `no_such_host`,
    /// `no_such_bot`, `no_such_revision`, `not_quarantined`, `not_found`, `unavailable`.
    pub code: String,
}

/// One file of the mesh, as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeshSource {
    /// The name that diagnostics show.
    pub name: String,
    /// The file.
    pub text: String,
}

/// Asks to make these files the live mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// The whole mesh.
    pub sources: Vec<MeshSource>,
    /// The generation that these files were last applied over; `None` only fits a
    /// CA with nothing applied.
    #[serde(default)]
    pub base: Option<Generation>,
    /// Applies whatever is live.
    #[serde(default)]
    pub force: bool,
    /// Checks and tests, and changes nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// The answer to `apply` and `rollback`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyResponse {
    /// What is live after the request (after a dry run: what stayed live).
    pub generation: Generation,
    /// Warnings of the mesh file, rendered without colour.
    pub warnings: Vec<String>,
    /// Its tests.
    pub tests: TestCounts,
    /// The same files were live already: no new revision was made.
    pub unchanged: bool,
    /// Nothing was changed because it was asked so.
    pub dry_run: bool,
}

/// How many calls of the mesh file's tests were decided as they say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestCounts {
    /// As they say.
    pub passed: u64,
    /// Otherwise.
    pub failed: u64,
}

/// What one host says about one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// Applied; a receipt says so.
    Live,
    /// No receipt yet.
    Behind,
    /// The receipt says that it could not be applied.
    Failed,
}

/// One host's receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostGeneration {
    /// The host.
    pub host: HostName,
    /// Whether its stream is up.
    pub connected: bool,
    /// What it says about the generation.
    pub state: HostState,
    /// The newest generation it applied.
    pub applied: Option<Generation>,
    /// Why it could not apply; empty otherwise.
    pub error: String,
    /// It is quarantined, so it is sent no slice and counts for no generation of the mesh. Always false where quarantines
    /// themselves are asked about: those it is sent.
    #[serde(default)]
    pub quarantined: bool,
}

/// "Live on N of M".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationStatus {
    /// The generation asked about.
    pub generation: Generation,
    /// Every host that is not evicted.
    pub hosts: Vec<HostGeneration>,
}

impl GenerationStatus {
    /// How many connected hosts have it live.
    #[must_use]
    pub fn live(&self) -> usize {
        self.connected().filter(|host| host.state == HostState::Live).count()
    }

    /// How many hosts are connected.
    #[must_use]
    pub fn total(&self) -> usize {
        self.connected().count()
    }

    /// The connected hosts where it is not live.
    pub fn laggards(&self) -> impl Iterator<Item = &HostGeneration> {
        self.connected().filter(|host| host.state != HostState::Live)
    }

    fn connected(&self) -> impl Iterator<Item = &HostGeneration> {
        self.hosts.iter().filter(|host| host.connected && !host.quarantined)
    }
}

/// One applied state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number.
    pub generation: Generation,
    /// SHA-256 of its sources, lower hexadecimal.
    pub sha256: String,
    /// When.
    pub applied_at: Timestamp,
    /// By whom: a user name or `uid:N`.
    pub actor: String,
    /// Whether it is the live one.
    pub live: bool,
}

/// The newest revisions, newest first; at most 1000.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionList {
    /// They.
    pub revisions: Vec<Revision>,
}

/// Asks to apply an old revision again, as a new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// The number of the old one.
    pub revision: u64,
    /// Its epoch; the live epoch when absent.
    #[serde(default)]
    pub epoch: Option<u64>,
}

/// Asks for a join token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// The host that the bearer becomes.
    pub host: HostName,
}

/// A join token. Its [`std::fmt::Debug`] does not show the token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenResponse {
    /// The text of a [`crate::JoinToken`].
    pub token: String,
    /// When the CA stops taking it.
    pub expires: Timestamp,
    /// The host already holds a key: the token is of use only after `host evict`.
    pub host_has_key: bool,
}

impl std::fmt::Debug for TokenResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenResponse")
            .field("token", &"<redacted>")
            .field("expires", &self.expires)
            .field("host_has_key", &self.host_has_key)
            .finish()
    }
}

/// Something about a host that an operator should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAlert {
    /// One word: `svid_from_two_addresses`, `svid_on_two_streams`, `key_not_current`, `token_other_key`,
    /// `address_of_another`.
    pub kind: String,
    /// When it was noticed first.
    pub first: Timestamp,
    /// And last.
    pub last: Timestamp,
    /// How often.
    pub count: u64,
    /// The addresses that it is about; at most 8.
    pub addresses: Vec<IpAddr>,
    /// What it means.
    pub hint: String,
    /// What would end it. Nothing is done by itself.
    pub command: String,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its name.
    pub host: HostName,
    /// `joined` or `evicted`.
    pub state: String,
    /// Whether its stream is up.
    pub connected: bool,
    /// The serial of its node SVID, lower hexadecimal.
    pub serial: String,
    /// When the node SVID ends.
    pub not_after: Timestamp,
    /// When it joined.
    pub joined: Timestamp,
    /// When it was last heard.
    pub last_seen: Timestamp,
    /// The mesh-side address of its proxy.
    pub advertise: Option<String>,
    /// The newest generation it applied.
    pub applied: Option<Generation>,
    /// Why it could not apply a newer one.
    #[serde(default)]
    pub failed: Option<String>,
    /// Since when its stream is up.
    #[serde(default)]
    pub connected_since: Option<Timestamp>,
    /// Where its stream comes from, or came from last.
    #[serde(default)]
    pub source: Option<IpAddr>,
    /// What of a mesh file it can enforce, beyond what every proxy can; as it said when its stream was opened.
    #[serde(default)]
    pub features: Vec<String>,
    /// Whether it is quarantined at the CA.
    #[serde(default)]
    pub quarantined: bool,
    /// What to look at, since the CA started.
    #[serde(default)]
    pub alerts: Vec<HostAlert>,
}

/// All hosts, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostList {
    /// They.
    pub hosts: Vec<Host>,
}

/// Asks to end a host: its stream ends now and its key is worth nothing any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvictRequest {
    /// The host.
    pub host: HostName,
}

/// The answer to an eviction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvictResponse {
    /// The host.
    pub host: HostName,
    /// Whether a stream was ended.
    pub was_connected: bool,
    /// How many open tokens were made worthless.
    pub tokens: u64,
    /// The list of who is cut off that the other hosts are told, to ask at [`path::QUARANTINES`] whether they enforce it; a
    /// CA of an earlier version does not say.
    #[serde(default)]
    pub list: Option<Generation>,
}

/// One bot of the live mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bot {
    /// Its name.
    pub bot: BotName,
    /// Its SPIFFE ID.
    pub id: String,
    /// Who answers for it.
    pub owner: String,
    /// The hosts that may claim it.
    pub hosts: Vec<HostPattern>,
    /// Whether it serves anything.
    pub serves: bool,
    /// Where it can be reached.
    pub endpoints: Vec<String>,
    /// The lifetime of its SVIDs.
    pub svid_ttl_seconds: u64,
    /// When the last SVID was issued to it.
    pub last_issued: Option<Timestamp>,
    /// When the longest-lived of its SVIDs ends.
    pub svid_not_after: Option<Timestamp>,
    /// Whether it is quarantined at the CA.
    #[serde(default)]
    pub quarantined: bool,
    /// The connected hosts that may claim it.
    #[serde(default)]
    pub connected_hosts: Vec<HostName>,
}

/// All bots of the live mesh, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotList {
    /// What they are read from.
    pub generation: Generation,
    /// They.
    pub bots: Vec<Bot>,
}

/// How the CA is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaStatus {
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// The name of this CA server.
    pub server: HostName,
    /// Its software.
    pub version: String,
    /// Its clock.
    pub now: Timestamp,
    /// When it started.
    pub started: Timestamp,
    /// What is live.
    pub generation: Generation,
    /// When the root certificate ends.
    pub root_not_after: Timestamp,
    /// SHA-256 of the root's SubjectPublicKeyInfo, lower hexadecimal.
    pub root_pin: String,
    /// Where hosts connect.
    pub node_api: String,
    /// Where `/metrics` is.
    pub dashboard: String,
    /// Hosts that are not evicted.
    pub hosts: u64,
    /// Hosts whose stream is up.
    pub hosts_connected: u64,
    /// Bots of the live mesh.
    pub bots: u64,
    /// SVIDs issued since the start of this process.
    pub issued: u64,
    /// Bots and hosts that are quarantined at the CA.
    #[serde(default)]
    pub quarantines: u64,
    /// What hosts asked or said that they may not, since the start of this process.
    #[serde(default)]
    pub refused: u64,
    /// Tokens that anyone can verify; none without `federation:`.
    #[serde(default)]
    pub federation: Option<FederationStatus>,
    /// The folder of its ledger.
    pub ledger: String,
    /// What an operator should know: a key-encryption key in a file, for instance.
    pub notes: Vec<String>,
}

/// The files of the live mesh, as applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshSources {
    /// Their number.
    pub generation: Generation,
    /// They.
    pub sources: Vec<MeshSource>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_with_unknown_fields_are_refused() {
        let text = r#"{"sources":[],"forse":true}"#;
        assert!(serde_json::from_str::<ApplyRequest>(text).is_err());
        assert!(serde_json::from_str::<RollbackRequest>(r#"{"revision":1,"x":1}"#).is_err());
        assert!(serde_json::from_str::<TokenRequest>(r#"{"host":"web-1","replace":true}"#).is_err());
    }

    #[test]
    fn a_disconnected_or_quarantined_host_neither_helps_nor_hinders_live_on_n_of_m() {
        let host = |name: &str, connected, state| HostGeneration {
            host: HostName::parse(name).unwrap(),
            connected,
            state,
            applied: None,
            error: String::new(),
            quarantined: name == "d",
        };
        let status = GenerationStatus {
            generation: Generation { epoch: 1, revision: 2 },
            hosts: vec![
                host("a", true, HostState::Live),
                host("b", true, HostState::Failed),
                host("c", false, HostState::Behind),
                host("d", true, HostState::Behind),
            ],
        };
        assert_eq!((status.live(), status.total()), (1, 2));
        assert_eq!(status.laggards().count(), 1);
    }
}
