//! A service outside that demands keys, and a mesh whose proxy has them.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;

use super::server::Server;
use crate::outside::scene::Scene;
use crate::support::{both, botmesh, planted};

pub(crate) const X_KEY: &str = "sk-ant-0123456789/+ABCDEF\"~";
const BEARER: &str = "sk-proj-bearer-0123456789";
const BASIC: &str = "pass word-0123456789";
const QUERY: &str = "AIza query/0123456789";
pub(super) const HMAC: &str = "whsec_0123456789abcdef";
pub(super) const SIGV4: &str = "AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

/// What is put on the host: the name in the mesh, and the value.
pub(super) const KEYS: [(&str, &str); 4] = [
    ("x-key", X_KEY),
    ("bearer-key", BEARER),
    ("basic-key", BASIC),
    ("query-key", QUERY),
];

/// A way in that leads to the first of the rules' hosts.
const LISTENER: &str = r#"{listen: "127.0.0.1:0", to: "https://header.example.com"}"#;

/// Rule and host, credential, and the name that the service has for it.
pub(super) const RULES: [(&str, &str, &str); 4] = [
    ("header", "x-key", "x"),
    ("bearer", "bearer-key", "bearer"),
    ("basic", "basic-key", "basic"),
    ("query", "query-key", "query"),
];

const CREDENTIALS: &str = r#"credentials:
  x-key: {header: x-api-key, owner: cx@acme.internal, rotate_every: 90d, probe: "GET https://header.example.com/probe"}
  bearer-key: {bearer: true, owner: cx@acme.internal}
  basic-key: {basic: robot, owner: cx@acme.internal}
  query-key: {query: key, unsafe_query: it takes nothing else, owner: cx@acme.internal}
  hook-key: {hmac: {header: x-signature, prefix: "v1=", timestamp: x-time}, owner: cx@acme.internal}
  aws-key: {sigv4: {region: eu-west-1, service: s3}, owner: cx@acme.internal}
  aws-api-key: {sigv4: {region: eu-west-1, service: execute-api}, owner: cx@acme.internal, shared: one account}
"#;

/// The rules that add something.
fn allow() -> Vec<String> {
    let signed = [("hook", "hook-key"), ("s3", "aws-key"), ("api", "aws-api-key")];
    let plain = RULES.iter().map(|(rule, name, _)| (*rule, *name));
    plain
        .chain(signed)
        .map(|(rule, name)| {
            format!(
                r#"id: {rule}, from: prod/checkout, to: "https://{rule}.example.com", http: ["* /**"], inject: {name}"#
            )
        })
        .collect()
}

pub(super) struct Service {
    pub(super) scene: Scene,
    pub(super) server: Server,
}

/// Lets the user of a proxy read a folder.
pub(super) fn readable(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}

impl Service {
    /// Starts the service and a mesh whose one proxy has this configuration beside the ordinary one.
    pub(super) fn start(config: &str) -> Self {
        Self::on(Scene::with_config(LISTENER, config))
    }

    /// The same with a proxy on each of these hosts.
    pub(super) fn on_hosts(hosts: &[&str]) -> Self {
        Self::on(Scene::on_hosts(hosts, ""))
    }

    /// The same by a test's clock.
    pub(super) fn with_clock(clock: PathBuf) -> Self {
        Self::on(Scene::with_clock(LISTENER, Some(clock)))
    }

