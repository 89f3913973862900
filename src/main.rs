//! `botmesh`, the one binary: argv, configuration files, signals, output. What it does is in the crates below it.
//!
//! Deliberately absent: any decision. Who a process is, what it may do and what is recorded are for `proxy`, `policy` and `audit`.
#![forbid(unsafe_code)]

mod applied;
mod args;
mod children;
mod cli;
mod client;
mod config;
#[cfg(test)]
mod examples;
mod exit;
mod logging;
mod output;
mod signals;
mod sources;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::cli::Prepared;
use crate::exit::{Exit, code_of, is_broken_pipe};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => return usage_end(&usage),
    };
    // Before the runtime: what is given up then, and taken out of the environment, is so for every thread.
    let outcome = cli::prepare(&cli.command).and_then(|prepared| start(cli, prepared));
    match outcome {
        Ok(exit) => exit.into(),
        Err(error) => {
            if !is_broken_pipe(&error) {
                // The one place that prints an error, with its whole chain, once.
                drop(writeln!(anstream::stderr().lock(), "{}", told(&error)));
            }
            code_of(&error).into()
        }
    }
}

/// Starts the threads, where there is something left to do.
fn start(cli: Cli, prepared: Prepared) -> anyhow::Result<Exit> {
    if matches!(prepared, Prepared::Done) {
        return Ok(Exit::Fine);
    }
    // Where there is one thread for calls, nothing has to be ready for a second one: no queue that others may take from, and
    // no task that goes before those that wait, which would part what leaves together into many writes.
    let mut runtime = match prepared {
        Prepared::Proxy(_) if config::worker_threads() == 1 => tokio::runtime::Builder::new_current_thread(),
        Prepared::Proxy(_) | Prepared::Nothing | Prepared::Done => tokio::runtime::Builder::new_multi_thread(),
    };
    runtime
        .enable_all()
        .build()
        .map_err(|error| anyhow::Error::new(error).context("start the runtime"))?
        .block_on(cli::run(cli, prepared))
}

/// A rendered diagnostic begins with its own `error`; anything else is given ours.
fn told(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let plain = anstream::adapter::strip_str(&text).to_string();
    if plain.starts_with("error") {
        text
    } else {
        format!("error: {text}")
    }
}

/// Ends with what clap has to say: help and version are answers, the rest is a usage error.
fn usage_end(usage: &clap::Error) -> ExitCode {
    let exit = if usage.use_stderr() { Exit::Usage } else { Exit::Fine };
    // A closed stdout changes nothing about the exit code.
    drop(usage.print());
    exit.into()
}
