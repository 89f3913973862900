//! gRPC end to end with grpcio at both ends: what it carries, what it refuses, and what the records and metrics say.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::spine::{CHECKOUT, LOCAL, ORDERS, REPORT};
use crate::support::{
    Mesh, PYTHON, Process, Setup, as_user, both, botmesh, eventually, free_port, http_get, ok, root_or_skip, run,
    socket_folder,
};

/// A bot with one channel of grpcio.
struct Client {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Client {
    fn new(uid: u32, args: &[&str]) -> Self {
        let mut command = as_user(PYTHON, uid);
        command.args(["-c", include_str!("support/grpc_client.py")]).args(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let to = child.stdin.take().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        Self { child, to, from }
    }

    /// To a bot by its mesh host, at one of the proxy's addresses.
    fn to(uid: u32, at: &str, host: &str) -> Self {
        Self::new(uid, &[at, &format!("grpc.default_authority={host}")])
    }

    fn order(&mut self, order: &Value) -> Value {
        writeln!(self.to, "{order}").unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{order}: {e}: {line:?}"))
    }

    fn unary(&mut self, method: &str, send: &str) -> Value {
        self.order(&json!({"do": "unary", "method": format!("acme.Echo/{method}"), "send": send}))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn code(told: &Value) -> &str {
    told["code"].as_str().unwrap_or_default()
}

fn field<'a>(told: &'a Value, which: &str, name: &str) -> Option<&'a str> {
    let pairs = told[which].as_array()?;
    pairs.iter().find(|pair| pair[0] == name)?[1].as_str()
}

/// `prod/echo` serves on a port of web-2, `prod/near` on a Unix socket of web-1, where its callers are.
struct Echo {
    mesh: Mesh,
    port: u16,
    socket: String,
    server: Process,
}

fn mesh_file(port: u16, socket: &str) -> String {
    format!(
        r#"version: 1
trust_domain: acme.internal
bots:
  prod/checkout: {{owner: o, hosts: [web-1], attest: {{uid: {CHECKOUT}}}}}
  prod/report: {{owner: o, hosts: [web-1], attest: {{uid: {REPORT}}}}}
  prod/echo: {{owner: o, hosts: [web-2], attest: {{uid: {ORDERS}}}, serve: {{grpc: {port}}}}}
  prod/near: {{owner: o, hosts: [web-1], attest: {{uid: {LOCAL}}}, serve: {{grpc: "{socket}"}}}}
allow:
  - {{id: checkout-echo, from: prod/checkout, to: "prod/**", grpc: ["acme.Echo/*"]}}
  - {{id: report-gets, from: prod/report, to: prod/echo, grpc: [acme.Echo/Get]}}
deny:
  - {{id: no-drop, from: "**", to: "prod/**", grpc: ["*/Drop*"], reason: nothing is dropped}}
"#
    )
}

fn serve(mesh: &Mesh, uid: u32, at: &str, options: &[&str]) -> Process {
    let mut command = as_user(PYTHON, uid);
    command
        .args(["-c", include_str!("support/grpc_callee.py"), at])
        .args(options);
    let log = mesh.dir().join(format!("grpc-{uid}-{}.log", std::process::id()));
    std::fs::remove_file(&log).ok();
    let process = Process::spawn(command, log);
    eventually("a gRPC server", || process.log().contains("ready").then_some(()));
    process
}

impl Echo {
    fn start(extra: &str) -> Self {
        let mesh = Mesh::start(&Setup {
            hosts: &["web-1", "web-2"],
            extra,
            ..Setup::default()
        });
        let (port, folder) = (free_port(), mesh.dir().join("near"));
        socket_folder(&folder, LOCAL);
        let socket = format!("unix:{}", folder.join("near.sock").display());
        mesh.apply(&mesh_file(port, &socket));
        let server = serve(&mesh, ORDERS, &port.to_string(), &[]);
        Self {
            mesh,
            port,
            socket,
            server,
        }
    }

