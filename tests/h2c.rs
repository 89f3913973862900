//! HTTP/2 from bots by prior knowledge: what it carries, whose it is, and what it refuses.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::clients::{Vm, assert_refused};
use crate::hostile::Flood;
use crate::spine::{CHECKOUT, NOBODY, ORDERS, REPORT, two_hosts};
use crate::support::{Caller, Mesh, PYTHON, Process, as_user, both, eventually, free_port, root_or_skip, run};

/// A bot with one connection that speaks HTTP/2.
struct Client {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Client {
    fn new(uid: u32, at: &str, tunnel: Option<&str>) -> Self {
        let mut command = as_user(PYTHON, uid);
        command.args(["-c", include_str!("support/h2c.py"), at]).args(tunnel);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let to = child.stdin.take().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        Self { child, to, from }
    }

    fn order(&mut self, order: &Value) -> Value {
        writeln!(self.to, "{order}").unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{order}: {e}: {line:?}"))
    }

    /// The answer to one stream with these fields.
    fn call(&mut self, fields: &[(&str, &str)]) -> Value {
        let told = self.order(&json!({"streams": [{"headers": fields}]}));
        told["answers"][0].clone()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn get(path: &str) -> [(&'static str, &str); 4] {
    at("orders.prod.mesh", path)
}

fn at<'a>(authority: &'a str, path: &'a str) -> [(&'static str, &'a str); 4] {
    [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", authority),
        (":path", path),
    ]
}

fn reason(answer: &Value) -> String {
    let body = answer["body"].as_str().unwrap_or_default();
    let problem: Value = serde_json::from_str(body).unwrap_or_default();
    problem["reason"].as_str().unwrap_or_default().to_owned()
}

fn header<'a>(answer: &'a Value, name: &str) -> Option<&'a str> {
    let headers = answer["headers"].as_array()?;
    headers.iter().find(|pair| pair[0] == name)?[1].as_str()
}

fn ways(mesh: &Mesh) -> [String; 2] {
    [mesh.host("web-1").bot_socket(), mesh.host("web-1").bot_tcp()]
}

#[test]
fn curl_and_node_call_by_http2_without_knowing_of_the_mesh() {
    if !root_or_skip("HTTP/2 clients of other users") {
        return;
    }
    let vm = Vm::start();
    let proxy = format!("http://127.0.0.1:{}", vm.tcp);
    let connect_to = format!("::127.0.0.1:{}", vm.tcp);
    let base = format!("http://127.0.0.1:{}", vm.listener);
    let name = "http://orders.prod.mesh";
    for (way, args, root) in [
        ("socket", &["--unix-socket", vm.socket.as_str()][..], name),
        ("address", &["--connect-to", &connect_to][..], name),
        ("tunnel", &["-p", "-x", &proxy][..], name),
        ("listener", &[][..], base.as_str()),
    ] {
        let curl = |path: &str| {
            let args = [&["--http2-prior-knowledge"], args].concat();
            vm.curl(&args, &format!("{root}{path}"))
        };
        let (status, body) = curl("/orders/17");
        assert_eq!(status, 200, "{way}: {body}");
        assert!(body.contains("spiffe://acme.internal/prod/checkout"), "{way}: {body}");
        assert_refused(way, &curl("/refunds/1"));
        let version = [
            "--http2-prior-knowledge",
            "-I",
            "-w",
            "%{stderr}%{http_version}\n%{http_code}\n",
        ];
        let mut command = as_user("curl", CHECKOUT);
        let out = run(command
            .args(version)
            .args(args)
            .args(["-sS", &format!("{root}/orders/17")]));
        assert!(both(&out).contains("HTTP/2 "), "{way}: {}", both(&out));
    }
    let (status, body) = vm.curl(
        &["--http2-prior-knowledge", "--unix-socket", &vm.socket],
        "http://botmesh.mesh/whoami",
    );
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("spiffe://acme.internal/prod/checkout"), "{body}");

