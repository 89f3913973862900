//! Plain TCP between bots: whose it is, how each half of it ends, what cuts it, and what the callee and the ledgers are told.

mod line;

use std::time::Duration;

use serde_json::{Value, json};

use crate::kill::now_ms;
use crate::spine::{CHECKOUT, LOCAL, NOBODY, ORDERS, REPORT};
use crate::support::{Mesh, Process, Setup, botmesh, eventually, free_port, ok, root_or_skip};
use line::{Line, foreign_holder, program, tcpd};

/// Who serves what where, and the bots that do.
struct Scene {
    mesh: Mesh,
    /// `prod/orders-db` on web-2.
    orders: Served,
    /// `prod/audit-db` on web-2, which wants the PROXY protocol.
    audit: Served,
    /// `prod/stock-db` on web-1, where its callers are too; it wants the PROXY protocol.
    stock: Served,
}

struct Served {
    port: u16,
    process: Process,
}

impl Served {
    fn start(mesh: &Mesh, uid: u32, more: &[&str]) -> Self {
        let port = free_port();
        let process = tcpd(mesh, uid, &[&[port.to_string().as_str()], more].concat());
        Self { port, process }
    }

    /// How often its process said a line that ends so.
    fn said(&self, words: &str) -> usize {
        self.process.log().lines().filter(|line| line.ends_with(words)).count()
    }

    fn says(&self, words: &str) {
        eventually(words, || (self.said(words) > 0).then_some(()));
    }
}

/// Rules for both databases of web-2 and the one of web-1; `prod/report` has none.
fn mesh_file(orders: u16, audit: u16, stock: u16) -> String {
    format!(
        "version: 1
trust_domain: acme.internal
bots:
  prod/checkout: {{owner: shop@acme.internal, hosts: [web-1], attest: {{uid: {CHECKOUT}}}}}
  prod/report: {{owner: shop@acme.internal, hosts: [web-1], attest: {{uid: {REPORT}}}}}
  prod/orders-db: {{owner: shop@acme.internal, hosts: [web-2], attest: {{uid: {ORDERS}}}, serve: {{tcp: [{orders}]}}}}
  prod/audit-db: {{owner: shop@acme.internal, hosts: [web-2], attest: {{uid: {AUDIT}}}, serve: {{tcp: [{audit}], proxy_protocol: v2}}}}
  prod/stock-db: {{owner: shop@acme.internal, hosts: [web-1], attest: {{uid: {LOCAL}}}, serve: {{tcp: [{stock}], proxy_protocol: v2}}}}
allow:
  - {{id: orders-db, from: prod/checkout, to: prod/orders-db, tcp: [{orders}]}}
  - {{id: audit-db, from: prod/checkout, to: prod/audit-db, tcp: [{audit}]}}
  - {{id: stock-db, from: prod/checkout, to: prod/stock-db, tcp: [{stock}]}}
"
    )
}

const AUDIT: u32 = 61_012;

impl Scene {
    fn new(extra: &str) -> Self {
        let listener = "listeners: [{listen: \"127.0.0.1:0\", to: prod/orders-db, tcp: PORT}]\n";
        let orders = free_port();
        let mesh = Mesh::start(&Setup {
            hosts: &["web-1", "web-2"],
            extra: &format!("{}{extra}", listener.replace("PORT", &orders.to_string())),
            ..Setup::default()
        });
        let orders = Served {
            port: orders,
            process: tcpd(&mesh, ORDERS, &[&orders.to_string()]),
        };
        let audit = Served::start(&mesh, AUDIT, &["proxy"]);
        let stock = Served::start(&mesh, LOCAL, &["proxy"]);
        mesh.apply(&mesh_file(orders.port, audit.port, stock.port));
        Self {
            mesh,
            orders,
            audit,
            stock,
        }
    }

