//! One callee on two hosts: which of them a call takes, what happens when one is dead, when calls fail and when there are
//! too many of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::spine::{CHECKOUT, ORDERS, REPORT};
use crate::support::load::Load;
use crate::support::{
    Answer, Caller, Mesh, PYTHON, Process, Setup, as_user, botmesh, eventually, free_port, http_get, ok, root_or_skip,
};

const ORDERS_HOST: &str = "orders.prod.mesh";

/// `prod/checkout` and `prod/report` on web-1 may do anything with `prod/orders`, which is on web-2 and web-3.
fn mesh_file(port: u16, more: &str) -> String {
    format!(
        "version: 1\ntrust_domain: acme.internal\nbots:\n\
         \x20 prod/checkout: {{owner: o, hosts: [web-1], attest: {{uid: {CHECKOUT}}}}}\n\
         \x20 prod/report: {{owner: o, hosts: [web-1], attest: {{uid: {REPORT}}}}}\n\
         \x20 prod/orders: {{owner: o, hosts: [web-2, web-3], attest: {{uid: {ORDERS}}}, serve: {{http: {port}}}}}\n\
         allow:\n\
         \x20 - {{id: all, from: [prod/checkout, prod/report], to: prod/orders, http: [\"* /**\"]}}\n{more}"
    )
}

/// The mesh, with the callee's process; both of its hosts' proxies lead to that one.
struct Scene {
    mesh: Mesh,
    port: u16,
    callee: Option<Process>,
}

impl Scene {
    fn start(hosts: &[&str], extra: &str, more: &str) -> Self {
        let mesh = Mesh::start(&Setup {
            hosts,
            extra,
            ..Setup::default()
        });
        let mut scene = Self {
            mesh,
            port: free_port(),
            callee: None,
        };
        scene.serve();
        scene.apply(more);
        scene
    }

    fn serve(&mut self) {
        let mut command = as_user(PYTHON, ORDERS);
        command.args(["-c", include_str!("support/slow.py"), &self.port.to_string()]);
        let process = Process::spawn(command, self.mesh.dir().join("orders.log"));
        let before = self
            .callee
            .take()
            .map_or(0, |callee| callee.log().matches("ready").count());
        eventually("the callee to listen", || {
            (process.log().matches("ready").count() > before).then_some(())
        });
        self.callee = Some(process);
    }

    fn apply(&self, more: &str) {
        self.mesh.apply(&mesh_file(self.port, more));
        let hosts = self.mesh.hosts.len() - 1;
        eventually("the endpoints of the callee", || {
            let list = ok(botmesh().args([
                "bot",
                "show",
                "prod/orders",
                "-o",
                "json",
                "--server",
                &self.mesh.server(),
            ]));
            let told: Value = serde_json::from_str(&list).unwrap();
            let known = self
                .mesh
                .hosts
                .values()
                .filter(|host| told.to_string().contains(&host.ports.mesh.to_string()));
            (known.count() >= hosts.min(2)).then_some(())
        });
    }

    fn caller(&self, uid: u32) -> Caller {
        Caller::new(uid, &self.mesh.host("web-1").bot_socket())
    }

    /// Asks the callee itself, past every proxy.
    fn open(&self) {
        assert_eq!(http_get(self.port, "/open").unwrap().0, 200);
    }

    fn seen(&self) -> BTreeMap<String, u64> {
        serde_json::from_str(&http_get(self.port, "/seen").unwrap().1).unwrap()
    }

