//! What the file means: every setting, with its default or as it was written.

use audit::ledger::{KEEP_MAX, KEEP_MIN};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use policy::{Callee, CredentialName};
use spiffe::id::{HostName, TrustDomain};

use crate::credentials::{Environment, Source, VAULTS_MAX, VaultConfig, VaultWord};

use super::credentials::{CREDENTIALS_MAX, resolve_sources, resolve_times, resolve_vaults};
use super::{
    ByteSize, CaAddress, Config, Disclose, ListenAddress, ListenerConfig, LocalHop, Operator, SecretInUrl, Span,
};

/// Who the proxy becomes when root starts it and the file does not say; `install.sh` makes this user.
pub(super) const USER: &str = "botmesh";

/// The most addresses of CA servers.
pub const CA_ADDRESSES_MAX: usize = 16;

/// The most `listeners:`; each is a socket that stays open.
pub const LISTENERS_MAX: usize = 256;

/// The longest `ledger.sync`, as the ledger itself bounds it.
pub const LEDGER_SYNC_MAX: Duration = Duration::from_secs(10);

/// The shortest and the longest `max_policy_age`. The CA says its time every few
/// seconds, and a host is not sure that the CA is gone for up to a minute.
pub const POLICY_AGE_MIN: Duration = Duration::from_mins(2);

/// See [`POLICY_AGE_MIN`].
pub const POLICY_AGE_MAX: Duration = Duration::from_hours(30 * 24);

/// The most `bounds.calls`: each may need a file and some tens of KiB.
pub const CALLS_MAX: usize = 1_000_000;

/// What the caller knows of the machine: the defaults that depend on who runs it.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// `/var/lib/botmesh/proxy`, or below `$XDG_STATE_HOME` without root.
    pub state_dir: PathBuf,
    /// `/run/botmesh`, or below `$XDG_RUNTIME_DIR` without root.
    pub runtime_dir: PathBuf,
    /// Who may operate when the file does not say: root.
    pub operators: Vec<Operator>,
    /// Where credentials that are in the environment are read.
    pub environment: Environment,
}

/// Every setting, resolved.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The trust domain that this host belongs to.
    pub trust_domain: TrustDomain,
    /// This host's name.
    pub host: HostName,
    /// Who the proxy becomes when root starts it.
    pub user: Operator,
    /// Where the node key and the cache are.
    pub state_dir: PathBuf,
    /// The CA servers, in the order to try.
    pub ca_addresses: Vec<CaAddress>,
    /// Holds a join token, perhaps.
    pub token_file: PathBuf,
    /// Where bots call; loopback.
    pub bots_listen: SocketAddr,
    /// Where bots call.
    pub bots_socket: PathBuf,
    /// One listener per destination.
    pub listeners: Vec<Listener>,
    /// Where other hosts' proxies call.
    pub mesh_listen: SocketAddr,
    /// Where other hosts reach `mesh_listen`, if it was said.
    pub mesh_advertise: Option<SocketAddr>,
    /// Whether connections between proxies carry more than one call.
    pub mesh_reuse: bool,
    /// The socket for operators.
    pub admin_socket: PathBuf,
    /// Who may use it; nobody when empty.
    pub operators: Vec<Operator>,
    /// Metrics and health; loopback.
    pub metrics_listen: SocketAddr,
    /// The folder of the ledger.
    pub ledger_dir: PathBuf,
    /// How much of the ledger a power loss may cost.
    pub ledger_sync: Duration,
    /// The ledger's budget.
    pub ledger_max_bytes: u64,
    /// How long the ledger keeps calls.
    pub ledger_keep: Duration,
    /// How long it keeps everything else.
    pub ledger_keep_events: Duration,
    /// What a call between two bots of this host goes through.
    pub local_hop: LocalHop,
    /// How much a refusal tells the caller.
    pub disclose: Disclose,
    /// What becomes of a call with something in its address that looks like a key.
    pub secret_in_url: SecretInUrl,
    /// Whether operators may start bots.
    pub allow_run: bool,
    /// How long the CA may be unheard before no call is carried.
    pub max_policy_age: Duration,
    /// Where alone the names of destinations outside are looked up, if it was said.
    pub hosts_file: Option<PathBuf>,
    /// Where values of credentials are, by name.
    pub credential_sources: BTreeMap<CredentialName, Source>,
    /// The vaults that they name.
    pub vaults: BTreeMap<VaultWord, VaultConfig>,
    /// Where credentials that are in the environment are read.
    pub environment: Environment,
    /// How long a value is used before it is read again, and how long after that while it cannot be read.
    pub credential_times: (Duration, Duration),
    /// How many calls are carried at a time.
    pub calls: usize,
    /// How much the large windows of HTTP/2 connections may hold together.
    pub buffered: u64,
}

