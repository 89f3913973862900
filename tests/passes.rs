//! What HTTP has beside requests and answers, from end to end by every way in: no body of HEAD, ranges, interim answers,
//! trailers; and bodies that are larger than any memory.

use serde_json::{Value, json};

use crate::hostile::Sender;
use crate::spine::{CHECKOUT, ORDERS, with_callees};
use crate::support::{Mesh, PYTHON, Process, Setup, as_user, eventually, free_port, root_or_skip};

/// How many MiB a body has where nobody says; `BOTMESH_BODY_MIB=1024` is for figures.
const BODY_MIB: u64 = 64;

/// By how many MiB the memory of a proxy may grow while bodies pass, however large they are.
const GROWTH_MAX: u64 = 24;

/// A mesh whose `prod/orders` is a program of the test.
fn with_callee(program: &str) -> (Mesh, Process) {
    let mesh = with_callees(&Setup {
        hosts: &["web-1", "web-2"],
        ..Setup::default()
    });
    let port = free_port();
    let mut command = as_user(PYTHON, ORDERS);
    command.args(["-c", program, &port.to_string()]);
    let callee = Process::spawn(command, mesh.dir().join("odd.log"));
    eventually("the callee to listen", || callee.log().contains("ready").then_some(()));
    let text = std::fs::read_to_string(mesh.mesh_file()).expect("the mesh file");
    let at = text.find("serve: {http: ").expect("the port of prod/orders");
    let end = at + text[at..].find('}').expect("its end");
    let text = format!("{}serve: {{http: {port}}}{}", &text[..at], &text[end + 1..]);
    let rule = "http: [GET /orders/*, POST /refunds, GET /admin/keys]";
    assert!(text.contains(rule), "{text}");
    mesh.apply(&text.replace(
        rule,
        "http: [GET /orders/*, HEAD /orders/*, POST /orders/*, GET /admin/keys]",
    ));
    (mesh, callee)
}

fn ways(mesh: &Mesh) -> [Value; 3] {
    let host = mesh.host("web-1");
    [
        json!({"at": host.bot_socket()}),
        json!({"at": host.bot_tcp()}),
        json!({"at": host.bot_tcp(), "tunnel": "orders.prod.mesh:80"}),
    ]
}

/// One connection that says this and ends its half; what came back.
fn told(sender: &mut Sender, way: &Value, bytes: &str) -> String {
    let mut order = way.clone();
    order["bytes"] = bytes.into();
    let told = sender.order(&order);
    assert_eq!(told["hung"], false, "{bytes:?}: {told}");
    told["got"].as_str().expect("text").to_owned()
}

#[test]
fn head_ranges_interim_answers_and_trailers_pass() {
    if !root_or_skip("what passes") {
        return;
    }
    let (mesh, callee) = with_callee(include_str!("support/odd.py"));
    let mut sender = Sender::new();
    let host = "Host: orders.prod.mesh\r\n";
    for way in ways(&mesh) {
        let mut ask = |bytes: &str| told(&mut sender, &way, bytes);
        // The length is that of the answer to GET, and the next answer begins right after the head.
        let two = ask(&format!(
            "HEAD /orders/head HTTP/1.1\r\n{host}\r\nGET /orders/plain HTTP/1.1\r\n{host}\r\n"
        ));
        let (first, second) = two.split_once("\r\n\r\n").expect("a head");
        assert!(first.contains("content-length: 1234"), "{way}: {two}");
        assert!(
            second.starts_with("HTTP/1.1 200 ") && second.ends_with("plain"),
            "{way}: {two}"
        );

        let part = ask(&format!(
            "GET /orders/range HTTP/1.1\r\n{host}Range: bytes=2-4\r\nIf-Range: \"x\"\r\n\r\n"
        ));
        assert!(
            part.starts_with("HTTP/1.1 206 ") && part.contains("content-range: bytes 2-4/10\r\n"),
            "{way}: {part}"
        );
        assert!(part.ends_with("\r\n\r\n234"), "{way}: {part}");
        let none = ask(&format!("GET /orders/range HTTP/1.1\r\n{host}Range: bytes=20-\r\n\r\n"));
        assert!(
            none.starts_with("HTTP/1.1 416 ") && none.contains("content-range: bytes */10\r\n"),
            "{way}: {none}"
        );

        let late = ask(&format!("GET /orders/early HTTP/1.1\r\n{host}\r\n"));
        assert!(
            late.starts_with("HTTP/1.1 200 ") && late.ends_with("late"),
            "{way}: {late}"
        );

        let sum = ask(&format!("GET /orders/trailers HTTP/1.1\r\n{host}TE: trailers\r\n\r\n"));
        assert!(sum.ends_with("\r\n0\r\nx-sum: 7\r\n\r\n"), "{way}: {sum}");
        let given = ask(&format!(
            "POST /orders/trailers HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Check: 5\r\nX-Botmesh-Caller: forged\r\n\r\n"
        ));
        assert!(given.starts_with("HTTP/1.1 200 "), "{way}: {given}");
    }
    let seen: Vec<_> = callee
        .log()
        .lines()
        .filter_map(|line| line.strip_prefix("trailers ").map(str::to_owned))
        .collect();
    assert_eq!(
        seen, ["x-check: 5"; 3],
        "the callee reads a bot's trailers, and none that name a caller"
    );
}

#[test]
fn a_body_of_any_length_passes_and_no_proxy_keeps_it() {
    if !root_or_skip("large bodies") {
        return;
    }
    let mib =
        std::env::var("BOTMESH_BODY_MIB").map_or(BODY_MIB, |mib| mib.parse().expect("BOTMESH_BODY_MIB is a number"));
    let (mesh, _callee) = with_callee(include_str!("support/odd.py"));
    for (way, at) in [
        ("socket", mesh.host("web-1").bot_socket()),
        ("port", mesh.host("web-1").bot_tcp()),
    ] {
        for kind in ["up", "up-chunked", "down", "slow-down"] {
            let before = ["web-1", "web-2"].map(|host| mesh.host(host).memory_mib("VmHWM"));
            let began = std::time::Instant::now();
            let mut command = as_user(PYTHON, CHECKOUT);
            // Who reads slowly makes the callee wait, and nobody between them.
            let size = if kind == "slow-down" { mib / 4 } else { mib };
            command.args(["-c", include_str!("support/bulk.py"), &at, kind, &size.to_string()]);
            let out = crate::support::ok(&mut command);
            assert_eq!(out.trim(), format!("{} bytes", size << 20), "{way} {kind}");
            let after = ["web-1", "web-2"].map(|host| mesh.host(host).memory_mib("VmHWM"));
            let grown = [after[0] - before[0], after[1] - before[1]];
            println!(
                "{size} MiB {kind} by the {way}: {:.1?}; peak memory of the proxies {} + {} and {} + {} MiB",
                began.elapsed(),
                before[0],
                grown[0],
                before[1],
                grown[1]
            );
            assert!(
                grown.iter().all(|grown| *grown <= GROWTH_MAX),
                "{way} {kind}: {grown:?}"
            );
        }
    }
}
