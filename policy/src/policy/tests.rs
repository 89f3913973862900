use super::*;
use crate::call::{HttpAsk, What};
use crate::decision::Attribute;
use crate::method::Method;
use crate::path::CanonicalPath;
use crate::source::Source;
use crate::upgrade::Protocol;

/// A mesh of bots `a`, `b` and `c` with rules.
fn policy(rules: &str) -> Policy {
    let mut text = String::from("version: 1\ntrust_domain: a.b\nbots:\n");
    for (uid, name) in ["a", "b", "c"].into_iter().enumerate() {
        text.push_str(&format!(
            "  {name}: {{owner: o, hosts: h, attest: {{uid: {uid}}}, serve: {{http: 80}}}}\n"
        ));
    }
    match crate::load(&[Source {
        name: "m".to_owned(),
        text: text + rules,
    }]) {
        Ok(mesh) => mesh.compile(Generation::default()),
        Err(errors) => panic!("{errors}"),
    }
}

fn id(name: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://a.b/{name}")).unwrap()
}

fn bot(name: &str) -> BotName {
    BotName::parse(name).unwrap()
}

fn call(from: SpiffeId, to: &str, path: &str) -> Call {
    let path = CanonicalPath::parse(path.as_bytes()).unwrap();
    Call {
        from,
        to: bot(to).into(),
        what: What::Http(HttpAsk::new(Method::parse("GET").unwrap(), path)),
    }
}

/// The same request, as a browser would send it.
fn by_browser(mut call: Call) -> Call {
    if let What::Http(ask) = &mut call.what {
        ask.browser = true;
    }
    call
}

/// Decides a call at second `now` of 1970, and gives the rule or the reason.
fn decide(policy: &Policy, now: i64, call: Call) -> String {
    match policy.decide(Timestamp::from_unix_seconds(now), call) {
        Ok(permit) => permit.rule().map_or_else(|| "audit".to_owned(), ToString::to_string),
        Err(denial) => denial.reason.to_string(),
    }
}

#[test]
fn who_is_no_bot_of_the_mesh_matches_no_rule() {
    let policy = policy("allow: [{id: all, from: '**', to: '**', http: '* /**'}]");
    assert_eq!(decide(&policy, 0, call(id("a"), "b", "/")), "all");
    for from in [
        "spiffe://a.b/d",
        "spiffe://a.b/a/x",
        "spiffe://a.b",
        "spiffe://a.c/a",
        "spiffe://a.b/botmesh/host/a",
    ] {
        assert_eq!(
            decide(&policy, 0, call(SpiffeId::parse(from).unwrap(), "b", "/")),
            "no_rule",
            "{from}"
        );
    }
    assert_eq!(decide(&policy, 0, call(id("a"), "d", "/")), "no_rule");
}

#[test]
fn deny_wins_over_allow_whatever_their_ids() {
    let policy = policy(
        "allow: [{id: a, from: a, to: b, http: '* /**'}]\ndeny: [{id: z, from: a, to: b, http: 'GET /x/**', reason: r}]",
    );
    assert_eq!(decide(&policy, 0, call(id("a"), "b", "/y")), "a");
    for path in ["/x", "/X/y", "/x/"] {
        assert_eq!(decide(&policy, 0, call(id("a"), "b", path)), "denied_by_rule");
    }
}

#[test]
fn a_rule_ends_at_the_very_moment_of_until() {
    let policy = policy(
        "allow: [{id: a, from: a, to: b, http: GET /, until: '1970-01-01T00:01:00Z', reason: r}]\ndeny: [{id: d, from: c, to: b, until: '1970-01-01T00:01:00Z', reason: r}, {id: e, from: c, to: b, http: GET /x, reason: r}]",
    );
    assert_eq!(decide(&policy, 59, call(id("a"), "b", "/")), "a");
    assert_eq!(decide(&policy, 60, call(id("a"), "b", "/")), "rule_expired");
    assert_eq!(
        decide(&policy, 60, call(id("a"), "b", "/x")),
        "no_rule",
        "it would not have matched"
    );
    assert_eq!(decide(&policy, 59, call(id("c"), "b", "/")), "denied_by_rule");
    assert_eq!(decide(&policy, 60, call(id("c"), "b", "/")), "no_rule");
}

