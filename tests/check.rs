//! The doctor of a host: what it finds on hosts that run from `deploy/`, and what it no longer finds once that is mended.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::netns::{NOBODY, QUOTES, mesh_file, three_hosts};
use crate::support::netns::{Hosts, Installed};
use crate::support::{PYTHON, both, botmesh, eventually, ok, root_or_skip, run};

/// The first user that `check` takes for its tries.
const STRANGER: u32 = 2_000_000_011;

/// Runs `check` in a host's own network, as root; gives the exit code and what was looked at.
fn check(hosts: &Hosts, host: &Installed) -> (i32, Vec<Value>) {
    let mut command = hosts.net.command(&host.name, 0, env!("CARGO_BIN_EXE_botmesh"));
    let out = run(command.args(["check", "-o", "json", "--server", &host.server()]));
    let told: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|error| panic!("{error}: {}", both(&out)));
    let looks = told["looks"].as_array().expect("looks").clone();
    let findings = looks.iter().filter(|look| look["state"] == "finding").count();
    assert_eq!(told["findings"], findings);
    (out.status.code().expect("a code"), looks)
}

/// What was found, as `part: what`.
fn found(looks: &[Value]) -> Vec<String> {
    let findings = looks.iter().filter(|look| look["state"] == "finding");
    findings
        .map(|look| format!("{}: {}", look["part"].as_str().unwrap(), look["what"].as_str().unwrap()))
        .collect()
}

/// The state of the looks whose name begins so.
fn states<'l>(looks: &'l [Value], what: &str) -> Vec<&'l str> {
    let named = looks
        .iter()
        .filter(|look| look["what"].as_str().unwrap().starts_with(what));
    named.map(|look| look["state"].as_str().unwrap()).collect()
}

/// Removes the used join tokens, as the operator's page says.
fn without_tokens(hosts: &Hosts) {
    for host in &hosts.proxies {
        std::fs::remove_file(host.path("/run/botmesh/join-token")).expect("it was there");
    }
}

#[test]
fn check_names_a_bot_that_is_open_locally_until_it_is_guarded_and_tries_what_must_be_refused() {
    if !root_or_skip("check") {
        return;
    }
    let hosts = three_hosts();
    let web_2 = hosts.host("web-2");
    let (code, looks) = check(&hosts, web_2);
    let expected = ["proxy: join token", "bots: prod/quotes on 127.0.0.1:9001"];
    assert_eq!(
        (code, found(&looks)),
        (1, expected.map(str::to_owned).into()),
        "{looks:#?}"
    );
    assert_eq!(
        states(&looks, "used join token, with another key"),
        ["ok"],
        "{looks:#?}"
    );
    let refused = ok(botmesh()
        .args(["audit", "query", "kind=token_refused", "-o", "jsonl"])
        .arg(hosts.ca.path("/var/lib/botmesh/ca/ledger")));
    assert_eq!(refused.lines().count(), 1, "the CA has seen it: {refused}");
    without_tokens(&hosts);
    let (code, looks) = check(&hosts, web_2);
    assert_eq!(found(&looks), ["bots: prod/quotes on 127.0.0.1:9001"], "{looks:#?}");
    assert_eq!(code, 1);
    assert_eq!(states(&looks, "TLS without a certificate"), ["ok"], "{looks:#?}");
    assert_eq!(states(&looks, "call by a foreign user"), ["ok", "ok"], "{looks:#?}");
    assert_eq!(states(&looks, "keys on disk"), ["note"], "{looks:#?}");

    let file = hosts.dir.path().join("guard.nft");
    std::fs::write(
        &file,
        ok(botmesh().args(["host", "guard", "--server", &web_2.server()])),
    )
    .expect("written");
    ok(hosts.net.command("web-2", 0, "nft").arg("-f").arg(&file));
    let (code, looks) = check(&hosts, web_2);
    assert_eq!((code, found(&looks)), (0, Vec::new()), "{looks:#?}");
    println!("check: 1 finding without the guard (open locally), 0 with it");

    let state = web_2.path("/var/lib/botmesh/proxy");
    std::fs::set_permissions(&state, Permissions::from_mode(0o755)).expect("chmod");
    let node = state.join("node.json");
    std::fs::set_permissions(&node, Permissions::from_mode(0o644)).expect("chmod");
    let run = web_2.path("/run/botmesh");
    std::fs::set_permissions(&run, Permissions::from_mode(0o777)).expect("chmod");
    let (code, looks) = check(&hosts, web_2);
    assert_eq!(code, 1);
    let folder = run.display();
    let expected = [
        format!("proxy: socket folder {folder}"),
        format!("proxy: state folder {}", state.display()),
        format!("proxy: key {}", node.display()),
    ];
    assert_eq!(found(&looks), expected, "{looks:#?}");
}

