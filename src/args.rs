//! The command line, as a person or a script types it. Parsing only: nothing here reads a file or the environment.

mod audit;
mod bundle;
mod export;
mod import;
mod secret;
mod values;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use policy::Callee;
use spiffe::id::{BotName, HostName};
use spiffe::time::Timestamp;

pub(crate) use audit::{
    Audit, AuditHeads, AuditHold, AuditProve, AuditQuery, AuditReconcile, AuditRelease, AuditTail, AuditVerify,
};
pub(crate) use bundle::Bundle;
pub(crate) use export::{AuditExport, ExportFormat};
pub(crate) use import::{EnvironmentOf, Import, ImportEnv};
pub(crate) use secret::{Secret, SecretList, SecretPut, SecretRotate};
pub(crate) use values::RevisionRef;
use values::{duration, revision, time, unix_path};

#[derive(Debug, Parser)]
#[command(
    name = "botmesh",
    about = "Identity, mutual TLS and least-privilege routes for bots that hold no key",
    long_about = "Every bot gets an identity that the kernel vouches for and calls other bots through a proxy on its own host.\n\
                  The proxy opens mutual TLS in the bot's name, enforces who may call what at both ends, and records every call.",
    after_help = "Start here:  botmesh demo\nExit codes:  0 fine · 1 done, with findings · 2 usage · 3 invalid input file · \
                  4 server unreachable or timeout · 5 not authorised",
    disable_help_subcommand = true,
    propagate_version = false,
    version = version()
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The text of `--version`: a build that takes its time from a test says so.
pub(crate) const fn version() -> &'static str {
    if cfg!(feature = "test-clock") {
        concat!(env!("CARGO_PKG_VERSION"), " (features: test-clock)")
    } else {
        env!("CARGO_PKG_VERSION")
    }
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// How data is printed
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub(crate) output: Format,
    /// When to colour; NO_COLOR is honoured
    #[arg(long, global = true, value_enum, default_value_t)]
    pub(crate) color: Color,
    /// No progress, no hints
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// More logging on stderr; twice for more still
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// The server to ask, as unix:PATH of a socket or of the folder that holds it [default: BOTMESH_SERVER, else the default socket]
    #[arg(long, global = true, value_name = "unix:PATH", value_parser = unix_path)]
    pub(crate) server: Option<PathBuf>,
    /// Takes the time from a test instead of the machine
    #[cfg(feature = "test-clock")]
    #[arg(long, global = true, hide = true, value_name = "unix:PATH", value_parser = unix_path)]
    pub(crate) clock: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    Json,
    Jsonl,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A CA and two proxies on this machine, sample bots, real mTLS hops, no root
    Demo(Demo),
    /// The CA and the proxy of one host under one supervisor; re-applies the mesh file when it changes
    Up(Up),
    /// The certificate authority
    #[command(subcommand)]
    Ca(Ca),
    /// The proxy of this host
    #[command(subcommand)]
    Proxy(Proxy),
    /// The hosts of the mesh
    #[command(subcommand)]
    Host(Host),
    /// Makes mesh files live, whole or not at all, after their own tests pass
    Apply(Apply),
    /// Makes an earlier revision live again, as a new revision
    Rollback(Rollback),
    /// Cuts a bot or a host off, everywhere or with --local on this host; lists who is cut off when nobody is named
    Quarantine(Quarantine),
    /// Ends a quarantine
    Release(Release),
    /// Credentials that the proxy of this host adds to calls, so that no bot holds one
    #[command(subcommand)]
    Secret(Secret),
    /// Looks for keys in files, folders, archives, images and, as `-`, what is piped in; exit 1 where there is one
    Scan(Scan),
    /// Moves a bot off the secrets that it has today
    #[command(subcommand)]
    Import(Import),
    /// Checks, tests and explains mesh files
    #[command(subcommand)]
    Policy(Policy),
    /// The bots of the mesh
    #[command(subcommand)]
    Bot(Bot),
    /// What others verify identities of the mesh by
    #[command(subcommand)]
    Bundle(Bundle),
    /// Runs a command as a bot (needs `allow_run` on this host and `run_by` in the bot's entry)
    Run(Run),
    /// Who the proxy says the caller is
    Whoami,
    /// What the proxy sees of a process, and which bot that makes it
    Whois(Whois),
    /// The ledger: every call, issuance and operator action
    #[command(subcommand)]
    Audit(Audit),
    /// What is unlike the days before: many more calls, first uses, refusals in a row; each with what would end it
    Alerts(Alerts),
    /// One screen: CA, hosts, bots, revision, last denials
    Status,
    /// The doctor of this host: what is wrong, what could bypass the proxy, and what to do about it
    Check,
    /// Twenty lines that tell a coding agent how to call through botmesh
    AgentsMd,
    /// Explains a code such as BM0120, or a command
    Help(Help),
    /// The demo's sample bots
    #[command(subcommand, hide = true)]
    DemoBot(DemoBot),
    /// What `check` tries as a user that is no bot's
    #[command(subcommand, hide = true)]
    Stranger(Stranger),
    /// Looks into processes for the proxy that started it
    #[command(hide = true)]
    AttestHelper {
        /// The user to become
        uid: u32,
        /// Its group
        gid: u32,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Runs the script once and exits
    #[arg(long)]
    pub(crate) once: bool,
    /// Keeps everything in this folder [default: a temporary folder, removed at the end]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Tries to break it: each attack, what refused it, and why
    #[arg(long)]
    pub(crate) attack: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// The mesh file, or a folder of them
    #[arg(long, default_value = "mesh.yaml")]
    pub(crate) mesh: PathBuf,
    /// Where state and sockets are kept [default: ./.botmesh]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// The name of this host in the mesh file [default: the machine's name]
    #[arg(long)]
    pub(crate) host: Option<HostName>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Ca {
    /// Makes the CA's keys and its store
    Init(Config),
    /// Runs the CA until SIGTERM
    Run(ServerRun),
    /// What the CA is doing
    Status,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Proxy {
    /// Runs the proxy of this host until SIGTERM
    Run(ServerRun),
    /// What this host's proxy is doing
    Status,
}

#[derive(Debug, Args)]
pub(crate) struct Alerts {
    /// Shows those that come, until Ctrl-C
    #[arg(long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Config {
    /// The configuration file
    #[arg(long)]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ServerRun {
    #[command(flatten)]
    pub(crate) config: Config,
    /// Ends when stdin does, so that no server outlives the supervisor that holds the other end
    #[arg(long, hide = true)]
    pub(crate) with_parent: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Host {
    /// Prints a join token for a host, alone on stdout
    Token(HostRef),
    /// Hosts that have joined
    List,
    /// Ends a host's identity and its stream; it needs a new token to come back
    Evict(HostRef),
    /// Prints the nft table that closes the loopback ports of this host's bots to all but the proxy
    Guard(Guard),
}

#[derive(Debug, Args)]
pub(crate) struct Guard {
    /// As a table for `nft -f -`, the only form so far
    #[arg(long)]
    pub(crate) nft: bool,
}

#[derive(Debug, Args)]
pub(crate) struct HostRef {
    pub(crate) host: HostName,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// Mesh files, or folders of them
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Says what would happen and changes nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Does not wait until every connected host has it live
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Applies although the live revision is not the one these files were last applied over
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Quarantine {
    #[command(flatten)]
    pub(crate) whom: Whom,
    /// Why, for whoever finds it
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Ends it by itself: a number and s, m, h or d, such as 2h [default: until it is released]
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub(crate) for_: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct Release {
    #[command(flatten)]
    pub(crate) whom: Whom,
}

/// Whom a quarantine is about.
#[derive(Debug, Args)]
pub(crate) struct Whom {
    /// The bot
    pub(crate) bot: Option<BotName>,
    /// A host, with all bots on it
    #[arg(long, value_name = "HOST", conflicts_with = "bot")]
    pub(crate) host: Option<HostName>,
    /// On this host only, by its proxy: works without the CA, and is released in the same way
    #[arg(long)]
    pub(crate) local: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Scan {
    /// Files, folders, or - for standard input; archives, images and their layers are looked into
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Exit 1 as well where something was not wholly looked at
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// A revision number, or EPOCH.REVISION
    #[arg(value_parser = revision)]
    pub(crate) revision: RevisionRef,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Parses and validates mesh files
    Check(PolicyCheck),
    /// Runs the tests that mesh files hold
    Test(MeshFiles),
    /// Says whether a call would be allowed, by which rule, or which rule came nearest
    Explain(Explain),
    /// Prints the JSON Schema of the mesh file
    Schema,
}

#[derive(Debug, Args)]
pub(crate) struct PolicyCheck {
    #[command(flatten)]
    pub(crate) mesh: MeshFiles,
    /// Also says which bots of this host it cannot tell apart, by the users of this machine
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<HostName>,
}

#[derive(Debug, Args)]
pub(crate) struct MeshFiles {
    /// Mesh files, or folders of them
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The calling bot, or a SPIFFE ID
    #[arg(required_unless_present = "batch")]
    pub(crate) from: Option<String>,
    /// The bot that is called, or a destination outside: `https://api.example.com`
    #[arg(required_unless_present = "batch")]
    pub(crate) to: Option<Callee>,
    /// The call: 'GET /orders/17', 'grpc acme.Orders/Get', 'tcp 5432', or tls
    #[arg(required_unless_present = "batch", num_args = 1..=2, value_name = "CALL")]
    pub(crate) call: Vec<String>,
    /// Judges the calls of a file, one a line: FROM TO CALL
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to", "call"])]
    pub(crate) batch: Option<PathBuf>,
    /// Mesh files to read [default: the mesh that is live at the CA]
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) mesh: Vec<PathBuf>,
    /// The time to judge by, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) at: Option<Timestamp>,
    /// Exits with 1 when the call would be refused
    #[arg(long)]
    pub(crate) exit_code: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bot {
    /// Bots, who owns them, and the hosts that may claim them
    List,
    /// One bot: identity, hosts, endpoints, who may call it and whom it may call
    Show {
        /// The bot
        bot: BotName,
    },
    /// What one bot reached, by the ledgers of its hosts, and could have reached: for the day it was somebody else
    Blast(Blast),
}

#[derive(Debug, Args)]
pub(crate) struct Blast {
    /// The bot
    pub(crate) bot: BotName,
    /// The ledgers of its hosts [default: the one of this host's proxy]
    #[arg(value_name = "DIR")]
    pub(crate) dirs: Vec<PathBuf>,
    /// How far back: an age, or a time
    #[arg(long, default_value = "24h", value_name = "TIME")]
    pub(crate) since: String,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The bot to become
    #[arg(long = "as", value_name = "BOT")]
    pub(crate) bot: BotName,
    /// The command and its arguments, after --
    #[arg(required = true, last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Whois {
    pub(crate) pid: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Help {
    /// A code such as BM0120, or a command
    pub(crate) topic: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DemoBot {
    /// Answers every request with what it saw of it
    Serve {
        /// 127.0.0.1:PORT or unix:PATH
        #[arg(long)]
        listen: String,
    },
    /// Makes the calls that it reads from stdin, one JSON object a line
    Call {
        /// The proxy's bot socket
        #[arg(long)]
        socket: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Stranger {
    /// Connects to a port of 127.0.0.1
    Port { port: u16 },
    /// Calls a host name by the proxy's socket
    Call { socket: PathBuf, host: String },
    /// Calls a host name by the proxy's port
    CallTcp { address: SocketAddr, host: String },
}

#[cfg(test)]
mod tests;