    fn on(scene: Scene) -> Self {
        let hosts = ["header", "bearer", "basic", "query", "hook", "s3", "api", "other"]
            .map(|name| format!("{name}.example.com"));
        let names: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let pem = scene.certificate(443, &names);
        scene.names(&[(&scene.address, &hosts.join(" "))]);
        let script = include_str!("../support/service.py");
        let server = Server::python(script, &[&scene.address, "443", &pem]);
        let service = Self { scene, server };
        for (_, name, kind) in RULES {
            let value = KEYS.iter().find(|(key, _)| *key == name).unwrap().1;
            service.takes(kind, value);
        }
        service.takes("hmac", HMAC);
        service.takes("sigv4", SIGV4);
        let mut rules = allow();
        rules.push(
            r#"id: bare, from: [prod/checkout, prod/report], to: "https://other.example.com", http: ["* /**"]"#
                .to_owned(),
        );
        rules.push(
            r#"id: bare-header, from: prod/report, to: "https://header.example.com", http: ["* /**"]"#.to_owned(),
        );
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        let here = |host: &String| format!(r#""https://{host}": {{addresses: [HERE], ca: CA}}"#);
        let destinations: Vec<String> = hosts.iter().map(here).collect();
        let destinations: Vec<&str> = destinations.iter().map(String::as_str).collect();
        service.scene.apply(&rules, &destinations, CREDENTIALS);
        service
    }

    /// Has it take that key from now on.
    pub(super) fn takes(&self, kind: &str, value: &str) {
        // A line about a key that it takes no more is answered so too.
        self.server.tell(&format!("{kind} {value}"), &format!("key {kind}"));
    }

    /// Puts a value on the host, as an operator does, and gives what that said.
    pub(super) fn put(&self, name: &str, value: &str) -> String {
        let told = self.try_put(name, value);
        assert!(told.contains(&format!("ok {name} is on this host")), "{told}");
        told
    }

    pub(super) fn try_put(&self, name: &str, value: &str) -> String {
        try_put(&self.scene, name, value)
    }

    /// The newest record of a call.
    pub(super) fn last_call(&self, filter: &str) -> Value {
        let calls = self.scene.host().query(&format!("kind=call {filter}"));
        calls.last().cloned().unwrap_or_else(|| panic!("no call: {filter}"))
    }

    /// Looks for the keys, in four forms, in everything that the mesh has written: state, ledgers, logs, metrics.
    pub(super) fn nobody_has_a_key(&self) {
        nobody_has_a_key(&self.scene);
    }
}

/// Puts a value on the host, and gives what that said.
pub(crate) fn try_put(scene: &Scene, name: &str, value: &str) -> String {
    both(&told(
        &["secret", "put", name, "--server", &scene.host().admin()],
        value,
    ))
}

/// Runs a command that reads a value from its standard input.
pub(super) fn told(words: &[&str], value: &str) -> Output {
    planted::plant(value);
    let mut command = botmesh();
    command.args(words);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    planted::none_in(&format!("{words:?}"), &[&out.stdout, &out.stderr]);
    out
}

/// Looks for the keys, in four forms, in everything that a mesh has written: state, ledgers, logs, metrics.
pub(crate) fn nobody_has_a_key(scene: &Scene) {
    nobody_wrote(scene, &KEYS);
}

/// The same for other keys.
pub(crate) fn nobody_wrote(scene: &Scene, keys: &[(&str, &str)]) {
    no_file_has(scene, keys);
    let (_, metrics) = crate::support::http_get(scene.host().ports.metrics, "/metrics").unwrap();
    none_in("metrics", metrics.as_bytes(), keys);
}

/// The same in files alone: state, ledgers, logs.
pub(super) fn no_file_has(scene: &Scene, keys: &[(&str, &str)]) {
    let mut files = vec![scene.mesh.dir().to_owned()];
    let mut looked = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.is_file() {
            none_in(&path.display().to_string(), &fs::read(&path).unwrap(), keys);
            looked += 1;
        }
    }
    assert!(looked > 10, "{looked} files");
}

/// Asserts that no key is in the bytes, as it is, in Base64, in hexadecimal or percent-encoded.
pub(crate) fn no_key_in(what: &str, bytes: &[u8]) {
    none_in(what, bytes, &KEYS);
}

/// The same for other keys.
pub(crate) fn none_in(what: &str, bytes: &[u8], keys: &[(&str, &str)]) {
    for (name, key) in keys {
        for form in planted::forms(key) {
            assert!(
                memchr::memmem::find(bytes, form.as_bytes()).is_none(),
                "{what} has {name} as {form}"
            );
        }
    }
}
