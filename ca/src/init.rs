//! Makes a CA, once.

use std::fs;
use std::path::PathBuf;

use audit::EventKind;
use serde_json::json;
use spiffe::id::{HostName, TrustDomain};
use spiffe::time::{Clock, Timestamp};

use crate::authority::{Authority, SignError, sha256};
use crate::config::Settings;
use crate::journal::{Journal, JournalError};
use crate::keys::{DiskKeys, KeyError, KeyUse, create_private_dir, exists};
use crate::run::open_ledger;
use crate::store::{self, Meta, Store, StoreError};

/// The name of the first CA server; more come with a shared database.
const SERVER: &str = "ca-1";

/// The epoch of a new CA. A restore raises it.
const FIRST_EPOCH: u64 = 1;

/// What was made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InitReport {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// The name of this CA server.
    pub server: HostName,
    /// SHA-256 of the root's SubjectPublicKeyInfo, lower hexadecimal.
    pub root_pin: String,
    /// When the root ends.
    pub root_not_after: Timestamp,
    /// The database.
    pub database: PathBuf,
    /// The file that opens the keys: whoever has it and the keys is the CA.
    pub key_encryption_key: PathBuf,
}

/// Why no CA was made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is one, or what is left of one.
    #[error("{path} is there already: this is, or was, a CA. Move it away if that is meant")]
    AlreadyThere {
        /// What is there.
        path: PathBuf,
    },
    /// The state folder cannot be used.
    #[error("prepare {path}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: KeyError,
    },
    /// The database failed.
    #[error("make the database")]
    Store {
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The root could not be made.
    #[error("make the root")]
    Root {
        /// Why.
        #[source]
        source: SignError,
    },
    /// The root's key could not be kept.
    #[error("keep the root's key")]
    Keys {
        /// Why.
        #[source]
        source: KeyError,
    },
    /// The ledger could not be opened.
    #[error("open the ledger")]
    Ledger {
        /// Why.
        #[source]
        source: audit::OpenError,
    },
    /// The ledger could not be written.
    #[error("record the new root")]
    Record {
        /// Why.
        #[source]
        source: JournalError,
    },
}

/// Makes the root, its sealed key, the database and the ledger.
///
/// # Errors
///
/// When anything of a CA is there already, or when something cannot be written.
pub async fn init(settings: &Settings, clock: &Clock) -> Result<InitReport, InitError> {
    refuse_leftovers(settings)?;
    let now = clock.now();
    for dir in [Some(settings.state_dir.as_path()), settings.database.parent()]
        .into_iter()
        .flatten()
    {
        create_private_dir(dir, 0o750).map_err(|source| InitError::Folder {
            path: dir.to_owned(),
            source,
        })?;
    }
    let keys = DiskKeys::create(&settings.key_dir, &settings.kek_file(), &settings.trust_domain)
        .map_err(|source| InitError::Keys { source })?;
    let (key, certificate) =
        Authority::generate(&settings.trust_domain, now).map_err(|source| InitError::Root { source })?;
    let pin = crate::hex(&sha256(&key.spki_der()));
    let key_id: String = pin.chars().take(32).collect();
    keys.store(KeyUse::Root, &key_id, &key)
        .map_err(|source| InitError::Keys { source })?;
    let authority = Authority::open(&settings.trust_domain, certificate.clone(), key)
        .map_err(|source| InitError::Root { source })?;
    let report = InitReport {
        trust_domain: settings.trust_domain.clone(),
        server: server_name(),
        root_pin: pin,
        root_not_after: authority.not_after(),
        database: settings.database.clone(),
        key_encryption_key: settings.kek_file(),
    };
    record(settings, clock, &report)?;
    // Last: a database that names a CA is a CA that is whole.
    write_database(settings, now, store::Authority { key_id, certificate }).await?;
    Ok(report)
}

fn refuse_leftovers(settings: &Settings) -> Result<(), InitError> {
    let ours = [
        settings.database.clone(),
        settings.kek_file(),
        settings.ledger_dir(),
        settings.ledger_key_file(),
    ];
    for path in ours {
        if exists(&path) {
            return Err(InitError::AlreadyThere { path });
        }
    }
    let has_keys = fs::read_dir(&settings.key_dir).is_ok_and(|mut entries| entries.next().is_some());
    if has_keys {
        Err(InitError::AlreadyThere {
            path: settings.key_dir.clone(),
        })
    } else {
        Ok(())
    }
}

fn record(settings: &Settings, clock: &Clock, report: &InitReport) -> Result<(), InitError> {
    let ledger = open_ledger(settings, &report.server, clock).map_err(|source| InitError::Ledger { source })?;
    let journal = Journal::new(ledger, clock.clone());
    let subject = report.trust_domain.id();
    let detail = [
        ("root_pin", json!(report.root_pin)),
        ("not_after", json!(report.root_not_after)),
    ];
    let recorded = journal.event(EventKind::KeyActivated, "ca", subject.as_str(), detail);
    journal.shutdown();
    recorded.map_err(|source| InitError::Record { source })
}

async fn write_database(settings: &Settings, now: Timestamp, authority: store::Authority) -> Result<(), InitError> {
    let failed = |source| InitError::Store { source };
    let (store, thread) = Store::open(&settings.database).map_err(failed)?;
    let meta = Meta {
        trust_domain: settings.trust_domain.clone(),
        server: server_name(),
        epoch: FIRST_EPOCH,
        created: now,
    };
    let written = store.initialise(meta, authority).await.map_err(failed);
    drop(store);
    thread.join();
    written
}

#[expect(clippy::expect_used, reason = "the constant is a valid host name; a test reads it")]
fn server_name() -> HostName {
    HostName::parse(SERVER).expect("a valid host name")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_first_server_has_a_valid_name() {
        assert_eq!(super::server_name().as_str(), "ca-1");
    }
}
