//! What a connection costs while it stands still: memory of the proxy for each one that has made a call.
//!
//! `BOTMESH_IDLE=5000` opens as many of each kind; a release build gives the figures that count.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::foreign::{sni, with_played_host};
use crate::spine::{CHECKOUT, with_callees};
use crate::support::join::write_pem;
use crate::support::{Caller, Host, Mesh, PYTHON, Setup, as_user, eventually, http_get, root_or_skip};

/// The most that a bot's connection may cost, in KiB. A debug build's futures are not the shipped ones'.
const BOT_KIB_MAX: u64 = if cfg!(debug_assertions) { 40 } else { 20 };

/// The most that a peer's connection with its TLS session may cost.
const PEER_KIB_MAX: u64 = if cfg!(debug_assertions) { 64 } else { 32 };

/// The same of a foreign peer that speaks HTTP/2: the `h2` crate keeps 24 KiB of buffers of its own, which cannot be set.
const H2_PEER_KIB_MAX: u64 = if cfg!(debug_assertions) { 72 } else { 41 };

/// How many of each kind where nobody says.
const COUNT: u64 = 400;

fn count() -> u64 {
    std::env::var("BOTMESH_IDLE").map_or(COUNT, |count| count.parse().expect("BOTMESH_IDLE is a number"))
}

/// The memory of a proxy, with what looks at processes for it, in KiB.
fn resident(host: &Host) -> u64 {
    let proxy = host.process.child.id();
    let children = std::fs::read_to_string(format!("/proc/{proxy}/task/{proxy}/children")).expect("its children");
    let all = children
        .split_whitespace()
        .map(|child| child.parse().expect("a number"));
    all.chain([proxy]).map(kib).sum()
}

fn kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// How many connections the proxy says that it holds.
fn open(host: &Host) -> u64 {
    let (_, text) = http_get(host.ports.metrics, "/metrics").expect("metrics");
    let values = text
        .lines()
        .filter_map(|line| line.strip_prefix("botmesh_connections{")?.rsplit(' ').next());
    values.map(|value| value.parse::<u64>().expect("a number")).sum()
}

/// Opens the connections, weighs them, lets them go, and says what each one costs.
fn weigh(host: &Host, way: &str, target: (&str, &str)) -> u64 {
    let (count, before, others) = (count(), resident(host), open(host));
    let mut command = as_user(PYTHON, CHECKOUT);
    command.args([
        "-c",
        include_str!("support/idle.py"),
        way,
        &count.to_string(),
        target.0,
        target.1,
    ]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("stdout"))
        .read_line(&mut line)
        .expect("a line");
    let told: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(told, json!({"answered": count, "else": {}}), "{way}");
    eventually("all are open", || (open(host) >= others + count).then_some(()));
    let after = resident(host);
    drop(child.stdin.take());
    child.wait().expect("it ends");
    eventually("all are closed", || (open(host) <= others).then_some(()));
    let each = after.saturating_sub(before) * 1024 / count;
    println!(
        "{count} idle: {} KiB each ({before} KiB before, {after} KiB with them): {}",
        tenths(each),
        kind(way)
    );
    each / 1024
}

/// Bytes as KiB with one digit after the point.
fn tenths(bytes: u64) -> String {
    let tenths = bytes * 10 / 1024;
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn kind(way: &str) -> String {
    match way.split(':').collect::<Vec<_>>()[..] {
        ["tls", _, _, alpn, ..] => format!("peers with an SVID, {alpn}"),
        ["unix", ..] => "bots on the Unix socket".to_owned(),
        _ => "bots on the port".to_owned(),
    }
}

/// Starts both proxies again, so that no connection fills a place that an earlier one left, and has them carry calls:
/// what a process takes for the first of those is no connection's.
fn fresh(mesh: &mut Mesh) {
    for host in ["web-2", "web-1"] {
        mesh.restart(host);
        mesh.wait_for(host, "/readyz");
    }
    for way in [mesh.host("web-1").bot_socket(), mesh.host("web-1").bot_tcp()] {
        let mut caller = Caller::new(CHECKOUT, &way);
        for _ in 0..50 {
            assert_eq!(caller.call("GET", "orders.prod.mesh", "/orders/17").status, 200);
        }
    }
}

#[test]
fn a_connection_that_stands_still_costs_little_memory() {
    if !root_or_skip("the memory of idle connections") {
        return;
    }
    let mut mesh = with_callees(&Setup {
        hosts: &["web-1", "web-2"],
        alone: true,
        ..Setup::default()
    });
    let edge = with_played_host(&mesh);
    let call = ("orders.prod.mesh", "/orders/17");
    for by_port in [false, true] {
        fresh(&mut mesh);
        let bots = mesh.host("web-1");
        let way = if by_port {
            bots.ports.bots.to_string()
        } else {
            bots.bot_socket()
        };
        let kib = weigh(bots, &way, call);
        assert!(kib <= BOT_KIB_MAX, "{way}: {kib} KiB for each connection of a bot");
    }
    let (chain, key) = edge.issue("prod/checkout").expect("edge-1 may claim prod/checkout");
    let pem = write_pem(mesh.dir(), "idle", &chain, &key);
    for (alpn, most) in [
        ("http/1.1", PEER_KIB_MAX),
        ("h2", H2_PEER_KIB_MAX),
        ("botmesh-hop/1", PEER_KIB_MAX),
    ] {
        fresh(&mut mesh);
        let peers = mesh.host("web-2");
        let (port, name) = (peers.ports.mesh, sni("prod/orders"));
        let way = format!("tls:{port}:{name}:{alpn}:{}:{}", pem.chain.display(), pem.key.display());
        let kib = weigh(peers, &way, call);
        assert!(kib <= most, "{alpn}: {kib} KiB for each connection of a peer");
    }
}
