//! Bots that open their own mutual TLS: a server that is not ours, with an SVID of its own, behind no proxy.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::away::folder;
use crate::foreign::joined;
use crate::spine::CHECKOUT;
use crate::support::join::{Pem, PlayedHost, write_pem, write_roots};
use crate::support::{
    Answer, Caller, Mesh, PYTHON, Setup, as_user, both, botmesh, eventually, free_port, root_or_skip, run,
};

const LEDGER: &str = "ledger.prod.mesh";

/// The server, with somebody's SVID.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(pem: &Pem, roots: &Path) -> Self {
        let mut command = as_user(PYTHON, 0);
        command.args(["-c", include_str!("support/mtlsd.py")]);
        command.arg(&pem.chain).arg(&pem.key).arg(roots);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("Python");
        let mut line = String::new();
        let out = child.stdout.take().expect("a pipe");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let port = line
            .trim()
            .strip_prefix("ready ")
            .expect("ready")
            .parse()
            .expect("a port");
        Self { child, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// One host of ours, and one that the test plays, whose bots are no business of a proxy.
struct Scene {
    mesh: Mesh,
    bank: PlayedHost,
    roots: PathBuf,
    _names: TempDir,
}

impl Scene {
    fn start() -> Self {
        let dir = folder();
        let names = dir.path().join("hosts");
        std::fs::write(&names, "127.0.0.1 ledger.corp.example\n").expect("written");
        let mesh = Mesh::start(&Setup {
            hosts: &["web-1"],
            extra: &format!("outside: {{hosts_file: {}}}\n", names.display()),
            ..Setup::default()
        });
        mesh.apply(&mesh_file(&[local(1)], ""));
        let bank = joined(&mesh);
        let roots = write_roots(mesh.dir(), bank.bundle());
        Self {
            mesh,
            bank,
            roots,
            _names: dir,
        }
    }

    /// A server that shows the SVID of a bot.
    fn server(&self, bot: &str) -> Server {
        let (chain, key) = self.bank.issue(bot).expect("edge-1 may claim it");
        let pem = write_pem(self.mesh.dir(), &bot.replace('/', "-"), &chain, &key);
        Server::start(&pem, &self.roots)
    }

    fn at(&self, endpoints: &[String], more: &str) -> Caller {
        self.mesh.apply(&mesh_file(endpoints, more));
        Caller::new(CHECKOUT, &self.mesh.host("web-1").bot_socket())
    }
}

fn mesh_file(endpoints: &[String], more: &str) -> String {
    format!(
        r#"version: 1
trust_domain: acme.internal
bots:
  prod/checkout: {{owner: shop@acme.internal, hosts: [web-1], attest: {{uid: {CHECKOUT}}}}}
  prod/ledger: {{owner: bank@acme.internal, hosts: [edge-1], attest: {{uid: 61077}}, serve: {{http: mtls, endpoints: {endpoints:?}}}}}
  prod/other: {{owner: bank@acme.internal, hosts: [edge-1], attest: {{uid: 61078}}}}
allow:
  - {{id: entries, from: prod/checkout, to: prod/ledger, http: [GET /entries/*, POST /entries]}}
  - {{id: feed, from: prod/checkout, to: prod/ledger, http: [GET /feed], upgrade: [websocket]}}
{more}"#
    )
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn told(answer: &Answer) -> (u64, String) {
    (answer.status, answer.reason())
}

#[test]
fn a_bot_with_its_own_tls_is_called_in_the_callers_name_and_hears_nothing_of_the_mesh() {
    if !root_or_skip("bots with their own TLS") {
        return;
    }
    let scene = Scene::start();
    let server = scene.server("prod/ledger");
    // Nobody answers at the first; the second is a name.
    let endpoints = [local(free_port()), format!("ledger.corp.example:{}", server.port)];
    let mut checkout = scene.at(&endpoints, "");
    let secret = [
        ("x-botmesh-caller", "spiffe://acme.internal/prod/admin"),
        ("authorization", "Bearer own"),
    ];
    let mut connections = 0;
    for (method, path) in [("GET", "/entries/17"), ("POST", "/entries"), ("GET", "/entries/18")] {
        let answer = checkout.call_with(method, LEDGER, path, &secret);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let told = answer.json();
        assert_eq!(
            told["caller"],
            serde_json::json!(["spiffe://acme.internal/prod/checkout"])
        );
        let fields: Vec<(String, String)> = serde_json::from_value(told["fields"].clone()).expect("fields");
        let of = |name: &str| {
            fields
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_str())
        };
        assert_eq!(
            (of(":method"), of(":path"), of(":authority")),
            (Some(method), Some(path), Some(LEDGER))
        );
        assert_eq!(
            of("authorization"),
            Some("Bearer own"),
            "what a bot says to a bot is theirs"
        );
        assert!(fields.iter().all(|(key, _)| !key.contains("botmesh")), "{fields:?}");
        connections = told["connections"].as_u64().expect("a count");
    }
    assert_eq!(connections, 1, "one connection is kept");
    let host = scene.mesh.host("web-1");
    let calls = host.query("verdict=allow");
    let is_whole = |call: &Value| {
        (&call["rule"], &call["hop"], &call["to"]["id"])
            == (
                &"entries".into(),
                &"mtls".into(),
                &"spiffe://acme.internal/prod/ledger".into(),
            )
    };
    assert_eq!(calls.iter().filter(|call| is_whole(call)).count(), 3, "{calls:?}");
    assert_eq!(
        told(&checkout.call("DELETE", LEDGER, "/entries/17")),
        (403, "no_rule".to_owned())
    );
}

#[test]
fn what_such_a_bot_says_is_no_proxys_word() {
    if !root_or_skip("bots with their own TLS") {
        return;
    }
    let scene = Scene::start();
    let server = scene.server("prod/ledger");
    let mut checkout = scene.at(&[local(server.port)], "");
    let answer = checkout.call("GET", LEDGER, "/entries/denied");
    assert_eq!(
        (answer.status, answer.header("x-botmesh-caller")),
        (403, None),
        "{}",
        answer.body
    );
    assert_eq!(answer.header("botmesh-denied"), None, "{}", answer.body);
    let ends = eventually("the end of the call", || {
        let ends = scene.mesh.host("web-1").query("kind=end");
        (!ends.is_empty()).then_some(ends)
    });
    assert_eq!(
        (&ends[0]["status"], &ends[0]["outcome"]),
        (&403.into(), &"done".into()),
        "{ends:?}"
    );
}

#[test]
fn only_the_bot_itself_is_believed_at_its_endpoints() {
    if !root_or_skip("bots with their own TLS") {
        return;
    }
    let scene = Scene::start();
    let other = scene.server("prod/other");
    let mut checkout = scene.at(&[local(other.port)], "");
    assert_eq!(
        told(&checkout.call("GET", LEDGER, "/entries/17")),
        (502, "peer_mismatch".to_owned())
    );
    let mut checkout = scene.at(&[local(free_port())], "");
    assert_eq!(
        told(&checkout.call("GET", LEDGER, "/entries/17")),
        (502, "peer_unreachable".to_owned())
    );
    let mut checkout = scene.at(&["nobody.corp.example:8443".to_owned()], "");
    let nobody = checkout.call("GET", LEDGER, "/entries/17");
    assert_eq!(told(&nobody), (502, "peer_unreachable".to_owned()));
    assert!(
        nobody.body.contains("none of its endpoints has an address"),
        "{}",
        nobody.body
    );
    let server = scene.server("prod/ledger");
    let mut checkout = scene.at(&[local(server.port)], "");
    let websocket = [("connection", "upgrade"), ("upgrade", "websocket")];
    let upgrade = checkout.call_with("GET", LEDGER, "/feed", &websocket);
    assert_eq!(told(&upgrade), (502, "peer_unreachable".to_owned()));
    assert!(upgrade.body.contains("no upgrade"), "{}", upgrade.body);
}

#[test]
fn limits_and_quarantines_hold_though_no_proxy_stands_before_the_bot() {
    if !root_or_skip("bots with their own TLS") {
        return;
    }
    let scene = Scene::start();
    let server = scene.server("prod/ledger");
    let limit = "limits:\n  - {id: budget, from: prod/checkout, to: prod/ledger, rate: 1/h, burst: 2}\n";
    let mut checkout = scene.at(&[local(server.port)], limit);
    let statuses: Vec<u64> = (0..3)
        .map(|_| checkout.call("GET", LEDGER, "/entries/17").status)
        .collect();
    assert_eq!(statuses, [200, 200, 429]);
    let mut checkout = scene.at(&[local(server.port)], "");
    assert_eq!(checkout.call("GET", LEDGER, "/entries/17").status, 200);
    let server = scene.mesh.server();
    let said = run(botmesh().args(["quarantine", "prod/ledger", "--reason", "stolen", "--server", &server]));
    assert!(
        both(&said).contains("enforced on 1 of 2 hosts"),
        "the played host enforces nothing: {}",
        both(&said)
    );
    eventually("the quarantine", || {
        let answer = checkout.call("GET", LEDGER, "/entries/17");
        (told(&answer) == (403, "quarantined".to_owned())).then_some(())
    });
}
