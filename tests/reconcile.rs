//! The two ends of calls held against each other: nothing is found where both proxies are honest, and exactly what one of them
//! left out or wrote differently where it is not.

use std::path::{Path, PathBuf};
use std::time::Duration;

use audit::{EndRecord, Ledger, LedgerConfig, Record, Start, Verdict};
use serde_json::Value;
use spiffe::time::Clock;

use crate::kill::Streaming;
use crate::spine::{CHECKOUT, REPORT, two_hosts_at};
use crate::support::hand::Hand;
use crate::support::load::Load;
use crate::support::{Caller, Mesh, both, botmesh, eventually_within, root_or_skip, run};

const MINUTE: Duration = Duration::from_secs(61);

/// What is in a ledger only after a while is at its edge before.
fn past_the_edge(hand: &Hand, checkout: &mut Caller) {
    hand.forward(MINUTE);
    eventually_within(Duration::from_secs(20), "a call after a minute", || {
        (checkout.call("GET", "orders.prod.mesh", "/orders/1").status == 200).then_some(())
    });
}

/// Calls of all sorts, between two hosts and on one, some refused at either end, with restarts and a kill between them.
fn some_calls(hand: &Hand, mesh: &mut Mesh) {
    let socket = mesh.host("web-1").bot_socket();
    let mut checkout = Caller::new(CHECKOUT, &socket);
    past_the_edge(hand, &mut checkout);
    let mut load = Load::start(CHECKOUT, mesh.host("web-1"), 100);
    load.more(150);
    for (method, path) in [
        ("GET", "/orders/7?page=2&size=9"),
        ("POST", "/refunds"),
        ("DELETE", "/orders/7"),
        ("GET", "/admin/keys"),
        ("GET", "/orders/%7Eme"),
    ] {
        checkout.call(method, "orders.prod.mesh", path);
    }
    checkout.call("GET", "stock.prod.mesh", "/stock/7");
    Caller::new(REPORT, &socket).call("GET", "orders.prod.mesh", "/years/2019");
    let streams = ["get", "upload"].map(|kind| {
        let path = if kind == "get" {
            "/orders/ticks-fast"
        } else {
            "/refunds"
        };
        Streaming::open(CHECKOUT, &socket, path, kind)
    });
    load.stop();
    // Whatever is under way when a proxy is killed has no end there.
    mesh.restart("web-1");
    mesh.wait_for("web-1", "/readyz");
    drop(streams);
    mesh.host_mut("web-2").process.terminate();
    checkout.call("GET", "orders.prod.mesh", "/orders/9");
    mesh.restart("web-2");
    mesh.wait_for("web-2", "/readyz");
    past_the_edge(hand, &mut checkout);
    checkout.call("GET", "stock.prod.mesh", "/stock/8");
    past_the_edge(hand, &mut checkout);
}

fn reconciled(ledgers: [&Path; 2]) -> (Option<i32>, Value) {
    let out = run(botmesh().args(["audit", "reconcile", "-o", "json"]).args(ledgers));
    let told = serde_json::from_slice(&out.stdout).unwrap_or_else(|error| panic!("{error}: {}", both(&out)));
    (out.status.code(), told)
}

