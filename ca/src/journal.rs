//! The CA's own ledger: what it issued, to whom, and what operators did.

use std::collections::BTreeMap;
use std::net::IpAddr;

use audit::{EventKind, EventRecord, Ledger, LedgerError};
use serde_json::{Value, json};
use spiffe::time::Clock;

use crate::store::{Issuance, JwtRecord};

/// A record could not be written; what it was about must not happen then.
#[derive(Debug, thiserror::Error)]
#[error("write `{kind}` of {subject} into the ledger")]
pub struct JournalError {
    kind: &'static str,
    subject: String,
    #[source]
    source: LedgerError,
}

/// The ledger, in the CA's words.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    ledger: Ledger,
    clock: Clock,
}

/// What else there is to say about an event.
pub(crate) type Detail<const N: usize> = [(&'static str, Value); N];

impl Journal {
    pub(crate) fn new(ledger: Ledger, clock: Clock) -> Self {
        Self { ledger, clock }
    }

    /// The ledger itself, to be held.
    pub(crate) const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Writes one event; returns once it is written.
    pub(crate) fn event<const N: usize>(
        &self,
        kind: EventKind,
        actor: &str,
        subject: &str,
        detail: Detail<N>,
    ) -> Result<(), JournalError> {
        let record = EventRecord {
            kind,
            time: self.clock.now(),
            actor: actor.to_owned(),
            subject: subject.to_owned(),
            detail: detail
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect::<BTreeMap<_, _>>(),
        };
        match self.ledger.event(&record) {
            Ok(_index) => Ok(()),
            Err(source) => Err(JournalError {
                kind: kind.as_str(),
                subject: record.subject,
                source,
            }),
        }
    }

    /// Writes an event whose loss stops nothing; the log hears of it.
    pub(crate) fn note<const N: usize>(&self, kind: EventKind, actor: &str, subject: &str, detail: Detail<N>) {
        if let Err(error) = self.event(kind, actor, subject, detail) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "an event is not in the ledger"
            );
        }
    }

    /// Writes that a certificate was issued.
    pub(crate) fn issued(&self, issuance: &Issuance) -> Result<(), JournalError> {
        self.event(
            EventKind::Issued,
            &format!("host:{}", issuance.host),
            issuance.id.as_str(),
            [
                ("serial", json!(issuance.serial)),
                ("not_before", json!(issuance.not_before)),
                ("not_after", json!(issuance.not_after)),
                ("spki_sha256", json!(crate::hex(&issuance.spki_sha256))),
                ("epoch", json!(issuance.epoch)),
                ("revision", json!(issuance.revision)),
            ],
        )
    }

    /// Writes that a token was signed.
    pub(crate) fn jwt_issued(&self, record: &JwtRecord) -> Result<(), JournalError> {
        self.event(
            EventKind::JwtIssued,
            &format!("host:{}", record.host),
            record.id.as_str(),
            [
                ("jti", json!(record.token_id)),
                ("audience", json!(record.audience)),
                ("issued_at", json!(record.issued_at)),
                ("not_after", json!(record.not_after)),
                ("kid", json!(record.key_id)),
            ],
        )
    }

    /// Counts what an unauthenticated peer did; aggregated, so that it cannot fill the disk.
    pub(crate) fn stranger(&self, source: IpAddr, reason: &str) {
        self.ledger.stranger(source, reason);
    }

    /// Begins the epoch after `after`, unless the ledger is in a later one already.
    pub(crate) fn begin_epoch(&self, after: u32, why: &'static str) {
        self.ledger.begin_epoch(after, why);
    }

    /// Writes what is still in memory.
    pub(crate) fn shutdown(&self) {
        self.ledger.shutdown();
    }
}