/// A listener whose every call goes to one bot, or to one destination outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens.
    pub listen: ListenAddress,
    /// Where its calls go.
    pub to: Callee,
    /// To which port of that bot, where nothing is read of its connections.
    pub tcp: Option<u16>,
}

impl Settings {
    /// The file of the ledger's signing key.
    #[must_use]
    pub fn ledger_key_file(&self) -> PathBuf {
        self.state_dir.join("log.key")
    }
}

impl Config {
    /// Fills in every default.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] for a value that parses and cannot be kept.
    pub fn resolve(self, defaults: &Defaults) -> Result<Settings, ConfigError> {
        self.check_counts()?;
        let state_dir = self.state_dir.unwrap_or_else(|| defaults.state_dir.clone());
        let vaults = resolve_vaults(self.credentials.vaults)?;
        let (ledger_keep, ledger_keep_events) = resolve_keep(self.ledger.keep, self.ledger.keep_events)?;
        let listeners = self
            .listeners
            .into_iter()
            .map(resolve_listener)
            .collect::<Result<_, _>>()?;
        Ok(Settings {
            trust_domain: self.trust_domain,
            host: self.host,
            user: self.user.unwrap_or_else(|| Operator::Name(USER.to_owned())),
            ca_addresses: self.ca.addresses,
            token_file: self.join.token_file,
            bots_listen: loopback("bots.listen", self.bots.listen, 15080)?,
            bots_socket: self
                .bots
                .socket
                .unwrap_or_else(|| defaults.runtime_dir.join("bot.sock")),
            listeners,
            mesh_listen: self
                .mesh
                .listen
                .unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 15443)),
            mesh_advertise: resolve_advertise(self.mesh.advertise)?,
            mesh_reuse: self.mesh.reuse.unwrap_or(true),
            admin_socket: self
                .admin
                .socket
                .unwrap_or_else(|| defaults.runtime_dir.join("proxy.sock")),
            operators: self.admin.operators.unwrap_or_else(|| defaults.operators.clone()),
            metrics_listen: loopback("metrics.listen", self.metrics.listen, 15090)?,
            ledger_dir: self.ledger.dir.unwrap_or_else(|| state_dir.join("ledger")),
            ledger_sync: resolve_sync(self.ledger.sync)?,
            ledger_max_bytes: self.ledger.max_bytes.map_or(20 << 30, ByteSize::bytes),
            ledger_keep,
            ledger_keep_events,
            local_hop: self.local_hop,
            disclose: self.disclose,
            secret_in_url: self.secret_in_url,
            allow_run: self.allow_run,
            max_policy_age: resolve_policy_age(self.max_policy_age)?,
            hosts_file: self.outside.hosts_file,
            credential_sources: resolve_sources(self.credentials.sources, &vaults)?,
            vaults,
            environment: defaults.environment,
            credential_times: resolve_times(self.credentials.ttl, self.credentials.stale)?,
            calls: resolve_calls(self.bounds.calls)?,
            buffered: self.bounds.buffered.map_or(512 << 20, ByteSize::bytes),
            state_dir,
        })
    }

    pub(super) fn check_counts(&self) -> Result<(), ConfigError> {
        let addresses = self.ca.addresses.len();
        if addresses == 0 || addresses > CA_ADDRESSES_MAX {
            return Err(ConfigError::CaAddresses { count: addresses });
        }
        if self.listeners.len() > LISTENERS_MAX {
            return Err(ConfigError::Listeners {
                count: self.listeners.len(),
            });
        }
        Ok(())
    }
}