    fn signal(&self, host: &str, signal: Signal) {
        let pid = i32::try_from(self.mesh.host(host).process.child.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// What web-1 tells of its calls.
    fn status(&self) -> Value {
        let server = self.mesh.host("web-1").admin();
        let told = ok(botmesh().args(["proxy", "status", "-o", "json", "--server", &server]));
        serde_json::from_str::<Value>(&told).unwrap()["calls"].clone()
    }

    fn orders(&self) -> Value {
        let status = self.status();
        let callees = status["callees"].as_array().cloned().unwrap_or_default();
        callees
            .into_iter()
            .find(|callee| callee["bot"] == "prod/orders")
            .unwrap_or_default()
    }

    fn metric(&self, host: &str, line: &str) -> f64 {
        let (_, text) = http_get(self.mesh.host(host).ports.metrics, "/metrics").expect("metrics");
        let value = text
            .lines()
            .find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Calls of web-1 that were sent a second time, with their ends.
    fn tried_twice(&self) -> Vec<Value> {
        let calls = self.mesh.host("web-1").query("direction=out");
        calls.into_iter().filter(|call| call["tries"] == 2).collect()
    }

    fn in_flight(&self, host: &str, count: f64) {
        eventually("the calls to be under way", || {
            (self.metric(host, "botmesh_calls_in_flight") == count).then_some(())
        });
    }
}

/// Many calls at a time, each by a client of its own; what came back, in their order.
fn at_once(scene: &Scene, calls: &[(u32, &str, String)], meanwhile: impl FnOnce()) -> Vec<Answer> {
    std::thread::scope(|scope| {
        let running: Vec<_> = calls
            .iter()
            .map(|(uid, method, path)| {
                let mut caller = scene.caller(*uid);
                scope.spawn(move || caller.call(method, ORDERS_HOST, path))
            })
            .collect();
        meanwhile();
        running.into_iter().map(|call| call.join().unwrap()).collect()
    })
}

fn gets(uid: u32, count: usize) -> Vec<(u32, &'static str, String)> {
    (0..count)
        .map(|number| (uid, "GET", format!("/wait/{uid}-{number}")))
        .collect()
}

fn refused(answer: &Answer, reason: &str) -> bool {
    let is = answer.status >= 400 && answer.reason() == reason;
    if is && answer.status == 503 {
        let after: u64 = answer
            .header("retry-after")
            .expect("when to come again")
            .parse()
            .unwrap();
        assert!((1..=30).contains(&after), "{after}");
        assert_eq!(answer.json()["retry_after"], after);
    }
    is
}

#[test]
fn calls_are_spread_over_the_hosts_of_a_callee() {
    if !root_or_skip("calls spread over hosts") {
        return;
    }
    let mut mesh = Mesh::start(&Setup {
        hosts: &["web-1", "web-2", "web-3"],
        ..Setup::default()
    });
    let port = free_port();
    mesh.quick_callee(ORDERS, port);
    mesh.apply(&mesh_file(port, ""));
    eventually("both endpoints", || {
        let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
        let took = |host: &str| !mesh.host(host).query("direction=in").is_empty();
        checkout.call("GET", ORDERS_HOST, "/orders/1");
        (took("web-2") && took("web-3")).then_some(())
    });
    let mut load = Load::start(CHECKOUT, mesh.host("web-1"), 400);
    load.more(600);
    let outcome = load.stop();
    outcome.none_failed();
    let calls = ["web-2", "web-3"].map(|host| mesh.host(host).query("direction=in verdict=allow").len());
    println!("calls by host: {calls:?}; {outcome}");
    let all: usize = calls.iter().sum();
    assert!(calls.iter().all(|calls| calls * 8 > all), "{calls:?}");
}

#[test]
fn a_host_that_does_not_answer_costs_one_call_a_wait_and_is_used_again_when_it_does() {
    if !root_or_skip("a host that does not answer") {
        return;
    }
    let hosts = ["web-1", "web-2", "web-3"];
    let scene = Scene::start(&hosts, "", "destinations: {prod/orders: {connect_timeout: 2s}}\n");
    scene.signal("web-3", Signal::SIGSTOP);
    let mut checkout = scene.caller(CHECKOUT);
    eventually("its endpoint to be left out", || {
        assert_eq!(checkout.call("GET", ORDERS_HOST, "/orders/1").status, 200);
        let endpoints = scene.orders()["endpoints"].as_array()?.clone();
        endpoints.iter().any(|one| !one["left_out_ms"].is_null()).then_some(())
    });
    assert_eq!(
        scene.orders()["retried"],
        1,
        "one call waited for it and went elsewhere"
    );
    eventually("the record of that call, which says so", || {
        (scene.tried_twice().len() == 1).then_some(())
    });
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(checkout.call("GET", ORDERS_HOST, "/orders/1").status, 200);
    }
    println!(
        "20 calls while it is left out took {:?}; {}",
        began.elapsed(),
        scene.orders()
    );
    assert!(scene.metric("web-1", "botmesh_ejections_total{to=\"prod/orders\"}") >= 1.0);
    let human = ok(botmesh().args(["proxy", "status", "--server", &scene.mesh.host("web-1").admin()]));
    assert!(human.contains("left out for"), "{human}");
    scene.signal("web-3", Signal::SIGCONT);
    eventually("it to be used again", || {
        assert_eq!(checkout.call("GET", ORDERS_HOST, "/orders/1").status, 200);
        let used = scene.orders()["endpoints"]
            .as_array()?
            .iter()
            .all(|one| one["left_out_ms"].is_null());
        used.then_some(())
    });
    assert!(!scene.mesh.host("web-3").query("direction=in verdict=allow").is_empty());
    assert_eq!(
        scene.metric("web-1", "botmesh_ejected_endpoints{to=\"prod/orders\"}"),
        0.0
    );
}

/// Kills web-3's proxy under calls of both kinds; says which of them failed.
fn killed_under_calls(scene: &mut Scene) -> Vec<(String, u64)> {
    let mut calls = gets(CHECKOUT, 6);
    calls.extend((0..6).map(|number| (CHECKOUT, "POST", format!("/wait/post-{number}"))));
    let answers = at_once(scene, &calls, || {
        eventually("all calls at the callee", || {
            let seen = scene.seen();
            (seen.values().sum::<u64>() == 12).then_some(())
        });
        scene.signal("web-3", Signal::SIGKILL);
        eventually("the other host to have what may be sent again", || {
            let over = scene.metric("web-1", "botmesh_calls_in_flight") + failed_so_far(scene);
            (over == 12.0).then_some(())
        });
        scene.open();
    });
    let told = calls
        .iter()
        .zip(&answers)
        .map(|((_, method, path), answer)| (format!("{method} {path}"), answer.status));
    told.collect()
}

fn failed_so_far(scene: &Scene) -> f64 {
    scene.metric("web-1", "botmesh_denied_total{reason=\"peer_unreachable\"}")
}

#[test]
fn what_may_be_repeated_is_sent_again_when_its_host_dies_and_nothing_else_is() {
    if !root_or_skip("a host that dies under calls") {
        return;
    }
    let mut scene = Scene::start(&["web-1", "web-2", "web-3"], "", "");
    let answers = killed_under_calls(&mut scene);
    println!("{answers:?}");
    let failed: Vec<_> = answers.iter().filter(|(_, status)| *status != 200).collect();
    assert!(!failed.is_empty(), "some were at the host that died: {answers:?}");
    assert!(
        failed
            .iter()
            .all(|(call, status)| call.starts_with("POST") && *status == 502),
        "{answers:?}"
    );
    let seen = scene.seen();
    assert!(
        seen.iter()
            .all(|(call, times)| *times == 1 || (call.starts_with("GET") && *times == 2)),
        "{seen:?}"
    );
    let again = seen.values().filter(|times| **times == 2).count();
    assert!(again >= 1, "{seen:?}");
    let tried = eventually("the records of those calls, which say so", || {
        Some(scene.tried_twice()).filter(|tried| tried.len() == again)
    });
    assert!(tried.iter().all(|call| call["status"] == 200), "{tried:?}");
    assert_eq!(
        scene.metric("web-1", "botmesh_retries_total{result=\"sent\",to=\"prod/orders\"}"),
        again as f64
    );
}

#[test]
fn nothing_that_may_have_begun_is_sent_again_where_the_mesh_says_so() {
    if !root_or_skip("retries: 0") {
        return;
    }
    let mut scene = Scene::start(
        &["web-1", "web-2", "web-3"],
        "",
        "destinations: {prod/orders: {retries: 0}}\n",
    );
    let answers = killed_under_calls(&mut scene);
    assert!(
        answers
            .iter()
            .any(|(call, status)| call.starts_with("GET") && *status == 502),
        "{answers:?}"
    );
    assert!(scene.seen().values().all(|times| *times == 1));
}

#[test]
fn calls_that_fail_one_after_another_are_refused_for_a_while_and_only_their_callers() {
    if !root_or_skip("a breaker that opens") {
        return;
    }
    let mut scene = Scene::start(&["web-1", "web-2"], "", "");
    let [mut checkout, mut report] = [CHECKOUT, REPORT].map(|uid| scene.caller(uid));
    assert_eq!(checkout.call("GET", ORDERS_HOST, "/orders/1").status, 200);
    let log = scene.callee.as_mut().unwrap();
    log.kill();
    let answers: Vec<_> = (0..7).map(|_| checkout.call("GET", ORDERS_HOST, "/orders/1")).collect();
    let failed = answers
        .iter()
        .take_while(|answer| refused(answer, "peer_unreachable"))
        .count();
    assert_eq!(failed, 5);
    assert!(
        answers[5..].iter().all(|answer| refused(answer, "breaker_open")),
        "{answers:?}"
    );
    assert!(
        refused(&report.call("GET", ORDERS_HOST, "/orders/1"), "peer_unreachable"),
        "another caller is not shut out"
    );
    assert_eq!(scene.orders()["shut_out"][0]["from"], "prod/checkout");
    let human = ok(botmesh().args(["proxy", "status", "--server", &scene.mesh.host("web-1").admin()]));
    assert!(human.contains("prod/checkout is refused for"), "{human}");
    assert_eq!(
        scene.metric("web-1", "botmesh_breaker_opened_total{to=\"prod/orders\"}"),
        1.0
    );
    assert_eq!(scene.metric("web-1", "botmesh_breakers_open{to=\"prod/orders\"}"), 1.0);
    assert_eq!(
        scene.mesh.host("web-1").query("reason=breaker_open").len(),
        2,
        "each refusal is a record"
    );
    assert!(
        scene.mesh.host("web-2").query("direction=in").len() <= 7,
        "the callee's host is not asked meanwhile"
    );
    scene.serve();
    eventually("a call to try it", || {
        (checkout.call("GET", ORDERS_HOST, "/orders/1").status == 200).then_some(())
    });
    for _ in 0..5 {
        assert_eq!(
            checkout.call("GET", ORDERS_HOST, "/orders/1").status,
            200,
            "it is closed again"
        );
    }
}

#[test]
fn a_callee_of_this_host_that_fails_opens_the_breaker_too_unless_the_mesh_says_never() {
    if !root_or_skip("a breaker on one host") {
        return;
    }
    let scene = Scene::start(&["web-1", "web-2"], "", "");
    let more = |failures: u32| {
        let text = mesh_file(
            scene.port,
            &format!("destinations: {{prod/orders: {{max_failures: {failures}}}}}\n"),
        );
        text.replace("[web-2, web-3]", "[web-1]")
            .replace(&format!("http: {}", scene.port), "http: 1")
    };
    for (failures, reason) in [(0, "peer_unreachable"), (2, "breaker_open")] {
        scene.mesh.apply(&more(failures));
        let mut report = scene.caller(REPORT);
        let answers: Vec<_> = (0..8).map(|_| report.call("GET", ORDERS_HOST, "/orders/1")).collect();
        assert!(refused(answers.last().unwrap(), reason), "{answers:?}");
    }
}

#[test]
fn under_twice_the_calls_that_are_carried_the_rest_is_refused_at_once_and_others_are_served_as_ever() {
    if !root_or_skip("load that is shed") {
        return;
    }
    let of_callee = "destinations: {prod/orders: {max_in_flight: 100}}\n";
    let scene = Scene::start(&["web-1", "web-2"], "bounds: {calls: 8}", of_callee);
    let mut report = scene.caller(REPORT);
    let one = |report: &mut Caller| {
        let began = Instant::now();
        let answer = report.call("GET", ORDERS_HOST, "/orders/1");
        assert_eq!(answer.status, 200, "{}", answer.body);
        began.elapsed()
    };
    let median = |waits: &mut Vec<Duration>| {
        waits.sort();
        waits[waits.len() / 2]
    };
    let mut before: Vec<_> = (0..20).map(|_| one(&mut report)).collect();
    let mut during = Vec::new();
    let answers = at_once(&scene, &gets(CHECKOUT, 16), || {
        scene.in_flight("web-1", 6.0);
        eventually("the rest to be refused", || {
            (scene.metric("web-1", "botmesh_shed_total{bound=\"caller\"}") == 10.0).then_some(())
        });
        during = (0..20).map(|_| one(&mut report)).collect();
        let two = gets(REPORT, 3);
        let answers = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| at_once(&scene, &two, || {}));
            eventually("the places of the process to be taken", || {
                (scene.metric("web-1", "botmesh_shed_total{bound=\"process\"}") == 1.0).then_some(())
            });
            scene.open();
            waiting.join().unwrap()
        });
        assert_eq!(answers.iter().filter(|answer| refused(answer, "overloaded")).count(), 1);
    });
    let shed = answers.iter().filter(|answer| refused(answer, "overloaded")).count();
    assert_eq!(
        (shed, answers.iter().filter(|answer| answer.status == 200).count()),
        (10, 6)
    );
    let (quiet, loaded) = (median(&mut before), median(&mut during));
    println!("another caller's calls: median {quiet:?} before, {loaded:?} while 10 of 16 calls were shed");
    assert!(loaded < quiet * 5 + Duration::from_millis(20));
    assert_eq!(
        scene.status()["shed"],
        json!({"process": 1, "caller": 10, "callee": 0, "pending": 0})
    );
    scene.in_flight("web-1", 0.0);
}

