//! A record on its way out, with what both forms say of it.

use audit::key::KeyName;
use audit::{Record, Sealed};
use spiffe::time::Timestamp;

/// Whose ledger it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    /// The ledger's name, whatever its epoch.
    pub(super) ledger: KeyName,
    /// The first part of it.
    pub(super) trust_domain: String,
    /// `proxy` or `ca`; empty for a ledger of somebody else.
    pub(super) role: &'static str,
    /// The host's name, or the CA's.
    pub(super) name: String,
}

impl Origin {
    pub(super) fn of(ledger: &KeyName) -> Self {
        let mut parts = ledger.as_str().splitn(3, '/');
        let (trust_domain, role, name) = (parts.next(), parts.next(), parts.next());
        let (role, name) = match (role, name) {
            (Some("host"), Some(name)) => ("proxy", name),
            (Some("ca"), Some(name)) => ("ca", name),
            _ => ("", ledger.as_str()),
        };
        Self {
            ledger: ledger.clone(),
            trust_domain: trust_domain.unwrap_or_default().to_owned(),
            role,
            name: name.to_owned(),
        }
    }
}

/// A record that is exported. What is made of it depends on its bytes and its place alone, so that it is the same each time.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) sealed: Sealed,
    /// The name that no other record has.
    pub(super) uid: String,
    /// What it is; none for a line that is no record of this version.
    pub(super) record: Option<Record>,
}

impl Item {
    pub(super) fn of(sealed: Sealed, origin: &Origin) -> Self {
        Self {
            uid: sealed.uid(&origin.ledger),
            record: Record::decode(&sealed.line).ok(),
            sealed,
        }
    }

    /// The bytes of the line, as text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.sealed.line).into_owned()
    }

    /// When it was written; none where the line does not say.
    pub(super) fn time(&self) -> Option<Timestamp> {
        Some(match &self.record {
            Some(Record::Call(record)) => record.time,
            Some(Record::End(record)) => record.time,
            Some(Record::Event(record)) => record.time,
            Some(Record::Refusals(record)) => record.time,
            Some(Record::Strangers(record)) => record.time,
            Some(Record::Segment(record)) => record.time,
            // One of a later version says it in the same place.
            None => {
                let line: serde_json::Value = serde_json::from_slice(&self.sealed.line).ok()?;
                Timestamp::from_rfc3339(line.get("time")?.as_str()?).ok()?
            }
        })
    }

    /// The word for what it is.
    pub(super) fn kind(&self) -> &'static str {
        match &self.record {
            Some(Record::Call(_)) => "call",
            Some(Record::End(_)) => "end",
            Some(Record::Event(record)) => record.kind.as_str(),
            Some(Record::Refusals(_)) => "refusals",
            Some(Record::Strangers(_)) => "strangers",
            Some(Record::Segment(_)) => "segment",
            None => "unreadable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_says_whose_it_is_by_its_name() {
        for (name, role, host) in [
            ("acme.internal/host/web-1", "proxy", "web-1"),
            ("acme.internal/ca/ca-1", "ca", "ca-1"),
            ("go.example/log", "", "go.example/log"),
            ("x", "", "x"),
        ] {
            let origin = Origin::of(&KeyName::parse(name).unwrap());
            assert_eq!((origin.role, origin.name.as_str()), (role, host), "{name}");
        }
    }
}
