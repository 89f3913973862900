//! `run --as BOT -- COMMAND`: asks the proxy to bind the bot to this very process, which then becomes the command.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context as _, Result};
use ca_api::proxy_admin::{RunRequest, RunResponse, path};

use crate::args::Run;
use crate::cli::Context;
use crate::client::{Peer, Server};
use crate::config;
use crate::exit::{Exit, Failure};

/// Lists of hosts that clients must not call through a proxy: emptied, so that none goes around it.
const EMPTIED: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// Binds and becomes the command; returns only to say why it could not.
pub(crate) async fn run(args: Run, context: &Context) -> Result<Exit> {
    let server = Server::find(Peer::Proxy, context.global.server.as_deref())?;
    let request = RunRequest { bot: args.bot.clone() };
    let bound: RunResponse = match server.try_post(path::RUN, &request).await? {
        Ok(bound) => bound,
        Err(refused) => return Err(explained(&refused, &args).unwrap_or_else(|| server.failure(refused))),
    };
    if bound.pid != std::process::id() {
        let message = format!(
            "the proxy bound process {}, not this one ({})",
            bound.pid,
            std::process::id()
        );
        return Err(Failure::new(Exit::NotAuthorised, message)
            .hint("run `botmesh run` in the same process namespace as the proxy")
            .into());
    }
    context.screen.note(format!("{} is {}", bound.pid, bound.id));
    let environment = environment(config::environment(), &bound);
    let refused = become_command(&args.command, &environment)?;
    match refused {}
}

/// Says which of the two permissions is missing: the host's or the mesh file's.
fn explained(refused: &crate::client::Refused, args: &Run) -> Option<anyhow::Error> {
    let hint = match refused.problem.code.as_str() {
        "run_not_allowed" => "this host's proxy.yaml needs `allow_run: true`".to_owned(),
        "run_by_mismatch" | "not_run_by" => format!("the entry of {} needs `attest: {{run_by: [YOU]}}`", args.bot),
        _ => return None,
    };
    Some(
        Failure::new(Exit::NotAuthorised, format!("the proxy refused: {refused}"))
            .hint(hint)
            .into(),
    )
}

/// The environment of the command: ours, with the proxy's variables over it and the ways around the proxy emptied.
fn environment(ours: Vec<(OsString, OsString)>, bound: &RunResponse) -> BTreeMap<OsString, OsString> {
    let mut all: BTreeMap<OsString, OsString> = ours.into_iter().collect();
    for name in EMPTIED.into_iter().chain(bound.unset.iter().map(String::as_str)) {
        all.insert(name.into(), OsString::new());
    }
    for (name, value) in &bound.environment {
        all.insert(name.into(), value.into());
    }
    all
}

/// Replaces this process: the same pid and start time, which is what the proxy bound. The standard library also gives the command
/// back the default SIGPIPE, which Rust programs ignore and their children would inherit ignored.
fn become_command(command: &[OsString], environment: &BTreeMap<OsString, OsString>) -> Result<Infallible> {
    let (program, words) = command.split_first().context("no command was given")?;
    let error = Command::new(program).args(words).env_clear().envs(environment).exec();
    Err(Failure::usage(format!("cannot run {}: {error}", program.display())).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_around_the_proxy_is_emptied_and_the_rest_stays() {
        let bound = RunResponse {
            bot: spiffe::id::BotName::parse("demo/checkout").unwrap(),
            id: "spiffe://demo.internal/demo/checkout".to_owned(),
            pid: 1,
            environment: BTreeMap::from([("http_proxy".to_owned(), "http://127.0.0.1:15080".to_owned())]),
            unset: vec!["no_proxy".to_owned()],
        };
        let pair = |name: &str, value: &str| (OsString::from(name), OsString::from(value));
        let ours = vec![
            pair("NO_PROXY", ".mesh"),
            pair("http_proxy", "http://elsewhere"),
            pair("HOME", "/h"),
        ];
        let all = environment(ours, &bound);
        let wanted = BTreeMap::from([
            pair("HOME", "/h"),
            pair("NO_PROXY", ""),
            pair("http_proxy", "http://127.0.0.1:15080"),
            pair("no_proxy", ""),
        ]);
        assert_eq!(all, wanted);
    }
}
