//! Addresses that are secrets: what may be said of them, and what a host is told.

use policy::{Call, Callee, CanonicalPath, Generation, HttpAsk, Injection, Mesh, Method, Outside, Source, What, load};
use spiffe::id::{HostName, SpiffeId};
use spiffe::time::Timestamp;

const GOOD: &str = include_str!("../golden/webhook-good.yaml");

fn read(text: &str) -> Mesh {
    let source = Source {
        name: "mesh.yaml".to_owned(),
        text: text.to_owned(),
    };
    load(&[source]).unwrap_or_else(|errors| panic!("{}", errors.render(false)))
}

fn slice(mesh: &Mesh, host: &str) -> Mesh {
    read(&mesh.slice(&HostName::parse(host).unwrap()))
}

/// The credential of one call, where the call is allowed.
fn credential(mesh: &Mesh, from: &str, to: &str, method: &str) -> Option<String> {
    let call = Call {
        from: SpiffeId::parse(&format!("spiffe://acme.internal/{from}")).unwrap(),
        to: Callee::Outside(Outside::parse(to).unwrap()),
        what: What::Http(HttpAsk::new(
            Method::parse(method).unwrap(),
            CanonicalPath::parse(b"/").unwrap(),
        )),
    };
    let policy = mesh.compile(Generation::default());
    let permit = policy.decide(Timestamp::from_unix_millis(0), call).ok()?;
    mesh.credential_of(&permit).map(|(name, _)| name.to_string())
}

#[test]
fn a_call_by_the_name_gets_the_address_and_one_to_its_host_does_not() {
    let mesh = read(GOOD);
    let of = |from, to, method| credential(&mesh, from, to, method);
    assert_eq!(
        of("prod/support", "secret://slack-hook", "POST").as_deref(),
        Some("slack-hook")
    );
    assert_eq!(
        of("prod/orders", "secret://teams-hook", "GET").as_deref(),
        Some("teams-hook")
    );
    for (from, to, method) in [
        ("prod/support", "secret://slack-hook", "GET"),
        ("prod/support", "https://hooks.slack.com", "POST"),
        ("prod/orders", "secret://slack-hook", "POST"),
        ("prod/report", "secret://slack-hook", "POST"),
        ("prod/support", "secret://other", "POST"),
    ] {
        assert_eq!(of(from, to, method), None, "{from} {method} {to}");
    }
    let report = mesh.run_tests(Timestamp::from_unix_millis(0));
    assert_eq!(report.failed(), 0, "{}", report.render(false));
}

#[test]
fn it_is_written_as_it_was_read_and_only_hosts_of_its_rules_are_told() {
    let mesh = read(GOOD);
    assert_eq!(read(&mesh.canonical_json()), mesh);
    let names = |host: &str| {
        let slice = slice(&mesh, host);
        slice
            .credentials()
            .map(|(name, _)| name.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("web-1"), ["slack-hook", "teams-hook"]);
    assert_eq!(names("web-2"), ["teams-hook"]);
    let one = slice(&mesh, "web-1");
    let Injection::Url(to) = &one.credential("slack-hook").unwrap().injection else {
        panic!("another way");
    };
    assert_eq!(to.to_string(), "https://hooks.slack.com");
    let said = |to: &str| one.outside_destination(&Outside::parse(to).unwrap()).cloned();
    assert_eq!(said("secret://slack-hook").unwrap().addresses.len(), 1);
    assert_eq!(said("https://hooks.slack.com"), None);
    let consumers = |name| mesh.consumers_of(name, Timestamp::from_unix_millis(0)).len();
    assert_eq!((consumers("slack-hook"), consumers("teams-hook")), (1, 1));
    assert_eq!(
        mesh.services_of("teams-hook").into_iter().collect::<Vec<_>>(),
        ["https://acme.webhook.office.com:8443"]
    );
}

#[test]
fn hosts_that_know_no_such_addresses_refuse_the_slice() {
    let mesh = read(GOOD);
    for host in ["web-1", "web-2", "web-3"] {
        assert!(slice(&mesh, host).features().contains("secret_url"), "{host}");
    }
    let without = read(GOOD.split("destinations:").next().unwrap());
    assert!(
        !without.features().contains("secret_url"),
        "what no rule calls is told to no host"
    );
    // A host whose bots are counted and may not call is told so too.
    let counted = read(&format!(
        "{}limits:\n  - {{id: few, from: prod/support, to: \"secret://slack-hook\", rate: 1/s, burst: 5}}\n",
        GOOD.split("destinations:").next().unwrap()
    ));
    assert!(slice(&counted, "web-1").features().contains("secret_url"));
}
