//! Four hosts with networks of their own, started from `deploy/` by the operator's page, and what a capture between them shows.

use std::process::Command;

use crate::support::netns::Hosts;
use crate::support::wire::{Streams, records, server_hello, streams};
use crate::support::{both, botmesh, ok, root_or_skip, run};

pub(crate) const CHECKOUT: u32 = 61_001;
pub(crate) const ORDERS: u32 = 61_002;
pub(crate) const QUOTES: u32 = 61_003;
const BOXED: u32 = 61_005;
pub(crate) const NOBODY: u32 = 61_099;

/// TLS 1.3 (RFC 8446 §4.1.3), and X25519MLKEM768 in IANA's list of groups.
const TLS13: usize = 0x0304;
const X25519MLKEM768: usize = 0x11ec;

/// What nobody on the wire may read: path, body, the answer's body, names of bots.
const SECRETS: [&str; 7] = [
    "path-in-clear",
    "body-in-clear",
    "spiffe://",
    "prod/checkout",
    "checkout",
    "orders",
    "x-botmesh-caller",
];

/// `deploy/mesh.yaml` with users of the test in place of the example's, and orders on web-2 alone.
pub(crate) fn mesh_file(orders_socket: &str) -> String {
    let mut text = include_str!("../deploy/mesh.yaml").to_owned();
    for (from, to) in [
        ("attest: {user: checkout}", format!("attest: {{uid: {CHECKOUT}}}")),
        (
            "attest: {user: orders, exe: /srv/orders/bin/orders}",
            format!("attest: {{uid: {ORDERS}}}"),
        ),
        ("attest: {user: quotes}", format!("attest: {{uid: {QUOTES}}}")),
        ("hosts: [web-1, web-2]", "hosts: [web-2]".to_owned()),
        (
            "bots:\n",
            format!(
                "bots:\n  prod/boxed: {{owner: bi@acme.internal, hosts: [web-1], attest: {{uid: {BOXED}, socket: true}}}}\n"
            ),
        ),
        (
            "allow:\n",
            "allow:\n  - {id: boxed, from: prod/boxed, to: prod/quotes, http: [GET /quotes/*]}\n".to_owned(),
        ),
        ("/run/orders/orders.sock", orders_socket.to_owned()),
    ] {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, &to, 1);
    }
    text
}

/// The three hosts of the example with the bots that serve, joined and live.
pub(crate) fn three_hosts() -> Hosts {
    let mut hosts = Hosts::start(&["web-1", "web-2", "web-3"], "");
    let folder = hosts.dir.path().join("orders");
    crate::support::socket_folder(&folder, ORDERS);
    let socket = folder.join("orders.sock").display().to_string();
    hosts.callee("web-2", ORDERS, &format!("unix:{socket}"));
    hosts.callee("web-2", QUOTES, "9001");
    hosts.apply(&mesh_file(&socket));
    hosts
}

#[test]
fn hosts_started_from_deploy_carry_calls_of_ordinary_users_and_show_nothing_on_the_wire() {
    if !root_or_skip("network namespaces") || no_tcpdump() {
        return;
    }
    let mut hosts = three_hosts();
    let capture = hosts.dir.path().join("wire.pcap");
    let mut tcpdump = hosts.net.command("web-2", 0, "tcpdump");
    tcpdump
        .args(["-i", "eth0", "-U", "--immediate-mode", "-Z", "root", "-s", "0", "-w"])
        .arg(&capture)
        .arg("tcp");
    let mut tcpdump = crate::support::Process::spawn(tcpdump, hosts.dir.path().join("tcpdump.log"));
    crate::support::eventually("tcpdump to listen", || {
        tcpdump.log().contains("listening on").then_some(())
    });

    let socket = |host: &str| hosts.host(host).path("/run/botmesh/bot.sock").display().to_string();
    let orders = "http://orders.prod.mesh";
    for host in ["web-1", "web-3"] {
        let read = format!("{orders}/orders/path-in-clear");
        let (status, body) = hosts.curl(host, CHECKOUT, &["--unix-socket", &socket(host), &read]);
        assert_eq!(status, "200", "{host}: {body}");
        assert!(body.contains("spiffe://acme.internal/prod/checkout"), "{host}: {body}");
        let (status, body) = hosts.curl(host, CHECKOUT, &["http://127.0.0.1:15101/orders/path-in-clear"]);
        assert_eq!(status, "200", "a listener for one destination: {body}");
        let (status, body) = hosts.curl(
            host,
            CHECKOUT,
            &[
                "-x",
                "http://127.0.0.1:15080",
                "-d",
                "body-in-clear",
                &format!("{orders}/refunds"),
            ],
        );
        assert_eq!(status, "200", "http_proxy: {body}");
        let (status, body) = hosts.curl(host, CHECKOUT, &["--unix-socket", &socket(host), "-X", "DELETE", &read]);
        assert_eq!(status, "403", "{body}");
        assert!(body.contains("no_rule"), "{body}");
        let (status, body) = hosts.curl(host, NOBODY, &["--unix-socket", &socket(host), &read]);
        assert_eq!(status, "403", "{body}");
        assert!(body.contains("unknown_caller"), "{body}");
    }
    let quotes = "http://quotes.prod.mesh/quotes/path-in-clear";
    let own = hosts
        .host("web-1")
        .path("/run/botmesh/bots/prod.boxed.sock")
        .display()
        .to_string();
    let (status, body) = hosts.curl("web-1", BOXED, &["--unix-socket", &own, quotes]);
    assert_eq!(
        status, "200",
        "the unit lets the proxy hand a bot a socket of its own: {body}"
    );
    let (status, body) = hosts.curl("web-1", CHECKOUT, &["--unix-socket", &socket("web-1"), quotes]);
    assert_eq!(status, "200", "{body}");

    in_clear(&mut hosts);
    tcpdump.terminate();
    let streams = streams(&std::fs::read(&capture).expect("the capture"));
    judge(&streams, &hosts);
}

