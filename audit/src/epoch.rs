//! The names of a ledger over its epochs. A ledger that lost records, or was set back, begins a new epoch: its heads get a
//! name of their own, so that what was signed before stays true of what was there before.

use crate::key::KeyName;

/// What stands between the name of the ledger and the number of an epoch after the first.
const EPOCH: &str = "/epoch/";

/// The highest number of an epoch. One begins when something went wrong, so nobody gets there.
pub const EPOCH_MAX: u32 = 1_000_000;

/// Gives the name of an epoch: `acme.internal/host/web-1`, then `acme.internal/host/web-1/epoch/2`. None for an epoch that
/// there is not, and for a name that gets too long.
#[must_use]
pub fn name(ledger: &KeyName, epoch: u32) -> Option<KeyName> {
    match epoch {
        1 => Some(ledger.clone()),
        2..=EPOCH_MAX => KeyName::parse(&format!("{ledger}{EPOCH}{epoch}")).ok(),
        _ => None,
    }
}

/// Gives the epoch of a name of the ledger; none for the name of another.
#[must_use]
pub fn of(ledger: &KeyName, name: &KeyName) -> Option<u32> {
    let rest = name.as_str().strip_prefix(ledger.as_str())?;
    if rest.is_empty() {
        return Some(1);
    }
    let epoch = rest.strip_prefix(EPOCH)?.parse().ok()?;
    (self::name(ledger, epoch).as_ref() == Some(name)).then_some(epoch)
}

/// Gives the ledger that a name is of, and the epoch.
#[must_use]
pub fn split(name: &KeyName) -> (KeyName, u32) {
    let ledger = name.as_str().rsplit_once(EPOCH).and_then(|(ledger, _)| {
        let ledger = KeyName::parse(ledger).ok()?;
        let epoch = of(&ledger, name)?;
        Some((ledger, epoch))
    });
    ledger.unwrap_or_else(|| (name.clone(), 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> KeyName {
        KeyName::parse(name).unwrap()
    }

    #[test]
    fn each_epoch_has_one_name() {
        let ledger = key("acme.internal/host/web-1");
        for (epoch, text) in [
            (1, "acme.internal/host/web-1"),
            (2, "acme.internal/host/web-1/epoch/2"),
            (1_000_000, "acme.internal/host/web-1/epoch/1000000"),
        ] {
            let name = name(&ledger, epoch).unwrap();
            assert_eq!(name, key(text));
            assert_eq!(of(&ledger, &name), Some(epoch));
            assert_eq!(split(&name), (ledger.clone(), epoch));
        }
        assert_eq!(name(&ledger, 0), None);
        assert_eq!(name(&ledger, 1_000_001), None);
        assert_eq!(name(&key(&"n".repeat(510)), 2), None);
    }

    #[test]
    fn another_spelling_is_the_name_of_another_ledger() {
        let ledger = key("a");
        for text in [
            "b",
            "a/",
            "ab",
            "a/epoch/",
            "a/epoch/1",
            "a/epoch/02",
            "a/epoch/x",
            "a/epoch/2/",
            "a/epoch/1000001",
        ] {
            assert_eq!(of(&ledger, &key(text)), None, "{text}");
            assert_eq!(split(&key(text)), (key(text), 1), "{text}");
        }
    }
}
