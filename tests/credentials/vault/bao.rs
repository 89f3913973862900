//! A real OpenBao, in memory, on ports of the test's own.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::credentials::scene;
use crate::outside::scene::Scene;
use crate::support::{Process, eventually, free_port, ok};

/// The policy of hosts, as README has it.
const POLICY: &str = r#"path "kv/data/bots/*" { capabilities = ["read"] }"#;

pub(crate) struct Bao {
    process: Option<Process>,
    dir: tempfile::TempDir,
    program: String,
    /// Of its own; it takes ports that nobody named.
    address: String,
}

/// In the clear, for the administrator.
const PLAIN: u16 = 8200;
const TLS: u16 = 8300;

/// The program, which is not in Debian: `tests/run` fetches it. Says that the test is skipped where there is none.
pub(crate) fn program() -> Option<String> {
    let found = std::env::var("BOTMESH_BAO")
        .ok()
        .filter(|program| Path::new(program).exists());
    if found.is_none() {
        println!("skipped: vaults (BOTMESH_BAO names no OpenBao)");
    }
    found
}

impl Bao {
    /// Chooses where it is, so that a proxy can be told before it starts.
    pub(crate) fn new(program: String) -> Self {
        let dir = tempfile::Builder::new().prefix("bmbao").tempdir().unwrap();
        scene::readable(dir.path());
        let [high, low] = free_port().to_be_bytes();
        Self {
            process: None,
            dir,
            program,
            address: format!("127.98.{high}.{low}"),
        }
    }

    /// Gives a file of its folder.
    pub(crate) fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// What `proxy.yaml` says of it, with values that are used for a second, and for three more while it is away.
    pub(crate) fn config(&self, login: &str, sources: &str) -> String {
        self.config_with("ttl: 1s, stale: 3s", login, sources)
    }

    /// The same with other times.
    pub(crate) fn config_with(&self, times: &str, login: &str, sources: &str) -> String {
        let (at, ca) = (&self.address, self.file("ca.pem"));
        let login = login.replace("FILE", &self.file("jwt"));
        format!(
            "credentials: {{{times}, vaults: {{main: {{address: \"https://{at}:{TLS}\", ca: {ca}, login: {login}}}}}, sources: {sources}}}\n"
        )
    }

    /// Starts it, with a certificate of the scene, and the authorities of the mesh for those who log in.
    pub(crate) fn start(&mut self, scene: &Scene) {
        fs::copy(scene.ca_file(), self.file("ca.pem")).unwrap();
        let pem = scene.certificate(TLS, &[&self.address]);
        let config = format!(
            "listener \"tcp\" {{\n address = \"{}:{TLS}\"\n tls_cert_file = \"{pem}\"\n tls_key_file = \"{pem}\"\n}}\n",
            self.address
        );
        fs::write(self.file("extra.hcl"), config).unwrap();
        self.launch();
        self.ask(
            "POST",
            "sys/mounts/kv",
            &json!({"type": "kv", "options": {"version": "2"}}),
        );
        self.ask("PUT", "sys/policies/acl/hosts", &json!({"policy": POLICY}));
        self.ask("POST", "sys/auth/cert", &json!({"type": "cert"}));
        self.ask("POST", "auth/cert/config", &json!({"disable_binding": true}));
        self.ask("POST", "sys/auth/jwt", &json!({"type": "jwt"}));
        let roots = roots(&scene.host().dir.join("bundle.json"));
        self.let_in("hosts", "spiffe://acme.internal/botmesh/host/web-1", &roots, "1h");
        self.let_in("others", "spiffe://acme.internal/botmesh/host/web-2", &roots, "1h");
        // Whose tokens are soon to be renewed.
        self.let_in("briefly", "spiffe://acme.internal/botmesh/host/web-1", &roots, "2s");
    }

    /// One that knows nothing of a mesh, and only its administrator's port.
    pub(crate) fn plain(program: String) -> Self {
        let mut bao = Self::new(program);
        fs::write(bao.file("extra.hcl"), "").unwrap();
        bao.launch();
        bao
    }

    fn launch(&mut self) {
        let mut command = Command::new(&self.program);
        command
            .args(["server", "-dev", "-dev-no-store-token", "-dev-root-token-id=root"])
            .arg(format!("-dev-listen-address={}:{PLAIN}", self.address))
            .arg(format!("-config={}", self.file("extra.hcl")))
            .env("HOME", self.dir.path());
        self.process = Some(Process::spawn(command, self.dir.path().join("log")));
        let health = format!("http://{}:{PLAIN}/v1/sys/health", self.address);
        eventually("OpenBao to answer", || {
            let asked = Command::new("curl").args(["-sf", &health]).output().unwrap();
            asked.status.success().then_some(())
        });
    }

