//! What hosts ask or say that they may not: refused where it comes in, and recorded here.
//!
//! A host that does it has proved who it is, so the record names it. It is written at once the first time and then
//! counted, because a host that was taken over must not fill the ledger either.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use audit::EventKind;
use serde_json::json;
use spiffe::id::HostName;

use crate::core::Core;
use crate::tally::{Admission, Tally};

/// The longest word of a host that a record repeats, in bytes.
const WHAT_BYTES_MAX: usize = 128;

/// How often counts are looked at.
const INTERVAL: Duration = Duration::from_secs(10);

/// Defines the refusals with their words.
macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident = $word:literal,)+) => {
        /// Why a host was refused; the words of ledger and metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum HostRefusal { $($(#[$doc])* $variant,)+ }

        impl HostRefusal {
            /// Returns the word.
            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

refusals! {
    /// An SVID of a bot that the host may not claim, or that does not exist.
    NotYourBot = "not_your_bot",
    /// An SVID of something that is no bot: a CA server, a host, an operator, or no name at all.
    NotABot = "not_a_bot",
    /// A CSR that is too long, or is none.
    BadCsr = "bad_csr",
    /// More SVIDs in one request than it may hold.
    TooManySvids = "too_many_svids",
    /// More SVIDs than a host needs.
    SvidsLimited = "svids_limited",
    /// A JWT-SVID for an audience that no rule of the bot is about.
    NotYourAudience = "not_your_audience",
    /// A JWT-SVID for something that is no audience.
    BadAudience = "bad_audience",
    /// A JWT-SVID of a CA that has none.
    NotFederated = "not_configured",
    /// An SVID while the bot or the host is quarantined.
    Quarantined = "quarantined",
    /// An SVID of a host that is evicted.
    Evicted = "evicted",
    /// A key that the host acts with no longer.
    OldKey = "key_not_current",
    /// An SVID that ended while its connection lived.
    SvidExpired = "svid_expired",
    /// A host that this CA does not know.
    UnknownHost = "unknown_host",
    /// An answer about its ledger that is longer than one may be.
    AnswerTooLong = "answer_too_long",
    /// An answer to a question that was never asked.
    AnswerNotAsked = "answer_not_asked",
    /// More connections than a host needs.
    TooManyConnections = "too_many_connections",
    /// A path that the node API does not have.
    UnknownRpc = "unknown_rpc",
    /// A stream that does not begin with a `Hello`.
    NoHello = "no_hello",
    /// A `Hello` that cannot be read, or is of another version.
    BadHello = "bad_hello",
    /// A second `Hello` on a stream.
    SecondHello = "second_hello",
    /// The address of another host, or one where nobody else could reach this one.
    AdvertiseNotYours = "advertise_not_yours",
    /// A receipt for a slice that was never sent, or for other bytes.
    ReceiptNotSent = "receipt_not_sent",
    /// A receipt for a list of quarantines that was never sent.
    QuarantinesNotSent = "quarantines_not_sent",
    /// Word of a new value that the host was not given.
    CredentialNotSent = "credential_not_sent",
    /// An edge between bots of other hosts.
    EdgeNotYours = "edge_not_yours",
    /// An edge with a rule, verdict or reason that there is not.
    EdgeUnreadable = "edge_unreadable",
    /// More edges in one message than it may hold.
    TooManyEdges = "too_many_edges",
    /// An event about bots of other hosts.
    EventNotYours = "event_not_yours",
    /// An event that is none.
    EventUnreadable = "event_unreadable",
    /// An event that is too long.
    EventTooLong = "event_too_long",
    /// A checkpoint of another ledger.
    CheckpointNotYours = "checkpoint_not_yours",
    /// A checkpoint that is none, or too long.
    CheckpointUnreadable = "checkpoint_unreadable",
    /// A ledger with fewer records than were cosigned.
    LedgerShrunken = "ledger_shrunken",
    /// A ledger whose records are not those that were cosigned.
    LedgerForked = "ledger_forked",
    /// A ledger with another key than it had in the same epoch.
    LedgerOtherKey = "ledger_other_key",
    /// A ledger that is back in an epoch before.
    LedgerOldEpoch = "ledger_old_epoch",
    /// A message that is longer than any may be.
    MessageTooLong = "message_too_long",
    /// Bytes that are no message.
    MessageUnreadable = "message_unreadable",
    /// More messages than a host has to tell.
    TooManyMessages = "too_many_messages",
}

impl HostRefusal {
    const fn kind(self) -> EventKind {
        match self {
            Self::NotYourBot
            | Self::NotABot
            | Self::BadCsr
            | Self::TooManySvids
            | Self::SvidsLimited
            | Self::NotYourAudience
            | Self::BadAudience
            | Self::NotFederated
            | Self::Quarantined => EventKind::IssueRefused,
            Self::CheckpointNotYours
            | Self::CheckpointUnreadable
            | Self::LedgerShrunken
            | Self::LedgerForked
            | Self::LedgerOtherKey
            | Self::LedgerOldEpoch => EventKind::CheckpointRefused,
            Self::Evicted
            | Self::OldKey
            | Self::SvidExpired
            | Self::UnknownHost
            | Self::TooManyConnections
            | Self::UnknownRpc
            | Self::NoHello
            | Self::BadHello
            | Self::SecondHello
            | Self::AdvertiseNotYours
            | Self::ReceiptNotSent
            | Self::QuarantinesNotSent
            | Self::CredentialNotSent
            | Self::EdgeNotYours
            | Self::EdgeUnreadable
            | Self::TooManyEdges
            | Self::EventNotYours
            | Self::EventUnreadable
            | Self::EventTooLong
            | Self::AnswerTooLong
            | Self::AnswerNotAsked
            | Self::MessageTooLong
            | Self::MessageUnreadable
            | Self::TooManyMessages => EventKind::HostRefused,
        }
    }
}

/// Who was refused for what, while it is counted.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<Tally<(HostName, HostRefusal)>>);

impl Core {
    /// Counts and records that a host was refused. `what` is what it asked or said, in its own words.
    pub(crate) fn host_refused(&self, host: &HostName, source: IpAddr, refusal: HostRefusal, what: &str) {
        let word = refusal.as_str();
        self.metrics.refused.with_label_values(&[word]).inc();
        let what = what.get(..what.floor_char_boundary(WHAT_BYTES_MAX)).unwrap_or_default();
        let admission = {
            let mut tally = self.refusals.0.lock().unwrap_or_else(PoisonError::into_inner);
            tally.admit(&(host.clone(), refusal), self.now())
        };
        if admission == Admission::Write {
            tracing::warn!(%host, %source, reason = word, what = %what.escape_debug(), "a host was refused");
            let detail = [
                ("reason", json!(word)),
                ("source", json!(source)),
                ("what", json!(what)),
            ];
            self.journal
                .note(refusal.kind(), &format!("host:{host}"), &format!("host:{host}"), detail);
        }
    }

    /// Writes the counts that are due, or all.
    fn write_refusals(&self, all: bool) {
        let taken = {
            let mut tally = self.refusals.0.lock().unwrap_or_else(PoisonError::into_inner);
            tally.take(self.now(), all)
        };
        for (whom, count) in taken {
            let (kind, host, word) = match &whom {
                Some((host, refusal)) => (refusal.kind(), format!("host:{host}"), refusal.as_str()),
                None => (EventKind::HostRefused, "hosts".to_owned(), "other"),
            };
            let detail = [
                ("reason", json!(word)),
                ("count", json!(count.count)),
                ("first", json!(count.first)),
                ("last", json!(count.last)),
            ];
            self.journal.note(kind, &host, &host, detail);
        }
    }
}

/// Writes counts when they are due, and what is left when the CA stops.
pub(crate) async fn write_counts(core: Arc<Core>) {
    loop {
        // Cancel safe: nothing is held across the wait.
        tokio::select! {
            () = core.cancel.cancelled() => return core.write_refusals(true),
            () = tokio::time::sleep(INTERVAL) => core.write_refusals(false),
        }
    }
}