    /// The listener on web-1 that leads to `prod/orders-db`.
    fn listener(&self) -> String {
        let log = self.mesh.host("web-1").process.log();
        let at = log
            .find(" to prod/orders-db by tcp")
            .expect("the proxy says where it listens");
        let start = log[..at].rfind("127.0.0.1:").expect("an address");
        log[start..at].to_owned()
    }

    /// A connection of checkout to a database by CONNECT.
    fn to(&self, name: &str, served: &Served) -> Line {
        let socket = self.mesh.host("web-1").bot_socket();
        Line::open(CHECKOUT, &socket, Some(&format!("{name}.prod.mesh:{}", served.port)))
    }

    fn orders_db(&self) -> Line {
        self.to("orders-db", &self.orders)
    }

    /// Both ends' records of a kind about a callee.
    fn records(&self, host: &str, filter: &str) -> Vec<Value> {
        self.mesh.host(host).query(filter)
    }

    /// The ends of a host's calls once there are so many.
    fn ends(&self, host: &str, count: usize) -> Vec<Value> {
        eventually("the ends of the calls", || {
            Some(self.records(host, "kind=end")).filter(|ends| ends.len() == count)
        })
    }
}

#[test]
fn a_connection_is_one_call_with_its_bytes_at_both_ends_whichever_way_it_comes() {
    if !root_or_skip("TCP across two hosts") {
        return;
    }
    let scene = Scene::new("");
    let (socket, port) = (
        scene.mesh.host("web-1").bot_socket(),
        scene.mesh.host("web-1").bot_tcp(),
    );
    let name = format!("orders-db.prod.mesh:{}", scene.orders.port);
    let listener = scene.listener();
    let ways = [
        (socket.as_str(), Some(name.as_str())),
        (&port, Some(&name)),
        (&listener, None),
    ];
    for (count, (at, connect)) in ways.into_iter().enumerate() {
        let mut line = Line::open(CHECKOUT, at, connect);
        line.lives();
        line.shutdown();
        let rest = line.receive(json!({}));
        assert_eq!(
            (&rest["text"], &rest["why"]),
            (&"bye".into(), &"end".into()),
            "{at}: {rest}"
        );
        for host in ["web-1", "web-2"] {
            let ends = scene.ends(host, count + 1);
            let end = ends.last().expect("an end");
            // "echo", "ping"; the greeting, "ping", "bye".
            assert_eq!(
                (&end["request_bytes"], &end["response_bytes"]),
                (&9.into(), &23.into()),
                "{at} {host}: {end}"
            );
            assert_eq!(end["outcome"], "done", "{at} {host}: {end}");
        }
    }
    let calls = scene.records("web-1", "direction=out verdict=allow");
    assert_eq!(calls.len(), 3, "{calls:?}");
    for call in &calls {
        assert_eq!(call["from"]["id"], "spiffe://acme.internal/prod/checkout");
        assert_eq!(call["to"]["id"], "spiffe://acme.internal/prod/orders-db");
        assert_eq!(
            (&call["protocol"], &call["port"]),
            (&"tcp".into(), &scene.orders.port.into()),
            "{call}"
        );
        assert_eq!((&call["rule"], &call["hop"]), (&"orders-db".into(), &"mtls".into()));
        assert!(call["method"].is_null() && call["path"].is_null(), "{call}");
        let peer = scene.records("web-2", "direction=in verdict=allow");
        let paired: Vec<_> = peer.iter().filter(|other| other["peer_call"] == call["id"]).collect();
        let [paired] = paired.as_slice() else {
            panic!("{peer:?}")
        };
        assert_eq!(
            (&paired["protocol"], &paired["port"]),
            (&call["protocol"], &call["port"]),
            "{paired}"
        );
    }
}

