//! Credentials that the proxy adds, so that the bot holds none: what the service gets, and what the bot never does.

mod cores;
mod federation;
pub(crate) mod leaks;
mod lease;
mod oauth;
mod oidc;
mod rotation;
pub(crate) mod scene;
mod sdks;
mod server;
mod signed;
pub(crate) mod vault;
mod webhooks;

use serde_json::json;

use crate::spine::REPORT;
use crate::support::{Caller, both, botmesh, ok, root_or_skip, run};
use scene::{KEYS, Service};

#[test]
fn each_way_of_adding_a_credential_reaches_a_service_that_demands_it_and_no_record_has_it() {
    if !root_or_skip("credentials") {
        return;
    }
    let service = Service::start("");
    let mut checkout = service.scene.checkout();
    for (name, value) in KEYS {
        service.put(name, value);
    }
    for (rule, name, _) in scene::RULES {
        let host = format!("{rule}.example.com");
        // What the bot sends in its place is dropped.
        let own = match rule {
            "header" => &[("X-Api-Key", "dummy"), ("X-Api-Key", "another")][..],
            "query" => &[],
            _ => &[("Authorization", "Bearer dummy")],
        };
        let answer = checkout.call_with("GET", &host, "/echo?a=1&key=dummy", own);
        assert_eq!(answer.status, 200, "{rule}: {}", answer.body);
        let told = answer.json();
        let text = answer.body.clone();
        for (_, value) in KEYS {
            assert!(!text.contains(value), "{rule}: the bot read a key: {text}");
        }
        assert!(text.contains("****"), "{rule}: an echo is masked: {told}");
        let call = service.last_call(&format!("rule={rule}"));
        assert_eq!(call["credential"], json!(name), "{call}");
    }
    assert_eq!(service.server.said("request GET /echo"), scene::RULES.len());
    assert!(
        service
            .server
            .log()
            .lines()
            .filter(|line| line.starts_with("request"))
            .all(|line| line.ends_with("True"))
    );
    let found = service.scene.host().query("credential=x-key");
    assert_eq!(found.len(), 1, "{found:?}");
    service.nobody_has_a_key();
}

#[test]
fn a_call_whose_rule_adds_nothing_gets_nothing_and_one_without_a_value_is_refused() {
    if !root_or_skip("credentials") {
        return;
    }
    let service = Service::start("");
    let mut checkout = service.scene.checkout();
    let answer = checkout.call("GET", "header.example.com", "/echo");
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (503, "credential_unavailable"),
        "{}",
        answer.body
    );
    assert!(answer.body.contains("botmesh secret list"), "{}", answer.body);
    assert_eq!(service.server.said("request"), 0, "nothing was sent");
    let listed = both(&run(botmesh().args([
        "secret",
        "list",
        "--server",
        &service.scene.host().admin(),
    ])));
    assert!(
        listed.contains("no value here: botmesh secret put") || listed.contains("there is no value on this host"),
        "{listed}"
    );
    service.put("x-key", scene::X_KEY);
    let answer = checkout.call("GET", "header.example.com", "/echo");
    assert_eq!(
        answer.status, 200,
        "a value that was put is used at once: {}",
        answer.body
    );
    // Another host of the same service, by a rule that adds nothing.
    let answer = checkout.call("GET", "other.example.com", "/echo");
    assert_eq!(answer.status, 401);
    assert!(
        service
            .server
            .log()
            .lines()
            .any(|line| line.starts_with("request GET /echo none")),
        "{}",
        service.server.log()
    );
    // Another bot, whose rule adds nothing.
    let mut report = Caller::new(REPORT, &service.scene.host().bot_socket());
    assert_eq!(report.call("GET", "header.example.com", "/echo").status, 401);
    let call = service.last_call("from=prod/report");
    assert!(call.get("credential").is_none(), "{call}");
}

