//! Floods of frames against the mesh side, by a peer with an SVID: its own connection ends or stands still, and the calls of
//! others go on. The bot side's are in `h2c.rs`.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::foreign::{sni, with_played_host};
use crate::spine::{CHECKOUT, NOBODY, two_hosts};
use crate::support::join::{Pem, write_pem};
use crate::support::{Caller, Mesh, PYTHON, Process, as_user, eventually, free_port, root_or_skip};

/// By how many MiB the callee's proxy may grow.
const GROWTH_MAX: u64 = 96;

/// A process that floods with frames of one kind.
pub(crate) struct Flood(Child, BufReader<ChildStdout>);

impl Flood {
    /// Floods until all is sent or nothing more is taken, and stays.
    pub(crate) fn stand(uid: u32, at: &str, kind: &str) -> Self {
        let mut flood = as_user(PYTHON, uid);
        flood.args(["-c", include_str!("../support/h2flood.py"), at, kind, "stay"]);
        let mut child = flood
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut from = BufReader::new(child.stdout.take().expect("stdout"));
        let mut line = String::new();
        from.read_line(&mut line).expect("a line");
        assert_eq!(line, "sent\n", "{kind}");
        Self(child, from)
    }

    /// Ends it, and gives what it was told.
    pub(crate) fn end(mut self) -> Value {
        drop(self.0.stdin.take());
        let told = serde_json::from_reader(&mut self.1).expect("JSON");
        self.0.wait().expect("it ends");
        told
    }
}

/// Opens TLS with an SVID for whoever connects.
pub(super) fn relay(mesh: &Mesh, here: &str, there: &str, name: &str, pem: &Pem) -> Process {
    let mut relay = Command::new(PYTHON);
    relay.args(["-c", include_str!("../support/relay.py"), here, there, name]);
    relay.arg(&pem.chain).arg(&pem.key);
    let relay = Process::spawn(relay, mesh.dir().join("relay.log"));
    eventually("the relay to listen", || relay.log().contains("ready").then_some(()));
    relay
}

/// What HTTP/2 says to a peer that goes too far (RFC 9113 §7, ENHANCE_YOUR_CALM).
const CALM: u64 = 11;

#[test]
fn a_peer_that_floods_with_frames_ends_its_own_connection_and_nobody_elses() {
    if !root_or_skip("floods of a peer") {
        return;
    }
    let mesh = two_hosts("");
    let edge = with_played_host(&mesh);
    let (chain, key) = edge.issue("prod/checkout").expect("edge-1 may claim prod/checkout");
    let pem = write_pem(mesh.dir(), "edge", &chain, &key);
    let (there, here) = (
        format!("127.0.0.1:{}", mesh.host("web-2").ports.mesh),
        format!("127.0.0.1:{}", free_port()),
    );
    let _relay = relay(&mesh, &here, &there, &sni("prod/orders"), &pem);
    let resident = || mesh.host("web-2").memory_mib("VmRSS");
    let mut other = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    assert_eq!(other.call("GET", "orders.prod.mesh", "/orders/1").status, 200);
    let before = resident();
    for (kind, ends) in [
        ("resets", true),
        ("provoked", true),
        ("continuation", true),
        ("bomb", true),
        ("empty", true),
        ("list", false),
        ("settings", false),
        ("pings", false),
        ("acks", false),
        ("windows", false),
    ] {
        let flood = Flood::stand(NOBODY, &here, kind);
        // While the flood stands, a call over the hop to the same callee.
        assert_eq!(other.call("GET", "orders.prod.mesh", "/orders/2").status, 200, "{kind}");
        let told = flood.end();
        println!("{kind}: {told} resident {} MiB", resident());
        if ends {
            assert_eq!(told["closed"], true, "{kind}: {told}");
            assert!(told["goaway"].is_null() || told["goaway"] == CALM, "{kind}: {told}");
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "the proxy grew by {grown} MiB");
    // What a peer may repeat as often as it likes is not logged each time.
    let log = mesh.host("web-2").log_bytes();
    assert!(log < 64 << 10, "a peer filled the log with {log} bytes");
}

#[test]
fn no_session_is_kept_that_early_data_could_be_sent_in() {
    if !root_or_skip("early data") {
        return;
    }
    let mesh = two_hosts("");
    let edge = with_played_host(&mesh);
    let (chain, key) = edge.issue("prod/checkout").expect("edge-1 may claim prod/checkout");
    let pem = write_pem(mesh.dir(), "edge", &chain, &key);
    // A whole exchange, after which a ticket would have come (RFC 8446 §4.6.1); without one there is no early data (§4.2.10).
    let script = "
import socket, ssl, sys
c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
c.load_cert_chain(sys.argv[3], sys.argv[4])
c.set_alpn_protocols(['http/1.1'])
s = c.wrap_socket(socket.create_connection(('127.0.0.1', int(sys.argv[1]))), server_hostname=sys.argv[2])
s.sendall(b'GET /orders/17 HTTP/1.1\\r\\nHost: orders.prod.mesh\\r\\n\\r\\n')
print(s.recv(65536)[:12].decode(), s.version(), s.session.has_ticket, s.session.ticket_lifetime_hint)
";
    let mut command = as_user(PYTHON, 0);
    command.args([
        "-c",
        script,
        &mesh.host("web-2").ports.mesh.to_string(),
        &sni("prod/orders"),
    ]);
    let out = crate::support::ok(command.arg(&pem.chain).arg(&pem.key));
    assert_eq!(out.trim(), "HTTP/1.1 200 TLSv1.3 False 0");
}
