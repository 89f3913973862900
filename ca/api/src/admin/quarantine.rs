//! Quarantine and release: the same questions to the CA, for the mesh, and to a proxy, for its host.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use spiffe::id::{BotName, HostName};
use spiffe::time::Timestamp;

use super::HostGeneration;
use crate::Generation;

/// The longest quarantine that ends by itself, in seconds: a century. What is asked beyond it means "for ever", and says
/// so by leaving the end out.
const FOR_SECONDS_MAX: u64 = 100 * 366 * 24 * 3600;

/// The longest reason of a quarantine, in characters.
pub const REASON_CHARS_MAX: usize = 256;

/// Whom a quarantine is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quarantined {
    /// A bot, wherever it runs.
    Bot(BotName),
    /// A host, with all bots on it.
    Host(HostName),
}

impl Quarantined {
    /// Names it as the subject of a record: `bot:NAME` or `host:NAME`.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::Bot(bot) => format!("bot:{bot}"),
            Self::Host(host) => format!("host:{host}"),
        }
    }
}

impl fmt::Display for Quarantined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bot(bot) => write!(f, "bot {bot}"),
            Self::Host(host) => write!(f, "host {host}"),
        }
    }
}

/// Asks that a bot or a host neither calls nor is called any more, from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuarantineRequest {
    /// Whom.
    pub whom: Quarantined,
    /// Why, for whoever finds it; not empty, at most 256 characters.
    pub reason: String,
    /// When it ends by itself; never when absent.
    #[serde(default)]
    pub for_seconds: Option<u64>,
}

impl QuarantineRequest {
    /// Makes the quarantine that `actor` asks for at `since`.
    ///
    /// # Errors
    ///
    /// When the reason says nothing or is not one line of at most [`REASON_CHARS_MAX`] characters, or the end is the
    /// beginning.
    pub fn quarantine(self, actor: String, since: Timestamp) -> Result<Quarantine, InvalidQuarantine> {
        let reason = self.reason.trim();
        if reason.is_empty() {
            return Err(InvalidQuarantine::NoReason);
        }
        // It is read on terminals, where control characters could say something else than they are.
        if reason.chars().count() > REASON_CHARS_MAX || reason.chars().any(char::is_control) {
            return Err(InvalidQuarantine::Reason);
        }
        let until = match self.for_seconds {
            None => None,
            Some(0) => return Err(InvalidQuarantine::NoTime),
            Some(seconds) => Some(since + Duration::from_secs(seconds.min(FOR_SECONDS_MAX))),
        };
        Ok(Quarantine {
            reason: reason.to_owned(),
            whom: self.whom,
            actor,
            since,
            until,
        })
    }
}

/// Why a request asks for no quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuarantine {
    /// Nobody would know why.
    #[error("a quarantine needs a reason, for whoever finds it")]
    NoReason,
    /// Too long, or with control characters.
    #[error("the reason of a quarantine is one line of at most {REASON_CHARS_MAX} characters")]
    Reason,
    /// It would end as it begins.
    #[error("a quarantine of 0 seconds is none: leave the time out for one without end")]
    NoTime,
}

/// Asks to end a quarantine. One that a proxy was told locally ends only there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    /// Whom.
    pub whom: Quarantined,
}

/// One quarantine in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// Whom.
    pub whom: Quarantined,
    /// Why.
    pub reason: String,
    /// By whom: a user name or `uid:N`.
    pub actor: String,
    /// Since when.
    pub since: Timestamp,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
}

/// The quarantines in force and where they are enforced. Answers to `quarantine` and `release` wait for no host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineStatus {
    /// The number of the list.
    pub generation: Generation,
    /// All that are in force.
    pub quarantines: Vec<Quarantine>,
    /// Every host that is not evicted. `live`: it enforces this list.
    pub hosts: Vec<HostGeneration>,
    /// Milliseconds from the change to the last receipt of a host that enforces it; `None` while none does.
    pub slowest_ms: Option<u64>,
    /// Streams that the hosts said they cut by it.
    pub streams_cut: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(reason: &str, for_seconds: Option<u64>) -> Result<Quarantine, InvalidQuarantine> {
        let request = QuarantineRequest {
            whom: Quarantined::Bot(BotName::parse("prod/orders").unwrap()),
            reason: reason.to_owned(),
            for_seconds,
        };
        request.quarantine("root".to_owned(), Timestamp::from_unix_seconds(100))
    }

    #[test]
    fn a_reason_is_one_line_that_says_something() {
        assert_eq!(asked(" stolen\n", None).unwrap().reason, "stolen");
        assert_eq!(asked(&"é".repeat(REASON_CHARS_MAX), None).unwrap().until, None);
        for (reason, refused) in [
            ("", InvalidQuarantine::NoReason),
            (" \t ", InvalidQuarantine::NoReason),
            ("one\ntwo", InvalidQuarantine::Reason),
            ("\u{1b}[2J", InvalidQuarantine::Reason),
            (&"x".repeat(REASON_CHARS_MAX + 1), InvalidQuarantine::Reason),
        ] {
            assert_eq!(asked(reason, None), Err(refused), "{reason:?}");
        }
    }

    #[test]
    fn an_end_is_after_the_beginning_and_within_a_century() {
        let until = |seconds| asked("x", Some(seconds)).unwrap().until.unwrap().unix_seconds();
        assert_eq!(until(60), 160);
        assert_eq!(until(u64::MAX), until(FOR_SECONDS_MAX));
        assert_eq!(asked("x", Some(0)), Err(InvalidQuarantine::NoTime));
    }

    #[test]
    fn a_subject_says_what_kind_it_is() {
        let host = Quarantined::Host(HostName::parse("web-1").unwrap());
        assert_eq!(
            (host.subject(), host.to_string()),
            ("host:web-1".to_owned(), "host web-1".to_owned())
        );
        assert_eq!(asked("x", None).unwrap().whom.subject(), "bot:prod/orders");
    }
}
