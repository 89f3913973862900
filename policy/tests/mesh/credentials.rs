//! Credentials: who gets which, and what a host is told of them.

use policy::{Call, Callee, CanonicalPath, Generation, HttpAsk, Injection, Mesh, Method, Outside, Source, What, load};
use spiffe::id::{HostName, SpiffeId};
use spiffe::time::Timestamp;

fn read(text: &str) -> Mesh {
    let source = Source {
        name: "mesh.yaml".to_owned(),
        text: text.to_owned(),
    };
    load(&[source]).unwrap()
}

fn mesh() -> Mesh {
    read(include_str!("../golden/credentials-good.yaml"))
}

/// The credential of one call, where the call is allowed.
fn credential(mesh: &Mesh, from: &str, to: &str) -> Option<String> {
    let call = Call {
        from: SpiffeId::parse(&format!("spiffe://acme.internal/{from}")).unwrap(),
        to: Callee::Outside(Outside::parse(to).unwrap()),
        what: What::Http(HttpAsk::new(
            Method::parse("POST").unwrap(),
            CanonicalPath::parse(b"/v1/messages").unwrap(),
        )),
    };
    let permit = mesh
        .compile(Generation::default())
        .decide(Timestamp::from_unix_millis(0), call)
        .ok()?;
    mesh.credential_of(&permit).map(|(name, _)| name.to_string())
}

#[test]
fn a_call_gets_the_credential_of_the_rule_that_allows_it_and_no_other() {
    let mesh = mesh();
    let of = |from, to| credential(&mesh, from, to);
    assert_eq!(
        of("prod/support", "https://api.anthropic.com").as_deref(),
        Some("anthropic")
    );
    assert_eq!(of("prod/support", "https://a.example.com").as_deref(), Some("hooks"));
    assert_eq!(of("prod/support", "https://c.example.com").as_deref(), Some("together"));
    assert_eq!(of("prod/orders", "https://c.example.com").as_deref(), Some("together"));
    assert_eq!(of("prod/orders", "https://api.anthropic.com"), None, "no rule");
    assert_eq!(
        of("prod/support", "https://api.anthropic.com:8443"),
        None,
        "another port"
    );
}

#[test]
fn every_way_is_read_and_written_as_it_was() {
    let mesh = mesh();
    let again = read(&mesh.canonical_json());
    assert_eq!(again, mesh);
    assert_eq!(again.canonical_json(), mesh.canonical_json());
    let of = |name: &str| &mesh.credential(name).unwrap().injection;
    assert_eq!(
        *of("gitlab"),
        Injection::Header {
            name: "authorization".into(),
            prefix: "Token ".into()
        }
    );
    assert_eq!(
        mesh.credential("gitlab").unwrap().rotate_every.unwrap().as_secs(),
        36 * 3600
    );
    assert_eq!(
        mesh.credential("openai").unwrap().shared.as_deref(),
        Some("one contract for all")
    );
    let words: Vec<_> = mesh.credentials().map(|(_, found)| found.injection.as_str()).collect();
    for word in [
        "header",
        "bearer",
        "basic",
        "query",
        "hmac",
        "sigv4",
        "oauth",
        "github_app",
        "federate",
    ] {
        assert!(words.contains(&word), "{word}");
    }
}