    if !run(Command::new("node").arg("--version")).status.success() {
        println!("skipped: node http2: node is not installed");
        return;
    }
    let script = "
        const c = require('http2').connect(process.argv[1]);
        c.on('error', e => { console.log(0); console.log(e) });
        const s = c.request({':path': process.argv[3], ':authority': process.argv[2]});
        let status, text = '';
        s.on('response', h => status = h[':status']).on('data', d => text += d);
        s.on('end', () => { console.log(status); console.log(text); c.close() });
    ";
    let node = |path: &str| {
        let mut command = as_user("node", CHECKOUT);
        command.args(["-e", script, &proxy, "orders.prod.mesh", path]);
        vm.client(&mut command)
    };
    assert_eq!(node("/orders/17").0, 200);
    assert_refused("node http2", &node("/refunds/1"));
}

#[test]
fn every_stream_is_a_call_of_its_own_named_decided_and_recorded() {
    if !root_or_skip("streams") {
        return;
    }
    let mesh = two_hosts("");
    for at_ in ways(&mesh) {
        let mut checkout = Client::new(CHECKOUT, &at_, None);
        let streams: Vec<Value> = (0..20)
            .map(
                |n| json!({"headers": get(&if n % 4 == 0 { format!("/secrets/{n}") } else { format!("/orders/{n}") })}),
            )
            .collect();
        let told = checkout.order(&json!({"streams": streams}));
        assert_eq!(
            (&told["goaway"], &told["closed"]),
            (&Value::Null, &json!(false)),
            "{told}"
        );
        for (n, answer) in told["answers"].as_array().expect("answers").iter().enumerate() {
            let id = header(answer, "botmesh-call").unwrap_or_else(|| panic!("{at_}: {n}: {answer}"));
            let record = &mesh.host("web-1").query(&format!("id={id}"))[0];
            assert_eq!(record["from"]["id"], "spiffe://acme.internal/prod/checkout");
            if n % 4 == 0 {
                assert_eq!(
                    (&answer["status"], reason(answer).as_str()),
                    (&json!(403), "no_rule"),
                    "{answer}"
                );
                assert_eq!(header(answer, "content-type"), Some("application/problem+json"));
                assert_eq!(header(answer, "botmesh-denied"), Some(id));
                assert_eq!(
                    (&record["verdict"], &record["reason"]),
                    (&json!("deny"), &json!("no_rule"))
                );
                continue;
            }
            assert_eq!(answer["status"], 200, "{answer}");
            let seen: Value = serde_json::from_str(answer["body"].as_str().unwrap()).expect("JSON");
            assert_eq!(seen["path"], format!("/orders/{n}"));
            let callers: Vec<&Value> = seen["headers"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|h| h[0] == "x-botmesh-caller")
                .collect();
            assert_eq!(
                callers,
                [&json!(["x-botmesh-caller", "spiffe://acme.internal/prod/checkout"])]
            );
            assert_eq!((&record["verdict"], &record["path"]), (&json!("allow"), &seen["path"]));
        }
        // The callee on this host, and the proxy itself, by the same connection.
        assert_eq!(checkout.call(&at("stock.prod.mesh", "/stock/4"))["status"], 200);
        assert!(
            checkout.call(&at("botmesh.mesh", "/whoami"))["body"]
                .to_string()
                .contains("prod/checkout")
        );
        assert_eq!(reason(&checkout.call(&at("evil.example", "/"))), "outside_forbidden");
        let body = checkout.order(&json!({"streams": [{"headers": [[":method", "POST"], [":scheme", "http"], [":authority", "orders.prod.mesh"], [":path", "/refunds"]], "body": "hello"}]}));
        assert!(body["answers"][0]["body"].to_string().contains("hello"), "{body}");
    }
}

#[test]
fn a_stranger_is_nobody_by_http2_and_a_tunnel_leads_to_one_bot() {
    if !root_or_skip("strangers and tunnels by HTTP/2") {
        return;
    }
    let mesh = two_hosts("");
    for at in ways(&mesh) {
        let mut nobody = Client::new(NOBODY, &at, None);
        let told = nobody.order(&json!({"streams": [{"headers": get("/orders/1")}]}));
        assert_eq!(reason(&told["answers"][0]), "unknown_caller", "{at}: {told}");
    }
    let mut tunnel = Client::new(CHECKOUT, &mesh.host("web-1").bot_tcp(), Some("orders.prod.mesh:80"));
    assert_eq!(tunnel.call(&get("/orders/1"))["status"], 200);
    let elsewhere = tunnel.call(&at("stock.prod.mesh", "/stock/4"));
    assert_eq!(
        reason(&elsewhere),
        "bad_request",
        "a tunnel leads to one bot: {elsewhere}"
    );
}