#[test]
fn each_half_of_a_connection_ends_by_itself() {
    if !root_or_skip("halves of connections") {
        return;
    }
    let scene = Scene::new("");
    for (name, served) in [("orders-db", &scene.orders), ("stock-db", &scene.stock)] {
        // The caller says no more, and still hears.
        let mut line = scene.to(name, served);
        line.begin("take");
        line.send(json!({"count": 100_000}));
        line.shutdown();
        let told = line.receive(json!({}));
        assert!(
            told["text"].as_str().is_some_and(|text| text.starts_with("[100000,")),
            "{name}: {told}"
        );
        // The callee says no more, and still hears.
        let mut line = scene.to(name, served);
        line.begin("half");
        let told = line.receive(json!({}));
        assert_eq!(
            (&told["text"], &told["why"]),
            (&"done".into(), &"end".into()),
            "{name}: {told}"
        );
        line.send(json!({"count": 300_000}));
        assert_eq!(served.said("read 300000"), 0, "{name}: the other half goes on");
        line.shutdown();
        served.says("read 300000");
    }
}

#[test]
fn what_breaks_off_at_one_end_is_reset_at_the_other() {
    if !root_or_skip("resets") {
        return;
    }
    let scene = Scene::new("");
    let by_port = scene.mesh.host("web-1").bot_tcp();
    // The caller's host has its ends of the first two connections already, and both of the two within itself.
    for (name, served, host, count) in [
        ("orders-db", &scene.orders, "web-2", 2),
        ("stock-db", &scene.stock, "web-1", 2 + 4),
    ] {
        let to = format!("{name}.prod.mesh:{}", served.port);
        let mut line = Line::open(CHECKOUT, &by_port, Some(&to));
        line.begin("reset");
        let told = line.receive(json!({}));
        assert_eq!(
            told["why"], "ConnectionResetError",
            "{name}: half of an answer must not look whole: {told}"
        );
        let mut line = Line::open(CHECKOUT, &by_port, Some(&to));
        line.lives();
        line.reset();
        served.says("error ConnectionResetError");
        let ends = eventually("the ends of both connections", || {
            Some(scene.records(host, "kind=end")).filter(|ends| ends.len() >= count)
        });
        // Whose fault it was can be seen by either direction first; that it broke off is seen by both.
        let outcomes: Vec<_> = ends.iter().map(|end| &end["outcome"]).collect();
        println!("{name}: {outcomes:?}");
        assert!(outcomes.iter().all(|outcome| **outcome != "done"), "{name}: {ends:?}");
    }
}

impl Scene {
    /// Connects by the listener, which has no word for a refusal, and by CONNECT, which says why.
    fn lets_nobody_through(&self, uid: u32, reason: &str, name: &str) {
        let mut line = Line::new(uid, &self.listener(), None);
        line.order(json!({"do": "connect"}));
        let told = line.receive(json!({}));
        assert_eq!(
            (&told["bytes"], &told["why"]),
            (&0.into(), &"ConnectionResetError".into()),
            "{told}"
        );
        let mut line = Line::new(uid, &self.mesh.host("web-1").bot_socket(), Some(name));
        // What was said too early is no request, and is not read as one.
        let early = "GET /whoami HTTP/1.1\r\nHost: botmesh\r\n\r\n";
        let head = line.order(json!({"do": "connect", "early": early}))["head"].clone();
        assert!(
            head.as_str().is_some_and(|head| head.starts_with("HTTP/1.1 403 ")),
            "{head}"
        );
        let told = line.receive(json!({}));
        let problem: Value =
            serde_json::from_str(told["text"].as_str().expect("text")).expect("a problem and nothing after it");
        assert_eq!(problem["reason"], reason, "{problem}");
    }
}