fn loopback(setting: &'static str, listen: Option<SocketAddr>, port: u16) -> Result<SocketAddr, ConfigError> {
    let listen = listen.unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    if listen.ip().is_loopback() {
        Ok(listen)
    } else {
        Err(ConfigError::NotLoopback { setting, listen })
    }
}

fn resolve_listener(listener: ListenerConfig) -> Result<Listener, ConfigError> {
    if let ListenAddress::Tcp(listen) = listener.listen
        && !listen.ip().is_loopback()
    {
        return Err(ConfigError::NotLoopback {
            setting: "listeners",
            listen,
        });
    }
    if let (Callee::Outside(outside), Some(_)) = (&listener.to, listener.tcp) {
        return Err(ConfigError::OutsideTcp {
            outside: outside.to_string(),
        });
    }
    Ok(Listener {
        listen: listener.listen,
        to: listener.to,
        tcp: listener.tcp.map(NonZero::get),
    })
}

fn resolve_advertise(advertise: Option<SocketAddr>) -> Result<Option<SocketAddr>, ConfigError> {
    match advertise {
        Some(address) if address.ip().is_unspecified() || address.port() == 0 => {
            Err(ConfigError::Advertise { address })
        }
        other => Ok(other),
    }
}

fn resolve_sync(sync: Option<Span>) -> Result<Duration, ConfigError> {
    let sync = sync.map_or(Duration::from_millis(100), Span::duration);
    if sync.is_zero() || sync > LEDGER_SYNC_MAX {
        return Err(ConfigError::LedgerSync { sync });
    }
    Ok(sync)
}

/// How long calls are kept, and everything else. Who keeps calls for longer than that keeps the rest as long.
fn resolve_keep(calls: Option<Span>, events: Option<Span>) -> Result<(Duration, Duration), ConfigError> {
    let day = Duration::from_hours(24);
    let calls = calls.map_or(90 * day, Span::duration);
    let events = events.map_or((400 * day).max(calls), Span::duration);
    for (setting, keep) in [("keep", calls), ("keep_events", events)] {
        if !(KEEP_MIN..=KEEP_MAX).contains(&keep) {
            return Err(ConfigError::LedgerKeep { setting, keep });
        }
    }
    if events < calls {
        return Err(ConfigError::LedgerKeepEvents { events, calls });
    }
    Ok((calls, events))
}

fn resolve_policy_age(age: Option<Span>) -> Result<Duration, ConfigError> {
    let age = age.map_or(Duration::from_hours(4), Span::duration);
    if (POLICY_AGE_MIN..=POLICY_AGE_MAX).contains(&age) {
        Ok(age)
    } else {
        Err(ConfigError::PolicyAge { age })
    }
}

fn resolve_calls(calls: Option<usize>) -> Result<usize, ConfigError> {
    let calls = calls.unwrap_or(8_192);
    if (1..=CALLS_MAX).contains(&calls) {
        Ok(calls)
    } else {
        Err(ConfigError::Calls { calls })
    }
}

