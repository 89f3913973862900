//! `ca.yaml`, and the one function that turns it into settings.

mod federation;
mod watch;
mod webhook;
mod witness;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use audit::epoch::EPOCH_MAX;
use audit::ledger::{KEEP_MAX, KEEP_MIN};
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use spiffe::id::TrustDomain;

pub use federation::{EndpointConfig, FederationConfig, Issuer, IssuerError, TlsFiles};
pub use watch::WatchSettings;
pub(crate) use witness::WitnessPlace;
pub use witness::{WITNESSES_MAX, WitnessConfig, WitnessUrl, WitnessUrlError};

/// How long the CA's own ledger keeps records where the file does not say: more than a year of them.
const LEDGER_KEEP: Duration = Duration::from_hours(24 * 400);
pub use webhook::{SecretSource, WebhookSettings};

/// The file, as written. Only `trust_domain` is required.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The trust domain that this CA issues for.
    pub trust_domain: TrustDomain,
    /// Where everything is kept that has no setting of its own.
    #[serde(default)]
    pub state_dir: Option<PathBuf>,
    /// The listener for hosts.
    #[serde(default)]
    pub node_api: NodeApiConfig,
    /// The socket for operators.
    #[serde(default)]
    pub admin: AdminConfig,
    /// Metrics and health.
    #[serde(default)]
    pub dashboard: DashboardConfig,
    /// Where the state is.
    #[serde(default)]
    pub store: StoreConfig,
    /// Where the keys are.
    #[serde(default)]
    pub keys: KeysConfig,
    /// Tokens that anyone can verify; none without it.
    #[serde(default)]
    pub federation: Option<FederationConfig>,
    /// What is raised of calls.
    #[serde(default)]
    pub watch: WatchSettings,
    /// The CA's own ledger, and who cosigns heads of all ledgers besides the CA.
    #[serde(default)]
    pub ledger: LedgerSection,
}

/// `ledger:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerSection {
    /// Witnesses outside; none without it.
    #[serde(default)]
    pub witnesses: Vec<WitnessConfig>,
    /// The epoch that the CA's own ledger is in at least: a higher one than it has begins it. For a ledger that was set back, of
    /// which no witness cosigns any more.
    #[serde(default)]
    pub epoch: Option<u32>,
    /// Default 400 days: how long issuances, attestations and operators' acts are kept.
    #[serde(default)]
    pub keep: Option<Keep>,
}

/// How long records are kept: a whole number and `d` or `h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep(Duration);

impl Keep {
    fn parse(text: &str) -> Option<Self> {
        let (digits, hours): (_, u64) = match text.strip_suffix('d') {
            Some(days) => (days, 24),
            None => (text.strip_suffix('h')?, 1),
        };
        // `u64::from_str` would take a sign.
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let hours = digits.parse::<u64>().ok()?.checked_mul(hours)?;
        let keep = Duration::from_secs(hours.checked_mul(3600)?);
        (KEEP_MIN..=KEEP_MAX).contains(&keep).then_some(Self(keep))
    }
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        let wrong = || de::Error::custom("ledger.keep is a whole number and d or h, from 1h to 36500d, as in 400d");
        Self::parse(&text).ok_or_else(wrong)
    }
}

/// `node_api:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeApiConfig {
    /// Default `0.0.0.0:7443`.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
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

/// `dashboard:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DashboardConfig {
    /// Default `127.0.0.1:7070`. Only loopback: it speaks HTTP without login.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
}

/// `store:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// The database file; default `ca.db` in the state directory.
    #[serde(default)]
    pub sqlite: Option<PathBuf>,
}

/// `keys:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysConfig {
    /// Keys in files, sealed.
    #[serde(default)]
    pub disk: DiskKeysConfig,
}

/// `keys.disk:`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskKeysConfig {
    /// The folder; default `keys` in the state directory.
    #[serde(default)]
    pub dir: Option<PathBuf>,
}

/// A local user who may operate the CA, by name or by number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    /// A user name, looked up when the CA starts.
    Name(String),
    /// A user id.
    Uid(u32),
}

impl<'de> Deserialize<'de> for Operator {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(OperatorVisitor)
    }
}

struct OperatorVisitor;

