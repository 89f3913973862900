//! What a client was answered is in both ledgers, however the proxies die.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::spine::{CHECKOUT, two_hosts};
use crate::support::{Caller, Mesh, both, botmesh, ok, root_or_skip};

/// Kills of each proxy, where `BOTMESH_KILLS` does not say another number.
const KILLS_PER_PROXY: u32 = 20;

/// How often each proxy is killed.
fn kills() -> u32 {
    let wanted = std::env::var("BOTMESH_KILLS").ok();
    wanted.map_or(KILLS_PER_PROXY, |kills| {
        kills.parse().expect("BOTMESH_KILLS is a number")
    })
}

/// Calls without end and keeps the id of every call that was answered by the callee.
fn load(proxy: String, answered: Arc<Mutex<BTreeSet<String>>>, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut caller = Caller::new(CHECKOUT, &proxy);
        let mut n = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            n += 1;
            let order = serde_json::json!({
                "method": "GET", "target": format!("/orders/{n}"), "headers": [["Host", "orders.prod.mesh"]]});
            match caller.order(&order) {
                Ok(answer) if answer.status == 200 => {
                    let id = answer
                        .header("botmesh-call")
                        .expect("every answer names its call")
                        .to_owned();
                    answered.lock().expect("no poison").insert(id);
                }
                Ok(_) => {}
                Err(_) => std::thread::park_timeout(std::time::Duration::from_millis(5)),
            }
        }
    })
}

#[test]
fn no_answered_call_is_missing_after_kill_9_of_either_proxy() {
    if !root_or_skip("kill -9") {
        return;
    }
    let mut mesh = two_hosts("");
    let answered = Arc::new(Mutex::new(BTreeSet::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> = (0..3)
        .map(|_| {
            load(
                mesh.host("web-1").bot_socket(),
                Arc::clone(&answered),
                Arc::clone(&stop),
            )
        })
        .collect();
    let seed = std::process::id();
    println!("seed {seed}");
    let mut random = seed;
    let kills = kills();
    for _ in 0..kills {
        for host in ["web-1", "web-2"] {
            let before = answered.lock().expect("no poison").len();
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let wanted = before + (random >> 16) as usize % 40 + 1;
            crate::support::eventually("calls to be answered", || {
                (answered.lock().expect("no poison").len() >= wanted).then_some(())
            });
            mesh.restart(host);
            mesh.wait_for(host, "/readyz");
        }
    }
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        load.join().expect("a caller thread");
    }
    for host in mesh.hosts.values_mut() {
        assert!(host.process.terminate().success(), "{}", host.process.log());
        let out = host.verify();
        assert!(out.status.success(), "{}", both(&out));
    }
    let field = |host: &str, name: &str| -> BTreeSet<String> {
        mesh.host(host)
            .query("kind=call verdict=allow")
            .iter()
            .filter_map(|r| r[name].as_str().map(ToOwned::to_owned))
            .collect()
    };
    let answered = answered.lock().expect("no poison");
    println!("{} calls answered across {} kills", answered.len(), 2 * kills);
    for (host, name) in [("web-1", "id"), ("web-2", "peer_call")] {
        let recorded = field(host, name);
        let missing: Vec<_> = answered.difference(&recorded).collect();
        assert!(
            missing.is_empty(),
            "{host}: {} of {} answered calls have no record: {missing:?}",
            missing.len(),
            answered.len()
        );
    }
    nobody_is_accused(&mesh);
}

/// Calls that a kill broke off have one end, and none of them is held against anybody.
fn nobody_is_accused(mesh: &Mesh) {
    let ledgers = [mesh.host("web-1").ledger(), mesh.host("web-2").ledger()];
    let told = ok(botmesh().args(["audit", "reconcile"]).args(ledgers));
    println!("{told}");
    assert!(told.starts_with("ok "), "{told}");
}
