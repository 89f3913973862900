//! Connections between hosts that live longer than the SVIDs they began by: both ends prove the next ones in band, and
//! where one does not, what runs on the connection ends with the last proof.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioIo;
use spiffe::id::{BotName, SpiffeId};
use spiffe::time::{Clock, Timestamp};
use spiffe_tls::{Expect, Exporter, PrivateKey, Reproof, Role, Svid, client_config, sni_for};
use tokio_stream::wrappers::ReceiverStream;

use crate::away::with_two_clocks;
use crate::foreign::with_played_host;
use crate::kill::now_ms;
use crate::lifetimes::{renewed, serial};
use crate::spine::CHECKOUT;
use crate::support::hand::Hand;
use crate::support::join::PlayedHost;
use crate::support::{Mesh, PYTHON, as_user, botmesh, eventually, http_get, root_or_skip, run};

const MINUTE: Duration = Duration::from_secs(60);

/// What "within a second" means, in milliseconds.
const CUT_WITHIN_MS: u128 = 1000;

/// A call that lives long, of one kind.
pub(crate) struct Long {
    kind: &'static str,
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Long {
    pub(crate) fn open(uid: u32, proxy: &str, kind: &'static str) -> Self {
        let mut command = as_user(PYTHON, uid);
        command.args(["-c", include_str!("support/long.py"), proxy, "orders.prod.mesh", kind]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let to = child.stdin.take().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        let mut long = Self { kind, child, to, from };
        assert_eq!(long.line(), "open\n", "{kind}");
        long
    }

    /// Ends the caller's half; gives the last bytes that came until the callee had ended the other.
    pub(crate) fn end(&mut self) -> String {
        writeln!(self.to, "end").unwrap();
        let line = self.line();
        let told = line.trim_end().splitn(4, ' ').collect::<Vec<_>>();
        assert_eq!(told.get(2), Some(&"end"), "{}: {line}", self.kind);
        told.get(3).copied().unwrap_or_default().to_owned()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line
    }

    /// Has a byte go the whole way again.
    pub(crate) fn lives(&mut self) {
        writeln!(self.to, "again").unwrap();
        let line = self.line();
        assert!(line.starts_with("pong "), "{}: {line}", self.kind);
    }

    /// Waits for the end, which must come within a second of `since`; says after how many milliseconds it came.
    pub(crate) fn cut_since(&mut self, since: u128) -> u128 {
        let line = self.line();
        let at = line.strip_prefix("closed ").and_then(|rest| rest.split(' ').next());
        let at: u128 = at
            .and_then(|at| at.parse().ok())
            .unwrap_or_else(|| panic!("{}: {line:?}", self.kind));
        let after = at.saturating_sub(since);
        assert!(after <= CUT_WITHIN_MS, "{}: cut after {after} ms: {line}", self.kind);
        after
    }
}

impl Drop for Long {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// How many proofs of peers a proxy has counted with this result.
fn proofs(mesh: &Mesh, host: &str, result: &str) -> u64 {
    let (_, text) = http_get(mesh.host(host).ports.metrics, "/metrics").unwrap();
    let wanted = format!("botmesh_reproofs_total{{result=\"{result}\"}} ");
    let found = text
        .lines()
        .find_map(|line| line.strip_prefix(&wanted)?.trim().parse().ok());
    found.unwrap_or(0)
}

/// The kinds of calls that live long.
const KINDS: [&str; 4] = ["upgrade", "sse", "duplex", "h2"];

fn open_all(mesh: &Mesh) -> Vec<Long> {
    let socket = mesh.host("web-1").bot_socket();
    KINDS
        .into_iter()
        .map(|kind| Long::open(CHECKOUT, &socket, kind))
        .collect()
}

/// The mesh file with what calls of every kind need.
pub(crate) fn with_long_calls(text: &str) -> String {
    let rule = "http: [GET /orders/*, POST /refunds, GET /admin/keys]}";
    assert!(text.contains(rule), "{text}");
    let wider = "http: [GET /orders/*, POST /refunds, GET /admin/keys, POST /orders/echo], upgrade: [websocket]}";
    text.replace(rule, wider)
}

/// A mesh of two hosts whose CA has a clock of its own, so that no host asks for an SVID before the CA knows the time.
struct Clocks {
    hosts: Hand,
    ca: Hand,
    _dir: tempfile::TempDir,
}

impl Clocks {
    fn start() -> (Self, Mesh) {
        let dir = tempfile::Builder::new().prefix("bm").tempdir().unwrap();
        let (hosts, ca) = (Hand::new(dir.path()), Hand::named(dir.path(), "ca-clock.sock"));
        let mesh = with_two_clocks(&hosts, &ca);
        let text = std::fs::read_to_string(mesh.mesh_file()).unwrap();
        mesh.apply(&with_long_calls(&text));
        (Self { hosts, ca, _dir: dir }, mesh)
    }

    fn forward(&self, mesh: &Mesh, by: Duration) {
        self.ca.forward(by);
        let shown = Timestamp::from_unix_millis(self.ca.shows());
        eventually("the CA's clock", || {
            let status = run(botmesh().args(["ca", "status", "-o", "json", "--server", &mesh.server()]));
            let status: serde_json::Value = serde_json::from_slice(&status.stdout).ok()?;
            let now: Timestamp = status["now"].as_str()?.parse().ok()?;
            (now >= shown).then_some(())
        });
        self.hosts.forward(by);
    }
}

#[test]
fn calls_live_on_while_both_ends_prove_on_and_end_with_the_last_proof() {
    if !root_or_skip("proofs in band") {
        return;
    }
    let (clocks, mut mesh) = Clocks::start();
    let mut calls = open_all(&mesh);
    let mut seen = [("web-1", "prod/checkout"), ("web-2", "prod/orders")]
        .map(|(host, bot)| (host, bot, vec![serial(&mesh, host, bot).unwrap()]));
    // Eight steps of 28 minutes: more than three times the hour that an SVID lives.
    for step in 1..=8 {
        clocks.forward(&mesh, 28 * MINUTE);
        for (host, bot, seen) in &mut seen {
            renewed(&mesh, host, bot, seen);
        }
        for host in ["web-1", "web-2"] {
            eventually("the peer's proof", || {
                (proofs(&mesh, host, "accepted") >= step).then_some(())
            });
        }
        calls.iter_mut().for_each(Long::lives);
    }
    println!("{} calls lived through 224 minutes of SVIDs of 60", calls.len());
    // Without the CA nobody gets a next SVID, so nobody can prove on.
    mesh.ca.terminate();
    clocks.hosts.forward(58 * MINUTE);
    calls.iter_mut().for_each(Long::lives);
    let since = now_ms();
    clocks.hosts.forward(3 * MINUTE);
    for call in &mut calls {
        let after = call.cut_since(since);
        println!("{}: cut {after} ms after the last proof had ended", call.kind);
    }
}

/// A peer that the test plays: its own TLS to a host, and what it says there.
struct Peer {
    runtime: tokio::runtime::Runtime,
    send: SendRequest<Said>,
    exporter: Exporter,
}

type Said = BoxBody<Bytes, std::io::Error>;

/// What one request says; dropped, the request's body ends.
type Say = tokio::sync::mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>;

impl Peer {
    /// Connects to `prod/orders` on web-2 by an SVID; `alpn` is all that the peer offers.
    fn connect(mesh: &Mesh, edge: &PlayedHost, svid: &Svid, alpn: &[u8]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let orders = SpiffeId::for_bot(edge.trust_domain(), &BotName::parse("prod/orders").unwrap());
        let expect = Expect::Exact(orders.clone());
        let config = client_config(Some(svid), edge.bundle(), expect, &Clock::system(), &[alpn]).unwrap();
        let port = mesh.host("web-2").ports.mesh;
        let (send, exporter) = runtime.block_on(async {
            let tcp = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let tls = tokio_rustls::TlsConnector::from(config)
                .connect(sni_for(&orders), tcp)
                .await
                .unwrap();
            assert_eq!(tls.get_ref().1.alpn_protocol(), Some(alpn));
            let label = spiffe_tls::reproof_label().as_bytes();
            let value = tls
                .get_ref()
                .1
                .export_keying_material([0; 32], label, Some(&[]))
                .unwrap();
            let executor = hyper_util::rt::TokioExecutor::new();
            let (send, connection) = hyper::client::conn::http2::handshake(executor, TokioIo::new(tls))
                .await
                .unwrap();
            tokio::spawn(connection);
            (send, Exporter::new(value))
        });
        Self {
            runtime,
            send,
            exporter,
        }
    }

    /// Sends a request whose body goes on; gives what says it, and the answer.
    fn ask(&self, method: &str, url: &str) -> (Say, Response<Incoming>) {
        let (say, said) = tokio::sync::mpsc::channel(4);
        let answer = self.send(method, url, StreamBody::new(ReceiverStream::new(said)).boxed());
        (say, answer)
    }

    /// Sends a request without a body.
    fn get(&self, url: &str) -> Response<Incoming> {
        self.send("GET", url, Empty::new().map_err(|never| match never {}).boxed())
    }

    fn send(&self, method: &str, url: &str, body: Said) -> Response<Incoming> {
        let request = Request::builder().method(method).uri(url).body(body).unwrap();
        let mut send = self.send.clone();
        let sending = async move { send.send_request(request).await };
        self.runtime.block_on(sending).unwrap()
    }

    /// Opens the control stream.
    fn control(&self) -> (Say, Response<Incoming>) {
        let (say, answer) = self.ask("POST", CONTROL);
        assert_eq!(answer.status(), 200);
        (say, answer)
    }

    /// Opens an answer without an end, and gives what waits for its end.
    fn stream(&self) -> impl FnOnce() -> u128 {
        let answer = self.get("https://orders.prod.mesh/orders/ticks-fast");
        assert_eq!(answer.status(), 200);
        let mut body = answer.into_body();
        let mut first = || self.runtime.block_on(body.frame()).unwrap().unwrap();
        first();
        let ended = self.runtime.spawn(async move {
            while let Some(Ok(_)) = body.frame().await {}
            now_ms()
        });
        let handle = self.runtime.handle().clone();
        move || handle.block_on(ended).unwrap()
    }
}

/// Where control streams go.
const CONTROL: &str = "https://botmesh.invalid/reproof/1";

const ALPN: &[u8] = b"botmesh-h2";

/// A next SVID of a bot.
fn next(edge: &PlayedHost, bot: &str) -> Svid {
    let (chain, key) = edge.issue(bot).unwrap();
    Svid::new(chain, PrivateKey::from_pkcs8(&key).unwrap()).unwrap()
}

fn say(peer: &Peer, to: &Say, bytes: Vec<u8>) {
    let frame = Ok(Frame::data(Bytes::from(bytes)));
    peer.runtime.block_on(to.send(frame)).unwrap();
}

fn counted(mesh: &Mesh, result: &str, count: u64) {
    eventually(&format!("{count} proofs with {result}"), || {
        (proofs(mesh, "web-2", result) == count).then_some(())
    });
}

fn proof(svid: &Svid, role: Role, exporter: &Exporter) -> Vec<u8> {
    Reproof::make(svid, role, exporter).unwrap().encode()
}

/// Sends every kind of proof that proves nothing. The last one ends the control stream.
fn wrong_proofs_help_nobody(mesh: &Mesh, wrong: &Peer, proving: &Exporter, [first, second, other]: [&Svid; 3]) {
    let (to, _said) = wrong.control();
    for (result, bytes) in [
        ("wrong_id", proof(other, Role::Client, &wrong.exporter)),
        ("other_role", proof(second, Role::Server, &wrong.exporter)),
        ("bad_signature", proof(second, Role::Client, proving)),
        ("not_newer", proof(first, Role::Client, &wrong.exporter)),
    ] {
        say(wrong, &to, bytes);
        counted(mesh, result, 1);
    }
    say(wrong, &to, vec![0xff; 64]);
    counted(mesh, "unreadable", 1);
}

#[test]
fn a_peer_lives_as_long_as_what_it_proved_and_no_wrong_proof_helps() {
    if !root_or_skip("wrong proofs in band") {
        return;
    }
    let (clocks, mut mesh) = Clocks::start();
    let mut edge = with_played_host(&mesh);
    let first = next(&edge, "prod/checkout");
    let (proving, wrong, silent) = (
        Peer::connect(&mesh, &edge, &first, ALPN),
        Peer::connect(&mesh, &edge, &first, ALPN),
        Peer::connect(&mesh, &edge, &first, b"h2"),
    );
    let ends = [wrong.stream(), silent.stream()];
    let lives = proving.stream();
    clocks.forward(&mesh, 40 * MINUTE);
    // The proofs are made 40 minutes later, so that they end later.
    edge.at(Timestamp::from_unix_millis(clocks.hosts.shows()));
    let (second, other) = (next(&edge, "prod/checkout"), next(&edge, "prod/edge"));
    wrong_proofs_help_nobody(&mesh, &wrong, &proving.exporter, [&first, &second, &other]);
    // After that the stream is no more, and a second one is a call like any other, to nobody.
    let (_, answer) = wrong.ask("POST", CONTROL);
    assert_eq!(answer.status(), 421);
    // What the peer offered no word of it cannot have.
    let (_, answer) = silent.ask("POST", CONTROL);
    assert_eq!(answer.status(), 421);
    assert_eq!(proofs(&mesh, "web-2", "accepted"), 0);

    let (to, said) = proving.control();
    say(&proving, &to, proof(&second, Role::Client, &proving.exporter));
    counted(&mesh, "accepted", 1);
    let since = now_ms();
    clocks.forward(&mesh, 22 * MINUTE);
    for end in ends {
        let after = end().saturating_sub(since);
        println!("a peer that did not prove: cut after {after} ms");
        assert!(after <= CUT_WITHIN_MS, "{after} ms");
    }
    the_callee_reads_of(&second, &proving);
    the_host_proves_on_too(&proving, said);
    let since = now_ms();
    clocks.forward(&mesh, 40 * MINUTE);
    assert!(lives().saturating_sub(since) <= CUT_WITHIN_MS);

    mesh.host_mut("web-2").process.terminate();
    recorded_as_what_it_was(&mesh, &second);
}

/// Calls, and looks at the certificate that the callee is told of.
fn the_callee_reads_of(svid: &Svid, peer: &Peer) {
    let answer = peer.get("https://orders.prod.mesh/orders/17");
    assert_eq!(answer.status(), 200, "the second SVID is good for another 38 minutes");
    let told = peer.runtime.block_on(answer.into_body().collect()).unwrap().to_bytes();
    let hash: String = svid.leaf().sha256().iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(
        String::from_utf8_lossy(&told).contains(&hash),
        "of the SVID that was proved last"
    );
}

/// The host's own proofs come on the same stream.
fn the_host_proves_on_too(peer: &Peer, said: Response<Incoming>) {
    let mut said = said.into_body();
    let own = peer.runtime.block_on(said.frame()).unwrap().unwrap();
    let mut reader = spiffe_tls::ReproofReader::default();
    reader.push(&own.into_data().unwrap());
    assert!(matches!(reader.next_proof(), Ok(Some(_))));
}

#[test]
fn a_proof_by_a_cut_off_host_ends_its_connection() {
    if !root_or_skip("a proof by a quarantined host") {
        return;
    }
    let (clocks, mesh) = Clocks::start();
    let mut edge = with_played_host(&mesh);
    let peer = Peer::connect(&mesh, &edge, &next(&edge, "prod/checkout"), ALPN);
    clocks.forward(&mesh, 10 * MINUTE);
    edge.at(Timestamp::from_unix_millis(clocks.hosts.shows()));
    let second = next(&edge, "prod/checkout");
    let (to, said) = peer.control();
    let server = mesh.server();
    // It fails, for edge-1 itself is not connected to hear it.
    run(botmesh().args([
        "quarantine",
        "--host",
        "edge-1",
        "--reason",
        "stolen",
        "--server",
        &server,
    ]));
    say(&peer, &to, proof(&second, Role::Client, &peer.exporter));
    counted(&mesh, "revoked", 1);
    assert_eq!(proofs(&mesh, "web-2", "accepted"), 0);
    let mut said = said.into_body();
    let ended = async { while let Some(Ok(_)) = said.frame().await {} };
    peer.runtime.block_on(ended);
    let again = peer.runtime.block_on(async { peer.send.clone().ready().await });
    assert!(again.is_err(), "the connection is over");
}

/// Control streams are no calls, and what was refused on them is told.
fn recorded_as_what_it_was(mesh: &Mesh, second: &Svid) {
    let calls = mesh.host("web-2").query("direction=in verdict=allow");
    assert_eq!(calls.len(), 4, "control streams are no calls: {calls:?}");
    let last = calls.iter().find(|call| call["path"] == "/orders/17").unwrap();
    assert_eq!(last["from"]["serial"], second.leaf().serial().to_string());
    let strangers = mesh.host("web-2").query("kind=strangers");
    for reason in ["wrong_id", "other_role", "bad_signature", "not_newer", "unreadable"] {
        let word = format!("reproof_{reason}");
        assert!(
            strangers.iter().any(|record| record["reason"] == *word),
            "{word}: {strangers:?}"
        );
    }
}
