//! What the CA says, where it runs on this machine.

use std::path::Path;

use anyhow::Result;
use ca_api::admin::{CaStatus, HostList, path};
use spiffe::time::Timestamp;

use super::{Looks, federation, files, mesh};
use crate::cli::Context;
use crate::client::Server;

const PART: &str = "ca";

/// How long before its end the root is a finding: hosts need to be given another one in time.
const ROOT_LEFT_SECONDS_MIN: i64 = 30 * 24 * 60 * 60;

/// Looks at the CA.
///
/// # Errors
///
/// When it does not answer; nothing was looked at then.
pub(super) async fn look(server: &Server, context: &Context, looks: &mut Looks) -> Result<()> {
    let status: CaStatus = server.get(path::STATUS).await?;
    let hosts: HostList = server.get(path::HOSTS).await?;
    judge(&status, &hosts, context.clock.now(), looks);
    mesh::look(server, context.clock.now(), looks).await;
    if let Some(state) = Path::new(&status.ledger).parent() {
        kept(state, server.socket(), looks);
    }
    Ok(())
}

fn judge(status: &CaStatus, hosts: &HostList, now: Timestamp, looks: &mut Looks) {
    looks.ok(
        PART,
        "answers",
        format!(
            "{} of {}, version {}",
            status.server, status.trust_domain, status.version
        ),
    );
    looks.clock(PART, status.now, now);
    let left = status.root_not_after.unix_seconds().saturating_sub(now.unix_seconds());
    if left < ROOT_LEFT_SECONDS_MIN {
        looks.finding(
            PART,
            "root",
            format!("ends at {}", status.root_not_after),
            "this version does not rotate the root: make another CA and let the hosts join it before that",
        );
    } else {
        looks.ok(PART, "root", format!("until {}", status.root_not_after));
    }
    for host in hosts.hosts.iter().filter(|host| host.state == "joined") {
        let what = format!("host {}", host.host);
        if !host.connected {
            let seen = format!("not connected, last seen {}", host.last_seen);
            looks.finding(
                PART,
                what,
                seen,
                "botmesh check on that host; botmesh host evict HOST if it is gone for good",
            );
        } else if host.applied != Some(status.generation) && status.generation.revision > 0 {
            let at = host.applied.map_or_else(|| "nothing".to_owned(), |at| at.to_string());
            let seen = format!("enforces {at}, live is {}", status.generation);
            looks.finding(PART, what, seen, "botmesh proxy status on that host says why");
        } else {
            looks.ok(PART, what, "connected and up to date");
        }
    }
    if let Some(status) = &status.federation {
        federation::judge(status, now, looks);
    }
    for note in &status.notes {
        let todo = if note.contains("key") {
            "back the state folder up encrypted, and let nobody else read it"
        } else {
            ""
        };
        looks.note(PART, "note", note, todo);
    }
}

/// Looks at the folders of state and of the socket. Both belong to the CA's own user.
fn kept(state: &Path, socket: &Path, looks: &mut Looks) {
    let Some(uid) = files::owner(state) else {
        looks.untried(
            PART,
            "state folder",
            format!("{} cannot be looked at from here", state.display()),
        );
        return;
    };
    files::private_folder(PART, state, uid, looks);
    files::secrets(PART, state, looks);
    files::secrets(PART, &state.join("keys"), looks);
    // The default path is a link to where the CA's own user may make it.
    let real = std::fs::canonicalize(socket).unwrap_or_else(|_gone| socket.to_owned());
    if let Some(folder) = real.parent() {
        files::socket_folder(PART, folder, uid, looks);
    }
}

#[cfg(test)]
mod tests {
    use ca_api::Generation;
    use ca_api::admin::Host;
    use spiffe::id::{HostName, TrustDomain};

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    fn findings(change: impl FnOnce(&mut CaStatus, &mut Host)) -> usize {
        let live = Generation { epoch: 1, revision: 7 };
        let mut status = CaStatus {
            trust_domain: TrustDomain::parse("acme.internal").unwrap(),
            server: HostName::parse("ca-1").unwrap(),
            version: String::new(),
            now: at(NOW),
            started: at(NOW),
            generation: live,
            root_not_after: at(NOW + 365 * 24 * 3_600),
            root_pin: String::new(),
            node_api: String::new(),
            dashboard: String::new(),
            hosts: 1,
            hosts_connected: 1,
            bots: 0,
            issued: 0,
            quarantines: 0,
            refused: 0,
            federation: None,
            ledger: String::new(),
            notes: vec!["a key in a file".to_owned()],
        };
        let mut host = Host {
            host: HostName::parse("web-1").unwrap(),
            state: "joined".to_owned(),
            connected: true,
            serial: String::new(),
            not_after: at(NOW),
            joined: at(NOW),
            last_seen: at(NOW),
            advertise: None,
            applied: Some(live),
            failed: None,
            connected_since: None,
            source: None,
            features: Vec::new(),
            quarantined: false,
            alerts: Vec::new(),
        };
        change(&mut status, &mut host);
        let mut looks = Looks::default();
        judge(&status, &HostList { hosts: vec![host] }, at(NOW), &mut looks);
        looks.findings()
    }

    #[test]
    fn a_host_that_is_away_or_behind_and_a_root_that_ends_soon_are_findings() {
        assert_eq!(findings(|_, _| ()), 0);
        assert_eq!(findings(|_, host| host.connected = false), 1);
        assert_eq!(findings(|_, host| host.applied = None), 1);
        assert_eq!(findings(|status, _| status.root_not_after = at(NOW + 24 * 3_600)), 1);
        assert_eq!(findings(|status, _| status.now = at(NOW - 60)), 1);
        let evicted = |_: &mut CaStatus, host: &mut Host| {
            host.state = "evicted".to_owned();
            host.connected = false;
        };
        assert_eq!(findings(evicted), 0);
    }
}
