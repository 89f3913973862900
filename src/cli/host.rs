//! `host token|list|evict`.

use anyhow::Result;
use ca_api::JoinToken;
use ca_api::admin::{
    EvictRequest, EvictResponse, Host as HostStatus, HostList, QuarantineStatus, TokenRequest, TokenResponse, path,
};
use serde::Serialize;
use spiffe::time::Timestamp;

use crate::args::{Host, HostRef};
use crate::cli::seen::{self, span};
use crate::cli::{Context, quarantine};
use crate::client::{Peer, Server};
use crate::exit::Exit;
use crate::output::{Screen, printable};

/// Runs one of them.
pub(crate) async fn run(command: Host, context: &Context) -> Result<Exit> {
    let server = Server::find(Peer::Ca, context.global.server.as_deref())?;
    match command {
        Host::Guard(args) => super::guard::run(&args, context).await,
        Host::Token(args) => token(&args, &server, context).await,
        Host::List => list(&server, context).await,
        Host::Evict(args) => evict(args, &server, context).await,
    }
}

/// The token alone on stdout: it is piped into a file, and nothing else may end up there.
async fn token(args: &HostRef, server: &Server, context: &Context) -> Result<Exit> {
    let response = issue_token(server, &args.host).await?;
    if context.screen.is_table() {
        context.screen.line(&response.token)?;
    } else {
        context.screen.document(&response)?;
    }
    let screen = &context.screen;
    screen.note(format!(
        "the host {} may join with it until {}, with one key only",
        args.host, response.expires
    ));
    if response.host_has_key {
        screen.warn(format!(
            "{} has joined already: `botmesh host evict {}` first, or the token is of no use",
            args.host, args.host
        ));
    }
    Ok(Exit::Fine)
}

/// Asks for a token and reads it back: what this command hands on is a token.
pub(crate) async fn issue_token(server: &Server, host: &spiffe::id::HostName) -> Result<TokenResponse> {
    let response: TokenResponse = server
        .post(path::HOST_TOKEN, &TokenRequest { host: host.clone() })
        .await?;
    JoinToken::parse(&response.token)?;
    Ok(response)
}

async fn list(server: &Server, context: &Context) -> Result<Exit> {
    let list: HostList = server.get(path::HOSTS).await?;
    let headings = [
        "HOST",
        "STATE",
        "STREAM",
        "FROM",
        "APPLIED",
        "NODE SVID",
        "LAST SEEN",
        "MESH ADDRESS",
    ];
    let now = context.clock.now();
    context.screen.list(&list.hosts, &headings, |host| row(host, now))?;
    if context.screen.is_table() {
        for host in &list.hosts {
            if let Some(error) = &host.failed {
                let line = format!("{}: could not apply a newer revision: {}", host.host, printable(error));
                context.screen.line(line)?;
            }
        }
        seen::alerts(&list.hosts, now)
            .into_iter()
            .try_for_each(|line| context.screen.line(line))?;
    }
    if list.hosts.is_empty() {
        context.screen.note("no host has joined: `botmesh host token HOST`");
    }
    Ok(Exit::Fine)
}

fn row(host: &HostStatus, now: Timestamp) -> Vec<String> {
    let state = if host.quarantined { "quarantined" } else { &host.state };
    let stream = match (host.connected, host.connected_since) {
        (false, _) => "down".to_owned(),
        (true, None) => "up".to_owned(),
        (true, Some(since)) => format!("up {}", span(since, now)),
    };
    let svid = if host.not_after <= now {
        format!("ended {} ago", span(host.not_after, now))
    } else {
        format!("ends in {}", span(now, host.not_after))
    };
    vec![
        host.host.to_string(),
        state.to_owned(),
        stream,
        host.source.map_or_else(|| "-".to_owned(), |source| source.to_string()),
        host.applied
            .map_or_else(|| "-".to_owned(), |generation| generation.to_string()),
        svid,
        format!("{} ago", span(host.last_seen, now)),
        host.advertise.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

async fn evict(args: HostRef, server: &Server, context: &Context) -> Result<Exit> {
    let response: EvictResponse = server.post(path::HOST_EVICT, &EvictRequest { host: args.host }).await?;
    let done = format!("evicted host {}", response.host);
    let enforced = match response.list {
        Some(list) => Some(quarantine::enforced(list, server, &context.screen).await?),
        None => None,
    };
    show_evicted(&response, enforced.as_ref(), &done, &context.screen)?;
    enforced.map_or(Ok(Exit::Fine), |status| quarantine::everywhere(&done, &status))
}

/// What became of an evicted host, in JSON.
#[derive(Debug, Serialize)]
struct Evicted<'a> {
    #[serde(flatten)]
    response: &'a EvictResponse,
    enforced: Option<&'a QuarantineStatus>,
}

/// Says what became of the host, and on how many others what it holds is worth nothing now.
fn show_evicted(
    response: &EvictResponse,
    enforced: Option<&QuarantineStatus>,
    done: &str,
    screen: &Screen,
) -> Result<()> {
    if !screen.is_table() {
        return Ok(screen.document(&Evicted { response, enforced })?);
    }
    let stream = if response.was_connected {
        "its stream was ended"
    } else {
        "it was not connected"
    };
    if let Some(status) = enforced {
        screen.line(quarantine::summary(done, status))?;
    }
    Ok(screen.line(format!(
        "{}: {stream}; it needs a new token to come back",
        response.host
    ))?)
}
