//! A real PostgreSQL, in which a vault makes roles.

use std::fs;

use crate::support::cluster::{self, Cluster};
use crate::support::{eventually, free_port};

/// The password of the vault at the server.
pub(super) const VAULT: &str = "vault-of-the-test-0001";

pub(super) struct Postgres {
    server: cluster::Postgres,
    /// Of its own; the port is the usual one.
    pub(super) address: String,
}

impl Postgres {
    pub(super) fn start() -> Self {
        let cluster = Cluster::new();
        let data = cluster.data();
        let hba = "local all all trust\nhost all all all scram-sha-256\n";
        fs::write(data.join("pg_hba.conf"), hba).unwrap();
        let [high, low] = free_port().to_be_bytes();
        let address = format!("127.97.{high}.{low}");
        let file = data.join("postgresql.conf");
        let own = fs::read_to_string(&file).unwrap();
        fs::write(file, format!("{own}listen_addresses = '{address}'\nfsync = off\n")).unwrap();
        let server = Self {
            server: cluster.start(),
            address,
        };
        server.admin(&format!("create role vault login createrole password '{VAULT}'"));
        server
    }

    /// Has the server do this, as its administrator, and gives what it says.
    pub(super) fn admin(&self, sql: &str) -> String {
        self.server.admin("postgres", sql)
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
