//! `secret`: credentials of this host's bots, and of the mesh.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use spiffe::id::BotName;

use super::values::duration;

#[derive(Debug, Subcommand)]
pub(crate) enum Secret {
    /// Puts a value on this host, encrypted to it; the next call gets it. It is read from standard input
    Put(SecretPut),
    /// Gives a new value to every host that needs it, in steps: kept, probed, tried by one bot, used by all
    Rotate(SecretRotate),
    /// The credentials that bots of this host use: where each is, who uses it, when it is due
    List(SecretList),
    /// Reads a value anew and says whether that went well
    Test(SecretRef),
    /// Prints to whom `age -r` encrypts a file for this host, alone on stdout
    Recipient,
}

#[derive(Debug, Args)]
pub(crate) struct SecretPut {
    #[command(flatten)]
    pub(crate) which: SecretRef,
    /// Reads the value from this descriptor
    #[arg(long, value_name = "N", conflicts_with = "file")]
    pub(crate) fd: Option<u32>,
    /// Reads the value from this file
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SecretList {
    /// Those of the whole mesh, as the CA and the hosts tell: service, environment, who uses it, when it was rotated
    #[arg(long)]
    pub(crate) all: bool,
    /// Only those that are to be replaced now
    #[arg(long)]
    pub(crate) due: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SecretRotate {
    #[command(flatten)]
    pub(crate) which: SecretRef,
    /// Why, for whoever reads the ledger
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Reads the new value from this descriptor [default: standard input]
    #[arg(long, value_name = "N", conflicts_with = "file")]
    pub(crate) fd: Option<u32>,
    /// Reads the new value from this file
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The bot that gets the value before the others [default: one that may use it]
    #[arg(long, value_name = "BOT")]
    pub(crate) canary: Option<BotName>,
    /// How long a call of the canary is waited for: a number and s, m or h
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    pub(crate) canary_for: Duration,
    /// How long hosts and probe are waited for at each step
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1m")]
    pub(crate) wait: Duration,
    /// Goes on without hosts that are away; they get the value when they come back
    #[arg(long)]
    pub(crate) without_away: bool,
    /// Says how far it is, and does nothing
    #[arg(long, group = "instead")]
    pub(crate) status: bool,
    /// Goes on where an earlier command stopped; the value is on the hosts already
    #[arg(long, group = "instead")]
    pub(crate) resume: bool,
    /// Gives the new value up; bots go on with the one in use
    #[arg(long, group = "instead")]
    pub(crate) abort: bool,
    /// Ends it although no probe saw the old value refused: the hosts delete it
    #[arg(long, group = "instead")]
    pub(crate) revoked: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SecretRef {
    /// The credential, as `credentials` of the mesh file names it
    pub(crate) name: String,
}
