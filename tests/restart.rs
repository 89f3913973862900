//! A proxy whose sockets somebody holds: what it takes, what it refuses, and a restart that nobody notices.

use std::io::{BufRead as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::kill::{Streaming, now_ms, outcomes};
use crate::spine::{CHECKOUT, ORDERS, mesh_file, two_hosts};
use crate::support::load::Load;
use crate::support::manager::Manager;
use crate::support::{
    Caller, Host, Mesh, PYTHON, Process, Setup, as_user, eventually, free_port, http_get, root_or_skip,
};

/// Every socket of a host's proxy, as words of the manager.
pub(crate) fn sockets(host: &Host) -> Vec<String> {
    let (ports, dir) = (&host.ports, host.dir.display());
    vec![
        format!("tcp:127.0.0.1:{}", ports.bots),
        format!("unix:{dir}/bot.sock"),
        format!("tcp:127.0.0.1:{}", ports.mesh),
        format!("unix:{dir}/proxy.sock"),
        format!("tcp:127.0.0.1:{}", ports.metrics),
    ]
}

/// Ends the proxy of a host, and has a manager hold its sockets and start it again.
pub(crate) fn held(mesh: &mut Mesh, host: &str, more: &[String], variables: &[(&str, &str)]) -> Manager {
    mesh.host_mut(host).process.terminate();
    let all = [sockets(mesh.host(host)), more.to_vec()].concat();
    Manager::hold(mesh, host, &all, variables)
}

fn get(caller: &mut Caller) -> u64 {
    caller.call("GET", "orders.prod.mesh", "/orders/17").status
}

#[test]
fn a_proxy_takes_the_sockets_that_are_held_for_it_and_leaves_their_files_as_they_are() {
    if !root_or_skip("sockets that are held") {
        return;
    }
    let one = free_port();
    let listeners = format!("listeners: [{{listen: \"127.0.0.1:{one}\", to: prod/orders}}]");
    let mut mesh = two_hosts(&listeners.replace(&one.to_string(), "0"));
    let config = mesh.host("web-1").dir.join("proxy.yaml");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    std::fs::write(&config, text.replace("127.0.0.1:0", &format!("127.0.0.1:{one}"))).expect("written");
    let mut manager = held(&mut mesh, "web-1", &[format!("tcp:127.0.0.1:{one}")], &[]);
    let files = ["bot.sock", "proxy.sock"].map(|name| mesh.host("web-1").dir.join(name));
    let seen = || {
        files
            .clone()
            .map(|file| file.metadata().map(|m| (m.ino(), m.permissions().mode() & 0o777)))
    };
    let before = seen().map(|file| file.expect("the manager's socket"));
    for turn in 0..2 {
        manager.start();
        mesh.wait_for("web-1", "/readyz");
        let host = mesh.host("web-1");
        assert_eq!(get(&mut Caller::new(CHECKOUT, &host.bot_socket())), 200);
        assert_eq!(get(&mut Caller::new(CHECKOUT, &host.bot_tcp())), 200);
        assert_eq!(get(&mut Caller::new(CHECKOUT, &format!("127.0.0.1:{one}"))), 200);
        assert_eq!(seen().map(Result::unwrap), before, "inode and mode are the manager's");
        assert_eq!(before.map(|(_, mode)| mode), [0o622, 0o622]);
        eventually("word that it serves", || {
            manager.told().contains("READY=1").then_some(())
        });
        assert_eq!(manager.stop().0, 0, "turn {turn}");
        assert_eq!(manager.told(), "STOPPING=1");
        assert_eq!(seen().map(Result::unwrap), before, "the files stay for the next one");
    }
}

#[test]
fn what_is_passed_and_is_none_of_the_proxys_sockets_is_refused() {
    if !root_or_skip("sockets that are none of the proxy's") {
        return;
    }
    let mut mesh = two_hosts("");
    let (dir, other) = (mesh.dir().display().to_string(), free_port());
    let refused = [
        (
            format!("tcp:127.0.0.1:{other}"),
            format!("listens on 127.0.0.1:{other}, which no setting says: proxy.yaml has bots.listen 127.0.0.1:"),
        ),
        (
            format!("unix:{dir}/other.sock"),
            format!("listens on unix:{dir}/other.sock, which no setting says"),
        ),
        ("again".to_owned(), "which no setting says".to_owned()),
        (
            format!("bound:127.0.0.1:{other}"),
            "does not listen: in a unit, use ListenStream= and Accept=no".to_owned(),
        ),
        (
            format!("udp:127.0.0.1:{other}"),
            "the passed socket 5 (udp) is no stream socket of TCP or Unix".to_owned(),
        ),
        (
            "pipe".to_owned(),
            "the passed socket 5 (pipe) is no stream socket of TCP or Unix".to_owned(),
        ),
    ];
    mesh.host_mut("web-1").process.terminate();
    for (socket, message) in refused {
        let all = [sockets(mesh.host("web-1")), vec![socket.clone()]].concat();
        let mut manager = Manager::hold(&mesh, "web-1", &all, &[]);
        manager.start();
        assert_ne!(manager.wait().0, 0, "{socket}");
        let log = manager.log();
        let last = log.lines().rfind(|line| line.starts_with("error")).unwrap_or_default();
        assert!(last.contains(&message), "{socket}: {last}");
        assert!(!manager.told().contains("READY"), "{socket}");
    }
    // A count that is none, and one that is too large to be one.
    for count in ["many", "-1", "1000000000000"] {
        let mut manager = Manager::hold(&mesh, "web-1", &[], &[("FDS", count)]);
        manager.start();
        assert_ne!(manager.wait().0, 0, "{count}");
        assert!(manager.log().contains("LISTEN_FDS is no number up to 1024"), "{count}");
    }
}

#[test]
fn sockets_for_another_process_are_left_alone_and_port_0_is_told_of() {
    if !root_or_skip("sockets for another process") {
        return;
    }
    let mut mesh = two_hosts("");
    mesh.host_mut("web-1").process.terminate();
    let unused = [format!("tcp:127.0.0.1:{}", free_port())];
    let mut manager = Manager::hold(&mesh, "web-1", &unused, &[("PID", "1")]);
    manager.start();
    mesh.wait_for("web-1", "/readyz");
    assert_eq!(get(&mut Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket())), 200);
    assert_eq!(manager.stop().0, 0);
    drop(manager);
    let config = mesh.host("web-1").dir.join("proxy.yaml");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    let metrics = format!("127.0.0.1:{}", mesh.host("web-1").ports.metrics);
    std::fs::write(&config, text.replace(&metrics, "127.0.0.1:0")).expect("written");
    let mut manager = Manager::hold(&mesh, "web-1", &[format!("tcp:{metrics}")], &[]);
    manager.start();
    assert_ne!(manager.wait().0, 0);
    let log = manager.log();
    let hint = "metrics.listen is 127.0.0.1:0, and port 0 is no passed socket's: write the port that is passed";
    assert!(log.contains(hint), "{log}");
}

