//! Tokens that anyone can verify: who gets one, what it says, which key signed it, and what relying parties read.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use ca_api::admin::{BundleDocuments, CaStatus, JwtKeyState, path};
use ca_api::node::{ISSUE_BATCH_MAX, IssueRequest, JwtRequest, JwtResponse, SvidRequest};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use spiffe::bundle::TrustBundle;
use spiffe_tls::{JwsError, PrivateKey, verify_jwt};
use tokio::net::TcpStream;
use tonic::{Code, Status};

use crate::support::*;

const ISSUER: &str = "https://ids.acme.example/mesh";
const AUDIENCE: &str = "https://api.example.com";
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// `prod/support` may have a token for one audience, and for another one until a quarter to one.
const MESH: &str = r#"
version: 1
trust_domain: acme.internal
bots:
  prod/support: {owner: cx@acme.internal, hosts: [web-1], attest: {user: support}}
  prod/brief: {owner: cx@acme.internal, hosts: [web-1], attest: {user: brief}, svid_ttl: 2m}
  prod/orders: {owner: shop@acme.internal, hosts: [web-2], attest: {user: orders}}
credentials:
  api: {owner: cx@acme.internal, federate: {audience: "https://api.example.com"}}
  incident: {owner: cx@acme.internal, federate: {audience: "https://incident.example.com"}}
