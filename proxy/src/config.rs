//! `proxy.yaml`, and the one function that turns it into settings.
//!
//! [`Config`] is the file as written; [`Config::resolve`] fills in every default
//! from what the caller knows of the machine and refuses what parses but cannot
//! be kept. Nothing after it reads a file or the environment for a setting.

mod address;
mod credentials;
mod operator;
mod refused;
mod settings;
mod units;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;

use policy::Callee;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use spiffe::id::{HostName, TrustDomain};

use crate::credentials::{Source, VaultConfig};

pub use address::{CaAddress, CaAddressError, ListenAddress, ListenAddressError};
pub use credentials::{CREDENTIAL_KEPT_MAX, CREDENTIAL_TTL_MIN, CREDENTIALS_MAX};
pub use operator::Operator;
pub use refused::NotEnforced;
pub use settings::{
    CA_ADDRESSES_MAX, CALLS_MAX, ConfigError, Defaults, LEDGER_SYNC_MAX, LISTENERS_MAX, Listener, POLICY_AGE_MAX,
    POLICY_AGE_MIN, Settings,
};
pub use units::{ByteSize, ByteSizeError, Span, SpanError};

/// The file, as written. `trust_domain`, `host`, `ca` and `join` are required.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The trust domain that this host belongs to.
    pub trust_domain: TrustDomain,
    /// This host's name; the CA must give it the same.
    pub host: HostName,
    /// Default `botmesh`: who the proxy becomes when root starts it, by name or number. `root` is allowed, and said aloud.
    #[serde(default)]
    pub user: Option<Operator>,
    /// Where everything is kept that has no setting of its own.
    #[serde(default)]
    pub state_dir: Option<PathBuf>,
    /// Where the CA is.
    pub ca: CaConfig,
    /// How this host proves itself the first time.
    pub join: JoinConfig,
    /// Where bots call.
    #[serde(default)]
    pub bots: BotsConfig,
    /// One listener per destination.
    #[serde(default)]
    pub listeners: Vec<ListenerConfig>,
    /// Refused: the Workload API is not served by this version.
    #[serde(default, deserialize_with = "refused::workload_api")]
    pub workload_api: Option<NotEnforced>,
    /// Where other hosts' proxies call.
    #[serde(default)]
    pub mesh: MeshConfig,
    /// The socket for operators.
    #[serde(default)]
    pub admin: AdminConfig,
    /// Metrics and health.
    #[serde(default)]
    pub metrics: MetricsConfig,
    /// Where calls are recorded.
    #[serde(default)]
    pub ledger: LedgerSection,
    /// What a call between two bots of this host goes through.
    #[serde(default)]
    pub local_hop: LocalHop,
    /// How much a refusal tells the caller.
    #[serde(default)]
    pub disclose: Disclose,
    /// What becomes of a call with something in its address that looks like a key.
    #[serde(default)]
    pub secret_in_url: SecretInUrl,
    /// Whether operators may start bots with `botmesh run --as`.
    #[serde(default)]
    pub allow_run: bool,
    /// How destinations outside are found.
    #[serde(default)]
    pub outside: OutsideConfig,
    /// What the proxy adds to calls to the outside, and where it is on this host.
    #[serde(default)]
    pub credentials: CredentialsConfig,
    /// How much is carried at a time.
    #[serde(default)]
    pub bounds: BoundsConfig,
    /// Default 4 h: how long the CA may be unheard before no call is carried.
    #[serde(default)]
    pub max_policy_age: Option<Span>,
}

/// `ca:`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaConfig {
    /// `host:port` of each CA server, tried in order.
    pub addresses: Vec<CaAddress>,
}

/// `join:`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinConfig {
    /// Holds a join token. Read only while this host has no usable key of its own,
    /// and may be gone after that.
    pub token_file: PathBuf,
}

/// `bots:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BotsConfig {
    /// Default `127.0.0.1:15080`. Only loopback: no other caller can be attested.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// The Unix socket.
    #[serde(default)]
    pub socket: Option<PathBuf>,
}