#[test]
fn systemds_own_activation_starts_the_proxy_with_its_sockets() {
    if !root_or_skip("systemd-socket-activate") {
        return;
    }
    if Command::new("systemd-socket-activate")
        .arg("--version")
        .output()
        .is_err()
    {
        println!("skipped: systemds_own_activation_starts_the_proxy_with_its_sockets: needs systemd-socket-activate");
        return;
    }
    let mut mesh = two_hosts("");
    mesh.host_mut("web-1").process.terminate();
    let host = mesh.host("web-1");
    let (metrics, config, log) = (
        host.ports.metrics,
        host.dir.join("proxy.yaml"),
        host.dir.join("activated.log"),
    );
    let mut command = Command::new("systemd-socket-activate");
    for socket in sockets(host) {
        let address = socket.replacen("tcp:", "", 1).replacen("unix:", "", 1);
        // What a proxy that held no socket of a manager left.
        std::fs::remove_file(&address).ok();
        command.arg(format!("--listen={address}"));
    }
    command.arg(env!("CARGO_BIN_EXE_botmesh"));
    command.args(["proxy", "run", "--config"]).arg(config);
    let activated = Process::spawn(command, log);
    // The first connection is what starts it; that connection is answered too.
    let answer = eventually("an answer", || http_get(metrics, "/livez"));
    assert_eq!(answer.0, 200);
    mesh.wait_for("web-1", "/readyz");
    assert_eq!(get(&mut Caller::new(CHECKOUT, &mesh.host("web-1").bot_tcp())), 200);
    assert!(activated.log().contains("serving"), "{}", activated.log());
}