/// Why a file that parses is refused all the same.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No CA server, or more than [`CA_ADDRESSES_MAX`].
    #[error("ca.addresses holds {count} addresses; it needs 1 to {CA_ADDRESSES_MAX}")]
    CaAddresses {
        /// How many.
        count: usize,
    },
    /// More than [`LISTENERS_MAX`].
    #[error("listeners holds {count} entries; at most {LISTENERS_MAX} are served")]
    Listeners {
        /// How many.
        count: usize,
    },
    /// Other machines could reach it.
    #[error("{setting}: {listen} is not a loopback address; callers from other machines cannot be attested")]
    NotLoopback {
        /// The setting.
        setting: &'static str,
        /// The address.
        listen: SocketAddr,
    },
    /// A destination outside has its port in its own name.
    #[error("listeners: `tcp` is for bots; {outside} is spoken to as its name says")]
    OutsideTcp {
        /// The destination.
        outside: String,
    },
    /// Nobody can connect to it.
    #[error("mesh.advertise: {address} is no address that another host could connect to")]
    Advertise {
        /// The address.
        address: SocketAddr,
    },
    /// Zero, or longer than [`LEDGER_SYNC_MAX`].
    #[error("ledger.sync: {sync:?} is not between 1ms and 10s")]
    LedgerSync {
        /// The value.
        sync: Duration,
    },
    /// Not between an hour and a hundred years.
    #[error("ledger.{setting}: {keep:?} is not between 1h and 36500d")]
    LedgerKeep {
        /// Which.
        setting: &'static str,
        /// The value.
        keep: Duration,
    },
    /// Events would go before calls do.
    #[error(
        "ledger.keep_events: {events:?} is less than ledger.keep, {calls:?}: nothing is kept for less time than calls"
    )]
    LedgerKeepEvents {
        /// The value.
        events: Duration,
        /// That of `keep`.
        calls: Duration,
    },
    /// Not between [`POLICY_AGE_MIN`] and [`POLICY_AGE_MAX`].
    #[error("max_policy_age: {age:?} is not between 2m and 30d")]
    PolicyAge {
        /// The value.
        age: Duration,
    },
    /// More than [`CREDENTIALS_MAX`].
    #[error("credentials.sources holds {count} entries; at most {CREDENTIALS_MAX} are read")]
    Credentials {
        /// How many.
        count: usize,
    },
    /// No name of a credential.
    #[error("credentials.sources: {name:?} is no name of a credential, which has 1 to 63 of a-z, 0-9 and `-`")]
    CredentialName {
        /// The name.
        name: String,
    },
    /// A place that depends on where the proxy runs, or none.
    #[error(
        "credentials.sources.{name}: a file and a program have an absolute path, and a credential of systemd or a variable has a name"
    )]
    CredentialPath {
        /// The credential.
        name: String,
    },
    /// More than [`VAULTS_MAX`].
    #[error("credentials.vaults holds {count} entries; at most {VAULTS_MAX} are used")]
    Vaults {
        /// How many.
        count: usize,
    },
    /// No name of a vault.
    #[error("credentials.vaults: {name:?} is no name of a vault, which has 1 to 128 letters, digits, `_`, `-` and `.`")]
    VaultName {
        /// The name.
        name: String,
    },
    /// No certificate is shown without TLS.
    #[error(
        "credentials.vaults.{name}: `login: cert` needs an address that begins with https://, where this host shows its SVID"
    )]
    VaultCert {
        /// The vault.
        name: String,
    },
    /// Nobody shows a certificate without TLS.
    #[error("credentials.vaults.{name}: `ca` needs an address that begins with https://")]
    VaultCa {
        /// The vault.
        name: String,
    },
    /// A file that depends on where the proxy runs.
    #[error("credentials.vaults.{name}: `ca` and the `file` of a login have absolute paths")]
    VaultFile {
        /// The vault.
        name: String,
    },
    /// A source of a vault that there is not, or of one of several.
    #[error(
        "credentials.sources.{name}: `of` names one of credentials.vaults, which are {count}; where there is one it may be left out"
    )]
    WhichVault {
        /// The credential.
        name: String,
        /// How many vaults there are.
        count: usize,
    },
    /// Too short, or too long together.
    #[error(
        "credentials: a value is used for at least 1s (`ttl` is {ttl:?}) and, with `stale` ({stale:?}), for at most 24h"
    )]
    CredentialTimes {
        /// `ttl`.
        ttl: Duration,
        /// `stale`.
        stale: Duration,
    },
    /// None, or more than [`CALLS_MAX`].
    #[error("bounds.calls: {calls} is not between 1 and {CALLS_MAX}")]
    Calls {
        /// The value.
        calls: usize,
    },
}