/// What is done to a good request.
enum Change {
    With(&'static [(&'static str, &'static str)]),
    Instead(&'static str, &'static str),
    Without(&'static str),
    Only(&'static [(&'static str, &'static str)]),
}

use Change::{Instead, Only, With, Without};

impl Change {
    fn fields(&self) -> Vec<(&'static str, &'static str)> {
        let mut fields = get("/orders/1").to_vec();
        match self {
            With(more) => fields.extend_from_slice(more),
            Instead(name, value) => fields
                .iter_mut()
                .filter(|field| field.0 == *name)
                .for_each(|field| field.1 = value),
            Without(name) => fields.retain(|field| field.0 != *name),
            Only(all) => fields = all.to_vec(),
        }
        fields
    }
}

/// What is refused, and by which word; `-` where the protocol itself forbids it and the stream or the connection ends.
const REFUSED: &[(Change, &str)] = &[
    (With(&[("host", "stock.prod.mesh")]), "bad_request"),
    (
        With(&[("host", "orders.prod.mesh"), ("host", "orders.prod.mesh")]),
        "bad_request",
    ),
    (With(&[(":authority", "stock.prod.mesh")]), "-"),
    (With(&[(":path", "/stock/1")]), "-"),
    (With(&[("connection", "x-botmesh-caller")]), "-"),
    (With(&[("transfer-encoding", "chunked")]), "-"),
    (With(&[("upgrade", "websocket")]), "-"),
    (With(&[("keep-alive", "5")]), "-"),
    (With(&[("proxy-connection", "keep-alive")]), "-"),
    (With(&[("te", "gzip")]), "-"),
    (With(&[("content-length", "5")]), "-"),
    (With(&[("content-length", "0"), ("content-length", "0")]), "bad_request"),
    (With(&[("content-length", "0"), ("content-length", "57")]), "-"),
    (With(&[("content-length", "57"), ("content-length", "0")]), "-"),
    (With(&[("X-Upper", "1")]), "-"),
    (With(&[("x y", "1")]), "-"),
    (With(&[("x", "a\r\nx-botmesh-caller: forged")]), "-"),
    (With(&[("x", " padded")]), "bad_request"),
    (With(&[("expect", "the-worst")]), "bad_request"),
    (With(&[("origin", "http://evil.example")]), "browser_refused"),
    (With(&[("sec-fetch-site", "cross-site")]), "browser_refused"),
    (With(&[("x", "1"); 101]), "bad_request"),
    (Without(":authority"), "bad_request"),
    (Without(":scheme"), "-"),
    (Without(":path"), "-"),
    (Instead(":scheme", "https"), "outside_forbidden"),
    (Instead(":scheme", "ftp"), "bad_request"),
    (Instead(":authority", "u:p@orders.prod.mesh"), "bad_request"),
    (Instead(":authority", "orders.prod.mesh:8080"), "bad_request"),
    (Instead(":method", "get"), "bad_request"),
    (Instead(":path", "/orders/../admin/keys"), "bad_path"),
    (Instead(":path", "//orders/1"), "bad_path"),
    (Instead(":path", "/orders/%2e%2e/1"), "bad_path"),
    (Instead(":path", "*"), "bad_request"),
    (Instead(":path", ""), "-"),
    (Instead(":path", "http://stock.prod.mesh/stock/1"), "-"),
    (
        Only(&[(":method", "CONNECT"), (":authority", "orders.prod.mesh:80")]),
        "bad_request",
    ),
];

#[test]
fn a_request_that_two_could_read_differently_is_refused_by_http2_too() {
    if !root_or_skip("smuggling by HTTP/2") {
        return;
    }
    let mesh = two_hosts("");
    let socket = mesh.host("web-1").bot_socket();
    for (change, word) in REFUSED {
        let fields = change.fields();
        let mut client = Client::new(CHECKOUT, &socket, None);
        let told = client.order(&json!({"streams": [{"headers": fields}]}));
        let answer = &told["answers"][0];
        if *word == "-" {
            let ended = told["closed"] == true || !answer["reset"].is_null();
            assert!(ended && answer["status"] != 200, "{fields:?}: {told}");
        } else {
            assert_eq!(reason(answer), *word, "{fields:?}: {told}");
        }
    }
    assert!(
        mesh.host("web-2").query("kind=call").is_empty(),
        "nothing left the host"
    );

    let mut client = Client::new(CHECKOUT, &socket, None);
    let forged = With(&[
        ("x-botmesh-caller", "spiffe://acme.internal/prod/report"),
        ("x_botmesh_caller", "forged"),
        ("x-forwarded-client-cert", "forged"),
        ("botmesh-call", "forged"),
        ("te", "trailers"),
        ("cookie", "a=b"),
        ("cookie", "c=d"),
    ]);
    let forged = forged.fields();
    let answer = client.call(&forged);
    assert_eq!(answer["status"], 200, "{answer}");
    let body = answer["body"].as_str().unwrap();
    assert!(!body.contains("forged") && !body.contains("prod/report"), "{body}");
    assert!(body.contains("a=b; c=d") && !body.contains("\"te\""), "{body}");
    let cut = client.call(&get("/orders/2#/../../admin/keys"));
    assert!(
        cut["status"] != 200 || cut["body"].as_str().unwrap().contains("\"path\": \"/orders/2\""),
        "what was decided on is what the callee got: {cut}"
    );
}

#[test]
fn a_connection_speaks_for_one_process_and_one_program() {
    if !root_or_skip("whose connection it is") {
        return;
    }
    let mesh = two_hosts("");
    let denied = || mesh.host("web-1").query("verdict=deny").len();
    let carried = || mesh.host("web-1").query("verdict=allow kind=call").len();
    for at in ways(&mesh) {
        // A stream runs when another program takes over, which says nothing: it is found all the same.
        let mut busy = Client::new(CHECKOUT, &at, None);
        let told = busy.order(&json!({"streams": [{"headers": get("/orders/ticks")}], "until": "data"}));
        assert_eq!(told["answers"][0]["status"], 200, "{told}");
        let told = busy.order(&json!({"streams": [], "exec": true}));
        assert_eq!(told["closed"], true, "{at}: the stream of a program that is gone ends");

        let mut idle = Client::new(CHECKOUT, &at, None);
        assert_eq!(idle.call(&get("/orders/1"))["status"], 200);
        let before = (carried(), denied());
        let told = idle.order(&json!({"streams": [{"headers": get("/orders/2")}], "exec": true}));
        assert_eq!(told["closed"], true, "{at}");
        eventually("the refusal to be recorded", || {
            (denied() == before.1 + 1).then_some(())
        });
        assert_eq!(carried(), before.0, "{at}: a call of another program is not carried");
    }
    // Over the Unix socket the kernel says who sent each byte: a child with the same socket is not the bot.
    let mut parent = Client::new(CHECKOUT, &mesh.host("web-1").bot_socket(), None);
    assert_eq!(parent.call(&get("/orders/1"))["status"], 200);
    let before = carried();
    let told = parent.order(&json!({"streams": [{"headers": get("/orders/3")}], "fork": true}));
    assert_eq!(
        (&told["closed"], &told["answers"][0]["status"]),
        (&json!(true), &Value::Null),
        "{told}"
    );
    assert_eq!(carried(), before);
}

#[test]
fn trailers_pass_both_ways_and_carry_no_name_of_ours() {
    if !root_or_skip("trailers by HTTP/2") {
        return;
    }
    let mesh = two_hosts("");
    let port = free_port();
    // Answers with the very bytes of the request, and with trailers.
    let mirror = "
import socket, sys
s = socket.create_server(('127.0.0.1', int(sys.argv[1])))
print('ready', flush=True)
while True:
    c, _ = s.accept()
    got = b''
    while not got.endswith(b'\\r\\n\\r\\n') or (b'chunked' in got and b'\\r\\n0\\r\\n' not in got):
        got += c.recv(65536)
    c.sendall(b'HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\nConnection: close\\r\\n\\r\\n%x\\r\\n%s\\r\\n0\\r\\nx-sum: 7\\r\\nx-botmesh-caller: forged\\r\\n\\r\\n' % (len(got), got))
    c.close()
";
    let mut command = as_user(PYTHON, ORDERS);
    command.args(["-c", mirror, &port.to_string()]);
    let callee = Process::spawn(command, mesh.dir().join("mirror.log"));
    eventually("the callee to listen", || callee.log().contains("ready").then_some(()));
    let text = std::fs::read_to_string(mesh.mesh_file()).expect("the mesh file");
    let start = text.find("serve: {http: ").expect("the port of prod/orders");
    let end = start + text[start..].find('}').expect("its end");
    mesh.apply(&format!(
        "{}serve: {{http: {port}}}{}",
        &text[..start],
        &text[end + 1..]
    ));
    for at in ways(&mesh) {
        let mut client = Client::new(CHECKOUT, &at, None);
        let told = client.order(&json!({"streams": [{
            "headers": [[":method", "POST"], [":scheme", "http"], [":authority", "orders.prod.mesh"], [":path", "/refunds"]],
            "body": "hello",
            "trailers": [["x-check", "5"], ["x-botmesh-caller", "forged"]],
        }]}));
        let answer = &told["answers"][0];
        assert_eq!(answer["status"], 200, "{told}");
        let seen = answer["body"].as_str().unwrap();
        assert!(
            seen.contains("hello\r\n0\r\nx-check: 5\r\n\r\n"),
            "{at}: the callee got the trailers: {seen:?}"
        );
        assert!(!told.to_string().contains("forged"), "{at}: {told}");
        assert_eq!(answer["trailers"], json!([["x-sum", "7"]]), "{at}: {told}");
    }
}

#[test]
fn a_flood_of_frames_ends_its_own_connection_and_nobody_elses() {
    if !root_or_skip("floods by HTTP/2") {
        return;
    }
    let mesh = two_hosts("");
    let resident = || mesh.host("web-1").memory_mib("VmRSS");
    let mut other = Caller::new(REPORT, &mesh.host("web-1").bot_socket());
    let mut h2 = Client::new(CHECKOUT, &mesh.host("web-1").bot_socket(), None);
    assert_eq!(h2.call(&get("/orders/1"))["status"], 200);
    let before = resident();
    for at in ways(&mesh) {
        for (kind, goaway, closed) in [
            ("resets", Some(11), true),
            ("provoked", Some(11), true),
            ("continuation", Some(11), true),
            ("list", None, false),
            ("bomb", Some(11), true),
            ("streams", None, false),
            ("empty", Some(11), true),
            ("settings", None, false),
            ("pings", None, false),
            ("acks", None, false),
            ("windows", None, false),
        ] {
            let flood = Flood::stand(CHECKOUT, &at, kind);
            // While the flood stands: a bot of another user, and another connection of the same bot.
            assert_eq!(other.call("GET", "botmesh.mesh", "/whoami").status, 200, "{at}: {kind}");
            assert_eq!(h2.call(&get("/orders/1"))["status"], 200, "{at}: {kind}");
            let told = flood.end();
            println!("{kind}: {told} resident {} MiB", resident());
            if closed {
                assert_eq!(told["goaway"].as_u64(), goaway, "{at}: {kind}: {told}");
                assert_eq!(told["closed"], true, "{at}: {kind}: {told}");
            }
            match kind {
                "streams" => assert_eq!(told["refused"], 300 - 256, "{at}: {told}"),
                "windows" => assert_eq!(told["answered"], 256, "{at}: {told}"),
                _ => {}
            }
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 96, "the proxy grew by {grown} MiB");
    // What a bot may repeat as often as it likes is not logged each time.
    let log = mesh.host("web-1").log_bytes();
    assert!(log < 64 << 10, "a bot filled the log with {log} bytes");
    assert_eq!(mesh.host("web-1").verify().status.code(), Some(0));
}
