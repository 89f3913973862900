//! New values of credentials: who is told what, when a rotation goes on, and when it does not.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ca_api::admin::{FleetCredential, FleetCredentials, Problem, path};
use ca_api::node::{CredentialOrder, CredentialReport, Hello, ca_message, host_message};
use ca_api::rotation::{Phase, SEALED_BYTES_MAX};
use serde_json::{Value, json};

use crate::support::*;

const MESH: &str = r#"
version: 1
trust_domain: acme.internal
bots:
  prod/support: {owner: cx@acme.internal, hosts: [web-1, web-2], attest: {user: support}}
  prod/other: {owner: cx@acme.internal, hosts: [db-1], attest: {user: other}}
credentials:
  key: {bearer: true, owner: cx@acme.internal, rotate_every: 24h, probe: "GET https://api.example.com/v1/models"}
  plain: {bearer: true, owner: cx@acme.internal}
  shown: {postgres: {user: u, svid: true}, owner: cx@acme.internal}
allow:
  - {id: llm, from: prod/support, to: "https://api.example.com", http: ["* /**"], inject: key}
  - {id: web, from: prod/support, to: "https://www.example.com", http: ["* /**"], inject: plain}
  - {id: db, from: prod/support, to: "postgres://db.example.com", postgres: [orders], inject: shown}
"#;

const PRINT: &str = "0011223344556677";

/// A CA and the streams of its hosts.
struct Fleet {
    ca: TestCa,
    hosts: BTreeMap<&'static str, Host>,
    streams: BTreeMap<&'static str, Stream>,
}

impl Fleet {
    async fn start() -> Self {
        let ca = TestCa::start().await;
        ca.apply(MESH, None).await.unwrap();
        let mut fleet = Self {
            ca,
            hosts: BTreeMap::new(),
            streams: BTreeMap::new(),
        };
        for name in ["web-1", "web-2", "db-1"] {
            let host = fleet.ca.join(name).await;
            drop(fleet.hosts.insert(name, host));
            fleet.connect(name).await;
        }
        fleet
    }

    async fn connect(&mut self, name: &'static str) {
        let told = Hello {
            recipient: format!("age1{}", name.replace('-', "")),
            ..hello("")
        };
        let stream = self.ca.connect(&self.hosts[name]).await.sync(told).await.unwrap();
        drop(self.streams.insert(name, stream));
    }

    async fn find(&self, name: &str) -> FleetCredential {
        let found: FleetCredentials = self.ca.get(&format!("{}?name={name}", path::CREDENTIALS)).await;
        found.credentials.into_iter().next().unwrap()
    }

    async fn rotate(&self, changes: Value) -> Result<FleetCredential, Problem> {
        let value = |host: &str| STANDARD.encode(format!("sealed to {host}"));
        let mut body = json!({
            "name": "key", "reason": "quarterly", "fingerprint": PRINT,
            "sealed": {"web-1": value("web-1"), "web-2": value("web-2")},
        });
        for (key, value) in changes.as_object().unwrap() {
            body[key] = value.clone();
        }
        self.ca.admin("POST", path::CREDENTIAL_ROTATE, body).await
    }

    async fn advance(&self, to: Phase, without_away: bool) -> Result<FleetCredential, Problem> {
        let rotation = self.find("key").await.rotation.map_or(0, |found| found.rotation);
        let body = json!({"name": "key", "rotation": rotation, "to": to, "without_away": without_away});
        self.ca.admin("POST", path::CREDENTIAL_ADVANCE, body).await
    }

    /// What a host is told next of a credential.
    async fn order(&mut self, host: &str) -> CredentialOrder {
        let stream = self.streams.get_mut(host).unwrap();
        stream
            .find(|message| match message {
                ca_message::Message::CredentialOrder(order) => Some(order),
                _ => None,
            })
            .await
    }

    /// Sees the rotation be where it is for as long as twenty questions take.
    async fn stays(&self, phase: Phase) {
        for _ in 0..20 {
            assert_eq!(self.find("key").await.rotation.unwrap().phase, phase);
        }
    }

    /// Has a host say how far it is, and waits until the CA has heard it.
    async fn says(&self, host: &'static str, phase: &str, more: CredentialReport) {
        let rotation = self.find("key").await.rotation.unwrap().rotation;
        let report = CredentialReport {
            name: "key".to_owned(),
            rotation,
            phase: phase.to_owned(),
            ..more
        };
        let error = report.error.clone();
        self.streams[host]
            .send(host_message::Message::CredentialReport(report.clone()))
            .await;
        eventually(async || {
            let found = self.find("key").await;
            let told = found.hosts.iter().find(|told| told.host.as_str() == host)?;
            let probe = found.rotation?.probe;
            let probed = host != "web-1"
                || (probe.new.map_or(0, u32::from), probe.old.map_or(0, u32::from))
                    == (report.probe_new, report.probe_old);
            (told.phase == Phase::from_word(phase) && told.error == error && probed).then_some(())
        })
        .await;
    }
}

