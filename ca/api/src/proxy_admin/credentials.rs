//! Credentials of this host's bots: what is known of them, and putting a value. No answer has a value in it.

use std::fmt;

use serde::{Deserialize, Serialize};
use spiffe::id::BotName;
use spiffe::time::Timestamp;

/// The credentials that the bots of this host use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialsResponse {
    /// To whom `age -r` encrypts a file for this host.
    pub recipient: String,
    /// By name.
    pub credentials: Vec<CredentialStatus>,
}

/// One credential, as this host has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialStatus {
    /// Its name in the mesh file.
    pub name: String,
    /// How it is added: `header`, `bearer`, `basic`, `query`, `hmac`, `sigv4`, `oauth`, `github_app`, `federate`.
    pub injection: String,
    /// Whom to ask about it.
    pub owner: String,
    /// Where its value is: `file`, `command`, `systemd`, `env`, `vault`; `none` where this host has none.
    pub source: String,
    /// How long what a service gets lives: `static` until somebody replaces it, `short` for minutes or hours, `dynamic` as long as
    /// the process for which it was made, `federated` where there is no value and each bot has a token of its own.
    #[serde(default)]
    pub class: String,
    /// How many processes have one of their own.
    #[serde(default)]
    pub leases: usize,
    /// When the value was put here, of one that was.
    #[serde(default)]
    pub put: Option<Timestamp>,
    /// When it is to be replaced, where the mesh file says how often.
    #[serde(default)]
    pub due: Option<Timestamp>,
    /// Tells two values apart; of the one in memory.
    #[serde(default)]
    pub fingerprint: Option<String>,
    /// For how many seconds it has been in memory.
    #[serde(default)]
    pub age_s: Option<u64>,
    /// Why it was not read the last time.
    #[serde(default)]
    pub error: Option<String>,
    /// Of one that is exchanged for a token.
    #[serde(default)]
    pub token: Option<TokenStatus>,
    /// Of one without a value: the bots that have used it, or for which it was tried.
    #[serde(default)]
    pub bots: Vec<BotToken>,
    /// In how many answers it was, and was masked.
    pub masked: u64,
    /// Why several bots may use it.
    #[serde(default)]
    pub shared: Option<String>,
    /// Who uses it.
    pub consumers: Vec<Consumer>,
}

/// The token that a value was exchanged for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenStatus {
    /// Tells two tokens apart; of the one in memory.
    #[serde(default)]
    pub fingerprint: Option<String>,
    /// For how many seconds it is used yet.
    #[serde(default)]
    pub left_s: Option<u64>,
    /// Why there was none the last time.
    #[serde(default)]
    pub error: Option<String>,
    /// How often the value was exchanged since the proxy began.
    pub exchanges: u64,
}

/// The token of one bot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotToken {
    /// The bot.
    pub bot: BotName,
    /// What is known of its token, or of its JWT-SVID where that is sent itself.
    pub token: TokenStatus,
}

/// A rule that adds a credential, and the bots whose calls it allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumer {
    /// The rule.
    pub rule: String,
    /// The bots.
    pub bots: Vec<BotName>,
}

/// Asks to put a value on this host. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialPut {
    /// The credential.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl fmt::Debug for CredentialPut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialPut")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Asks to read a value anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialTest {
    /// The credential.
    pub name: String,
}
