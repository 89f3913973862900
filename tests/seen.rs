//! What an operator sees of a mesh without looking into a host: who called whom, what was refused, who is cut off.

use std::process::Command;

use serde_json::Value;

use crate::spine::{CHECKOUT, two_hosts};
use crate::support::{Caller, Mesh, PYTHON, as_user, both, botmesh, eventually, http_get, ok, root_or_skip, run};

fn asked(mesh: &Mesh, args: &[&str]) -> String {
    ok(botmesh().args(args).args(["--server", &mesh.server()]))
}

fn json(mesh: &Mesh, args: &[&str]) -> Value {
    let text = ok(botmesh().args(args).args(["-o", "json", "--server", &mesh.server()]));
    let value: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value["schema"], "botmesh/v1");
    value
}

#[test]
fn calls_and_refusals_of_every_host_are_seen_at_the_ca_with_what_would_allow_them() {
    if !root_or_skip("what is seen at the CA") {
        return;
    }
    let mesh = two_hosts("");
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    for _ in 0..3 {
        assert_eq!(checkout.call("GET", "orders.prod.mesh", "/orders/17").status, 200);
    }
    assert_eq!(checkout.call("DELETE", "orders.prod.mesh", "/orders/17").status, 403);
    let shown = eventually("the calls at the CA", || {
        let shown = json(&mesh, &["bot", "show", "prod/orders"]);
        let edges = shown["seen"]["edges"]["edges"].as_array()?.clone();
        let count = |verdict: &str| -> u64 {
            let of = edges.iter().filter(|edge| edge["verdict"] == verdict);
            of.filter_map(|edge| edge["count"].as_u64()).sum()
        };
        (count("allow") == 3 && count("deny") == 1).then_some(shown)
    });
    let denied = &shown["seen"]["events"]["denied"][0];
    assert_eq!(denied["host"], "web-1", "{denied}");
    assert_eq!(denied["call"]["from"], "prod/checkout");
    assert_eq!(denied["call"]["path"], "/orders/17");
    assert_eq!(denied["call"]["reason"], "no_rule");
    let status = asked(&mesh, &["status"]);
    println!("{status}");
    for line in [
        "prod/checkout → prod/orders  1×  no_rule",
        "prod/checkout → prod/orders  DELETE /orders/17  no_rule  nearest checkout-reads-orders",
        "would be allowed by: - {id: NEW-ID, from: prod/checkout, to: prod/orders, http: [DELETE /orders/17]}",
    ] {
        assert!(status.contains(line), "{line}");
    }
    let shown = asked(&mesh, &["bot", "show", "prod/orders"]);
    println!("{shown}");
    assert!(
        shown.contains("  allow  prod/checkout  3×  checkout-reads-orders"),
        "{shown}"
    );
    assert!(shown.contains("  deny   prod/checkout  1×  no_rule"), "{shown}");
    let list = asked(&mesh, &["bot", "list"]);
    println!("{list}\n{}", asked(&mesh, &["host", "list"]));
    let orders = list
        .lines()
        .find(|line| line.starts_with("prod/orders"))
        .expect("its line");
    assert!(orders.contains("  ok  ") && orders.contains("web-2 (1 up)"), "{orders}");
}

#[test]
fn a_quarantine_is_told_in_every_list_and_to_the_bot_itself() {
    if !root_or_skip("a quarantine in lists") {
        return;
    }
    let mesh = two_hosts("");
    let whoami = || whoami(&mesh);
    assert_eq!(whoami()["message"], "");
    asked(
        &mesh,
        &["quarantine", "prod/checkout", "--reason", "it calls what it should not"],
    );
    let told = whoami();
    assert_eq!(told["bot"], "prod/checkout");
    let message = told["message"].as_str().expect("a message");
    assert!(
        message.starts_with("quarantined: ") && message.contains("botmesh release prod/checkout"),
        "{message}"
    );
    let list = asked(&mesh, &["bot", "list"]);
    let line = list
        .lines()
        .find(|line| line.starts_with("prod/checkout"))
        .expect("its line");
    assert!(line.contains("  quarantined  "), "{line}");
    assert!(asked(&mesh, &["bot", "show", "prod/checkout"]).contains("state      quarantined"));
    asked(&mesh, &["quarantine", "--host", "web-2", "--reason", "taken over"]);
    let hosts = asked(&mesh, &["host", "list"]);
    let line = hosts.lines().find(|line| line.starts_with("web-2")).expect("its line");
    assert!(line.contains("  quarantined  up "), "{line}");
    assert!(asked(&mesh, &["ca", "status"]).contains("2 quarantined"));
    counted(&mesh);
    // An apply does not wait for a host that is told nothing.
    mesh.try_apply(
        &std::fs::read_to_string(mesh.mesh_file())
            .expect("the file")
            .replace("one order", "an order"),
    );
    let status = json(&mesh, &["host", "list"]);
    assert_eq!(status["items"][1]["quarantined"], true);
}

/// What the CA's metrics say of it.
fn counted(mesh: &Mesh) {
    let dashboard = json(mesh, &["ca", "status"])["dashboard"]
        .as_str()
        .expect("an address")
        .to_owned();
    let port = dashboard
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok())
        .expect("a port");
    let (_, metrics) = http_get(port, "/metrics").expect("metrics");
    for line in [
        "botmesh_ca_quarantines 2",
        "botmesh_ca_hosts_connected 2",
        "botmesh_ca_alerts_total{kind=\"svid_from_two_addresses\"} 0",
        "botmesh_ca_svids_total{kind=\"host\",result=\"issued\"} 2",
        "botmesh_ca_attestations_total{result=\"joined\"} 2",
        "botmesh_ca_revision 1",
        "botmesh_ca_root_not_after_seconds ",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

/// What the proxy of web-1 tells the bot of itself.
fn whoami(mesh: &Mesh) -> Value {
    let socket = mesh.host("web-1").bot_socket().replacen("unix:", "", 1);
    let script = "import http.client,socket,sys\nc=http.client.HTTPConnection('botmesh.mesh')\n\
                  c.sock=socket.socket(socket.AF_UNIX);c.sock.connect(sys.argv[1])\n\
                  c.request('GET','/v1/whoami');print(c.getresponse().read().decode())";
    let mut command: Command = as_user(PYTHON, CHECKOUT);
    let out = run(command.args(["-c", script, &socket]));
    serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{}", both(&out)))
}
