//! Rules that let a bot switch to another protocol, and the tunnels after it.

use std::process::Command;

use serde_json::Value;

use crate::foreign::{sni, with_played_host};
use crate::kill::now_ms;
use crate::reproof::{Long, with_long_calls};
use crate::spine::{CHECKOUT, two_hosts};
use crate::support::join::write_pem;
use crate::support::{Answer, Caller, Mesh, botmesh, eventually, ok, root_or_skip, run};

const ASK: [(&str, &str); 2] = [("Connection", "Upgrade"), ("Upgrade", "websocket")];

fn mesh_with_rule() -> Mesh {
    let mesh = two_hosts("");
    let text = std::fs::read_to_string(mesh.mesh_file()).unwrap();
    mesh.apply(&with_long_calls(&text));
    mesh
}

fn ask(caller: &mut Caller, path: &str, headers: &[(&str, &str)]) -> Answer {
    caller.call_with("GET", "orders.prod.mesh", path, headers)
}

/// The ends of a host's calls that switched.
fn switched(mesh: &Mesh, host: &str) -> Vec<Value> {
    let mut ends = mesh.host(host).query("kind=end");
    ends.retain(|end| end["status"] == 101);
    ends
}

#[test]
fn a_tunnel_needs_a_rule_that_names_its_protocol() {
    if !root_or_skip("upgrade without a rule") {
        return;
    }
    let mesh = two_hosts("");
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    let answer = ask(&mut checkout, "/orders/ws", &ASK);
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (403, "no_rule"),
        "{}",
        answer.body
    );
    let problem = answer.json();
    let differs = &problem["nearest"]["differs"];
    assert_eq!(differs[0]["attribute"], "upgrade", "{differs}");
    assert_eq!(
        (&differs[0]["rule_has"], &differs[0]["call_has"]),
        (&"none".into(), &"websocket".into())
    );
    assert!(
        problem["allow_with"].as_str().unwrap().contains("upgrade: [websocket]"),
        "{problem}"
    );
    let text = std::fs::read_to_string(mesh.mesh_file()).unwrap();
    mesh.apply(&with_long_calls(&text).replace("upgrade: [websocket]", "upgrade: [x-other]"));
    let answer = ask(&mut checkout, "/orders/ws", &ASK);
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (403, "no_rule"),
        "{}",
        answer.body
    );
    mesh.apply(&with_long_calls(&text));
    Long::open(CHECKOUT, &mesh.host("web-1").bot_socket(), "upgrade").lives();
    // Two protocols, or one that no `Connection` speaks of, could be read in two ways.
    for wrong in [
        [("Connection", "Upgrade"), ("Upgrade", "websocket, x-1")],
        [("Connection", "x"), ("Upgrade", "websocket")],
    ] {
        let answer = ask(
            &mut Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket()),
            "/orders/ws",
            &wrong,
        );
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (400, "bad_request"),
            "{}",
            answer.body
        );
    }
}

#[test]
fn a_tunnel_carries_both_directions_to_their_own_ends_and_counts_them() {
    if !root_or_skip("a tunnel across two hosts") {
        return;
    }
    let mut mesh = mesh_with_rule();
    let mut tunnel = Long::open(CHECKOUT, &mesh.host("web-1").bot_socket(), "upgrade");
    tunnel.lives();
    tunnel.lives();
    // The callee says goodbye only after it has read the end of the caller's half.
    assert!(tunnel.end().ends_with("bye"));
    for host in ["web-1", "web-2"] {
        let ends = eventually("the end of the call", || {
            Some(switched(&mesh, host)).filter(|ends| !ends.is_empty())
        });
        let [end] = ends.as_slice() else { panic!("{ends:?}") };
        assert_eq!(
            (&end["request_bytes"], &end["response_bytes"]),
            (&8.into(), &11.into()),
            "{host}: {end}"
        );
        assert_eq!(end["outcome"], "done", "{host}: {end}");
    }
    for host in ["web-1", "web-2"] {
        mesh.host_mut(host).process.terminate();
        assert!(mesh.host(host).verify().status.success());
    }
}