#[test]
fn a_call_that_would_switch_needs_a_rule_that_names_the_protocol() {
    let policy = policy(
        "allow: [{id: plain, from: [a, c], to: b, http: GET /}, {id: socket, from: a, to: b, http: GET /, upgrade: [websocket, x-1]}, {id: other, from: a, to: b, http: GET /q, upgrade: x-2}]",
    );
    let asks = |from, path: &str, protocol: &str| Call {
        what: What::Http(HttpAsk {
            upgrade: Some(Protocol::parse(protocol.as_bytes()).unwrap()),
            ..HttpAsk::new(
                Method::parse("GET").unwrap(),
                CanonicalPath::parse(path.as_bytes()).unwrap(),
            )
        }),
        ..call(id(from), "b", path)
    };
    assert_eq!(
        decide(&policy, 0, call(id("a"), "b", "/q")),
        "other",
        "without a switch too"
    );
    assert_eq!(decide(&policy, 0, asks("a", "/", "WebSocket")), "socket");
    assert_eq!(decide(&policy, 0, asks("c", "/", "websocket")), "no_rule");
    let denial = policy
        .decide(Timestamp::from_unix_seconds(0), asks("a", "/q", "websocket"))
        .unwrap_err();
    let nearest = denial.nearest.unwrap();
    let [difference] = nearest.differs.as_slice() else {
        panic!("{nearest:?}")
    };
    assert_eq!(
        (
            nearest.rule.as_str(),
            difference.attribute,
            difference.rule_has.as_str(),
            difference.call_has.as_str()
        ),
        ("other", Attribute::Upgrade, "x-2", "websocket")
    );
}

#[test]
fn a_browsers_call_needs_a_rule_that_takes_browsers() {
    let browser = |from| by_browser(call(id(from), "b", "/"));
    let policy = policy(
        "allow: [{id: plain, from: [a, c], to: b, http: GET /}, {id: web, from: a, to: b, http: GET /, browser: true}, {id: old, from: c, to: b, http: GET /, browser: true, until: '1970-01-01T00:01:00Z', reason: r}]",
    );
    assert_eq!(decide(&policy, 0, call(id("a"), "b", "/")), "plain");
    assert_eq!(decide(&policy, 0, browser("a")), "web");
    assert_eq!(
        decide(&policy, 60, browser("c")),
        "browser_refused",
        "a live rule that takes no browsers comes first"
    );
    let denial = policy
        .decide(Timestamp::from_unix_seconds(60), browser("c"))
        .unwrap_err();
    assert_eq!(denial.rule.unwrap().as_str(), "plain");
}

#[test]
fn of_several_rules_the_least_id_is_told() {
    let policy = policy(
        "allow: [{id: b, from: a, to: b, http: GET /x}, {id: a, from: a, to: b, http: '* /**'}, {id: c, from: a, to: b, http: 'GET /*'}]",
    );
    assert_eq!(decide(&policy, 0, call(id("a"), "b", "/x")), "a");
}

#[test]
fn links_speak_of_allow_rules_and_of_names_that_no_bot_has() {
    let policy = policy(
        "groups: {g: ['x/*']}\nallow: [{id: a, from: a, to: [b, 'c*', group:g], http: GET /}, {id: old, from: b, to: a, http: GET /, until: '1970-01-01T00:01:00Z', reason: r}]\ndeny: [{id: d, from: c, to: '**', reason: r}]",
    );
    for (from, to, linked) in [
        ("a", "b", true),
        ("a", "cc", true),
        ("a", "x/y", true),
        ("a", "x", false),
        ("a", "a", false),
        ("a", "d", false),
        ("b", "a", true),
        ("b", "cc", false),
        ("c", "a", false),
        ("c", "zz", false),
        ("zz", "b", false),
    ] {
        assert_eq!(policy.links(&id(from), &bot(to)), linked, "{from} {to}");
    }
    assert!(
        !policy.links(&SpiffeId::parse("spiffe://a.c/a").unwrap(), &bot("b")),
        "of another trust domain"
    );
}

#[test]
fn the_nearest_rule_differs_least_then_has_the_least_id() {
    let policy = policy(
        "allow: [{id: b, from: a, to: b, http: POST /x}, {id: a, from: a, to: b, http: POST /y}, {id: c, from: a, to: b, http: 'POST /*'}, {id: z, from: c, to: b, http: GET /}]",
    );
    let nearest = |path| {
        policy
            .decide(Timestamp::from_unix_seconds(0), call(id("a"), "b", path))
            .unwrap_err()
            .nearest
    };
    assert_eq!(nearest("/x").unwrap().rule.as_str(), "b");
    assert_eq!(nearest("/z").unwrap().rule.as_str(), "c");
    assert_eq!(nearest("/z/z").unwrap().rule.as_str(), "a");
    let unlinked = policy
        .decide(Timestamp::from_unix_seconds(0), call(id("b"), "a", "/"))
        .unwrap_err();
    assert_eq!((unlinked.nearest, unlinked.rule, unlinked.why), (None, None, None));
}

