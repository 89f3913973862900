//! A real PostgreSQL: its files, made new, and its process.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};

use super::{Process, eventually, ok};

/// The programs of the newest PostgreSQL of this host.
pub(crate) fn programs() -> PathBuf {
    let mut found: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .expect("apt-get install postgresql")
        .map(|entry| entry.unwrap().path().join("bin"))
        .collect();
    found.sort();
    found.pop().expect("apt-get install postgresql")
}

/// The files of a server that has not started yet.
pub(crate) struct Cluster {
    dir: tempfile::TempDir,
    owner: User,
}

impl Cluster {
    /// Makes them, with `postgres` as administrator, who is believed at the socket.
    pub(crate) fn new() -> Self {
        let cluster = Self {
            dir: tempfile::Builder::new().prefix("bmpg").tempdir().unwrap(),
            owner: User::from_name("postgres")
                .unwrap()
                .expect("apt-get install postgresql"),
        };
        cluster.own(cluster.dir.path(), 0o755);
        let mut initdb = cluster.as_owner("initdb");
        initdb.args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8"]);
        ok(initdb.args(["--locale=C", "-D"]).arg(cluster.data()));
        cluster
    }

    /// Where its settings are.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Where its socket is to be.
    pub(crate) fn sockets(&self) -> &Path {
        self.dir.path()
    }

    /// Gives a file to the server.
    pub(crate) fn own(&self, path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        chown(path, Some(self.owner.uid.as_raw()), Some(self.owner.gid.as_raw())).unwrap();
    }

    fn as_owner(&self, program: &str) -> Command {
        let mut command = Command::new(programs().join(program));
        command.uid(self.owner.uid.as_raw()).gid(self.owner.gid.as_raw());
        command.current_dir("/");
        command
    }

    /// Starts the server by its settings, and waits until it answers.
    pub(crate) fn start(self) -> Postgres {
        let mut postgres = self.as_owner("postgres");
        postgres.arg("-D").arg(self.data()).arg("-k").arg(self.sockets());
        let process = Process::spawn(postgres, self.dir.path().join("log"));
        let server = Postgres { process, dir: self.dir };
        eventually("PostgreSQL to be ready", || {
            server.log().contains("ready to accept connections").then_some(())
        });
        server
    }
}

/// A server that runs, until this is dropped.
pub(crate) struct Postgres {
    process: Process,
    dir: tempfile::TempDir,
}

impl Postgres {
    /// Has it do this, as its administrator, and gives what it says.
    pub(crate) fn admin(&self, database: &str, sql: &str) -> String {
        let mut psql = Command::new(programs().join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres"]);
        psql.arg("-h").arg(self.dir.path());
        ok(psql.args(["-d", database, "-c", sql])).trim().to_owned()
    }

    pub(crate) fn log(&self) -> String {
        self.process.log()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // An immediate end, after which nothing of it is left.
        let pid = Pid::from_raw(i32::try_from(self.process.child.id()).unwrap());
        kill(pid, Signal::SIGQUIT).ok();
        self.process.child.wait().ok();
    }
}
