//! The kill switch: who is cut off calls nobody and is called by nobody, what lives is ended within a second, and it
//! holds through restarts and without the CA.

mod fifty;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::foreign::{curl, sni, with_played_host};
use crate::spine::{CHECKOUT, REPORT, two_hosts, two_hosts_at};
use crate::support::hand::Hand;
use crate::support::join::write_pem;
use crate::support::{Caller, Mesh, PYTHON, as_user, both, botmesh, eventually, ok, root_or_skip, run};

/// What "at once" means, in milliseconds.
const CUT_WITHIN_MS: u128 = 1000;

/// A call under way that has no end of its own.
pub(crate) struct Streaming {
    child: Child,
    from: BufReader<ChildStdout>,
}

impl Streaming {
    pub(crate) fn open(uid: u32, proxy: &str, path: &str, kind: &str) -> Self {
        let mut command = as_user(PYTHON, uid);
        command.args([
            "-c",
            include_str!("support/stream.py"),
            proxy,
            "orders.prod.mesh",
            path,
            kind,
        ]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        let mut streaming = Self { child, from };
        assert_eq!(streaming.line(), "open\n");
        streaming
    }

    /// The three shapes in which a call can live long: an answer that comes in small pieces, one that stands still, and
    /// a body that is sent on and on.
    fn of_every_kind(uid: u32, proxy: &str) -> Vec<Self> {
        vec![
            Self::open(uid, proxy, "/orders/ticks-fast", "get"),
            Self::open(uid, proxy, "/orders/ticks-idle", "get"),
            Self::open(uid, proxy, "/refunds", "upload"),
        ]
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line
    }

    /// Waits for the end, which must come within a second of `since`; says after how many milliseconds it came.
    pub(crate) fn cut_since(mut self, since: u128) -> u128 {
        let line = self.line();
        let at: u128 = line
            .split(' ')
            .nth(1)
            .and_then(|at| at.parse().ok())
            .unwrap_or_else(|| panic!("{line:?}"));
        let after = at.saturating_sub(since);
        assert!(after <= CUT_WITHIN_MS, "cut after {after} ms: {line}");
        after
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(crate) fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

fn refused(answer: &crate::support::Answer, reason: &str) {
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (403, reason),
        "{}",
        answer.body
    );
}

/// Runs a command of the kill switch at a server and reads its JSON.
fn kill(server: &str, args: &[&str]) -> Value {
    let told = ok(botmesh().args(args).args(["-o", "json", "--server", server]));
    serde_json::from_str(&told).unwrap()
}

/// Calls until an answer comes that is not refused.
fn restored(caller: &mut Caller) {
    eventually("calls to go through again", || {
        (caller.call("GET", "orders.prod.mesh", "/orders/17").status == 200).then_some(())
    });
}

/// How the calls of a host ended.
pub(crate) fn outcomes(mesh: &Mesh, host: &str) -> Vec<String> {
    let ends = mesh.host(host).query("kind=end");
    ends.iter()
        .filter_map(|end| Some(end["outcome"].as_str()?.to_owned()))
        .collect()
}

#[test]
fn a_quarantined_bot_is_cut_off_everywhere_through_restarts_until_it_is_released() {
    if !root_or_skip("quarantine") {
        return;
    }
    let mut mesh = two_hosts("");
    let socket = mesh.host("web-1").bot_socket();
    let mut checkout = Caller::new(CHECKOUT, &socket);
    restored(&mut checkout);
    let streams = Streaming::of_every_kind(CHECKOUT, &socket);
    let since = now_ms();
    let told = kill(
        &mesh.server(),
        &["quarantine", "prod/orders", "--reason", "it sells what it has not"],
    );
    let hosts = told["hosts"].as_array().unwrap();
    assert!(
        hosts.len() == 2 && hosts.iter().all(|host| host["state"] == "live"),
        "{told}"
    );
    // Each of the three lives at both ends; the end that is told later may have lost it to the other already.
    assert!(told["streams_cut"].as_u64().unwrap() >= 3, "{told}");
    let after: Vec<u128> = streams.into_iter().map(|stream| stream.cut_since(since)).collect();
    println!(
        "cut after {after:?} ms by the clock of a client; slowest receipt {} ms",
        told["slowest_ms"]
    );
    refused(&checkout.call("GET", "orders.prod.mesh", "/orders/17"), "quarantined");
    let cut = eventually("the ends of the calls", || {
        let all = [outcomes(&mesh, "web-1"), outcomes(&mesh, "web-2")].concat();
        let cut = all.iter().filter(|outcome| *outcome == "quarantined").count();
        (cut >= 3).then_some(cut)
    });
    println!("{cut} ends say quarantined");

    mesh.restart_ca();
    for host in ["web-1", "web-2"] {
        mesh.restart(host);
        mesh.wait_for(host, "/livez");
    }
    let list = eventually("the CA", || {
        let out = run(botmesh().args(["quarantine", "-o", "json", "--server", &mesh.server()]));
        out.status.success().then(|| String::from_utf8(out.stdout).unwrap())
    });
    assert!(list.contains("it sells what it has not"), "{list}");
    let mut checkout = Caller::new(CHECKOUT, &socket);
    eventually("the policy", || {
        let answer = checkout.call("GET", "orders.prod.mesh", "/orders/17");
        assert_ne!(answer.status, 200, "a restart released it");
        (answer.reason() == "quarantined").then_some(())
    });
    kill(&mesh.server(), &["release", "prod/orders"]);
    restored(&mut checkout);
    for kind in ["kind=quarantined", "kind=released"] {
        let events = ok(botmesh()
            .args(["audit", "query", kind, "-o", "jsonl"])
            .arg(mesh.ca_ledger()));
        assert_eq!(events.lines().count(), 1, "{events}");
        assert!(
            events.contains("bot:prod/orders") && events.contains("operator:"),
            "{events}"
        );
    }
}

#[test]
fn the_callees_proxy_refuses_by_itself_whoever_a_played_host_calls_as() {
    if !root_or_skip("quarantine at the callee's end") {
        return;
    }
    let mesh = two_hosts("");
    let edge = with_played_host(&mesh);
    let (chain, key) = edge.issue("prod/checkout").expect("edge-1 may claim prod/checkout");
    let stolen = write_pem(mesh.dir(), "stolen", &chain, &key);
    let port = mesh.host("web-2").ports.mesh;
    let call = || {
        let host = ["-H", "Host: orders.prod.mesh", "--http1.1"];
        curl(port, &sni("prod/orders"), Some(&stolen), &host, "/orders/17")
    };
    assert_eq!(call().0, "200");
    // The played host enforces nothing and says nothing: the command names it.
    for whom in [&["prod/checkout"][..], &["--host", "edge-1"], &["prod/orders"]] {
        let out = run(botmesh()
            .args(["quarantine", "--reason", "stolen", "--server", &mesh.server()])
            .args(whom));
        assert_eq!(out.status.code(), Some(4), "{}", both(&out));
        assert!(both(&out).contains("edge-1 (not connected)"), "{}", both(&out));
        let (status, body) = call();
        assert_eq!(status, "403", "{whom:?}: {body}");
        assert!(body.contains(r#""reason":"quarantined""#), "{whom:?}: {body}");
        let refused = edge.issue("prod/checkout").err();
        let kept = (whom == ["prod/orders"]).then_some("not refused").is_none();
        assert_eq!(refused.as_deref() == Some("quarantined"), kept, "{whom:?}");
        run(botmesh().args(["release", "--server", &mesh.server()]).args(whom));
        eventually("the release", || (call().0 == "200").then_some(()));
    }
    // What an evicted host holds is worth nothing either, long before it ends.
    ok(botmesh().args(["host", "evict", "edge-1", "--server", &mesh.server()]));
    eventually("the eviction", || {
        call().1.contains(r#""reason":"quarantined""#).then_some(())
    });
}

#[test]
fn without_the_ca_one_host_cuts_off_by_itself_and_only_it_releases() {
    if !root_or_skip("quarantine without the CA") {
        return;
    }
    let mut mesh = two_hosts("");
    let (socket, admin) = (mesh.host("web-1").bot_socket(), mesh.host("web-1").admin());
    let mut checkout = Caller::new(CHECKOUT, &socket);
    restored(&mut checkout);
    mesh.ca.kill();
    let streams = Streaming::of_every_kind(CHECKOUT, &socket);
    let since = now_ms();
    let told = kill(&admin, &["quarantine", "prod/checkout", "--reason", "now", "--local"]);
    assert_eq!(told["streams_cut"], 3, "{told}");
    for stream in streams {
        stream.cut_since(since);
    }
    refused(&checkout.call("GET", "orders.prod.mesh", "/orders/17"), "quarantined");
    let file = mesh.host("web-1").dir.join("quarantines.json");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    mesh.restart("web-1");
    mesh.wait_for("web-1", "/livez");
    let mut checkout = Caller::new(CHECKOUT, &socket);
    refused(&checkout.call("GET", "orders.prod.mesh", "/orders/17"), "quarantined");

    mesh.restart_ca();
    mesh.wait_for("web-1", "/readyz");
    let out = eventually("the CA", || {
        let out = run(botmesh().args(["release", "prod/checkout", "--server", &mesh.server()]));
        (out.status.code() != Some(4)).then_some(out)
    });
    assert_eq!(
        out.status.code(),
        Some(2),
        "what a host set the CA does not release: {}",
        both(&out)
    );
    refused(&checkout.call("GET", "orders.prod.mesh", "/orders/17"), "quarantined");
    kill(&admin, &["release", "prod/checkout", "--local"]);
    restored(&mut checkout);

    let out = run(botmesh().args([
        "quarantine",
        "--host",
        "web-2",
        "--reason",
        "r",
        "--local",
        "--server",
        &admin,
    ]));
    assert_eq!(out.status.code(), Some(2), "{}", both(&out));
    kill(
        &admin,
        &["quarantine", "--host", "web-1", "--reason", "the host", "--local"],
    );
    refused(&checkout.call("GET", "orders.prod.mesh", "/orders/17"), "quarantined");
    refused(&checkout.call("GET", "stock.prod.mesh", "/stock/4"), "quarantined");
}

#[test]
fn a_rule_that_is_taken_away_or_ends_takes_its_calls_with_it() {
    if !root_or_skip("a rule change under way") {
        return;
    }
    let dir = tempfile::Builder::new().prefix("bm").tempdir().unwrap();
    let hand = Hand::new(dir.path());
    let mesh = two_hosts_at(&hand);
    let socket = mesh.host("web-1").bot_socket();
    let text = std::fs::read_to_string(mesh.mesh_file()).unwrap();
    let streams = Streaming::of_every_kind(CHECKOUT, &socket);
    let deny = "deny:\n  - {id: stop, from: prod/checkout, to: prod/orders, reason: stop}\n";
    let denied = text.replace("deny:\n", deny);
    let denied = denied.replace("allow: [GET /orders/17], deny: [", "deny: [GET /orders/17, ");
    let since = now_ms();
    let out = mesh.try_apply(&denied);
    assert!(out.status.success(), "{}", both(&out));
    let after: Vec<u128> = streams.into_iter().map(|stream| stream.cut_since(since)).collect();
    println!("a deny rule cut after {after:?} ms");
    eventually("the ends of the calls", || {
        let all = [outcomes(&mesh, "web-1"), outcomes(&mesh, "web-2")].concat();
        all.contains(&"denied_by_rule".to_owned()).then_some(())
    });

    let soon = spiffe::time::Clock::system().now() + Duration::from_secs(600);
    let years = text
        .replace("2020-01-01T00:00:00Z", &soon.to_string())
        .replace("GET /years/*", "GET /orders/*");
    mesh.apply(&years);
    let stream = Streaming::open(REPORT, &socket, "/orders/ticks-idle", "get");
    let since = now_ms();
    hand.forward(Duration::from_secs(660));
    println!("the end of a rule cut after {} ms", stream.cut_since(since));
    eventually("the end of the call", || {
        // Whichever end looks first says why; the other may only see that it was cut.
        let all = [outcomes(&mesh, "web-1"), outcomes(&mesh, "web-2")].concat();
        all.contains(&"rule_expired".to_owned()).then_some(())
    });
}

#[test]
fn an_evicted_hosts_calls_end_at_both_ends() {
    if !root_or_skip("evict under way") {
        return;
    }
    let mesh = two_hosts("");
    let socket = mesh.host("web-1").bot_socket();
    let streams = Streaming::of_every_kind(CHECKOUT, &socket);
    let since = now_ms();
    ok(botmesh().args(["host", "evict", "web-2", "--server", &mesh.server()]));
    for stream in streams {
        stream.cut_since(since);
    }
    let answer = Caller::new(CHECKOUT, &socket).call("GET", "orders.prod.mesh", "/orders/17");
    assert_ne!(answer.status, 200, "{}", answer.body);
}
