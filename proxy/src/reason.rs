//! The words for refusals: one closed list, the same in answers, records and metrics, and the one table that turns a
//! word into a status.

use std::fmt;

use http::StatusCode;
use policy::DenyReason;

/// Why a call was not carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The caller is no bot of this host, or not the one it was any more.
    UnknownCaller,
    /// No rule allows it.
    NoRule,
    /// A deny rule forbids it.
    DeniedByRule,
    /// The rule that would allow it has ended.
    RuleExpired,
    /// The caller, the callee, or the host of one of them is quarantined.
    Quarantined,
    /// It looks like a browser's call.
    BrowserRefused,
    /// The caller calls more often than a limit admits.
    RateLimited,
    /// It is for no bot, and no rule lets it leave the mesh, or not to that address, or not to that name.
    OutsideForbidden,
    /// A key is in its path or query, where logs and histories keep it.
    SecretInUrl,
    /// A credential that this proxy keeps is in it, for somebody who should not have it.
    SecretInRequest,
    /// It could be read in two ways, or not at all.
    BadRequest,
    /// Its path could.
    BadPath,
    /// The bot that it is for does not exist, and a rule says that the caller may know.
    NoSuchBot,
    /// Whoever listens where the callee should is not the callee; or, on the mesh side, it is for another bot than the
    /// one whose certificate was asked for.
    CalleeMismatch,
    /// The other proxy, or whoever answers outside, did not prove to be the callee.
    PeerMismatch,
    /// The other end cannot be reached, or does not speak HTTP.
    PeerUnreachable,
    /// The credential that the proxy would add to the call cannot be had at the moment.
    CredentialUnavailable,
    /// The caller has no valid SVID.
    NoIdentity,
    /// The call could not be recorded.
    LedgerUnavailable,
    /// Calls of this caller to the callee failed, one after another, and none is made for a while.
    BreakerOpen,
    /// There are too many calls or connections.
    Overloaded,
    /// The callee did not answer in time.
    Timeout,
}

