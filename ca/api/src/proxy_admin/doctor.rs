//! What `botmesh check` has the proxy try, because only the proxy can.

use serde::{Deserialize, Serialize};
use spiffe::id::BotName;

/// What the proxy found when it looked. Nothing is changed by looking; what is refused is recorded as ever.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Doctor {
    /// Where the bots of this host serve, and who listens there.
    pub callees: Vec<CalleeLook>,
    /// The bots that this host cannot tell apart.
    pub alike: Vec<Alike>,
    /// The join token, where its file is still there.
    pub token: Option<TokenLook>,
    /// How full the ledger is.
    pub ledger: Vec<ShareLook>,
}

/// How full a share of the ledger is, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareLook {
    /// `calls`, `refusals` or `strangers`.
    pub share: String,
    /// Spent so far.
    pub spent: u64,
    /// Of so many.
    pub most: u64,
}

/// Who listens where a bot serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalleeLook {
    /// The bot.
    pub bot: BotName,
    /// Where: `127.0.0.1:8080` or `unix:PATH`.
    pub at: String,
    /// Who.
    pub found: CalleeFound,
}

/// Who it is, by the check that every call goes through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CalleeFound {
    /// The bot.
    Bot,
    /// Nobody that answers; why.
    Nobody(String),
    /// Somebody else; who.
    Other(String),
}

/// Two bots that one process of this host could be, or become.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alike {
    /// One.
    pub one: BotName,
    /// The other.
    pub other: BotName,
    /// One process matches both, and is refused; otherwise they share a user or a unit.
    pub same_process: bool,
}

/// A join token that is on disk though the host has joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenLook {
    /// Its file.
    pub file: String,
    /// What the CA said to it with another key.
    pub replayed: Replayed,
}

/// What became of a token that was used a second time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Replayed {
    /// The CA refused it, and recorded that.
    Refused,
    /// The CA took it: whoever has it is this host.
    Accepted,
    /// It was not tried; why.
    Untried(String),
}
