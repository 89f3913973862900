//! The control side against a test double of the CA, over real TLS.

pub(crate) mod fake_ca;
mod joining;
mod keeping;
mod minting;
mod restarting;
mod slices;
mod warm;
mod witnessing;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit::{Ledger, LedgerConfig};
use ca_api::node::{Slice, ca_message};
use spiffe::entry::Entry;
use spiffe::id::{BotName, HostName};
use spiffe::time::{Clock, ClockHand, Timestamp};
use tokio_util::sync::CancellationToken;

use super::snapshot::{sha256, to_wire};
use super::{Advertise, Control, ControlConfig, StartError};
use crate::credentials::Sealer;
use fake_ca::{FakeCa, trust_domain};

const WAIT_MAX: Duration = Duration::from_secs(20);

/// 2026-01-01T00:00:00Z.
pub(super) fn start_time() -> Timestamp {
    Timestamp::from_unix_seconds(1_767_225_600)
}

pub(super) fn bot(name: &str) -> BotName {
    BotName::parse(name).unwrap()
}

/// A host with a state directory that outlives its proxies.
pub(super) struct Host {
    dir: tempfile::TempDir,
    clock: Clock,
    hand: ClockHand,
    entries: Arc<Mutex<Vec<Entry>>>,
}

/// A proxy's control side, running.
pub(super) struct Running {
    control: Control,
    cancel: CancellationToken,
    ledger: Ledger,
}

impl Host {
    pub(super) fn new() -> Self {
        let (clock, hand) = Clock::fixed(start_time());
        Self {
            dir: tempfile::tempdir().unwrap(),
            clock,
            hand,
            entries: Arc::default(),
        }
    }

    pub(super) fn config(&self, ca: &FakeCa) -> ControlConfig {
        ControlConfig {
            trust_domain: trust_domain(),
            host: HostName::parse("web-1").unwrap(),
            state_dir: self.dir.path().join("state"),
            ca_addresses: vec![ca.address.to_string().parse().unwrap()],
            token_file: self.dir.path().join("token"),
            advertise: Advertise::SourceAddress(15443),
            max_policy_age: Duration::from_hours(4),
            sealer: Sealer::new(&self.dir.path().join("state")),
        }
    }

    pub(super) fn write_token(&self, token: &str) {
        std::fs::write(self.dir.path().join("token"), format!("{token}\n")).unwrap();
    }

    fn ledger(&self) -> Ledger {
        let config = LedgerConfig {
            dir: self.dir.path().join("ledger"),
            key_file: self.dir.path().join("log.key"),
            origin: "acme.internal/host/web-1".to_owned(),
            sync: Duration::from_millis(10),
            max_bytes: 16 << 20,
            retention: None,
        };
        Ledger::open(config, self.clock.clone()).unwrap().0
    }

    pub(super) async fn start(&self, config: ControlConfig) -> Result<Running, StartError> {
        let (ledger, cancel) = (self.ledger(), CancellationToken::new());
        let entries = Arc::clone(&self.entries);
        let on_entries = move |next: Arc<[Entry]>| *entries.lock().unwrap() = next.to_vec();
        let control = Control::start(config, self.clock.clone(), ledger.clone(), on_entries, cancel.clone()).await?;
        Ok(Running {
            control,
            cancel,
            ledger,
        })
    }

    /// A host that has joined this CA.
    pub(super) async fn joined(ca: &FakeCa, host: Self) -> (Self, Running) {
        host.write_token(&ca.token("web-1", start_time() + Duration::from_mins(10)));
        let running = host.start(host.config(ca)).await.unwrap();
        (host, running)
    }

    /// What the ledger of the host says, all of it.
    pub(super) fn ledger_text(&self) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(self.dir.path().join("ledger/segments")).unwrap() {
            text.push_str(&std::fs::read_to_string(entry.unwrap().path()).unwrap());
        }
        text
    }
}

impl Running {
    /// Waits until the control side is as asked for.
    pub(super) async fn until<T>(&self, what: &str, mut found: impl FnMut(&Control) -> Option<T>) -> T {
        let mut changed = self.control.status_changed();
        let wait = async {
            loop {
                changed.borrow_and_update();
                if let Some(value) = found(&self.control) {
                    return value;
                }
                changed.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(WAIT_MAX, wait).await {
            Ok(value) => value,
            Err(_) => panic!("waited in vain for {what}: {:?}", self.control.status()),
        }
    }

    pub(super) async fn stop(self) {
        self.cancel.cancel();
        self.control.stopped().await;
        self.ledger.shutdown();
    }
}

/// The canonical JSON of a slice of `host` with these bots, all of which it may claim.
pub(super) fn slice_json(host: &str, bots: &[&str]) -> String {
    let bots: serde_json::Map<_, _> = bots
        .iter()
        .enumerate()
        .map(|(index, bot)| {
            let value = serde_json::json!({ "owner": "ops@acme.internal", "hosts": ["web-*"], "attest": { "uid": 2000 + index } });
            ((*bot).to_owned(), value)
        })
        .collect();
    serde_json::json!({ "version": 1, "trust_domain": "acme.internal", "slice": host, "bots": bots }).to_string()
}

/// A slice message for this host.
pub(super) fn slice(revision: u64, bots: &[&str]) -> ca_message::Message {
    slice_of(revision, slice_json("web-1", bots).into_bytes())
}

pub(super) fn slice_of(revision: u64, json: Vec<u8>) -> ca_message::Message {
    slice_needing(revision, json, &[])
}

/// A slice message that says what it needs.
pub(super) fn slice_needing(revision: u64, json: Vec<u8>, features: &[&str]) -> ca_message::Message {
    let generation = Some(to_wire(policy::Generation { epoch: 1, revision }));
    ca_message::Message::Slice(Slice {
        generation,
        sha256: sha256(&json).to_vec(),
        json,
        features: features.iter().map(|word| (*word).to_owned()).collect(),
    })
}