    /// A role of the method `cert`, for whom shows this SPIFFE ID.
    fn let_in(&self, role: &str, id: &str, roots: &str, ttl: &str) {
        let role = format!("auth/cert/certs/{role}");
        let body = json!({
            "certificate": roots, "allowed_uri_sans": id, "token_policies": "hosts", "token_ttl": ttl
        });
        self.ask("POST", &role, &body);
    }

    /// Asks as its administrator, and gives the answer.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        self.try_ask(method, path, body)
            .unwrap_or_else(|told| panic!("{method} {path}: {told}"))
    }

    /// Asks as its administrator, and gives the answer or what it says instead.
    pub(crate) fn try_ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let url = format!("http://{}:{PLAIN}/v1/{path}", self.address);
        let mut curl = Command::new("curl");
        curl.args(["-s", "-w", "\n%{http_code}", "-X", method, "-H", "X-Vault-Token: root"]);
        curl.args(["--data-binary", "@-", &url]);
        let mut child = curl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(body.to_string().as_bytes())
            .unwrap();
        let told = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let (told, status) = told.rsplit_once('\n').unwrap();
        if !status.starts_with('2') {
            return Err(told.to_owned());
        }
        Ok(serde_json::from_str(told).unwrap_or(Value::Null))
    }

    /// Puts a version of a secret there.
    pub(crate) fn put(&self, name: &str, value: &str) {
        let path = format!("kv/data/bots/{name}");
        // The engine upgrades itself for a moment after it was mounted.
        eventually("the secret to be put", || {
            self.try_ask("POST", &path, &json!({"data": {"api": value, "number": 7}}))
                .ok()
        });
    }

    /// How many tokens there are beside the administrator's.
    pub(crate) fn tokens(&self) -> usize {
        self.accessors().len() - 1
    }

    /// What tells the tokens apart.
    pub(crate) fn accessors(&self) -> Vec<String> {
        let told = self.ask("LIST", "auth/token/accessors", &json!({}));
        serde_json::from_value(told["data"]["keys"].clone()).unwrap()
    }

    /// Revokes them.
    pub(crate) fn revoke_tokens(&self) {
        let told = self.ask("LIST", "auth/token/accessors", &json!({}));
        for accessor in told["data"]["keys"].as_array().unwrap() {
            let told = self.ask("POST", "auth/token/lookup-accessor", &json!({"accessor": accessor}));
            if told["data"]["id"] != "root" && told["data"]["display_name"] != "token" {
                self.ask("POST", "auth/token/revoke-accessor", &json!({"accessor": accessor}));
            }
        }
    }

    /// Kills it; nothing of it is left.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Has the method `jwt` believe this key.
    pub(crate) fn believes(&self, public: &str) {
        self.ask("POST", "auth/jwt/config", &json!({"jwt_validation_pubkeys": [public]}));
        let role = json!({
            "role_type": "jwt", "user_claim": "sub", "bound_audiences": ["openbao"], "bound_subject": "web-1",
            "token_policies": ["hosts"], "token_ttl": "1h"
        });
        self.ask("POST", "auth/jwt/role/hosts", &role);
    }
}

/// The authorities of the mesh in PEM, as README says where they are.
fn roots(bundle: &Path) -> String {
    let text = eventually("the bundle", || fs::read_to_string(bundle).ok());
    let bundle: Value = serde_json::from_str(&text).unwrap();
    let jwks: Value = serde_json::from_str(bundle["jwks"].as_str().unwrap()).unwrap();
    let keys = jwks["keys"].as_array().unwrap().iter();
    let x5c = keys.filter_map(|key| key["x5c"][0].as_str());
    x5c.map(|der| format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n"))
        .collect()
}

/// A key of somebody who makes tokens, in files of the folder, and its public half in PEM.
pub(crate) fn signer(bao: &Bao) -> String {
    let key = bao.file("signer.pem");
    ok(Command::new("openssl").args(["genrsa", "-out", &key, "2048"]));
    ok(Command::new("openssl").args(["rsa", "-in", &key, "-pubout"]))
}

/// A token of that somebody about this subject, good for five minutes.
pub(crate) fn token(bao: &Bao, subject: &str) -> String {
    let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let claims = json!({"sub": subject, "aud": "openbao", "iat": now, "exp": now + 300});
    let signed = format!(
        "{}.{}",
        encode(br#"{"alg":"RS256"}"#),
        encode(claims.to_string().as_bytes())
    );
    let mut openssl = Command::new("openssl");
    openssl.args(["dgst", "-sha256", "-sign", &bao.file("signer.pem")]);
    let mut child = openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(signed.as_bytes()).unwrap();
    let signature = child.wait_with_output().unwrap().stdout;
    format!("{signed}.{}", encode(&signature))
}
