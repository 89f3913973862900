//! Tokens that anyone can verify, by those who know nothing of botmesh: OpenBao, PyJWT, and the SPIFFE library of Python.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use spiffe::time::Timestamp;

use crate::credentials::vault::bao::{self, Bao};
use crate::support::hand::Hand;
use crate::support::join::PlayedHost;
use crate::support::{Mesh, PYTHON, Setup, both, botmesh, eventually, free_port, http_get, ok, run};

const AUDIENCE: &str = "https://vault.acme.example";

const MESH: &str = r#"
version: 1
trust_domain: acme.internal
bots:
  prod/support: {owner: cx@acme.internal, hosts: [web-1], attest: {user: support}}
  prod/other: {owner: cx@acme.internal, hosts: [web-1], attest: {user: other}}
credentials:
  vault: {owner: cx@acme.internal, federate: {audience: "https://vault.acme.example"}}
  api: {owner: cx@acme.internal, federate: {audience: "https://api.example.com"}}
allow:
  - {id: vault, from: "prod/*", to: "https://vault.acme.example", http: [GET /*], inject: vault}
  - {id: api, from: prod/support, to: "https://api.example.com", http: [GET /*], inject: api}
"#;

/// A CA that signs tokens, and a host that the test plays.
struct Scene {
    mesh: Mesh,
    issuer: String,
    port: u16,
}

impl Scene {
    /// Over HTTPS, as `localhost`, by an authority of its own.
    fn https() -> Self {
        let pki = tempfile::Builder::new().prefix("bmpki").tempdir().unwrap();
        let (certificate, key) = write_pair(pki.path());
        let port = free_port();
        let issuer = format!("https://localhost:{port}/mesh");
        let section = format!(
            "federation: {{issuer: \"{issuer}\", listen: 127.0.0.1:{port}, tls: {{certificate: {}, key: {}}}}}\n",
            certificate.display(),
            key.display()
        );
        let scene = Self::start(section, issuer, port, None);
        fs::copy(pki.path().join("root.pem"), scene.root()).unwrap();
        scene
    }

    /// On loopback, in the clear, by the clock of a test.
    fn loopback(hand: &Hand) -> Self {
        let port = free_port();
        let issuer = "https://ids.acme.example".to_owned();
        let section = format!("federation: {{issuer: \"{issuer}\", listen: 127.0.0.1:{port}}}\n");
        Self::start(section, issuer, port, Some(hand.path()))
    }

    fn start(section: String, issuer: String, port: u16, clock: Option<PathBuf>) -> Self {
        let mesh = Mesh::start(&Setup {
            ca: &section,
            clock,
            ..Setup::default()
        });
        eventually("the CA to answer", || {
            let told = run(botmesh().args(["ca", "status", "--server", &mesh.server()]));
            told.status.success().then_some(())
        });
        mesh.apply(MESH);
        Self { mesh, issuer, port }
    }

    fn root(&self) -> PathBuf {
        self.mesh.dir().join("federation-root.pem")
    }

    fn ca(&self) -> SocketAddr {
        let status = self.json(&["ca", "status"]);
        status["node_api"].as_str().unwrap().parse().unwrap()
    }

    /// The host, which joins now.
    fn host(&self) -> PlayedHost {
        PlayedHost::join(self.ca(), &self.token())
    }

    fn token(&self) -> String {
        ok(botmesh().args(["host", "token", "web-1", "--server", &self.mesh.server()]))
    }

    /// A document as it is printed.
    fn raw(&self, args: &[&str]) -> Value {
        let told = ok(botmesh().args(args).args(["--server", &self.mesh.server()]));
        serde_json::from_str(&told).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let told = ok(botmesh()
            .args(args)
            .args(["-o", "json", "--server", &self.mesh.server()]));
        serde_json::from_str(&told).unwrap()
    }

    /// Waits until the keys are in these states.
    fn has(&self, wanted: &[&str]) {
        eventually("the keys to be so", || {
            let status = self.json(&["ca", "status"]);
            let keys = status["federation"]["keys"].as_array().unwrap();
            let found: Vec<_> = keys.iter().map(|key| key["state"].as_str().unwrap()).collect();
            (found == wanted).then_some(())
        });
    }

    /// What a relying party fetches in the clear.
    fn fetched(&self, path: &str) -> String {
        let (status, body) = http_get(self.port, path).expect("the endpoint answers");
        assert_eq!(status, 200, "{path}");
        body
    }
}

/// An authority, and a certificate for `localhost` with its key.
fn write_pair(dir: &Path) -> (PathBuf, PathBuf) {
    let root_key = rcgen::KeyPair::generate().unwrap();
    let mut root = rcgen::CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = root.self_signed(&root_key).unwrap();
    fs::write(dir.join("root.pem"), certificate.pem()).unwrap();
    let issuer = rcgen::Issuer::new(root, root_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let files = (dir.join("ids.pem"), dir.join("ids.key"));
    fs::write(&files.0, leaf.pem()).unwrap();
    fs::write(&files.1, key.serialize_pem()).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&files.1, fs::Permissions::from_mode(0o600)).unwrap();
    files
}

/// Verifies a token by a set of keys, at a time, as PyJWT does.
const PYJWT: &str = r#"
import json, sys, jwt
asked = json.load(sys.stdin)
keys = {key["kid"]: key for key in json.loads(asked["jwks"])["keys"]}
kid = jwt.get_unverified_header(asked["token"])["kid"]
key = jwt.PyJWK(keys[kid]).key
# The time is the test's, so PyJWT's own look at the clock is done by hand.
claims = jwt.decode(asked["token"], key, algorithms=["ES256"], audience=asked["audience"], issuer=asked["issuer"],
    options={"require": ["exp", "iat", "sub", "aud", "iss", "jti"], "verify_exp": False, "verify_iat": False})
assert claims["iat"] <= asked["now"] < claims["exp"], claims
print(claims["sub"])
"#;

fn python(program: &str, script: &str, asked: &Value) -> Output {
    use std::io::Write as _;
    use std::process::Stdio;
    let mut child = Command::new(program)
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(asked.to_string().as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn openbao_finds_the_keys_by_discovery_and_lets_in_the_bot_and_the_audience_of_its_role() {
    let Some(program) = bao::program() else { return };
    let scene = Scene::https();
    let host = scene.host();
    let vault = Bao::plain(program);
    vault.ask("POST", "sys/auth/jwt", &json!({"type": "jwt"}));
    let root = fs::read_to_string(scene.root()).unwrap();
    let config = json!({
        "oidc_discovery_url": scene.issuer, "oidc_discovery_ca_pem": root, "bound_issuer": scene.issuer
    });
    vault.ask("POST", "auth/jwt/config", &config);
    let role = json!({
        "role_type": "jwt", "user_claim": "sub", "bound_audiences": [AUDIENCE],
        "bound_subject": "spiffe://acme.internal/prod/support", "token_policies": ["default"]
    });
    vault.ask("POST", "auth/jwt/role/support", &role);
    let login = |jwt: String| vault.try_ask("POST", "auth/jwt/login", &json!({"role": "support", "jwt": jwt}));
    let granted = login(host.mint("prod/support", AUDIENCE).unwrap()).unwrap();
    assert_eq!(granted["auth"]["metadata"]["role"], "support", "{granted}");
    let refused = login(host.mint("prod/support", "https://api.example.com").unwrap()).unwrap_err();
    assert!(refused.contains("audience"), "{refused}");
    let refused = login(host.mint("prod/other", AUDIENCE).unwrap()).unwrap_err();
    assert!(refused.contains("invalid subject"), "{refused}");
    let mut changed = host.mint("prod/support", AUDIENCE).unwrap();
    let last = if changed.ends_with('A') { 'Q' } else { 'A' };
    changed.pop();
    changed.push(last);
    assert!(login(changed).is_err());
    assert_eq!(
        host.mint("prod/other", "https://api.example.com").unwrap_err(),
        "not_your_audience"
    );
}

#[test]
fn keys_that_were_fetched_23_hours_before_a_rotation_verify_tokens_from_before_and_after_it() {
    const DAY: Duration = Duration::from_hours(24);
    let dir = tempfile::Builder::new().prefix("bmclock").tempdir().unwrap();
    let hand = Hand::new(dir.path());
    let scene = Scene::loopback(&hand);
    let now = || Timestamp::from_unix_millis(hand.shows());
    // A host joins at this time and asks for one token.
    let token = || {
        run(botmesh().args(["host", "evict", "web-1", "--server", &scene.mesh.server()]));
        let host = eventually("the CA to have an SVID of this time", || {
            PlayedHost::try_join_at(scene.ca(), &scene.token(), now())
        });
        host.mint("prod/support", AUDIENCE).unwrap()
    };
    let verifies = |jwks: &str, token: &str| {
        let asked = json!({
            "jwks": jwks, "token": token, "audience": AUDIENCE, "issuer": scene.issuer, "now": now().unix_seconds()
        });
        python(PYTHON, PYJWT, &asked)
    };
    hand.forward(DAY * 15);
    scene.has(&["signing", "next"]);
    hand.forward(DAY * 9 + Duration::from_hours(1));
    let jwks = scene.fetched("/keys");
    assert_eq!(
        serde_json::from_str::<Value>(&jwks).unwrap(),
        scene.raw(&["bundle", "show", "--jwks"]),
        "what an operator uploads is what is served"
    );
    hand.forward(Duration::from_hours(22) + Duration::from_mins(58));
    let before = token();
    let told = verifies(&jwks, &before);
    assert!(told.status.success(), "{}", both(&told));
    assert_eq!(both(&told).trim(), "spiffe://acme.internal/prod/support");
    hand.forward(Duration::from_mins(3));
    scene.has(&["old", "signing"]);
    let after = token();
    for token in [&before, &after] {
        let told = verifies(&jwks, token);
        assert!(told.status.success(), "{}", both(&told));
    }
    let kid = |token: &str| token.split('.').next().unwrap().to_owned();
    assert_ne!(kid(&before), kid(&after));
    // An hour after its last token the old key is gone, and with it what it signed.
    hand.forward(Duration::from_mins(65));
    scene.has(&["signing"]);
    let told = verifies(&scene.fetched("/keys"), &before);
    assert!(
        !told.status.success() && both(&told).contains("KeyError"),
        "{}",
        both(&told)
    );
}

#[test]
fn a_relying_party_that_speaks_spiffe_believes_a_token_by_the_bundle() {
    let Ok(program) = std::env::var("BOTMESH_SPIFFE") else {
        println!("skipped: tokens by PyPI's spiffe: BOTMESH_SPIFFE names no Python with it");
        return;
    };
    const SCRIPT: &str = r#"
import json, sys
from spiffe import JwtBundle, JwtSvid, TrustDomain
asked = json.load(sys.stdin)
keys = json.dumps({"keys": [key for key in json.loads(asked["bundle"])["keys"] if key["use"] == "jwt-svid"]})
bundle = JwtBundle.parse(TrustDomain("acme.internal"), keys.encode())
svid = JwtSvid.parse_and_validate(asked["token"], bundle, {asked["audience"]})
print(svid.spiffe_id)
"#;
    let scene = Scene::https();
    let token = scene.host().mint("prod/support", AUDIENCE).unwrap();
    let bundle = scene.raw(&["bundle", "show"]).to_string();
    let asked = |audience: &str| {
        python(
            &program,
            SCRIPT,
            &json!({"bundle": bundle, "token": token, "audience": audience}),
        )
    };
    let told = asked(AUDIENCE);
    assert_eq!(both(&told).trim(), "spiffe://acme.internal/prod/support");
    let told = asked("https://api.example.com");
    assert!(
        !told.status.success() && both(&told).contains("Audience"),
        "{}",
        both(&told)
    );
}

#[test]
fn operators_see_keys_and_endpoint_and_are_told_where_the_configuration_is_wrong() {
    let scene = Scene::https();
    let status = ok(botmesh().args(["ca", "status", "--server", &scene.mesh.server()]));
    assert!(
        status.contains(&format!("federation {}: 0 tokens signed", scene.issuer)),
        "{status}"
    );
    assert!(status.contains("  signs for "), "{status}");
    let check = run(botmesh().args(["check", "--server", &scene.mesh.server()]));
    let check = both(&check);
    assert!(
        check.contains("token endpoint") && check.contains("certificate until"),
        "{check}"
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.yaml");
    for (section, place, why) in [
        (
            "{issuer: \"http://ids.acme.example\"}",
            "ca.yaml:2:22",
            "begins with https://",
        ),
        (
            "{issuer: \"https://ids.acme.example/\"}",
            "ca.yaml:2:22",
            "without a slash",
        ),
        (
            "{issuer: \"https://ids.acme.example\", listen: 0.0.0.0:8443}",
            "ca.yaml:2:13",
            "federation.tls is missing",
        ),
        (
            "{issuer: \"https://ids.acme.example\", port: 1}",
            "ca.yaml:2:50",
            "unknown field `port`",
        ),
    ] {
        fs::write(&file, format!("trust_domain: acme.internal\nfederation: {section}\n")).unwrap();
        let told = run(botmesh().args(["ca", "init", "--config"]).arg(&file));
        assert_eq!(told.status.code(), Some(3), "{section}");
        let told = both(&told);
        assert!(
            told.contains(why) && told.contains(place) && told.contains('^'),
            "{told}"
        );
    }
}