allow:
  - {id: api, from: [prod/support, prod/brief], to: "https://api.example.com", http: [GET /*], inject: api}
  - {id: incident, from: prod/support, to: "https://incident.example.com", http: [GET /*], inject: incident,
     until: 2026-11-25T12:45:00Z, reason: INC-1}
"#;

impl Connection {
    async fn mint(&mut self, bot: &str, audience: &str) -> Result<JwtResponse, Status> {
        let request = JwtRequest {
            bot: bot.to_owned(),
            audience: audience.to_owned(),
        };
        Ok(within(self.client.mint_jwt(request)).await?.into_inner())
    }

    async fn token(&mut self) -> String {
        let answer = self.mint("prod/support", AUDIENCE).await.unwrap();
        assert_eq!(answer.refusal, "", "{}", answer.message);
        answer.token
    }
}

/// What `federation:` says beside the issuer.
async fn federated(more: Value) -> TestCa {
    let mut federation = json!({"issuer": ISSUER});
    federation
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let ca = TestCa::start_with(json!({"federation": federation})).await;
    ca.apply(MESH, None).await.unwrap();
    ca
}

/// One that serves its documents on loopback.
async fn served() -> TestCa {
    federated(json!({"listen": "127.0.0.1:0"})).await
}

impl TestCa {
    fn endpoint(&self) -> SocketAddr {
        self.addresses.federation.unwrap()
    }

    async fn read(&self, path: &str) -> Value {
        let (status, body) = tcp_http(self.endpoint(), path).await;
        assert_eq!(status, 200, "{path}");
        serde_json::from_slice(&body).unwrap()
    }

    /// The bundle that a relying party fetches now.
    async fn bundle(&self) -> TrustBundle {
        let (status, body) = tcp_http(self.endpoint(), "/mesh/bundle.json").await;
        assert_eq!(status, 200);
        TrustBundle::parse(&domain(), &body).unwrap()
    }

    async fn keys(&self) -> Vec<(JwtKeyState, String)> {
        let status: CaStatus = self.get(path::STATUS).await;
        let keys = status.federation.unwrap().keys.into_iter();
        keys.map(|key| (key.state, key.key_id)).collect()
    }

    fn key_files(&self) -> usize {
        let files = std::fs::read_dir(&self.settings.key_dir).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("jwt-")).count()
    }

    /// Goes on in steps of an hour, as time does, and waits at each for what is due.
    async fn live_for(&self, time: Duration) {
        for _ in 0..time.as_secs() / 3600 {
            self.hand.advance(HOUR);
            tokio::task::yield_now().await;
        }
    }

    /// Joins a host that may have joined before. The CA renews its own SVID beside, when the clock has jumped.
    async fn rejoin(&self, name: &str) -> Host {
        let _before: Result<Value, _> = self.admin("POST", path::HOST_EVICT, json!({"host": name})).await;
        let token = self.token(name).await;
        eventually(async || self.stranger(token.pins().to_vec()).await.ok()).await;
        self.join_with(&token, PrivateKey::generate().unwrap()).await.unwrap()
    }

    async fn reach(&self, host: &Host) -> Connection {
        eventually(async || self.connect_as(&host.svid, &host.bundle).await.ok()).await
    }

    /// Waits until the keys are in these states.
    async fn has(&self, states: &[JwtKeyState]) {
        eventually(async || {
            let keys = self.keys().await;
            let found: Vec<_> = keys.iter().map(|(state, _)| *state).collect();
            (found == states).then_some(())
        })
        .await;
    }
}

fn part(token: &str, place: usize) -> Value {
    let text = token.split('.').nth(place).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
}

#[tokio::test]
async fn a_bot_gets_a_token_that_says_who_it_is_to_one_audience_for_five_minutes() {
    let ca = served().await;
    let host = ca.join("web-1").await;
    let mut connection = ca.connect(&host).await;
    let answer = connection.mint("prod/support", AUDIENCE).await.unwrap();
    let svid = verify_jwt(&answer.token, &ca.bundle().await, AUDIENCE, ca.clock.now()).unwrap();
    assert_eq!(svid.id(), &bot_id("prod/support"));
    let now = ca.clock.now().unix_seconds();
    let key_id = ca.keys().await[0].1.clone();
    assert_eq!(
        part(&answer.token, 0),
        json!({"alg": "ES256", "kid": key_id, "typ": "JWT"})
    );
    let claims = part(&answer.token, 1);
    let token_id = claims["jti"].as_str().unwrap().to_owned();
    assert!(URL_SAFE_NO_PAD.decode(&token_id).unwrap().len() >= 16);
    assert_eq!(
        claims,
        json!({
            "iss": ISSUER, "sub": "spiffe://acme.internal/prod/support", "aud": AUDIENCE,
            "iat": now, "exp": now + 300, "jti": token_id,
        })
    );
    assert_eq!(answer.expires_unix_ms, (now + 300) * 1000);
    let next = connection.token().await;
    assert_ne!(part(&next, 1)["jti"], json!(token_id));
    let records = ca.events("jwt_issued");
    assert_eq!(records.len(), 2);
    assert_eq!(records[0]["actor"], "host:web-1");
    assert_eq!(records[0]["subject"], "spiffe://acme.internal/prod/support");
    let detail = &records[0]["detail"];
    assert_eq!(detail["jti"], token_id);
    assert_eq!(detail["audience"], AUDIENCE);
    assert_eq!(detail["kid"], key_id);
    assert_eq!(detail["not_after"], "2026-11-25T12:05:00.000Z");
    let stored = rusqlite::Connection::open(&ca.settings.database).unwrap();
    let row = |sql| stored.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(row("SELECT count(*) || host FROM jwts"), "2web-1");
    assert_eq!(row("SELECT audience FROM jwts"), AUDIENCE);
    assert_eq!(row("SELECT min(kid) FROM jwts"), key_id);
    for line in ca.ledger() {
        assert!(!line.to_string().contains(answer.token.split('.').nth(2).unwrap()));
    }
}

#[tokio::test]
async fn a_token_lasts_no_longer_than_an_svid_of_the_bot() {
    let ca = served().await;
    let host = ca.join("web-1").await;
    let answer = ca.connect(&host).await.mint("prod/brief", AUDIENCE).await.unwrap();
    let claims = part(&answer.token, 1);
    let lasts = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert_eq!(lasts, 120);
}

#[tokio::test]
async fn who_may_not_have_a_token_is_refused_in_one_word_and_recorded() {
    let ca = served().await;
    let host = ca.join("web-1").await;
    let mut connection = ca.connect(&host).await;
    let long = "a".repeat(1025);
    for (bot, audience, word, recorded) in [
        ("prod/orders", AUDIENCE, "not_your_bot", "not_your_bot"),
        ("prod/nobody", AUDIENCE, "not_your_bot", "not_your_bot"),
        (
            "prod/support",
            "https://other.example.com",
            "not_your_audience",
            "not_your_audience",
        ),
        (
            "prod/brief",
            "https://incident.example.com",
            "not_your_audience",
            "not_your_audience",
        ),
        (
            "prod/support",
            "https://api.example.com/",
            "not_your_audience",
            "not_your_audience",
        ),
        ("Prod/Support", AUDIENCE, "bad_request", "not_a_bot"),
        ("botmesh/host/web-1", AUDIENCE, "bad_request", "not_a_bot"),
        ("prod/support", "", "bad_request", "bad_audience"),
        ("prod/support", "a b", "bad_request", "bad_audience"),
        ("prod/support", &long, "bad_request", "bad_audience"),
    ] {
        let answer = connection.mint(bot, audience).await.unwrap();
        assert_eq!(answer.refusal, word, "{bot} {audience}");
        assert_eq!((answer.token.as_str(), answer.expires_unix_ms), ("", 0));
        assert!(!answer.message.is_empty());
        let written = ca.events("issue_refused");
        assert!(
            written.iter().any(|line| line["detail"]["reason"] == recorded),
            "{recorded} in {written:?}"
        );
    }
    assert!(ca.events("jwt_issued").is_empty());
}

#[tokio::test]
async fn a_token_for_an_audience_ends_with_the_rule_about_it() {
    let ca = served().await;
    let host = ca.join("web-1").await;
    let incident = "https://incident.example.com";
    // Its node SVID lasts longer than the rule about the incident.
    let mut connection = ca.connect(&host).await;
    ca.hand.advance(Duration::from_mins(40));
    assert_eq!(connection.mint("prod/support", incident).await.unwrap().refusal, "");
    ca.hand.advance(Duration::from_mins(10));
    let after = connection.mint("prod/support", incident).await.unwrap();
    assert_eq!(after.refusal, "not_your_audience");
    assert_eq!(connection.mint("prod/support", AUDIENCE).await.unwrap().refusal, "");
}

#[tokio::test]
async fn whoever_is_cut_off_gets_no_token() {
    let ca = served().await;
    let host = ca.join("web-1").await;
    let mut connection = ca.connect(&host).await;
    for whom in [json!({"bot": "prod/support"}), json!({"host": "web-1"})] {
        let body = json!({"whom": whom, "reason": "it calls what it should not"});
        let _set: Value = ca.admin("POST", path::QUARANTINE, body).await.unwrap();
        let answer = connection.mint("prod/support", AUDIENCE).await.unwrap();
        assert_eq!(answer.refusal, "quarantined", "{whom}");
        let _released: Value = ca.admin("POST", path::RELEASE, json!({"whom": whom})).await.unwrap();
        assert_eq!(connection.mint("prod/support", AUDIENCE).await.unwrap().refusal, "");
    }
    ca.evict("web-1").await;
    let evicted = connection.mint("prod/support", AUDIENCE).await.unwrap_err();
    assert_eq!(evicted.code(), Code::PermissionDenied);
    let token = ca.token("web-2").await;
    let mut stranger = ca.pinned(&token).await;
    let stranger = stranger.mint("prod/support", AUDIENCE).await.unwrap_err();
    assert_eq!(stranger.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_host_has_a_bound_of_tokens_and_of_certificates_together() {
    let ca = served().await;
    let host = ca.join("web-1").await;
    let mut connection = ca.connect(&host).await;
    // The clock stands, so nothing comes back of what a host may have at once.
    let csr = PrivateKey::generate().unwrap().csr(&bot_id("prod/support")).unwrap();
    let svids = vec![
        SvidRequest {
            bot: "prod/support".to_owned(),
            csr,
        };
        ISSUE_BATCH_MAX
    ];
    while within(connection.client.issue(IssueRequest { svids: svids.clone() }))
        .await
        .is_ok()
    {}
    let (mut tokens, mut limited) = (0, None);
    while limited.is_none() && tokens < ISSUE_BATCH_MAX {
        match connection.mint("prod/support", AUDIENCE).await {
            Ok(answer) => assert_eq!(answer.refusal, ""),
            Err(status) => limited = Some(status.code()),
        }
        tokens += usize::from(limited.is_none());
    }
    assert_eq!(limited, Some(Code::ResourceExhausted));
    assert_eq!(ca.events("jwt_issued").len(), tokens);
    let (_, metrics) = tcp_http(ca.addresses.dashboard, "/metrics").await;
    let line = r#"botmesh_ca_svids_total{kind="jwt",result="limited"} 1"#;
    assert!(String::from_utf8(metrics.to_vec()).unwrap().contains(line));
    ca.hand.advance(Duration::from_secs(1));
    assert_eq!(connection.mint("prod/support", AUDIENCE).await.unwrap().refusal, "");
}

#[tokio::test]
async fn without_federation_there_is_no_key_no_endpoint_and_no_token() {
    let ca = TestCa::start().await;
    ca.apply(MESH, None).await.unwrap();
    let host = ca.join("web-1").await;
    let answer = ca.connect(&host).await.mint("prod/support", AUDIENCE).await.unwrap();
    assert_eq!(answer.refusal, "not_configured");
    assert!(answer.message.contains("federation"), "{}", answer.message);
    assert_eq!((ca.key_files(), ca.addresses.federation), (0, None));
    let status: CaStatus = ca.get(path::STATUS).await;
    assert_eq!(status.federation, None);
    let documents: BundleDocuments = ca.get(path::BUNDLE).await;
    assert_eq!(documents.jwks, None);
    assert_eq!(documents.bundle["keys"].as_array().unwrap().len(), 1);
    let written = ca.events("issue_refused");
    assert_eq!(written[0]["detail"]["reason"], "not_configured");
}

#[tokio::test]
async fn whoever_took_the_keys_23_hours_before_a_rotation_verifies_tokens_from_before_and_after_it() {
    let ca = served().await;
    let old = ca.keys().await[0].1.clone();
    ca.live_for(DAY * 15 + HOUR).await;
    ca.has(&[JwtKeyState::Signing, JwtKeyState::Next]).await;
    assert_eq!(ca.key_files(), 2);
    // The next key signs from day 25 on.
    ca.live_for(DAY * 9).await;
    let fetched = ca.bundle().await;
    assert_eq!(fetched.sequence(), 3, "the root, and two keys that came");
    ca.live_for(HOUR * 22).await;
    let host = ca.rejoin("web-1").await;
    let before = ca.reach(&host).await.token().await;
    assert_eq!(part(&before, 0)["kid"], old);
    ca.hand.advance(Duration::from_mins(58));
    let last = ca.reach(&host).await.token().await;
    assert_eq!(part(&last, 0)["kid"], old);
    ca.hand.advance(Duration::from_mins(2));
    ca.has(&[JwtKeyState::Old, JwtKeyState::Signing]).await;
    let host = ca.rejoin("web-1").await;
    let after = ca.reach(&host).await.token().await;
    assert_ne!(part(&after, 0)["kid"], old);
    for token in [&last, &after] {
        assert!(verify_jwt(token, &fetched, AUDIENCE, ca.clock.now()).is_ok());
    }
    // Until the last token has ended, and an hour more, the old key is there; then nobody believes it.
    ca.hand.advance(HOUR + Duration::from_mins(4));
    assert_eq!(ca.bundle().await.jwt_authorities().len(), 2);
    ca.hand.advance(Duration::from_mins(1));
    ca.has(&[JwtKeyState::Signing]).await;
    eventually(async || (ca.key_files() == 1).then_some(())).await;
    let bundle = ca.bundle().await;
    assert_eq!((bundle.jwt_authorities().len(), bundle.sequence()), (1, 4));
    assert!(matches!(
        verify_jwt(&last, &bundle, AUDIENCE, ca.clock.now()),
        Err(JwsError::UnknownKey)
    ));
    let count = |kind| {
        let events = ca.events(kind);
        let of_ours = |event: &&Value| event["subject"].as_str().unwrap().starts_with("jwt-key:");
        events.iter().filter(of_ours).count()
    };
    assert_eq!(
        (count("key_prepared"), count("key_activated"), count("key_retired")),
        (2, 2, 1)
    );
}

#[tokio::test]
async fn keys_outlive_a_restart_and_what_was_due_meanwhile_is_done() {
    let ca = served().await;
    let host = ca.join("web-1").await;
    let token = ca.connect(&host).await.token().await;
    let keys = ca.keys().await;
    let bundle = ca.bundle().await;
    let ca = ca.restart().await;
    assert_eq!((ca.keys().await, ca.bundle().await), (keys.clone(), bundle.clone()));
    assert!(verify_jwt(&token, &ca.bundle().await, AUDIENCE, ca.clock.now()).is_ok());
    let (dir, settings, clock, hand) = ca.stop().await;
    hand.advance(DAY * 60);
    let ca = TestCa::serve(dir, settings, clock, hand).await;
    assert_eq!(ca.keys().await[0], keys[0], "nobody could take the next one yet");
    ca.has(&[JwtKeyState::Signing, JwtKeyState::Next]).await;
    ca.hand.advance(DAY);
    ca.has(&[JwtKeyState::Old, JwtKeyState::Signing]).await;
    let ca = ca.restart().await;
    ca.has(&[JwtKeyState::Old, JwtKeyState::Signing]).await;
    assert!(ca.bundle().await.sequence() > bundle.sequence());
}

#[tokio::test]
async fn a_key_file_that_is_not_the_databases_stops_the_start() {
    let ca = served().await;
    let key_id = ca.keys().await[0].1.clone();
    let (_dir, settings, clock, _hand) = ca.stop().await;
    let file = settings.key_dir.join(format!("jwt-{key_id}.key"));
    let root = std::fs::read_dir(&settings.key_dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| *path != file)
        .unwrap();
    std::fs::copy(root, &file).unwrap();
    let started = ca::start(settings, clock, tokio_util::sync::CancellationToken::new()).await;
    assert!(matches!(started, Err(ca::RunError::Federation { .. })));
}

#[tokio::test]
async fn relying_parties_read_three_documents_and_nothing_else() {
    let ca = served().await;
    let key_id = ca.keys().await[0].1.clone();
    let discovery = ca.read("/mesh/.well-known/openid-configuration").await;
    assert_eq!(discovery["issuer"], ISSUER);
    assert_eq!(discovery["jwks_uri"], format!("{ISSUER}/keys"));
    assert_eq!(discovery["id_token_signing_alg_values_supported"], json!(["ES256"]));
    let keys = ca.read("/mesh/keys").await;
    let key = &keys["keys"][0];
    assert_eq!(
        (&key["kid"], &key["use"], &key["alg"]),
        (&json!(key_id), &json!("sig"), &json!("ES256"))
    );
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
    let bundle = ca.read("/mesh/bundle.json").await;
    let uses: Vec<_> = bundle["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| &key["use"])
        .collect();
    assert_eq!(uses, ["x509-svid", "jwt-svid"]);
    assert_eq!(bundle["spiffe_refresh_hint"], 300);
    let documents: BundleDocuments = ca.get(path::BUNDLE).await;
    assert_eq!((documents.bundle, documents.jwks), (bundle, Some(keys)));
    for path in [
        "/",
        "/keys",
        "/.well-known/openid-configuration",
        "/mesh",
        "/mesh/",
        "/mesh/keys/",
        "/mesh/keys/1",
        "/mesh//keys",
        "/mesh/bots",
        "/metrics",
        "/v1/status",
    ] {
        assert_eq!(tcp_http(ca.endpoint(), path).await.0, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let answer = ask(ca.endpoint(), method, "/mesh/keys", &[]).await;
        assert_eq!(answer.status(), 405, "{method}");
        assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
    let (_, metrics) = tcp_http(ca.addresses.dashboard, "/metrics").await;
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    for line in [
        r#"botmesh_ca_federation_requests_total{document="keys",result="sent"} 1"#,
        r#"botmesh_ca_federation_requests_total{document="other",result="refused"} 16"#,
        r#"botmesh_ca_federation_connections_total{result="accepted"} 19"#,
        "botmesh_ca_jwt_keys 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn a_document_is_sent_again_when_it_has_changed() {
    let ca = served().await;
    let first = ask(ca.endpoint(), "GET", "/mesh/keys", &[]).await;
    let head = first.headers();
    assert_eq!(head["content-type"], "application/json");
    assert_eq!(head["cache-control"], "public, max-age=300");
    let etag = head["etag"].to_str().unwrap().to_owned();
    let body = first.into_body().collect().await.unwrap().to_bytes();
    let bare = ask(ca.endpoint(), "HEAD", "/mesh/keys", &[]).await;
    assert_eq!((bare.status().as_u16(), etag_of(&bare)), (200, &*etag));
    assert_eq!(bare.headers()["content-length"], body.len().to_string());
    assert!(bare.into_body().collect().await.unwrap().to_bytes().is_empty());
    let several = format!("\"else\", W/{etag}");
    for known in [etag.as_str(), "*", &several] {
        let again = ask(ca.endpoint(), "GET", "/mesh/keys", &[("if-none-match", known)]).await;
        assert_eq!((again.status().as_u16(), etag_of(&again)), (304, &*etag), "{known}");
    }
    let other = ask(ca.endpoint(), "GET", "/mesh/keys", &[("if-none-match", "\"else\"")]).await;
    assert_eq!(other.status(), 200);
    ca.live_for(DAY * 15).await;
    ca.has(&[JwtKeyState::Signing, JwtKeyState::Next]).await;
    let later = ask(ca.endpoint(), "GET", "/mesh/keys", &[("if-none-match", &etag)]).await;
    assert_eq!(later.status(), 200);
}

#[tokio::test]
async fn a_head_that_is_too_long_is_not_read_and_one_source_does_not_take_every_place() {
    let ca = served().await;
    let long = "a".repeat(16 * 1024);
    let answer = ask(ca.endpoint(), "GET", "/mesh/keys", &[("x-long", &long)]).await;
    assert_eq!(answer.status(), 431);
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(TcpStream::connect(ca.endpoint()).await.unwrap());
    }
    // The last ones are closed without a word.
    eventually(async || {
        let (_, metrics) = tcp_http(ca.addresses.dashboard, "/metrics").await;
        let turned_away = r#"botmesh_ca_federation_connections_total{result="too_many_connections"} 8"#;
        String::from_utf8(metrics.to_vec())
            .unwrap()
            .contains(turned_away)
            .then_some(())
    })
    .await;
}

fn etag_of(answer: &http::Response<hyper::body::Incoming>) -> &str {
    answer.headers()["etag"].to_str().unwrap()
}

async fn ask(
    at: SocketAddr,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
) -> http::Response<hyper::body::Incoming> {
    let stream = TcpStream::connect(at).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let mut request = http::Request::builder().method(method).uri(path).header("host", "ids");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let answer = async { sender.send_request(request).await.unwrap() };
    let driven = async {
        drop(connection.await);
        std::future::pending::<()>().await;
    };
    within(async {
        tokio::select! {
            answer = answer => answer,
            () = driven => unreachable!(),
        }
    })
    .await
}

/// A certificate for a name, with its key, in the files of a folder.
fn write_pair(dir: &Path, name: &str) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    std::fs::write(dir.join("tls.pem"), made.cert.pem()).unwrap();
    let key = dir.join("tls.key");
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    readable_by(&key, 0o600);
    made.cert.der().clone()
}

fn readable_by(file: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Whether whoever trusts this certificate alone gets through to the endpoint.
async fn trusts(ca: &TestCa, root: &CertificateDer<'static>) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(ca.endpoint()).await.unwrap();
    let name = ServerName::try_from("ids.acme.example").unwrap();
    let connected = within(tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp)).await;
    connected.is_ok()
}

#[tokio::test]
async fn a_new_certificate_is_served_within_a_minute_and_a_bad_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let first = write_pair(dir.path(), "ids.acme.example");
    let files = json!({"certificate": dir.path().join("tls.pem"), "key": dir.path().join("tls.key")});
    let ca = federated(json!({"listen": "127.0.0.1:0", "tls": files})).await;
    assert!(trusts(&ca, &first).await);
    let status: CaStatus = ca.get(path::STATUS).await;
    let endpoint = status.federation.unwrap().endpoint.unwrap();
    assert!(endpoint.tls.unwrap().names_issuer);

    let second = write_pair(dir.path(), "ids.acme.example");
    assert!(trusts(&ca, &first).await, "nobody has looked yet");
    ca.hand.advance(Duration::from_mins(1));
    eventually(async || trusts(&ca, &second).await.then_some(())).await;

    // Another key than the certificate's, a key for everybody, no key: the good pair stays.
    let key = std::fs::read(dir.path().join("tls.key")).unwrap();
    let third = write_pair(dir.path(), "ids.acme.example");
    let third_key = std::fs::read(dir.path().join("tls.key")).unwrap();
    for (content, mode) in [(&key, 0o600), (&third_key, 0o644), (&b"nothing".to_vec(), 0o600)] {
        std::fs::write(dir.path().join("tls.key"), content).unwrap();
        readable_by(&dir.path().join("tls.key"), mode);
        for _ in 0..3 {
            ca.hand.advance(Duration::from_mins(1));
            assert!(trusts(&ca, &second).await && !trusts(&ca, &third).await);
        }
    }
    std::fs::write(dir.path().join("tls.key"), &third_key).unwrap();
    readable_by(&dir.path().join("tls.key"), 0o600);
    eventually(async || {
        ca.hand.advance(Duration::from_mins(1));
        trusts(&ca, &third).await.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_ca_whose_endpoint_has_no_good_certificate_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    write_pair(dir.path(), "ids.acme.example");
    std::fs::write(dir.path().join("tls.pem"), "nothing").unwrap();
    let files = json!({"certificate": dir.path().join("tls.pem"), "key": dir.path().join("tls.key")});
    let federation = json!({"issuer": ISSUER, "listen": "127.0.0.1:0", "tls": files});
    let settings = settings_with(dir.path(), &json!({"federation": federation}));
    let clock = spiffe::time::Clock::system();
    ca::init(&settings, &clock).await.unwrap();
    let started = ca::start(settings, clock, tokio_util::sync::CancellationToken::new()).await;
    assert!(matches!(started, Err(ca::RunError::Certificate { .. })));
}
