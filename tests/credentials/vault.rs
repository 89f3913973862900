//! Values in a real OpenBao, which a host reads as itself.
//!
//! OpenBao is not in Debian: `BOTMESH_BAO` names the program, and `tests/run` fetches it.

pub(crate) mod bao;

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use super::scene::{self, Service};
use crate::support::{Caller, both, botmesh, eventually, eventually_within, http_get, root_or_skip, run};
use bao::{Bao, program, signer, token};

const CERT: &str = "{cert: {role: hosts}}";
const API_KEY: &str = "{x-key: {vault: {path: kv/data/bots/crm, key: api}}}";

/// A service that demands the key, a vault that has it, and a proxy that reads it there.
fn served(login: &str, sources: &str) -> Option<(Service, Bao)> {
    if !root_or_skip("vaults") {
        return None;
    }
    let mut bao = Bao::new(program()?);
    let service = Service::start(&bao.config(login, sources));
    bao.start(&service.scene);
    bao.put("crm", scene::X_KEY);
    Some((service, bao))
}

fn secret(service: &Service, words: &[&str]) -> String {
    let admin = service.scene.host().admin();
    both(&run(botmesh().arg("secret").args(words).args(["--server", &admin])))
}

/// Calls until the answer has this status, and gives its text.
fn until(checkout: &mut Caller, status: u64) -> String {
    eventually(&format!("the status {status}"), || {
        let answer = checkout.call("GET", "header.example.com", "/echo");
        (answer.status == status).then_some(answer.body)
    })
}

#[test]
fn a_value_in_openbao_is_read_by_the_host_as_itself_and_given_back_at_the_end() {
    let Some((mut service, bao)) = served(CERT, API_KEY) else {
        return;
    };
    let mut checkout = service.scene.checkout();
    let answer = checkout.call("GET", "header.example.com", "/echo");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.body.contains("****"), "{}", answer.body);
    let call = service.last_call("rule=header");
    assert_eq!(call["credential"], json!("x-key"), "{call}");
    let listed = secret(&service, &["list"]);
    let line = listed.lines().find(|line| line.starts_with("x-key")).unwrap();
    assert!(
        line.contains("vault") && line.contains("static") && line.contains("in use"),
        "{listed}"
    );
    assert_eq!(bao.tokens(), 1, "one login serves all");
    let put = service.try_put("x-key", "sk-another-one-0001");
    assert!(put.contains("reads it from a vault"), "{put}");
    // A new version is used once the old one was kept for its time.
    let next = "sk-ant-the-next-one-0001";
    service.takes("x", next);
    bao.put("crm", next);
    until(&mut checkout, 200);
    assert_eq!(bao.tokens(), 1);
    service.nobody_has_a_key();
    service.scene.mesh.host_mut("web-1").process.terminate();
    assert_eq!(bao.tokens(), 0, "the token was given back");
}

#[test]
fn what_openbao_does_not_give_is_said_in_words_with_what_to_do() {
    let Some((service, bao)) = served(CERT, API_KEY) else {
        return;
    };
    let tested = |word: &str| {
        let told = secret(&service, &["test", "x-key"]);
        assert!(told.contains(word) && !told.contains(scene::X_KEY), "{word}: {told}");
        told
    };
    tested("ok x-key: read from vault (fingerprint");
    bao.ask("DELETE", "kv/data/bots/crm", &json!({}));
    let told = tested("read kv/data/bots/crm of vault main at https://127.98.");
    assert!(
        told.contains("version 1, the newest, was deleted: `bao kv undelete`"),
        "{told}"
    );
    bao.ask("PUT", "kv/destroy/bots/crm", &json!({"versions": [1]}));
    tested("version 1, the newest, was destroyed");
    bao.ask("POST", "kv/data/bots/crm", &json!({"data": {"api": 12_345_678}}));
    tested("it has no key api with a text");
    bao.ask("DELETE", "kv/metadata/bots/crm", &json!({}));
    tested("there is nothing: of KV version 2 the path is MOUNT/data/PATH");
    bao.ask(
        "PUT",
        "sys/policies/acl/hosts",
        &json!({"policy": "path \"other/*\" { capabilities = [\"read\"] }"}),
    );
    tested("the policy of its role needs `path \"kv/data/bots/crm\" { capabilities = [\"read\"] }`");
    bao.ask("PUT", "sys/seal", &json!({}));
    tested("it is sealed or in trouble (503 Service Unavailable)");
}

#[test]
fn a_host_that_the_role_does_not_name_gets_nothing() {
    let Some((service, bao)) = served("{cert: {role: others}}", API_KEY) else {
        return;
    };
    let mut checkout = service.scene.checkout();
    let answer = checkout.call("GET", "header.example.com", "/echo");
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (503, "credential_unavailable"),
        "{}",
        answer.body
    );
    let told = secret(&service, &["list"]);
    assert!(told.contains("log in of vault main"), "{told}");
    assert!(
        told.contains("it does not let this host in by role others of auth/cert"),
        "{told}"
    );
    assert_eq!(bao.tokens(), 0);
    assert_eq!(service.server.said("request"), 0, "nothing was sent");
}