#[test]
fn who_may_not_connect_is_told_where_that_can_be_told_and_nobody_is_let_through() {
    if !root_or_skip("refused connections") {
        return;
    }
    let scene = Scene::new("");
    let socket = scene.mesh.host("web-1").bot_socket();
    let name = format!("orders-db.prod.mesh:{}", scene.orders.port);
    for (uid, reason) in [(REPORT, "no_rule"), (NOBODY, "unknown_caller")] {
        scene.lets_nobody_through(uid, reason, &name);
    }
    // Another port than the rule's, and none.
    for (to, status, reason) in [
        (
            format!("orders-db.prod.mesh:{}", scene.orders.port ^ 1),
            "403",
            "no_rule",
        ),
        ("orders-db.prod.mesh:80".to_owned(), "403", "no_rule"),
    ] {
        let mut line = Line::new(CHECKOUT, &socket, Some(&to));
        let head = line.order(json!({"do": "connect"}))["head"].clone();
        assert!(head.as_str().is_some_and(|head| head.contains(status)), "{to}: {head}");
        assert!(
            line.receive(json!({}))["text"]
                .as_str()
                .is_some_and(|text| text.contains(reason)),
            "{to}"
        );
    }
    let denied = scene.records("web-1", "verdict=deny direction=out");
    assert_eq!(denied.len(), 6, "{denied:?}");
    assert!(
        denied
            .iter()
            .all(|call| call["protocol"] == "tcp" && call["method"].is_null()),
        "{denied:?}"
    );
    assert_eq!(scene.orders.said("open"), 0, "nobody got through");
    assert!(
        scene.records("web-2", "direction=in").is_empty(),
        "nothing left the host"
    );
    // HTTP goes to no port of TCP.
    let mut checkout = crate::support::Caller::new(CHECKOUT, &socket);
    let answer = checkout.call("GET", "orders-db.prod.mesh", "/");
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (403, "no_rule"),
        "{}",
        answer.body
    );
}

#[test]
fn a_connection_ends_with_its_right_within_a_second() {
    if !root_or_skip("cutting connections") {
        return;
    }
    let scene = Scene::new("");
    let text = std::fs::read_to_string(scene.mesh.mesh_file()).expect("the mesh file");
    let by_listener = |scene: &Scene| {
        let mut line = Line::open(CHECKOUT, &scene.listener(), None);
        line.lives();
        line
    };
    let local = |scene: &Scene| {
        let port = scene.mesh.host("web-1").bot_tcp();
        let mut line = Line::open(
            CHECKOUT,
            &port,
            Some(&format!("stock-db.prod.mesh:{}", scene.stock.port)),
        );
        line.lives();
        line
    };
    let cut = |line: &mut Line, since: u128, what: &str| {
        let told = line.receive(json!({}));
        let after = u128::from(told["at_ms"].as_u64().expect("a time")).saturating_sub(since);
        assert_eq!(told["why"], "ConnectionResetError", "{what}: {told}");
        println!("{what}: cut {after} ms after the command began");
        // The command itself takes its time; what it costs from being in force is less.
        assert!(after < 3_000, "{what}: {after} ms");
    };
    let mut lines = [by_listener(&scene), local(&scene)];
    let since = now_ms();
    scene.mesh.apply(
        &text
            .replace("tcp: [", "until: 2020-01-01T00:00:00Z, reason: over, tcp: [")
            .replace("serve: {until: 2020-01-01T00:00:00Z, reason: over, ", "serve: {"),
    );
    lines.iter_mut().for_each(|line| cut(line, since, "a rule that ends"));
    scene.orders.says("error ConnectionResetError");
    scene.mesh.apply(&text);
    let mut lines = [by_listener(&scene), local(&scene)];
    let since = now_ms();
    ok(botmesh().args([
        "quarantine",
        "prod/checkout",
        "--reason",
        "test",
        "--server",
        &scene.mesh.server(),
    ]));
    lines.iter_mut().for_each(|line| cut(line, since, "a quarantine"));
    let ends = scene.ends("web-2", 2);
    assert!(ends.iter().all(|end| end["outcome"] != "done"), "{ends:?}");
    let mut refused = Line::new(CHECKOUT, &scene.listener(), None);
    refused.order(json!({"do": "connect"}));
    assert_eq!(refused.receive(json!({}))["bytes"], 0);
}

