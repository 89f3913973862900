//! The ways in, byte by byte: what a connection to the bot side carries, in which order, and how it ends.

use std::process::Stdio;

use crate::spine::{CHECKOUT, NOBODY, two_hosts};
use crate::support::{Mesh, PYTHON, as_user, both, root_or_skip, run};

/// Sends the pieces one after the other, each once something was received for the one before, and then reads to the end of
/// the connection. Arguments: where, then the pieces in hexadecimal.
const TALK: &str = "
import socket, sys
where, pieces = sys.argv[1], [bytes.fromhex(p) for p in sys.argv[2:]]
if where.startswith('unix:'):
    s = socket.socket(socket.AF_UNIX); s.connect(where[5:])
else:
    host, port = where.rsplit(':', 1); s = socket.create_connection((host, int(port)))
s.settimeout(20)
got = b''
for n, piece in enumerate(pieces):
    s.sendall(piece)
    if n + 1 < len(pieces):
        got += s.recv(65536)
while True:
    more = s.recv(65536)
    if not more: break
    got += more
sys.stdout.write(got.decode('latin-1'))
";

fn talk(uid: u32, at: &str, pieces: &[&str]) -> String {
    let hex = pieces
        .iter()
        .map(|piece| piece.bytes().map(|byte| format!("{byte:02x}")).collect::<String>());
    let mut command = as_user(PYTHON, uid);
    let out = run(command.args(["-c", TALK, at]).args(hex).stdin(Stdio::null()));
    assert!(out.status.success(), "{pieces:?}: {}", both(&out));
    String::from_utf8(out.stdout).expect("text")
}

/// The status of each answer in `text`, in order.
fn statuses(text: &str) -> Vec<&str> {
    text.match_indices("HTTP/1.1 ")
        .map(|(at, start)| &text[at + start.len()..at + start.len() + 3])
        .collect()
}

fn ways(mesh: &Mesh) -> [String; 2] {
    [mesh.host("web-1").bot_socket(), mesh.host("web-1").bot_tcp()]
}

#[test]
fn pipelined_requests_are_answered_in_their_order_each_by_its_own_decision() {
    if !root_or_skip("pipelining") {
        return;
    }
    let mesh = two_hosts("");
    let host = "Host: orders.prod.mesh\r\n";
    let pipeline = format!(
        "GET /orders/1 HTTP/1.1\r\n{host}\r\nDELETE /orders/2 HTTP/1.1\r\n{host}\r\n\
         POST /refunds HTTP/1.1\r\n{host}Content-Length: 5\r\n\r\nhelloGET /orders/3 HTTP/1.1\r\n{host}Connection: close\r\n\r\n\
         GET /orders/never HTTP/1.1\r\n{host}\r\n"
    );
    for at in ways(&mesh) {
        let text = talk(CHECKOUT, &at, &[&pipeline]);
        assert_eq!(statuses(&text), ["200", "403", "200", "200"], "{at}: {text}");
        let places = ["/orders/1", "no_rule", "\"hello\"", "/orders/3"].map(|mark| text.find(mark).expect("answered"));
        assert!(places.is_sorted(), "{at}: {text}");
        assert!(
            !text.contains("/orders/never"),
            "{at}: nothing is answered after `close`: {text}"
        );
    }
}

#[test]
fn a_body_is_asked_for_only_where_the_call_is_allowed() {
    if !root_or_skip("100-continue") {
        return;
    }
    let mesh = two_hosts("");
    let head = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: orders.prod.mesh\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        )
    };
    for at in ways(&mesh) {
        let text = talk(CHECKOUT, &at, &[&head("/refunds"), "hello"]);
        assert!(
            text.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"),
            "{at}: {text}"
        );
        assert!(text.contains("\"body\": \"hello\""), "{at}: {text}");
        let text = talk(CHECKOUT, &at, &[&head("/secrets")]);
        assert_eq!(statuses(&text), ["403"], "{at}: {text}");
    }
}

#[test]
fn a_connection_goes_on_after_a_refused_small_body_and_ends_after_a_large_one() {
    if !root_or_skip("refused bodies") {
        return;
    }
    let mesh = two_hosts("");
    let post =
        |length: usize| format!("POST /secrets HTTP/1.1\r\nHost: orders.prod.mesh\r\nContent-Length: {length}\r\n\r\n");
    let get = "GET /orders/1 HTTP/1.1\r\nHost: orders.prod.mesh\r\nConnection: close\r\n\r\n";
    for at in ways(&mesh) {
        let text = talk(CHECKOUT, &at, &[&post(1000), &("x".repeat(1000) + get)]);
        assert_eq!(statuses(&text), ["403", "200"], "{at}: {text}");
        let text = talk(CHECKOUT, &at, &[&post(10_000_000)]);
        assert_eq!(statuses(&text), ["403"], "{at}: {text}");
        assert!(text.contains("connection: close\r\n"), "{at}: {text}");
    }
}

