//! The admin API: who may, and what apply promises.

use std::os::unix::fs::MetadataExt as _;

use ca::Operator;
use ca_api::Generation;
use ca_api::admin::{ApplyResponse, BotList, CaStatus, MeshSources, RevisionList, path};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::*;

fn number(revision: u64) -> Generation {
    Generation { epoch: 1, revision }
}

#[tokio::test]
async fn a_user_who_is_no_operator_is_told_so_with_his_uid_and_gets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    let own = nix::unistd::Uid::effective().as_raw();
    settings.operators = vec![Operator::Uid(own + 1)];
    let clock = spiffe::time::Clock::system();
    ca::init(&settings, &clock).await.unwrap();
    let cancel = CancellationToken::new();
    let running = ca::start(settings.clone(), clock, cancel.clone()).await.unwrap();
    for (method, path) in [("GET", path::STATUS), ("POST", path::APPLY), ("GET", "/nothing")] {
        let (status, body) = unix_http(&settings.admin_socket, method, path, &json!({})).await;
        let problem: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status, problem["code"].as_str()), (403, Some("not_an_operator")));
        assert!(problem["detail"].as_str().unwrap().contains(&format!("uid {own}")));
    }
    cancel.cancel();
    running.ended().await.unwrap();
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_goes_with_the_ca() {
    let ca = TestCa::start().await;
    let socket = ca.settings.admin_socket.clone();
    assert_eq!(std::fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);
    assert_eq!(
        std::fs::metadata(socket.parent().unwrap()).unwrap().mode() & 0o777,
        0o750
    );
    let (_dir, ..) = ca.stop().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn unknown_paths_methods_and_fields_are_problems() {
    let ca = TestCa::start().await;
    for (method, path, body, status, code) in [
        ("GET", "/v1/nothing", Value::Null, 404, "not_found"),
        ("GET", path::APPLY, Value::Null, 405, "bad_request"),
        (
            "POST",
            path::APPLY,
            json!({"sources": [], "forse": true}),
            400,
            "bad_request",
        ),
        ("POST", path::HOST_TOKEN, json!({"host": "Web 1"}), 400, "bad_request"),
    ] {
        let problem = ca.admin::<Value>(method, path, body).await.unwrap_err();
        assert_eq!((problem.status, problem.code.as_str()), (status, code), "{path}");
    }
}

#[tokio::test]
async fn the_first_apply_makes_revision_one_and_the_ledger_names_the_operator() {
    let ca = TestCa::start().await;
    let applied = ca.apply(MESH, None).await.unwrap();
    assert_eq!(applied.generation, number(1));
    assert_eq!((applied.tests.passed, applied.tests.failed), (2, 0));
    let events = ca.events("policy_applied");
    assert_eq!(events.len(), 1);
    assert!(events[0]["actor"].as_str().unwrap().starts_with("operator:"));
    let mesh: MeshSources = ca.get(path::MESH).await;
    assert_eq!((mesh.generation, mesh.sources), (number(1), vec![source(MESH)]));
}

#[tokio::test]
async fn the_same_files_again_make_no_new_revision() {
    let ca = TestCa::with_mesh().await;
    let again = ca.apply(MESH, Some((1, 1))).await.unwrap();
    assert!(again.unchanged);
    assert_eq!(again.generation, number(1));
}

#[tokio::test]
async fn a_failing_test_of_the_mesh_changes_nothing() {
    let ca = TestCa::with_mesh().await;
    let failing = MESH.replace("deny: [POST /orders/1]", "deny: [GET /orders/2]");
    let refused = ca.apply(&failing, Some((1, 1))).await.unwrap_err();
    assert_eq!((refused.status, refused.code.as_str()), (422, "tests_failed"));
    assert!(refused.detail.contains("/orders/2"), "{}", refused.detail);
    let mesh: MeshSources = ca.get(path::MESH).await;
    assert_eq!((mesh.generation, mesh.sources), (number(1), vec![source(MESH)]));
    assert_eq!(ca.events("policy_refused").len(), 1);
}

#[tokio::test]
async fn files_that_are_no_mesh_are_refused_with_the_place() {
    let ca = TestCa::with_mesh().await;
    let refused = ca
        .apply(&MESH.replace("allow:", "alow:"), Some((1, 1)))
        .await
        .unwrap_err();
    assert_eq!((refused.status, refused.code.as_str()), (422, "invalid_mesh"));
    assert!(refused.detail.contains("mesh.yaml"), "{}", refused.detail);
    let refused = ca
        .admin::<Value>("POST", path::APPLY, json!({"sources": []}))
        .await
        .unwrap_err();
    assert_eq!(refused.code, "invalid_mesh");
}

#[tokio::test]
async fn a_mesh_of_another_trust_domain_is_refused() {
    let ca = TestCa::start().await;
    let other = MESH.replace("trust_domain: acme.internal", "trust_domain: other.internal");
    let refused = ca.apply(&other, None).await.unwrap_err();
    assert_eq!((refused.status, refused.code.as_str()), (422, "other_trust_domain"));
}

#[tokio::test]
async fn apply_over_another_state_than_the_files_were_made_from_is_refused_unless_forced() {
    let ca = TestCa::with_mesh().await;
    let (second, third) = (
        MESH.replace("reads-orders", "second"),
        MESH.replace("reads-orders", "third"),
    );
    ca.apply(&second, Some((1, 1))).await.unwrap();
    for base in [None, Some((1, 1)), Some((1, 3)), Some((2, 2))] {
        let refused = ca.apply(&third, base).await.unwrap_err();
        assert_eq!((refused.status, refused.code.as_str()), (409, "base_mismatch"));
    }
    let body = json!({"sources": [source(&third)], "force": true});
    let applied: ApplyResponse = ca.admin("POST", path::APPLY, body).await.unwrap();
    assert_eq!(applied.generation, number(3));
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_and_changes_nothing() {
    let ca = TestCa::with_mesh().await;
    let body = json!({
        "sources": [source(&MESH.replace("reads-orders", "second"))],
        "base": {"epoch": 1, "revision": 1},
        "dry_run": true,
    });
    let dry: ApplyResponse = ca.admin("POST", path::APPLY, body).await.unwrap();
    assert!(dry.dry_run && !dry.unchanged);
    assert_eq!((dry.generation, dry.tests.passed), (number(1), 2));
    let revisions: RevisionList = ca.get(path::REVISIONS).await;
    assert_eq!(revisions.revisions.len(), 1);
}

#[tokio::test]
async fn of_many_applies_over_one_base_one_wins() {
    let ca = TestCa::with_mesh().await;
    let texts: Vec<_> = (0..4)
        .map(|n| MESH.replace("reads-orders", &format!("rule-{n}")))
        .collect();
    let base = Some((1, 1));
    let results = tokio::join!(
        ca.apply(&texts[0], base),
        ca.apply(&texts[1], base),
        ca.apply(&texts[2], base),
        ca.apply(&texts[3], base),
    );
    let won = [results.0, results.1, results.2, results.3]
        .into_iter()
        .filter(Result::is_ok)
        .count();
    assert_eq!(won, 1);
}

#[tokio::test]
async fn rollback_makes_an_old_state_live_under_a_new_number() {
    let ca = TestCa::with_mesh().await;
    ca.apply(&MESH.replace("reads-orders", "second"), Some((1, 1)))
        .await
        .unwrap();
    let back: ApplyResponse = ca.admin("POST", path::ROLLBACK, json!({"revision": 1})).await.unwrap();
    assert_eq!(back.generation, number(3));
    let mesh: MeshSources = ca.get(path::MESH).await;
    assert_eq!((mesh.generation, mesh.sources), (number(3), vec![source(MESH)]));
    let revisions: RevisionList = ca.get(path::REVISIONS).await;
    let live: Vec<_> = revisions
        .revisions
        .iter()
        .map(|r| (r.generation.revision, r.live))
        .collect();
    assert_eq!(live, [(3, true), (2, false), (1, false)]);
    assert_eq!(revisions.revisions[0].sha256, revisions.revisions[2].sha256);
    assert_eq!(ca.events("rollback").len(), 1);
    let refused = ca
        .admin::<Value>("POST", path::ROLLBACK, json!({"revision": 9}))
        .await
        .unwrap_err();
    assert_eq!((refused.status, refused.code.as_str()), (404, "no_such_revision"));
}

#[tokio::test]
async fn a_generation_that_is_not_yet_is_not_found_and_an_old_one_answers_at_once() {
    let ca = TestCa::with_mesh().await;
    let future = format!("{}?revision=2", path::GENERATION);
    let refused = ca.admin::<Value>("GET", &future, Value::Null).await.unwrap_err();
    assert_eq!(refused.code, "no_such_revision");
    assert_eq!(ca.live_on(1).await.hosts, []);
    let refused = ca
        .admin::<Value>("GET", "/v1/generation?revision=x", Value::Null)
        .await
        .unwrap_err();
    assert_eq!(refused.code, "bad_request");
}

#[tokio::test]
async fn bots_and_status_say_what_is_there() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-2").await;
    let mut stream = ca.connect(&host).await.sync(hello("10.0.0.5:15443")).await.unwrap();
    stream.slice().await;
    let csr = spiffe_tls::PrivateKey::generate()
        .unwrap()
        .csr(&bot_id("prod/orders"))
        .unwrap();
    ca.connect(&host).await.issue("prod/orders", csr).await.unwrap();
    let bots: BotList = ca.get(path::BOTS).await;
    let orders = bots.bots.iter().find(|bot| bot.bot.as_str() == "prod/orders").unwrap();
    assert_eq!(orders.endpoints, ["10.0.0.5:15443"]);
    assert_eq!(orders.last_issued, Some(ca.clock.now()));
    let checkout = bots
        .bots
        .iter()
        .find(|bot| bot.bot.as_str() == "prod/checkout")
        .unwrap();
    assert_eq!(
        (checkout.serves, checkout.last_issued, checkout.svid_ttl_seconds),
        (false, None, 900)
    );
    let status: CaStatus = ca.get(path::STATUS).await;
    assert_eq!((status.hosts, status.hosts_connected, status.bots), (1, 1, 2));
    assert_eq!(status.generation, number(1));
    assert_eq!(status.node_api, ca.addresses.node_api.to_string());
    assert!(status.notes[0].contains("key-encryption key"));
}

#[tokio::test]
async fn evicting_nobody_is_an_error() {
    let ca = TestCa::start().await;
    let refused = ca
        .admin::<Value>("POST", path::HOST_EVICT, json!({"host": "web-9"}))
        .await
        .unwrap_err();
    assert_eq!((refused.status, refused.code.as_str()), (404, "no_such_host"));
}

#[tokio::test]
async fn a_body_larger_than_a_mesh_may_be_is_refused() {
    let ca = TestCa::start().await;
    let refused = ca.apply(&"#".repeat(5 << 20), None).await.unwrap_err();
    assert_eq!(refused.status, 413);
}

#[tokio::test]
async fn health_and_metrics_need_no_login() {
    let ca = TestCa::start().await;
    assert_eq!(tcp_http(ca.addresses.dashboard, "/livez").await.0, 200);
    assert_eq!(tcp_http(ca.addresses.dashboard, "/readyz").await.0, 200);
    let (status, body) = tcp_http(ca.addresses.dashboard, "/metrics").await;
    assert_eq!(status, 200);
    assert!(String::from_utf8(body.to_vec()).unwrap().contains("botmesh_build_info"));
    assert_eq!(tcp_http(ca.addresses.dashboard, "/v1/status").await.0, 404);
}
