//! How long calls are waited for where the mesh says so, against callees and proxies that do not answer.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrIn};
use nix::unistd::Pid;

use crate::kill::{Streaming, now_ms};
use crate::spine::{CHECKOUT, two_hosts};
use crate::support::{Answer, Caller, Mesh, eventually, root_or_skip};

/// What the meshes of these tests say, in milliseconds.
const LIMIT: u128 = 300;

/// Less than the proxies wait when the mesh says nothing: two seconds for a connection, five for a handshake.
const SOON: u128 = 1_700;

/// A port on which connecting hangs: its queue is full and nobody takes from it.
struct Deaf {
    port: u16,
    _listener: OwnedFd,
    _queued: Vec<TcpStream>,
}

impl Deaf {
    fn listen() -> Self {
        let listener = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        socket::bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
        socket::listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let port = socket::getsockname::<SockaddrIn>(listener.as_raw_fd()).unwrap().port();
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        let mut queued = Vec::new();
        while let Ok(connected) = TcpStream::connect_timeout(&at, Duration::from_millis(100)) {
            queued.push(connected);
            assert!(queued.len() < 16, "the queue has no end");
        }
        Self {
            port,
            _listener: listener,
            _queued: queued,
        }
    }
}

/// Applies the live mesh file with `more` below, and with `prod/deaf` beside the other bots.
fn apply(mesh: &Mesh, deaf: u16, more: &str) {
    let text = std::fs::read_to_string(mesh.mesh_file()).expect("the mesh file");
    let bot =
        format!("bots:\n  prod/deaf: {{owner: o, hosts: [web-1], attest: {{uid: 61005}}, serve: {{http: {deaf}}}}}\n");
    let rule = "allow:\n  - {id: deaf, from: prod/checkout, to: prod/deaf, http: [GET /]}\n";
    let text = text.replacen("bots:\n", &bot, 1).replacen("allow:\n", rule, 1);
    mesh.apply(&format!("{text}{more}"));
}

/// Makes a call that must fail after the limit and before the proxies would have given up by themselves.
fn given_up(caller: &mut Caller, host: &str, path: &str) -> (u64, String) {
    let began = Instant::now();
    let answer: Answer = caller.call("GET", host, path);
    let after = began.elapsed().as_millis();
    println!("{host}{path} was given up after {after} ms: {}", answer.status);
    assert!((LIMIT..SOON).contains(&after), "after {after} ms: {}", answer.body);
    (answer.status, answer.reason())
}

/// Stops a host's proxy without a word to anybody, until dropped.
struct Stopped(Pid);

impl Stopped {
    fn stop(mesh: &Mesh, host: &str) -> Self {
        let pid = Pid::from_raw(i32::try_from(mesh.host(host).process.child.id()).unwrap());
        kill(pid, Signal::SIGSTOP).unwrap();
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        kill(self.0, Signal::SIGCONT).ok();
    }
}

fn timeout() -> (u64, String) {
    (504, "timeout".to_owned())
}

#[test]
fn a_callee_that_does_not_answer_is_waited_for_as_long_as_the_mesh_says() {
    if !root_or_skip("destinations") {
        return;
    }
    let (mesh, deaf) = (two_hosts(""), Deaf::listen());
    apply(
        &mesh,
        deaf.port,
        "destinations:\n\
         \x20 prod/orders: {request_timeout: 300ms, retries: 0}\n\
         \x20 prod/stock: {request_timeout: 300ms}\n\
         \x20 prod/deaf: {connect_timeout: 300ms}\n",
    );
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    assert_eq!(
        given_up(&mut checkout, "deaf.prod.mesh", "/"),
        timeout(),
        "it does not take the connection"
    );
    assert_eq!(
        given_up(&mut checkout, "stock.prod.mesh", "/stock/never"),
        timeout(),
        "on this host"
    );
    assert_eq!(
        given_up(&mut checkout, "orders.prod.mesh", "/orders/never"),
        timeout(),
        "on another host"
    );
    // A proxy that stands still on a connection that is there: the caller's end keeps the time by itself.
    let stopped = Stopped::stop(&mesh, "web-2");
    assert_eq!(given_up(&mut checkout, "orders.prod.mesh", "/orders/17"), timeout());
    drop(stopped);
    eventually("calls to go through again", || {
        (checkout.call("GET", "orders.prod.mesh", "/orders/17").status == 200).then_some(())
    });
}

#[test]
fn a_proxy_that_takes_a_connection_and_says_nothing_is_given_up_as_the_mesh_says() {
    if !root_or_skip("connect_timeout between proxies") {
        return;
    }
    let mesh = two_hosts("");
    apply(&mesh, 9, "destinations: {prod/orders: {connect_timeout: 300ms}}\n");
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    let stopped = Stopped::stop(&mesh, "web-2");
    let refused = given_up(&mut checkout, "orders.prod.mesh", "/orders/17");
    assert_eq!(refused, (502, "peer_unreachable".to_owned()));
    drop(stopped);
}

#[test]
fn a_stream_that_stands_still_is_ended_and_one_that_moves_in_either_direction_is_not() {
    if !root_or_skip("stream_idle") {
        return;
    }
    let mesh = two_hosts("");
    apply(&mesh, 9, "destinations: {prod/orders: {stream_idle: 300ms}}\n");
    let socket = mesh.host("web-1").bot_socket();
    let moving = Streaming::open(CHECKOUT, &socket, "/orders/ticks-fast", "get");
    let still = Streaming::open(CHECKOUT, &socket, "/orders/ticks-idle", "get");
    let after = still.cut_since(now_ms());
    println!("a stream that stood still was ended after {after} ms");
    let outcomes = || -> Vec<String> {
        let ends = ["web-1", "web-2"].map(|host| mesh.host(host).query("kind=end"));
        let outcomes = ends.iter().flatten().filter_map(|end| end["outcome"].as_str());
        outcomes.map(str::to_owned).collect()
    };
    eventually("both ends of it", || (outcomes().len() == 2).then_some(()));
    assert!(outcomes().contains(&"timeout".to_owned()), "{:?}", outcomes());
    let timeouts = outcomes().iter().filter(|outcome| *outcome == "timeout").count();
    // The one that moves has lived through more than the limit by now, and goes on until its caller leaves.
    drop(moving);
    eventually("both ends of the other", || (outcomes().len() == 4).then_some(()));
    let all = outcomes();
    assert!(all.contains(&"caller_gone".to_owned()), "{all:?}");
    assert_eq!(
        all.iter().filter(|outcome| *outcome == "timeout").count(),
        timeouts,
        "{all:?}"
    );
}
