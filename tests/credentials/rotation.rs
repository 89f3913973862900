//! New values for credentials, on all hosts that need them: in steps, and without a call that fails.

use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::Value;

use super::scene::{Service, X_KEY, told};
use crate::spine::CHECKOUT;
use crate::support::{Caller, both, botmesh, eventually, ok, root_or_skip, run};

const NEXT: &str = "sk-ant-the-next-one-0001";
const HOSTS: [&str; 3] = ["web-1", "web-2", "web-3"];

/// How many processes call on each host at once: together more than 200 times a second.
const CALLERS: usize = 5;

/// A service, and a mesh whose hosts have the key that it takes.
struct Fleet {
    service: Service,
    hosts: &'static [&'static str],
}

impl Fleet {
    fn start(hosts: &'static [&'static str]) -> Self {
        let service = Service::on_hosts(hosts);
        let fleet = Self { service, hosts };
        for host in hosts {
            let admin = fleet.service.scene.mesh.host(host).admin();
            let put = told(&["secret", "put", "x-key", "--server", &admin], X_KEY);
            assert!(put.status.success(), "{}", both(&put));
        }
        fleet
    }

    /// A caller at the proxy of a host.
    fn caller(&self, host: &str) -> Caller {
        Caller::new(CHECKOUT, &self.service.scene.mesh.host(host).bot_socket())
    }

    fn rotate(&self, words: &[&str], value: &str) -> Output {
        let server = self.service.scene.mesh.server();
        let mut all = vec!["secret", "rotate", "x-key", "--server", &server];
        all.extend(words);
        told(&all, value)
    }

    fn begin(&self, words: &[&str], value: &str) -> Output {
        let mut all = vec!["--reason", "the quarter is over"];
        all.extend(words);
        self.rotate(&all, value)
    }

    fn status(&self) -> Value {
        let out = self.rotate(&["--status", "-o", "json"], "");
        assert!(out.status.success(), "{}", both(&out));
        serde_json::from_slice(&out.stdout).unwrap()
    }

    fn phase(&self) -> String {
        self.status()["rotation"]["phase"].as_str().unwrap().to_owned()
    }

    /// The file of a value that is not in use.
    fn file(&self, host: &str, which: &str) -> PathBuf {
        let dir = &self.service.scene.mesh.host(host).dir;
        dir.join(format!("credentials/x-key.age.{which}"))
    }

    /// The phases that the ledger of the CA has.
    fn recorded(&self) -> Vec<String> {
        let ledger = self.service.scene.mesh.ca_ledger();
        let out = ok(botmesh()
            .args(["audit", "query", "kind=credential_rotated", "-o", "jsonl"])
            .arg(ledger));
        let lines = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let phase = |event: Value| event["detail"]["phase"].as_str().unwrap().to_owned();
        lines.map(phase).collect()
    }
}

/// Calls on every host at once while something is done; gives how many there were.
fn under_calls<T>(fleet: &Fleet, work: impl FnOnce() -> T) -> (u64, T) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let callers = fleet.hosts.iter().flat_map(|host| [host; CALLERS]);
        let calling: Vec<_> = callers
            .map(|host| {
                let (mut caller, over) = (fleet.caller(host), &over);
                scope.spawn(move || {
                    let mut calls = 0;
                    while !over.load(Ordering::Relaxed) {
                        let answer = caller.call("GET", "header.example.com", "/echo");
                        assert_eq!(answer.status, 200, "{host}: {}", answer.body);
                        calls += 1;
                    }
                    calls
                })
            })
            .collect();
        let done = work();
        over.store(true, Ordering::Relaxed);
        let calls = calling.into_iter().map(|caller| caller.join().unwrap());
        (calls.sum(), done)
    })
}