#[test]
fn a_mesh_that_says_something_else_of_a_credential_is_another_mesh() {
    let (first, text) = (mesh(), include_str!("../golden/credentials-good.yaml"));
    for (was, is) in [
        ("sha256=", "sha1="),
        ("encoding: base64", "encoding: hex"),
        ("timestamp: x-time, ", ""),
        ("hash: sha512", "hash: sha256"),
        ("prefix: \"Token \"", "prefix: \"token \""),
        ("rotate_every: 36h", "rotate_every: 37h"),
        ("basic: robot", "basic: other"),
        ("unsafe_query: it takes", "unsafe_query: it took"),
        ("region: eu-west-1", "region: eu-west-2"),
        ("service: s3", "service: s4"),
        ("oauth2/token", "oauth2/tokens"),
        ("client_id: bot-7", "client_id: bot-9"),
        ("scope: read write", "scope: read"),
        ("audience: crm, ", ""),
        ("https://crm.example.com/", "https://crm.example.com/x"),
        ("grant: refresh_token", "grant: client_credentials"),
        ("auth: post", "auth: basic"),
        ("app_id: 12345", "app_id: 12346"),
        ("installation_id: 67890", "installation_id: 67891"),
        ("/api/v3/", "/api/v4/"),
        (
            "audience: \"https://api.example.com\"",
            "audience: \"https://api2.example.com\"",
        ),
        ("v1/token\", grant: jwt_bearer", "v2/token\", grant: jwt_bearer"),
        ("grant: jwt_bearer, ", ""),
        ("encoding: json, ", ""),
        ("fdrl_1", "fdrl_2"),
        ("organization_id: o", "organisation_id: o"),
        ("client_id: c, scope: read write", "client_id: d, scope: read write"),
        ("client_id: c, scope: read write, ", "client_id: c, "),
        ("https://data.example.com/\"", "https://data.example.com/x\""),
        ("token_audience: data, ", ""),
        ("subject_token_type: id_token, ", ""),
        (", requested_token_type: access_token", ""),
        (
            "grant: client_credentials, client_id: bot-9",
            "grant: jwt_bearer, client_id: bot-9",
        ),
        ("federate: {audience: inner}", "bearer: true"),
        ("one contract", "two contracts"),
        ("https://a.example.com", "https://aa.example.com"),
        ("inject: together", "inject: openai"),
    ] {
        assert!(text.contains(was), "{was}");
        let other = read(&text.replacen(was, is, 1));
        assert_ne!(first, other, "{was}");
        assert_ne!(first.canonical_json(), other.canonical_json(), "{was}");
    }
}

#[test]
fn a_host_is_told_of_the_credentials_of_its_own_callers_only() {
    let mesh = mesh();
    let names = |host: &str| {
        let slice = read(&mesh.slice(&HostName::parse(host).unwrap()));
        let names: Vec<String> = slice.credentials().map(|(name, _)| name.to_string()).collect();
        names
    };
    assert_eq!(
        names("web-1"),
        [
            "anthropic",
            "crm",
            "github",
            "gitlab",
            "hooks",
            "inner",
            "llm",
            "maps",
            "openai",
            "registry",
            "s3",
            "stripe",
            "sts",
            "together"
        ]
    );
    assert_eq!(names("web-2"), ["entra", "ghe", "llm", "mailbox", "openai", "together"]);
    assert_eq!(names("web-3"), [] as [&str; 0]);
    let slice = read(&mesh.slice(&HostName::parse("web-2").unwrap()));
    assert_eq!(
        credential(&slice, "prod/orders", "https://c.example.com").as_deref(),
        Some("together")
    );
    assert!(slice.features().contains("credentials"));
    assert!(mesh.not_enforced().is_empty());
}

#[test]
fn a_host_is_told_of_the_places_where_its_own_credentials_are_exchanged() {
    let mesh = mesh();
    let told = |host: &str, place: &str| {
        let slice = read(&mesh.slice(&HostName::parse(host).unwrap()));
        let said = slice.outside_destination(&Outside::parse(place).unwrap()).cloned();
        (said, slice.features().contains("oauth"))
    };
    let (said, feature) = told("web-1", "https://login.example.com");
    assert_eq!((said.unwrap().addresses.len(), feature), (1, true));
    assert_eq!(told("web-2", "https://login.example.com"), (None, true));
    assert!(told("web-2", "https://login.example.com:8443").0.is_some());
    assert_eq!(told("web-3", "https://login.example.com"), (None, false));
    let slice = |host: &str| read(&mesh.slice(&HostName::parse(host).unwrap()));
    assert!(slice("web-1").features().contains("github_app"));
    assert!(!slice("web-3").features().contains("github_app"));
}

