//! What is unlike the days before: told by hosts, raised by the CA, kept over a restart.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use ca_api::JoinToken;
use ca_api::admin::{WatchAlert, WatchAlerts, path};
use ca_api::node::{Edge, Edges, Event, host_message};
use serde_json::{Value, json};
use spiffe_tls::PrivateKey;

use crate::support::*;

const HOUR: Duration = Duration::from_hours(1);

/// A host that comes back each hour, as its proxy does, and tells of calls.
struct Teller {
    token: JoinToken,
    host: Host,
    told: u64,
}

impl Teller {
    async fn join(ca: &TestCa, name: &str) -> Self {
        let token = ca.token(name).await;
        // Where time has passed, the CA renews its own SVID as soon as it sees that.
        eventually(async || ca.stranger(token.pins().to_vec()).await.ok()).await;
        let host = ca.join_with(&token, PrivateKey::generate().unwrap()).await.unwrap();
        Self { token, host, told: 0 }
    }

    /// Tells of calls by a stream of its own, and waits until the CA has them.
    async fn tells(&mut self, ca: &TestCa, messages: Vec<host_message::Message>) {
        let key = PrivateKey::generate().unwrap();
        // An hour is the life of the CA's own SVID, which it renews as soon as it sees the time.
        let mut connection = eventually(async || ca.stranger(self.token.pins().to_vec()).await.ok()).await;
        let request = bound_request(&self.host.name, self.host.svid.key(), &key, &connection.exporter);
        let answer = within(connection.client.attest(request)).await.unwrap();
        self.host = Host::new(answer.into_inner(), key);
        let mut stream = ca.connect(&self.host).await.sync(hello("")).await.unwrap();
        stream.slice().await;
        self.told += messages.len() as u64;
        for message in messages {
            stream.send(message).await;
        }
        let accepted = format!("result=\"accepted\"}} {}", self.told);
        eventually(async || metrics(ca).await.contains(&accepted).then_some(())).await;
    }

    /// The same of one call.
    async fn calls(&mut self, ca: &TestCa, edge: Edge) {
        self.tells(ca, vec![edges(edge, Duration::ZERO)]).await;
    }

    /// So many hours with a call in each.
    async fn learns(&mut self, ca: &TestCa, hours: u32) {
        for _ in 0..hours {
            self.calls(ca, reads(1)).await;
            ca.hand.advance(HOUR);
        }
    }
}

fn edges(edge: Edge, waited: Duration) -> host_message::Message {
    host_message::Message::Edges(Edges {
        edges: vec![edge],
        waited_ms: u64::try_from(waited.as_millis()).unwrap(),
        ..Edges::default()
    })
}

fn reads(count: u64) -> Edge {
    Edge {
        from: "prod/checkout".into(),
        to: "prod/orders".into(),
        rule: "reads-orders".into(),
        verdict: "allow".into(),
        count,
        ..Edge::default()
    }
}

fn refused(reason: &str, count: u64) -> Edge {
    Edge {
        rule: String::new(),
        verdict: "deny".into(),
        reason: reason.into(),
        ..reads(count)
    }
}

async fn metrics(ca: &TestCa) -> String {
    String::from_utf8(tcp_http(ca.addresses.dashboard, "/metrics").await.1.to_vec()).unwrap()
}

async fn alerts(ca: &TestCa) -> Vec<WatchAlert> {
    ca.get::<WatchAlerts>(path::ALERTS).await.alerts
}

async fn kinds(ca: &TestCa) -> Vec<String> {
    alerts(ca).await.into_iter().map(|alert| alert.kind).collect()
}

/// The details of the alerts in the ledger.
fn recorded(ca: &TestCa) -> Vec<Value> {
    ca.events("alert")
        .into_iter()
        .map(|line| line["detail"].clone())
        .collect()
}

