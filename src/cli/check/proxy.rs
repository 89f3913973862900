//! What the proxy of this host says of itself and of its bots.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use ca_api::proxy_admin::{BotsResponse, Doctor, LocalQuarantines, ProxyStatus, path};
use spiffe::time::Timestamp;

use super::{Looks, doctor, files, guard, listeners, privileges, tries};
use crate::cli::Context;
use crate::client::Server;

const PART: &str = "proxy";

/// How long the proxy may look: at each port of its bots, and at its CA.
const DOCTOR_TIMEOUT: Duration = Duration::from_secs(45);

/// Looks at the proxy.
///
/// # Errors
///
/// When it does not answer; nothing was looked at then.
pub(super) async fn look(server: &Server, context: &Context, looks: &mut Looks) -> Result<()> {
    let status: ProxyStatus = server.get(path::STATUS).await?;
    let bots: BotsResponse = server.get(path::BOTS).await?;
    judge(&status, context.clock.now(), looks);
    judge_bots(&bots, looks);
    privileges::look(&status, looks);
    kept(&status, looks);
    let cut_off: LocalQuarantines = server.get(path::QUARANTINES).await?;
    doctor::quarantines(&cut_off, looks);
    tries::certless(&status, &bots, looks).await;
    tries::wrong_uid(&status, &bots, looks).await;
    // A proxy of an earlier version does not know the question.
    match server.get_within::<Doctor>(path::DOCTOR, DOCTOR_TIMEOUT).await {
        Ok(told) => doctor::judge(&told, looks),
        Err(error) => looks.untried(PART, "what only the proxy can try", format!("{error:#}")),
    }
    guard::open_ports(&bots, looks).await;
    listeners::look(&bots, looks);
    Ok(())
}

fn judge(status: &ProxyStatus, now: Timestamp, looks: &mut Looks) {
    looks.ok(
        PART,
        "answers",
        format!("{} of {}, version {}", status.host, status.trust_domain, status.version),
    );
    if status.same_user {
        looks.finding(
            PART,
            "identity",
            "same-user mode: identities among processes of one user are a convenience, not a boundary",
            "run the proxy as root: deploy/install.sh proxy, systemctl enable --now botmesh-proxy",
        );
    } else {
        looks.ok(PART, "identity", "it can look into every user's processes");
    }
    if status.uid == Some(0) {
        looks.finding(
            PART,
            "user",
            "it runs as root: what reads strangers' requests may do everything on this host",
            "deploy/install.sh proxy makes the user botmesh; take `user: root` out of proxy.yaml and restart the proxy",
        );
    }
    if status.ca_connected {
        looks.ok(PART, "CA", "connected");
    } else {
        let heard = status.ca_heard.map_or_else(|| "never".to_owned(), |at| at.to_string());
        looks.finding(
            PART,
            "CA",
            format!("not connected; last heard: {heard}"),
            "is the CA up, can this host reach ca.addresses, and was it evicted? Calls end when SVIDs do",
        );
    }
    looks.clock(PART, status.now, now);
    match status.node_svid_not_after {
        Some(end) if end > now => looks.ok(PART, "node SVID", format!("until {end}")),
        ended => {
            let seen = ended.map_or_else(|| "none".to_owned(), |end| format!("ended at {end}"));
            looks.finding(
                PART,
                "node SVID",
                seen,
                "botmesh host token HOST on the CA's host, then join again",
            );
        }
    }
    for missing in &status.not_ready {
        looks.finding(PART, "ready", missing, "calls of this host are refused until it is");
    }
    for note in &status.notes {
        looks.note(PART, "note", note, "");
    }
}

fn judge_bots(bots: &BotsResponse, looks: &mut Looks) {
    for bot in bots.bots.iter().filter(|bot| !bot.ready) {
        let seen = if bot.notes.is_empty() {
            "no valid SVID".to_owned()
        } else {
            format!("no valid SVID; {}", bot.notes.join("; "))
        };
        looks.finding(
            PART,
            format!("bot {}", bot.bot),
            seen,
            format!("botmesh bot show {}", bot.bot),
        );
    }
    let ready = bots.bots.iter().filter(|bot| bot.ready).count();
    looks.ok(PART, "bots", format!("{ready} of {} have an SVID", bots.bots.len()));
}

