//! The filter: `verdict=deny from=prod/* since=15m`, all terms must hold.

use std::ops::RangeInclusive;
use std::time::Duration;

use spiffe::svid::Serial;
use spiffe::time::Timestamp;
use thiserror::Error;

use super::index::folded;
use super::pattern::{NotAPattern, Pattern};
use super::view::{Party, View};
use crate::record::{CallId, Direction, Protocol, Verdict};

/// The keys that a term may have.
pub const KEYS: &[&str] = &[
    "verdict",
    "from",
    "to",
    "protocol",
    "method",
    "path",
    "rule",
    "credential",
    "reason",
    "kind",
    "direction",
    "id",
    "serial",
    "since",
    "until",
    "status",
];

/// Longest filter, in bytes.
const FILTER_BYTES_MAX: usize = 4096;

/// Most terms of a filter.
const TERMS_MAX: usize = 64;

/// A filter that was read. Without terms it lets every record through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    terms: Vec<Term>,
    /// Kept apart from the terms, because a call's status is in another record.
    statuses: Vec<RangeInclusive<u16>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    Verdict(Verdict),
    From(Pattern),
    FromId(Pattern),
    To(Pattern),
    ToId(Pattern),
    Protocol(Protocol),
    Method(String),
    Path(Pattern),
    Rule(String),
    Credential(String),
    Reason(String),
    Kind(String),
    Direction(Direction),
    Id(CallId),
    /// As [`Serial`] writes itself.
    Serial(String),
    Since(Timestamp),
    Until(Timestamp),
}

/// Why a text is no filter.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FilterError {
    /// A term has no `=`.
    #[error("{term:?} is no term; write key=value, for example verdict=deny")]
    NoTerm {
        /// The term.
        term: String,
    },
    /// A term has an unknown key.
    #[error(
        "{key:?} is no key; the keys are verdict, from, to, protocol, method, path, rule, credential, reason, kind, direction, id, serial, since, until, status"
    )]
    Key {
        /// The key.
        key: String,
    },
    /// A term's value is not one of its key.
    #[error("{value:?} is no value for {key}: {wanted}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What it must be.
        wanted: &'static str,
    },
    /// A value is no pattern.
    #[error("{value:?} is no pattern for {key}")]
    Pattern {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What is wrong.
        #[source]
        source: NotAPattern,
    },
    /// The filter is too long.
    #[error("a filter has at most 4096 bytes and 64 terms")]
    TooLong,
}

/// Reads a filter. `since` and `until` take RFC 3339 times, or how long before
/// `now` in `s`, `m`, `h` or `d`; `status` takes `503` or `5xx`; `from`, `to`
/// and `path` take patterns, `from` and `to` of bot names or whole SPIFFE IDs.
///
/// # Errors
///
/// When a term is none, with the keys or values that there are.
pub fn parse(text: &str, now: Timestamp) -> Result<Filter, FilterError> {
    if text.len() > FILTER_BYTES_MAX {
        return Err(FilterError::TooLong);
    }
    let mut filter = Filter::default();
    for term in text.split_ascii_whitespace() {
        if filter.terms.len().saturating_add(filter.statuses.len()) == TERMS_MAX {
            return Err(FilterError::TooLong);
        }
        let Some((key, value)) = term.split_once('=') else {
            return Err(FilterError::NoTerm { term: term.to_owned() });
        };
        let Some(key) = KEYS.iter().find(|known| **known == key) else {
            return Err(FilterError::Key { key: key.to_owned() });
        };
        if *key == "status" {
            filter.statuses.push(status(value)?);
        } else {
            filter.terms.push(Term::parse(key, value, now)?);
        }
    }
    Ok(filter)
}

impl Filter {
    /// Adds that records must not be before a time.
    #[must_use]
    pub fn since(mut self, time: Timestamp) -> Self {
        self.terms.push(Term::Since(time));
        self
    }

    /// Adds that records must be before a time.
    #[must_use]
    pub fn until(mut self, time: Timestamp) -> Self {
        self.terms.push(Term::Until(time));
        self
    }

    /// Says whether the line of a record matches, by what it holds itself: the
    /// status of a call is in its end.
    #[must_use]
    pub fn matches(&self, line: &[u8]) -> bool {
        View::read(line).is_some_and(|view| self.admits(&view) && self.admits_status(view.status))
    }

    /// Says whether a record matches, its status left aside.
    pub(super) fn admits(&self, view: &View<'_>) -> bool {
        self.terms.iter().all(|term| term.admits(view))
    }

    /// Says whether a record can match by what many records have in common, its ends and serial numbers left aside.
    pub(super) fn admits_shape(&self, shape: &View<'_>) -> bool {
        let of_shape = |term: &&Term| !term.is_of_one_record() && !term.is_of_an_end();
        self.terms.iter().filter(of_shape).all(|term| term.admits(shape))
    }