    /// A channel over the proxy's Unix socket to the bot on the other host.
    fn checkout(&self) -> Client {
        Client::to(CHECKOUT, &self.mesh.host("web-1").bot_socket(), "echo.prod.mesh")
    }

    /// How many calls of `Wait` the server has seen begin, and end.
    fn waits(&self, client: &mut Client) -> (u64, u64) {
        let told = client.unary("Count", "");
        let text = told["messages"][0].as_str().unwrap_or_else(|| panic!("{told}"));
        let (began, ended) = text.split_once(' ').unwrap();
        (began.parse().unwrap(), ended.parse().unwrap())
    }

    /// The record of the newest call that this path was asked of, with its end.
    fn record(&self, host: &str, path: &str) -> Value {
        eventually(&format!("the end of {path} on {host}"), || {
            let records = self.mesh.host(host).query(&format!("kind=call path={path}"));
            records.last().filter(|record| record["outcome"].is_string()).cloned()
        })
    }
}

fn metric(mesh: &Mesh, host: &str, start: &str, labels: &[&str]) -> f64 {
    let port = mesh.host(host).ports.metrics;
    let (_, text) = http_get(port, "/metrics").unwrap();
    let found = text
        .lines()
        .filter(|line| line.starts_with(start) && labels.iter().all(|label| line.contains(label)));
    found
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[test]
fn every_kind_of_call_goes_through_two_proxies_one_proxy_and_a_tunnel() {
    if !root_or_skip("gRPC of other users") {
        return;
    }
    let echo = Echo::start("");
    let _near = serve(&echo.mesh, LOCAL, &echo.socket, &[]);
    let host = echo.mesh.host("web-1");
    let proxy = format!("http://{}", host.bot_tcp());
    let tcp = host.bot_tcp();
    for args in [
        vec![host.bot_socket(), "grpc.default_authority=echo.prod.mesh".to_owned()],
        vec![tcp, "grpc.default_authority=echo.prod.mesh".to_owned()],
        vec!["echo.prod.mesh:80".to_owned(), "via".to_owned(), proxy],
        vec![host.bot_socket(), "grpc.default_authority=near.prod.mesh".to_owned()],
    ] {
        let mut client = Client::new(CHECKOUT, &args.iter().map(String::as_str).collect::<Vec<_>>());
        let told = client.unary("Get", "hello");
        assert_eq!(
            (code(&told), &told["messages"]),
            ("OK", &json!(["hello"])),
            "{args:?}: {told}"
        );
        let told = client.order(&json!({"do": "server", "method": "acme.Echo/Many", "send": "3 5"}));
        assert_eq!(
            (code(&told), &told["messages"]),
            ("OK", &json!(["xxxxx", "xxxxx", "xxxxx"])),
            "{told}"
        );
        let told = client.order(&json!({"do": "client", "method": "acme.Echo/Collect", "send": ["a", "bc", 40_000]}));
        assert_eq!((code(&told), &told["messages"]), ("OK", &json!(["3 40003"])), "{told}");
        let told = client.order(&json!({"do": "turns", "method": "acme.Echo/Chat", "send": ["a", "b", "c"]}));
        assert_eq!(
            (code(&told), &told["messages"]),
            ("OK", &json!(["re: a", "re: b", "re: c"])),
            "{told}"
        );
        // The server ends a stream of requests early, and its answer is not lost.
        let many: Vec<u32> = vec![1000; 50];
        let told = client.order(&json!({"do": "client", "method": "acme.Echo/Early", "send": many}));
        assert_eq!((code(&told), &told["messages"]), ("OK", &json!(["enough"])), "{told}");
    }
}

#[test]
fn metadata_deadline_and_trailers_pass_and_no_name_of_ours_is_forged() {
    if !root_or_skip("gRPC metadata") {
        return;
    }
    let echo = Echo::start("");
    let mut client = echo.checkout();
    let sent = json!([
        ["mine", "1"],
        ["mine", "2"],
        ["mine-bin", "ab"],
        ["x-botmesh-caller", "forged"]
    ]);
    let told =
        client.order(&json!({"do": "unary", "method": "acme.Echo/Meta", "send": "", "metadata": sent, "timeout": 9}));
    assert_eq!(code(&told), "OK", "{told}");
    assert_eq!(field(&told, "initial", "first"), Some("1"), "{told}");
    assert_eq!(field(&told, "trailing", "last"), Some("2"), "{told}");
    assert_eq!(field(&told, "trailing", "last-bin"), Some("00ff"), "{told}");
    let id = field(&told, "initial", "botmesh-call").expect("every answer names its call");
    let body: Value = serde_json::from_str(told["messages"][0].as_str().unwrap_or_default())
        .unwrap_or_else(|e| panic!("{e}: {told}"));
    let seen = |name: &str| -> Vec<String> {
        let pairs = body["metadata"].as_array().unwrap().iter();
        pairs
            .filter(|pair| pair[0] == name)
            .map(|pair| pair[1].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(seen("mine"), ["1", "2"]);
    assert_eq!(seen("mine-bin"), ["6162"]);
    assert_eq!(seen("x-botmesh-caller"), ["spiffe://acme.internal/prod/checkout"]);
    assert_eq!(seen("x-forwarded-client-cert").len(), 1);
    assert_eq!(seen("traceparent").len(), 1);
    assert!(seen("botmesh-call").is_empty());
    let left = body["left"].as_f64().expect("the deadline reached the server");
    assert!((1.0..=9.0).contains(&left), "{left}");

    let record = &echo.mesh.host("web-1").query(&format!("id={id}"))[0];
    assert_eq!(
        (&record["method"], &record["path"]),
        (&json!("POST"), &json!("/acme.Echo/Meta"))
    );
    assert_eq!(
        (&record["verdict"], &record["rule"]),
        (&json!("allow"), &json!("checkout-echo"))
    );
}

#[test]
fn a_call_counts_by_the_status_in_its_trailers() {
    if !root_or_skip("gRPC statuses") {
        return;
    }
    let echo = Echo::start("");
    let mut client = echo.checkout();
    assert_eq!(code(&client.unary("Get", "hi")), "OK");
    let told = client.unary("Fail", "INTERNAL it broke");
    assert_eq!(
        (code(&told), &told["details"]),
        ("INTERNAL", &json!("it broke")),
        "{told}"
    );
    assert_eq!(field(&told, "trailing", "why"), Some("because"), "{told}");
    let told = client.unary("Fail", "NOT_FOUND no such order");
    assert_eq!(code(&told), "NOT_FOUND", "{told}");
    let told = client.unary("Broken", "");
    assert_eq!(code(&told), "UNKNOWN", "{told}");
    for host in ["web-1", "web-2"] {
        let record = echo.record(host, "/acme.Echo/Fail");
        assert_eq!(
            (&record["status"], &record["grpc_status"]),
            (&json!(200), &json!(5)),
            "{record}"
        );
        let way = if host == "web-1" {
            "direction=\"out\""
        } else {
            "direction=\"in\""
        };
        let count = |class: &str| {
            metric(
                &echo.mesh,
                host,
                "botmesh_requests_total",
                &[way, "to=\"prod/echo\"", class],
            )
        };
        eventually("the ends of all calls", || {
            (count("code_class=\"5xx\"") >= 2.0).then_some(())
        });
        assert_eq!(
            (
                count("code_class=\"5xx\""),
                count("code_class=\"4xx\""),
                count("code_class=\"2xx\"")
            ),
            (2.0, 1.0, 1.0),
            "{host}: INTERNAL and UNKNOWN are failures of the callee, NOT_FOUND is not"
        );
        let of = |status: &str| metric(&echo.mesh, host, "botmesh_grpc_calls_total", &[way, status]);
        assert_eq!(
            (of("\"INTERNAL\""), of("\"NOT_FOUND\""), of("\"OK\"")),
            (1.0, 1.0, 1.0),
            "{host}"
        );
    }
}

#[test]
fn metadata_goes_up_to_the_bound_and_no_further() {
    if !root_or_skip("large gRPC metadata") {
        return;
    }
    let echo = Echo::start("");
    let mut client = echo.checkout();
    let mut sent = |bytes: usize| {
        let metadata = json!([["big", "b".repeat(bytes)]]);
        client.order(&json!({"do": "unary", "method": "acme.Echo/Meta", "send": "0", "metadata": metadata}))
    };
    let told = sent(30_000);
    assert_eq!(code(&told), "OK", "{told}");
    let told = sent(40_000);
    assert_ne!(code(&told), "OK", "beyond 32 KiB");
    let told = sent(10);
    assert_eq!(code(&told), "OK", "the channel goes on: {told}");
    let mut got = |bytes: &str| client.unary("Meta", bytes);
    let told = got("30000");
    assert_eq!(code(&told), "OK", "{told}");
    assert_eq!(field(&told, "initial", "big").map(str::len), Some(30_000));
    let told = got("40000");
    assert_ne!(code(&told), "OK", "beyond 32 KiB");
    assert_eq!(code(&got("10")), "OK", "the callee's connection goes on");
}

#[test]
fn refusals_say_why_in_the_words_of_grpc() {
    if !root_or_skip("gRPC refusals") {
        return;
    }
    let echo = Echo::start("");
    let at = echo.mesh.host("web-1").bot_socket();
    let mut report = Client::to(REPORT, &at, "echo.prod.mesh");
    assert_eq!(code(&report.unary("Get", "hi")), "OK");
    let told = report.unary("Meta", "");
    assert_eq!(code(&told), "PERMISSION_DENIED", "{told}");
    let details = told["details"].as_str().unwrap();
    assert!(details.starts_with("no_rule: "), "{details}");
    assert!(
        details.contains("grpc: [acme.Echo/Meta]"),
        "it says what would allow it: {details}"
    );
    let id = field(&told, "initial", "botmesh-denied")
        .or_else(|| field(&told, "trailing", "botmesh-denied"))
        .unwrap_or_else(|| panic!("{told}"));
    let record = &echo.mesh.host("web-1").query(&format!("id={id}"))[0];
    assert_eq!(
        (&record["verdict"], &record["reason"]),
        (&json!("deny"), &json!("no_rule"))
    );
    // What is suggested is taken.
    let rule = "  - {id: new, from: prod/report, to: prod/echo, grpc: [acme.Echo/Meta]}\ndeny:";
    echo.mesh
        .apply(&mesh_file(echo.port, &echo.socket).replace("deny:", rule));
    assert_eq!(code(&report.unary("Meta", "")), "OK");

    let mut checkout = echo.checkout();
    for method in ["DropAll", "dropall"] {
        let told = checkout.unary(method, "");
        let details = told["details"].as_str().unwrap();
        assert!(
            details.starts_with("denied_by_rule: ") && details.contains("nothing is dropped"),
            "{told}"
        );
    }
    let mut nobody = Client::to(61_098, &at, "echo.prod.mesh");
    let told = nobody.unary("Get", "hi");
    assert!(matches!(code(&told), "UNAUTHENTICATED" | "UNAVAILABLE"), "{told}");
    // Case counts in an allow rule.
    let told = report.unary("get", "hi");
    assert_eq!(code(&told), "PERMISSION_DENIED", "{told}");
    let mut elsewhere = Client::to(CHECKOUT, &at, "near.prod.mesh");
    let told = elsewhere.unary("Get", "hi");
    assert_eq!(code(&told), "UNAVAILABLE", "nobody listens: {told}");
    assert!(
        told["details"].as_str().unwrap().starts_with("peer_unreachable: "),
        "{told}"
    );
}

#[test]
fn deadlines_and_cancels_reach_the_other_end_at_once() {
    if !root_or_skip("gRPC deadlines") {
        return;
    }
    let echo = Echo::start("");
    let mut client = echo.checkout();
    let told = client.order(&json!({"do": "server", "method": "acme.Echo/Wait", "timeout": 0.5}));
    assert_eq!(code(&told), "DEADLINE_EXCEEDED", "{told}");
    assert!(told["seconds"].as_f64().unwrap() < 5.0, "{told}");
    eventually("the server to see the end", || {
        (echo.waits(&mut client) == (1, 1)).then_some(())
    });

    let told = client.order(&json!({"do": "hold", "method": "acme.Echo/Wait", "send": "first"}));
    assert_eq!(told["first"], "here", "{told}");
    assert_eq!(echo.waits(&mut client), (2, 1), "it waits");
    let told = client.order(&json!({"do": "cancel"}));
    assert_eq!(code(&told), "CANCELLED", "{told}");
    eventually("the server to see the cancel", || {
        (echo.waits(&mut client) == (2, 2)).then_some(())
    });
    for host in ["web-1", "web-2"] {
        let record = echo.record(host, "/acme.Echo/Wait");
        assert_eq!(record["outcome"], "caller_gone", "{host}: {record}");
        assert!(record.get("grpc_status").is_none(), "{host}: {record}");
    }
}

#[test]
fn a_server_that_ends_or_starts_anew_is_told_as_unavailable_and_called_again() {
    if !root_or_skip("gRPC restarts") {
        return;
    }
    let mut echo = Echo::start("");
    let mut client = echo.checkout();
    let told = client.order(&json!({"do": "hold", "method": "acme.Echo/Wait", "send": "first"}));
    assert_eq!(told["first"], "here", "{told}");
    echo.server.kill();
    let told = client.order(&json!({"do": "end"}));
    assert_eq!(code(&told), "UNAVAILABLE", "{told}");
    let told = client.unary("Get", "hi");
    assert_eq!(code(&told), "UNAVAILABLE", "{told}");
    echo.server = serve(&echo.mesh, ORDERS, &echo.port.to_string(), &[]);
    let told = client.unary("Get", "hi");
    assert_eq!(code(&told), "OK", "{told}");
    // Somebody else at the callee's port gets nothing.
    echo.server.kill();
    let _thief = serve(&echo.mesh, 61_097, &echo.port.to_string(), &[]);
    let told = client.unary("Get", "secret");
    assert_eq!(code(&told), "UNAVAILABLE", "{told}");
    assert!(
        told["details"].as_str().unwrap().starts_with("callee_mismatch: "),
        "{told}"
    );
}

#[test]
fn a_quarantine_ends_a_stream_and_says_so() {
    if !root_or_skip("gRPC quarantine") {
        return;
    }
    let echo = Echo::start("");
    let mut client = echo.checkout();
    let told = client.order(&json!({"do": "hold", "method": "acme.Echo/Wait", "send": "first"}));
    assert_eq!(told["first"], "here", "{told}");
    let server = echo.mesh.server();
    ok(botmesh().args(["quarantine", "prod/echo", "--reason", "taken over", "--server", &server]));
    let told = client.order(&json!({"do": "end"}));
    assert_eq!(code(&told), "PERMISSION_DENIED", "{told}");
    assert!(told["details"].as_str().unwrap().contains("quarantined"), "{told}");
    let record = echo.record("web-1", "/acme.Echo/Wait");
    assert_eq!(record["grpc_status"], 7, "{record}");
    // Both proxies cut it: where the callee's was first, its answer came to a whole end here.
    assert!(
        record["outcome"] == "quarantined" || record["outcome"] == "done",
        "{record}"
    );
    let told = client.unary("Get", "hi");
    assert_eq!(code(&told), "PERMISSION_DENIED", "{told}");
    ok(botmesh().args(["release", "prod/echo", "--server", &server]));
    eventually("a call after the release", || {
        (code(&client.unary("Get", "hi")) == "OK").then_some(())
    });
}

#[test]
fn a_thousand_calls_and_big_messages_use_one_channel_and_little_memory() {
    if !root_or_skip("many gRPC calls") {
        return;
    }
    // The server takes few calls at a time, so that one connection to it is not enough.
    let mut echo = Echo::start("");
    echo.server.kill();
    echo.server = serve(
        &echo.mesh,
        ORDERS,
        &echo.port.to_string(),
        &["grpc.max_concurrent_streams=4"],
    );
    let mut client = echo.checkout();
    let told = client.order(&json!({"do": "burst", "times": 1000}));
    assert_eq!(told["codes"], json!({"OK": 1000}), "{told}");
    // Five streams that stay do not keep a sixth call from the callee.
    let mut held: Vec<Client> = (0..5).map(|_| echo.checkout()).collect();
    for stream in &mut held {
        let told = stream.order(&json!({"do": "hold", "method": "acme.Echo/Wait", "send": "first"}));
        assert_eq!(told["first"], "here", "{told}");
    }
    assert_eq!(code(&client.unary("Get", "hi")), "OK");
    drop(held);

    let before = rss_kib(&echo.mesh);
    let mib = 1 << 20;
    let told = client.order(&json!({"do": "client", "method": "acme.Echo/Collect", "send": [mib], "times": 64}));
    assert_eq!(
        (code(&told), &told["messages"]),
        ("OK", &json!([format!("64 {}", 64 * mib)])),
        "{told}"
    );
    let told = client.order(&json!({"do": "server", "method": "acme.Echo/Many", "send": format!("64 {mib}")}));
    assert_eq!(
        (code(&told), told["messages"].as_array().map(Vec::len)),
        ("OK", Some(64)),
        "{told}"
    );
    let after = rss_kib(&echo.mesh);
    for (before, after) in before.iter().zip(&after) {
        assert!(
            after.saturating_sub(*before) < 24 * 1024,
            "{before} KiB became {after} KiB"
        );
    }
}

fn rss_kib(mesh: &Mesh) -> Vec<u64> {
    let of = |name: &str| {
        let pid = mesh.host(name).process.child.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    ["web-1", "web-2"].map(of).to_vec()
}

#[test]
fn rules_of_another_protocol_are_refused_and_explain_takes_the_words_of_grpc() {
    if !root_or_skip("gRPC rules") {
        return;
    }
    let echo = Echo::start("");
    let text = mesh_file(echo.port, &echo.socket);
    let wrong = text.replace(
        "to: prod/echo, grpc: [acme.Echo/Get]",
        "to: prod/echo, http: [POST /acme.Echo/Get]",
    );
    let out = echo.mesh.try_apply(&wrong);
    assert_eq!(out.status.code(), Some(3), "{}", both(&out));
    assert!(both(&out).contains("BM0146"), "{}", both(&out));
    let explain = |call: &str| {
        let mut command = botmesh();
        command.args(["policy", "explain", "prod/report", "prod/echo", call, "-o", "json"]);
        let out = run(command.args(["--server", &echo.mesh.server()]));
        serde_json::from_slice::<Value>(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", both(&out)))
    };
    let told = explain("grpc acme.Echo/Get");
    assert_eq!(
        (&told["verdict"], &told["rule"]),
        (&json!("allow"), &json!("report-gets"))
    );
    assert_eq!(explain("POST /acme.Echo/Get")["verdict"], "allow");
    assert_eq!(explain("grpc acme.Echo/Meta")["reason"], "no_rule");
    assert_eq!(explain("grpc acme.Echo/dropall")["reason"], "denied_by_rule");
}
