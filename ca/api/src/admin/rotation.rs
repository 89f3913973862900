//! Credentials of the whole mesh, and new values for them. No answer has a value in it, and a request has it only sealed to
//! the hosts that need it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spiffe::id::{BotName, HostName};
use spiffe::time::Timestamp;

use crate::rotation::Phase;

/// The credentials of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetCredentials {
    /// By name.
    pub credentials: Vec<FleetCredential>,
}

/// One credential, on all hosts that need it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetCredential {
    /// Its name in the mesh file.
    pub name: String,
    /// How it is added: `header`, `bearer`, …
    pub injection: String,
    /// Whom to ask about it.
    pub owner: String,
    /// The destinations of the rules that add it.
    pub services: Vec<String>,
    /// The first part of the names of the bots that may use it: `prod`.
    pub environments: Vec<String>,
    /// What tells whether the service takes a value, where the mesh file says it.
    #[serde(default)]
    pub probe: Option<String>,
    /// Why several bots may use it.
    #[serde(default)]
    pub shared: Option<String>,
    /// When its value was replaced on all hosts the last time, of one that was.
    #[serde(default)]
    pub rotated: Option<Timestamp>,
    /// When it is to be replaced, where the mesh file says how often and it was replaced once.
    #[serde(default)]
    pub due: Option<Timestamp>,
    /// The bots that rules let use it, and which of them did in the last hour.
    pub uses: Vec<Use>,
    /// The hosts on which such a bot may run.
    pub hosts: Vec<FleetHost>,
    /// The newest rotation.
    #[serde(default)]
    pub rotation: Option<RotationStatus>,
}

/// A bot that a rule lets use a credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// The bot.
    pub bot: BotName,
    /// The rule.
    pub rule: String,
    /// How many calls it made by that rule in the last hour, as the hosts told.
    pub calls: u64,
}

/// A host that needs a credential, and how far it is with the newest rotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetHost {
    /// The host.
    pub host: HostName,
    /// Whether its stream is up.
    pub connected: bool,
    /// Whether it is quarantined: it is told nothing then.
    pub quarantined: bool,
    /// To whom values are sealed for it; absent while it has not said so.
    #[serde(default)]
    pub recipient: Option<String>,
    /// What it said is done.
    #[serde(default)]
    pub phase: Option<Phase>,
    /// Why the newest order was not carried out; empty otherwise.
    #[serde(default)]
    pub error: String,
    /// Whether the rotation has a value for it: it joined later where not.
    pub has_value: bool,
}

/// How far a rotation is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationStatus {
    /// Names it; a newer one has a higher number.
    pub rotation: u64,
    /// What the hosts were told.
    pub phase: Phase,
    /// Of the new value.
    pub fingerprint: String,
    /// Who asked for it: a user name or `uid:N`.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub started: Timestamp,
    /// Since when the phase is this.
    pub changed: Timestamp,
    /// The bot that gets the value before the others, and where.
    #[serde(default)]
    pub canary: Option<CanaryStatus>,
    /// What probes found.
    pub probe: ProbeStatus,
}

/// The bot that gets a new value before the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryStatus {
    /// The bot.
    pub bot: BotName,
    /// The host on which it gets it.
    pub host: HostName,
    /// Calls with the new value that were answered.
    pub calls: u64,
    /// Those of them that were answered by 401.
    pub refused: u64,
}

/// What the service said of the two values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeStatus {
    /// The status that the new value got.
    #[serde(default)]
    pub new: Option<u16>,
    /// The status that the value before got, the last time.
    #[serde(default)]
    pub old: Option<u16>,
    /// Why the newest probe got no answer; empty otherwise.
    #[serde(default)]
    pub error: String,
}

/// Asks to give every host a new value, beside the one in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateRequest {
    /// The credential.
    pub name: String,
    /// Why; not empty, one line of at most 256 characters.
    pub reason: String,
    /// Of the value: 16 hexadecimal digits.
    pub fingerprint: String,
    /// The value for each host that needs it, in Base64 (RFC 4648 §4), sealed to its recipient.
    pub sealed: BTreeMap<HostName, String>,
    /// The bot that is to get it before the others; any that may use it when absent.
    #[serde(default)]
    pub canary: Option<BotName>,
}

/// Asks to go on with a rotation, or to give it up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdvanceRequest {
    /// The credential.
    pub name: String,
    /// Which rotation: another one may have begun since.
    pub rotation: u64,
    /// What follows.
    pub to: Phase,
    /// Goes on without hosts that are away. They get the value when they come back.
    #[serde(default)]
    pub without_away: bool,
}
