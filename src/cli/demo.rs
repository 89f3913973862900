//! `demo`: a whole mesh on one machine in seconds, for a newcomer to see calls, refusals and ledgers, and to paste lines from.

pub(crate) mod attack;
mod bots;
mod folder;
mod scene;
mod script;
mod stage;

use std::path::Path;

use anyhow::Result;
use tokio::time::Instant;

use self::folder::Folder;
use self::stage::Stage;
use crate::args::Demo;
use crate::cli::{Context, audit};
use crate::config;
use crate::exit::{Exit, Failure};
use crate::output::{bold, dim, green, shell};
use crate::signals::Stop;

/// Runs it.
pub(crate) async fn run(args: Demo, context: &Context) -> Result<Exit> {
    let mut stop = Stop::watch()?;
    let folder = Folder::new(args.dir.as_deref())?;
    // A signal midway drops the stage, which kills every child: nothing of a script that was cut is waited for.
    let played = tokio::select! {
        played = play(&args, &folder, context) => played?,
        name = stop.wait() => {
            context.screen.note(format!("{name}: everything is stopped"));
            return Ok(Exit::Fine);
        }
    };
    match played {
        Played::Ended(exit) => Ok(exit),
        Played::Stays(stage) => {
            let name = stop.wait().await;
            context.screen.note(format!("{name}: stopping"));
            stage.strike().await?;
            Ok(Exit::Fine)
        }
    }
}

/// What is left when the script is over.
enum Played {
    /// Nothing: the demo was asked to end by itself.
    Ended(Exit),
    /// A running mesh, for the user to play with.
    Stays(Box<Stage>),
}

async fn play(args: &Demo, folder: &Folder, context: &Context) -> Result<Played> {
    let started = Instant::now();
    let screen = &context.screen;
    let stage = Box::pin(Stage::set(folder.path(), context)).await?;
    if screen.is_table() {
        introduce(&stage, context)?;
    }
    if args.attack {
        return Box::pin(attack::run(stage, context)).await.map(Played::Ended);
    }
    let mut first_refusal = None;
    script::run(&stage, screen, || {
        first_refusal.get_or_insert_with(|| started.elapsed());
    })
    .await?;
    if let (true, Some(elapsed)) = (screen.is_table(), first_refusal) {
        let seconds = elapsed.as_secs_f64();
        screen.line(dim(&format!("  first refusal {seconds:.1} s after the start")))?;
    }
    if args.once {
        return finish(stage, folder, context).await.map(Played::Ended);
    }
    if screen.is_table() {
        suggest(&stage, folder, context)?;
    }
    Ok(Played::Stays(Box::new(stage)))
}

fn introduce(stage: &Stage, context: &Context) -> Result<()> {
    let screen = &context.screen;
    let ok = green("ok");
    screen.line(format!(
        "{ok} CA      {}, node API {}",
        stage.ca.trust_domain, stage.ca.node_api
    ))?;
    for site in [&stage.web_1, &stage.web_2] {
        let mesh = site.status.listeners.get("mesh").map_or("", String::as_str);
        screen.line(format!(
            "{ok} proxy   {}, mutual TLS on {mesh}, bots at {}",
            site.status.host,
            site.files.bot_socket.display()
        ))?;
    }
    screen.line(format!(
        "{ok} bots    demo/checkout on web-1, demo/orders and demo/report on web-2, bound by `botmesh run --as`"
    ))?;
    if stage.web_1.status.same_user {
        screen.line(dim("   one user runs all of this, so identities here are a convenience, not a boundary; with real users they are one"))?;
    }
    Ok(())
}

async fn finish(stage: Stage, folder: &Folder, context: &Context) -> Result<Exit> {
    let screen = &context.screen;
    let dir = stage.dir.clone();
    stage.strike().await?;
    for name in ["ca", "web-1", "web-2"] {
        let ledger = dir.join(name).join("ledger");
        let report = audit::verified(&ledger, None).map_err(|failure| {
            Failure::new(
                Exit::Findings,
                format!("the ledger of {name} does not verify: {failure}"),
            )
        })?;
        if screen.is_table() {
            screen.line(format!(
                "{} ledger  {name}: {} records verify",
                green("ok"),
                report.records
            ))?;
        }
    }
    if screen.is_table()
        && let Folder::Kept(_) = folder
    {
        screen.line(bold("Try next"))?;
        for line in offline(&dir) {
            screen.line(format!("  {line}"))?;
        }
    }
    Ok(Exit::Fine)
}

fn suggest(stage: &Stage, folder: &Folder, context: &Context) -> Result<()> {
    let screen = &context.screen;
    let (program, at) = (shell(&config::program_name()), |path: &str| {
        shell(&stage.dir.join(path).display().to_string())
    });
    screen.line(bold("Try next, in another terminal"))?;
    let (proxy, ca) = (at("web-1/proxy.sock"), at("ca/ca.sock"));
    let run = format!("{program} run --as demo/checkout --server unix:{proxy} --");
    let lines = [
        format!("{run} curl -s http://orders.demo.mesh/orders/17"),
        format!("{run} curl -s -X DELETE http://orders.demo.mesh/orders/17"),
        format!("{program} status --server unix:{proxy}"),
        format!("{program} bot list --server unix:{ca}"),
        format!("{program} whois $$ --server unix:{proxy}"),
        format!("{program} audit query verdict=deny {}", at("web-1/ledger")),
    ];
    for line in lines.iter().chain(&offline(&stage.dir)) {
        screen.line(format!("  {line}"))?;
    }
    let end = match folder {
        Folder::Kept(_) => "Ctrl-C stops everything; the folder stays.",
        Folder::Temporary(_) => "Ctrl-C stops everything and removes its temporary folder.",
    };
    screen.line(end)?;
    Ok(())
}

/// Lines that need no running server.
fn offline(dir: &Path) -> [String; 2] {
    let (program, at) = (shell(&config::program_name()), |path: &str| {
        shell(&dir.join(path).display().to_string())
    });
    let explain = "policy explain demo/report demo/orders 'GET /orders/17' --mesh";
    [
        format!("{program} {explain} {}", at("mesh.yaml")),
        format!("{program} audit verify {}", at("web-1/ledger")),
    ]
}