impl Visitor<'_> for OperatorVisitor {
    type Value = Operator;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a user name or a uid")
    }

    fn visit_u64<E: de::Error>(self, uid: u64) -> Result<Operator, E> {
        let uid = u32::try_from(uid).map_err(|error| E::custom(format_args!("uid {uid}: {error}")))?;
        Ok(Operator::Uid(uid))
    }

    fn visit_i64<E: de::Error>(self, uid: i64) -> Result<Operator, E> {
        let uid = u32::try_from(uid).map_err(|error| E::custom(format_args!("uid {uid}: {error}")))?;
        Ok(Operator::Uid(uid))
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Operator, E> {
        if name.is_empty() || name.len() > 256 || name.contains(char::is_control) {
            return Err(E::custom(
                "a user name has 1 to 256 characters, none of them a control character",
            ));
        }
        Ok(Operator::Name(name.to_owned()))
    }
}

/// What the caller knows of the machine: the defaults that depend on who runs it.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// `/var/lib/botmesh/ca`, or below `$XDG_STATE_HOME` without root.
    pub state_dir: PathBuf,
    /// `/run/botmesh/ca.sock`, or below `$XDG_RUNTIME_DIR` without root.
    pub admin_socket: PathBuf,
    /// Who may operate when the file does not say: root.
    pub operators: Vec<Operator>,
    /// `$CREDENTIALS_DIRECTORY`, where systemd puts the credentials that it passes.
    pub credentials: Option<PathBuf>,
}

/// Every setting, resolved.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The trust domain that this CA issues for.
    pub trust_domain: TrustDomain,
    /// Where the key-encryption key and the ledger are.
    pub state_dir: PathBuf,
    /// The listener for hosts.
    pub node_listen: SocketAddr,
    /// The socket for operators.
    pub admin_socket: PathBuf,
    /// Who may use it; nobody when empty.
    pub operators: Vec<Operator>,
    /// Metrics and health; loopback.
    pub dashboard_listen: SocketAddr,
    /// The database file.
    pub database: PathBuf,
    /// The folder of sealed keys.
    pub key_dir: PathBuf,
    /// Tokens that anyone can verify; none without it.
    pub federation: Option<FederationConfig>,
    /// What is raised of calls.
    pub watch: WatchSettings,
    /// Who outside cosigns heads of ledgers.
    pub witnesses: Vec<WitnessConfig>,
    /// The epoch that the CA's own ledger is in at least.
    pub ledger_epoch: Option<u32>,
    /// How long the CA's own ledger keeps records.
    pub ledger_keep: Duration,
    /// Where systemd puts the credentials that it passes.
    pub credentials: Option<PathBuf>,
}

impl Settings {
    /// The folder of the CA's own ledger.
    #[must_use]
    pub fn ledger_dir(&self) -> PathBuf {
        self.state_dir.join("ledger")
    }

    pub(crate) fn kek_file(&self) -> PathBuf {
        self.state_dir.join("kek")
    }

    pub(crate) fn ledger_key_file(&self) -> PathBuf {
        self.state_dir.join("log.key")
    }

    pub(crate) fn cosigner_key_file(&self) -> PathBuf {
        self.state_dir.join("cosigner.key")
    }
}

impl Config {
    /// Fills in every default.
    ///
    /// # Errors
    ///
    /// [`ConfigError::DashboardNotLoopback`] for a dashboard that other machines
    /// could reach without login.
    pub fn resolve(self, defaults: &Defaults) -> Result<Settings, ConfigError> {
        let state_dir = self.state_dir.unwrap_or_else(|| defaults.state_dir.clone());
        let any = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
        let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let dashboard_listen = self.dashboard.listen.unwrap_or_else(|| loopback(7070));
        if !dashboard_listen.ip().is_loopback() {
            return Err(ConfigError::DashboardNotLoopback {
                listen: dashboard_listen,
            });
        }
        Ok(Settings {
            trust_domain: self.trust_domain,
            node_listen: self.node_api.listen.unwrap_or_else(|| any(7443)),
            admin_socket: self.admin.socket.unwrap_or_else(|| defaults.admin_socket.clone()),
            operators: self.admin.operators.unwrap_or_else(|| defaults.operators.clone()),
            dashboard_listen,
            database: self.store.sqlite.unwrap_or_else(|| state_dir.join("ca.db")),
            key_dir: self.keys.disk.dir.unwrap_or_else(|| state_dir.join("keys")),
            federation: self.federation,
            watch: self.watch,
            witnesses: witness::resolve(self.ledger.witnesses)?,
            ledger_epoch: resolve_epoch(self.ledger.epoch)?,
            ledger_keep: self.ledger.keep.map_or(LEDGER_KEEP, |keep| keep.0),
            credentials: defaults.credentials.clone(),
            state_dir,
        })
    }
}

