//! `import env`: what a bot has in its environment today, as credentials and rules, and its values on this host by `--put`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use ca_api::proxy_admin::{CredentialPut, CredentialsResponse, path};
use policy::Source;
use policy::import::dotenv::{self, Style};
use policy::import::{
    About, FILE_BYTES_MAX, ImportError, Looks, NOBODY, Proposal, Variable, compose, propose, together, unit, write,
};
use proxy::credentials::detect;
use serde_json::{Value, json};
use spiffe::id::BotName;
use zeroize::Zeroizing;

use crate::args::{EnvironmentOf, Import, ImportEnv};
use crate::cli::Context;
use crate::client::{Peer, Server};
use crate::config::read_bounded;
use crate::exit::{Exit, Failure};
use crate::output::{Screen, green, printable, shell};

/// The most drop-ins of a unit.
const DROP_INS_MAX: usize = 100;

/// Runs the command.
pub(crate) async fn run(command: Import, context: &Context) -> Result<Exit> {
    let Import::Env(args) = command;
    if args.service.is_some() && args.from != EnvironmentOf::Compose {
        return Err(Failure::usage("--service names one of a compose file").into());
    }
    let found = match args.from {
        EnvironmentOf::Dotenv => Found {
            bot: folder(&args.path),
            variables: file(&args.path, Style::Dotenv)?,
        },
        EnvironmentOf::Unit => of_unit(&args.path)?,
        EnvironmentOf::Compose => of_compose(&args)?,
    };
    let bot = match &args.bot {
        Some(bot) => bot.clone(),
        None => named(&found.bot).ok_or_else(|| Failure::usage("the file says no name for the bot: say --bot NAME"))?,
    };
    let owner = args.owner.as_deref().unwrap_or(NOBODY);
    let proposal = propose(About { bot: &bot, owner }, &found.variables, looks);
    if args.put {
        return put(&proposal, context).await;
    }
    let text = write(&proposal, &again(&args));
    check(&proposal, &text, &context.screen)?;
    if context.screen.is_table() {
        context.screen.line(text.trim_end())?;
    } else {
        context.screen.document(&document(&proposal, &text))?;
    }
    Ok(if proposal.undecided.is_empty() {
        Exit::Fine
    } else {
        Exit::Findings
    })
}

/// An environment, and what it is called where it was found.
struct Found {
    bot: String,
    variables: Vec<Variable>,
}

/// What a value is by its looks: the ones by which the proxy knows keys.
fn looks(value: &str) -> Option<Looks> {
    let found = detect::find(value.as_bytes()).next()?;
    Some(Looks {
        kind: found.kind,
        whole: found.at == (0..value.len()),
    })
}

fn read(path: &Path) -> Result<Zeroizing<String>> {
    let bytes = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX);
    read_bounded(path, bytes).map(Zeroizing::new)
}

fn invalid(path: &Path, error: &ImportError) -> anyhow::Error {
    Failure::invalid_file(format!("{}: {error}", path.display())).into()
}

fn file(path: &Path, style: Style) -> Result<Vec<Variable>> {
    dotenv::read(&read(path)?, style).map_err(|error| invalid(path, &error))
}

/// The same for a file that may be missing.
fn file_if(path: &Path, style: Style, optional: bool) -> Result<Vec<Variable>> {
    if optional && !path.exists() {
        return Ok(Vec::new());
    }
    file(path, style)
}

/// A unit, its drop-ins beside it, and the files that they name.
fn of_unit(path: &Path) -> Result<Found> {
    let mut paths = vec![path.to_owned()];
    let mut folder = path.as_os_str().to_owned();
    folder.push(".d");
    paths.extend(drop_ins(Path::new(&folder))?);
    let texts: Vec<_> = paths.iter().map(|path| read(path)).collect::<Result<_>>()?;
    let unit = unit::read(texts.iter().map(|text| text.as_str())).map_err(|(number, error)| {
        let path = paths.get(number).map_or(path, PathBuf::as_path);
        invalid(path, &error)
    })?;
    let mut all = vec![unit.variables];
    for named in &unit.files {
        if named.path.contains(['*', '?', '[', '%']) || !named.path.starts_with('/') {
            let message = format!(
                "{}: `EnvironmentFile={}` names no one file",
                path.display(),
                printable(&named.path)
            );
            return Err(Failure::invalid_file(message)
                .hint("write its path out, or import the file itself")
                .into());
        }
        all.push(file_if(Path::new(&named.path), Style::Systemd, named.optional)?);
    }
    let mut variables = together(all).map_err(|error| invalid(path, &error))?;
    variables.retain(|variable| !unit.unset.contains(&variable.name));
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    Ok(Found {
        bot: stem.trim_end_matches('@').to_owned(),
        variables,
    })
}

fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |error| Failure::invalid_file(format!("cannot read {}: {error}", folder.display()));
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "conf") {
            found.push(path);
        }
        if found.len() > DROP_INS_MAX {
            return Err(
                Failure::invalid_file(format!("{} has more than {DROP_INS_MAX} files", folder.display())).into(),
            );
        }
    }
    found.sort();
    Ok(found)
}