#[tokio::test]
async fn one_call_an_hour_for_a_week_and_then_a_hundred_raises_within_a_minute() {
    let ca = TestCa::with_mesh().await;
    let mut host = Teller::join(&ca, "web-1").await;
    host.learns(&ca, 7 * 24).await;
    let ca = ca.restart().await;
    host.told = 0;
    host.calls(&ca, reads(1)).await;
    assert_eq!(alerts(&ca).await, []);
    ca.hand.advance(Duration::from_secs(36));
    host.calls(&ca, reads(1)).await;
    let found = alerts(&ca).await;
    assert_eq!(found.len(), 1, "36 s after the first of the hundred: {found:?}");
    let (seen, expected) = (found[0].seen.unwrap(), found[0].expected.unwrap());
    assert_eq!((seen.calls, seen.seconds), (2, 36));
    assert_eq!((expected.calls, expected.seconds), (2, 3_600));
    let written = &recorded(&ca)[0];
    for (key, value) in [
        ("reason", json!("rate_jump")),
        ("from", json!("prod/checkout")),
        ("to", json!("prod/orders")),
        ("route", json!("reads-orders")),
        ("host", json!("web-1")),
        ("seen", json!({"calls": 2, "seconds": 36})),
        ("expected", json!({"calls": 2, "seconds": 3600})),
        ("command", json!("botmesh quarantine prod/checkout --reason rate_jump")),
    ] {
        assert_eq!(written[key], value, "{key} in {written}");
    }
    assert_eq!(ca.events("alert")[0]["subject"], "bot:prod/checkout");
    let metrics = metrics(&ca).await;
    for line in [
        r#"botmesh_ca_alerts_total{kind="rate_jump"} 1"#,
        r#"botmesh_ca_alerts_total{kind="first_seen"} 0"#,
        "botmesh_ca_unwatched_calls_total 0",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    // Nobody is cut off.
    let quarantined: Value = ca.get(path::QUARANTINES).await;
    assert_eq!(quarantined["quarantines"], json!([]));
}

#[tokio::test]
async fn refusals_in_a_row_and_names_that_nobody_has_raise_and_faults_do_not() {
    let ca = TestCa::with_mesh().await;
    let mut host = Teller::join(&ca, "web-1").await;
    host.learns(&ca, 25).await;
    for fault in [
        "peer_unreachable",
        "quarantined",
        "timeout",
        "no_identity",
        "overloaded",
    ] {
        host.calls(&ca, refused(fault, 50)).await;
    }
    assert_eq!(kinds(&ca).await, [""; 0]);
    host.calls(&ca, refused("no_rule", 1)).await;
    assert_eq!(kinds(&ca).await, ["first_seen"]);
    host.calls(&ca, refused("no_rule", 9)).await;
    assert_eq!(kinds(&ca).await, ["first_seen", "refusal_burst"]);
    // What waits is told with how long it waited, and counts where it belongs: one a minute is no burst.
    let nowhere = |direction: &str| {
        let call = json!({"call": "", "direction": direction, "from": "prod/checkout", "to": null, "method": "GET",
            "path": "/", "reason": "no_such_bot"});
        host_message::Message::Event(Event {
            kind: "denied".into(),
            json: call.to_string(),
            unix_ms: ca.clock.now().unix_millis(),
        })
    };
    let before = host.told;
    host.told = 0;
    host.tells(&ca, vec![nowhere("in")]).await;
    assert_eq!(kinds(&ca).await.len(), 2, "the callee's side tells of no caller");
    host.tells(&ca, vec![nowhere("out")]).await;
    host.told = before;
    let newest = alerts(&ca).await.pop().unwrap();
    assert_eq!((newest.kind.as_str(), newest.to.as_str()), ("first_seen", ""));
    assert_eq!(
        newest.message,
        "prod/checkout was refused at a name that nobody has, which it never called before"
    );
    // In the ledger is the first of a kind; the others are one line more when the CA stops, at the latest.
    let reasons = |ca: &TestCa| -> Vec<String> {
        let reason = |detail: Value| detail["reason"].as_str().unwrap().to_owned();
        recorded(ca).into_iter().map(reason).collect()
    };
    assert_eq!(reasons(&ca), ["first_seen", "refusal_burst"]);
    let ca = ca.restart().await;
    assert_eq!(reasons(&ca), ["first_seen", "refusal_burst", "more_alerts"]);
}

#[tokio::test]
async fn calls_that_were_told_late_are_no_burst_and_make_nobody_old() {
    let ca = TestCa::with_mesh().await;
    let mut host = Teller::join(&ca, "web-1").await;
    let month = Duration::from_hours(24 * 30);
    host.tells(&ca, vec![edges(reads(3), month)]).await;
    host.calls(&ca, refused("no_rule", 1)).await;
    assert_eq!(kinds(&ca).await, [""; 0], "a new bot learns, whatever its host says");
    for _ in 0..25 {
        host.calls(&ca, reads(3)).await;
        ca.hand.advance(HOUR);
    }
    // The CA was away for a minute in each of which there were three calls, as ever.
    ca.hand.advance(HOUR / 2);
    let late = |minutes: u32| edges(reads(3), Duration::from_secs(u64::from(minutes) * 660));
    host.tells(&ca, vec![late(2), late(1), late(0)]).await;
    assert_eq!(kinds(&ca).await, [""; 0]);
    let now = || edges(reads(3), Duration::ZERO);
    host.tells(&ca, (0..9).map(|_| now()).collect()).await;
    assert_eq!(kinds(&ca).await, ["rate_jump"]);
}

#[tokio::test]
async fn a_host_makes_no_bot_of_another_host_look_usual_or_unusual() {
    let ca = TestCa::with_mesh().await;
    let mut caller = Teller::join(&ca, "web-1").await;
    caller.learns(&ca, 25).await;
    let mut callee = Teller::join(&ca, "web-2").await;
    callee.told = caller.told;
    // It is believed that calls came in, for what operators look at; not that the caller made them.
    callee.calls(&ca, reads(10_000)).await;
    callee.calls(&ca, refused("no_rule", 10_000)).await;
    caller.told = callee.told;
    caller.calls(&ca, refused("no_rule", 0)).await;
    assert_eq!(kinds(&ca).await, [""; 0]);
    caller.calls(&ca, reads(50)).await;
    assert_eq!(kinds(&ca).await, ["rate_jump"]);
}

#[tokio::test]
async fn alerts_are_followed_by_number() {
    let ca = TestCa::with_mesh().await;
    let mut host = Teller::join(&ca, "web-1").await;
    host.learns(&ca, 25).await;
    let waiting = ca.get::<WatchAlerts>("/v1/alerts?after=0&wait_seconds=30");
    let (followed, ()) = tokio::join!(waiting, host.calls(&ca, refused("no_rule", 1)));
    assert_eq!((followed.alerts.len(), followed.newest), (1, 1));
    host.calls(&ca, reads(50)).await;
    let after: WatchAlerts = ca.get("/v1/alerts?after=1").await;
    assert_eq!(after.alerts.iter().map(|alert| alert.id).collect::<Vec<_>>(), [2]);
    let of_another_start: WatchAlerts = ca.get("/v1/alerts?after=77").await;
    assert_eq!(of_another_start.alerts.len(), 2);
    // As events, until the CA stops.
    let mut stream = UnixStream::connect(&ca.settings.admin_socket).await.unwrap();
    let request = "GET /v1/alerts/stream?after=1 HTTP/1.0\r\nHost: ca\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    within(async {
        while !String::from_utf8_lossy(&read).contains("data: ") {
            assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "it ended");
        }
    })
    .await;
    drop(ca.stop().await);
    within(stream.read_to_end(&mut read)).await.unwrap();
    let text = String::from_utf8(read).unwrap();
    let text = text.split_once("\r\n\r\n").unwrap().1;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["id: 2", "event: rate_jump"], "{text}");
    let data: WatchAlert = serde_json::from_str(lines[2].strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!((data, lines.len()), (after.alerts[0].clone(), 4));
}

#[tokio::test]
async fn nothing_is_watched_where_it_is_off() {
    let ca = TestCa::start_with(json!({"watch": {"enabled": false}})).await;
    ca.apply(MESH, None).await.unwrap();
    let mut host = Teller::join(&ca, "web-1").await;
    host.learns(&ca, 25).await;
    host.calls(&ca, reads(500)).await;
    assert_eq!(kinds(&ca).await, [""; 0]);
    assert!(metrics(&ca).await.contains("botmesh_ca_watched_routes 0"));
}
