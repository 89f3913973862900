//! `proxy run|status`.

use std::path::Path;

use anyhow::{Context as _, Result};
use proxy::config::{Defaults, Operator, Settings};
use proxy::{Manager, Passed};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args::{Command, Proxy, ServerRun};
use crate::cli::{Context, status};
use crate::config;
use crate::exit::{Exit, Failure};
use crate::signals;

/// Runs one of them.
pub(crate) async fn run(command: Proxy, manager: Manager, context: &Context) -> Result<Exit> {
    match command {
        Proxy::Run(args) => serve(&args, manager, context).await,
        Proxy::Status => status::proxy_status(context).await,
    }
}

/// Takes what a service manager has for `proxy run`. Call it before any thread is started.
pub(crate) fn manager(command: &Command) -> Result<Manager> {
    if !matches!(command, Command::Proxy(Proxy::Run(_))) {
        return Ok(Manager::default());
    }
    let (variables, notify) = config::service_manager();
    Ok(Manager {
        sockets: Passed::take(&variables).context("take the sockets of the service manager")?,
        notify,
    })
}

async fn serve(args: &ServerRun, manager: Manager, context: &Context) -> Result<Exit> {
    let settings = settings(&args.config.config)?;
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    signals::cancel_on_stop(&tasks, &cancel, args.with_parent)?;
    let outcome = proxy::run(settings, manager, context.clock.clone(), cancel.clone()).await;
    cancel.cancel();
    tasks.close();
    tasks.wait().await;
    outcome.context("run the proxy")?;
    Ok(Exit::Fine)
}

/// Reads `proxy.yaml` and fills in what depends on who runs it.
pub(crate) fn settings(path: &Path) -> Result<Settings> {
    let defaults = Defaults {
        state_dir: config::state_home().join("proxy"),
        runtime_dir: config::runtime_dir(),
        operators: vec![Operator::Uid(nix::unistd::geteuid().as_raw())],
    };
    config::load::<proxy::config::Config>(path)?
        .resolve(&defaults)
        .map_err(|error| Failure::invalid_file(format!("{}: {error}", path.display())).into())
}
