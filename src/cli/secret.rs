//! `secret`: credentials of this host's bots. A value comes in by standard input, a descriptor or a file, and none goes out.

mod fleet;
mod rotate;

use std::fs::File;
use std::io::{IsTerminal as _, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use ca_api::proxy_admin::{
    BotToken, CredentialPut, CredentialStatus, CredentialTest, CredentialsResponse, TokenStatus, path,
};
use spiffe::time::Timestamp;

use crate::args::{Secret, SecretList, SecretPut};
use crate::cli::Context;
use crate::cli::seen::span;
use crate::client::{Peer, Server};
use crate::exit::{Exit, Failure};
use crate::output::{Screen, green, printable, red};

/// The class of a credential without a value.
const FEDERATED: &str = "federated";

/// The most that is read of a value: more is none, and the proxy says so.
const VALUE_BYTES_MAX: u64 = 32 * 1024;

/// Runs one of the commands.
pub(crate) async fn run(command: Secret, context: &Context) -> Result<Exit> {
    let peer = match &command {
        Secret::Rotate(_) | Secret::List(SecretList { all: true, .. }) => Peer::Ca,
        Secret::Put(_) | Secret::List(_) | Secret::Test(_) | Secret::Recipient => Peer::Proxy,
    };
    let server = Server::find(peer, context.global.server.as_deref())?;
    let screen = &context.screen;
    match command {
        Secret::Put(args) => put(args, &server, screen).await,
        Secret::Rotate(args) => rotate::run(args, &server, screen).await,
        Secret::List(args) if args.all => fleet::list(&args, &server, screen, context.clock.now()).await,
        Secret::List(args) => list(&args, &server, screen, context.clock.now()).await,
        Secret::Test(which) => test(which.name, &server, screen).await,
        Secret::Recipient => {
            let told: CredentialsResponse = server.get(path::CREDENTIALS).await?;
            screen.line(told.recipient)?;
            Ok(Exit::Fine)
        }
    }
}

async fn put(args: SecretPut, server: &Server, screen: &Screen) -> Result<Exit> {
    let value = value(Given::of_put(&args))?;
    let name = args.which.name;
    let request = CredentialPut {
        name: name.clone(),
        value,
    };
    let told: CredentialsResponse = server.post(path::CREDENTIAL_PUT, &request).await?;
    let Some(status) = told.credentials.into_iter().find(|status| status.name == name) else {
        return Err(Failure::new(Exit::Findings, format!("the proxy does not tell of {name}")).into());
    };
    if !screen.is_table() {
        screen.document(&status)?;
        return Ok(Exit::Fine);
    }
    let print = status.fingerprint.unwrap_or_default();
    screen.line(format!(
        "{} {name} is on this host (fingerprint {print}); the next call gets it",
        green("ok")
    ))?;
    Ok(Exit::Fine)
}

/// Where a value comes from, and what reads it.
#[derive(Clone, Copy)]
struct Given<'a> {
    command: &'a str,
    name: &'a str,
    fd: Option<u32>,
    file: Option<&'a Path>,
}

impl<'a> Given<'a> {
    fn of_put(args: &'a SecretPut) -> Self {
        Self {
            command: "put",
            name: &args.which.name,
            fd: args.fd,
            file: args.file.as_deref(),
        }
    }
}

fn value(given: Given<'_>) -> Result<String> {
    if let Some(fd) = given.fd {
        let path = PathBuf::from(format!("/dev/fd/{fd}"));
        let file = File::open(&path).with_context(|| format!("open descriptor {fd}"))?;
        return read(file);
    }
    if let Some(path) = given.file {
        return read(File::open(path).with_context(|| format!("open {}", path.display()))?);
    }
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        let Given { command, name, .. } = given;
        let how = format!(
            "a value typed here would stay on the screen: give it by a pipe, as in `pass show {name} | botmesh secret {command} {name}`, or by --file"
        );
        return Err(Failure::usage(how).into());
    }
    read(stdin.lock())
}

fn read(from: impl Read) -> Result<String> {
    let mut value = String::new();
    from.take(VALUE_BYTES_MAX)
        .read_to_string(&mut value)
        .context("read the value")?;
    Ok(value)
}

async fn test(name: String, server: &Server, screen: &Screen) -> Result<Exit> {
    let request = CredentialTest { name: name.clone() };
    let told: CredentialsResponse = server.post(path::CREDENTIAL_TEST, &request).await?;
    let Some(status) = told.credentials.into_iter().find(|status| status.name == name) else {
        return Err(Failure::new(Exit::Findings, format!("the proxy does not tell of {name}")).into());
    };
    if !screen.is_table() {
        screen.document(&status)?;
    } else if let Some(error) = &status.error {
        screen.line(format!("{} {name}: {}", red("not read"), printable(error)))?;
    } else if status.class == FEDERATED {
        tested_for_bots(&status, screen)?;
    } else if let Some(error) = unexchanged(&status) {
        screen.line(format!("{} {name}: {}", red("not exchanged"), printable(error)))?;
    } else if status.class == "dynamic" {
        let how = format!("one was made by {} and given back", status.source);
        screen.line(format!("{} {name}: {how}", green("ok")))?;
    } else {
        let print = status.fingerprint.as_deref().unwrap_or_default();
        screen.line(format!(
            "{} {name}: read from {} (fingerprint {print}){}",
            green("ok"),
            status.source,
            token(&status)
        ))?;
    }
    Ok(if status.error.is_some() || unexchanged(&status).is_some() {
        Exit::Findings
    } else {
        Exit::Fine
    })
}

