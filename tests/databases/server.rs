//! A real PostgreSQL, on an address of the test's own, with TLS and an authority for clients.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::foreign::joined;
use crate::outside::scene::Scene;
use crate::spine::{CHECKOUT, REPORT};
use crate::support::PROXY_USER;
use crate::support::cluster::{Cluster, Postgres, programs};
use crate::support::join::write_roots;

/// Who may, and how that is proved. The first line that fits counts.
const HBA: &str = "local all postgres trust
hostssl all orders_rw all scram-sha-256
hostssl all checkout_rw all cert map=bots
hostssl all anybody all trust
hostssl all old all md5
hostssl all plain all password
hostssl all vault all scram-sha-256
hostssl all +leased all scram-sha-256
";

pub(super) const NAME: &str = "postgres://db.example.com";

pub(super) struct Server {
    postgres: Postgres,
    pub(super) scene: Scene,
    sockets: tempfile::TempDir,
}

impl Server {
    /// Starts a mesh with a listener that leads to the server, and the server.
    pub(super) fn start() -> Self {
        Self::start_with("")
    }

    /// The same, with this configuration of the proxy beside the ordinary one.
    pub(super) fn start_with(config: &str) -> Self {
        let (scene, sockets) = scene_with(config);
        let cluster = Cluster::new();
        // Clients of the mesh are known by its root, and the server by the scene's authority.
        let roots = write_roots(scene.mesh.dir(), joined(&scene.mesh).bundle());
        let server = scene.certificate(5432, &["db.example.com"]);
        for (from, to, mode) in [
            (roots.display().to_string(), "roots.pem", 0o644),
            (server, "server.pem", 0o600),
        ] {
            let to = cluster.data().join(to);
            fs::copy(from, &to).unwrap();
            cluster.own(&to, mode);
        }
        configure(&cluster.data(), &scene.address);
        Self {
            postgres: cluster.start(),
            scene,
            sockets,
        }
    }

    /// Has the server do this, as its administrator, and gives what it says.
    pub(super) fn admin(&self, database: &str, sql: &str) -> String {
        self.postgres.admin(database, sql)
    }

    pub(super) fn log(&self) -> String {
        self.postgres.log()
    }

    /// Port of the listener.
    pub(super) fn port(&self) -> String {
        port_of(&self.scene)
    }

    /// The folder of the socket that leads to the database.
    pub(super) fn sockets(&self) -> &Path {
        self.sockets.path()
    }

    /// What `psql` of a user of this host says, with the words after the statement as parts of the connection string.
    pub(super) fn psql(&self, uid: u32, database: &str, sql: &str, more: &str) -> String {
        psql(&self.port(), uid, database, sql, more)
    }

    pub(super) fn checkout(&self, database: &str, sql: &str) -> String {
        self.psql(CHECKOUT, database, sql, "")
    }

    pub(super) fn report(&self, database: &str, sql: &str) -> String {
        self.psql(REPORT, database, sql, "")
    }
}

/// A mesh whose host leads to the server at a port and at a socket, and the folder of that.
fn scene_with(config: &str) -> (Scene, tempfile::TempDir) {
    let sockets = tempfile::Builder::new().prefix("bmpgs").tempdir().unwrap();
    chown(sockets.path(), Some(PROXY_USER), None).unwrap();
    fs::set_permissions(sockets.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let socket = sockets.path().join(".s.PGSQL.5432");
    let ways = ["127.0.0.1:0".to_owned(), format!("unix:{}", socket.display())];
    let listeners = ways.map(|way| format!("{{listen: {way:?}, to: {NAME:?}}}"));
    let scene = Scene::with_config(&listeners.join(", "), config);
    scene.names(&[(&scene.address, "db.example.com")]);
    (scene, sockets)
}

/// Port of the listener that leads to the database.
pub(super) fn port_of(scene: &Scene) -> String {
    let listener = scene.listener(NAME);
    listener.rsplit_once(':').unwrap().1.to_owned()
}

/// What `psql` of a user of this host says, at a port of this host.
pub(super) fn psql(port: &str, uid: u32, database: &str, sql: &str, more: &str) -> String {
    let mut psql = Command::new(programs().join("psql"));
    psql.uid(uid).gid(uid).current_dir("/").env_clear();
    psql.stdin(Stdio::null());
    let dsn = format!("host=127.0.0.1 port={port} user=nobody dbname={database} {more}");
    psql.args(["-X", "-q", "-A", "-t", "-w", "-c", sql, &dsn]);
    crate::support::both(&psql.output().unwrap())
}

/// Says where it listens, whom it believes, and what it writes down.
fn configure(data: &Path, address: &str) {
    let settings = format!(
        "listen_addresses = '{address}'\nport = 5432\nssl = on\nfsync = off\n\
         ssl_cert_file = 'server.pem'\nssl_key_file = 'server.pem'\nssl_ca_file = 'roots.pem'\n\
         log_statement = 'all'\nlog_connections = on\n"
    );
    let file = data.join("postgresql.conf");
    let own = fs::read_to_string(&file).unwrap();
    fs::write(file, own + &settings).unwrap();
    fs::write(data.join("pg_hba.conf"), HBA).unwrap();
    let map = "bots spiffe://acme.internal/prod/checkout checkout_rw\n";
    fs::write(data.join("pg_ident.conf"), map).unwrap();
}