#[test]
fn a_new_value_reaches_every_host_in_steps_and_no_call_is_refused() {
    if !root_or_skip("credentials") {
        return;
    }
    let fleet = Fleet::start(&HOSTS);
    fleet.service.takes("x+", NEXT);
    let began = Instant::now();
    let (calls, out) = under_calls(&fleet, || {
        let out = fleet.begin(&[], NEXT);
        // The old value is revoked at the service while the bots go on.
        fleet.service.takes("x", NEXT);
        eventually("the old value to be refused, and thrown away", || {
            (fleet.phase() == "revoked").then_some(())
        });
        eventually("every host to have heard it", || {
            let all = fleet.status()["hosts"].as_array().unwrap().clone();
            all.iter().all(|host| host["phase"] == "revoked").then_some(())
        });
        out
    });
    let text = both(&out);
    assert!(out.status.success(), "{text}");
    for line in [
        "staged    3 of 3 hosts",
        "probed    GET https://header.example.com/probe answered 200",
        "canary    prod/checkout on web-1: ",
        ", none refused",
        "current   3 of 3 hosts",
        "next      revoke the value before at the service",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let rate = calls * 1000 / u64::try_from(began.elapsed().as_millis()).unwrap();
    println!(
        "rotation under load: {calls} calls at {rate} a second on 3 hosts, 0 refused; 3 of 3 acknowledged, the old value revoked"
    );
    assert_eq!(fleet.recorded(), ["staged", "canary", "current", "revoked"]);
    for host in HOSTS {
        assert!(
            !fleet.file(host, "old").exists() && !fleet.file(host, "next").exists(),
            "{host}"
        );
        let admin = fleet.service.scene.mesh.host(host).admin();
        let tested = ok(botmesh().args(["secret", "test", "x-key", "--server", &admin]));
        let print = fleet.status()["rotation"]["fingerprint"].as_str().unwrap().to_owned();
        assert!(tested.contains(&print), "{host}: {tested}");
    }
    the_inventory_tells_of_it(&fleet);
    fleet.service.nobody_has_a_key();
    nobody_has(&fleet, NEXT);
}

/// What an operator sees of the mesh.
fn the_inventory_tells_of_it(fleet: &Fleet) {
    let listed = ok(botmesh()
        .args(["secret", "list", "--all", "--server"])
        .arg(fleet.service.scene.mesh.server()));
    let row = listed.lines().find(|line| line.starts_with("x-key")).unwrap();
    for word in [
        "https://header.example.com",
        "prod",
        "cx@acme.internal",
        "ago",
        "prod/checkout",
        "static",
    ] {
        assert!(row.contains(word), "{word}: {listed}");
    }
    let shared = listed.lines().find(|line| line.starts_with("aws-api-key")).unwrap();
    assert!(shared.contains("none in the last hour, 1 may"), "{listed}");
}

/// Looks for a value in everything that the mesh has written.
fn nobody_has(fleet: &Fleet, value: &str) {
    let mut files = vec![fleet.service.scene.mesh.dir().to_owned()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.is_file() {
            let bytes = fs::read(&path).unwrap();
            assert!(
                memchr::memmem::find(&bytes, value.as_bytes()).is_none(),
                "{}",
                path.display()
            );
        }
    }
}

#[test]
fn a_value_that_the_service_refuses_is_given_up_before_a_bot_has_it() {
    if !root_or_skip("credentials") {
        return;
    }
    let fleet = Fleet::start(&["web-1"]);
    let out = fleet.begin(&[], NEXT);
    let text = both(&out);
    assert_eq!(out.status.code(), Some(1), "{text}");
    let why = "the service refuses the new value: GET https://header.example.com/probe answered 401";
    assert!(
        text.contains(why) && text.contains("every bot goes on with the value in use"),
        "{text}"
    );
    assert_eq!(fleet.phase(), "aborted");
    eventually("the value to be deleted", || {
        (!fleet.file("web-1", "next").exists()).then_some(())
    });
    assert_eq!(
        fleet.caller("web-1").call("GET", "header.example.com", "/echo").status,
        200
    );
    assert_eq!(fleet.recorded(), ["staged", "aborted"]);
    let resumed = fleet.rotate(&["--resume"], "");
    assert!(
        both(&resumed).contains("the rotation was aborted: begin a new one"),
        "{}",
        both(&resumed)
    );
    let probe = fleet.service.last_call("path=/probe");
    assert_eq!(
        (&probe["path"], &probe["rule"]),
        (&"/probe".into(), &"header".into()),
        "{probe}"
    );
}

#[test]
fn a_value_that_one_bot_is_refused_with_reaches_no_other() {
    if !root_or_skip("credentials") {
        return;
    }
    let fleet = Fleet::start(&["web-1", "web-2"]);
    fleet.service.takes("x@/probe", NEXT);
    let over = AtomicBool::new(false);
    let out = std::thread::scope(|scope| {
        let (mut canary, mut other, over) = (fleet.caller("web-1"), fleet.caller("web-2"), &over);
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                canary.call("GET", "header.example.com", "/echo");
                assert_eq!(other.call("GET", "header.example.com", "/echo").status, 200, "web-2");
            }
        });
        let out = fleet.begin(&["--canary", "prod/checkout"], NEXT);
        over.store(true, Ordering::Relaxed);
        out
    });
    let text = both(&out);
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(
        text.contains("calls of prod/checkout with the new value were refused by the service"),
        "{text}"
    );
    assert_eq!(fleet.phase(), "aborted");
    let mut caller = fleet.caller("web-1");
    eventually("the canary to have the value in use again", || {
        (caller.call("GET", "header.example.com", "/echo").status == 200).then_some(())
    });
}

