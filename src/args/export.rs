//! What `audit export` takes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::values::duration;

#[derive(Debug, Args)]
pub(crate) struct AuditExport {
    /// The ledger's folder
    #[arg(required_unless_present = "this_host", conflicts_with = "this_host")]
    pub(crate) dir: Option<PathBuf>,
    /// The ledger of this host's server
    #[arg(long)]
    pub(crate) this_host: bool,
    /// Where to: a collector as otlp+http://HOST:PORT/v1/logs or otlp+https://…, or a file that lines are added to; - is stdout
    #[arg(long, value_name = "URL|FILE", default_value = "-")]
    pub(crate) to: String,
    /// What is written [default: otlp to a collector, ocsf to a file]
    #[arg(long, value_enum)]
    pub(crate) format: Option<ExportFormat>,
    /// Only the records that match, as `audit query` has it. Each is looked at by itself: the end of a call names nobody
    #[arg(long, value_name = "FILTER", default_value = "")]
    pub(crate) filter: String,
    /// Begins with the first record that is not older: RFC 3339, or an age such as 24h. A cursor knows better
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Goes on as the ledger grows
    #[arg(long)]
    pub(crate) follow: bool,
    /// Keeps there how far it got, each time that all of it has arrived, and goes on from there when it is started again
    #[arg(long, value_name = "FILE")]
    pub(crate) cursor: Option<PathBuf>,
    /// A file of header lines for the collector, `Authorization: Bearer …`; read for each request
    #[arg(long, value_name = "FILE", conflicts_with = "headers_fd")]
    pub(crate) headers: Option<PathBuf>,
    /// The same from an open descriptor, read once
    #[arg(long, value_name = "N")]
    pub(crate) headers_fd: Option<u32>,
    /// The authorities that vouch for the collector, PEM [default: those of the web]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The most records in a request
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) batch_records: u32,
    /// The most bytes in a request before they are packed, and one record more
    #[arg(long, value_name = "BYTES", default_value_t = 1024 * 1024, value_parser = clap::value_parser!(u32).range(1024..=16 * 1024 * 1024))]
    pub(crate) batch_bytes: u32,
    /// Gives up when the collector has taken nothing for so long [default: 5m, with --follow never]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) give_up: Option<Duration>,
}

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// OpenTelemetry's log records, by OTLP over HTTP
    Otlp,
    /// Events of the Open Cybersecurity Schema Framework, one line of JSON each
    Ocsf,
}