/// Two hosts whose proxies' sockets are held, with a callee that answers fast.
pub(crate) fn two_held(setup: &Setup<'_>) -> (Mesh, [Manager; 2], [u32; 2]) {
    let mut mesh = Mesh::start(setup);
    let orders = free_port();
    mesh.quick_callee(ORDERS, orders);
    mesh.apply(&mesh_file(orders, "unix:/run/nobody/stock.sock"));
    let managers = ["web-1", "web-2"].map(|host| {
        let mut manager = held(&mut mesh, host, &[], &[]);
        std::fs::set_permissions(
            mesh.host(host).dir.join("bot.sock"),
            std::fs::Permissions::from_mode(0o666),
        )
        .expect("chmod");
        let process = manager.start();
        mesh.wait_for(host, "/readyz");
        (manager, process)
    });
    let [(first, one), (second, other)] = managers;
    (mesh, [first, second], [one, other])
}

/// By itself 500 calls a second. `BOTMESH_RESTART_PER_SECOND=1000` makes them more:
///
///     BOTMESH_RESTART_PER_SECOND=1000 cargo test --release --features test-clock --test mesh -- restart::proxies --nocapture
#[test]
fn proxies_restart_under_load_and_no_connection_is_refused_and_no_call_fails() {
    if !root_or_skip("restarts under load") {
        return;
    }
    let hosts = ["web-1", "web-2"];
    let asked = std::env::var("BOTMESH_RESTART_PER_SECOND").ok();
    let per_second = asked.map(|number| number.parse::<u32>().expect("calls a second"));
    let (mesh, mut managers, _) = two_held(&Setup {
        hosts: &hosts,
        alone: per_second.is_some(),
        ..Setup::default()
    });
    let (begin, mut load) = (
        Instant::now(),
        Load::start(CHECKOUT, mesh.host("web-1"), per_second.unwrap_or(500)),
    );
    load.more(500);
    for turn in 0..3 {
        for (host, manager) in hosts.iter().zip(&mut managers) {
            let (status, millis) = manager.stop();
            manager.start();
            assert_eq!(status, 0, "{host}, turn {turn}");
            assert!(
                millis < 9_000,
                "{host} ended after {millis} ms: something held it up to its deadline"
            );
            println!("{host}: ended {millis} ms after SIGTERM");
            load.more(u64::from(per_second.unwrap_or(500)) * if per_second.is_some() { 5 } else { 1 });
        }
    }
    let outcome = load.stop();
    let millis = u64::try_from(begin.elapsed().as_millis()).expect("no eternity");
    println!("three restarts of each proxy under load in {millis} ms: {outcome}");
    if let Some(asked) = per_second {
        let rate = outcome.count("calls") * 1_000 / millis.max(1);
        assert!(
            rate * 100 >= u64::from(asked) * 95,
            "{rate} calls a second are not {asked}"
        );
    }
    outcome.none_failed();
    for host in hosts {
        assert!(mesh.host(host).verify().status.success(), "{host}'s ledger");
    }
}

