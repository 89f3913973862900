//! Values as a person types them.

use std::path::PathBuf;
use std::time::Duration;

use spiffe::time::Timestamp;

/// A revision as typed: the epoch is the live one unless it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RevisionRef {
    pub(crate) epoch: Option<u64>,
    pub(crate) revision: u64,
}

pub(super) fn unix_path(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("unix:") {
        Some("") => Err("the path is empty".to_owned()),
        Some(path) => Ok(PathBuf::from(path)),
        None => Err("expected unix:PATH, for example unix:/run/botmesh/ca.sock".to_owned()),
    }
}

pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::from_rfc3339(text)
        .map_err(|error| format!("{error}; expected RFC 3339, for example 2026-12-01T18:00:00Z"))
}

/// A duration that a person types; it is never zero.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let expected = || "expected a number and s, m, h or d, for example 2h".to_owned();
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(expected)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(expected()),
    };
    let number: u64 = number.parse().map_err(|_invalid| expected())?;
    match number.checked_mul(seconds) {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        Some(_) | None => Err("a duration is longer than nothing, and not longer than for ever".to_owned()),
    }
}

pub(super) fn revision(text: &str) -> Result<RevisionRef, String> {
    let number = |part: &str| {
        part.parse::<u64>()
            .map_err(|error| format!("{error}; expected REVISION or EPOCH.REVISION"))
    };
    match text.split_once('.') {
        None => Ok(RevisionRef {
            epoch: None,
            revision: number(text)?,
        }),
        Some((epoch, revision)) => Ok(RevisionRef {
            epoch: Some(number(epoch)?),
            revision: number(revision)?,
        }),
    }
}