/// The ledger that a proxy would have which had left out or changed records: written anew, and sealed with the same key.
fn lying(of: &Path, to: &Path, lie: impl Fn(Record) -> Option<Record>) -> PathBuf {
    let mut records = audit::tail(of, Start::First)
        .unwrap()
        .map(|entry| Record::decode(&entry.unwrap().line).unwrap())
        .peekable();
    let Some(Record::Segment(first)) = records.peek() else {
        panic!("a ledger begins with a segment's record")
    };
    let (clock, hand) = Clock::fixed(first.time);
    std::fs::copy(of.with_file_name("log.key"), to.join("log.key")).unwrap();
    let dir = to.join("ledger");
    let (ledger, _report) = Ledger::open(
        LedgerConfig {
            dir: dir.clone(),
            key_file: to.join("log.key"),
            origin: std::fs::read_to_string(of.join("checkpoint"))
                .unwrap()
                .lines()
                .next()
                .unwrap()
                .to_owned(),
            sync: Duration::from_millis(5),
            max_bytes: 1 << 30,
            retention: None,
        },
        clock,
    )
    .unwrap();
    for record in records.filter_map(lie) {
        match record {
            Record::Call(call) if call.verdict == Verdict::Deny => {
                hand.set(call.time);
                assert!(ledger.deny(&call).is_ok());
            }
            Record::Call(call) => {
                hand.set(call.time);
                let _receipt = ledger.call(&call).unwrap();
            }
            Record::End(end) => ledger.end(&end),
            Record::Event(event) => {
                ledger.event(&event).unwrap();
            }
            Record::Segment(_) | Record::Refusals(_) | Record::Strangers(_) => {}
        }
    }
    ledger.shutdown();
    let out = run(botmesh().args(["audit", "verify"]).arg(&dir));
    assert!(out.status.success(), "by itself it is whole: {}", both(&out));
    dir
}

/// The word, the call and the key of each finding.
fn found(told: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let items = told["items"].as_array().unwrap().iter();
    let mut found: Vec<_> = items
        .map(|item| (text(&item["what"]), text(&item["call"]), text(&item["key"])))
        .collect();
    found.sort();
    found
}

#[test]
fn two_honest_proxies_agree_and_of_a_lying_one_exactly_its_lies_are_found() {
    if !root_or_skip("the two ends of calls") {
        return;
    }
    let dir = tempfile::Builder::new().prefix("bm").tempdir().unwrap();
    let hand = Hand::new(dir.path());
    let mut mesh = two_hosts_at(&hand);
    some_calls(&hand, &mut mesh);
    for host in ["web-1", "web-2"] {
        mesh.host_mut(host).process.terminate();
    }
    let (caller, callee) = (mesh.host("web-1").ledger(), mesh.host("web-2").ledger());
    let (code, told) = reconciled([&caller, &callee]);
    println!("{told:#}");
    assert_eq!((code, found(&told)), (Some(0), vec![]), "{told:#}");
    let count = |key: &str| told[key].as_u64().unwrap();
    assert!(
        count("paired") > 150 && count("outgoing") >= count("paired"),
        "{told:#}"
    );

    // Calls in the middle, each whole at both ends.
    let whole = run(botmesh()
        .args([
            "audit",
            "query",
            "kind=call direction=out verdict=allow status=200 path=/orders/*",
            "-o",
            "jsonl",
        ])
        .arg(&caller));
    let whole: Vec<Value> = String::from_utf8_lossy(&whole.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|call: &Value| call["outcome"] == "done" && call["hop"] == "mtls")
        .collect();
    let id = |number: usize| whole[whole.len() / 2 + number]["id"].as_str().unwrap().to_owned();
    let (dropped, altered, other_end) = (id(0), id(1), id(2));

    // The callee's proxy leaves one out, writes another path of a second, and another status of a third.
    let own = |peer: &str| {
        let filter = format!("id={peer} direction=in kind=call");
        let out = run(botmesh().args(["audit", "query", &filter, "-o", "jsonl"]).arg(&callee));
        let call: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|error| panic!("{error}: {}", both(&out)));
        call["id"].as_str().unwrap().to_owned()
    };
    let (dropped_there, altered_there, end_there) = (own(&dropped), own(&altered), own(&other_end));
    let lie = |record: Record| match record {
        Record::Call(call) if call.id.to_string() == dropped_there => None,
        Record::End(end) if end.id.to_string() == dropped_there => None,
        Record::Call(mut call) if call.id.to_string() == altered_there => {
            call.path = "/orders/other".to_owned();
            Some(Record::Call(call))
        }
        Record::End(end) if end.id.to_string() == end_there => Some(Record::End(EndRecord {
            status: Some(404),
            ..end
        })),
        other @ (Record::Call(_)
        | Record::End(_)
        | Record::Event(_)
        | Record::Refusals(_)
        | Record::Strangers(_)
        | Record::Segment(_)) => Some(other),
    };
    let folder = tempfile::tempdir().unwrap();
    let (code, told) = reconciled([&caller, &lying(&callee, folder.path(), lie)]);
    let all = |mut wanted: Vec<(&str, &str, &str)>| {
        wanted.sort_unstable();
        let own = |(what, call, key): (&str, &str, &str)| (what.to_owned(), call.to_owned(), key.to_owned());
        wanted.into_iter().map(own).collect::<Vec<_>>()
    };
    let wanted = all(vec![
        ("not_at_callee", &dropped, ""),
        ("differs", &altered, "path"),
        ("differs", &other_end, "status"),
    ]);
    assert_eq!((code, found(&told)), (Some(1), wanted), "{told:#}");

    // The caller's proxy leaves one out, and says of another that somebody else made it.
    let lie = |record: Record| match record {
        Record::Call(call) if call.id.to_string() == dropped => None,
        Record::End(end) if end.id.to_string() == dropped => None,
        Record::Call(mut call) if call.id.to_string() == altered => {
            call.from.id = Some(spiffe::id::SpiffeId::parse("spiffe://acme.internal/prod/report").unwrap());
            Some(Record::Call(call))
        }
        other @ (Record::Call(_)
        | Record::End(_)
        | Record::Event(_)
        | Record::Refusals(_)
        | Record::Strangers(_)
        | Record::Segment(_)) => Some(other),
    };
    let folder = tempfile::tempdir().unwrap();
    let (code, told) = reconciled([&lying(&caller, folder.path(), lie), &callee]);
    let wanted = all(vec![("not_at_caller", &dropped, ""), ("differs", &altered, "from")]);
    assert_eq!((code, found(&told)), (Some(1), wanted), "{told:#}");
    let out = run(botmesh()
        .args(["audit", "reconcile"])
        .arg(folder.path().join("ledger"))
        .arg(&callee));
    println!("{}", both(&out));
    assert!(
        both(&out).contains("in the callee's ledger, and not in its caller's"),
        "{}",
        both(&out)
    );
}