#[test]
fn a_callee_takes_so_many_calls_at_a_time_of_all_hosts_together() {
    if !root_or_skip("max_in_flight") {
        return;
    }
    let scene = Scene::start(&["web-1", "web-2"], "", "");
    let bounded = mesh_file(scene.port, "destinations: {prod/orders: {max_in_flight: 4}}\n");
    // The callee is at home on web-2 alone; its callers are on both.
    let bounded = bounded.replace("[web-2, web-3]", "[web-2]").replace(
        "hosts: [web-1], attest: {uid: 61003}",
        "hosts: [web-2], attest: {uid: 61003}",
    );
    scene.mesh.apply(&bounded);
    let answers = at_once(&scene, &gets(CHECKOUT, 4), || {
        eventually("three calls of one caller", || (scene.seen().len() == 3).then_some(()));
        let socket = scene.mesh.host("web-2").bot_socket();
        std::thread::scope(|scope| {
            let mut report = Caller::new(REPORT, &socket);
            let fourth = scope.spawn(move || report.call("GET", ORDERS_HOST, "/wait/fourth"));
            eventually("the fourth call", || (scene.seen().len() == 4).then_some(()));
            let mut report = Caller::new(REPORT, &socket);
            let fifth = report.call("GET", ORDERS_HOST, "/wait/fifth");
            assert!(refused(&fifth, "overloaded"), "{}", fifth.body);
            scene.open();
            assert_eq!(fourth.join().unwrap().status, 200);
        });
    });
    assert_eq!(
        answers.iter().filter(|answer| refused(answer, "overloaded")).count(),
        1,
        "{answers:?}"
    );
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 3);
    assert_eq!(
        scene.metric("web-1", "botmesh_shed_total{bound=\"callee\"}"),
        1.0,
        "the fourth of one caller"
    );
    assert_eq!(
        scene.metric("web-2", "botmesh_shed_total{bound=\"callee\"}"),
        1.0,
        "the fifth of all"
    );
}