    /// Says whether a record can match by who calls.
    pub(super) fn admits_from(&self, party: Option<&Party<'_>>) -> bool {
        self.terms.iter().all(|term| {
            if let Term::From(pattern) = term {
                names(party, pattern)
            } else if let Term::FromId(pattern) = term {
                id(party, pattern)
            } else {
                true
            }
        })
    }

    /// Says whether a record can match by who is called.
    pub(super) fn admits_to(&self, party: Option<&Party<'_>>) -> bool {
        self.terms.iter().all(|term| {
            if let Term::To(pattern) = term {
                names(party, pattern)
            } else if let Term::ToId(pattern) = term {
                id(party, pattern)
            } else {
                true
            }
        })
    }

    /// Says which of the wanted serial numbers are these, a bit for each that is wanted.
    pub(super) fn serials(&self, is_there: impl Fn(&str) -> bool) -> u64 {
        let wanted = self.terms.iter().filter_map(Term::serial);
        let bits = wanted
            .enumerate()
            .map(|(bit, serial)| u64::from(is_there(serial)) << bit);
        bits.fold(0, |all, bit| all | bit)
    }

    /// Says whether a record's times and ids match, its path left aside.
    pub(super) fn admits_row(&self, time: Option<Timestamp>, ids: [u64; 2]) -> bool {
        self.terms.iter().all(|term| {
            if let Term::Since(since) = term {
                time.is_some_and(|time| time >= *since)
            } else if let Term::Until(until) = term {
                time.is_some_and(|time| time < *until)
            } else if let Term::Id(id) = term {
                ids.contains(&folded(id.as_bytes()))
            } else {
                true
            }
        })
    }

    /// Says whether anything is asked of a record's own times and ids.
    pub(super) fn has_own(&self) -> bool {
        self.terms.iter().any(Term::is_of_one_record)
    }

    /// Says whether the line itself has to be read to know whether it matches.
    pub(super) fn needs_lines(&self) -> bool {
        self.terms.iter().any(|term| matches!(term, Term::Path(_)))
    }

    /// Says whether only records of some time match.
    pub(super) fn has_times(&self) -> bool {
        let is_time = |term: &Term| matches!(term, Term::Since(_) | Term::Until(_));
        self.terms.iter().any(is_time)
    }

    /// Says whether no record matches whose time is between these.
    pub(super) fn excludes(&self, earliest: Option<Timestamp>, latest: Option<Timestamp>) -> bool {
        self.terms.iter().any(|term| {
            if let Term::Since(since) = term {
                latest.is_none_or(|latest| latest < *since)
            } else if let Term::Until(until) = term {
                earliest.is_none_or(|earliest| earliest >= *until)
            } else {
                false
            }
        })
    }

    /// Says whether a status matches.
    pub(super) fn admits_status(&self, status: Option<u16>) -> bool {
        self.statuses
            .iter()
            .all(|wanted| status.is_some_and(|status| wanted.contains(&status)))
    }
}

impl Term {
    fn parse(key: &'static str, value: &str, now: Timestamp) -> Result<Self, FilterError> {
        let wrong = |wanted| FilterError::Value {
            key,
            value: value.to_owned(),
            wanted,
        };
        let pattern = || {
            Pattern::parse(value).map_err(|source| FilterError::Pattern {
                key,
                value: value.to_owned(),
                source,
            })
        };
        if value.is_empty() {
            return Err(wrong("it must not be empty"));
        }
        let is_id = value.contains("://");
        match key {
            "verdict" => word(Verdict::ALL, Verdict::as_str, value)
                .map(Self::Verdict)
                .ok_or(wrong("allow, audit or deny")),
            "direction" => word(Direction::ALL, Direction::as_str, value)
                .map(Self::Direction)
                .ok_or(wrong("in or out")),
            "protocol" => word(Protocol::ALL, Protocol::as_str, value)
                .map(Self::Protocol)
                .ok_or(wrong("http, grpc, tcp, tls or postgres")),
            "from" if is_id => pattern().map(Self::FromId),
            "from" => pattern().map(Self::From),
            "to" if is_id => pattern().map(Self::ToId),
            "to" => pattern().map(Self::To),
            "path" => pattern().map(Self::Path),
            "method" => Ok(Self::Method(value.to_owned())),
            "rule" => Ok(Self::Rule(value.to_owned())),
            "credential" => Ok(Self::Credential(value.to_owned())),
            "reason" => Ok(Self::Reason(value.to_owned())),
            "kind" => Ok(Self::Kind(value.to_owned())),
            "id" => CallId::parse(value)
                .ok()
                .map(Self::Id)
                .ok_or(wrong("a UUID in lower case")),
            "serial" => value
                .parse::<Serial>()
                .ok()
                .map(|serial| Self::Serial(serial.to_string()))
                .ok_or(wrong(
                    "the serial number of an SVID in lower-case hex, as records have it",
                )),
            "since" => time(value, now).map(Self::Since).ok_or(wrong(TIME)),
            "until" => time(value, now).map(Self::Until).ok_or(wrong(TIME)),
            _ => Err(FilterError::Key { key: key.to_owned() }),
        }
    }