/// Tells of each bot whether it got a token.
fn tested_for_bots(status: &CredentialStatus, screen: &Screen) -> Result<()> {
    let name = printable(&status.name);
    for BotToken { bot, token } in &status.bots {
        let told = match &token.error {
            Some(error) => format!("{} {name} for {bot}: {}", red("no token"), printable(error)),
            None => format!("{} {name} for {bot}{}", green("ok"), life(token)),
        };
        screen.line(told)?;
    }
    if status.bots.is_empty() {
        screen.line(format!("{name}: no bot of this host may use it now"))?;
    }
    Ok(())
}

/// Why the value was not exchanged the last time, or a bot got no token.
fn unexchanged(status: &CredentialStatus) -> Option<&String> {
    let bots = status.bots.iter().map(|bot| &bot.token);
    let mut tokens = status.token.iter().chain(bots);
    tokens.find_map(|token| token.error.as_ref())
}

/// What is told of the token that the value was exchanged for.
fn token(status: &CredentialStatus) -> String {
    status.token.as_ref().map(life).unwrap_or_default()
}

fn life(token: &TokenStatus) -> String {
    let told = token.fingerprint.as_deref().map(|print| {
        let now = Timestamp::from_unix_millis(0);
        let left = span(now, now + Duration::from_secs(token.left_s.unwrap_or_default()));
        format!(", token {} for {left}", printable(print))
    });
    told.unwrap_or_default()
}

/// How the token of each bot is, of a credential without a value.
fn of_bots(status: &CredentialStatus) -> String {
    let of_bot = |BotToken { bot, token }: &BotToken| match (&token.error, &token.fingerprint) {
        (Some(error), _) => red(&format!("no token for {bot}: {}", printable(error))) + &life(token),
        (None, Some(_)) => green(&format!("in use by {bot}")) + &life(token),
        (None, None) => format!("not needed by {bot} now"),
    };
    let told: Vec<String> = status.bots.iter().map(of_bot).collect();
    if told.is_empty() {
        "not needed yet".to_owned()
    } else {
        told.join("; ")
    }
}

async fn list(args: &SecretList, server: &Server, screen: &Screen, now: Timestamp) -> Result<Exit> {
    let mut told: CredentialsResponse = server.get(path::CREDENTIALS).await?;
    told.credentials
        .retain(|status| !args.due || status.due.is_some_and(|due| due <= now));
    let columns = ["NAME", "ADDED AS", "FROM", "CLASS", "USED BY", "OWNER", "DUE", "STATE"];
    screen.list(&told.credentials, &columns, |status| row(status, now))?;
    if told.credentials.is_empty() && args.due {
        screen.note("no credential of this host is due");
    } else if told.credentials.is_empty() {
        screen.note("no bot of this host uses a credential: see `botmesh help BM0149`");
    }
    Ok(Exit::Fine)
}

fn row(status: &CredentialStatus, now: Timestamp) -> Vec<String> {
    let mut bots: Vec<String> = status
        .consumers
        .iter()
        .flat_map(|consumer| consumer.bots.iter().map(ToString::to_string))
        .collect();
    bots.sort();
    bots.dedup();
    let due = status.due.map_or_else(
        || "-".to_owned(),
        |due| {
            if due <= now {
                red("now")
            } else {
                format!("in {}", span(now, due))
            }
        },
    );
    vec![
        printable(&status.name),
        printable(&status.injection),
        printable(&status.source),
        printable(&status.class),
        if bots.is_empty() {
            "nobody now".to_owned()
        } else {
            bots.join(", ")
        },
        printable(&status.owner),
        due,
        state(status),
    ]
}

fn state(status: &CredentialStatus) -> String {
    let mut words = match (&status.error, &status.fingerprint) {
        (Some(error), _) => red(&format!("not read: {}", printable(error))),
        (None, Some(print)) => match unexchanged(status) {
            Some(error) => red(&format!("not exchanged: {}", printable(error))) + &token(status),
            None => green(&format!("in use {print}")) + &token(status),
        },
        (None, None) if status.class == FEDERATED => of_bots(status),
        (None, None) if status.leases > 0 => green(&match status.leases {
            1 => "in use by 1 process".to_owned(),
            many => format!("in use by {many} processes"),
        }),
        (None, None) if status.source == "none" => red("no value here: botmesh secret put"),
        (None, None) => "not needed yet".to_owned(),
    };
    if status.masked > 0 {
        words.push_str(&format!("; masked in {} answers", status.masked));
    }
    words
}