#[test]
fn a_callee_is_told_who_calls_before_the_first_byte() {
    if !root_or_skip("the PROXY protocol") {
        return;
    }
    let scene = Scene::new("");
    let id = json!([[0xD0, "spiffe://acme.internal/prod/checkout"]]);
    let mut line = scene.to("audit-db", &scene.audit);
    let told = line.greeting()["proxy"].clone();
    assert_eq!((&told["family"], &told["fields"]), (&0x11.into(), &id), "{told}");
    assert_eq!(
        told["from"][0], "127.0.0.1",
        "where the proxy of the caller's host came from: {told}"
    );
    assert_eq!(
        told["to"],
        json!(["127.0.0.1", scene.mesh.host("web-2").ports.mesh]),
        "{told}"
    );
    let mut line = scene.to("stock-db", &scene.stock);
    let told = line.greeting()["proxy"].clone();
    assert_eq!((&told["family"], &told["fields"]), (&0x11.into(), &id), "{told}");
    assert_eq!(told["to"], json!(["127.0.0.1", scene.stock.port]), "{told}");
    // What a caller says in that form is bytes like any others.
    line.send(json!({"text": "echo\n"}));
    line.send(json!({"text": "\r\n\r\n\0\r\nQUIT\n"}));
    let told = line.receive(json!({"count": 12}));
    assert_eq!(told["text"], "\r\n\r\n\0\r\nQUIT\n", "{told}");
}

#[test]
fn a_foreign_process_where_the_callee_should_be_hears_nothing() {
    if !root_or_skip("somebody else on the callee's port") {
        return;
    }
    let mut scene = Scene::new("");
    let mut line = scene.orders_db();
    line.lives();
    // The bot hands its end of a connection to another user's process, which speaks in its place.
    let other = foreign_holder(&scene.mesh, NOBODY);
    let mut handed = scene.orders_db();
    handed.begin(&format!("pass {}", other.path.display()));
    eventually("the other process to hold it", || {
        other.process.log().contains("holds").then_some(())
    });
    let since = now_ms();
    let told = handed.talk_until_cut();
    let after = u128::from(told["at_ms"].as_u64().expect("a time")).saturating_sub(since);
    println!("somebody else holds it: cut after {after} ms");
    assert!(after < 5_000, "{after}");
    line.lives_on();
    let ends = eventually("its end", || {
        let mut ends = scene.records("web-2", "kind=end");
        ends.retain(|end| end["outcome"] == "callee_mismatch");
        Some(ends).filter(|ends| !ends.is_empty())
    });
    assert_eq!(ends.len(), 1, "{ends:?}");
    // Another user's process takes the port.
    scene.orders.process.kill();
    let squatter = program(
        &scene.mesh,
        NOBODY,
        include_str!("support/squatter.py"),
        &[&scene.orders.port.to_string(), "127.0.0.1"],
    );
    eventually("the squatter to listen", || {
        squatter.log().contains("holds").then_some(())
    });
    let socket = scene.mesh.host("web-1").bot_socket();
    let mut line = Line::new(
        CHECKOUT,
        &socket,
        Some(&format!("orders-db.prod.mesh:{}", scene.orders.port)),
    );
    let head = line.order(json!({"do": "connect", "early": "secret"}))["head"].clone();
    assert!(
        head.as_str().is_some_and(|head| head.starts_with("HTTP/1.1 421 ")),
        "{head}"
    );
    eventually("the squatter's connection to end", || {
        squatter.log().contains("read 0").then_some(())
    });
}