    const fn is_of_an_end(&self) -> bool {
        matches!(
            self,
            Self::From(_) | Self::FromId(_) | Self::To(_) | Self::ToId(_) | Self::Serial(_)
        )
    }

    fn serial(&self) -> Option<&str> {
        if let Self::Serial(serial) = self {
            Some(serial)
        } else {
            None
        }
    }

    const fn is_of_one_record(&self) -> bool {
        matches!(self, Self::Path(_) | Self::Id(_) | Self::Since(_) | Self::Until(_))
    }

    fn admits(&self, view: &View<'_>) -> bool {
        let is = |found: &Option<std::borrow::Cow<'_, str>>, wanted: &str| found.as_deref() == Some(wanted);
        match self {
            Self::Verdict(verdict) => is(&view.verdict, verdict.as_str()),
            Self::From(pattern) => names(view.from.as_ref(), pattern),
            Self::FromId(pattern) => id(view.from.as_ref(), pattern),
            Self::To(pattern) => names(view.to.as_ref(), pattern),
            Self::ToId(pattern) => id(view.to.as_ref(), pattern),
            // HTTP is left out of the records of calls.
            Self::Protocol(Protocol::Http) => view.kind == "call" && view.protocol.is_none(),
            Self::Protocol(protocol) => is(&view.protocol, protocol.as_str()),
            Self::Method(method) => is(&view.method, method),
            Self::Path(pattern) => view.path.as_deref().is_some_and(|path| pattern.matches(path)),
            Self::Rule(rule) => is(&view.rule, rule),
            Self::Credential(name) => is(&view.credential, name),
            Self::Reason(reason) => is(&view.reason, reason),
            Self::Kind(kind) => view.kind == *kind,
            Self::Direction(direction) => is(&view.direction, direction.as_str()),
            Self::Id(id) => {
                let id = id.to_string();
                is(&view.id, &id) || is(&view.peer_call, &id)
            }
            Self::Serial(serial) => view.serials().any(|found| found == serial),
            Self::Since(since) => time_of(view).is_some_and(|time| time >= *since),
            Self::Until(until) => time_of(view).is_some_and(|time| time < *until),
        }
    }
}

const TIME: &str = "a time such as 2026-12-01T18:00:00Z, or 90s, 15m, 2h, 7d ago";

fn word<T: Copy>(all: &[T], as_str: fn(T) -> &'static str, value: &str) -> Option<T> {
    all.iter().copied().find(|one| as_str(*one) == value)
}

fn names(party: Option<&Party<'_>>, pattern: &Pattern) -> bool {
    party.is_some_and(|party| party.names().any(|name| pattern.matches(name)))
}

fn id(party: Option<&Party<'_>>, pattern: &Pattern) -> bool {
    party.is_some_and(|party| {
        let whole = [party.id.as_deref(), party.outside.as_deref()];
        whole.into_iter().flatten().any(|name| pattern.matches(name))
    })
}

pub(super) fn time_of(view: &View<'_>) -> Option<Timestamp> {
    Timestamp::from_rfc3339(view.time.as_deref()?).ok()
}

/// Reads a time as `since` and `until` have it: RFC 3339, or how long before `now`.
#[must_use]
pub fn time(value: &str, now: Timestamp) -> Option<Timestamp> {
    let seconds_each = match value.bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 60 * 60,
        b'd' => 24 * 60 * 60,
        _ => return Timestamp::from_rfc3339(value).ok(),
    };
    let (digits, _) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    let count: u64 = if all_digits { digits.parse().ok()? } else { return None };
    Some(now - Duration::from_secs(count.checked_mul(seconds_each)?))
}

fn status(value: &str) -> Result<RangeInclusive<u16>, FilterError> {
    let range = match value.strip_suffix("xx") {
        Some(class) => class
            .parse()
            .ok()
            .filter(|class| (1..=9).contains(class))
            .map(|class: u16| {
                let first = class * 100;
                first..=first + 99
            }),
        None => value
            .parse()
            .ok()
            .filter(|status| (100..=999).contains(status))
            .map(|status| status..=status),
    };
    let wanted = "a status such as 503, or 5xx";
    range.ok_or(FilterError::Value {
        key: "status",
        value: value.to_owned(),
        wanted,
    })
}

#[cfg(test)]
mod tests;
