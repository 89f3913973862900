//! Bots on loopback ports: whether a foreign process can call them without the proxy.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Result;
use ca_api::proxy_admin::BotsResponse;
use serde_json::Value;

use super::Looks;
use super::stranger::{self, Outcome};
use crate::cli::guard::{SET, TABLE};

const PART: &str = "bots";

/// How long `nft` may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Tries each loopback port as a foreign user.
pub(super) async fn open_ports(bots: &BotsResponse, looks: &mut Looks) {
    let ports = bots.bots.iter();
    let ports = ports.flat_map(|bot| bot.open_ports.iter().map(|port| (&bot.bot, *port)));
    let mut guarded = None;
    for (bot, port) in ports {
        let ports = match &guarded {
            Some(ports) => ports,
            None => guarded.insert(guarded_ports().await),
        };
        let foreign = stranger::tried(&["port", &port.to_string()]).await;
        let own = stranger::port_of(port);
        judge(
            &format!("{bot} on 127.0.0.1:{port}"),
            &foreign,
            &own,
            ports.contains(&port),
            looks,
        );
    }
}

/// Closed is what a foreign user was seen to be refused while the bot listens, or, when it does not, what the table names.
fn judge(what: &str, foreign: &Result<Outcome>, own: &Outcome, in_table: bool, looks: &mut Looks) {
    let todo = "serve on unix:PATH in a folder of mode 0750, or: botmesh host guard --nft | nft -f -";
    match foreign {
        Ok(Outcome::NotConnected(_)) if *own == Outcome::Connected => {
            looks.ok(PART, what, "guarded: a foreign user gets no connection");
        }
        Ok(Outcome::NotConnected(_)) if in_table => looks.ok(PART, what, "guarded; nobody listens there now"),
        Ok(Outcome::NotConnected(_)) => {
            let seen = "open locally: nobody listens there now, and no guard is loaded";
            looks.finding(PART, what, seen, todo);
        }
        Ok(Outcome::Connected | Outcome::Answered { .. }) => {
            let seen = "open locally: a foreign user reached it without the proxy";
            looks.finding(PART, what, seen, todo);
        }
        Err(why) => {
            let seen = format!("open locally as far as can be told ({why:#})");
            looks.finding(PART, what, seen, todo);
        }
    }
}

/// The ports in the loaded table; none where there is no table, no `nft`, or no right to ask it.
async fn guarded_ports() -> BTreeSet<u16> {
    let mut command = tokio::process::Command::new("nft");
    command.args(["-j", "list", "set"]).args(TABLE).arg(SET);
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(TIMEOUT, command.output()).await {
        Ok(Ok(out)) if out.status.success() => ports_of(&out.stdout),
        Ok(_) | Err(_) => BTreeSet::new(),
    }
}

/// Reads the elements of the set; ranges are none of ours.
fn ports_of(json: &[u8]) -> BTreeSet<u16> {
    let told: Value = serde_json::from_slice(json).unwrap_or_default();
    let objects = told.get("nftables").and_then(Value::as_array).into_iter().flatten();
    let elements = objects
        .filter_map(|object| object.pointer("/set/elem").and_then(Value::as_array))
        .flatten();
    elements.filter_map(|port| u16::try_from(port.as_u64()?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_closed_only_where_a_foreign_user_was_refused_or_a_table_names_it() {
        let refused = || Outcome::NotConnected("reset".to_owned());
        for (foreign, own, in_table, findings) in [
            (Ok(refused()), Outcome::Connected, false, 0),
            (Ok(refused()), refused(), true, 0),
            (Ok(refused()), refused(), false, 1),
            (Ok(Outcome::Connected), Outcome::Connected, true, 1),
            (Ok(Outcome::Connected), refused(), true, 1),
            (Err(anyhow::anyhow!("no root")), Outcome::Connected, true, 1),
        ] {
            let mut looks = Looks::default();
            judge("x", &foreign, &own, in_table, &mut looks);
            assert_eq!(looks.findings(), findings, "{foreign:?} {own:?} {in_table}");
        }
    }

    #[test]
    fn the_ports_of_the_table_are_read() {
        let told = br#"{"nftables":[{"metainfo":{"version":"1"}},{"set":{"family":"inet","name":"ports","elem":[8080,9001]}}]}"#;
        assert_eq!(ports_of(told), [8080, 9001].into());
        assert!(ports_of(b"no").is_empty());
        assert!(ports_of(br#"{"nftables":[{"set":{"name":"ports"}}]}"#).is_empty());
    }
}
