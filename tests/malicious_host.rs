//! A host that was taken over: somebody holds its node SVID and key and asks the CA for everything that is not its own.

mod asks;
mod cut_off;
mod tells;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ca_api::JoinToken;
use ca_api::node::attest_request::Evidence;
use ca_api::node::host_message::Message;
use ca_api::node::node_client::NodeClient;
use ca_api::node::{
    self, Applied, AttestRequest, BoundKeyEvidence, CosignRequest, Edge, Edges, Event, QuarantinesApplied, SvidRequest,
    TokenEvidence, ca_message,
};
use ca_api::observation::DENIED;
use serde_json::{Value, json};
use spiffe::id::{BotName, HostName, SpiffeId};
use spiffe::time::{Clock, Timestamp};
use spiffe_tls::{PrivateKey, Svid};
use tonic::Status;

use crate::spine::{two_hosts, two_hosts_at};
use crate::support::hand::Hand;
use crate::support::thief::{Talk, Thief, Wire, hello};
use crate::support::{Mesh, botmesh, eventually, http_get, ok, root_or_skip, run};

/// What was asked, what came back, and what the CA's ledger must say of it.
struct Row {
    asked: String,
    answer: String,
    recorded: &'static str,
}

struct Table<'a> {
    thief: Thief,
    mesh: &'a Mesh,
    rows: Vec<Row>,
}

fn node_api(mesh: &Mesh) -> SocketAddr {
    let status = ok(botmesh().args(["ca", "status", "-o", "json", "--server", &mesh.server()]));
    let status: Value = serde_json::from_str(&status).expect("JSON");
    status["node_api"]
        .as_str()
        .expect("an address")
        .parse()
        .expect("an address")
}

fn hosts(mesh: &Mesh) -> BTreeMap<String, Value> {
    let list = ok(botmesh().args(["host", "list", "-o", "json", "--server", &mesh.server()]));
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let items = list["items"].as_array().expect("items").clone();
    items
        .into_iter()
        .map(|host| (host["host"].as_str().expect("a name").to_owned(), host))
        .collect()
}

fn said<T>(result: Result<T, Status>) -> String {
    match result {
        Ok(_) => "ALLOWED".to_owned(),
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}

fn request(bot: &str, csr: Vec<u8>) -> SvidRequest {
    SvidRequest {
        bot: bot.to_owned(),
        csr,
    }
}

fn edge(from: &str, to: &str) -> Edge {
    Edge {
        from: from.to_owned(),
        to: to.to_owned(),
        verdict: "allow".to_owned(),
        count: 1_000_000,
        ..Edge::default()
    }
}

fn event(kind: &str, json: impl ToString) -> Message {
    Message::Event(Event {
        kind: kind.to_owned(),
        json: json.to_string(),
        unix_ms: 0,
    })
}

impl Table<'_> {
    /// Notes a row; `answer` must begin so.
    fn row(&mut self, asked: &str, answer: String, expected: &str, recorded: &'static str) {
        assert!(answer.starts_with(expected), "{asked}: {answer}, not {expected}");
        self.rows.push(Row {
            asked: asked.to_owned(),
            answer,
            recorded,
        });
    }

    fn attest(
        &self,
        wire: &Wire,
        host: &str,
        key: &PrivateKey,
        evidence: Option<Evidence>,
    ) -> Result<node::AttestResponse, Status> {
        let named = if host.is_empty() { "web-9" } else { host };
        let id = SpiffeId::for_host(&self.thief.td, &HostName::parse(named).expect("a host"));
        let csr = key.csr(&id).expect("a CSR");
        let message = node::attest_message(&wire.exporter, &csr);
        let evidence = evidence.unwrap_or_else(|| {
            Evidence::BoundKey(BoundKeyEvidence {
                public_key: self.thief.key().spki_der(),
                proof: self.thief.key().sign(&message).expect("a signature"),
            })
        });
        let request = AttestRequest {
            host: host.to_owned(),
            csr,
            proof: key.sign(&message).expect("a signature"),
            evidence: Some(evidence),
        };
        let mut client = NodeClient::new(wire.channel.clone());
        self.thief.wait(client.attest(request)).map(tonic::Response::into_inner)
    }
}

/// The mesh of the spine, with a bot on web-2 that has nothing to do with web-1.
fn add_vault(mesh: &Mesh) {
    let text = std::fs::read_to_string(mesh.mesh_file()).expect("the mesh file");
    let vault = "bots:\n  staging/vault: {owner: shop@acme.internal, hosts: [web-2], attest: {uid: 61088}, serve: {http: 61088}}\n";
    // A rule from `**` names every bot to every host that it concerns.
    let text = text.replace("from: \"**\"", "from: prod/**");
    mesh.apply(&text.replacen("bots:\n", vault, 1));
}

#[test]
fn a_host_that_was_taken_over_gets_nothing_that_is_not_its_own() {
    if !root_or_skip("a malicious host") {
        return;
    }
    let dir = tempfile::Builder::new().prefix("bm").tempdir().expect("a folder");
    let hand = Hand::new(dir.path());
    let mut mesh = two_hosts_at(&hand);
    add_vault(&mesh);
    mesh.host_mut("web-1").process.kill();
    eventually("web-1 to be gone", || {
        (hosts(&mesh)["web-1"]["connected"] == false).then_some(())
    });
    let thief = Thief::of(&mesh.host("web-1").dir, node_api(&mesh));
    let mut table = Table {
        thief,
        mesh: &mesh,
        rows: Vec::new(),
    };
    table.attestations();
    table.others();
    table.hellos();
    table.receipts();
    table.telemetry();
    table.telemetry_of_the_outside();
    table.issuances();
    table.floods();
    table.quarantined();
    table.replaced();
    table.ended(&hand);
    table.evicted(&hand);
    let rows = table.rows;
    mesh.ca.terminate();
    print(&rows);
    every_row_is_in_the_ledger(&mesh, &rows);
}