/// Looks at the folders of sockets and of state.
fn kept(status: &ProxyStatus, looks: &mut Looks) {
    let uid = status.uid.unwrap_or(0);
    let sockets = status.listeners.values().filter_map(|at| at.strip_prefix("unix:"));
    let folders: BTreeSet<&Path> = sockets.filter_map(|socket| Path::new(socket).parent()).collect();
    for folder in folders {
        files::socket_folder(PART, folder, uid, looks);
    }
    let Some(state) = status.state_dir.as_deref().map(Path::new) else {
        looks.untried(
            PART,
            "state folder",
            "the proxy is of an earlier version and does not say where it is",
        );
        return;
    };
    files::private_folder(PART, state, uid, looks);
    files::secrets(PART, state, looks);
    files::secrets(PART, &state.join("svids"), looks);
    if state.join("node.json").exists() {
        looks.note(
            PART,
            "keys on disk",
            format!("the host's key, and bots' keys while their SVIDs last, are files of mode 0600 in {}, not sealed to this machine", state.display()),
            "encrypt the disk, leave the folder out of backups, and evict a host whose disk was copied",
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ca_api::proxy_admin::BotStatus;
    use spiffe::id::{BotName, HostName, TrustDomain};

    use super::*;

    fn healthy(now: Timestamp) -> ProxyStatus {
        ProxyStatus {
            trust_domain: TrustDomain::parse("acme.internal").unwrap(),
            host: HostName::parse("web-1").unwrap(),
            version: "0".to_owned(),
            now,
            ready: true,
            not_ready: Vec::new(),
            ca_connected: true,
            ca_heard: Some(now),
            generation: None,
            node_svid_not_after: Some(Timestamp::from_unix_seconds(2_000)),
            same_user: false,
            listeners: BTreeMap::new(),
            ledger: String::new(),
            uid: Some(998),
            state_dir: None,
            pid: None,
            calls: None,
            notes: Vec::new(),
        }
    }

    fn findings(change: impl FnOnce(&mut ProxyStatus)) -> Vec<String> {
        let now = Timestamp::from_unix_seconds(1_000);
        let mut status = healthy(now);
        change(&mut status);
        let mut looks = Looks::default();
        judge(&status, now, &mut looks);
        let found = looks
            .0
            .into_iter()
            .filter(|look| look.state == super::super::State::Finding);
        found.map(|look| look.what).collect()
    }

    #[test]
    fn each_thing_that_is_wrong_is_one_finding() {
        assert!(findings(|_| ()).is_empty());
        assert_eq!(findings(|status| status.same_user = true), ["identity"]);
        assert_eq!(findings(|status| status.uid = Some(0)), ["user"]);
        assert_eq!(findings(|status| status.ca_connected = false), ["CA"]);
        assert_eq!(
            findings(|status| status.now = Timestamp::from_unix_seconds(1_100)),
            ["clock"]
        );
        assert_eq!(findings(|status| status.node_svid_not_after = None), ["node SVID"]);
        let ended = Some(Timestamp::from_unix_seconds(999));
        assert_eq!(findings(|status| status.node_svid_not_after = ended), ["node SVID"]);
        assert_eq!(
            findings(|status| status.not_ready.push("no policy".to_owned())),
            ["ready"]
        );
        assert!(findings(|status| status.notes.push("x".to_owned())).is_empty());
    }

    #[test]
    fn a_bot_without_an_svid_is_a_finding() {
        let bot = |ready| BotStatus {
            bot: BotName::parse("prod/orders").unwrap(),
            id: String::new(),
            ready,
            serial: None,
            not_after: None,
            serves: None,
            open_ports: Vec::new(),
            notes: Vec::new(),
        };
        for (ready, count) in [(true, 0), (false, 1)] {
            let mut looks = Looks::default();
            judge_bots(&BotsResponse { bots: vec![bot(ready)] }, &mut looks);
            assert_eq!(looks.findings(), count, "{ready}");
        }
    }
}
