//! Attacks beside normal traffic: a bot that calls at a steady rate, while another bot or a peer with an SVID attacks
//! from one core. What is compared is the same attacker against a port where nobody listens.
//!
//! `BOTMESH_ATTACK=20` takes as many seconds for each, 5,000 slow connections, and the bound of twice the time of the
//! slowest of a hundred calls; the short form keeps to bounds that a busy machine meets too.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use serde_json::Value;

use crate::floods::{Steady, metric};
use crate::foreign::{sni, with_played_host};
use crate::spine::{REPORT, with_callees};
use crate::support::join::write_pem;
use crate::support::{PYTHON, Setup, as_user, free_port, root_or_skip};

/// Calls per second of the normal bot.
const RATE: &str = "100";

/// By how much the slowest of a hundred normal calls may be slower in the short form.
const SLOWER_MAX: f64 = 25.0;

/// A quiet machine answers so fast that a multiple says nothing below this, in milliseconds.
const SLOW_MIN: f64 = 10.0;

/// What a proxy may take more than before, in MiB. Connections that stand still are weighed elsewhere.
const GROWTH_MAX: u64 = 160;

struct Attack {
    kind: &'static str,
    /// Per second.
    rate: &'static str,
}

const ATTACKS: [Attack; 3] = [
    Attack {
        kind: "resets",
        rate: "2000",
    },
    Attack {
        kind: "heads",
        rate: "50",
    },
    Attack {
        kind: "slow",
        rate: "500",
    },
];

/// An attacker on the last core.
struct Attacker(Child, BufReader<ChildStdout>);

impl Attacker {
    fn start(attack: &Attack, count: &str, at: &str, tls: &[String]) -> Self {
        let core = std::thread::available_parallelism()
            .map_or(0, |cores| cores.get() - 1)
            .to_string();
        let mut command = as_user("taskset", REPORT);
        command.args([
            "-c",
            &core,
            PYTHON,
            "-c",
            include_str!("../support/attack.py"),
            attack.kind,
            at,
            attack.rate,
        ]);
        if attack.kind == "slow" {
            command.arg(count);
        }
        command.args(tls).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("taskset");
        let mut from = BufReader::new(child.stdout.take().expect("stdout"));
        let mut line = String::new();
        from.read_line(&mut line).expect("a line");
        assert_eq!(line, "attacks\n", "{}", attack.kind);
        Self(child, from)
    }

    fn end(mut self) -> Value {
        drop(self.0.stdin.take());
        let told = serde_json::from_reader(&mut self.1).expect("JSON");
        self.0.wait().expect("it ends");
        told
    }
}

#[test]
fn an_attacker_on_one_core_does_not_slow_a_normal_bot_and_fills_no_memory() {
    if !root_or_skip("attacks") {
        return;
    }
    let long = std::env::var("BOTMESH_ATTACK")
        .ok()
        .and_then(|seconds| seconds.parse().ok());
    let (calls, slow) = long.map_or((100, "400"), |seconds: usize| (seconds * 100, "5000"));
    let slower_max = if long.is_some() { 2.0 } else { SLOWER_MAX };
    let mesh = with_callees(&Setup {
        hosts: &["web-1", "web-2"],
        alone: true,
        ..Setup::default()
    });
    let edge = with_played_host(&mesh);
    let text = std::fs::read_to_string(mesh.mesh_file()).expect("the mesh file");
    mesh.apply(&text.replace(
        "allow:\n",
        "allow:\n  - {id: attacker, from: prod/report, to: prod/orders, http: [GET /orders/*]}\n",
    ));
    let (chain, key) = edge.issue("prod/report").expect("edge-1 may claim prod/report");
    let pem = write_pem(mesh.dir(), "report", &chain, &key);
    let tls = [
        sni("prod/orders"),
        pem.chain.display().to_string(),
        pem.key.display().to_string(),
    ];
    let closed = format!("127.0.0.1:{}", free_port());
    let sides = [
        ("bot side", "web-1", mesh.host("web-1").bot_tcp(), &[][..]),
        (
            "mesh side",
            "web-2",
            format!("127.0.0.1:{}", mesh.host("web-2").ports.mesh),
            &tls[..],
        ),
    ];
    let mut wrong = Vec::new();
    for attack in &ATTACKS {
        for (side, host, at, tls) in &sides {
            let during = |at: &str| {
                let attacker = Attacker::start(attack, slow, at, tls);
                let (calls, p99) = Steady::of(&mesh, RATE, Some(calls)).end();
                (calls, p99, attacker.end())
            };
            let (_, quiet, _) = during(&closed);
            let before = mesh.host(host).memory_mib("VmHWM");
            let (calls, busy, told) = during(at);
            let grown = mesh.host(host).memory_mib("VmHWM") - before;
            println!(
                "{:6} at {}/s, {side:9}: {calls} normal calls, p99 {busy:.1} ms beside {quiet:.1} ms ({:.1} times), peak memory {before} + {grown} MiB; {told}",
                attack.kind,
                attack.rate,
                busy / quiet
            );
            if busy > slower_max * quiet.max(SLOW_MIN) || grown > GROWTH_MAX {
                wrong.push(format!("{} on the {side}: {busy} {quiet} {grown}", attack.kind));
            }
            let bounded = match attack.kind {
                // Sent away again and again.
                "resets" => told["ended"].as_u64() > Some(0),
                "heads" => told["refused"] == told["did"],
                _ => told["did"].as_u64() > Some(0),
            };
            assert!(bounded && told["unreachable"] == 0, "{}: {side}: {told}", attack.kind);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    for host in ["web-1", "web-2"] {
        let counted = metric(mesh.host(host), "botmesh_denied_total{reason=\"bad_request\"} ");
        assert!(counted > 0, "{host}: what was refused is counted");
    }
}
