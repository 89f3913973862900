//! What is not on the path of a call has a thread of its own: scrapes and policies of a proxy delay no call.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::spine::{CHECKOUT, two_hosts};
use crate::support::{Caller, Mesh, eventually, http_get, root_or_skip};

/// Rules of a policy that is large enough to take a while.
const RULES: usize = 2_000;

/// How long each thread of web-1's proxy has run, by its name and number (proc_pid_comm(5), /proc/PID/schedstat).
fn ran(mesh: &Mesh) -> BTreeMap<(String, OsString), Duration> {
    let tasks = format!("/proc/{}/task", mesh.host("web-1").process.child.id());
    let ran = |task: fs::DirEntry| {
        // A thread that ended meanwhile has nothing to tell.
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let nanos = stat.split(' ').next().unwrap().parse().unwrap();
        Some(((name.trim().to_owned(), task.file_name()), Duration::from_nanos(nanos)))
    };
    fs::read_dir(tasks).unwrap().flatten().filter_map(ran).collect()
}

fn scrape(mesh: &Mesh) {
    let (status, _) = http_get(mesh.host("web-1").ports.metrics, "/metrics").expect("the metrics");
    assert_eq!(status, 200);
}

/// The mesh file with many rules more; `turn` makes each another one.
fn many_rules(file: &str, turn: usize) -> String {
    let rule =
        |n| format!("  - {{id: filler-{n}, from: prod/checkout, to: prod/orders, http: [GET /filler/{turn}/{n}/*]}}\n");
    let rules: String = (0..RULES).map(rule).collect();
    file.replace("deny:\n", &format!("{rules}deny:\n"))
}

/// Makes calls and returns the median and the 99th percentile of their time.
fn calls(caller: &mut Caller, many: usize) -> [Duration; 2] {
    let mut times: Vec<Duration> = (0..many)
        .map(|n| {
            let begun = Instant::now();
            let answer = caller.call("GET", "orders.prod.mesh", &format!("/orders/{n}"));
            assert_eq!(answer.status, 200, "{}", answer.body);
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    [times[many / 2], times[many * 99 / 100]]
}

#[test]
fn scrapes_and_policies_run_on_a_thread_beside_the_calls() {
    if !root_or_skip("scrapes and policies beside calls") {
        return;
    }
    let mesh = two_hosts("");
    let file = fs::read_to_string(mesh.mesh_file()).unwrap();
    let before = ran(&mesh);
    for _ in 0..100 {
        scrape(&mesh);
    }
    mesh.apply(&many_rules(&file, 0));
    let after = ran(&mesh);
    println!("before {before:?}\nafter {after:?}");
    let more = |name: &str| -> Duration {
        let threads = after.iter().filter(|((of, _), _)| of == name);
        threads
            .map(|(thread, ran)| *ran - before.get(thread).copied().unwrap_or_default())
            .sum()
    };
    let (aside, calls) = (more("aside"), more("tokio-rt-worker"));
    assert!(aside > Duration::from_millis(20), "it takes a while: {aside:?}");
    assert!(
        calls * 4 < aside,
        "on the threads of the calls {calls:?}, beside them {aside:?}"
    );
}

/// Figures: `BOTMESH_ASIDE_CALLS=5000 cargo test --release --features test-clock --test mesh -- aside --nocapture`.
#[test]
fn calls_go_on_while_it_is_scraped_and_policies_are_applied() {
    if !root_or_skip("calls beside scrapes and policies") {
        return;
    }
    let many = std::env::var("BOTMESH_ASIDE_CALLS").ok();
    let many = many.and_then(|many| many.parse().ok()).unwrap_or(200);
    let mesh = two_hosts("");
    let file = fs::read_to_string(mesh.mesh_file()).unwrap();
    mesh.apply(&many_rules(&file, 0));
    let mut caller = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    let quiet = calls(&mut caller, many);
    let over = AtomicBool::new(false);
    let (mut scrapes, mut policies) = (0, 0);
    let busy = std::thread::scope(|scope| {
        let scraping = scope.spawn(|| {
            let mut scrapes = 0;
            while !over.load(Ordering::Relaxed) {
                scrape(&mesh);
                scrapes += 1;
            }
            scrapes
        });
        let applying = scope.spawn(|| {
            let mut policies = 0;
            while !over.load(Ordering::Relaxed) {
                policies += 1;
                mesh.apply(&many_rules(&file, policies));
            }
            policies
        });
        let busy = calls(&mut caller, many);
        over.store(true, Ordering::Relaxed);
        (scrapes, policies) = (scraping.join().unwrap(), applying.join().unwrap());
        busy
    });
    println!("p50 and p99 of {many} calls: {quiet:?}; beside {scrapes} scrapes and {policies} policies {busy:?}");
    assert!(scrapes > 0 && policies > 0);
    eventually("the last policy's rules", || {
        let answer = caller.call("GET", "orders.prod.mesh", &format!("/filler/{policies}/7/x"));
        (answer.status == 200).then_some(())
    });
}
