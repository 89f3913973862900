//! Leases: roles that a real OpenBao makes in a real PostgreSQL, one for each process of a bot, and drops with it.

mod postgres;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::vault::bao::{Bao, program};
use crate::outside::scene::Scene;
use crate::spine::{CHECKOUT, REPORT};
use crate::support::cluster::programs;
use crate::support::{Caller, PYTHON, Process, as_user, both, botmesh, eventually, http_get, ok, root_or_skip, run};
use postgres::{Postgres, VAULT};

const HOST: &str = "db.example.com";

const CREDENTIALS: &str = "credentials:
  db: {basic: whoever, owner: shop@acme.internal, shared: each process has its own}
";

const RULE: &str =
    r#"id: db, from: [prod/checkout, prod/report], to: "https://db.example.com", http: ["* /**"], inject: db"#;

/// What hosts may do at the vault, as README has it.
const POLICY: &str = r#"path "database/creds/*" { capabilities = ["read"] }
path "sys/leases/revoke" { capabilities = ["update"] }"#;

/// A mesh whose bots call a service that logs in to the database as whoever they are.
struct Stage {
    scene: Scene,
    bao: Bao,
    postgres: Postgres,
    _service: Process,
}

impl Stage {
    fn start() -> Option<Self> {
        if !root_or_skip("leases") {
            return None;
        }
        let mut bao = Bao::new(program()?);
        let config = bao.config("{cert: {role: hosts}}", "{db: {vault: {lease: database/creds/shop}}}");
        let scene = Scene::with_config("", &config);
        bao.start(&scene);
        let postgres = Postgres::start();
        bao.ask("POST", "sys/mounts/database", &json!({"type": "database"}));
        let database = json!({
            "plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "username": "vault", "password": VAULT,
            "connection_url": format!("postgresql://{{{{username}}}}:{{{{password}}}}@{}/postgres?sslmode=disable", postgres.address),
        });
        bao.ask("POST", "database/config/shop", &database);
        let stage = Self {
            _service: service(&scene, &postgres),
            scene,
            bao,
            postgres,
        };
        stage.allows(POLICY);
        stage.lives("1h", "24h");
        stage.apply(&[RULE]);
        Some(stage)
    }

    /// Sets how long a role lives at first, and at most.
    fn lives(&self, ttl: &str, max: &str) {
        let sql = r#"CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"#;
        let role = json!({"db_name": "shop", "default_ttl": ttl, "max_ttl": max, "creation_statements": [sql]});
        self.bao.ask("POST", "database/roles/shop", &role);
    }

    fn allows(&self, policy: &str) {
        self.bao
            .ask("PUT", "sys/policies/acl/hosts", &json!({"policy": policy}));
    }

