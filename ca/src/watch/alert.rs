//! What is raised, and what is said of it.

use ca_api::admin::{CallRate, WatchAlert};
use spiffe::id::{BotName, HostName};
use spiffe::time::Timestamp;

use super::series::{Excess, Rate};

/// What there is to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WatchKind {
    /// Many more calls by a rule than on the days before.
    RateJump,
    /// A destination, or a rule to it, that the bot never used.
    FirstSeen,
    /// Many more refused calls than on the days before.
    RefusalBurst,
    /// More alerts of one host than are written one by one.
    More,
}

impl WatchKind {
    pub(crate) const ALL: [Self; 4] = [Self::RateJump, Self::FirstSeen, Self::RefusalBurst, Self::More];

    /// The word in ledger, metrics and lists.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::RateJump => "rate_jump",
            Self::FirstSeen => "first_seen",
            Self::RefusalBurst => "refusal_burst",
            Self::More => "more_alerts",
        }
    }
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Alert {
    pub(crate) kind: WatchKind,
    /// By the clock of the CA.
    pub(crate) time: Timestamp,
    /// Who told of the calls.
    pub(crate) host: HostName,
    pub(crate) from: BotName,
    /// A bot, or a destination outside; empty where there is none of that name, and where it is about many.
    pub(crate) to: String,
    /// The rule; empty where none allowed it.
    pub(crate) route: String,
    pub(crate) excess: Option<Excess>,
    /// Where refused calls went.
    pub(crate) destinations: Vec<String>,
    /// A call that was refused.
    pub(crate) refused: bool,
    /// Alerts that this one stands for.
    pub(crate) count: u64,
}

impl Alert {
    /// What happened, as one sentence.
    fn message(&self) -> String {
        let (from, to) = (&self.from, self.destination());
        let rates = self
            .excess
            .map(|Excess { seen, expected }| (said(seen), usual(seen, expected)));
        match (self.kind, rates) {
            (WatchKind::RateJump, Some((seen, usual))) if self.route.is_empty() => {
                format!("{from} called {to} {seen} without a rule; in the days before {usual}")
            }
            (WatchKind::RateJump, Some((seen, usual))) => {
                format!(
                    "{from} called {to} {seen} by rule {}; in the days before {usual}",
                    self.route
                )
            }
            (WatchKind::RefusalBurst, Some((seen, usual))) => {
                let to = self.destinations.join(", ");
                format!("{from} was refused {seen}, lately at {to}; in the days before {usual}")
            }
            (WatchKind::More, _) => format!(
                "{} more alerts about bots on {}, of {from} and others",
                self.count, self.host
            ),
            (_, _) if self.refused => format!("{from} was refused at {to}, which it never called before"),
            (_, _) if self.route.is_empty() => format!("{from} called {to} without a rule for the first time"),
            (_, _) => format!("{from} called {to} by rule {} for the first time", self.route),
        }
    }

    fn destination(&self) -> &str {
        if self.to.is_empty() {
            "a name that nobody has"
        } else {
            &self.to
        }
    }

    /// What would end it, for a person who has looked.
    fn command(&self) -> String {
        match self.kind {
            WatchKind::RateJump | WatchKind::FirstSeen | WatchKind::RefusalBurst => {
                format!("botmesh quarantine {} --reason {}", self.from, self.kind.as_str())
            }
            WatchKind::More => "botmesh alerts".to_owned(),
        }
    }

    pub(super) fn to_api(&self, id: u64) -> WatchAlert {
        let rate = |rate: Rate| CallRate {
            calls: u64::from(rate.calls),
            seconds: u64::from(rate.seconds),
        };
        WatchAlert {
            id,
            time: self.time,
            kind: self.kind.as_str().to_owned(),
            from: self.from.clone(),
            to: self.to.clone(),
            route: self.route.clone(),
            host: self.host.clone(),
            seen: self.excess.map(|excess| rate(excess.seen)),
            expected: self.excess.map(|excess| rate(excess.expected)),
            destinations: self.destinations.clone(),
            count: self.count,
            message: self.message(),
            command: self.command(),
        }
    }
}

fn said(rate: Rate) -> String {
    format!("{} times in {}", rate.calls, span(rate.seconds))
}

fn usual(seen: Rate, expected: Rate) -> String {
    let Rate { calls, seconds } = expected;
    match calls {
        0 => "never".to_owned(),
        calls if seconds == seen.seconds => format!("at most {calls} times in {}", span(seconds)),
        calls => format!("never {calls} times in less than {}", span(seconds)),
    }
}

fn span(seconds: u32) -> String {
    match seconds {
        3_600 => "an hour".to_owned(),
        60 => "a minute".to_owned(),
        seconds if seconds % 60 == 0 => format!("{} minutes", seconds / 60),
        seconds => format!("{seconds} seconds"),
    }
}
