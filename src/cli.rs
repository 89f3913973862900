//! The commands: each module runs one family of them and answers with an exit code.

mod agents_md;
mod alerts;
mod apply;
mod audit;
mod bot;
mod bundle;
pub(crate) mod ca;
mod check;
mod demo;
mod demo_bot;
mod guard;
mod help;
mod host;
mod import;
mod policy;
pub(crate) mod proxy;
mod quarantine;
mod run;
mod scan;
mod secret;
mod seen;
mod site;
mod status;
mod up;
mod who;

use anyhow::Result;
use spiffe::time::Clock;

use crate::args::{Cli, Command, Global};
use crate::exit::Exit;
use crate::logging::{self, Speaker};
use crate::output::Screen;

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) screen: Screen,
    pub(crate) clock: Clock,
    pub(crate) global: Global,
}

/// What has to be done while the process has one thread.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// Nothing had to be.
    Nothing,
    /// The proxy of this host may start.
    Proxy(Box<proxy::Prepared>),
    /// The command is done.
    Done,
}

/// Does what has to be done before there are threads: a server gives up what it must never use.
pub(crate) fn prepare(command: &Command) -> Result<Prepared> {
    if let Command::Proxy(crate::args::Proxy::Run(args)) = command {
        return Ok(Prepared::Proxy(Box::new(proxy::prepare(args)?)));
    }
    if let Command::AttestHelper { uid, gid } = command {
        proxy::help(*uid, *gid)?;
        return Ok(Prepared::Done);
    }
    if matches!(command, Command::Ca(crate::args::Ca::Run(_))) {
        ca::prepare()?;
    }
    Ok(Prepared::Nothing)
}

/// Runs the command that was typed.
pub(crate) async fn run(cli: Cli, prepared: Prepared) -> Result<Exit> {
    logging::start(speaker(&cli.command), &cli.global);
    let context = Context {
        screen: Screen::new(&cli.global),
        clock: clock(&cli.global).await?,
        global: cli.global,
    };
    let context = &context;
    match cli.command {
        Command::Demo(args) => Box::pin(demo::run(args, context)).await,
        Command::Up(args) => Box::pin(up::run(args, context)).await,
        Command::Ca(command) => Box::pin(ca::run(command, context)).await,
        Command::Proxy(command) => Box::pin(proxy::run(command, prepared, context)).await,
        Command::Host(command) => host::run(command, context).await,
        Command::Apply(args) => apply::apply(args, context).await,
        Command::Rollback(args) => apply::rollback(args, context).await,
        Command::Quarantine(args) => quarantine::quarantine(args, context).await,
        Command::Release(args) => quarantine::release(args, context).await,
        Command::Secret(command) => secret::run(command, context).await,
        Command::Scan(args) => scan::run(&args, &context.screen),
        Command::Import(command) => import::run(command, context).await,
        Command::Policy(command) => policy::run(command, context).await,
        Command::Bot(command) => bot::run(command, context).await,
        Command::Bundle(command) => bundle::run(command, context).await,
        Command::Run(args) => run::run(args, context).await,
        Command::Whoami => who::whoami(context).await,
        Command::Whois(args) => who::whois(&args, context).await,
        Command::Audit(command) => audit::run(command, context).await,
        Command::Alerts(args) => alerts::run(args, context).await,
        Command::Status => status::run(context).await,
        Command::Check => Box::pin(check::run(context)).await,
        Command::AgentsMd => agents_md::run(&context.screen),
        Command::Help(args) => help::run(&args, &context.screen),
        Command::DemoBot(command) => demo_bot::run(command, &context.screen).await,
        Command::Stranger(command) => check::stranger(&command, &context.screen),
        // It was done before there were threads.
        Command::AttestHelper { .. } => Ok(Exit::Fine),
    }
}

fn speaker(command: &Command) -> Speaker {
    use crate::args::{Ca, Proxy};
    match command {
        Command::Ca(Ca::Run(_)) | Command::Proxy(Proxy::Run(_)) | Command::Up(_) => Speaker::Server,
        Command::Ca(Ca::Init(_) | Ca::Status)
        | Command::Proxy(Proxy::Status)
        | Command::Demo(_)
        | Command::Host(_)
        | Command::Apply(_)
        | Command::Rollback(_)
        | Command::Quarantine(_)
        | Command::Release(_)
        | Command::Secret(_)
        | Command::Scan(_)
        | Command::Import(_)
        | Command::Policy(_)
        | Command::Bot(_)
        | Command::Bundle(_)
        | Command::Run(_)
        | Command::Whoami
        | Command::Whois(_)
        | Command::Audit(_)
        | Command::Alerts(_)
        | Command::Status
        | Command::Check
        | Command::AgentsMd
        | Command::Help(_)
        | Command::DemoBot(_)
        | Command::Stranger(_)
        | Command::AttestHelper { .. } => Speaker::Command,
    }
}

#[cfg(feature = "test-clock")]
async fn clock(global: &Global) -> Result<Clock> {
    use anyhow::Context as _;
    match &global.clock {
        Some(path) => Clock::follow(path)
            .await
            .with_context(|| format!("follow the clock at {}", path.display())),
        None => Ok(Clock::system()),
    }
}

#[cfg(not(feature = "test-clock"))]
#[expect(
    clippy::unused_async,
    reason = "the build with the feature `test-clock` connects to its clock here"
)]
async fn clock(_global: &Global) -> Result<Clock> {
    Ok(Clock::system())
}
