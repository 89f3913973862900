//! What `audit` takes.

use std::path::PathBuf;

use audit::query::Key;
use clap::{ArgGroup, Args, Subcommand};

use super::AuditExport;

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Prints records as they are written
    Tail(AuditTail),
    /// Finds records, for example: 'verdict=deny from=prod/*'
    Query(AuditQuery),
    /// Proves that no record was changed, or names the first that was
    Verify(AuditVerify),
    /// Prints one record with all that proves it, for somebody without the ledger
    Prove(AuditProve),
    /// Lists the heads of hosts' ledgers that the CA has cosigned, and what witnesses outside have
    Heads(AuditHeads),
    /// Holds the two ends of calls against each other: what one proxy left out or wrote differently
    Reconcile(AuditReconcile),
    /// Hands records on to a collector (OTLP) or into a file (OCSF), each at least once
    Export(Box<AuditExport>),
    /// Keeps every record of this host, or of the CA, also those that are past their time
    Hold(AuditHold),
    /// Ends a hold
    Release(AuditRelease),
}

#[derive(Debug, Args)]
pub(crate) struct AuditHold {
    /// Why, for whoever finds it
    #[arg(long)]
    pub(crate) reason: String,
    /// Ends it by itself: a number and s, m, h or d, such as 365d [default: until it is released]
    #[arg(long = "for", value_name = "DURATION", value_parser = super::values::duration)]
    pub(crate) for_: Option<std::time::Duration>,
    /// Of the CA's own ledger, and not of this host's
    #[arg(long)]
    pub(crate) ca: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AuditRelease {
    /// Of the CA's own ledger, and not of this host's
    #[arg(long)]
    pub(crate) ca: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AuditTail {
    /// The ledger's folder [default: the one of the server]
    pub(crate) dir: Option<PathBuf>,
    /// Prints what is there and ends
    #[arg(long)]
    pub(crate) no_follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AuditQuery {
    /// field=value, separated by spaces; `*` in a value matches anything
    pub(crate) filter: String,
    /// The ledgers' folders [default: the one of the server]
    pub(crate) dirs: Vec<PathBuf>,
    /// Counts the records by what they have in common: from, to, kind, verdict, rule, reason, method, status, credential,
    /// protocol, direction, day, hour, minute
    #[arg(long, value_name = "KEY,…", value_delimiter = ',', value_parser = key)]
    pub(crate) by: Vec<Key>,
    /// Nothing older: RFC 3339, or an age such as 24h
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Nothing newer
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// The most records to print, oldest first, or groups, largest first
    #[arg(long)]
    pub(crate) limit: Option<u64>,
    /// Asks every host and the CA itself, through the CA; for its operators
    #[arg(long)]
    pub(crate) all: bool,
    /// Reads every record, and neither uses nor stores an index
    #[arg(long)]
    pub(crate) no_index: bool,
}

fn key(word: &str) -> Result<Key, String> {
    let known = || Key::ALL.iter().map(|key| key.as_str()).collect::<Vec<_>>().join(", ");
    Key::parse(word).ok_or_else(|| format!("the keys are {}", known()))
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("believed").multiple(true)))]
pub(crate) struct AuditVerify {
    /// The ledgers' folders, or proofs of single records (`audit prove`)
    #[arg(required = true, value_name = "DIR|PROOF")]
    pub(crate) paths: Vec<PathBuf>,
    /// The verifier key, or a file that holds it [default: DIR/ledger.vkey; a proof needs it]
    #[arg(long, value_name = "VKEY|FILE")]
    pub(crate) key: Option<String>,
    /// Heads that were cosigned (`audit heads --notes`): what they cover must be there
    #[arg(long, value_name = "FILE", requires = "believed")]
    pub(crate) cosigned: Option<PathBuf>,
    /// The verifier key of the cosigner, or a file that holds it
    #[arg(long, value_name = "VKEY|FILE", requires = "cosigned", group = "believed")]
    pub(crate) cosigner: Option<String>,
    /// The verifier key of a witness outside, or a file that holds it; may be given more than once. Its cosignatures are looked for in
    /// `--cosigned`, else beside the ledger, and in a proof
    #[arg(long, value_name = "VKEY|FILE", group = "believed")]
    pub(crate) witness: Vec<String>,
    /// How many of the witnesses must have cosigned [default: all]
    #[arg(long, value_name = "N", requires = "witness", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) require: Option<u16>,
}

#[derive(Debug, Args)]
pub(crate) struct AuditReconcile {
    /// The ledgers' folders: of the hosts whose calls are to be looked at
    #[arg(required = true, value_name = "DIR")]
    pub(crate) dirs: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct AuditHeads {
    /// The host whose ledger it is [default: all]
    pub(crate) host: Option<String>,
    /// Prints the signed notes themselves, for `audit verify --cosigned`
    #[arg(long)]
    pub(crate) notes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AuditProve {
    /// The record: its number, or the id of a call
    #[arg(value_name = "RECORD")]
    pub(crate) record: String,
    /// The ledger's folder [default: the one of the server]
    pub(crate) dir: Option<PathBuf>,
    /// Of a call, how it ended
    #[arg(long)]
    pub(crate) end: bool,
}
