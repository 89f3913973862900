//! `proxy run|status`.

use std::path::Path;

use anyhow::{Context as _, Result};
use proxy::attest::helper;
use proxy::config::{Defaults, Operator, Settings};
use proxy::privileges::User;
use proxy::{Descent, DescentError, Manager, Passed};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args::{Proxy, ServerRun};
use crate::cli::{Context, status};
use crate::config;
use crate::exit::{Exit, Failure};
use crate::signals;

/// What the proxy has read, and given up, before it has threads.
#[derive(Debug)]
pub(crate) struct Prepared {
    settings: Settings,
    manager: Manager,
    descent: Option<Descent>,
}

/// Reads the settings and, where root starts the proxy, starts its helper and closes the way back up.
pub(crate) fn prepare(args: &ServerRun) -> Result<Prepared> {
    let manager = manager()?;
    let settings = settings(&args.config.config)?;
    let descent = Descent::begin(&settings).map_err(|error| {
        if matches!(error, DescentError::NoUser { .. }) {
            return Failure::invalid_file(format!("{}: {error}", args.config.config.display())).into();
        }
        anyhow::Error::new(error).context("run the proxy")
    })?;
    Ok(Prepared {
        settings,
        manager,
        descent,
    })
}

/// Takes what a service manager has for the proxy, and takes it out of the environment: only a process with one thread
/// may.
fn manager() -> Result<Manager> {
    let (variables, notify) = config::service_manager();
    Ok(Manager {
        sockets: Passed::take(&variables).context("take the sockets of the service manager")?,
        notify,
    })
}

/// Is the attest helper, until the proxy that started it has ended.
pub(crate) fn help(uid: u32, gid: u32) -> Result<()> {
    helper::run(User { uid, gid }).context("look into processes for the proxy")
}

/// Runs one of them.
pub(crate) async fn run(command: Proxy, prepared: super::Prepared, context: &Context) -> Result<Exit> {
    match command {
        Proxy::Run(args) => {
            let prepared = match prepared {
                super::Prepared::Proxy(prepared) => *prepared,
                super::Prepared::Nothing | super::Prepared::Done => prepare(&args)?,
            };
            serve(&args, prepared, context).await
        }
        Proxy::Status => status::proxy_status(context).await,
    }
}

async fn serve(args: &ServerRun, prepared: Prepared, context: &Context) -> Result<Exit> {
    let Prepared {
        settings,
        manager,
        descent,
    } = prepared;
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    signals::cancel_on_stop(&tasks, &cancel, args.with_parent)?;
    let outcome = proxy::run(settings, manager, context.clock.clone(), descent, cancel.clone()).await;
    cancel.cancel();
    tasks.close();
    tasks.wait().await;
    outcome.context("run the proxy")?;
    Ok(Exit::Fine)
}

/// Reads `proxy.yaml` and fills in what depends on who runs it.
pub(crate) fn settings(path: &Path) -> Result<Settings> {
    let defaults = Defaults {
        environment: proxy::credentials::Environment(config::variable),
        state_dir: config::state_home().join("proxy"),
        runtime_dir: config::runtime_dir(),
        operators: vec![Operator::Uid(nix::unistd::geteuid().as_raw())],
    };
    config::load::<proxy::config::Config>(path)?
        .resolve(&defaults)
        .map_err(|error| Failure::invalid_file(format!("{}: {error}", path.display())).into())
}
