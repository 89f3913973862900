//! `audit heads`: the heads of hosts' ledgers that the CA has cosigned.

use anyhow::{Result, anyhow};
use ca_api::admin::{LedgerHead, LedgerHeads, path};
use spiffe::id::HostName;

use crate::args::AuditHeads;
use crate::cli::Context;
use crate::client::{Peer, Server};
use crate::exit::{Exit, Failure};

/// Runs the command.
pub(super) async fn run(args: AuditHeads, context: &Context) -> Result<Exit> {
    let server = Server::find(Peer::Ca, context.global.server.as_deref())?;
    let question = match &args.host {
        Some(host) => {
            let host = HostName::parse(host).map_err(|error| Failure::usage(format!("{host:?}: {error}")))?;
            format!("{}?host={host}", path::HEADS)
        }
        None => path::HEADS.to_owned(),
    };
    let found: LedgerHeads = server.get(&question).await?;
    let screen = &context.screen;
    if found.heads.is_empty() && args.host.is_some() {
        return Err(anyhow!(Failure::new(
            Exit::Findings,
            "no head of this host's ledger was cosigned yet: a host tells one within a minute"
        )));
    }
    if args.notes {
        for head in &found.heads {
            screen.line(&head.note)?;
        }
    } else if screen.is_table() {
        let row = |head: &LedgerHead| {
            vec![
                head.host.to_string(),
                head.epoch.to_string(),
                head.size.to_string(),
                head.cosigned.to_string(),
                head.vkey.clone(),
            ]
        };
        screen.list(&found.heads, &["HOST", "EPOCH", "RECORDS", "COSIGNED", "KEY"], row)?;
    } else {
        screen.document(&found)?;
    }
    screen.note(format!("the cosigner's key is {}", found.cosigner));
    Ok(Exit::Fine)
}