fn of_compose(args: &ImportEnv) -> Result<Found> {
    let path = &args.path;
    let service = compose::read(&read(path)?, args.service.as_deref()).map_err(|error| invalid(path, &error))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut all = Vec::new();
    for named in &service.files {
        all.push(file_if(&folder.join(&named.path), Style::Dotenv, named.optional)?);
    }
    all.push(service.variables);
    Ok(Found {
        bot: service.name,
        variables: together(all).map_err(|error| invalid(path, &error))?,
    })
}

/// The name of the folder that a file is in.
fn folder(path: &Path) -> String {
    let folder = std::fs::canonicalize(path).ok();
    let folder = folder.as_deref().and_then(Path::parent).and_then(Path::file_name);
    folder.unwrap_or_default().to_string_lossy().into_owned()
}

/// A bot's name out of any other.
fn named(text: &str) -> Option<BotName> {
    let letter = |letter: char| {
        if letter.is_ascii_alphanumeric() {
            letter.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let name: String = text.chars().map(letter).take(40).collect();
    let name = name.trim_matches('-');
    BotName::parse(name).ok()
}

/// The command line that made a proposal.
fn again(args: &ImportEnv) -> String {
    let mut words = vec!["botmesh import env --from".to_owned(), args.from.word().to_owned()];
    words.push(shell(&printable(&args.path.display().to_string())));
    for (flag, value) in [
        ("--service", args.service.as_deref()),
        ("--owner", args.owner.as_deref()),
    ] {
        words.extend(value.map(|value| format!("{flag} {}", shell(&printable(value)))));
    }
    words.extend(args.bot.as_ref().map(|bot| format!("--bot {bot}")));
    words.join(" ")
}

/// What is proposed must be a mesh that `policy check` passes: an error here is one of botmesh.
fn check(proposal: &Proposal, text: &str, screen: &Screen) -> Result<()> {
    let bot = &proposal.bot;
    let around = format!(
        "version: 1\ntrust_domain: example.org\nbots:\n  {bot}: {{owner: nobody, hosts: [host], attest: {{uid: 1}}}}\n"
    );
    let source = |name: &str, text: &str| Source {
        name: name.to_owned(),
        text: text.to_owned(),
    };
    let checked = policy::load(&[source("mesh.yaml", &around), source("proposal.yaml", text)]);
    checked.map(drop).map_err(|errors| {
        screen.warn(errors.render(screen.color()));
        Failure::new(Exit::Findings, "what would be proposed is no valid mesh file").into()
    })
}

/// Puts what the file has where this host keeps values; none is shown.
async fn put(proposal: &Proposal, context: &Context) -> Result<Exit> {
    let server = Server::find(Peer::Proxy, context.global.server.as_deref())?;
    let screen = &context.screen;
    let mut exit = Exit::Fine;
    for added in &proposal.added {
        let Some(value) = &added.value else {
            screen.warn(format!(
                "{} has no value here: botmesh secret put {}",
                added.variables.join(", "),
                added.name
            ));
            exit = Exit::Findings;
            continue;
        };
        let request = CredentialPut {
            name: added.name.clone(),
            value: value.to_string(),
        };
        let putting = server.post(path::CREDENTIAL_PUT, &request).await;
        let told: CredentialsResponse = putting.with_context(|| format!("put {}", added.name))?;
        let status = told.credentials.into_iter().find(|status| status.name == added.name);
        let print = status.and_then(|status| status.fingerprint).unwrap_or_default();
        screen.line(format!(
            "{} {} is on this host (fingerprint {print})",
            green("ok"),
            added.name
        ))?;
    }
    if proposal.added.is_empty() {
        screen.note("no value in there is one that a proxy could add");
    }
    Ok(exit)
}

fn document(proposal: &Proposal, text: &str) -> Value {
    let credentials = proposal
        .added
        .iter()
        .map(|added| json!({"name": added.name, "variables": added.variables, "value": added.value.is_some()}));
    let listeners = proposal.leads.iter().map(|leads| {
        json!({
            "listen": format!("127.0.0.1:{}", leads.port), "to": leads.to.to_string(),
            "rule": leads.rule, "calls": leads.calls, "inject": leads.inject,
        })
    });
    let environment = proposal
        .environment
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value}));
    let undecided = proposal.undecided.iter();
    let undecided =
        undecided.map(|undecided| json!({"name": undecided.name, "line": undecided.line, "why": undecided.why}));
    json!({
        "bot": proposal.bot.to_string(), "mesh": text, "credentials": credentials.collect::<Vec<_>>(),
        "listeners": listeners.collect::<Vec<_>>(), "environment": environment.collect::<Vec<_>>(),
        "undecided": undecided.collect::<Vec<_>>(), "kept": proposal.kept,
    })
}