fn no_tcpdump() -> bool {
    let missing = Command::new("tcpdump").arg("--version").output().is_err();
    if missing {
        println!("skipped: a capture between hosts: needs tcpdump");
    }
    missing
}

/// The control: a call without botmesh, which the same capture must show.
fn in_clear(hosts: &mut Hosts) {
    let address = hosts.net.address("web-2");
    let mut server = hosts.net.command("web-2", NOBODY, crate::support::PYTHON);
    server.args(["-u", "-m", "http.server", "9999", "--bind", &address]);
    hosts.spawn(server, "Serving");
    let url = format!("http://{address}:9999/path-in-clear");
    let mut curl = hosts.net.command("web-1", CHECKOUT, "curl");
    run(curl.args(["-sS", "-m", "20", &url]));
}

/// Every stream but the control is TLS 1.3 by X25519MLKEM768, and none holds a word that is nobody's business.
fn judge(streams: &Streams, hosts: &Hosts) {
    let holds = |bytes: &[u8], word: &str| {
        bytes
            .windows(word.len())
            .any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
    };
    let mut hops = 0;
    let mut controls = 0;
    for (name, bytes) in streams {
        if name.contains(":9999") {
            controls += u32::from(holds(bytes, "path-in-clear"));
            continue;
        }
        for word in SECRETS {
            assert!(!holds(bytes, word), "{name} shows {word}");
        }
        let records = records(name, bytes);
        let (kind, first) = records.first().expect("a record");
        assert_eq!(*kind, 22, "{name} begins with a handshake");
        if first[0] == 2 {
            assert_eq!(server_hello(first), (TLS13, X25519MLKEM768), "{name}");
            hops += u32::from(name.starts_with(&format!("{}:15443>", hosts.net.address("web-2"))));
        }
        let plain = records.iter().skip(1).find(|(kind, _)| *kind == 22 || *kind == 21);
        assert!(plain.is_none(), "{name}: a handshake or alert in clear after the hello");
    }
    assert_eq!(controls, 1, "the capture shows what is in clear: {:?}", streams.keys());
    assert!(hops >= 2, "web-1 and web-3 both called: {:?}", streams.keys());
    println!(
        "{} streams, {hops} hops to web-2: TLS 1.3, X25519MLKEM768 (0x11ec), nothing in clear",
        streams.len()
    );
}