#[test]
fn check_finds_a_foreign_user_who_is_taken_for_a_bot() {
    if !root_or_skip("check of a wrong uid") {
        return;
    }
    let hosts = three_hosts();
    without_tokens(&hosts);
    let socket = hosts.dir.path().join("orders/orders.sock").display().to_string();
    let wide = format!("bots:\n  prod/wide: {{owner: x@acme.internal, hosts: [web-1], attest: {{uid: {STRANGER}}}}}\n");
    hosts.apply(&mesh_file(&socket).replacen("bots:\n", &wide, 1));
    let (code, looks) = check(&hosts, hosts.host("web-1"));
    assert_eq!(code, 1);
    let expected = ["socket", "port"].map(|way| format!("tries: call by a foreign user, by the {way}"));
    assert_eq!(found(&looks), expected, "{looks:#?}");
}

/// What an operator reads on web-2, with what differs from run to run taken out.
fn read(hosts: &Hosts) -> String {
    let web_2 = hosts.host("web-2");
    let mut command = hosts.net.command("web-2", 0, env!("CARGO_BIN_EXE_botmesh"));
    let out = run(command.args(["check", "--color", "never", "--server", &web_2.server()]));
    String::from_utf8(out.stdout)
        .expect("utf-8")
        .replace(&web_2.path("/").display().to_string(), "/")
}

/// Puts N for the numbers of lines that differ from run to run: times, and how full the ledger is. What the proxy may do
/// is other tests' matter.
fn steady(text: &str) -> String {
    let line = |line: &str| {
        if let Some((what, _)) = line.split_once("privileges: ") {
            return format!("{what}privileges: ...\n");
        }
        let differs = ["clock: ", "node SVID: ", "ledger: "]
            .iter()
            .any(|what| line.contains(what));
        let mut out = String::new();
        for letter in line.chars() {
            let number = differs && (letter.is_ascii_digit() || "-:.TZ".contains(letter) && out.ends_with('N'));
            match number {
                true if out.ends_with('N') => {}
                true => out.push('N'),
                false => out.push(letter),
            }
        }
        out + "\n"
    };
    text.lines().map(line).collect()
}

#[test]
fn what_an_operator_reads_says_what_where_and_what_to_do() {
    if !root_or_skip("the text of check") {
        return;
    }
    let hosts = three_hosts();
    let orders = hosts.dir.path().join("orders").display().to_string();
    let text = steady(&read(&hosts)).replace(&orders, "/run/orders");
    assert_eq!(text, include_str!("support/check.txt"), "{text}");
}

/// A mesh file with more bots than the example's.
fn with_bots(hosts: &Hosts, more: &str) -> String {
    let socket = hosts.dir.path().join("orders/orders.sock").display().to_string();
    mesh_file(&socket).replacen("bots:\n", &format!("bots:\n{more}"), 1)
}

#[test]
fn check_names_squatters_bots_that_are_alike_and_who_is_cut_off() {
    if !root_or_skip("check of squatters") {
        return;
    }
    let mut hosts = three_hosts();
    without_tokens(&hosts);
    let mut squatter = hosts.net.command("web-2", NOBODY, PYTHON);
    squatter.args(["-c", include_str!("support/squatter.py"), "9001", "::1"]);
    hosts.spawn(squatter, "holds");
    let server = hosts.host("web-2").server();
    ok(botmesh().args([
        "quarantine",
        "prod/boxed",
        "--reason",
        "odd",
        "--local",
        "--server",
        &server,
    ]));
    let (code, looks) = check(&hosts, hosts.host("web-2"));
    let open = "bots: prod/quotes on 127.0.0.1:9001".to_owned();
    let squats = "bots: another listener on the port of prod/quotes".to_owned();
    assert_eq!(
        (code, found(&looks)),
        (1, vec![open.clone(), squats.clone()]),
        "{looks:#?}"
    );
    assert_eq!(states(&looks, "who listens for prod/quotes"), ["ok"], "{looks:#?}");
    assert_eq!(states(&looks, "quarantine of bot prod/boxed"), ["note"], "{looks:#?}");

    // What listens on the port of prod/quotes is another bot by now, and two bots have one user.
    let twins = "  prod/one: {owner: x@acme.internal, hosts: [web-2], attest: {uid: 61201, gid: 61204}}\n  \
                 prod/two: {owner: x@acme.internal, hosts: [web-2], attest: {uid: 61201, gid: 61202}}\n";
    let moved = with_bots(&hosts, twins).replace(&format!("attest: {{uid: {QUOTES}}}"), "attest: {uid: 61203}");
    hosts.apply(&moved);
    let (_, looks) = check(&hosts, hosts.host("web-2"));
    let expected = [
        "bots: who listens for prod/quotes, 127.0.0.1:9001".to_owned(),
        "bots: prod/one and prod/two".to_owned(),
        open,
        squats,
    ];
    assert_eq!(found(&looks), expected, "{looks:#?}");
    println!("check: a squatter on [::1], one on the port itself, and two bots of one user are 3 findings");
}