#[test]
fn a_bot_may_have_a_jwt_for_an_audience_of_its_own_live_rules_alone() {
    let mesh = mesh();
    let at = |text: &str| Timestamp::from_rfc3339(text).unwrap();
    let may_in = |mesh: &Mesh, bot: &str, audience: &str, now: &str| {
        mesh.may_have_jwt(&spiffe::id::BotName::parse(bot).unwrap(), audience, at(now))
    };
    let now = "2026-01-01T00:00:00Z";
    let may = |bot, audience| may_in(&mesh, bot, audience, now);
    assert!(may("prod/support", "https://api.example.com") && may("prod/orders", "https://api.example.com"));
    assert!(may("prod/support", "inner") && may("prod/orders", "api://Exchange"));
    for (bot, audience) in [
        ("prod/orders", "inner"),
        ("prod/support", "api://Exchange"),
        ("prod/support", "Inner"),
        ("prod/support", "inner2"),
        ("prod/support", ""),
        // Whom the token is for that the provider gives, and no audience of a JWT-SVID.
        ("prod/support", "data"),
        ("prod/nobody", "inner"),
    ] {
        assert!(!may(bot, audience), "{bot} {audience}");
    }
    let text = include_str!("../golden/credentials-good.yaml");
    let rule = r#"{id: inner, from: prod/support, to: "https://inner.example.com", http: ["* /**"], inject: inner}"#;
    assert!(text.contains(rule));
    let ends = rule.replace(", inject", r#", until: 2026-01-02T00:00:00Z, reason: trial, inject"#);
    let ends = read(&text.replace(rule, &ends));
    assert!(may_in(&ends, "prod/support", "inner", "2026-01-01T23:59:59Z"));
    assert!(!may_in(&ends, "prod/support", "inner", "2026-01-02T00:00:00Z"));
    // A bot that the mesh does not know is nobody, whatever patterns match its name.
    let all = read(&text.replace(
        "from: prod/support, to: \"https://inner",
        "from: prod/*, to: \"https://inner",
    ));
    assert!(may_in(&all, "prod/orders", "inner", now) && !may_in(&all, "prod/nobody", "inner", now));
}

#[test]
fn a_host_that_knows_no_federation_is_told_that_it_must() {
    let mesh = mesh();
    let slice = |host: &str| read(&mesh.slice(&HostName::parse(host).unwrap()));
    assert!(slice("web-1").features().contains("federate"));
    assert!(!slice("web-3").features().contains("federate"));
    let (web_1, sts) = (slice("web-1"), Outside::parse("https://sts.example.com").unwrap());
    assert!(web_1.outside_destination(&sts).is_some());
}

#[test]
fn consumers_are_the_bots_of_live_rules() {
    let mesh = mesh();
    let consumers = |name: &str| {
        let found = mesh.consumers_of(name, Timestamp::from_unix_millis(0));
        let mut bots: Vec<String> = found
            .iter()
            .flat_map(|(_, bots)| bots.iter().map(ToString::to_string))
            .collect();
        bots.sort();
        bots
    };
    assert_eq!(consumers("anthropic"), ["prod/support"]);
    assert_eq!(consumers("openai"), ["prod/orders", "prod/support"]);
    assert_eq!(consumers("orphan"), [] as [&str; 0]);
}

#[test]
fn a_probe_is_told_to_the_hosts_that_make_it_and_hosts_that_know_none_refuse_it() {
    let text = r#"
version: 1
trust_domain: acme.internal
bots:
  prod/a: {owner: a@acme.internal, hosts: [web-1], attest: {user: a}}
  prod/b: {owner: b@acme.internal, hosts: [web-2], attest: {user: b}}
credentials:
  key: {bearer: true, owner: cx@acme.internal, shared: one contract, probe: "GET https://api.example.com/v1/models"}
allow:
  - {id: asks, from: prod/a, to: "https://api.example.com", http: [GET /v1/models], inject: key}
  - {id: writes, from: prod/b, to: "https://api.example.com", http: [POST /v1/messages], inject: key}
"#;
    let mesh = read(text);
    assert!(mesh.features().contains("credential_probe"));
    assert_eq!(
        mesh.services_of("key").into_iter().collect::<Vec<_>>(),
        ["https://api.example.com"]
    );
    // The second host has no rule that allows it, and takes its slice all the same.
    for host in ["web-1", "web-2"] {
        let slice = read(&mesh.slice(&HostName::parse(host).unwrap()));
        let probe = slice.credential("key").unwrap().probe.clone().unwrap();
        assert_eq!(probe.to_string(), "GET https://api.example.com/v1/models");
    }
    assert_eq!(read(&mesh.canonical_json()), mesh);
}