#[test]
fn so_many_calls_of_one_caller_wait_for_a_connection() {
    if !root_or_skip("max_pending") {
        return;
    }
    let scene = Scene::start(
        &["web-1", "web-2"],
        "",
        "destinations: {prod/orders: {max_pending: 2}}\n",
    );
    scene.signal("web-2", Signal::SIGSTOP);
    let answers = at_once(&scene, &gets(CHECKOUT, 5), || {
        eventually("the rest to be refused", || {
            (scene.metric("web-1", "botmesh_shed_total{bound=\"pending\"}") == 3.0).then_some(())
        });
        scene.open();
        scene.signal("web-2", Signal::SIGCONT);
    });
    assert_eq!(
        answers.iter().filter(|answer| refused(answer, "overloaded")).count(),
        3,
        "{answers:?}"
    );
    assert_eq!(
        answers.iter().filter(|answer| answer.status == 200).count(),
        2,
        "{answers:?}"
    );
}

/// Opens this many connections to a proxy by HTTP/2 and prints what each may be sent before somebody reads: the window of
/// the connection and that of a stream.
const WINDOWS: &str = r#"
import socket, struct, sys

def frame(kind, flags, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + bytes(4) + payload

def exactly(s, n):
    data = b""
    while len(data) < n:
        data += s.recv(n - len(data)) or sys.exit("closed")
    return data

kept = []
for _ in range(int(sys.argv[2])):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    s.connect(sys.argv[1])
    s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, b"") + frame(6, 0, b"12345678"))
    connection = stream = 65535
    while True:
        head = exactly(s, 9)
        payload = exactly(s, int.from_bytes(head[:3], "big"))
        if head[3] == 4 and not head[4] & 1:
            for at in range(0, len(payload), 6):
                key, value = struct.unpack(">HI", payload[at:at + 6])
                stream = value if key == 4 else stream
        if head[3] == 8 and head[5:] == bytes(4):
            connection += struct.unpack(">I", payload)[0]
        # Answers to PING overtake windows: what the first one overtook is there before the second.
        if head[3] == 6 and head[4] & 1:
            if payload == b"87654321":
                break
            s.sendall(frame(6, 0, b"87654321"))
    print(connection, stream)
    kept.append(s)
"#;

#[test]
fn what_unread_bodies_may_fill_is_bounded_for_all_connections_together() {
    if !root_or_skip("windows") {
        return;
    }
    let scene = Scene::start(&["web-1", "web-2"], "bounds: {buffered: 8MiB}", "");
    let socket = scene.mesh.host("web-1").dir.join("bot.sock");
    let windows = || {
        let mut command = as_user(PYTHON, CHECKOUT);
        command.args(["-c", WINDOWS]).arg(&socket).arg("3");
        ok(&mut command)
    };
    assert_eq!(windows(), "4194304 1048576\n4194304 1048576\n65535 16383\n");
    eventually("the windows to be free again", || {
        windows().starts_with("4194304").then_some(())
    });
    let mut checkout = scene.caller(CHECKOUT);
    assert_eq!(checkout.call("GET", ORDERS_HOST, "/orders/1").status, 200);
}
