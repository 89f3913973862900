//! `audit tail|query|verify|prove|export`: reads ledgers where they lie; no server is needed, and none is believed. `audit heads`
//! asks the CA what it has cosigned, `audit hold|release` the proxy, or the CA, to keep everything.

mod all;
mod export;
mod heads;
mod hold;
mod line;
mod prove;
mod query;
mod reconcile;
mod verify;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use audit::Start;
use ca_api::admin::{CaStatus, path as ca_path};
use ca_api::proxy_admin::{ProxyStatus, path as proxy_path};
use serde_json::Value;
use spiffe::time::Timestamp;

pub(crate) use self::line::line;
pub(crate) use self::query::indexes;
pub(crate) use self::verify::verified;
use crate::args::{Audit, AuditTail};
use crate::cli::Context;
use crate::client::{Peer, Server};
use crate::exit::{Exit, Failure};
use crate::signals::Stop;

/// How far back [`newest`] looks, in records.
const NEWEST_LOOK_BACK: u64 = 20_000;

/// How many records `tail` shows before it waits for more.
const TAIL_FIRST: u64 = 20;

/// How often `tail` looks for more.
const TAIL_EVERY: Duration = Duration::from_millis(200);

/// Runs one of them.
pub(crate) async fn run(command: Audit, context: &Context) -> Result<Exit> {
    match command {
        Audit::Tail(args) => tail(args, context).await,
        Audit::Query(args) => query::run(args, context).await,
        Audit::Verify(args) => verify::run(&args, context),
        Audit::Prove(args) => prove::run(args, context).await,
        Audit::Heads(args) => heads::run(args, context).await,
        Audit::Reconcile(args) => reconcile::run(&args, context),
        Audit::Export(args) => Box::pin(export::run(&args, context)).await,
        Audit::Hold(args) => hold::hold(args, context).await,
        Audit::Release(args) => hold::release(&args, context).await,
    }
}

async fn tail(args: AuditTail, context: &Context) -> Result<Exit> {
    let dir = match args.dir {
        Some(dir) => dir,
        None => server_ledger(context).await?,
    };
    must_be_a_ledger(&dir)?;
    let mut stop = Stop::watch()?;
    let mut tail = audit::tail(&dir, Start::Last(TAIL_FIRST)).context("read the ledger")?;
    loop {
        for entry in tail.by_ref() {
            let entry = entry.context("read the ledger")?;
            let record: Value = serde_json::from_slice(&entry.line)
                .with_context(|| format!("record {} is not JSON: see `botmesh audit verify`", entry.index))?;
            show(&record, context)?;
        }
        if args.no_follow {
            return Ok(Exit::Fine);
        }
        // Both arms only wait.
        tokio::select! {
            () = tokio::time::sleep(TAIL_EVERY) => {}
            _name = stop.wait() => return Ok(Exit::Fine),
        }
    }
}

fn show(record: &Value, context: &Context) -> Result<()> {
    if context.screen.is_table() {
        context.screen.line(line(record))?;
    } else {
        context.screen.document_line(record)?;
    }
    Ok(())
}

fn must_be_a_ledger(dir: &Path) -> Result<()> {
    if dir.join("segments").is_dir() {
        return Ok(());
    }
    Err(Failure::invalid_file(format!("{} is no ledger: it has no folder `segments`", dir.display())).into())
}

/// Where the server's ledger is: the proxy's, else the CA's. It is read here, with this user's rights.
async fn server_ledger(context: &Context) -> Result<PathBuf> {
    let flag = context.global.server.as_deref();
    let proxy = Server::find(Peer::Proxy, flag)?;
    match proxy.get::<ProxyStatus>(proxy_path::STATUS).await {
        Ok(status) => Ok(status.ledger.into()),
        Err(proxy_error) => match Server::find(Peer::Ca, flag)?.get::<CaStatus>(ca_path::STATUS).await {
            Ok(status) => Ok(status.ledger.into()),
            Err(_ca_error) => Err(proxy_error.context("name the ledger's folder, or its server")),
        },
    }
}

/// The ledgers that were named, or the server's.
pub(crate) async fn ledgers(dirs: Vec<PathBuf>, context: &Context) -> Result<Vec<PathBuf>> {
    let dirs = if dirs.is_empty() {
        vec![server_ledger(context).await?]
    } else {
        dirs
    };
    dirs.iter().try_for_each(|dir| must_be_a_ledger(dir))?;
    Ok(dirs)
}

fn parsed(filter: &str, now: Timestamp) -> Result<audit::query::Filter> {
    audit::query::parse(filter, now).map_err(|error| Failure::usage(error.to_string()).into())
}

/// The first records that a filter without times finds.
pub(crate) fn find(dir: &Path, filter: &str, limit: u64) -> Result<Vec<Value>> {
    let filter = parsed(filter, Timestamp::from_unix_millis(0))?;
    let found = audit::query::run(dir, filter, Some(limit), indexes(dir, false)).context("read the ledger")?;
    found.map(|record| record.context("read the ledger")).collect()
}

/// The newest records that a filter without times finds, among the last of the ledger, oldest first.
pub(crate) fn newest(dir: &Path, filter: &str, limit: usize) -> Result<Vec<Value>> {
    let filter = parsed(filter, Timestamp::from_unix_millis(0))?;
    let mut found = VecDeque::with_capacity(limit + 1);
    for entry in audit::tail(dir, Start::Last(NEWEST_LOOK_BACK)).context("read the ledger")? {
        let entry = entry.context("read the ledger")?;
        if filter.matches(&entry.line) {
            found.push_back(serde_json::from_slice(&entry.line).context("read a record")?);
        }
        if found.len() > limit {
            found.pop_front();
        }
    }
    Ok(found.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::code_of;

    #[test]
    fn a_folder_that_is_no_ledger_is_invalid_input_and_not_a_broken_ledger() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(code_of(&must_be_a_ledger(dir.path()).unwrap_err()), Exit::InvalidFile);
    }

    #[test]
    fn a_wrong_filter_is_a_usage_error_that_names_what_there_is() {
        let error = parsed("verdikt=deny", Timestamp::from_unix_millis(0)).unwrap_err();
        assert_eq!(code_of(&error), Exit::Usage);
        assert!(error.to_string().contains("verdict"), "{error}");
    }
}