/// The side on which a call came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// From a bot of this host.
    Bots,
    /// From another proxy or a foreign peer.
    Mesh,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::UnknownCaller,
        Self::NoRule,
        Self::DeniedByRule,
        Self::RuleExpired,
        Self::Quarantined,
        Self::BrowserRefused,
        Self::RateLimited,
        Self::OutsideForbidden,
        Self::SecretInUrl,
        Self::SecretInRequest,
        Self::BadRequest,
        Self::BadPath,
        Self::NoSuchBot,
        Self::CalleeMismatch,
        Self::PeerMismatch,
        Self::PeerUnreachable,
        Self::CredentialUnavailable,
        Self::NoIdentity,
        Self::LedgerUnavailable,
        Self::BreakerOpen,
        Self::Overloaded,
        Self::Timeout,
    ];

    /// Returns the word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownCaller => "unknown_caller",
            Self::NoRule => "no_rule",
            Self::DeniedByRule => "denied_by_rule",
            Self::RuleExpired => "rule_expired",
            Self::Quarantined => "quarantined",
            Self::BrowserRefused => "browser_refused",
            Self::RateLimited => "rate_limited",
            Self::OutsideForbidden => "outside_forbidden",
            Self::SecretInUrl => "secret_in_url",
            Self::SecretInRequest => "secret_in_request",
            Self::BadRequest => "bad_request",
            Self::BadPath => "bad_path",
            Self::NoSuchBot => "no_such_bot",
            Self::CalleeMismatch => "callee_mismatch",
            Self::PeerMismatch => "peer_mismatch",
            Self::PeerUnreachable => "peer_unreachable",
            Self::CredentialUnavailable => "credential_unavailable",
            Self::NoIdentity => "no_identity",
            Self::LedgerUnavailable => "ledger_unavailable",
            Self::BreakerOpen => "breaker_open",
            Self::Overloaded => "overloaded",
            Self::Timeout => "timeout",
        }
    }

    /// Returns the status of the answer.
    #[must_use]
    pub const fn status(self, side: Side) -> StatusCode {
        match self {
            Self::UnknownCaller
            | Self::NoRule
            | Self::DeniedByRule
            | Self::RuleExpired
            | Self::Quarantined
            | Self::BrowserRefused
            | Self::OutsideForbidden
            | Self::SecretInUrl
            | Self::SecretInRequest => StatusCode::FORBIDDEN,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::BadRequest | Self::BadPath => StatusCode::BAD_REQUEST,
            Self::NoSuchBot => StatusCode::NOT_FOUND,
            Self::CalleeMismatch => match side {
                Side::Bots => StatusCode::BAD_GATEWAY,
                Side::Mesh => StatusCode::MISDIRECTED_REQUEST,
            },
            Self::PeerMismatch | Self::PeerUnreachable => StatusCode::BAD_GATEWAY,
            Self::CredentialUnavailable
            | Self::NoIdentity
            | Self::LedgerUnavailable
            | Self::BreakerOpen
            | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Returns one line for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::UnknownCaller => "The calling process is no bot that this host knows",
            Self::NoRule => "No rule allows this call",
            Self::DeniedByRule => "A rule forbids this call",
            Self::RuleExpired => "The rule that allowed this call has ended",
            Self::Quarantined => "An operator has cut off the caller, the callee or a host of theirs",
            Self::RateLimited => "The caller calls this callee more often than a limit admits",
            Self::BrowserRefused => "Calls that look like a browser's are refused",
            Self::OutsideForbidden => "This call may not leave the mesh",
            Self::SecretInUrl => "A key is in the address, where logs keep it",
            Self::SecretInRequest => "A credential of this host is in the request, for somebody who should not have it",
            Self::BadRequest => "The request could be read in more than one way, or not at all",
            Self::BadPath => "The path could be read in more than one way",
            Self::NoSuchBot => "There is no such bot",
            Self::CalleeMismatch => "The bot that was called is not what answers there",
            Self::PeerMismatch => "Whoever answered did not prove to be the callee",
            Self::PeerUnreachable => "The callee cannot be reached",
            Self::CredentialUnavailable => "The credential for this call cannot be had at the moment",
            Self::NoIdentity => "The caller has no valid identity document at the moment",
            Self::LedgerUnavailable => "The call could not be recorded, so it was not made",
            Self::BreakerOpen => "Calls to this callee failed one after another, so none is made for a moment",
            Self::Overloaded => "There are too many calls at the moment",
            Self::Timeout => "The callee did not answer in time",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<DenyReason> for Reason {
    fn from(reason: DenyReason) -> Self {
        match reason {
            DenyReason::NoRule => Self::NoRule,
            DenyReason::DeniedByRule => Self::DeniedByRule,
            DenyReason::RuleExpired => Self::RuleExpired,
            DenyReason::BrowserRefused => Self::BrowserRefused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_the_status_that_users_were_promised() {
        let told: Vec<_> = Reason::ALL.map(|r| (r.as_str(), r.status(Side::Bots).as_u16())).into();
        assert_eq!(
            told,
            [
                ("unknown_caller", 403),
                ("no_rule", 403),
                ("denied_by_rule", 403),
                ("rule_expired", 403),
                ("quarantined", 403),
                ("browser_refused", 403),
                ("rate_limited", 429),
                ("outside_forbidden", 403),
                ("secret_in_url", 403),
                ("secret_in_request", 403),
                ("bad_request", 400),
                ("bad_path", 400),
                ("no_such_bot", 404),
                ("callee_mismatch", 502),
                ("peer_mismatch", 502),
                ("peer_unreachable", 502),
                ("credential_unavailable", 503),
                ("no_identity", 503),
                ("ledger_unavailable", 503),
                ("breaker_open", 503),
                ("overloaded", 503),
                ("timeout", 504),
            ]
        );
        assert_eq!(Reason::CalleeMismatch.status(Side::Mesh).as_u16(), 421);
        for reason in Reason::ALL
            .into_iter()
            .filter(|reason| *reason != Reason::CalleeMismatch)
        {
            assert_eq!(reason.status(Side::Mesh), reason.status(Side::Bots));
        }
    }

    #[test]
    fn the_policys_words_are_ours() {
        for reason in [
            DenyReason::NoRule,
            DenyReason::DeniedByRule,
            DenyReason::RuleExpired,
            DenyReason::BrowserRefused,
        ] {
            assert_eq!(Reason::from(reason).as_str(), reason.as_str());
        }
    }
}