#[test]
fn a_token_that_somebody_else_makes_anew_is_read_for_each_login_and_shown_nowhere() {
    let Some((service, bao)) = served("{jwt: {role: hosts, file: FILE}}", API_KEY) else {
        return;
    };
    let public = signer(&bao);
    bao.believes(&public);
    let good = token(&bao, "web-1");
    fs::write(bao.file("jwt"), format!("{good}\n")).unwrap();
    scene::readable(std::path::Path::new(&bao.file("jwt")));
    let mut checkout = service.scene.checkout();
    until(&mut checkout, 200);
    assert_eq!(bao.tokens(), 1);
    // Whoever makes it made another one, about somebody else.
    let other = token(&bao, "web-2");
    fs::write(bao.file("jwt"), &other).unwrap();
    bao.revoke_tokens();
    let refused = until(&mut checkout, 503);
    assert!(refused.contains("credential_unavailable"), "{refused}");
    let told = secret(&service, &["list"]);
    assert!(
        told.contains("it does not let this host in by role hosts of auth/jwt"),
        "{told}"
    );
    assert!(told.contains("sub"), "the vault's own words: {told}");
    fs::write(bao.file("jwt"), &good).unwrap();
    until(&mut checkout, 200);
    fs::remove_file(bao.file("jwt")).unwrap();
    bao.revoke_tokens();
    until(&mut checkout, 503);
    let told = secret(&service, &["list"]);
    assert!(
        told.contains(&format!("read the token in {}", bao.file("jwt"))),
        "{told}"
    );
    for shown in [
        told,
        fs::read_to_string(service.scene.host().dir.join("proxy.log")).unwrap(),
    ] {
        assert!(!shown.contains(&good[..40]) && !shown.contains(&other[..40]), "{shown}");
    }
    service.nobody_has_a_key();
}

#[test]
fn a_token_lives_on_while_it_is_used_and_is_not_made_anew() {
    let Some((service, bao)) = served("{cert: {role: briefly}}", API_KEY) else {
        return;
    };
    let mut checkout = service.scene.checkout();
    until(&mut checkout, 200);
    let (tokens, begun) = (bao.accessors(), Instant::now());
    eventually("three times its time", || {
        until(&mut checkout, 200);
        (begun.elapsed() > Duration::from_secs(6)).then_some(())
    });
    assert_eq!(bao.accessors(), tokens);
}

/// How long OpenBao is away, and the times of the values: some seconds, or, with `BOTMESH_AWAY=5m`, five minutes.
fn times() -> (Duration, &'static str, Duration) {
    if std::env::var("BOTMESH_AWAY").is_ok_and(|value| value == "5m") {
        return (Duration::from_mins(5), "ttl: 30s, stale: 2m", Duration::from_secs(150));
    }
    (Duration::from_secs(5), "ttl: 1s, stale: 3s", Duration::from_secs(4))
}

#[test]
fn while_openbao_is_away_calls_go_on_within_bounds_then_fail_in_a_typed_way_and_come_back_by_themselves() {
    let (away_for, times, bound) = times();
    if !root_or_skip("vaults") {
        return;
    }
    let Some(program) = program() else { return };
    let mut bao = Bao::new(program);
    let service = Service::start(&bao.config_with(times, CERT, API_KEY));
    bao.start(&service.scene);
    bao.put("crm", scene::X_KEY);
    let mut checkout = service.scene.checkout();
    until(&mut checkout, 200);
    bao.kill();
    let (away, mut good, mut refused) = (Instant::now(), Duration::ZERO, 0);
    eventually_within(away_for * 2, "the outage to last", || {
        let answer = checkout.call("GET", "header.example.com", "/echo");
        if answer.status == 200 {
            assert_eq!(refused, 0, "no value comes from nowhere");
            good = away.elapsed();
        } else {
            let told = (answer.status, answer.reason());
            assert_eq!(told, (503, "credential_unavailable".to_owned()), "{}", answer.body);
            refused += 1;
        }
        (away.elapsed() >= away_for).then_some(())
    });
    println!("away {away_for:?}: calls went on for {good:?}, and {refused} were refused after that");
    let least = bound.mul_f32(0.6);
    assert!(good > least && good < bound + away_for / 10, "{good:?} of {bound:?}");
    assert!(refused > 0);
    let (status, ready) = http_get(service.scene.host().ports.metrics, "/readyz").unwrap();
    assert_eq!(status, 200, "other calls are carried: {ready}");
    for words in [
        "note: credential x-key cannot be read, calls that need it are refused:",
        "of vault main at https://127.98.",
        "nobody answers there",
    ] {
        assert!(ready.contains(words), "{words}: {ready}");
    }
    // It begins anew and knows no token of before.
    bao.start(&service.scene);
    bao.put("crm", scene::X_KEY);
    // It is left alone for half a minute at most.
    eventually_within(Duration::from_secs(40), "a value again", || {
        (checkout.call("GET", "header.example.com", "/echo").status == 200).then_some(())
    });
    let (_, ready) = http_get(service.scene.host().ports.metrics, "/readyz").unwrap();
    assert!(!ready.contains("credential"), "{ready}");
    assert!(secret(&service, &["list"]).contains("in use"));
}