#[test]
fn a_host_that_is_away_is_waited_for_or_left_out_and_gets_the_value_when_it_is_back() {
    if !root_or_skip("credentials") {
        return;
    }
    let mut fleet = Fleet::start(&["web-1", "web-2"]);
    fleet.service.takes("x+", NEXT);
    fleet.service.scene.mesh.host_mut("web-2").process.terminate();
    eventually("the CA to notice", || {
        let hosts = fleet.status()["hosts"].clone();
        (hosts[1]["connected"] == false).then_some(())
    });
    let out = fleet.begin(&["--wait", "1s"], NEXT);
    let text = both(&out);
    assert_eq!(out.status.code(), Some(4), "{text}");
    assert!(
        text.contains("1 of 2 hosts, and not staged yet on web-2 (away)"),
        "{text}"
    );
    // A second rotation would lose the first.
    let again = both(&fleet.begin(&[], "sk-ant-yet-another-one-01"));
    assert!(
        again.contains("another rotation is under way") && again.contains("--resume"),
        "{again}"
    );
    let out = fleet.rotate(&["--resume", "--without-away", "--canary-for", "1s"], "");
    let text = both(&out);
    assert!(out.status.success(), "{text}");
    assert!(text.contains("prod/checkout on web-1 made no call within 1s"), "{text}");
    assert!(text.contains("current   1 of 2 hosts"), "{text}");
    fleet.service.scene.mesh.restart("web-2");
    fleet.service.scene.mesh.wait_for("web-2", "/readyz");
    fleet.service.takes("x", NEXT);
    eventually("the host to have the value", || {
        (fleet.caller("web-2").call("GET", "header.example.com", "/echo").status == 200).then_some(())
    });
    eventually("the rotation to be over", || (fleet.phase() == "revoked").then_some(()));
    // What a CA knows it knows after a restart too.
    fleet.service.scene.mesh.restart_ca();
    eventually("the CA to answer", || {
        fleet.rotate(&["--status"], "").status.success().then_some(())
    });
    assert_eq!(fleet.phase(), "revoked");
    eventually("both hosts to be there", || {
        let hosts = fleet.status()["hosts"].as_array().unwrap().clone();
        hosts.iter().all(|host| host["connected"] == true).then_some(())
    });
    let evicted = run(botmesh().args(["host", "evict", "web-2", "--server", &fleet.service.scene.mesh.server()]));
    assert!(evicted.status.success(), "{}", both(&evicted));
    let hosts = fleet.status()["hosts"].clone();
    assert_eq!(hosts.as_array().unwrap().len(), 1, "{hosts}");
}

#[test]
fn what_cannot_be_rotated_is_refused_with_what_to_do() {
    if !root_or_skip("credentials") {
        return;
    }
    let fleet = Fleet::start(&["web-1"]);
    let server = fleet.service.scene.mesh.server();
    let none = both(&told(
        &["secret", "rotate", "x-kye", "--reason", "r", "--server", &server],
        NEXT,
    ));
    assert!(
        none.contains("no bot of a host that has joined uses a credential of that name"),
        "{none}"
    );
    assert!(none.contains("x-key"), "it says which there are: {none}");
    assert!(both(&fleet.rotate(&[], NEXT)).contains("say why: --reason REASON"));
    assert!(both(&fleet.begin(&[], "short")).contains("the value has 5 bytes, and a credential at least 8"));
    let nobody = both(&fleet.begin(&["--canary", "prod/report"], NEXT));
    assert!(nobody.contains("prod/report may not use x-key"), "{nobody}");
    assert!(both(&fleet.rotate(&["--resume"], "")).contains("no rotation of x-key has begun"));
    // Without a probe nobody can tell that the old value is refused, but an operator.
    let begin = [
        "secret",
        "rotate",
        "bearer-key",
        "--reason",
        "r",
        "--canary-for",
        "1s",
        "--server",
        &server,
    ];
    let out = told(&begin, NEXT);
    assert!(out.status.success(), "{}", both(&out));
    assert!(
        both(&out).contains("botmesh secret rotate bearer-key --revoked"),
        "{}",
        both(&out)
    );
    let over = told(
        &["secret", "rotate", "bearer-key", "--revoked", "--server", &server],
        "",
    );
    assert!(
        both(&over).contains("the hosts delete the value before"),
        "{}",
        both(&over)
    );
}