fn probed(status: u32) -> CredentialReport {
    CredentialReport {
        probe_new: status,
        ..CredentialReport::default()
    }
}

fn nothing() -> CredentialReport {
    CredentialReport::default()
}

#[tokio::test]
async fn each_host_is_told_its_own_value_and_a_host_without_the_bot_nothing() {
    let mut fleet = Fleet::start().await;
    let hosts = fleet.find("key").await.hosts;
    let told: Vec<_> = hosts
        .iter()
        .map(|host| (host.host.as_str(), host.recipient.as_deref()))
        .collect();
    assert_eq!(told, [("web-1", Some("age1web1")), ("web-2", Some("age1web2"))]);
    let begun = fleet.rotate(json!({})).await.unwrap();
    assert_eq!(begun.rotation.unwrap().phase, Phase::Staged);
    let [one, two] = [fleet.order("web-1").await, fleet.order("web-2").await];
    assert_eq!(
        (one.sealed.as_slice(), one.canary.as_str()),
        (&b"sealed to web-1"[..], "prod/support")
    );
    assert_eq!(
        (two.sealed.as_slice(), two.canary.as_str()),
        (&b"sealed to web-2"[..], "")
    );
    assert_eq!((one.phase.as_str(), one.fingerprint.as_str()), ("staged", PRINT));
    fleet.says("web-1", "staged", probed(200)).await;
    fleet.says("web-2", "staged", nothing()).await;
    fleet.advance(Phase::Canary, false).await.unwrap();
    assert_eq!(fleet.order("web-1").await.phase, "canary");
    assert_eq!(fleet.order("web-2").await.phase, "staged", "only one host tries it");
    let rotation = one.rotation;
    // The host without the bot heard of none.
    let other = CredentialReport {
        name: "key".to_owned(),
        rotation,
        ..nothing()
    };
    fleet.streams["db-1"]
        .send(host_message::Message::CredentialReport(other))
        .await;
    eventually(async || {
        let refused = fleet.ca.events("host_refused");
        refused
            .iter()
            .any(|event| event.to_string().contains("credential_not_sent"))
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_rotation_ends_once_the_service_refuses_the_value_before() {
    let mut fleet = Fleet::start().await;
    fleet.rotate(json!({})).await.unwrap();
    for host in ["web-1", "web-2"] {
        assert_eq!(fleet.order(host).await.phase, "staged");
    }
    fleet.says("web-1", "staged", probed(200)).await;
    fleet.says("web-2", "staged", nothing()).await;
    fleet.advance(Phase::Canary, false).await.unwrap();
    for (host, phase) in [("web-1", "canary"), ("web-2", "staged")] {
        assert_eq!(fleet.order(host).await.phase, phase);
    }
    fleet.says("web-1", "canary", probed(200)).await;
    fleet.advance(Phase::Current, false).await.unwrap();
    assert_eq!(
        [fleet.order("web-1").await.phase, fleet.order("web-2").await.phase],
        ["current", "current"]
    );
    fleet.says("web-2", "current", nothing()).await;
    let old = |status| CredentialReport {
        probe_old: status,
        ..probed(200)
    };
    fleet.says("web-1", "current", old(200)).await;
    fleet.stays(Phase::Current).await;
    fleet.says("web-1", "current", old(401)).await;
    assert_eq!(
        [fleet.order("web-1").await.phase, fleet.order("web-2").await.phase],
        ["revoked", "revoked"]
    );
    let phases: Vec<Value> = fleet
        .ca
        .events("credential_rotated")
        .into_iter()
        .map(|event| event["detail"]["phase"].clone())
        .collect();
    assert_eq!(phases, ["staged", "canary", "current", "revoked"]);
    let found = fleet.find("key").await;
    let rotated = found.rotated.unwrap();
    assert_eq!(found.due.unwrap().duration_since(rotated).as_secs(), 24 * 3600);
}

#[tokio::test]
async fn the_old_value_is_thrown_away_only_once_no_host_uses_it() {
    let mut fleet = Fleet::start().await;
    fleet.rotate(json!({})).await.unwrap();
    fleet.says("web-1", "staged", probed(204)).await;
    fleet.says("web-2", "staged", nothing()).await;
    fleet.advance(Phase::Current, false).await.unwrap();
    let refused = CredentialReport {
        probe_old: 401,
        ..probed(204)
    };
    fleet.says("web-1", "current", refused).await;
    let error = fleet.advance(Phase::Revoked, false).await.unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.detail.as_str()),
        ("not_yet", "not current on web-2")
    );
    fleet.stays(Phase::Current).await;
    fleet.says("web-2", "current", nothing()).await;
    eventually(async || (fleet.find("key").await.rotation?.phase == Phase::Revoked).then_some(())).await;
    // Each newer order takes the place of one that was not read yet.
    while fleet.order("web-2").await.phase != "revoked" {}
}

#[tokio::test]
async fn a_rotation_goes_on_only_when_every_host_has_the_value_and_the_service_took_it() {
    let fleet = Fleet::start().await;
    fleet.rotate(json!({})).await.unwrap();
    let detail = async |to| {
        let error = fleet.advance(to, false).await.unwrap_err();
        assert_eq!(error.code, "not_yet");
        error.detail
    };
    assert_eq!(detail(Phase::Canary).await, "not staged on web-1, web-2");
    fleet.says("web-1", "staged", nothing()).await;
    let failed = CredentialReport {
        error: "the disk is full".to_owned(),
        ..nothing()
    };
    fleet.says("web-2", "", failed).await;
    assert_eq!(detail(Phase::Current).await, "not staged on web-2 (the disk is full)");
    fleet.says("web-2", "staged", nothing()).await;
    assert_eq!(
        detail(Phase::Canary).await,
        "no probe with the new value was answered: it has not been made yet"
    );
    fleet.says("web-1", "staged", probed(500)).await;
    assert_eq!(
        detail(Phase::Canary).await,
        "the service answered 500 to the probe with the new value"
    );
    assert_eq!(detail(Phase::Revoked).await, "it is staged, and cannot become revoked");
    fleet.says("web-1", "staged", probed(200)).await;
    fleet.advance(Phase::Canary, false).await.unwrap();
    let refused = CredentialReport {
        canary_calls: 5,
        canary_refused: 2,
        ..probed(200)
    };
    fleet.says("web-1", "canary", refused).await;
    eventually(async || (fleet.find("key").await.rotation?.canary?.refused == 2).then_some(())).await;
    assert_eq!(
        detail(Phase::Current).await,
        "2 calls of prod/support with the new value were answered by 401"
    );
    fleet.advance(Phase::Aborted, false).await.unwrap();
    assert_eq!(detail(Phase::Current).await, "it is aborted, and cannot become current");
}

#[tokio::test]
async fn hosts_that_are_away_hold_a_rotation_up_unless_it_is_to_go_on_without_them() {
    let mut fleet = Fleet::start().await;
    fleet.rotate(json!({})).await.unwrap();
    fleet.says("web-1", "staged", probed(200)).await;
    drop(fleet.streams.remove("web-2"));
    eventually(async || (!fleet.find("key").await.hosts[1].connected).then_some(())).await;
    let error = fleet.advance(Phase::Canary, false).await.unwrap_err();
    assert_eq!(error.detail, "not staged on web-2 (away)");
    fleet.advance(Phase::Canary, true).await.unwrap();
    fleet.says("web-1", "canary", probed(200)).await;
    fleet.advance(Phase::Current, true).await.unwrap();
    fleet.connect("web-2").await;
    let late = fleet.order("web-2").await;
    assert_eq!(
        (late.phase.as_str(), late.sealed.as_slice()),
        ("current", &b"sealed to web-2"[..])
    );
    // What it had is sealed to a key that whoever comes in its name has not.
    fleet.ca.evict("web-2").await;
    drop(fleet.ca.join("web-2").await);
    let told = |found: &FleetCredential| found.hosts.iter().map(|host| host.has_value).collect::<Vec<_>>();
    assert_eq!(told(&fleet.find("key").await), [true, false]);
    // And after a restart.
    fleet.ca = fleet.ca.restart().await;
    let found = fleet.find("key").await;
    assert_eq!(found.rotation.as_ref().unwrap().phase, Phase::Current);
    assert_eq!(told(&found), [true, false]);
}

/// What is no rotation: what is changed in a good request, and what is said of it.
fn none() -> Vec<(Value, &'static str, &'static str)> {
    vec![
        (
            json!({"name": "kye"}),
            "no_such_credential",
            "the mesh file has key, plain, shown",
        ),
        (
            json!({"name": "shown"}),
            "no_value",
            "it has no value: the proxy shows the bot's own SVID",
        ),
        (
            json!({"name": "Key"}),
            "bad_request",
            "`name` is no name of a credential",
        ),
        (
            json!({"reason": " "}),
            "bad_request",
            "`reason` is one line of 1 to 256 characters",
        ),
        (
            json!({"reason": "a\u{1b}[2J"}),
            "bad_request",
            "`reason` is one line of 1 to 256 characters",
        ),
        (
            json!({"fingerprint": "00"}),
            "bad_request",
            "`fingerprint` is 16 hexadecimal digits",
        ),
        (
            json!({"fingerprint": "001122334455667G"}),
            "bad_request",
            "`fingerprint` is 16 hexadecimal digits",
        ),
    ]
}

/// The same of values that are none, or go elsewhere.
fn not_for_them() -> Vec<(Value, &'static str, &'static str)> {
    let value = STANDARD.encode("x");
    let long = STANDARD.encode(vec![0; SEALED_BYTES_MAX + 1]);
    vec![
        (
            json!({"sealed": {"web-1": "*"}}),
            "bad_request",
            "`sealed` has a value that is none",
        ),
        (
            json!({"sealed": {"web-1": ""}}),
            "bad_request",
            "`sealed` has a value that is none",
        ),
        (
            json!({"sealed": {"web-1": long}}),
            "bad_request",
            "`sealed` has a value that is none",
        ),
        (
            json!({"sealed": {"web-1": value}}),
            "hosts_differ",
            "the value is for web-1, and needed by web-1, web-2: ask again",
        ),
        (
            json!({"canary": "prod/other"}),
            "hosts_differ",
            "prod/other may not use key, or runs on no host that is connected",
        ),
    ]
}

#[tokio::test]
async fn a_value_that_goes_elsewhere_than_it_is_needed_or_is_none_is_refused() {
    let fleet = Fleet::start().await;
    for (changes, code, detail) in none().into_iter().chain(not_for_them()) {
        let error = fleet.rotate(changes.clone()).await.unwrap_err();
        assert_eq!(
            (error.code.as_str(), error.detail.as_str()),
            (code, detail),
            "{changes}"
        );
    }
    assert_eq!(
        fleet.advance(Phase::Current, false).await.unwrap_err().code,
        "no_such_credential"
    );
    let first = fleet.rotate(json!({})).await.unwrap().rotation.unwrap().rotation;
    let second = fleet.rotate(json!({})).await.unwrap_err();
    assert_eq!(second.code, "under_way");
    let stale = json!({"name": "key", "rotation": 7, "to": "aborted"});
    let stale: Result<FleetCredential, Problem> = fleet.ca.admin("POST", path::CREDENTIAL_ADVANCE, stale).await;
    assert!(stale.unwrap_err().detail.starts_with("the newest rotation of key is "));
    fleet.advance(Phase::Aborted, false).await.unwrap();
    let next = fleet.rotate(json!({})).await.unwrap();
    assert!(next.rotation.unwrap().rotation > first);
    assert_eq!(fleet.find("plain").await.rotation, None);
}

#[tokio::test]
async fn a_quarantined_host_is_given_nothing_and_holds_nothing_up() {
    let mut fleet = Fleet::start().await;
    let body = json!({"whom": {"host": "web-2"}, "reason": "stolen"});
    let _set: Value = fleet.ca.admin("POST", path::QUARANTINE, body).await.unwrap();
    let one = json!({"sealed": {"web-1": STANDARD.encode("sealed to web-1")}});
    let begun = fleet.rotate(one).await.unwrap();
    assert!(begun.hosts[1].quarantined && !begun.hosts[1].has_value);
    assert_eq!(fleet.order("web-1").await.phase, "staged");
    fleet.says("web-1", "staged", probed(200)).await;
    fleet.advance(Phase::Canary, false).await.unwrap();
    // One that is cut off in the middle holds nothing up either, and is told nothing.
    fleet.advance(Phase::Aborted, false).await.unwrap();
    let released: Result<Value, Problem> = fleet
        .ca
        .admin("POST", path::RELEASE, json!({"whom": {"host": "web-2"}}))
        .await;
    released.unwrap();
    fleet.rotate(json!({})).await.unwrap();
    fleet.says("web-1", "staged", probed(200)).await;
    assert_eq!(
        fleet.advance(Phase::Canary, false).await.unwrap_err().detail,
        "not staged on web-2"
    );
    let body = json!({"whom": {"host": "web-2"}, "reason": "stolen"});
    let _set: Value = fleet.ca.admin("POST", path::QUARANTINE, body).await.unwrap();
    fleet.advance(Phase::Canary, false).await.unwrap();
}

#[tokio::test]
async fn a_recipient_that_is_none_ends_the_stream() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    for recipient in ["age1 x".to_owned(), "a".repeat(129)] {
        let told = Hello { recipient, ..hello("") };
        let mut stream = ca.connect(&host).await.sync(told).await.unwrap();
        assert_eq!(within(stream.goodbye()).await.as_deref(), Some("protocol"));
    }
}
