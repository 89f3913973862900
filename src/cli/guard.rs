//! `host guard`: the nft table that closes the loopback ports of this host's bots to all but the proxy.

use std::collections::BTreeSet;

use anyhow::Result;
use ca_api::proxy_admin::{BotsResponse, ProxyStatus, path};
use serde::Serialize;

use crate::args::Guard;
use crate::cli::Context;
use crate::client::{Peer, Server};
use crate::exit::{Exit, Failure};

/// The family and name of the table.
pub(crate) const TABLE: [&str; 2] = ["inet", "botmesh"];

/// The name of its set of ports.
pub(crate) const SET: &str = "ports";

/// What is closed, and to whom it stays open.
#[derive(Debug, Serialize)]
struct Guarded {
    /// The user whose sockets still reach the ports.
    uid: u32,
    ports: BTreeSet<u16>,
    table: String,
}

/// Prints the table for the bots that the proxy of this host may claim.
pub(crate) async fn run(args: &Guard, context: &Context) -> Result<Exit> {
    let server = Server::find(Peer::Proxy, context.global.server.as_deref())?;
    let status: ProxyStatus = server.get(path::STATUS).await?;
    let bots: BotsResponse = server.get(path::BOTS).await?;
    let Some(uid) = status.uid else {
        return Err(
            Failure::new(Exit::Findings, "the proxy does not say which user it runs as")
                .hint("restart it: it is of an earlier version than this command")
                .into(),
        );
    };
    let ports: BTreeSet<u16> = bots
        .bots
        .iter()
        .flat_map(|bot| bot.open_ports.iter().copied())
        .collect();
    let guarded = Guarded {
        uid,
        table: table(uid, &ports),
        ports,
    };
    if context.screen.is_table() || args.nft {
        context.screen.line(guarded.table.trim_end())?;
    } else {
        context.screen.document(&guarded)?;
    }
    if guarded.ports.is_empty() {
        context
            .screen
            .note("no bot of this host serves on a loopback port: loading this removes an older table");
    } else if uid == 0 {
        context
            .screen
            .note("the proxy runs as root, so other processes of root pass too");
    }
    Ok(Exit::Fine)
}

/// Writes the table. Loading it replaces an older one in one step; without ports it only takes the older one away.
///
/// Every packet to the ports is looked at, not connections that begin alone, so what a foreign process had open ends too.
/// A socket's user is the one that made it: `skuid` stays true when the socket is handed on.
fn table(uid: u32, ports: &BTreeSet<u16>) -> String {
    let [family, name] = TABLE;
    let replaced = format!("table {family} {name} {{}}\ndelete table {family} {name}\n");
    if ports.is_empty() {
        return replaced;
    }
    let list: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let others = if uid == 0 {
        ", so other processes of root pass too"
    } else {
        ""
    };
    format!(
        "{replaced}table {family} {name} {{\n\
         \tset {SET} {{\n\
         \t\ttype inet_service\n\
         \t\telements = {{ {} }}\n\
         \t}}\n\
         \t# Only sockets of the proxy's user reach these ports: uid {uid}{others}.\n\
         \tchain guard {{\n\
         \t\ttype filter hook output priority filter; policy accept;\n\
         \t\toif \"lo\" tcp dport @{SET} meta skuid != {uid} counter reject with tcp reset\n\
         \t}}\n\
         }}\n",
        list.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_in_deploy_is_what_is_printed() {
        let example = include_str!("../../deploy/nft/botmesh.nft.example");
        assert!(
            example.ends_with(&table(998, &[9001, 8080].into())),
            "{}",
            table(998, &[9001, 8080].into())
        );
    }

    #[test]
    fn a_proxy_that_is_not_root_keeps_root_out_and_no_port_needs_no_table() {
        let text = table(997, &[8080].into());
        assert!(text.contains("meta skuid != 997 counter reject"), "{text}");
        assert!(!text.contains("root pass"), "{text}");
        assert_eq!(
            table(0, &BTreeSet::new()),
            "table inet botmesh {}\ndelete table inet botmesh\n"
        );
    }
}
