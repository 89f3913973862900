//! A host that was taken over: somebody holds its node SVID and key and asks the CA for everything that is not its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ca_api::JoinToken;
use ca_api::node::attest_request::Evidence;
use ca_api::node::host_message::Message;
use ca_api::node::node_client::NodeClient;
use ca_api::node::{
    self, Applied, AttestRequest, BoundKeyEvidence, Checkpoint, Edge, Edges, Event, QuarantinesApplied, SvidRequest,
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
use crate::support::thief::{Thief, Wire, hello};
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

    fn attestations(&mut self) {
        let thief = |table: &Self| {
            table
                .thief
                .dial(None, &Clock::system())
                .expect("a stranger's connection")
        };
        let key = PrivateKey::generate().expect("a key");
        let answer = said(self.attest(&thief(self), "web-2", &key, None));
        self.row(
            "Attest as web-2, by the key of web-1",
            answer,
            "PermissionDenied",
            "strangers attest_unknown_key",
        );

        let token = |text: &str| {
            let token = JoinToken::parse(text.trim()).expect("a token");
            Some(Evidence::Token(TokenEvidence {
                secret: token.secret().expose_text().to_string(),
            }))
        };
        let used = std::fs::read_to_string(self.mesh.host("web-2").dir.join("token")).expect("the token of web-2");
        let answer = said(self.attest(&thief(self), "", &key, token(&used)));
        self.row(
            "Attest with web-2's used token, another key",
            answer,
            "PermissionDenied",
            "token_refused token_other_key",
        );
        let fresh = ok(botmesh().args(["host", "token", "web-2", "--server", &self.mesh.server()]));
        let answer = said(self.attest(&thief(self), "", &key, token(&fresh)));
        self.row(
            "Attest with a fresh token of web-2, which has a key",
            answer,
            "PermissionDenied",
            "token_refused host_has_key",
        );
        let made_up = Some(Evidence::Token(TokenEvidence { secret: "A".repeat(43) }));
        let answer = said(self.attest(&thief(self), "", &key, made_up));
        self.row(
            "Attest with a token that nobody made",
            answer,
            "PermissionDenied",
            "strangers token_unknown",
        );
        let named = said(self.attest(&thief(self), "web-2", &key, token(&fresh)));
        self.row(
            "Attest with a token, naming the host itself",
            named,
            "PermissionDenied",
            "strangers attest_named_host",
        );
        // A proof is worth nothing on another connection.
        let (one, other) = (thief(self), thief(self));
        let relayed = Wire {
            channel: other.channel,
            exporter: one.exporter,
        };
        let answer = said(self.attest(&relayed, "web-1", &key, None));
        self.row(
            "Attest with a proof of another connection",
            answer,
            "PermissionDenied",
            "strangers attest_bad_proof",
        );
    }

    fn issuances(&mut self) {
        let wire = self.thief.connect();
        let csr = self.thief.csr("prod/checkout");
        let one = |table: &Self, bot: &str, csr: Vec<u8>| match table.thief.issue(&wire, vec![request(bot, csr)]) {
            Ok(words) => words.concat(),
            Err(status) => said::<()>(Err(status)),
        };
        for (bot, refused, recorded) in [
            ("prod/orders", "not_your_bot", "issue_refused not_your_bot"),
            ("staging/vault", "not_your_bot", "issue_refused not_your_bot"),
            ("prod/no-such-bot", "not_your_bot", "issue_refused not_your_bot"),
            ("botmesh/ca/main", "bad_request", "issue_refused not_a_bot"),
            ("botmesh/host/web-2", "bad_request", "issue_refused not_a_bot"),
            ("botmesh/operator/root", "bad_request", "issue_refused not_a_bot"),
            (
                "spiffe://acme.internal/botmesh/ca/main",
                "bad_request",
                "issue_refused not_a_bot",
            ),
            ("../prod/orders", "bad_request", "issue_refused not_a_bot"),
        ] {
            let answer = one(self, bot, csr.clone());
            self.row(&format!("Issue for {bot}"), answer, refused, recorded);
        }
        let answer = one(self, "prod/checkout", vec![0x30; 4097]);
        self.row(
            "Issue with a CSR of 4097 bytes",
            answer,
            "bad_request: the CSR is too long",
            "issue_refused bad_csr",
        );
        let answer = one(self, "prod/checkout", vec![0x30; 200]);
        self.row(
            "Issue with a CSR that is none",
            answer,
            "bad_request: not a PKCS#10",
            "issue_refused bad_csr",
        );
        let answer = said(self.thief.issue(&wire, vec![request("prod/checkout", csr.clone()); 65]));
        self.row(
            "Issue of 65 SVIDs at once",
            answer,
            "InvalidArgument",
            "issue_refused too_many_svids",
        );
        let mut asked = 0;
        let answer = loop {
            asked += 64;
            match self.thief.issue(&wire, vec![request("prod/checkout", csr.clone()); 64]) {
                Ok(words) => assert!(
                    asked <= 4096 && words.iter().all(|word| word == "issued"),
                    "{asked}: {words:?}"
                ),
                Err(status) => break said::<()>(Err(status)),
            }
        };
        self.row(
            "Issue of more than 4096 SVIDs, on and on",
            answer,
            "ResourceExhausted",
            "issue_refused svids_limited",
        );
    }

    fn others(&mut self) {
        let wire = self.thief.connect();
        for (path, name) in [
            ("/v1/apply", "POST /v1/apply, of the admin API, on the node port"),
            ("/v1/host/token", "POST /v1/host/token there"),
            ("/botmesh.node.v1.Node/Evict", "An RPC that there is not"),
        ] {
            let answer = said(self.thief.raw(&wire, path, b"{}"));
            self.row(name, answer, "Unimplemented", "host_refused unknown_rpc");
        }
        let key = PrivateKey::generate().expect("a key");
        let id = SpiffeId::for_bot(&self.thief.td, &BotName::parse("prod/checkout").expect("a bot"));
        let mut client = NodeClient::new(wire.channel.clone());
        let svids = vec![request("prod/checkout", key.csr(&id).expect("a CSR"))];
        let answer = self
            .thief
            .wait(client.issue(node::IssueRequest { svids }))
            .expect("its own bot")
            .into_inner();
        let bot = Svid::new(answer.results[0].chain.clone(), key).expect("an SVID");
        let wire = self.thief.dial(Some(&bot), &Clock::system()).expect("a connection");
        let answer = said(
            self.thief
                .issue(&wire, vec![request("prod/checkout", self.thief.csr("prod/checkout"))]),
        );
        self.row(
            "Issue, as one of its bots and not as the host",
            answer,
            "PermissionDenied",
            "strangers not_a_host",
        );
        let answer = said(self.thief.sync(&wire, Message::Hello(hello(""))));
        self.row(
            "Sync, as one of its bots",
            answer,
            "PermissionDenied",
            "strangers not_a_host",
        );
        let wire = self.thief.dial(None, &Clock::system()).expect("a connection");
        let answer = said(self.thief.sync(&wire, Message::Hello(hello(""))));
        self.row(
            "Sync without a certificate",
            answer,
            "PermissionDenied",
            "strangers no_certificate",
        );
    }

    /// The first message of a stream, and what it gets.
    fn first(&mut self, asked: &str, first: Message, recorded: &'static str) {
        let wire = self.thief.connect();
        let mut talk = self.thief.sync(&wire, first).expect("a stream");
        let answer = self.thief.goodbye(&mut talk);
        self.row(asked, answer, "goodbye: protocol", recorded);
    }

    fn hellos(&mut self) {
        self.first(
            "Sync, not beginning with Hello",
            Message::Applied(Applied::default()),
            "host_refused no_hello",
        );
        let mut newer = hello("");
        newer.version = 2;
        self.first(
            "Hello of another version",
            Message::Hello(newer),
            "host_refused bad_hello",
        );
        let of_web_2 = hosts(self.mesh)["web-2"]["advertise"]
            .as_str()
            .expect("its address")
            .to_owned();
        for (asked, address) in [
            ("Hello with the address of web-2", of_web_2.as_str()),
            ("Hello with the address of everybody", "0.0.0.0:15443"),
            ("Hello with a name for an address", "web-2:15443"),
        ] {
            self.first(
                asked,
                Message::Hello(hello(address)),
                "host_refused advertise_not_yours",
            );
        }
        assert_eq!(hosts(self.mesh)["web-2"]["advertise"], of_web_2);
        // Whose slice it gets is for the certificate to say, whatever it claims to have.
        let wire = self.thief.connect();
        let mut mine = hello("");
        mine.applied = Some(node::Generation { epoch: 1, revision: 2 });
        mine.applied_sha256 = vec![7; 32];
        let mut talk = self.thief.sync(&wire, Message::Hello(mine)).expect("a stream");
        let heard = self.thief.until_time(&mut talk);
        let text: String = heard
            .iter()
            .map(|message| match message {
                ca_message::Message::Slice(slice) => String::from_utf8_lossy(&slice.json).into_owned(),
                other => format!("{other:?}"),
            })
            .collect();
        assert!(text.contains("prod/checkout") && !text.contains("vault"), "{text}");
        self.row(
            "Hello as if it had the slice of web-2",
            "its own slice, without a word of staging/vault".to_owned(),
            "its own",
            "host_connected",
        );
        let mut second = self.thief.hello(&wire);
        let answer = self.thief.goodbye(&mut talk);
        self.row("A second Sync at once", answer, "goodbye: replaced", "host_connected");
        second.say(Message::Hello(hello("")));
        let answer = self.thief.goodbye(&mut second);
        self.row(
            "A second Hello on a stream",
            answer,
            "goodbye: protocol",
            "host_refused second_hello",
        );
    }

    /// A message on a stream that stays up: passed over, and recorded.
    fn passed_over(&mut self, asked: &str, message: Message, word: &str, recorded: &'static str) {
        let before = self.counted(word);
        let wire = self.thief.connect();
        let mut talk = self.thief.hello(&wire);
        self.thief.until_time(&mut talk);
        talk.say(message);
        eventually(asked, || (self.counted(word) > before).then_some(()));
        self.row(asked, "passed over".to_owned(), "passed over", recorded);
    }

    /// A message that ends the stream.
    fn ends(&mut self, asked: &str, messages: Vec<Message>, recorded: &'static str) {
        let wire = self.thief.connect();
        let mut talk = self.thief.hello(&wire);
        for message in messages {
            talk.say(message);
        }
        let answer = self.thief.goodbye(&mut talk);
        self.row(asked, answer, "goodbye: protocol", recorded);
    }

    fn counted(&self, reason: &str) -> u64 {
        let (_, text) = http_get(self.dashboard(), "/metrics").expect("the metrics");
        let name = format!("botmesh_ca_refused_total{{reason=\"{reason}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0, |count| count.parse().expect("a number"))
    }

    fn dashboard(&self) -> u16 {
        let status = ok(botmesh().args(["ca", "status", "-o", "json", "--server", &self.mesh.server()]));
        let status: Value = serde_json::from_str(&status).expect("JSON");
        let address: SocketAddr = status["dashboard"]
            .as_str()
            .expect("an address")
            .parse()
            .expect("an address");
        address.port()
    }

    fn receipts(&mut self) {
        let applied = |revision, sha256| {
            Message::Applied(Applied {
                generation: Some(node::Generation { epoch: 1, revision }),
                sha256,
                ok: true,
                error: String::new(),
            })
        };
        let (word, recorded) = ("receipt_not_sent", "host_refused receipt_not_sent");
        self.passed_over(
            "A receipt for a revision that was never sent",
            applied(99, vec![7; 32]),
            word,
            recorded,
        );
        self.passed_over(
            "A receipt for other bytes than were sent",
            applied(2, vec![7; 32]),
            word,
            recorded,
        );
        assert_eq!(
            hosts(self.mesh)["web-1"]["applied"],
            Value::Null,
            "no receipt was believed"
        );
        let enforced = Message::QuarantinesApplied(QuarantinesApplied {
            generation: Some(node::Generation { epoch: 1, revision: 99 }),
            streams_cut: 7,
        });
        let (word, recorded) = ("quarantines_not_sent", "host_refused quarantines_not_sent");
        self.passed_over(
            "A receipt for quarantines that were never sent",
            enforced,
            word,
            recorded,
        );
    }

    fn telemetry(&mut self) {
        let edges = |edges| Message::Edges(Edges { edges, dropped: 0 });
        let (word, recorded) = ("edge_not_yours", "host_refused edge_not_yours");
        let foreign = edges(vec![edge("prod/orders", "staging/vault")]);
        self.passed_over("Edges between bots of web-2", foreign, word, recorded);
        let domain = edges(vec![edge("spiffe://evil.example/prod/checkout", "prod/orders")]);
        self.passed_over(
            "Edges of its bot's name in another trust domain",
            domain,
            word,
            recorded,
        );
        let host = edges(vec![edge("spiffe://acme.internal/botmesh/host/web-1", "prod/orders")]);
        self.passed_over("Edges from a host", host, word, recorded);
        let (word, recorded) = ("edge_unreadable", "host_refused edge_unreadable");
        let mut bent = edge("prod/checkout", "prod/orders");
        bent.rule = "no-such-rule".to_owned();
        self.passed_over(
            "Edges by a rule that there is not",
            edges(vec![bent.clone()]),
            word,
            recorded,
        );
        bent.rule.clear();
        bent.reason = "<script>".to_owned();
        self.passed_over("Edges with a reason that is no word", edges(vec![bent]), word, recorded);
        let many = edges(vec![edge("prod/checkout", "prod/orders"); 513]);
        self.ends("513 edges in one message", vec![many], "host_refused too_many_edges");

        let call = json!({"call": "", "direction": "in", "from": "staging/vault", "to": "prod/orders", "method": "GET",
                          "path": "/", "reason": "no_rule"});
        let (word, recorded) = ("event_not_yours", "host_refused event_not_yours");
        self.passed_over("An event about bots of web-2", event(DENIED, call), word, recorded);
        let (word, recorded) = ("event_unreadable", "host_refused event_unreadable");
        self.passed_over("An event that is no JSON", event(DENIED, "]["), word, recorded);
        let long = event(DENIED, " ".repeat(8 * 1024 + 1));
        self.ends("An event of more than 8 KiB", vec![long], "host_refused event_too_long");

        let (word, recorded) = ("checkpoint_not_yours", "host_refused checkpoint_not_yours");
        let of_web_2 =
            std::fs::read_to_string(self.mesh.host("web-2").ledger().join("checkpoint")).expect("a checkpoint");
        let note = Message::Checkpoint(Checkpoint { note: of_web_2 });
        self.passed_over("A checkpoint of web-2's ledger", note, word, recorded);
        let of_ca = std::fs::read_to_string(self.mesh.ca_ledger().join("checkpoint")).expect("a checkpoint");
        self.passed_over(
            "A checkpoint of the CA's ledger",
            Message::Checkpoint(Checkpoint { note: of_ca }),
            word,
            recorded,
        );
        let none = Message::Checkpoint(Checkpoint {
            note: "acme.internal/host/web-1\n9\n".to_owned(),
        });
        let (word, recorded) = ("checkpoint_unreadable", "host_refused checkpoint_unreadable");
        self.passed_over("A checkpoint that nobody signed", none, word, recorded);
    }

    fn floods(&mut self) {
        let long = event("denied", "x".repeat(300 * 1024));
        self.ends("A message of 300 KiB", vec![long], "host_refused message_too_long");
        let wire = self.thief.connect();
        let answer = said(self.thief.raw(&wire, "/botmesh.node.v1.Node/Sync", &[0xff; 64]));
        self.row(
            "Bytes that are no message",
            answer.replace("ALLOWED", "goodbye"),
            "goodbye",
            "host_refused message_unreadable",
        );
        let flood = vec![Message::Checkpoint(Checkpoint::default()); 4000];
        let before = self.counted("checkpoint_unreadable");
        let wire = self.thief.connect();
        let mut talk = self.thief.hello(&wire);
        flood.into_iter().for_each(|message| talk.say(message));
        let answer = self.thief.goodbye(&mut talk);
        let looked_at = self.counted("checkpoint_unreadable") - before;
        assert!(looked_at < 2000, "{looked_at} messages of 4000 were looked at");
        self.row(
            "4000 messages at once",
            answer,
            "goodbye: protocol",
            "host_refused too_many_messages",
        );
        let wires: Vec<Wire> = (0..20).map(|_| self.thief.connect()).collect();
        let last = wires.last().expect("a connection");
        let answer = said(self.thief.issue(last, vec![request("staging/vault", Vec::new())]));
        self.row(
            "20 connections at once",
            answer,
            "Un",
            "host_refused too_many_connections",
        );
        drop(wires);
        eventually("the other connections to be forgotten", || {
            let wire = self.thief.connect();
            self.thief.issue(&wire, Vec::new()).is_ok().then_some(())
        });
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
    table.issuances();
    table.floods();
    cut_off(&mut table, &hand);
    let rows = table.rows;
    mesh.ca.terminate();
    print(&rows);
    every_row_is_in_the_ledger(&mesh, &rows);
}

/// Quarantined, then with an SVID that has ended, then evicted.
fn cut_off(table: &mut Table<'_>, hand: &Hand) {
    let (mesh, own) = (
        table.mesh,
        vec![request("prod/checkout", table.thief.csr("prod/checkout"))],
    );
    let server = mesh.server();
    let quarantine = [
        "quarantine",
        "--host",
        "web-1",
        "--reason",
        "taken over",
        "--server",
        &server,
    ];
    // It exits with 4, since web-1 is not there to say that it enforces it.
    run(botmesh().args(quarantine));
    let wire = table.thief.connect();
    let answer = table.thief.issue(&wire, own.clone()).expect("an answer").concat();
    table.row(
        "Issue, while web-1 is quarantined",
        answer,
        "quarantined",
        "issue_refused quarantined",
    );
    let key = PrivateKey::generate().expect("a key");
    let stranger = table.thief.dial(None, &Clock::system()).expect("a connection");
    let answer = said(table.attest(&stranger, "web-1", &key, None));
    table.row(
        "Attest by its own key, while quarantined",
        answer,
        "PermissionDenied",
        "issue_refused quarantined",
    );
    let mut talk = table.thief.hello(&wire);
    let heard = table.thief.until_time(&mut talk);
    let told = heard
        .iter()
        .any(|m| matches!(m, ca_message::Message::Slice(_) | ca_message::Message::Endpoints(_)));
    let answer = if told {
        "TOLD"
    } else {
        "the list of quarantines, no slice, no address"
    };
    table.row(
        "Its slice, while quarantined",
        answer.to_owned(),
        "the list",
        "quarantined",
    );
    drop(talk);
    run(botmesh().args(["release", "--host", "web-1", "--server", &server]));

    let old = table.thief.connect();
    hand.forward(Duration::from_secs(3660));
    let at = || Clock::fixed(Timestamp::from_unix_millis(hand.shows())).0;
    let answer = eventually("the SVID to end", || {
        let answer = said(table.thief.issue(&old, own.clone()));
        (!answer.starts_with("ALLOWED") && !answer.starts_with("ResourceExhausted")).then_some(answer)
    });
    table.row(
        "Issue, with an SVID that has ended",
        answer,
        "PermissionDenied",
        "host_refused svid_expired",
    );
    let answer = said(table.thief.sync(&old, Message::Hello(hello(""))));
    table.row(
        "Sync, with an SVID that has ended",
        answer,
        "PermissionDenied",
        "host_refused svid_expired",
    );
    // TLS 1.3: the client has finished before the server looks at its certificate.
    let answer = match table.thief.dial(Some(&table.thief.node), &at()) {
        Ok(wire) => said(table.thief.issue(&wire, own.clone())),
        Err(error) => format!("handshake: {error}"),
    };
    assert!(!answer.starts_with("ALLOWED"), "{answer}");
    table.row("A new connection with it", answer, "", "strangers expired");

    // Until it is evicted, the key is the host's: it gets a new SVID, as its proxy would.
    let stranger = || table.thief.dial(None, &at()).expect("a connection");
    let new = PrivateKey::generate().expect("a key");
    let answer = table.attest(&stranger(), "web-1", &new, None).expect("a new SVID");
    let svid = Svid::new(answer.chain, new).expect("an SVID");
    let connect = || table.thief.dial(Some(&svid), &at()).expect("a connection");
    let held = connect();
    let mut talk = table.thief.hello(&held);
    table.thief.until_time(&mut talk);
    let answer = said(table.attest(&stranger(), "web-1", &key, None));
    let replaced = "Attest by the key that web-1 had before this one";
    let rows = [(replaced, answer, "PermissionDenied", "host_refused key_not_current")];
    ok(botmesh().args(["host", "evict", "web-1", "--server", &server]));
    let sync = |wire: &Wire| said(table.thief.sync(wire, Message::Hello(hello(""))));
    let evicted = "host_refused evicted";
    let rows = rows.into_iter().chain([
        (
            "Its stream, when web-1 is evicted",
            table.thief.goodbye(&mut talk),
            "goodbye: evicted",
            "host_evicted",
        ),
        (
            "Issue, when evicted",
            said(table.thief.issue(&held, own.clone())),
            "PermissionDenied",
            evicted,
        ),
        (
            "Issue, when evicted, on a new connection",
            said(table.thief.issue(&connect(), own)),
            "PermissionDenied",
            evicted,
        ),
        ("Sync, when evicted", sync(&connect()), "PermissionDenied", evicted),
        (
            "Attest, when evicted",
            said(table.attest(&stranger(), "web-1", &key, None)),
            "PermissionDenied",
            evicted,
        ),
    ]);
    for (asked, answer, expected, recorded) in rows.collect::<Vec<_>>() {
        table.row(asked, answer, expected, recorded);
    }
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
