//! `secret list --all`: the credentials of the mesh, from what the CA knows and the hosts told.

use anyhow::Result;
use ca_api::admin::{FleetCredential, FleetCredentials, path};
use ca_api::rotation::Phase;
use spiffe::time::Timestamp;

use crate::args::SecretList;
use crate::cli::seen::span;
use crate::client::Server;
use crate::exit::Exit;
use crate::output::{Screen, green, printable, red};

pub(super) async fn list(args: &SecretList, server: &Server, screen: &Screen, now: Timestamp) -> Result<Exit> {
    let mut told: FleetCredentials = server.get(path::CREDENTIALS).await?;
    told.credentials
        .retain(|found| !args.due || found.due.is_some_and(|due| due <= now));
    let columns = [
        "NAME",
        "SERVICE",
        "ENV",
        "OWNER",
        "LAST ROTATED",
        "CONSUMERS",
        "CLASS",
        "STATE",
    ];
    screen.list(&told.credentials, &columns, |found| row(found, now))?;
    if told.credentials.is_empty() {
        screen.note(if args.due {
            "no credential of the mesh is due"
        } else {
            "the mesh file names no credential: see `botmesh help BM0149`"
        });
    }
    Ok(Exit::Fine)
}

fn row(found: &FleetCredential, now: Timestamp) -> Vec<String> {
    let ago = |then: Timestamp| format!("{} ago", span(then, now));
    vec![
        printable(&found.name),
        list_of(&found.services),
        list_of(&found.environments),
        printable(&found.owner),
        found.rotated.map_or_else(|| "never".to_owned(), ago),
        consumers(found),
        class(found),
        state(found, now),
    ]
}

fn list_of(all: &[String]) -> String {
    if all.is_empty() {
        return "-".to_owned();
    }
    printable(&all.join(", "))
}

/// Who used it in the last hour, as hosts told, and how many more might.
fn consumers(found: &FleetCredential) -> String {
    let used: Vec<&str> = found
        .uses
        .iter()
        .filter(|one| one.calls > 0)
        .map(|one| one.bot.as_str())
        .collect();
    let idle = found.uses.len() - used.len();
    match (used.is_empty(), idle) {
        (true, 0) => "nobody may".to_owned(),
        (true, idle) => format!("none in the last hour, {idle} may"),
        (false, 0) => used.join(", "),
        (false, idle) => format!("{}, and {idle} more may", used.join(", ")),
    }
}

/// The way in which a credential without a value is added.
const FEDERATED_BY: &str = "federate";

/// How long a value lives, as far as the mesh file says it: a vault of a host may make values of a minute too, which is told by
/// `secret list` there.
fn class(found: &FleetCredential) -> String {
    let class = match found.injection.as_str() {
        "oauth" | "github_app" => "short",
        FEDERATED_BY => "federated",
        _ => "static",
    };
    let bots = found
        .uses
        .iter()
        .map(|one| &one.bot)
        .collect::<std::collections::BTreeSet<_>>();
    match (bots.len(), &found.shared) {
        (0, _) => red("orphaned"),
        (1, _) => class.to_owned(),
        // Each bot has a token of its own.
        (_, None) if found.injection == FEDERATED_BY => class.to_owned(),
        (_, Some(_)) => format!("{class}, shared"),
        (_, None) => red(&format!("{class}, shared without a reason")),
    }
}

fn state(found: &FleetCredential, now: Timestamp) -> String {
    let due = found.due.filter(|due| *due <= now);
    let due = due.map(|due| red(&format!("due for {}", span(due, now))));
    let phase = found.rotation.as_ref().and_then(|rotation| match rotation.phase {
        Phase::Staged | Phase::Canary => Some(format!("a new value is {}", rotation.phase)),
        Phase::Current => Some("awaiting-revoke".to_owned()),
        Phase::Revoked | Phase::Aborted => None,
    });
    match (due, phase) {
        (Some(due), Some(phase)) => format!("{due}; {phase}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => green("ok"),
    }
}
