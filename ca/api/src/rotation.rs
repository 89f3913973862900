//! The phases of a rotation, as words on the wire, and what bounds it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest value as it is sealed: a value of 16 KiB and what encryption adds.
pub const SEALED_BYTES_MAX: usize = 18 * 1024;

/// The longest recipient: `age1` and 58 characters (C2SP age).
pub const RECIPIENT_BYTES_MAX: usize = 128;

/// The longest name of a credential.
pub const NAME_BYTES_MAX: usize = 63;

/// How a service says that it does not take a value any more (RFC 9110 §15.5.2).
pub const UNAUTHORIZED: u16 = 401;

/// How far a new value of a credential has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is kept on every host, beside the one in use.
    Staged,
    /// One bot on one host gets it.
    Canary,
    /// Every bot gets it; the one before is kept until the service refuses it.
    Current,
    /// The one before is worth nothing: the rotation is over.
    Revoked,
    /// The new one was given up: the rotation is over.
    Aborted,
}

impl Phase {
    /// Gives the word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Staged => "staged",
            Self::Canary => "canary",
            Self::Current => "current",
            Self::Revoked => "revoked",
            Self::Aborted => "aborted",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        let all = [Self::Staged, Self::Canary, Self::Current, Self::Revoked, Self::Aborted];
        all.into_iter().find(|phase| phase.as_str() == word)
    }

    /// Whether nothing follows.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Revoked | Self::Aborted)
    }

    /// Whether a rotation may go on so.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Staged, Self::Canary | Self::Current | Self::Aborted)
                | (Self::Canary, Self::Current | Self::Aborted)
                | (Self::Current, Self::Revoked)
        )
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Phase; 5] = [
        Phase::Staged,
        Phase::Canary,
        Phase::Current,
        Phase::Revoked,
        Phase::Aborted,
    ];

    #[test]
    fn a_phase_is_read_as_it_is_written() {
        for phase in ALL {
            assert_eq!(Phase::from_word(&phase.to_string()), Some(phase));
        }
        assert_eq!(Phase::from_word("Staged"), None);
    }

    #[test]
    fn a_rotation_goes_on_and_never_back() {
        let mut may = Vec::new();
        for from in ALL {
            may.extend(
                ALL.into_iter()
                    .filter(|to| from.may_become(*to))
                    .map(|to| format!("{from} {to}")),
            );
            assert_eq!(from.is_over(), !ALL.into_iter().any(|to| from.may_become(to)), "{from}");
        }
        let expected = [
            "staged canary",
            "staged current",
            "staged aborted",
            "canary current",
            "canary aborted",
            "current revoked",
        ];
        assert_eq!(may, expected);
    }
}