#[test]
fn of_a_proxy_that_leaves_a_call_out_and_one_that_alters_another_exactly_these_are_found() {
    if !root_or_skip("the two ends of calls") {
        return;
    }
    let dir = tempfile::Builder::new().prefix("bm").tempdir().unwrap();
    let hand = Hand::new(dir.path());
    let mut mesh = two_hosts_at(&hand);
    mesh.restart_lying("web-1", "leave_out=/orders/13");
    mesh.restart_lying("web-2", "leave_out=/orders/14 alter=/orders/15");
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    past_the_edge(&hand, &mut checkout);
    let calls: Vec<String> = (0..30)
        .map(|number| {
            let answer = checkout.call("GET", "orders.prod.mesh", &format!("/orders/{number}"));
            assert_eq!(answer.status, 200, "it is answered like every other: {}", answer.body);
            answer.header("botmesh-call").unwrap().to_owned()
        })
        .collect();
    past_the_edge(&hand, &mut checkout);
    for host in ["web-1", "web-2"] {
        mesh.host_mut(host).process.terminate();
        assert!(mesh.host(host).verify().status.success(), "by itself {host} is whole");
    }
    let (code, told) = reconciled([&mesh.host("web-1").ledger(), &mesh.host("web-2").ledger()]);
    println!("{told:#}");
    let mut wanted = [
        ("not_at_caller", &calls[13], ""),
        ("not_at_callee", &calls[14], ""),
        ("differs", &calls[15], "path"),
    ]
    .map(|(what, call, key)| (what.to_owned(), call.clone(), key.to_owned()));
    wanted.sort();
    assert_eq!((code, found(&told)), (Some(1), wanted.to_vec()), "{told:#}");
}