#[test]
fn the_next_end_is_the_earliest_of_an_allow_rule_that_is_still_to_come() {
    let policy = policy(
        "allow:\n\
         - {id: one, from: a, to: b, http: GET /, until: '1970-01-01T00:01:00Z', reason: r}\n\
         - {id: two, from: a, to: b, http: GET /x, until: '1970-01-01T00:02:00Z', reason: r}\n\
         - {id: three, from: a, to: b, http: GET /y}\n\
         deny:\n- {id: four, from: a, to: c, until: '1970-01-01T00:00:30Z', reason: r}\n",
    );
    let next = |now| {
        policy
            .next_end(Timestamp::from_unix_seconds(now))
            .map(Timestamp::unix_seconds)
    };
    assert_eq!(
        [next(0), next(59), next(60), next(119), next(120)],
        [Some(60), Some(60), Some(120), Some(120), None]
    );
}

#[test]
fn a_permit_says_which_policy_gave_it() {
    let generation = Generation { epoch: 3, revision: 41 };
    let rules = "allow: [{id: all, from: '**', to: '**', http: '* /**'}]";
    let text = format!(
        "version: 1\ntrust_domain: a.b\nbots: {{a: {{owner: o, hosts: h, attest: {{uid: 1}}, serve: {{http: 80}}}}}}\n{rules}"
    );
    let mesh = crate::load(&[Source {
        name: "m".to_owned(),
        text,
    }])
    .unwrap();
    let permit = mesh
        .compile(generation)
        .decide(Timestamp::from_unix_seconds(0), call(id("a"), "a", "/"))
        .unwrap();
    assert_eq!(permit.generation(), generation);
}

#[test]
fn audit_only_carries_what_no_rule_speaks_of_and_nothing_else_until_it_ends() {
    let policy = policy(
        "allow:\n\
         - {id: reads, from: a, to: b, http: GET /x}\n\
         - {id: ended, from: a, to: b, http: GET /old, until: '1970-01-01T00:00:01Z', reason: r}\n\
         deny: [{id: never, from: '**', to: b, http: '* /admin', reason: r}]\n\
         audit_only:\n\
         - {to: b, until: '1970-01-01T00:01:00Z', reason: short}\n\
         - {to: [b, 'x*'], until: '1970-01-01T00:02:00Z', reason: trying}\n",
    );
    let at = |now, path| decide(&policy, now, call(id("a"), "b", path));
    assert_eq!(
        [at(9, "/x"), at(9, "/y"), at(9, "/old"), at(9, "/admin")],
        ["reads", "audit", "rule_expired", "denied_by_rule"]
    );
    assert_eq!([at(119, "/y"), at(120, "/y")], ["audit", "no_rule"]);
    assert_eq!(
        decide(&policy, 9, call(id("a"), "c", "/y")),
        "no_rule",
        "of another callee"
    );
    for (from, to) in [("d", "b"), ("a", "d")] {
        assert_eq!(decide(&policy, 9, call(id(from), to, "/y")), "no_rule", "{from} {to}");
    }
    for (path, reason) in [("/x", "browser_refused"), ("/y", "no_rule")] {
        let browser = by_browser(call(id("a"), "b", path));
        assert_eq!(decide(&policy, 9, browser), reason);
    }
    let permit = policy
        .decide(Timestamp::from_unix_seconds(9), call(id("a"), "b", "/y"))
        .unwrap();
    let audit = permit.audit().unwrap();
    assert_eq!((audit.until.unix_seconds(), &*audit.why), (120, "trying"));
    assert_eq!(audit.nearest.as_ref().unwrap().rule.as_str(), "reads");
    assert_eq!((permit.rule(), permit.verdict()), (None, crate::Verdict::Audit));
    let next = |now| {
        policy
            .next_end(Timestamp::from_unix_seconds(now))
            .map(Timestamp::unix_seconds)
    };
    assert_eq!(
        [next(0), next(1), next(119), next(120)],
        [Some(1), Some(120), Some(120), None]
    );
}

#[test]
fn a_browsers_call_is_told_apart_from_an_ended_rule() {
    let policy = policy(
        "allow:\n\
         - {id: ended, from: a, to: b, http: GET /x, until: '1970-01-01T00:00:01Z', reason: r, browser: true}\n\
         - {id: plain, from: a, to: b, http: GET /y, until: '1970-01-01T00:00:01Z', reason: r}\n",
    );
    let browser = |now, path| decide(&policy, now, by_browser(call(id("a"), "b", path)));
    assert_eq!([browser(0, "/x"), browser(1, "/x")], ["ended", "rule_expired"]);
    // A rule that has ended would not have taken it before either: no rule speaks of it any more.
    assert_eq!([browser(0, "/y"), browser(1, "/y")], ["browser_refused", "no_rule"]);
    assert_eq!(decide(&policy, 1, call(id("a"), "b", "/y")), "rule_expired");
}
