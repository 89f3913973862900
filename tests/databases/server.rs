//! A real PostgreSQL, on an address of the test's own, with TLS and an authority for clients.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::User;

use crate::foreign::joined;
use crate::outside::scene::Scene;
use crate::spine::{CHECKOUT, REPORT};
use crate::support::join::write_roots;
use crate::support::{PROXY_USER, Process, eventually, ok};

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

/// The programs of the newest PostgreSQL of this host.
pub(crate) fn programs() -> PathBuf {
    let mut found: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .expect("apt-get install postgresql")
        .map(|entry| entry.unwrap().path().join("bin"))
        .collect();
    found.sort();
    found.pop().expect("apt-get install postgresql")
}

pub(super) struct Server {
    process: Process,
    pub(super) scene: Scene,
    dir: tempfile::TempDir,
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
        let dir = tempfile::Builder::new().prefix("bmpg").tempdir().unwrap();
        let owner = User::from_name("postgres")
            .unwrap()
            .expect("apt-get install postgresql");
        let own = |path: &Path, mode: u32| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw())).unwrap();
        };
        own(dir.path(), 0o755);
        let data = dir.path().join("data");
        let mut initdb = Command::new(programs().join("initdb"));
        initdb.uid(owner.uid.as_raw()).gid(owner.gid.as_raw()).current_dir("/");
        initdb.args([
            "--no-sync",
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C",
            "-D",
        ]);
        ok(initdb.arg(&data));
        // Clients of the mesh are known by its root, and the server by the scene's authority.
        let roots = write_roots(scene.mesh.dir(), joined(&scene.mesh).bundle());
        let server = scene.certificate(5432, &["db.example.com"]);
        for (from, to, mode) in [
            (roots.display().to_string(), "roots.pem", 0o644),
            (server.clone(), "server.pem", 0o600),
        ] {
            let to = data.join(to);
            fs::copy(from, &to).unwrap();
            own(&to, mode);
        }
        configure(&data, &scene.address, dir.path());
        let mut postgres = Command::new(programs().join("postgres"));
        postgres
            .uid(owner.uid.as_raw())
            .gid(owner.gid.as_raw())
            .current_dir("/");
        postgres.arg("-D").arg(&data);
        let process = Process::spawn(postgres, scene.mesh.dir().join("postgres-server.out"));
        let server = Self {
            scene,
            process,
            dir,
            sockets,
        };
        eventually("the server to be ready", || {
            server
                .process
                .log()
                .contains("ready to accept connections")
                .then_some(())
        });
        server
    }

    /// Has the server do this, as its administrator, and gives what it says.
    pub(super) fn admin(&self, database: &str, sql: &str) -> String {
        let mut psql = Command::new(programs().join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres"]);
        psql.arg("-h").arg(self.dir.path());
        ok(psql.args(["-d", database, "-c", sql])).trim().to_owned()
    }

    pub(super) fn log(&self) -> String {
        self.process.log()
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
fn configure(data: &Path, address: &str, sockets: &Path) {
    let settings = format!(
        "listen_addresses = '{address}'\nport = 5432\nunix_socket_directories = '{}'\nssl = on\nfsync = off\n\
         ssl_cert_file = 'server.pem'\nssl_key_file = 'server.pem'\nssl_ca_file = 'roots.pem'\n\
         log_statement = 'all'\nlog_connections = on\n",
        sockets.display(),
    );
    let file = data.join("postgresql.conf");
    let own = fs::read_to_string(&file).unwrap();
    fs::write(file, own + &settings).unwrap();
    fs::write(data.join("pg_hba.conf"), HBA).unwrap();
    let map = "bots spiffe://acme.internal/prod/checkout checkout_rw\n";
    fs::write(data.join("pg_ident.conf"), map).unwrap();
}

impl Drop for Server {
    fn drop(&mut self) {
        // An immediate end, after which nothing of it is left.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.process.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGQUIT).ok();
        self.process.child.wait().ok();
    }
}