#[test]
fn a_stream_that_does_not_end_is_cut_at_the_end_of_the_drain_and_recorded() {
    if !root_or_skip("the end of a drain") {
        return;
    }
    let mut mesh = two_hosts("");
    let mut manager = held(&mut mesh, "web-1", &[], &[]);
    std::fs::set_permissions(
        mesh.host("web-1").dir.join("bot.sock"),
        std::fs::Permissions::from_mode(0o666),
    )
    .expect("chmod");
    manager.start();
    mesh.wait_for("web-1", "/readyz");
    let socket = mesh.host("web-1").bot_socket();
    let stream = Streaming::open(CHECKOUT, &socket, "/orders/ticks-fast", "get");
    let (status, millis) = manager.stop();
    let since = now_ms();
    assert_eq!(status, 0);
    assert!((10_000..12_500).contains(&millis), "ended after {millis} ms");
    stream.cut_since(since);
    let ends = outcomes(&mesh, "web-1");
    assert_eq!(ends, ["stopped"], "the end of the one call is in the ledger");
    println!("a stream without an end: cut and recorded {millis} ms after SIGTERM");
}

/// A client that connects, says so, and sends its request when it is told to.
struct Slow {
    child: std::process::Child,
    from: std::io::BufReader<std::process::ChildStdout>,
}

impl Slow {
    fn connect(socket: &std::path::Path) -> Self {
        const PROGRAM: &str = "import socket, sys\n\
            s = socket.socket(socket.AF_UNIX)\n\
            s.settimeout(25)\n\
            s.connect(sys.argv[1])\n\
            print('open', flush=True)\n\
            sys.stdin.readline()\n\
            s.sendall(b'GET /orders/17 HTTP/1.1\\r\\nHost: orders.prod.mesh\\r\\n\\r\\n')\n\
            head = s.recv(65536).partition(b'\\r\\n\\r\\n')[0].decode().lower().split('\\r\\n')\n\
            print(head[0], str('connection: close' in head).lower(), flush=True)\n";
        let mut command = as_user(PYTHON, CHECKOUT);
        command.args(["-c", PROGRAM]).arg(socket);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a client");
        let from = std::io::BufReader::new(child.stdout.take().expect("its words"));
        let mut slow = Self { child, from };
        assert_eq!(slow.line(), "open");
        slow
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    fn send(&mut self) {
        self.child
            .stdin
            .as_mut()
            .expect("its orders")
            .write_all(b"\n")
            .expect("told");
    }
}

#[test]
fn a_connection_that_was_taken_is_answered_and_one_that_waits_is_answered_by_the_next_process() {
    if !root_or_skip("connections without a request at a restart") {
        return;
    }
    let hosts = ["web-1", "web-2"];
    let (mesh, [mut manager, _other], [process, _]) = two_held(&Setup {
        hosts: &hosts,
        ..Setup::default()
    });
    let (socket, metrics) = (
        mesh.host("web-1").dir.join("bot.sock"),
        mesh.host("web-1").ports.metrics,
    );
    let mut taken = Slow::connect(&socket);
    eventually("the proxy to take the connection", || {
        let (_, text) = http_get(metrics, "/metrics")?;
        text.contains("botmesh_connections{listener=\"bots_socket\"} 1")
            .then_some(())
    });
    let process = nix::unistd::Pid::from_raw(i32::try_from(process).expect("a process"));
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM).expect("SIGTERM");
    eventually("the proxy to stop", || {
        manager.log().contains("stopping: SIGTERM").then_some(())
    });
    let mut waits = Slow::connect(&socket);
    waits.send();
    taken.send();
    assert_eq!(
        taken.line(),
        "http/1.1 200 ok true",
        "answered, and told that it was the last"
    );
    assert_eq!(manager.wait().0, 0);
    manager.start();
    assert_eq!(waits.line(), "http/1.1 200 ok false", "answered by the next process");
}
