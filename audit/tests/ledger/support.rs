//! A ledger in a temporary folder, and records to put into it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use audit::{
    Actor, CallId, CallRecord, Callee, Direction, EndRecord, EventKind, EventRecord, Hop, Ledger, LedgerConfig,
    OpenError, OpenReport, Party, Retention, Verdict, VerifyFailure, VerifyReport,
};
use spiffe::id::SpiffeId;
use spiffe::selector::Facts;
use spiffe::time::{Clock, ClockHand, Timestamp};

/// A folder with a ledger in it, and the clock that its records tell.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) clock: Clock,
    pub(crate) hand: ClockHand,
    pub(crate) sync: Duration,
    pub(crate) max_bytes: u64,
    pub(crate) retention: Option<Retention>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let (clock, hand) = Clock::fixed(Timestamp::from_rfc3339("2026-11-05T10:00:00Z").unwrap());
        let folder = tempfile::tempdir().unwrap();
        Self {
            folder,
            clock,
            hand,
            sync: Duration::from_millis(5),
            max_bytes: 1 << 30,
            retention: None,
        }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }

    pub(crate) fn config(&self) -> LedgerConfig {
        LedgerConfig {
            retention: self.retention,
            ..config(self.folder.path(), self.sync, self.max_bytes)
        }
    }

    pub(crate) fn try_open(&self) -> Result<(Ledger, OpenReport), OpenError> {
        Ledger::open(self.config(), self.clock.clone())
    }

    pub(crate) fn open(&self) -> Ledger {
        self.try_open().unwrap().0
    }

    pub(crate) fn verify(&self) -> Result<VerifyReport, VerifyFailure> {
        audit::verify(&self.dir(), None)
    }

    /// Makes a ledger of `records` records and shuts it down.
    pub(crate) fn filled(records: u64) -> Self {
        let place = Self::new();
        let ledger = place.open();
        // The first record of a segment is the ledger's own.
        for number in 1..records {
            let _receipt = ledger.call(&call(number)).unwrap();
        }
        ledger.shutdown();
        place
    }

    pub(crate) fn lines(&self) -> Vec<serde_json::Value> {
        let tail = audit::tail(&self.dir(), audit::Start::First).unwrap();
        tail.map(|entry| serde_json::from_slice(&entry.unwrap().line).unwrap())
            .collect()
    }

    pub(crate) fn lines_of(&self, kind: &str) -> Vec<serde_json::Value> {
        self.lines().into_iter().filter(|line| line["kind"] == kind).collect()
    }
}

pub(crate) fn config(folder: &Path, sync: Duration, max_bytes: u64) -> LedgerConfig {
    LedgerConfig {
        dir: folder.join("ledger"),
        key_file: folder.join("log.key"),
        origin: "acme.internal/host/web-1".to_owned(),
        sync,
        max_bytes,
        retention: None,
    }
}

pub(crate) fn id(number: u64) -> CallId {
    let version_7 = 0x0199_0000_0000_7000_8000_u128 << 48;
    CallId::from_bytes((version_7 | u128::from(number)).to_be_bytes())
}

pub(crate) fn spiffe(bot: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://acme.internal/{bot}")).unwrap()
}

pub(crate) fn time(millis: u64) -> Timestamp {
    Timestamp::from_rfc3339("2026-11-05T10:00:00Z").unwrap() + Duration::from_millis(millis)
}

pub(crate) fn call(number: u64) -> CallRecord {
    CallRecord {
        actor: Actor::Bot,
        from: Party {
            id: Some(spiffe("prod/checkout")),
            facts: Some(Arc::new(facts(1001))),
            ..Party::default()
        },
        to: Callee {
            id: Some(spiffe("prod/orders")),
            ..Callee::default()
        },
        method: "GET".to_owned(),
        path: format!("/orders/{number}"),
        query: vec!["page".to_owned()],
        verdict: Verdict::Allow,
        rule: Some("checkout-reads-orders".to_owned()),
        epoch: 1,
        revision: 3,
        hop: Some(Hop::Mtls),
        trace: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
        ..CallRecord::new(id(number), time(number), Direction::Out)
    }
}

pub(crate) fn facts(uid: u32) -> Facts {
    Facts {
        user: Some("checkout".to_owned()),
        exe: Some("/srv/checkout/bin/checkout".to_owned()),
        ..Facts::new(4711, uid, uid)
    }
}

pub(crate) fn refusal(number: u64, bot: &str) -> CallRecord {
    CallRecord {
        from: Party {
            id: Some(spiffe(bot)),
            serial: None,
            facts: None,
        },
        verdict: Verdict::Deny,
        rule: None,
        reason: Some("no_rule".to_owned()),
        hop: None,
        ..call(number)
    }
}

pub(crate) fn end(number: u64) -> EndRecord {
    EndRecord {
        id: id(number),
        time: time(number + 20),
        status: Some(200),
        grpc_status: None,
        request_bytes: 0,
        response_bytes: 1024,
        duration_us: 20_000,
        upstream_us: 18_000,
        tries: 1,
        address: None,
        outcome: "done".to_owned(),
    }
}

pub(crate) fn event(kind: EventKind) -> EventRecord {
    EventRecord {
        kind,
        time: time(0),
        actor: "proxy".to_owned(),
        subject: "web-1".to_owned(),
        detail: [("version".to_owned(), "0.1.0".into())].into(),
    }
}

/// Copies a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Lists all files below a folder, with their sizes.
pub(crate) fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push((path.clone(), std::fs::metadata(&path).unwrap().len())),
            }
        }
    }
    found.sort();
    found
}