#[test]
fn check_on_the_ca_names_hosts_that_are_away_and_says_where_the_key_is() {
    if !root_or_skip("check of the CA") {
        return;
    }
    let mut hosts = three_hosts();
    without_tokens(&hosts);
    let (code, looks) = check(&hosts, &hosts.ca);
    assert_eq!((code, found(&looks)), (0, Vec::new()), "{looks:#?}");
    let key = looks.iter().find(|look| {
        look["seen"]
            .as_str()
            .is_some_and(|seen| seen.contains("key-encryption key"))
    });
    assert_eq!(key.expect("the key is spoken of")["state"], "note");
    assert_eq!(
        states(&looks, "answers"),
        ["ok", "untried"],
        "no proxy runs there: {looks:#?}"
    );

    hosts
        .proxies
        .last_mut()
        .expect("web-3")
        .process
        .take()
        .expect("a process")
        .kill();
    eventually("web-3 to be missed", || {
        let (code, looks) = check(&hosts, &hosts.ca);
        (code == 1 && found(&looks) == ["ca: host web-3"]).then_some(())
    });
    hosts.ca.process.take().expect("a process").kill();
    let web_1 = hosts.host("web-1");
    eventually("web-1 to miss its CA", || {
        let (_, looks) = check(&hosts, web_1);
        (found(&looks) == ["proxy: CA"]).then_some(())
    });
    let out = run(botmesh().args(["check", "--server", &hosts.ca.server()]));
    assert_eq!(
        out.status.code(),
        Some(4),
        "nothing answers on the CA's host: {}",
        both(&out)
    );
}

#[test]
fn bot_show_says_who_may_call_it_where_it_serves_and_whether_it_is_open_locally() {
    if !root_or_skip("bot show") {
        return;
    }
    let hosts = three_hosts();
    let quotes = hosts.ca.ask(&["bot", "show", "prod/quotes"]);
    assert_eq!(quotes["id"], "spiffe://acme.internal/prod/quotes");
    assert_eq!(quotes["open_locally"], true);
    assert_eq!(quotes["serve"], "http on 127.0.0.1:9001");
    let web_2 = format!("{}:15443", hosts.net.address("web-2"));
    let listed = quotes["endpoints"].as_array().expect("endpoints");
    assert!(
        listed.iter().any(|at| at.as_str().unwrap().contains(&web_2)),
        "{quotes}"
    );
    let ends: Vec<_> = quotes["callers"].as_array().expect("callers").iter().collect();
    let rule = ends
        .iter()
        .find(|rule| rule["rule"] == "checkout-reads-quotes")
        .expect("the rule");
    assert_eq!(rule["bots"], serde_json::json!(["prod/checkout"]));
    assert_eq!(
        (&rule["verdict"], &rule["calls"]),
        (&"allow".into(), &serde_json::json!(["GET /quotes/*"]))
    );
    assert!(
        ends.iter()
            .any(|rule| rule["verdict"] == "deny" && rule["rule"] == "nobody-touches-admin")
    );

    let orders = hosts.ca.ask(&["bot", "show", "prod/orders"]);
    assert_eq!(orders["open_locally"], false, "{orders}");
    let server = hosts.ca.server();
    let text = ok(botmesh().args(["bot", "show", "prod/checkout", "--color", "never", "--server", &server]));
    let (_, callees) = text.split_once("whom it may call\n").expect("the heading");
    assert!(
        callees.contains("prod/orders  GET /orders/*, POST /refunds  checkout-reads-orders"),
        "{text}"
    );
    let out = run(botmesh().args(["bot", "show", "prod/none", "--server", &server]));
    assert_eq!(out.status.code(), Some(1), "{}", both(&out));
    assert!(both(&out).contains("there is no bot prod/none"), "{}", both(&out));
}
