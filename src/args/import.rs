//! `import`: what a bot has today, as a proposal.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use spiffe::id::BotName;

#[derive(Debug, Subcommand)]
pub(crate) enum Import {
    /// Reads a bot's environment and proposes credentials, rules and what it becomes; no value is shown. Exit 1 where something
    /// is left to decide
    Env(ImportEnv),
}

#[derive(Debug, Args)]
pub(crate) struct ImportEnv {
    /// What the file is: a unit of systemd (with its drop-ins and EnvironmentFile=), a compose file, or a .env file
    #[arg(long, value_enum)]
    pub(crate) from: EnvironmentOf,
    /// The file
    pub(crate) path: PathBuf,
    /// The bot [default: named after the unit, the service or the folder]
    #[arg(long)]
    pub(crate) bot: Option<BotName>,
    /// Who owns the credentials
    #[arg(long)]
    pub(crate) owner: Option<String>,
    /// The service, where a compose file has several
    #[arg(long)]
    pub(crate) service: Option<String>,
    /// Puts the values on this host, once its proxy knows the credentials, in place of the proposal
    #[arg(long)]
    pub(crate) put: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EnvironmentOf {
    Unit,
    Compose,
    Dotenv,
}

impl EnvironmentOf {
    /// The word for it on the command line.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Compose => "compose",
            Self::Dotenv => "dotenv",
        }
    }
}