    fn apply(&self, rules: &[&str]) {
        let here = format!(r#""https://{HOST}": {{addresses: [HERE], ca: CA}}"#);
        self.scene.apply(rules, &[&here], CREDENTIALS);
    }

    fn bot(&self, uid: u32) -> Caller {
        Caller::new(uid, &self.scene.host().bot_socket())
    }

    /// As whom the database saw a bot.
    fn role(&self, bot: &mut Caller) -> String {
        let answer = bot.call("GET", HOST, "/");
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    fn secret(&self, words: &[&str]) -> String {
        let admin = self.scene.host().admin();
        both(&run(botmesh().arg("secret").args(words).args(["--server", &admin])))
    }

    fn ready(&self) -> String {
        http_get(self.scene.host().ports.metrics, "/readyz").unwrap().1
    }
}

fn service(scene: &Scene, postgres: &Postgres) -> Process {
    scene.names(&[(&scene.address, HOST)]);
    let pem = scene.certificate(443, &[HOST]);
    let mut python = Command::new(PYTHON);
    let psql = programs().join("psql").display().to_string();
    python.args([
        "-c",
        include_str!("../support/database_service.py"),
        &scene.address,
        "443",
        &pem,
    ]);
    python.args([&psql, &postgres.address]);
    let process = Process::spawn(python, scene.mesh.dir().join("database_service.out"));
    eventually("the service to listen", || {
        process.log().starts_with("ready").then_some(())
    });
    process
}

#[test]
fn a_role_exists_only_while_the_process_of_the_bot_does() {
    let Some(mut stage) = Stage::start() else { return };
    assert_eq!(stage.postgres.roles(), [""; 0]);
    let (mut first, mut second) = (stage.bot(CHECKOUT), stage.bot(CHECKOUT));
    let role = stage.role(&mut first);
    assert!(role.starts_with("v-"), "{role}");
    assert_eq!(stage.role(&mut first), role, "a process keeps its own");
    let other = stage.role(&mut second);
    let mut report = stage.bot(REPORT);
    let third = stage.role(&mut report);
    let all: BTreeSet<&String> = [&role, &other, &third].into();
    assert_eq!(all.len(), 3, "no process has that of another, and no bot: {all:?}");
    assert_eq!(stage.postgres.roles().len(), 3);
    let listed = stage.secret(&["list"]);
    let line = listed.lines().find(|line| line.starts_with("db")).unwrap();
    assert!(
        line.contains("dynamic") && line.contains("in use by 3 processes"),
        "{listed}"
    );
    let (_, metrics) = http_get(stage.scene.host().ports.metrics, "/metrics").unwrap();
    assert!(
        metrics.contains(r#"botmesh_credential_leases{credential="db"} 3"#),
        "{metrics}"
    );
    let file = stage.scene.host().dir.join("leases.json");
    let noted = fs::read_to_string(&file).unwrap();
    assert_eq!(noted.matches("database/creds/shop/").count(), 3, "{noted}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // kill -9
    drop(first);
    let killed = Instant::now();
    stage.postgres.has(2);
    println!("the role was gone {:?} after its process", killed.elapsed());
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    assert!(!stage.postgres.roles().contains(&role));
    assert_eq!(stage.role(&mut second), other);
    // The proxy stops, and gives everything back.
    stage.scene.mesh.host_mut("web-1").process.terminate();
    assert_eq!(stage.postgres.roles(), [""; 0]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "[]");
    assert_eq!(stage.bao.tokens(), 0);
    let events = stage.scene.host().query("kind=credential_lease");
    let told = |step: &str| {
        let of = events.iter().filter(|event| event["detail"]["step"] == step);
        let mut bots: Vec<&str> = of
            .inspect(|event| {
                assert_eq!(
                    (&event["subject"], &event["detail"]["result"]),
                    (&json!("credential:db"), &json!("ok"))
                )
            })
            .filter_map(|event| event["detail"]["bot"].as_str())
            .collect();
        bots.sort_unstable();
        bots
    };
    let all = ["prod/checkout", "prod/checkout", "prod/report"];
    assert_eq!(
        (told("taken"), told("given_back")),
        (all.to_vec(), all.to_vec()),
        "{events:?}"
    );
}

#[test]
fn a_process_that_becomes_another_program_has_its_role_no_more() {
    let Some(stage) = Stage::start() else { return };
    let mut command = as_user(PYTHON, CHECKOUT);
    let socket = stage.scene.host().dir.join("bot.sock").display().to_string();
    command.args(["-c", include_str!("../support/exec.py"), &socket, HOST]);
    let mut bot = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    stage.postgres.has(1);
    writeln!(bot.stdin.take().unwrap()).unwrap();
    stage.postgres.has(0);
    assert!(bot.try_wait().unwrap().is_none(), "it lives on");
    bot.kill().unwrap();
    bot.wait().unwrap();
}

#[test]
fn a_role_goes_with_the_right_to_it() {
    let Some(stage) = Stage::start() else { return };
    let mut bot = stage.bot(CHECKOUT);
    let role = stage.role(&mut bot);
    let other = RULE.replace("[prod/checkout, prod/report]", "prod/report");
    stage.apply(&[&other]);
    stage.postgres.has(0);
    stage.apply(&[RULE]);
    assert_ne!(stage.role(&mut bot), role, "a new right is a new role");
    let ca = stage.scene.mesh.server();
    ok(botmesh().args(["quarantine", "prod/checkout", "--reason", "test", "--server", &ca]));
    stage.postgres.has(0);
    assert_eq!(bot.call("GET", HOST, "/").reason(), "quarantined");
}

#[test]
fn what_a_crash_of_the_proxy_left_is_given_back_at_the_next_start() {
    let Some(mut stage) = Stage::start() else { return };
    let mut bot = stage.bot(CHECKOUT);
    let role = stage.role(&mut bot);
    stage.scene.mesh.host_mut("web-1").process.kill();
    assert_eq!(
        stage.postgres.roles(),
        std::slice::from_ref(&role),
        "nobody could give it back"
    );
    stage.scene.mesh.restart("web-1");
    stage.postgres.has(0);
    let file = stage.scene.host().dir.join("leases.json");
    eventually("the file to forget it", || {
        (fs::read_to_string(&file).unwrap() == "[]").then_some(())
    });
    // The bot lives on, and gets another one.
    let mut bot = stage.bot(CHECKOUT);
    let next = eventually("the proxy to carry calls", || {
        let order = json!({"method": "GET", "target": "/", "headers": [["Host", HOST]]});
        bot.order(&order).ok().filter(|answer| answer.status == 200)
    });
    assert_ne!(next.body, role);
}

#[test]
fn a_role_that_is_not_dropped_is_said_and_tried_again() {
    let Some(stage) = Stage::start() else { return };
    let mut bot = stage.bot(CHECKOUT);
    stage.role(&mut bot);
    stage.allows(r#"path "database/creds/*" { capabilities = ["read"] }"#);
    drop(bot);
    let said = eventually("a note", || {
        Some(stage.ready()).filter(|ready| ready.contains("leases"))
    });
    assert!(
        said.contains("note: vault main has not taken back all leases, 1 of them, and is asked again: revoke a lease"),
        "{said}"
    );
    let needs = r#"needs `path "sys/leases/revoke" { capabilities = ["update"] }`"#;
    assert!(said.contains(needs), "{said}");
    assert_eq!(stage.postgres.roles().len(), 1);
    stage.allows(POLICY);
    stage.postgres.has(0);
    eventually("no note", || (!stage.ready().contains("leases")).then_some(()));
}

#[test]
fn a_role_lives_on_while_it_is_used_and_is_followed_by_another_where_it_may_not() {
    let Some(stage) = Stage::start() else { return };
    stage.lives("2s", "1h");
    let mut bot = stage.bot(CHECKOUT);
    let role = stage.role(&mut bot);
    let begun = Instant::now();
    eventually("twice its time", || {
        assert_eq!(stage.role(&mut bot), role, "after {:?}", begun.elapsed());
        (begun.elapsed() > Duration::from_secs(4)).then_some(())
    });
    // Nobody uses it, and its process lives.
    stage.postgres.has(0);
    stage.lives("2s", "3s");
    let (begun, mut roles) = (Instant::now(), BTreeSet::new());
    eventually("twice its longest time", || {
        roles.insert(stage.role(&mut bot));
        (begun.elapsed() > Duration::from_secs(6)).then_some(())
    });
    assert!((2..=6).contains(&roles.len()), "{roles:?}");
    drop(bot);
    stage.postgres.has(0);
}

#[test]
fn a_database_that_is_away_is_told_and_an_operator_tries_a_role_without_a_bot() {
    let Some(stage) = Stage::start() else { return };
    assert_eq!(
        stage.secret(&["test", "db"]).trim(),
        "ok db: one was made by vault and given back"
    );
    stage.postgres.has(0);
    stage.postgres.admin("alter role vault nocreaterole");
    let mut bot = stage.bot(CHECKOUT);
    let answer = bot.call("GET", HOST, "/");
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (503, "credential_unavailable"),
        "{}",
        answer.body
    );
    let told = stage.secret(&["list"]);
    assert!(
        told.contains("read database/creds/shop of vault main at https://"),
        "{told}"
    );
    assert!(
        told.contains("it answers 500 Internal Server Error: its log says why"),
        "{told}"
    );
    stage.postgres.admin("alter role vault createrole");
    eventually("the role", || (bot.call("GET", HOST, "/").status == 200).then_some(()));
}
