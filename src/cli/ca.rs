//! `ca init|run|status`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use ca::{Defaults, InitError, Operator, Settings};
use proxy::privileges;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args::{Ca, ServerRun};
use crate::cli::{Context, status};
use crate::client::Peer;
use crate::config;
use crate::exit::{Exit, Failure};
use crate::output::green;
use crate::signals;

/// Closes the process to others of its user and gives up every capability, before there are threads. Root keeps its own:
/// what it is told to write may be another user's.
pub(crate) fn prepare() -> Result<()> {
    let done = if nix::unistd::geteuid().is_root() {
        privileges::seal()
    } else {
        privileges::renounce()
    };
    done.context("give up what the CA does not need")
}

/// Runs one of them.
pub(crate) async fn run(command: Ca, context: &Context) -> Result<Exit> {
    match command {
        Ca::Init(args) => init(&args.config, context).await,
        Ca::Run(args) => serve(&args, context).await,
        Ca::Status => status::ca_status(context).await,
    }
}

async fn init(config: &Path, context: &Context) -> Result<Exit> {
    let settings = settings(config)?;
    let report = match ca::init(&settings, &context.clock).await {
        Ok(report) => report,
        Err(error @ InitError::AlreadyThere { .. }) => {
            return Err(Failure::new(Exit::Findings, error.to_string())
                .hint("`botmesh ca run` uses it as it is")
                .into());
        }
        Err(error) => return Err(anyhow::Error::new(error).context("make the CA")),
    };
    let screen = &context.screen;
    if screen.is_table() {
        screen.line(format!(
            "{} the CA of {}, root until {}",
            green("ok"),
            report.trust_domain,
            report.root_not_after
        ))?;
        screen.line(format!("   root pin  sha256:{}", report.root_pin))?;
        screen.line(format!("   store     {}", report.database.display()))?;
        screen.line(format!(
            "   key       {} opens the sealed root key: whoever has both is the CA",
            report.key_encryption_key.display()
        ))?;
    } else {
        screen.document(&json!({
            "trust_domain": report.trust_domain,
            "server": report.server,
            "root_pin": report.root_pin,
            "root_not_after": report.root_not_after,
            "database": report.database,
            "key_encryption_key": report.key_encryption_key,
        }))?;
    }
    Ok(Exit::Fine)
}

/// Makes the CA of a configuration unless there is one.
pub(crate) async fn init_if_new(config: &Path, context: &Context) -> Result<()> {
    let settings = settings(config)?;
    if settings.database.exists() {
        return Ok(());
    }
    ca::init(&settings, &context.clock).await.context("make the CA")?;
    Ok(())
}

async fn serve(args: &ServerRun, context: &Context) -> Result<Exit> {
    let settings = settings(&args.config.config)?;
    if !settings.database.exists() {
        let message = format!("there is no CA yet: {} does not exist", settings.database.display());
        return Err(Failure::new(Exit::Findings, message)
            .hint(format!("botmesh ca init --config {}", args.config.config.display()))
            .into());
    }
    if nix::unistd::geteuid().is_root() {
        tracing::warn!(
            "the CA runs as root; it needs no capability: run it as a user of its own, as deploy/install.sh does"
        );
    }
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    signals::cancel_on_stop(&tasks, &cancel, args.with_parent)?;
    let outcome = async {
        let running = ca::start(settings, context.clock.clone(), cancel.clone()).await?;
        let addresses = running.addresses();
        let socket = running.admin_socket().display().to_string();
        tracing::info!(node_api = %addresses.node_api, dashboard = %addresses.dashboard, admin = %socket, "the CA serves");
        if let Some(federation) = addresses.federation {
            tracing::info!(%federation, "anyone may read what verifies tokens");
        }
        running.ended().await
    }
    .await;
    cancel.cancel();
    tasks.close();
    tasks.wait().await;
    outcome.context("run the CA")?;
    Ok(Exit::Fine)
}

/// Reads `ca.yaml` and fills in what depends on who runs it.
pub(crate) fn settings(path: &Path) -> Result<Settings> {
    let defaults = Defaults {
        state_dir: config::state_home().join("ca"),
        admin_socket: config::runtime_dir().join(Peer::Ca.file_name()),
        operators: vec![Operator::Uid(nix::unistd::geteuid().as_raw())],
        credentials: config::variable("CREDENTIALS_DIRECTORY").map(PathBuf::from),
    };
    config::load::<ca::Config>(path)?
        .resolve(&defaults)
        .map_err(|error| Failure::invalid_file(format!("{}: {error}", path.display())).into())
}
