//! The demo's processes: a CA, two proxies, sample bots, each a process of its own on a port or socket of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use ca_api::admin::{ApplyRequest, ApplyResponse, CaStatus, MeshSource, path};
use ca_api::proxy_admin::{BotsResponse, ProxyStatus, path as proxy_path};
use spiffe::id::{HostName, TrustDomain};
use tokio::time::{Instant, sleep};

use crate::children::Child;
use crate::cli::demo::bots;
use crate::cli::demo::scene::Scene;
use crate::cli::site::{self, CaSite, Ports, ProxySettings, ProxySite};
use crate::cli::{Context, ca, host, up};
use crate::client::Server;
use crate::exit::{Exit, Failure};

/// How long the SVIDs of a host may take.
const SVIDS_TIMEOUT: Duration = Duration::from_secs(20);

/// Lines that the demo's proxies have beyond the ordinary.
const PROXY_SETTINGS: &str = "local_hop: mtls\ndisclose: full\n";

/// A running demo.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) dir: PathBuf,
    pub(crate) ca: CaStatus,
    pub(crate) web_1: Site,
    pub(crate) web_2: Site,
    pub(crate) quotes_port: u16,
    /// web-1's join token, spent.
    pub(crate) spent_token: String,
    ca_child: Child,
    bots: Vec<Child>,
}

/// One host of the demo.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) files: ProxySite,
    pub(crate) status: ProxyStatus,
    child: Child,
}

impl Stage {
    /// Starts everything but the callers.
    pub(crate) async fn set(dir: &Path, context: &Context) -> Result<Self> {
        let (orders, quotes_port) = (site::free_port()?, site::free_port()?);
        let checkout = dir.join("web-1/checkout.sock");
        let user = user_name()?;
        let mesh = Scene {
            user: &user,
            orders,
            quotes: quotes_port,
            checkout: &checkout,
        }
        .mesh();
        std::fs::write(dir.join("mesh.yaml"), &mesh).context("write the demo's mesh.yaml")?;

        let ground = Ground::lay(dir, mesh, context).await?;
        let ((web_1, spent_token), (web_2, _)) = tokio::try_join!(ground.site("web-1"), ground.site("web-2"))?;
        let (orders, checkout) = (format!("127.0.0.1:{orders}"), format!("unix:{}", checkout.display()));
        let (first, second) = tokio::try_join!(
            bots::callee(&web_2, Some("demo/orders"), &orders),
            bots::callee(&web_1, Some("demo/checkout"), &checkout),
        )?;
        Ok(Self {
            dir: dir.to_owned(),
            ca: ground.ca,
            ca_child: ground.child,
            web_1,
            web_2,
            quotes_port,
            spent_token,
            bots: vec![first, second],
        })
    }

    /// Starts a process that listens where a bot should, and is not that bot.
    pub(crate) async fn squat(&mut self, listen: &str) -> Result<()> {
        let squatter = bots::callee(&self.web_2, None, listen).await?;
        self.bots.push(squatter);
        Ok(())
    }

    /// Ends every process in order: bots, proxies, CA.
    pub(crate) async fn strike(self) -> Result<()> {
        for bot in self.bots {
            bot.stop().await?;
        }
        tokio::try_join!(self.web_1.child.stop(), self.web_2.child.stop())?;
        self.ca_child.stop().await
    }
}

/// A CA with the demo's mesh live: what proxies join.
struct Ground<'a> {
    dir: &'a Path,
    ca: CaStatus,
    child: Child,
    server: Server,
    extra: Vec<String>,
}

impl<'a> Ground<'a> {
    async fn lay(dir: &'a Path, mesh: String, context: &Context) -> Result<Self> {
        let domain = TrustDomain::parse("demo.internal").context("name the demo's trust domain")?;
        let extra = up::passed_on(context);
        let files = CaSite::in_folder(&dir.join("ca"));
        files.write_config(&domain, &dir.join("ca"), Ports::Free)?;
        ca::init_if_new(&files.config, context).await?;
        let mut child = files.program(&extra).log_to(&dir.join("ca/ca.log")).start()?;
        let server = files.server();
        let ca = site::ca_up(&server, &mut child).await?;
        let name = "mesh.yaml".to_owned();
        let request = ApplyRequest {
            sources: vec![MeshSource { name, text: mesh }],
            base: None,
            force: false,
            dry_run: false,
        };
        let _applied: ApplyResponse = server.post(path::APPLY, &request).await?;
        Ok(Self {
            dir,
            ca,
            child,
            server,
            extra,
        })
    }

    /// Starts the proxy of one host, and gives it with the token that it joined by.
    async fn site(&self, name: &str) -> Result<(Site, String)> {
        let files = ProxySite::in_folder(&HostName::parse(name)?, &self.dir.join(name));
        let address = &self.ca.node_api;
        files.write_config(&ProxySettings {
            trust_domain: &self.ca.trust_domain,
            ca: address
                .parse()
                .with_context(|| format!("read the CA's address {address}"))?,
            state: &files.dir,
            ports: Ports::Free,
            more: PROXY_SETTINGS,
        })?;
        let token = host::issue_token(&self.server, &files.host).await?.token;
        files.write_token(&token)?;
        let log = files.dir.join("proxy.log");
        let mut child = files.program(&self.extra).log_to(&log).start()?;
        let status = site::proxy_ready(&files.server(), &mut child).await?;
        files.forget_token()?;
        svids_ready(&files.server()).await?;
        Ok((Site { files, status, child }, token))
    }
}

/// The user who runs this, as the proxy's `run_by` sees it: by name, else by number.
fn user_name() -> Result<serde_json::Value> {
    let uid = nix::unistd::geteuid();
    let user = nix::unistd::User::from_uid(uid).context("look up this user")?;
    Ok(user.map_or_else(|| uid.as_raw().into(), |user| user.name.into()))
}

/// Waits until a proxy holds a valid SVID for every bot that may run here.
async fn svids_ready(server: &Server) -> Result<()> {
    let deadline = Instant::now() + SVIDS_TIMEOUT;
    loop {
        let bots: BotsResponse = server.get(proxy_path::BOTS).await?;
        if !bots.bots.is_empty() && bots.bots.iter().all(|bot| bot.ready) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Failure::new(Exit::Unreachable, "a proxy got no SVID for a bot of the demo in time").into());
        }
        sleep(Duration::from_millis(20)).await;
    }
}