fn resolve_epoch(epoch: Option<u32>) -> Result<Option<u32>, ConfigError> {
    match epoch {
        Some(epoch) if !(2..=EPOCH_MAX).contains(&epoch) => Err(ConfigError::LedgerEpoch { epoch }),
        epoch => Ok(epoch),
    }
}

/// Why a file that parses is refused all the same.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The dashboard speaks HTTP without login.
    #[error("dashboard.listen {listen} is not a loopback address: other addresses are not served by this version")]
    DashboardNotLoopback {
        /// The address.
        listen: SocketAddr,
    },
    /// More than [`WITNESSES_MAX`].
    #[error("ledger.witnesses holds {count} entries; at most {WITNESSES_MAX} are asked")]
    Witnesses {
        /// How many.
        count: usize,
    },
    /// One key twice.
    #[error("ledger.witnesses names the key of {name} twice")]
    WitnessTwice {
        /// The witness.
        name: String,
    },
    /// A file that depends on where the CA runs, or that nothing is vouched for by.
    #[error("ledger.witnesses, {name}: `ca` is an absolute path, and needs an address that begins with https://")]
    WitnessCa {
        /// The witness.
        name: String,
    },
    /// Not an epoch that could be begun.
    #[error("ledger.epoch: {epoch} is not between 2 and {EPOCH_MAX}")]
    LedgerEpoch {
        /// The value.
        epoch: u32,
    },
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(json: &str) -> Result<Settings, String> {
        let defaults = Defaults {
            state_dir: "/state".into(),
            admin_socket: "/run/ca.sock".into(),
            operators: vec![Operator::Uid(0)],
            credentials: None,
        };
        let config: Config = serde_json::from_str(json).map_err(|error| error.to_string())?;
        config.resolve(&defaults).map_err(|error| error.to_string())
    }

    #[test]
    fn only_the_trust_domain_is_required() {
        let settings = parse(r#"{"trust_domain":"acme.internal"}"#).unwrap();
        assert_eq!(settings.database, PathBuf::from("/state/ca.db"));
        assert_eq!(settings.key_dir, PathBuf::from("/state/keys"));
        assert_eq!(settings.node_listen.to_string(), "0.0.0.0:7443");
        assert_eq!(settings.dashboard_listen.to_string(), "127.0.0.1:7070");
        assert_eq!(settings.operators, [Operator::Uid(0)]);
        assert!(parse("{}").is_err());
    }

    #[test]
    fn the_ledger_keeps_records_within_bounds() {
        let keep = |keep: &str| {
            let text = format!(r#"{{"trust_domain":"acme.internal","ledger":{{"keep":"{keep}"}}}}"#);
            parse(&text).map(|settings| settings.ledger_keep)
        };
        let default = parse(r#"{"trust_domain":"acme.internal"}"#).unwrap().ledger_keep;
        assert_eq!(default, Duration::from_hours(400 * 24));
        assert_eq!(keep("3650d"), Ok(Duration::from_hours(3650 * 24)));
        assert_eq!(keep("1h"), Ok(Duration::from_hours(1)));
        for wrong in [
            "",
            "d",
            "0h",
            "36501d",
            "+1d",
            "1.5d",
            "90",
            "90m",
            "99999999999999999999d",
        ] {
            assert!(keep(wrong).is_err_and(|error| error.contains("ledger.keep")), "{wrong}");
        }
    }

    #[test]
    fn keys_of_later_versions_are_refused() {
        for more in [
            r#""hosts":[]"#,
            r#""admin":{"oidc":{}}"#,
            r#""keys":{"kms":{}}"#,
            r#""store":{"postgres":""}"#,
        ] {
            let text = format!(r#"{{"trust_domain":"acme.internal",{more}}}"#);
            assert!(parse(&text).unwrap_err().contains("unknown field"), "{more}");
        }
    }

    #[test]
    fn operators_are_names_or_numbers() {
        let text = r#"{"trust_domain":"acme.internal","admin":{"operators":["root",1000]}}"#;
        let expected = [Operator::Name("root".into()), Operator::Uid(1000)];
        assert_eq!(parse(text).unwrap().operators, expected);
        assert!(parse(r#"{"trust_domain":"acme.internal","admin":{"operators":[-1]}}"#).is_err());
        assert!(parse(r#"{"trust_domain":"acme.internal","admin":{"operators":[""]}}"#).is_err());
    }

    fn key(name: &str) -> String {
        let name = audit::key::KeyName::parse(name).unwrap();
        audit::CosignerKey::generate(name).unwrap().verifier().to_string()
    }

    fn with(ledger: &Value) -> Result<Settings, String> {
        parse(&json!({"trust_domain": "acme.internal", "ledger": ledger}).to_string())
    }

    /// A witness, with one more setting where `more` has a name.
    fn witness(url: &str, key: &str, more: (&str, &str)) -> Value {
        let mut witness = json!({"url": url, "key": key});
        if !more.0.is_empty() {
            witness[more.0] = more.1.into();
        }
        witness
    }

    const URL: &str = "https://w.example";
    const NO_MORE: (&str, &str) = ("", "");

    #[test]
    fn witnesses_and_an_epoch_are_what_was_written() {
        let w1 = key("w.example/w1");
        let written = json!({"witnesses": [witness(URL, &w1, ("ca", "/etc/w.pem"))], "epoch": 2});
        let settings = with(&written).unwrap();
        assert_eq!(settings.witnesses[0].key.to_string(), w1);
        assert_eq!(settings.ledger_epoch, Some(2));
        let none = parse(r#"{"trust_domain":"acme.internal"}"#).unwrap();
        assert!(none.witnesses.is_empty() && none.ledger_epoch.is_none());
    }

    #[test]
    fn witnesses_are_few_each_is_named_once_and_has_a_key_that_cosigns() {
        let w1 = key("w.example/w1");
        let signer = audit::key::SignerKey::generate(audit::key::KeyName::parse("w").unwrap()).unwrap();
        let signer = signer.verifier().to_string();
        let many: Vec<_> = (0..9)
            .map(|number| witness(URL, &key(&format!("w{number}")), NO_MORE))
            .collect();
        let twice = [witness(URL, &w1, NO_MORE), witness("http://127.0.0.1", &w1, NO_MORE)];
        for (witnesses, wanted) in [
            (many, "holds 9 entries; at most 8 are asked"),
            (twice.to_vec(), "names the key of w.example/w1 twice"),
            (vec![witness(URL, &signer, NO_MORE)], "no verifier key of a witness"),
            (vec![witness(URL, "w1", NO_MORE)], "no verifier key of a witness"),
            (
                vec![witness("http://w.example", &w1, NO_MORE)],
                "no address of a witness",
            ),
            (vec![witness(URL, &w1, ("ca", "w.pem"))], "`ca` is an absolute path"),
            (
                vec![witness("http://127.0.0.1", &w1, ("ca", "/w.pem"))],
                "begins with https://",
            ),
            (vec![witness(URL, &w1, ("name", "w"))], "unknown field `name`"),
        ] {
            let told = with(&json!({"witnesses": witnesses})).unwrap_err();
            assert!(told.contains(wanted), "{told}");
        }
        for epoch in [0, 1, 1_000_001] {
            let told = with(&json!({"epoch": epoch})).unwrap_err();
            assert!(told.contains("is not between 2 and 1000000"), "{told}");
        }
    }

    #[test]
    fn a_dashboard_that_others_could_reach_is_refused() {
        let text = r#"{"trust_domain":"acme.internal","dashboard":{"listen":"0.0.0.0:7070"}}"#;
        assert!(parse(text).unwrap_err().contains("loopback"));
    }
}
