//! `audit hold` and `audit release`: whether this host's proxy, or the CA, may prune its ledger.

use anyhow::Result;
use ca_api::admin::path as ca_path;
use ca_api::proxy_admin::{HoldRequest, LedgerHold, path};

use crate::args::{AuditHold, AuditRelease};
use crate::cli::Context;
use crate::client::{Peer, Server};
use crate::exit::Exit;
use crate::output::printable;

pub(super) async fn hold(args: AuditHold, context: &Context) -> Result<Exit> {
    let request = HoldRequest {
        reason: args.reason,
        for_seconds: args.for_.map(|duration| duration.as_secs()),
    };
    let (peer, to, whose) = if args.ca {
        (Peer::Ca, ca_path::LEDGER_HOLD, "the CA's")
    } else {
        (Peer::Proxy, path::LEDGER_HOLD, "this host's")
    };
    let held: LedgerHold = server(peer, context)?.post(to, &request).await?;
    if context.screen.is_table() {
        let until = held
            .until
            .map_or_else(|| "it is released".to_owned(), |until| until.to_string());
        let reason = printable(held.reason.as_deref().unwrap_or_default());
        context.screen.line(format!(
            "held until {until}: {reason}; nothing of {whose} ledger is pruned"
        ))?;
    } else {
        context.screen.document(&held)?;
    }
    Ok(Exit::Fine)
}

pub(super) async fn release(args: &AuditRelease, context: &Context) -> Result<Exit> {
    let (peer, to) = if args.ca {
        (Peer::Ca, ca_path::LEDGER_RELEASE)
    } else {
        (Peer::Proxy, path::LEDGER_RELEASE)
    };
    let held: LedgerHold = server(peer, context)?.post(to, &()).await?;
    if context.screen.is_table() {
        context.screen.line("released; what is past its time is pruned again")?;
    } else {
        context.screen.document(&held)?;
    }
    Ok(Exit::Fine)
}

fn server(peer: Peer, context: &Context) -> Result<Server> {
    Server::find(peer, context.global.server.as_deref())
}
