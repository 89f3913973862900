//! Calls are forgotten after their time, and what is kept is proven as before.

use std::path::Path;
use std::time::Duration;

use crate::lifetimes::renewed;
use crate::spine::{CHECKOUT, with_callees};
use crate::support::hand::Hand;
use crate::support::{Caller, Host, Mesh, Setup, both, botmesh, eventually_within, ok, root_or_skip, run};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_hours(24);
const PATIENCE: Duration = Duration::from_secs(60);

fn verified(ledger: &Path) -> String {
    let out = run(botmesh().args(["audit", "verify"]).arg(ledger));
    assert!(out.status.success(), "{}", both(&out));
    both(&out)
}

#[test]
fn calls_past_their_time_are_gone_once_they_are_cosigned_and_everything_else_is_proven() {
    if !root_or_skip("retention") {
        return;
    }
    let dir = tempfile::Builder::new().prefix("bm").tempdir().unwrap();
    let hand = Hand::new(dir.path());
    let mesh = with_callees(&Setup {
        hosts: &["web-1", "web-2"],
        clock: Some(hand.path()),
        ledger: ", keep: 1h",
        ..Setup::default()
    });
    let web_1 = mesh.host("web-1");
    let mut checkout = Caller::new(CHECKOUT, &web_1.bot_socket());
    for _ in 0..5 {
        assert_eq!(checkout.call("GET", "orders.prod.mesh", "/orders/17").status, 200);
    }
    hold(web_1);
    let old: Vec<String> = web_1
        .query("kind=call")
        .iter()
        .map(|call| call["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(old.len(), 5);
    assert!(!verified(&web_1.ledger()).contains("pruned"));
    let mut seen = Vec::new();
    for _ in 0..3 {
        hand.forward(28 * MINUTE);
        renewed(&mesh, "web-1", "prod/checkout", &mut seen);
    }
    // What comes after it is not in their segment, and does not stay or go with them.
    eventually_within(PATIENCE, "their segment to end", || {
        let segments = std::fs::read_dir(web_1.ledger().join("segments")).unwrap();
        (segments.count() == 2).then_some(())
    });
    assert_eq!(checkout.call("GET", "orders.prod.mesh", "/orders/18").status, 200);
    let_go(web_1);
    eventually_within(PATIENCE, "the calls to be pruned", || {
        // The next head is cosigned a minute after the last. In small steps, or the call that is to stay would come of age too.
        hand.forward(MINUTE / 60);
        (!web_1.query("kind=pruned").is_empty()).then_some(())
    });
    eventually_within(PATIENCE, "them to be gone", || {
        let gone = old.iter().all(|id| web_1.query(&format!("id={id}")).is_empty());
        gone.then_some(())
    });
    assert_eq!(
        web_1.query("path=/orders/18").len(),
        1,
        "what is not past its time stays"
    );
    assert!(!web_1.query("kind=policy_applied").is_empty(), "and so do events");
    let told = verified(&web_1.ledger());
    assert!(told.contains("were pruned, up to"), "{told}");
    proven(&web_1.ledger(), dir.path());
    forgotten_by_the_ca(&mesh, &hand);
}

fn hold(host: &Host) {
    let hold = ["audit", "hold", "--reason", "case 4711", "--for", "365d", "--server"];
    let told = ok(botmesh().args(hold).arg(host.admin()));
    assert!(told.contains("case 4711"), "{told}");
}

/// It was held until here, and said so.
fn let_go(host: &Host) {
    let server = host.admin();
    let status = ok(botmesh().args(["proxy", "status", "--server", &server]));
    assert!(
        status.contains("the ledger is held") && status.contains("case 4711"),
        "{status}"
    );
    assert!(host.query("kind=pruned").is_empty());
    ok(botmesh().args(["audit", "release", "--server", &server]));
    let again = run(botmesh().args(["audit", "release", "--server", &server]));
    assert!(
        !again.status.success() && both(&again).contains("not held"),
        "{}",
        both(&again)
    );
}

/// Proves a record that is kept, of a segment that was pruned.
fn proven(ledger: &Path, dir: &Path) {
    let kept = ok(botmesh().args(["audit", "prove", "1"]).arg(ledger));
    let proof = dir.join("proof");
    std::fs::write(&proof, kept).unwrap();
    let mut verify = botmesh();
    verify.args(["audit", "verify"]).arg(&proof).arg("--key");
    ok(verify.arg(ledger.join("ledger.vkey")));
}

/// The CA's own records go after 400 days.
fn forgotten_by_the_ca(mesh: &Mesh, hand: &Hand) {
    let ledger = mesh.ca_ledger();
    let found = |filter: &str| ok(botmesh().args(["audit", "query", filter, "-o", "jsonl"]).arg(&ledger));
    let count = |filter: &str| found(filter).lines().count();
    let joined = found("kind=attested");
    let joined = joined.lines().next().unwrap();
    let server = mesh.server();
    let held = ok(botmesh().args(["audit", "hold", "--ca", "--reason", "case 4712", "--server", &server]));
    assert!(held.contains("nothing of the CA's ledger is pruned"), "{held}");
    // A day ends a segment with the next record, and what operators do is one.
    hand.forward(DAY + MINUTE);
    eventually_within(PATIENCE, "a second segment", || {
        ok(botmesh().args(["host", "token", "web-3", "--server", &server]));
        (std::fs::read_dir(ledger.join("segments")).unwrap().count() > 1).then_some(())
    });
    hand.forward(400 * DAY);
    let status = ok(botmesh().args(["ca", "status", "-o", "json", "--server", &server]));
    assert!(
        status.contains("the CA's ledger is held") && status.contains("case 4712"),
        "{status}"
    );
    assert_eq!((count("kind=held"), count("kind=pruned")), (1, 0));
    ok(botmesh().args(["audit", "release", "--ca", "--server", &server]));
    eventually_within(PATIENCE, "the CA's records to be pruned", || {
        hand.forward(MINUTE);
        (!found("kind=attested").contains(joined) && count("kind=pruned") > 0).then_some(())
    });
    assert!(verified(&ledger).contains("were pruned, up to"));
}
