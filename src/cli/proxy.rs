//! `proxy run|status`.

use std::path::Path;

use anyhow::{Context as _, Result};
use proxy::config::{Defaults, Operator, Settings};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args::{Proxy, ServerRun};
use crate::cli::{Context, status};
use crate::config;
use crate::exit::{Exit, Failure};
use crate::signals;

/// Runs one of them.
pub(crate) async fn run(command: Proxy, context: &Context) -> Result<Exit> {
    match command {
        Proxy::Run(args) => serve(&args, context).await,
        Proxy::Status => status::proxy_status(context).await,
    }
}

async fn serve(args: &ServerRun, context: &Context) -> Result<Exit> {
    let settings = settings(&args.config.config)?;
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    signals::cancel_on_stop(&tasks, &cancel, args.with_parent)?;
    let outcome = proxy::run(settings, context.clock.clone(), cancel.clone()).await;
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