/// One of `listeners:`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// A loopback address, or `unix:PATH`.
    pub listen: ListenAddress,
    /// The bot, or the destination outside, that every call on it goes to.
    #[serde(deserialize_with = "callee")]
    pub to: Callee,
    /// The bot's port: nothing is read of the connections then, and each is one call. Without it HTTP is read.
    #[serde(default)]
    pub tcp: Option<NonZero<u16>>,
}

/// Reads a bot, or a destination outside.
fn callee<'de, D: Deserializer<'de>>(input: D) -> Result<Callee, D::Error> {
    String::deserialize(input)?.parse().map_err(D::Error::custom)
}

/// `outside:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutsideConfig {
    /// A file in the form of hosts(5), the only place where the names of destinations are looked up then; without it the
    /// system's resolver is asked.
    #[serde(default)]
    pub hosts_file: Option<PathBuf>,
}

/// `credentials:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialsConfig {
    /// Default 5 m: how long a value is used before it is read again.
    #[serde(default)]
    pub ttl: Option<Span>,
    /// Default 1 h: how long it is used after that while it cannot be read.
    #[serde(default)]
    pub stale: Option<Span>,
    /// OpenBaos and Vaults, by a name that sources call them by.
    #[serde(default)]
    pub vaults: BTreeMap<String, VaultConfig>,
    /// Where values are, by name. One that is not here is where `botmesh secret put` puts it: in the state directory,
    /// encrypted to this host.
    #[serde(default)]
    pub sources: BTreeMap<String, Source>,
}

/// `mesh:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeshConfig {
    /// Default `0.0.0.0:15443`.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// Where other hosts reach it; by default the source address of the stream to
    /// the CA with the port of `listen`.
    #[serde(default)]
    pub advertise: Option<SocketAddr>,
    /// Default true; false opens a connection per call, for measurement.
    #[serde(default)]
    pub reuse: Option<bool>,
}

/// `admin:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// The Unix socket.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// Who may use it.
    #[serde(default)]
    pub operators: Option<Vec<Operator>>,
}

/// `metrics:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsConfig {
    /// Default `127.0.0.1:15090`. Only loopback: it speaks HTTP without login.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
}

/// `ledger:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerSection {
    /// Default `ledger` in the state directory.
    #[serde(default)]
    pub dir: Option<PathBuf>,
    /// Default 100 ms: how much a power loss may cost.
    #[serde(default)]
    pub sync: Option<Span>,
    /// Default 20 GiB.
    #[serde(default)]
    pub max_bytes: Option<ByteSize>,
    /// Default 90 days: how long calls are kept.
    #[serde(default)]
    pub keep: Option<Span>,
    /// Default 400 days, and not less than `keep`: how long everything else is kept.
    #[serde(default)]
    pub keep_events: Option<Span>,
}

/// `bounds:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoundsConfig {
    /// Default 8192: calls at a time, of which one caller may have three quarters.
    #[serde(default)]
    pub calls: Option<usize>,
    /// Default 512 MiB: what bodies may fill that wait to be read, on all HTTP/2 connections together; beyond it each has 64 KiB.
    #[serde(default)]
    pub buffered: Option<ByteSize>,
}

/// What a call between two bots of this host goes through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocalHop {
    /// Nothing is encrypted to itself; both decisions and both records happen.
    #[default]
    Direct,
    /// The full path, with mutual TLS, through the mesh listener.
    Mtls,
}

/// How much a refusal tells the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disclose {
    /// The call's id and the reason word.
    Id,
    /// Also the rule that refused.
    #[default]
    Rule,
    /// Also the nearest rule, what differed, and the command that would allow it.
    Full,
}

/// What becomes of a call with something in its address that looks like a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretInUrl {
    /// It is refused.
    #[default]
    Refuse,
    /// It is carried where a rule allows it; its record says so, and has neither the path nor the names of its query.
    Flag,
}

#[cfg(test)]
mod tests;
