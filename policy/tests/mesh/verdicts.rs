//! Verdicts, explanations, tests of the mesh file, and slices, by example.

use policy::{Generation, HttpAsk, Mesh, Method, Target, Verdict, What};
use serde_json::{Value, json};
use spiffe::id::{BotName, HostName, SpiffeId};
use spiffe::time::Timestamp;

use crate::generate::{load, now};

const MESH: &str = include_str!("../golden/good.yaml");

fn mesh() -> Mesh {
    load(MESH.to_owned())
}

fn explain(mesh: &Mesh, from: &str, to: &str, call: &str) -> Value {
    let from = SpiffeId::parse(&format!("spiffe://acme.internal/{from}")).unwrap();
    serde_json::to_value(mesh.explain(now(), &from, &to.parse().unwrap(), &what(call))).unwrap()
}

fn what(text: &str) -> What {
    What::connection(text).unwrap_or_else(|| {
        let (method, path) = text.split_once(' ').unwrap();
        let path = policy::CanonicalPath::parse(path.as_bytes()).unwrap();
        What::Http(HttpAsk::new(Method::parse(method).unwrap(), path))
    })
}

#[test]
fn an_allowed_call_names_its_rule_and_where_it_stands() {
    let told = explain(&mesh(), "prod/checkout", "prod/orders", "GET /orders/17");
    assert_eq!(
        (&told["verdict"], &told["rule"], &told["reason"]),
        (&json!("allow"), &json!("checkout-reads-orders"), &Value::Null)
    );
    assert_eq!(told["rule_at"], json!({"file": "mesh.yaml", "line": 25}));
    assert_eq!((&told["nearest"], &told["why"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_call_without_a_rule_names_the_nearest_and_what_differs() {
    let told = explain(&mesh(), "prod/checkout", "prod/orders", "HEAD /orders/17");
    assert_eq!(
        (&told["verdict"], &told["rule"], &told["reason"]),
        (&json!("deny"), &Value::Null, &json!("no_rule"))
    );
    let differs = json!([{"attribute": "method", "rule_has": "GET", "call_has": "HEAD"}]);
    assert_eq!(
        told["nearest"],
        json!({"rule": "checkout-reads-orders", "differs": differs})
    );
}

#[test]
fn a_deny_rule_wins_in_any_spelling_and_tells_its_reason() {
    let told = explain(&mesh(), "prod/checkout", "prod/orders", "GET /ADMIN/keys");
    assert_eq!(
        (&told["rule"], &told["reason"]),
        (&json!("nobody-touches-admin"), &json!("denied_by_rule"))
    );
    assert_eq!(
        (&told["why"], &told["nearest"]),
        (&json!("admin API is for people only"), &Value::Null)
    );
    let told = explain(&mesh(), "staging/echo", "prod/orders", "GET /orders/17");
    assert_eq!(
        told["rule"],
        json!("no-staging"),
        "a deny rule without `http` covers every call"
    );
}

#[test]
fn an_ended_rule_is_named_as_the_reason() {
    let told = explain(&mesh(), "prod/backfill", "prod/orders", "PUT /orders/17");
    assert_eq!(
        (&told["reason"], &told["rule"]),
        (&json!("rule_expired"), &json!("inc-4711"))
    );
    assert_eq!(told["why"], json!("INC-4711 rebuild"));
    let differs = json!([{"attribute": "until", "rule_has": "2026-12-01T18:00:00.000Z", "call_has": "a later time"}]);
    assert_eq!(told["nearest"]["differs"], differs);
}

#[test]
fn candidates_are_ranked_and_compared_attribute_by_attribute() {
    let told = explain(&mesh(), "prod/backfill", "prod/orders", "GET /orders/17");
    let rules: Vec<&str> = told["candidates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["rule"].as_str().unwrap())
        .collect();
    assert_eq!(rules, ["checkout-reads-orders", "inc-4711", "dashboard"]);
    assert_eq!(
        told["candidates"][1],
        json!({
            "rule": "inc-4711",
            "at": {"file": "mesh.yaml", "line": 29},
            "ticks": [
                {"attribute": "from", "matches": true, "rule_has": "prod/backfill", "call_has": "prod/backfill"},
                {"attribute": "to", "matches": true, "rule_has": "prod/orders", "call_has": "prod/orders"},
                {"attribute": "method", "matches": false, "rule_has": "PUT", "call_has": "GET"},
                {"attribute": "path", "matches": true, "rule_has": "/orders/*", "call_has": "/orders/17"},
                {"attribute": "until", "matches": false, "rule_has": "2026-12-01T18:00:00.000Z", "call_has": "a later time"},
            ],
        })
    );
    let from: &Value = &told["candidates"][2]["ticks"][0];
    assert_eq!(
        (&from["rule_has"], &from["matches"]),
        (&json!("prod/checkout, group:staging"), &json!(false))
    );
    assert_eq!(
        told["nearest"]["rule"],
        json!("inc-4711"),
        "the nearest rule links the two"
    );
}

#[test]
fn of_equally_near_rules_one_that_links_the_two_comes_first() {
    let mesh = load("version: 1\ntrust_domain: acme.internal\nbots:\n  a: {owner: o, hosts: [h], attest: {uid: 1}, serve: {http: 80}}\n  b: {owner: o, hosts: [h], attest: {uid: 2}, serve: {http: 81}}\nallow:\n  - {id: a, from: b, to: b, http: [GET /]}\n  - {id: z, from: a, to: b, http: [POST /]}\n".to_owned());
    let told = explain(&mesh, "a", "b", "GET /");
    assert_eq!(
        (&told["candidates"][0]["rule"], &told["candidates"][1]["rule"]),
        (&json!("z"), &json!("a"))
    );
}

#[test]
fn the_tests_of_a_mesh_pass_or_tell_what_was_got() {
    let report = mesh().run_tests(now());
    assert_eq!(
        (report.total(), report.passed(), report.failed(), report.render(false)),
        (7, 7, 0, String::new())
    );
    let call = &report.outcomes[6];
    assert_eq!(
        serde_json::to_value(call).unwrap(),
        json!({
            "name": "until then it writes", "from": "prod/backfill", "to": "prod/orders", "call": "PUT /orders/17",
            "expected": "allow", "got": "allow", "passed": true, "rule": "inc-4711", "by": "inc-4711",
            "file": "mesh.yaml", "line": 41,
        })
    );
}

#[test]
fn a_failed_test_points_at_its_call() {
    let text = format!(
        "{MESH}  - name: wrong\n    from: prod/checkout\n    to: prod/orders\n    by: inc-4711\n    allow: [GET /orders/17]\n    deny: [GET /orders/18, GET /admin]\n  - {{name: refused, from: prod/checkout, to: prod/orders, allow: [GET /admin/keys, GET /x]}}\n"
    );
    let report = load(text).run_tests(now());
    assert_eq!((report.passed(), report.failed(), report.failures().len()), (8, 4, 4));
    assert_eq!(report.render(false), include_str!("../golden/failed-tests.txt"));
}

#[test]
fn a_test_runs_at_its_own_time_or_now() {
    let text = format!("{MESH}  - {{name: now, from: prod/backfill, to: prod/orders, allow: [PUT /orders/17]}}\n");
    let mesh = load(text);
    let before = Timestamp::from_rfc3339("2026-12-01T17:59:59.999Z").unwrap();
    assert_eq!(
        (mesh.run_tests(before).failed(), mesh.run_tests(now()).failed()),
        (0, 1)
    );
}

#[test]
fn a_mesh_tells_its_bots_rules_and_entries() {
    let mesh = mesh();
    assert_eq!(mesh.trust_domain().as_str(), "acme.internal");
    let ids: Vec<&str> = mesh.rule_ids().map(|id| id.as_str()).collect();
    assert_eq!(
        ids,
        [
            "checkout-reads-orders",
            "dashboard",
            "inc-4711",
            "no-staging",
            "nobody-touches-admin"
        ]
    );
    let bot = |name: &str| mesh.bots()[&BotName::parse(name).unwrap()].clone();
    assert_eq!(
        (
            bot("prod/orders").svid_ttl.as_secs(),
            bot("prod/quotes").svid_ttl.as_secs()
        ),
        (900, 3_600)
    );
    assert_eq!(bot("prod/backfill").attest[0].run_by, ["root", "1000"]);
    let entries = |host| -> Vec<String> {
        mesh.entries_for(&HostName::parse(host).unwrap())
            .iter()
            .map(|entry| entry.bot.to_string())
            .collect()
    };
    assert_eq!(
        entries("web-1"),
        ["prod/backfill", "prod/checkout", "prod/orders", "staging/echo"]
    );
    assert_eq!(
        entries("web-2"),
        ["prod/checkout", "prod/orders", "prod/quotes", "staging/echo"]
    );
    assert_eq!(entries("db-1"), ["staging/echo"]);
}

#[test]
fn files_are_merged_in_any_order() {
    let (bots, rules) = MESH.split_once("groups:").unwrap();
    let source = |name: &str, text: String| policy::Source {
        name: name.to_owned(),
        text,
    };
    let sources = [
        source("a.yaml", bots.to_owned()),
        source("b.yaml", format!("version: 1\ngroups:{rules}")),
    ];
    let merged = policy::load(&sources).unwrap();
    assert_eq!(merged, mesh());
    let turned: Vec<policy::Source> = sources.into_iter().rev().collect();
    assert_eq!(policy::load(&turned).unwrap().canonical_json(), mesh().canonical_json());
}

#[test]
fn json_is_read_as_yaml_is() {
    let json: Value = json!({
        "version": 1, "trust_domain": "acme.internal",
        "bots": {"a": {"owner": "\u{e9} \"x\" \\ \u{1f980}", "hosts": ["h"], "attest": {"user": "AD\\a"}, "serve": {"http": 80}}},
        "allow": [{"id": "r", "from": "a", "to": "a", "http": ["GET /"], "browser": false}],
    });
    let mesh = load(serde_json::to_string_pretty(&json).unwrap());
    assert_eq!(
        mesh.bots()[&BotName::parse("a").unwrap()].owner,
        "\u{e9} \"x\" \\ \u{1f980}"
    );
    assert_eq!(load(mesh.canonical_json()), mesh);
}

#[test]
fn a_whole_mesh_with_tests_reads_back_equal() {
    let mesh = mesh();
    let json = mesh.canonical_json();
    assert_eq!(load(json.clone()), mesh);
    assert_eq!(format!("{json}\n"), include_str!("../golden/good.canonical.json"));
}

#[test]
fn every_selector_reads_back_and_names_what_a_host_must_know() {
    let mesh = load(include_str!("../golden/all-selectors.yaml").to_owned());
    let json = mesh.canonical_json();
    assert_eq!(load(json.clone()), mesh);
    assert!(
        json.contains(r#""attest":[{"cgroup":"/system.slice/report.service","unit":"report.service"},{"gid":4712,"group":"bi","user":"report"}]"#),
        "{json}"
    );
    assert_eq!(
        mesh.features().into_iter().collect::<Vec<_>>(),
        ["cgroup", "group", "socket", "unit"]
    );
    let slice = load(mesh.slice(&HostName::parse("web-1").unwrap()));
    assert_eq!(slice.features(), mesh.features());
    let elsewhere = load(mesh.slice(&HostName::parse("web-2").unwrap()));
    assert!(
        elsewhere.features().is_empty(),
        "a host need not know what it need not enforce"
    );
}

#[test]
fn meshes_that_say_something_else_are_not_equal() {
    for (from, to) in [
        ("acme.internal\nbots", "acme.example\nbots"),
        ("svid_ttl: 15m", "svid_ttl: 16m"),
        ("staging: [staging/**]", "staging: [staging/*]"),
        ("GET /orders/*, POST", "GET /orders/**, POST"),
        ("http: GET /, browser: true", "http: GET /, browser: false"),
        ("reason: not yet", "reason: not"),
        ("until: 2026", "until: 2027"),
        (
            "from: prod/backfill, to: prod/orders, http",
            "from: prod/**, to: prod/orders, http",
        ),
        ("deny: PUT /orders/17", "deny: PUT /orders/18"),
        ("deny: PUT /orders/17", "deny: POST /orders/17"),
        ("name: until then it writes", "name: it writes"),
        (
            "at: 2026-12-01T17:59:59.999Z, by: inc-4711",
            "at: 2026-12-01T17:59:59.999Z",
        ),
        ("at: 2026-12-01T17:59:59.999Z", "at: 2026-12-01T17:59:59.998Z"),
    ] {
        assert!(MESH.contains(from), "{from}");
        let other = load(MESH.replacen(from, to, 1));
        assert_ne!(other, mesh(), "{to}");
        assert_ne!(other.canonical_json(), mesh().canonical_json(), "{to}");
    }
}

#[test]
fn a_host_needs_the_addresses_of_those_whom_its_bots_may_call_and_of_nobody_else() {
    let mesh = |extra: &str| {
        load(format!(
            "version: 1\ntrust_domain: acme.internal\nbots:\n  a: {{owner: o, hosts: [h1], attest: {{uid: 1}}, serve: {{http: 80}}}}\n  b: {{owner: o, hosts: [h2], attest: {{uid: 2}}, serve: {{http: 81}}}}\n  c: {{owner: o, hosts: [h3], attest: {{uid: 3}}, serve: {{http: 82}}}}\nallow: [{{id: ab, from: a, to: b, http: [GET /]}}]\n{extra}"
        ))
    };
    let needed = |mesh: &Mesh, host: &str| {
        let callees = mesh.callees_for(&HostName::parse(host).unwrap());
        callees.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let denied = mesh("deny: [{id: no, from: \"**\", to: \"**\", http: [\"* /admin\"], reason: r}]\n");
    assert_eq!(needed(&denied, "h1"), ["b"], "a rule that forbids needs names only");
    assert_eq!(
        needed(&denied, "h2"),
        Vec::<String>::new(),
        "who is called calls nobody"
    );
    assert_eq!(needed(&denied, "h9"), Vec::<String>::new());
    let audited = mesh("audit_only: [{to: c, until: 2100-01-01T00:00:00Z, reason: r}]\n");
    assert_eq!(needed(&audited, "h1"), ["b", "c"]);
    assert_eq!(needed(&audited, "h2"), ["c"]);
    assert_eq!(
        needed(&audited, "h9"),
        Vec::<String>::new(),
        "it has no bot that could call"
    );
}

#[test]
fn a_slice_tells_of_other_hosts_only_what_is_needed() {
    let slice = load(mesh().slice(&HostName::parse("web-2").unwrap()));
    let bot = |name: &str| slice.bots().get(&BotName::parse(name).unwrap()).cloned();
    let backfill = bot("prod/backfill").unwrap();
    assert!(
        backfill.attest.is_empty() && backfill.serve.is_none(),
        "attested elsewhere"
    );
    assert!(!bot("prod/orders").unwrap().attest.is_empty(), "may run here");
    assert_eq!(slice.run_tests(now()).total(), 0);
    assert_eq!(slice.rule_ids().len(), 5);
    assert!(slice.warnings().is_empty());

    let lonely = "version: 1\ntrust_domain: acme.internal\nbots:\n  a: {owner: o, hosts: [h1], attest: {uid: 1}, serve: {http: 80}}\n  b: {owner: o, hosts: [h2], attest: {uid: 2}, serve: {http: 81}}\n  c: {owner: o, hosts: [h3], attest: {uid: 3}, serve: {http: 82}}\ngroups: {bees: [b], cees: [c]}\nallow:\n  - {id: ab, from: a, to: group:bees, http: [GET /]}\n  - {id: bc, from: b, to: group:cees, http: [GET /]}\n";
    let mesh = load(lonely.to_owned());
    let cut: Value = serde_json::from_str(&mesh.slice(&HostName::parse("h1").unwrap())).unwrap();
    assert_eq!(
        cut,
        json!({
            "version": 1, "trust_domain": "acme.internal", "slice": "h1", "deny": [],
            "bots": {
                "a": {"owner": "o", "hosts": ["h1"], "attest": [{"uid": 1}], "serve": {"http": 80}, "svid_ttl": "3600s"},
                "b": {"owner": "o", "hosts": ["h2"], "serve": "http", "svid_ttl": "3600s"},
            },
            "groups": {"bees": ["b"]},
            "allow": [{"id": "ab", "from": ["a"], "to": ["group:bees"], "http": ["GET /"]}],
        })
    );
    let slice = load(cut.to_string());
    assert_eq!(
        slice.bots()[&BotName::parse("b").unwrap()].serve,
        Some(policy::Serve::Http(Target::Elsewhere))
    );
    let none: Value = serde_json::from_str(&mesh.slice(&HostName::parse("h9").unwrap())).unwrap();
    assert_eq!((&none["bots"], &none["allow"]), (&json!({}), &json!([])));
}

#[test]
fn a_rule_of_a_slice_may_name_bots_that_the_slice_does_not_hold() {
    let text = "version: 1\ntrust_domain: acme.internal\nbots:\n  a: {owner: o, hosts: [h1], attest: {uid: 1}}\n  b: {owner: o, hosts: [h2], attest: {uid: 2}}\n  c: {owner: o, hosts: [h1], attest: {uid: 3}, serve: {http: 82}}\nallow:\n  - {id: ab, from: [a, b], to: c, http: [GET /]}\ndeny:\n  - {id: d, from: a, to: b, reason: r}\n";
    let mesh = load(text.to_owned());
    let slice = load(mesh.slice(&HostName::parse("h2").unwrap()));
    assert_eq!(slice.rule_ids().len(), 2);
    assert_eq!(slice.bots().len(), 3, "the caller of a deny rule is known too");
}

#[test]
fn a_verdict_reads_as_people_and_programs_expect() {
    assert_eq!(
        (Verdict::Allow.to_string(), Verdict::Deny.to_string()),
        ("ALLOW".to_owned(), "DENY".to_owned())
    );
    assert_eq!(
        mesh()
            .compile(Generation { epoch: 1, revision: 2 })
            .generation()
            .to_string(),
        "1.2"
    );
    assert!(mesh().rule_place(&policy::RuleId::parse("nope").unwrap()).is_none());
}

const TRYING: &str = include_str!("../golden/audit-only-on.yaml");

#[test]
fn what_is_audit_only_is_told_by_explain_and_by_the_tests_of_the_mesh() {
    let mesh = load(TRYING.to_owned());
    let told = explain(&mesh, "prod/a", "staging/b", "GET /");
    assert_eq!(
        (&told["verdict"], &told["reason"], &told["rule"]),
        (&json!("audit"), &Value::Null, &Value::Null)
    );
    assert_eq!(
        (&told["audit_until"], &told["why"]),
        (&json!("2026-12-15T00:00:00.000Z"), &json!("another one")),
        "of two with one end the order of the file decides nothing"
    );
    assert_eq!(mesh.run_tests(now()).failed(), 0);
    let wrong = load(TRYING.replace("audit: GET /", "deny: GET /"));
    let report = wrong.run_tests(now());
    assert_eq!((report.passed(), report.failed()), (1, 1));
    assert!(report.render(false).contains("expected DENY, got AUDIT without a rule"));
    let entries: Vec<_> = mesh.audit_only().map(|entry| (entry.to, entry.at.line)).collect();
    assert_eq!(
        entries,
        [
            (vec!["group:rollout".to_owned(), "lone*".to_owned()], 9),
            (vec!["staging/**".to_owned()], 10)
        ]
    );
}

#[test]
fn a_slice_tells_what_is_audit_only_to_callers_and_callees_and_to_nobody_else() {
    let text = "version: 1\ntrust_domain: acme.internal\nbots:\n\
        \x20 a: {owner: o, hosts: caller, attest: {user: a}}\n\
        \x20 b: {owner: o, hosts: callee, attest: {user: b}, serve: {http: 80}}\n\
        \x20 c: {owner: o, hosts: other, attest: {user: c}, serve: {http: 80}}\n\
        groups: {g: b, h: c}\n\
        allow: [{id: x, from: c, to: group:h, http: GET /}]\n\
        audit_only: [{to: group:g, until: 2026-12-15T00:00:00Z, reason: r}]\n";
    let mesh = load(text.to_owned());
    let slice = |host: &str| serde_json::from_str::<Value>(&mesh.slice(&HostName::parse(host).unwrap())).unwrap();
    let bots = |host| {
        slice(host)["bots"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(bots("caller"), ["a", "b"]);
    assert_eq!(bots("callee"), ["a", "b", "c"], "whoever may call must exist there");
    assert_eq!(bots("other"), ["b", "c"]);
    assert_eq!(bots("nobodys"), [""; 0]);
    let entry = json!([{"reason": "r", "to": ["group:g"], "until": "2026-12-15T00:00:00.000Z"}]);
    assert_eq!(slice("caller")["audit_only"], entry);
    assert_eq!(slice("caller")["groups"], json!({"g": ["b"]}));
    assert_eq!(slice("nobodys")["audit_only"], Value::Null);
    for (host, features) in [("caller", vec!["audit_only"]), ("nobodys", Vec::new())] {
        let host = HostName::parse(host).unwrap();
        assert_eq!(mesh.features_for(&host).into_iter().collect::<Vec<_>>(), features);
    }
    assert!(policy::feature::ENFORCED.contains(&"audit_only"));
}

#[test]
fn a_slice_tells_of_limits_to_the_host_that_counts_and_to_no_other() {
    let text = "version: 1\ntrust_domain: acme.internal\nbots:\n\
        \x20 a: {owner: o, hosts: caller, attest: {user: a}}\n\
        \x20 b: {owner: o, hosts: callee, attest: {user: b}, serve: {http: 80}}\n\
        groups: {g: a}\n\
        allow: [{id: x, from: a, to: b, http: GET /}]\n\
        limits: [{id: l, from: group:g, to: '**', rate: 010/s, burst: 3}, {id: m, from: b, to: b, rate: 1/h, burst: 1}]\n";
    let mesh = load(text.to_owned());
    let slice = |host: &str| serde_json::from_str::<Value>(&mesh.slice(&HostName::parse(host).unwrap())).unwrap();
    let told = json!([
        {"burst": 3, "from": ["group:g"], "id": "l", "rate": "10/s", "to": ["**"]},
        {"burst": 1, "from": ["b"], "id": "m", "rate": "1/h", "to": ["b"]},
    ]);
    assert_eq!(slice("callee")["limits"], told);
    assert_eq!(slice("callee")["groups"], json!({"g": ["a"]}));
    let caller = slice("caller");
    assert_eq!(
        caller["limits"],
        json!([told[0]]),
        "`**` is of its own bot too, which nobody can call"
    );
    let features = |host: &str| mesh.features_for(&HostName::parse(host).unwrap());
    assert!(features("callee").contains("limits"));
    assert!(policy::feature::ENFORCED.contains(&"limits"));
    let told = explain(&mesh, "a", "b", "GET /");
    assert_eq!(
        told["limits"],
        json!([{"limit": "l", "at": {"file": "mesh.yaml", "line": 8}, "rate": "10/s", "burst": 3}])
    );
    for (from, to) in [
        ("rate: 1/h", "rate: 1/m"),
        ("burst: 3", "burst: 4"),
        ("from: b,", "from: '*',"),
        ("id: m", "id: n"),
    ] {
        assert_ne!(load(text.replace(from, to)), mesh, "{to}");
    }
}

#[test]
fn entries_of_audit_only_that_say_something_else_are_not_equal() {
    let mesh = load(TRYING.to_owned());
    for (from, to) in [
        ("reason: another one", "reason: other"),
        ("lone*]", "lon*]"),
        ("12-15T00:00:00Z, reason: first", "12-16T00:00:00Z, reason: first"),
        ("audit: GET /", "audit: POST /"),
    ] {
        assert!(TRYING.contains(from), "{from}");
        assert_ne!(load(TRYING.replace(from, to)), mesh, "{to}");
    }
}

#[test]
fn a_slice_tells_of_waits_to_callers_and_callees_and_they_read_back_equal() {
    let text = "version: 1\ntrust_domain: acme.internal\nbots:\n\
        \x20 a: {owner: o, hosts: caller, attest: {user: a}}\n\
        \x20 b: {owner: o, hosts: callee, attest: {user: b}, serve: {http: 80}}\n\
        \x20 c: {owner: o, hosts: other, attest: {user: c}, serve: {http: 80}}\n\
        allow: [{id: x, from: [a, c], to: b, http: GET /}]\n\
        deny: [{id: y, from: a, to: c, reason: r}]\n\
        destinations:\n\
        \x20 b: {connect_timeout: 30s, request_timeout: 1h, stream_idle: 10m, retries: 0, max_in_flight: 9, max_pending: 8, max_failures: 7}\n\
        \x20 c: {connect_timeout: 10ms, request_timeout: 10ms, stream_idle: 100ms}\n";
    let mesh = load(text.to_owned());
    let slice = |host: &str| serde_json::from_str::<Value>(&mesh.slice(&HostName::parse(host).unwrap())).unwrap();
    let b = json!({
        "connect_timeout": "30000ms", "request_timeout": "3600000ms", "stream_idle": "600000ms",
        "retries": 0, "max_in_flight": 9, "max_pending": 8, "max_failures": 7,
    });
    let c = json!({"connect_timeout": "10ms", "request_timeout": "10ms", "stream_idle": "100ms"});
    assert_eq!(slice("caller")["destinations"], json!({"b": b}));
    assert_eq!(
        slice("callee")["destinations"],
        json!({"b": b}),
        "not of a bot that only calls its own"
    );
    assert_eq!(slice("other")["destinations"], json!({"b": b, "c": c}));
    assert_eq!(slice("nobodys")["destinations"], Value::Null);
    assert_eq!(load(mesh.canonical_json()), mesh);
    assert_ne!(load(text.replace("10m,", "9m,")), mesh);
    assert!(
        mesh.features_for(&HostName::parse("caller").unwrap())
            .contains("destinations")
    );
    assert!(policy::feature::ENFORCED.contains(&"destinations"));
    let bounds = |destination: &str| {
        let text = format!(
            "{}  b: {{{destination}}}\n",
            text.split_once("  b: {connect").unwrap().0
        );
        load(text).features().contains("destination_bounds")
    };
    for bound in ["max_in_flight: 1", "max_pending: 1", "max_failures: 0", "retries: 1"] {
        assert!(bounds(bound), "an older host does not know {bound}");
    }
    assert!(!bounds("retries: 0"), "what older hosts do anyway");
    assert!(policy::feature::ENFORCED.contains(&"destination_bounds"));
    let bot = |name| BotName::parse(name).unwrap();
    assert_eq!(
        mesh.destination(&bot("c")).stream_idle,
        Some(std::time::Duration::from_millis(100))
    );
    assert_eq!(mesh.destination(&bot("a")), policy::Destination::default());
    let trying = format!("{text}audit_only: [{{to: c, until: 2099-01-01T00:00:00Z, reason: r}}]\n");
    let slice = load(trying).slice(&HostName::parse("caller").unwrap());
    assert!(
        slice.contains("100ms"),
        "whoever may call under audit_only waits as long: {slice}"
    );
}