#[test]
fn installing_again_keeps_what_was_edited_and_the_linters_are_content() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().expect("a folder");
    let install = || {
        let mut script = Command::new(root.join("deploy/install.sh"));
        script
            .args(["ca", "proxy"])
            .env("DESTDIR", dir.path())
            .env("PREFIX", "/usr");
        run(script.env("BOTMESH", env!("CARGO_BIN_EXE_botmesh")))
    };
    assert!(install().status.success());
    let config = dir.path().join("etc/botmesh/ca.yaml");
    std::fs::write(&config, "trust_domain: mine.internal\n").expect("edited");
    assert!(install().status.success());
    let kept = std::fs::read_to_string(&config).expect("the configuration");
    assert_eq!(kept, "trust_domain: mine.internal\n");
    let unit = std::fs::read_to_string(dir.path().join("etc/systemd/system/botmesh-ca.service")).expect("a unit");
    assert!(
        unit.contains("ExecStart=/usr/bin/botmesh ca run"),
        "PREFIX counts: {unit}"
    );
    let state = std::fs::metadata(dir.path().join("var/lib/botmesh/ca")).expect("a folder");
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&state.permissions()) & 0o777,
        0o700
    );

    if let Some(out) = lint("shellcheck", &["deploy/install.sh"]) {
        assert!(out.status.success(), "{}", both(&out));
    }
    // A folder with the real names: `verify` follows what each unit names. What else systemd itself brings is not ours.
    let units = dir
        .path()
        .join("etc/systemd/system/botmesh-proxy.socket")
        .display()
        .to_string();
    if let Some(out) = lint("systemd-analyze", &["verify", "--man=no", &units]) {
        let ours = both(&out);
        let ours: Vec<&str> = ours.lines().filter(|line| line.contains("botmesh")).collect();
        let missing = |line: &&str| !line.contains("/usr/bin/botmesh is not executable");
        assert!(!ours.iter().any(missing), "{ours:?}");
    }
    let security = ["security", "--offline=true", "--no-pager"];
    for (unit, most) in [("botmesh-ca", "15"), ("botmesh-proxy", "35")] {
        let file = format!("deploy/systemd/{unit}.service");
        let threshold = format!("--threshold={most}");
        if let Some(out) = lint("systemd-analyze", &[&security[..], &[&threshold, &file]].concat()) {
            assert!(
                out.status.success(),
                "{unit}: an exposure of more than {most}/10: {}",
                both(&out)
            );
        }
    }
}

/// Runs a linter in the repository; says so where there is none.
fn lint(program: &str, words: &[&str]) -> Option<std::process::Output> {
    let out = Command::new(program)
        .args(words)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    if out.is_err() {
        println!("skipped: lint of deploy/: needs {program}");
    }
    out.ok()
}

/// Says which caller the answering bot was told of, as a foreign process asks it without the proxy.
fn forged(hosts: &Hosts, words: &[&str]) -> (String, String) {
    let header = ["-H", "x-botmesh-caller: spiffe://acme.internal/prod/checkout"];
    hosts.curl("web-2", NOBODY, &[&header[..], words].concat())
}

#[test]
fn a_foreign_process_reaches_a_loopback_port_until_the_guard_is_loaded_and_a_unix_socket_never() {
    if !root_or_skip("the guard") {
        return;
    }
    let hosts = three_hosts();
    let ports = [
        "http://127.0.0.1:9001/quotes/4",
        "http://[::ffff:127.0.0.1]:9001/quotes/4",
    ];
    for port in ports {
        let (status, body) = forged(&hosts, &[port]);
        assert_eq!(status, "200", "without the guard {port} is open: {body}");
        assert!(
            body.contains("spiffe://acme.internal/prod/checkout"),
            "and believes the header: {body}"
        );
    }
    let socket = hosts.dir.path().join("orders/orders.sock").display().to_string();
    // Only the folder's mode stands in the way: the bot lets everybody use the socket itself.
    let (status, body) = forged(&hosts, &["--unix-socket", &socket, "http://orders.prod.mesh/orders/17"]);
    assert_eq!(status, "000", "a socket in a folder of mode 0750: {body}");

    let web_2 = hosts.host("web-2");
    let table = ok(botmesh().args(["host", "guard", "--nft", "--server", &web_2.server()]));
    let file = hosts.dir.path().join("guard.nft");
    std::fs::write(&file, &table).expect("written");
    for _again in 0..2 {
        ok(hosts.net.command("web-2", 0, "nft").arg("-f").arg(&file));
    }
    for port in ports {
        let (status, body) = forged(&hosts, &[port]);
        assert_eq!(status, "000", "{port}: {body}");
    }
    let socket = hosts.host("web-1").path("/run/botmesh/bot.sock").display().to_string();
    let quotes = "http://quotes.prod.mesh/quotes/4";
    let (status, body) = hosts.curl("web-1", CHECKOUT, &["--unix-socket", &socket, quotes]);
    assert_eq!(status, "200", "the proxy passes the guard: {body}");
    println!("guard: foreign uid reset, proxy 200; unix socket 0750: foreign uid refused by the kernel");

    let (_, told) = hosts.curl("web-2", NOBODY, &["http://127.0.0.1:15090/readyz"]);
    assert!(told.starts_with("ok\n"), "{told}");
    assert!(
        told.contains("note: prod/quotes is open locally on 127.0.0.1:9001"),
        "{told}"
    );
    assert!(!told.contains("prod/orders"), "{told}");
}
