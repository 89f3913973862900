//! The mesh file that `up` keeps live: watched, and applied again when its content (not only its date) has changed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use ca_api::admin::ApplyRequest;
use notify::{RecursiveMode, Watcher};
use policy::Source;
use spiffe::id::TrustDomain;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::applied::Applied;
use crate::cli::Context;
use crate::cli::apply::{Checked, checked, refusal, send};
use crate::cli::site::CaSite;
use crate::client::Server;
use crate::output::green;
use crate::sources;

/// Editors write in several steps: the file is read this long after the first.
const SETTLE: Duration = Duration::from_millis(60);

/// How often the content is looked at without a notification, for file systems that send none.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// A mesh file, or a folder of them, and what was last made of it.
#[derive(Debug)]
pub(crate) struct MeshFile {
    path: PathBuf,
    server: Server,
    memory: Applied,
    /// The content that was last tried, applied or not: a file that was rejected is told once.
    tried: Option<Vec<(String, String)>>,
    events: mpsc::Receiver<()>,
    look: Instant,
    _watcher: Option<notify::RecommendedWatcher>,
}

impl MeshFile {
    /// Watches it. Nothing is read yet.
    pub(crate) fn open(path: PathBuf, memory: &Path, ca: &CaSite) -> Result<Self> {
        let (sender, events) = mpsc::channel(1);
        // One waiting event stands for any number: a full channel loses nothing.
        let told = move |_event| if sender.try_send(()).is_err() {};
        let watcher = notify::recommended_watcher(told).and_then(|mut watcher| {
            watcher.watch(watched(&path), RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        Ok(Self {
            server: ca.server(),
            memory: Applied::of(memory.to_owned(), &ca.socket, std::slice::from_ref(&path)),
            path,
            tried: None,
            events,
            look: Instant::now() + LOOK_EVERY,
            _watcher: watcher
                .inspect_err(|error| tracing::warn!("changes are seen within {} s: {error}", LOOK_EVERY.as_secs()))
                .ok(),
        })
    }

    /// The trust domain that the file says, which must be valid at the start.
    pub(crate) fn trust_domain(&self, context: &Context) -> Result<TrustDomain> {
        let sources = sources::read(std::slice::from_ref(&self.path))?;
        Ok(sources::load(&sources, &context.screen)?.trust_domain().clone())
    }

    /// Waits until the content differs from what was last tried.
    pub(crate) async fn changed(&mut self) {
        loop {
            // Both arms only wait.
            tokio::select! {
                Some(()) = self.events.recv() => sleep(SETTLE).await,
                () = sleep_until(self.look) => {}
            }
            self.look = Instant::now() + LOOK_EVERY;
            if self.content() != self.tried {
                return;
            }
        }
    }

    /// Applies it, or says why not and leaves the running revision as it is.
    ///
    /// # Errors
    ///
    /// None that the file or the CA causes: those are told. Only a broken memory of what was applied.
    pub(crate) async fn apply(&mut self, context: &Context) -> Result<()> {
        self.tried = self.content();
        let screen = &context.screen;
        let sources = match checked(std::slice::from_ref(&self.path), context) {
            Ok(Checked::Passed(sources)) => sources,
            Ok(Checked::TestsFailed) => {
                screen.warn(format!(
                    "{}: a test failed; the running revision stays",
                    self.path.display()
                ));
                return Ok(());
            }
            Err(error) => {
                screen.warn(format!(
                    "{error:#}\n{} is rejected; the running revision stays",
                    self.path.display()
                ));
                return Ok(());
            }
        };
        let base = self.memory.base().context("read what was applied before")?;
        let request = ApplyRequest {
            sources,
            base,
            force: false,
            dry_run: false,
        };
        match send(&request, &self.server).await {
            Ok(Ok(response)) => {
                self.memory.remember(response.generation)?;
                let what = if response.unchanged { "unchanged" } else { "applied" };
                screen.warn(format!(
                    "{} {} {what}, revision {}",
                    green("ok"),
                    self.path.display(),
                    response.generation
                ));
            }
            Ok(Err(refused)) => {
                let error = refusal(refused, &self.server);
                screen.warn(format!(
                    "{error:#}\n{} is rejected; the running revision stays",
                    self.path.display()
                ));
            }
            // The CA may be starting again; the next look tries once more.
            Err(error) => {
                screen.warn(format!("{error:#}"));
                self.tried = None;
            }
        }
        Ok(())
    }

    fn content(&self) -> Option<Vec<(String, String)>> {
        let sources = sources::read(std::slice::from_ref(&self.path)).ok()?;
        Some(sources.into_iter().map(|Source { name, text }| (name, text)).collect())
    }
}

/// The folder to watch: a file is often replaced by renaming another over it, which ends a watch on the file itself.
fn watched(path: &Path) -> &Path {
    if path.is_dir() {
        path
    } else {
        path.parent().unwrap_or(path)
    }
}
