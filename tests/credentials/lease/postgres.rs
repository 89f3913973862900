//! A real PostgreSQL, in which a vault makes roles.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use nix::unistd::User;

use crate::databases::server::programs;
use crate::support::{Process, eventually, free_port, ok};

/// The password of the vault at the server.
pub(super) const VAULT: &str = "vault-of-the-test-0001";

pub(super) struct Postgres {
    process: Process,
    /// Of its own; the port is the usual one.
    pub(super) address: String,
    dir: tempfile::TempDir,
}

impl Postgres {
    pub(super) fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("bmpg").tempdir().unwrap();
        let owner = User::from_name("postgres")
            .unwrap()
            .expect("apt-get install postgresql");
        let (uid, gid) = (owner.uid.as_raw(), owner.gid.as_raw());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        chown(dir.path(), Some(uid), Some(gid)).unwrap();
        let data = dir.path().join("data");
        let as_owner = |program: &str| {
            let mut command = Command::new(programs().join(program));
            command.uid(uid).gid(gid).current_dir("/");
            command
        };
        let mut initdb = as_owner("initdb");
        initdb.args([
            "--no-sync",
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C",
            "-D",
        ]);
        ok(initdb.arg(&data));
        fs::write(
            data.join("pg_hba.conf"),
            "local all all trust\nhost all all all scram-sha-256\n",
        )
        .unwrap();
        let [high, low] = free_port().to_be_bytes();
        let address = format!("127.97.{high}.{low}");
        let mut postgres = as_owner("postgres");
        postgres.arg("-D").arg(&data).arg("-k").arg(dir.path());
        postgres.args(["-c", &format!("listen_addresses={address}"), "-c", "fsync=off"]);
        let process = Process::spawn(postgres, dir.path().join("log"));
        let server = Self { process, address, dir };
        eventually("PostgreSQL to be ready", || {
            server
                .process
                .log()
                .contains("ready to accept connections")
                .then_some(())
        });
        server.admin(&format!("create role vault login createrole password '{VAULT}'"));
        server
    }

    fn socket(&self) -> &Path {
        self.dir.path()
    }

    /// Has the server do this, as its administrator, and gives what it says.
    pub(super) fn admin(&self, sql: &str) -> String {
        let mut psql = Command::new(programs().join("psql"));
        psql.args([
            "-X", "-q", "-A", "-t", "-U", "postgres", "-d", "postgres", "-c", sql, "-h",
        ]);
        ok(psql.arg(self.socket())).trim().to_owned()
    }

    /// The roles that the vault has made and not dropped.
    pub(super) fn roles(&self) -> Vec<String> {
        let told = self.admin("select rolname from pg_roles where rolname like 'v-%' order by 1");
        told.lines().map(ToOwned::to_owned).collect()
    }

    /// Waits until there are so many.
    pub(super) fn has(&self, count: usize) {
        eventually(&format!("{count} roles"), || {
            (self.roles().len() == count).then_some(())
        });
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // An immediate end, after which nothing of it is left.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.process.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGQUIT).ok();
        self.process.child.wait().ok();
    }
}