#[test]
fn a_callee_that_takes_nothing_holds_its_caller_back_and_nobody_else() {
    if !root_or_skip("back-pressure") {
        return;
    }
    let scene = Scene::new("");
    let before = scene.resident();
    // As many as one connection between the proxies would have room for, and more.
    let mut stalled: Vec<Line> = (0..6).map(|_| scene.orders_db()).collect();
    for (number, line) in stalled.iter_mut().enumerate() {
        line.begin(if number % 2 == 0 { "stall" } else { "give 1000000000" });
    }
    for line in stalled.iter_mut().step_by(2) {
        let sent = line.order(json!({"do": "flood", "most": 1u64 << 30}))["bytes"]
            .as_u64()
            .expect("bytes");
        println!("a callee that reads nothing took {sent} bytes of its caller");
        assert!(sent < 64 << 20, "{sent}");
    }
    // Those that are given something and take nothing hold up nobody either.
    let mut line = scene.orders_db();
    line.begin("give 20000000");
    assert_eq!(line.receive(json!({}))["bytes"], 20_000_000);
    let grown: Vec<u64> = scene
        .resident()
        .iter()
        .zip(before)
        .map(|(now, then)| now.saturating_sub(then))
        .collect();
    println!("resident memory grew by {grown:?} KiB with six connections that stand still");
    assert!(grown.iter().all(|kib| *kib < 48 * 1024), "{grown:?}");
}

#[test]
fn large_transfers_arrive_whole_in_both_directions_and_take_no_memory() {
    if !root_or_skip("large transfers") {
        return;
    }
    // `BOTMESH_TCP_MIB=1024` makes it a GiB each way.
    let mib: u64 = std::env::var("BOTMESH_TCP_MIB").map_or(48, |mib| mib.parse().expect("a number of MiB"));
    let bytes = mib << 20;
    let scene = Scene::new("");
    for (name, served) in [("orders-db", &scene.orders), ("stock-db", &scene.stock)] {
        let mut line = scene.to(name, served);
        line.begin("take");
        line.send(json!({"count": 1 << 20}));
        let before = scene.resident();
        let start = std::time::Instant::now();
        line.send(json!({"count": bytes}));
        line.shutdown();
        let told = line.receive(json!({}));
        assert!(
            told["text"]
                .as_str()
                .is_some_and(|text| text.starts_with(&format!("[{},", bytes + (1 << 20)))),
            "{name}: {told}"
        );
        let up = start.elapsed();
        let mut line = scene.to(name, served);
        line.begin(&format!("give {bytes}"));
        let start = std::time::Instant::now();
        let told = line.receive(json!({}));
        assert_eq!((&told["bytes"], &told["why"]), (&bytes.into(), &"end".into()), "{name}");
        let after = scene.resident();
        println!(
            "{name}: {mib} MiB in {up:?} and {:?}; resident KiB before {before:?}, after {after:?}",
            start.elapsed()
        );
        let grown = after.iter().zip(before).map(|(now, then)| now.saturating_sub(then));
        assert!(grown.into_iter().all(|kib| kib < 16 * 1024), "{name}");
    }
}

#[test]
fn a_proxy_that_ends_waits_for_connections_as_long_as_for_calls() {
    if !root_or_skip("connections at the end of a proxy") {
        return;
    }
    let mut scene = Scene::new("");
    let mut line = scene.orders_db();
    line.lives();
    let host = scene.mesh.host("web-2");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(host.process.child.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("told to end");
    line.lives_on();
    line.shutdown();
    assert_eq!(line.receive(json!({}))["text"], "bye");
    drop(scene.mesh.host_mut("web-2").process.child.wait());
    let ends = scene.records("web-2", "kind=end");
    assert_eq!((ends.len(), &ends[0]["outcome"]), (1, &"done".into()), "{ends:?}");
    assert!(scene.mesh.host("web-2").verify().status.success());
}

impl Scene {
    /// Resident memory of both proxies, in KiB.
    fn resident(&self) -> Vec<u64> {
        let of = |host: &str| {
            let pid = self.mesh.host(host).process.child.id();
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:"))
                .expect("VmRSS");
            line.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        // What a transfer needed is given back with its next turn.
        std::thread::park_timeout(Duration::from_millis(1));
        ["web-1", "web-2"].map(of).to_vec()
    }
}
