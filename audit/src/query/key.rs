//! What records can be grouped by.

use spiffe::time::Timestamp;

use super::view::{Party, View};
use crate::record::words;

words! {
    /// A key of groups.
    Key {
        /// Who calls: the SPIFFE ID, else the user of a local process.
        From = "from",
        /// Who is called: the SPIFFE ID, else the destination or the host as it was named.
        To = "to",
        /// The kind of the record.
        Kind = "kind",
        /// What was decided.
        Verdict = "verdict",
        /// The rule that decided.
        Rule = "rule",
        /// The word for the refusal.
        Reason = "reason",
        /// The method.
        Method = "method",
        /// The status, of a call that of its end.
        Status = "status",
        /// The name of the credential.
        Credential = "credential",
        /// What was spoken.
        Protocol = "protocol",
        /// Which end of the call the host is.
        Direction = "direction",
        /// The day of the record's time, in UTC.
        Day = "day",
        /// The hour.
        Hour = "hour",
        /// The minute.
        Minute = "minute",
    }
}

impl Key {
    /// Reads a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|key| key.as_str() == word)
    }

    /// Milliseconds of the unit of time; none of other keys.
    const fn unit(self) -> Option<i64> {
        match self {
            Self::Day => Some(24 * 60 * 60 * 1000),
            Self::Hour => Some(60 * 60 * 1000),
            Self::Minute => Some(60 * 1000),
            Self::From
            | Self::To
            | Self::Kind
            | Self::Verdict
            | Self::Rule
            | Self::Reason
            | Self::Method
            | Self::Status
            | Self::Credential
            | Self::Protocol
            | Self::Direction => None,
        }
    }

    /// The finest unit of time among keys, in milliseconds.
    pub(super) fn finest(keys: &[Self]) -> Option<i64> {
        keys.iter().filter_map(|key| key.unit()).min()
    }

    /// Returns the value of a record, its ends, times and statuses left aside.
    pub(super) fn of(self, view: &View<'_>) -> Option<String> {
        let text = match self {
            Self::Kind => return Some(view.kind.clone().into_owned()),
            // HTTP is left out of the records of calls.
            Self::Protocol if view.kind == "call" && view.protocol.is_none() => return Some("http".to_owned()),
            Self::Protocol => &view.protocol,
            Self::Verdict => &view.verdict,
            Self::Rule => &view.rule,
            Self::Reason => &view.reason,
            Self::Method => &view.method,
            Self::Credential => &view.credential,
            Self::Direction => &view.direction,
            Self::From | Self::To | Self::Status | Self::Day | Self::Hour | Self::Minute => return None,
        };
        text.as_deref().map(str::to_owned)
    }

    /// Returns the value of a group: `text`, or for a time and a status what it was counted under.
    pub(super) fn told(
        self,
        text: Option<String>,
        time: Option<i64>,
        unit: Option<i64>,
        status: Option<u16>,
    ) -> Option<String> {
        if self == Self::Status {
            return status.map(|status| status.to_string());
        }
        if self.unit().is_none() {
            return text;
        }
        let (time, unit) = time.zip(unit)?;
        let begin = Timestamp::from_unix_millis(time.saturating_mul(unit)).to_string();
        // The beginning of RFC 3339, as far as it goes.
        let length = if self == Self::Day {
            "2026-12-01".len()
        } else if self == Self::Hour {
            "2026-12-01T18".len()
        } else {
            "2026-12-01T18:00".len()
        };
        begin.get(..length).map(str::to_owned)
    }
}

/// Names an end of calls.
pub(super) fn party(party: &Party<'_>) -> Option<String> {
    let name = party
        .id
        .as_deref()
        .or(party.outside.as_deref())
        .or(party.host.as_deref());
    name.map(str::to_owned)
        .or_else(|| party.uid.map(|uid| format!("uid {uid}")))
}
