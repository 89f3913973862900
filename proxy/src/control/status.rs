//! What can be said about the control side: readiness for probes, status for
//! operators.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use policy::Generation;
use spiffe::id::{BotName, HostName, TrustDomain};
use spiffe::time::Timestamp;

use super::svids::SvidStatus;
use super::time::SKEW_MAX;

/// One thing without which this host cannot carry its calls.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missing {
    /// No slice was ever applied: nothing is allowed.
    Slice,
    /// A bot of this host has no valid SVID.
    Svid(BotName),
    /// This many bots are beyond the bound and get no SVID.
    TooManyBots(usize),
    /// The CA was never heard.
    CaNotHeard,
    /// The CA was not heard for too long: its policy may be another by now.
    PolicyTooOld {
        /// When it was heard last.
        heard: Timestamp,
        /// How long that may be ago.
        max: Duration,
    },
    /// The wall clock differs too much from the CA's.
    ClockSkew,
    /// The CA has evicted this host.
    Evicted,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slice => f.write_str("no policy was received from the CA yet"),
            Self::Svid(bot) => write!(f, "bot {bot} has no valid SVID"),
            Self::TooManyBots(count) => {
                write!(
                    f,
                    "{count} bots of this host get no SVID: one host holds at most {}",
                    super::BOTS_MAX
                )
            }
            Self::CaNotHeard => f.write_str("the CA was not heard yet"),
            Self::PolicyTooOld { heard, max } => write!(
                f,
                "the policy is too old: the CA was last heard at {heard}, and max_policy_age is {} s",
                max.as_secs()
            ),
            Self::ClockSkew => {
                write!(
                    f,
                    "the clock of this host differs from the CA's by more than {} s",
                    SKEW_MAX.as_secs()
                )
            }
            Self::Evicted => f.write_str("the CA has evicted this host; it needs a new join token"),
        }
    }
}

/// Whether this host can carry its calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// What is missing; empty when ready.
    pub missing: Vec<Missing>,
}

impl Readiness {
    /// Says whether nothing is missing.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.missing.is_empty()
    }
}

/// How the stream to the CA is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkStatus {
    /// The CA server that the stream is up to; `None` while it is down.
    pub connected: Option<String>,
    /// When the CA was last heard since the start.
    pub heard: Option<Timestamp>,
    /// Why the last attempt failed; `None` while the stream is up.
    pub error: Option<String>,
    /// Whether the CA has evicted this host.
    pub evicted: bool,
}

/// The control side, for the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlStatus {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// This host.
    pub host: HostName,
    /// Its time (not its wall clock).
    pub now: Timestamp,
    /// The number of the policy; `None` before the first slice.
    pub generation: Option<Generation>,
    /// The sequence number of the trust bundle.
    pub bundle_sequence: u64,
    /// The stream to the CA.
    pub link: LinkStatus,
    /// When the node SVID ends.
    pub node_not_after: Option<Timestamp>,
    /// When the next node SVID is asked for.
    pub node_renew_at: Option<Timestamp>,
    /// The SVIDs, by bot.
    pub svids: Vec<SvidStatus>,
    /// Where the SVIDs and their keys are kept.
    pub svids_file: PathBuf,
    /// When the CA was last heard, before the start too.
    pub ca_heard: Option<Timestamp>,
    /// Edges that were dropped and not reported yet.
    pub edges_dropped: u64,
    /// Events that were dropped and not reported yet.
    pub events_dropped: u64,
}