/// What the ledger counts of each: the first is a record of its own, the others are a number.
fn every_row_is_in_the_ledger(mesh: &Mesh, rows: &[Row]) {
    let records = |kind: &str| -> Vec<Value> {
        let ledger = mesh.ca_ledger();
        let filter = format!("kind={kind}");
        let text = ok(botmesh()
            .args(["audit", "query", &filter, "-o", "jsonl", "--limit", "1000000"])
            .arg(ledger));
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    };
    let mut wanted: BTreeMap<&str, u64> = BTreeMap::new();
    for row in rows {
        *wanted.entry(row.recorded).or_default() += 1;
    }
    for (recorded, rows) in wanted {
        let (kind, reason) = recorded.split_once(' ').unwrap_or((recorded, ""));
        let counted: u64 = records(kind)
            .iter()
            .filter(|record| {
                let told = if kind == "strangers" {
                    &record["reason"]
                } else {
                    &record["detail"]["reason"]
                };
                reason.is_empty() || told == reason
            })
            .map(|record| {
                let count = if kind == "strangers" {
                    &record["count"]
                } else {
                    &record["detail"]["count"]
                };
                count.as_u64().unwrap_or(1)
            })
            .sum();
        assert!(counted >= rows, "{recorded}: {rows} rows, {counted} in the ledger");
    }
    let alerts = records("alert");
    assert!(
        alerts
            .iter()
            .any(|alert| alert["detail"]["reason"] == "token_other_key"),
        "{alerts:?}"
    );
}

fn print(rows: &[Row]) {
    let wide = rows.iter().map(|row| row.asked.len()).max().unwrap_or(0);
    let answers = rows
        .iter()
        .map(|row| row.answer.chars().count().min(72))
        .max()
        .unwrap_or(0);
    println!(
        "{:wide$}  {:answers$}  IN THE CA'S LEDGER",
        "ASKED BY WHO HOLDS WEB-1'S SVID", "ANSWER"
    );
    for row in rows {
        let answer: String = row.answer.chars().take(72).collect();
        println!("{:wide$}  {answer:answers$}  {}", row.asked, row.recorded);
    }
    println!("{} rows, all refused and recorded", rows.len());
}

fn alerts(mesh: &Mesh) -> Vec<Value> {
    hosts(mesh)["web-1"]["alerts"].as_array().expect("alerts").clone()
}

#[test]
fn one_svid_from_two_addresses_is_an_alert_and_the_newest_stream_lives() {
    if !root_or_skip("one SVID from two addresses") {
        return;
    }
    let mesh = two_hosts("");
    let mut thief = Thief::of(&mesh.host("web-1").dir, node_api(&mesh));
    assert!(alerts(&mesh).is_empty(), "{:?}", alerts(&mesh));
    // From the address of its proxy, once: as a proxy does whose connection broke.
    let wire = thief.connect();
    let mut talk = thief.hello(&wire);
    let replaced = thief.goodbye(&mut talk);
    assert_eq!(replaced, "goodbye: replaced", "the proxy came back");
    assert!(alerts(&mesh).is_empty(), "{:?}", alerts(&mesh));

    thief.from = [127, 0, 0, 2].into();
    let wire = thief.connect();
    let mut talk = thief.hello(&wire);
    let replaced = thief.goodbye(&mut talk);
    assert_eq!(replaced, "goodbye: replaced", "the proxy came back");
    let alert = eventually("the alert", || alerts(&mesh).first().cloned());
    println!("{alert:#}");
    assert_eq!(alert["kind"], "svid_from_two_addresses");
    assert_eq!(alert["addresses"], json!(["127.0.0.1", "127.0.0.2"]));
    assert_eq!(
        alert["command"],
        "botmesh quarantine --host web-1 --reason svid_from_two_addresses"
    );
    let host = &hosts(&mesh)["web-1"];
    assert_eq!(
        (&host["connected"], &host["source"]),
        (&json!(true), &json!("127.0.0.1"))
    );
    let table = ok(botmesh().args(["host", "list", "--server", &mesh.server()]));
    assert!(table.contains("svid_from_two_addresses"), "{table}");
    let ledger = ok(botmesh()
        .args(["audit", "query", "kind=alert", "-o", "jsonl"])
        .arg(mesh.ca_ledger()));
    assert!(ledger.contains("svid_from_two_addresses"), "{ledger}");
}

#[test]
fn one_svid_that_asks_from_elsewhere_beside_a_stream_that_lives_is_an_alert() {
    if !root_or_skip("one SVID beside a stream") {
        return;
    }
    let mesh = two_hosts("");
    let mut thief = Thief::of(&mesh.host("web-1").dir, node_api(&mesh));
    thief.from = [127, 0, 0, 2].into();
    let wire = thief.connect();
    let own = vec![request("prod/checkout", thief.csr("prod/checkout"))];
    assert_eq!(thief.issue(&wire, own).expect("its own bot"), ["issued"]);
    assert!(alerts(&mesh).is_empty(), "it may have moved: {:?}", alerts(&mesh));
    // Its proxy says something on its stream: a receipt.
    add_vault(&mesh);
    let alert = eventually("the alert", || alerts(&mesh).first().cloned());
    assert_eq!(alert["kind"], "svid_from_two_addresses");
    assert_eq!(alert["addresses"], json!(["127.0.0.1", "127.0.0.2"]));
}