#[test]
fn a_callee_that_does_not_switch_is_told_nothing_more_and_answers_as_ever() {
    if !root_or_skip("an upgrade that is not granted") {
        return;
    }
    let mesh = mesh_with_rule();
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    // `/orders/17` answers a request and switches to nothing.
    let answer = ask(&mut checkout, "/orders/17", &ASK);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.callee_saw("upgrade"), ["websocket"]);
    // What was said too early is the next request, and is decided as one.
    let raw = "GET /orders/17 HTTP/1.1\r\nHost: orders.prod.mesh\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\
               DELETE /orders/17 HTTP/1.1\r\nHost: orders.prod.mesh\r\n\r\n";
    let early = checkout.order(&serde_json::json!({"raw": raw})).unwrap();
    assert_eq!(early.status, 200, "{}", early.body);
    eventually("the early request to be refused", || {
        let denied = mesh.host("web-1").query("verdict=deny direction=out");
        denied
            .iter()
            .any(|call| call["method"] == "DELETE" && call["reason"] == "no_rule")
            .then_some(())
    });
    let answer = checkout.call("GET", "orders.prod.mesh", "/orders/17");
    assert_eq!(answer.status, 200, "the connection goes on: {}", answer.body);
}

#[test]
fn a_tunnel_ends_with_its_right() {
    if !root_or_skip("cutting tunnels") {
        return;
    }
    let mesh = mesh_with_rule();
    let socket = mesh.host("web-1").bot_socket();
    let mut tunnel = Long::open(CHECKOUT, &socket, "upgrade");
    tunnel.lives();
    // The rule goes on without the protocol.
    let text = std::fs::read_to_string(mesh.mesh_file()).unwrap();
    let since = now_ms();
    mesh.apply(&text.replace(", upgrade: [websocket]", ""));
    println!("rule: cut {} ms after apply began", tunnel.cut_since(since));
    mesh.apply(&text);
    let mut tunnel = Long::open(CHECKOUT, &socket, "upgrade");
    tunnel.lives();
    let since = now_ms();
    ok(botmesh().args([
        "quarantine",
        "prod/checkout",
        "--reason",
        "test",
        "--server",
        &mesh.server(),
    ]));
    println!("quarantine: cut {} ms after the command began", tunnel.cut_since(since));
    let ends = eventually("both ends", || {
        Some(switched(&mesh, "web-1")).filter(|ends| ends.len() == 2)
    });
    // Which end was first to hear of it, and so which word stands where, is not told beforehand.
    assert!(ends.iter().all(|end| end["outcome"] != "done"), "{ends:?}");
}

#[test]
fn a_foreign_peer_switches_by_http_1_and_cannot_by_a_field_of_ours() {
    if !root_or_skip("a foreign peer that switches") {
        return;
    }
    let mesh = mesh_with_rule();
    let edge = with_played_host(&mesh);
    let (chain, key) = edge.issue("prod/checkout").unwrap();
    let pem = write_pem(mesh.dir(), "edge", &chain, &key);
    let (port, name) = (mesh.host("web-2").ports.mesh, sni("prod/orders"));
    let curl = |args: &[&str]| {
        let mut command = Command::new("curl");
        command.args([
            "-sS",
            "-k",
            "-i",
            "--max-time",
            "3",
            "--resolve",
            &format!("{name}:{port}:127.0.0.1"),
        ]);
        command.args(["-H", "Host: orders.prod.mesh"]).args(args);
        command.arg("--cert").arg(&pem.chain).arg("--key").arg(&pem.key);
        let out = run(command.arg(format!("https://{name}:{port}/orders/ws")));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let http1 = curl(&["--http1.1", "-H", "Connection: Upgrade", "-H", "Upgrade: websocket"]);
    assert!(http1.starts_with("HTTP/1.1 101 "), "{http1}");
    let http2 = curl(&["--http2", "-H", "botmesh-upgrade: websocket"]);
    assert!(
        http2.starts_with("HTTP/2 200") && !http2.contains("botmesh-upgrade"),
        "{http2}"
    );
}

#[test]
fn on_one_host_a_tunnel_is_decided_and_recorded_at_both_ends_too() {
    if !root_or_skip("a tunnel on one host") {
        return;
    }
    let mesh = mesh_with_rule();
    let text = std::fs::read_to_string(mesh.mesh_file()).unwrap();
    let at_home = "prod/checkout: {owner: shop@acme.internal, hosts: [web-1";
    assert!(text.contains(at_home), "{text}");
    mesh.apply(&text.replace(at_home, &format!("{at_home}, web-2")));
    let mut tunnel = Long::open(CHECKOUT, &mesh.host("web-2").bot_socket(), "upgrade");
    tunnel.lives();
    assert!(tunnel.end().ends_with("bye"));
    let ends = eventually("two ends", || {
        Some(switched(&mesh, "web-2")).filter(|ends| ends.len() == 2)
    });
    assert!(
        ends.iter()
            .all(|end| end["request_bytes"] == 4 && end["outcome"] == "done"),
        "{ends:?}"
    );
}
