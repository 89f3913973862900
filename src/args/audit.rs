//! What `audit` takes.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Prints records as they are written
    Tail(AuditTail),
    /// Finds records, for example: 'verdict=deny from=prod/*'
    Query(AuditQuery),
    /// Proves that no record was changed, or names the first that was
    Verify(AuditVerify),
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
    /// Nothing older: RFC 3339, or an age such as 24h
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Nothing newer
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// The most records to print, oldest first
    #[arg(long)]
    pub(crate) limit: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct AuditVerify {
    /// The ledgers' folders
    #[arg(required = true, value_name = "DIR")]
    pub(crate) dirs: Vec<PathBuf>,
    /// The verifier key, or a file that holds it [default: DIR/ledger.vkey]
    #[arg(long, value_name = "VKEY|FILE")]
    pub(crate) key: Option<String>,
}