#[test]
fn a_new_value_takes_the_place_of_the_old_one_without_a_call_that_fails() {
    if !root_or_skip("credentials") {
        return;
    }
    let service = Service::start("");
    service.put("x-key", scene::X_KEY);
    let mut checkout = service.scene.checkout();
    assert_eq!(checkout.call("GET", "header.example.com", "/echo").status, 200);
    let next = "sk-ant-the-next-one-0001";
    let told = service.put("x-key", next);
    assert!(
        told.contains("ok x-key is on this host (fingerprint ") && !told.contains(next),
        "{told}"
    );
    service.takes("x", next);
    for _ in 0..5 {
        assert_eq!(checkout.call("GET", "header.example.com", "/echo").status, 200);
    }
    let events = service.scene.host().query("kind=credential_put");
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!(events[0]["subject"], json!("x-key"));
    assert_ne!(events[0]["detail"]["fingerprint"], events[1]["detail"]["fingerprint"]);
}

#[test]
fn a_source_that_fails_is_lived_without_for_its_time_and_comes_back_by_itself() {
    if !root_or_skip("credentials") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("value");
    scene::readable(folder.path());
    std::fs::write(&file, scene::X_KEY).unwrap();
    let service = Service::start(&format!(
        "credentials: {{ttl: 1s, stale: 2s, sources: {{x-key: {{command: [/bin/cat, {}]}}}}}}\n",
        file.display()
    ));
    let mut checkout = service.scene.checkout();
    assert_eq!(checkout.call("GET", "header.example.com", "/echo").status, 200);
    std::fs::remove_file(&file).unwrap();
    let mut good = 0;
    let refused = crate::support::eventually("the value to be too old", || {
        let answer = checkout.call("GET", "header.example.com", "/echo");
        good += usize::from(answer.status == 200);
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(refused.reason(), "credential_unavailable", "{}", refused.body);
    assert!(good > 1, "calls went on with the value that was here");
    let listed = ok(botmesh().args(["secret", "list", "--server", &service.scene.host().admin()]));
    assert!(
        listed.contains("not read: the program /bin/cat failed: exit status: 1"),
        "{listed}"
    );
    let (status, ready) = crate::support::http_get(service.scene.host().ports.metrics, "/readyz").unwrap();
    assert_eq!(status, 200, "other calls are carried: {ready}");
    let note = "note: credential x-key cannot be read, calls that need it are refused: the program /bin/cat failed";
    assert!(ready.contains(note), "{ready}");
    std::fs::write(&file, scene::X_KEY).unwrap();
    crate::support::eventually("the source to be read again", || {
        (checkout.call("GET", "header.example.com", "/echo").status == 200).then_some(())
    });
    let put = run(botmesh()
        .args(["secret", "put", "x-key", "--file"])
        .arg(&file)
        .args(["--server", &service.scene.host().admin()]));
    assert!(both(&put).contains("reads it from a command"), "{}", both(&put));
}

#[test]
fn the_commands_say_what_is_where_and_never_a_value() {
    if !root_or_skip("credentials") {
        return;
    }
    let service = Service::start("");
    let admin = service.scene.host().admin();
    let secret = |words: &[&str]| both(&run(botmesh().arg("secret").args(words).args(["--server", &admin])));
    assert!(secret(&["recipient"]).starts_with("age1"));
    let typo = secret(&["test", "x-kye"]);
    assert!(
        typo.contains("No bot of this host uses a credential of that name"),
        "{typo}"
    );
    service.put("x-key", scene::X_KEY);
    let listed = secret(&["list"]);
    for word in [
        "x-key",
        "header",
        "file",
        "prod/checkout",
        "cx@acme.internal",
        "in 89d",
        "in use",
    ] {
        assert!(listed.contains(word), "{word}: {listed}");
    }
    let tested = secret(&["test", "x-key"]);
    assert!(tested.contains("ok x-key: read from file (fingerprint"), "{tested}");
    // Encrypted by the operator's own program, where it is installed.
    let sealed = service.scene.host().dir.join("credentials/x-key.age");
    let text = std::fs::read(&sealed).unwrap();
    assert!(text.starts_with(b"age-encryption.org/v1\n"));
    std::fs::write(&sealed, "sk-in-the-clear-0001").unwrap();
    let tested = secret(&["test", "x-key"]);
    assert!(
        tested.contains("not read") && tested.contains("is not encrypted"),
        "{tested}"
    );
    let short = service.try_put("x-key", "short");
    assert!(
        short.contains("the value has 5 bytes, and a credential at least 8"),
        "{short}"
    );
    let lines = service.try_put("x-key", "two\nlines-of-text");
    assert!(
        lines.contains("one line of text") && !lines.contains("lines-of"),
        "{lines}"
    );
}