#[test]
fn a_tunnel_to_a_bot_is_read_by_the_same_reader_and_decided_call_by_call() {
    if !root_or_skip("CONNECT") {
        return;
    }
    let mesh = two_hosts("");
    let connect = "CONNECT orders.prod.mesh:80 HTTP/1.1\r\nHost: orders.prod.mesh:80\r\n\r\n";
    let inside = "GET /orders/1 HTTP/1.1\r\nHost: orders.prod.mesh\r\n\r\nGET /secrets HTTP/1.1\r\nHost: orders.prod.mesh\r\nConnection: close\r\n\r\n";
    for at in ways(&mesh) {
        let text = talk(CHECKOUT, &at, &[connect, inside]);
        assert!(
            text.starts_with("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n"),
            "{at}: {text}"
        );
        assert_eq!(statuses(&text), ["200", "200", "403"], "{at}: {text}");

        let text = talk(
            CHECKOUT,
            &at,
            &[
                connect,
                "GET /stock/1 HTTP/1.1\r\nHost: stock.prod.mesh\r\nConnection: close\r\n\r\n",
            ],
        );
        assert_eq!(
            statuses(&text),
            ["200", "400"],
            "{at}: another bot inside the tunnel: {text}"
        );
        let text = talk(CHECKOUT, &at, &[connect, "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}"]);
        assert_eq!(statuses(&text), ["200", "400"], "{at}: TLS inside the tunnel: {text}");
        assert!(text.contains("call http://"), "{at}: with a hint: {text}");
        for (target, status, reason) in [
            ("report.prod.mesh:80", "403", "no_rule"),
            ("orders.prod.mesh:443", "400", "bad_request"),
            ("evil.example:443", "403", "outside_forbidden"),
            ("127.0.0.1:22", "403", "outside_forbidden"),
        ] {
            let text = talk(
                CHECKOUT,
                &at,
                &[&format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")],
            );
            assert_eq!(statuses(&text), [status], "{at}: {target}: {text}");
            assert!(text.contains(reason), "{at}: {target}: {text}");
        }
        let text = talk(NOBODY, &at, &[connect]);
        assert!(text.contains("unknown_caller"), "{at}: {text}");
    }
}

#[test]
fn hosts_that_are_no_bots_are_refused_whatever_the_form() {
    if !root_or_skip("hosts") {
        return;
    }
    let mesh = two_hosts("");
    for at in ways(&mesh) {
        for (line, host, reason) in [
            ("GET http://evil.example/", "evil.example", "outside_forbidden"),
            ("GET /", "evil.example", "outside_forbidden"),
            (
                "GET https://orders.prod.mesh/orders/1",
                "orders.prod.mesh",
                "outside_forbidden",
            ),
            ("GET /orders/1", "orders.prod.mesh:8080", "bad_request"),
            ("GET /orders/1", "169.254.169.254", "outside_forbidden"),
            ("OPTIONS *", "orders.prod.mesh", "bad_path"),
        ] {
            let request = format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let text = talk(CHECKOUT, &at, &[&request]);
            assert!(
                text.contains(&format!("\"reason\":\"{reason}\"")),
                "{at}: {request:?}: {text}"
            );
        }
    }
    assert!(
        mesh.host("web-2").query("kind=call").is_empty(),
        "nothing left the host"
    );
}

#[test]
fn what_the_proxy_says_of_itself_a_callee_cannot_say() {
    if !root_or_skip("answers") {
        return;
    }
    let mesh = two_hosts("");
    let port = crate::support::free_port();
    let liar = "
import socket, sys
s = socket.create_server(('127.0.0.1', int(sys.argv[1])))
print('ready', flush=True)
while True:
    c, _ = s.accept()
    c.recv(65536)
    c.sendall(b'HTTP/1.1 200 OK\\r\\nbotmesh-denied: x\\r\\nbotmesh-call: forged\\r\\nX_Botmesh_Caller: forged\\r\\nConnection: x-hop\\r\\nx-hop: 1\\r\\nkept: 1\\r\\nContent-Length: 2\\r\\n\\r\\nok')
    c.close()
";
    let mut command = as_user(PYTHON, crate::spine::LOCAL);
    command.args(["-c", liar, &port.to_string()]);
    let callee = crate::support::Process::spawn(command, mesh.dir().join("liar.log"));
    crate::support::eventually("the callee to listen", || callee.log().contains("ready").then_some(()));
    let text = std::fs::read_to_string(mesh.mesh_file()).expect("the mesh file");
    let at = text.find("serve: {http: \"unix:").expect("the socket of prod/stock");
    let end = at + text[at..].find('}').expect("its end");
    mesh.apply(&format!("{}serve: {{http: {port}}}{}", &text[..at], &text[end + 1..]));
    let request = "GET /stock/4 HTTP/1.1\r\nHost: stock.prod.mesh\r\nConnection: close\r\n\r\n";
    for at in ways(&mesh) {
        let text = talk(CHECKOUT, &at, &[request]);
        assert_eq!(statuses(&text), ["200"], "{at}: {text}");
        assert!(text.contains("kept: 1") && text.ends_with("ok"), "{at}: {text}");
        assert!(
            !text.contains("forged") && !text.contains("botmesh-denied") && !text.contains("x-hop"),
            "{at}: {text}"
        );
        assert_eq!(text.matches("botmesh-call: ").count(), 1, "{at}: {text}");
    }
}
