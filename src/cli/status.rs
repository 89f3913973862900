//! `status`: one screen that says how the mesh is, as far as this machine can see it.

mod calls;
mod federation;

use std::path::Path;

use anyhow::Result;
use ca_api::admin::{BotList, CaStatus, HostList, WatchAlerts, path as ca_path};
use ca_api::proxy_admin::{BotsResponse, ProxyStatus, path as proxy_path};
use serde::Serialize;
use serde_json::Value;
use spiffe::time::Timestamp;

use crate::cli::seen::{self, Seen, span};
use crate::cli::{Context, alerts, audit};
use crate::client::{Peer, Server};
use crate::exit::{Exit, Failure, code_of};
use crate::output::{Screen, bold, green, printable, red};

/// As many refusals as fit beside the rest.
const DENIALS_SHOWN: usize = 5;

/// Runs it.
pub(crate) async fn run(context: &Context) -> Result<Exit> {
    let flag = context.global.server.as_deref();
    let ca = ca(&Server::find(Peer::Ca, flag)?).await;
    let proxy = proxy(&Server::find(Peer::Proxy, flag)?).await;
    if let (Err(ca), Err(proxy)) = (&ca, &proxy) {
        let exit = code_of(ca);
        let message = format!("neither the CA nor the proxy of this host answers\n  CA: {ca:#}\n  proxy: {proxy:#}");
        return Err(Failure::new(exit, message).into());
    }
    let view = View {
        denials: proxy.as_ref().ok().map(denials),
        ca: ca.ok(),
        proxy: proxy.ok(),
    };
    if context.screen.is_table() {
        view.show(context.clock.now(), &context.screen)?;
    } else {
        context.screen.document(&view)?;
    }
    Ok(Exit::Fine)
}

#[derive(Debug, Serialize)]
struct View {
    ca: Option<CaView>,
    proxy: Option<ProxyView>,
    denials: Option<Vec<Value>>,
}

#[derive(Debug, Serialize)]
struct CaView {
    status: CaStatus,
    hosts: HostList,
    bots: BotList,
    /// What hosts told of calls in the last hour.
    seen: Option<Seen>,
    /// What is unlike the days before; none from a CA of an earlier version.
    alerts: Option<WatchAlerts>,
}

#[derive(Debug, Serialize)]
struct ProxyView {
    status: ProxyStatus,
    bots: BotsResponse,
}

async fn ca(server: &Server) -> Result<CaView> {
    Ok(CaView {
        status: server.get(ca_path::STATUS).await?,
        hosts: server.get(ca_path::HOSTS).await?,
        bots: server.get(ca_path::BOTS).await?,
        seen: seen::ask(server, None).await,
        alerts: server.get(ca_path::ALERTS).await.ok(),
    })
}

async fn proxy(server: &Server) -> Result<ProxyView> {
    Ok(ProxyView {
        status: server.get(proxy_path::STATUS).await?,
        bots: server.get(proxy_path::BOTS).await?,
    })
}

/// The newest refusals in this host's ledger; none where this user may not read it.
fn denials(proxy: &ProxyView) -> Vec<Value> {
    audit::newest(Path::new(&proxy.status.ledger), "verdict=deny", DENIALS_SHOWN).unwrap_or_default()
}

impl View {
    fn show(&self, now: Timestamp, screen: &Screen) -> Result<()> {
        match &self.ca {
            Some(ca) => ca.show(now, screen)?,
            None => screen.line(format!("{}     not reachable from here", bold("CA")))?,
        }
        match &self.proxy {
            Some(proxy) => proxy.show(screen)?,
            None => screen.line(format!("{}  not reachable from here", bold("proxy")))?,
        }
        if let Some(seen) = self.ca.as_ref().and_then(|ca| ca.seen.as_ref()) {
            refusals(seen, now, screen)?;
        }
        let denials = self.denials.as_deref().unwrap_or_default();
        if !denials.is_empty() {
            screen.line(bold("last refusals in the ledger of this host"))?;
        }
        for record in denials {
            screen.line(format!("  {}", audit::line(record)))?;
        }
        Ok(())
    }
}

/// What was refused anywhere in the mesh, as far as hosts have told.
fn refusals(seen: &Seen, now: Timestamp, screen: &Screen) -> Result<()> {
    let edges = seen::refused(&seen.edges, DENIALS_SHOWN, now);
    let calls = seen::denied(&seen.events.denied, DENIALS_SHOWN, now);
    let titles = [
        format!("refused in the mesh in the last {}", span(seen.edges.since, now)),
        "last refusals in the mesh".to_owned(),
    ];
    for (title, lines) in titles.into_iter().zip([edges, calls]) {
        if !lines.is_empty() {
            screen.line(bold(&title))?;
        }
        lines
            .into_iter()
            .try_for_each(|line| screen.line(format!("  {line}")))?;
    }
    for alert in seen.events.alerts.iter().take(DENIALS_SHOWN) {
        screen.line(format!(
            "{} {}: {}  {}  {} ago",
            red("ALERT"),
            alert.host,
            bold(&printable(&alert.reason)),
            printable(&alert.message),
            span(alert.time, now)
        ))?;
    }
    Ok(())
}

impl CaView {
    fn show(&self, now: Timestamp, screen: &Screen) -> Result<()> {
        let status = &self.status;
        screen.line(format!(
            "{}     {} on {}, revision {}, root until {}",
            bold("CA"),
            status.trust_domain,
            status.server,
            bold(&status.generation.to_string()),
            status.root_not_after
        ))?;
        screen.line(format!(
            "       {} of {} hosts connected, {} bots, {} SVIDs issued since {}",
            status.hosts_connected, status.hosts, status.bots, status.issued, status.started
        ))?;
        if status.quarantines > 0 || status.refused > 0 {
            screen.line(format!(
                "       {} quarantined; hosts asked or said {} times what they may not",
                status.quarantines, status.refused
            ))?;
        }
        if let Some(federation) = &status.federation {
            federation::show(federation, now, screen)?;
        }
        notes(&status.notes, screen)?;
        let watched = self
            .alerts
            .iter()
            .flat_map(|found| alerts::lines(&found.alerts, DENIALS_SHOWN, now));
        for line in seen::alerts(&self.hosts.hosts, now).into_iter().chain(watched) {
            screen.line(format!("  {line}"))?;
        }
        for host in &self.hosts.hosts {
            let stream = match (host.quarantined, host.connected) {
                (true, _) => red("quarantined"),
                (false, true) => green("up"),
                (false, false) => red("down"),
            };
            let applied = host
                .applied
                .map_or_else(|| "nothing".to_owned(), |applied| applied.to_string());
            screen.line(format!(
                "  host {}  {stream}  at {applied}  node SVID until {}",
                host.host, host.not_after
            ))?;
        }
        Ok(())
    }
}

impl ProxyView {
    fn show(&self, screen: &Screen) -> Result<()> {
        let status = &self.status;
        let ready = if status.ready { green("ready") } else { red("not ready") };
        let at = status
            .generation
            .map_or_else(|| "nothing".to_owned(), |generation| generation.to_string());
        let stream = if status.ca_connected {
            "CA heard"
        } else {
            "CA not connected"
        };
        screen.line(format!(
            "{}  {} {ready}, enforces {at}, {stream}",
            bold("proxy"),
            status.host
        ))?;
        notes(&status.not_ready, screen)?;
        if status.same_user {
            screen.line(
                "       same-user mode: identities among processes of one user are a convenience, not a boundary",
            )?;
        }
        notes(&status.notes, screen)?;
        if let Some(calls) = &status.calls {
            calls::show(calls, screen)?;
        }
        for bot in &self.bots.bots {
            let ready = if bot.ready { green("ready") } else { red("no SVID") };
            let until = bot.not_after.map_or_else(String::new, |end| format!("  until {end}"));
            let serves = bot
                .serves
                .as_deref()
                .map_or_else(String::new, |at| format!("  serves {at}"));
            screen.line(format!("  bot {}  {ready}{until}{serves}", bot.bot))?;
            notes(&bot.notes, screen)?;
        }
        Ok(())
    }
}

fn notes(notes: &[String], screen: &Screen) -> Result<()> {
    for note in notes {
        screen.line(format!("       note: {}", printable(note)))?;
    }
    Ok(())
}

/// Runs `ca status`.
pub(crate) async fn ca_status(context: &Context) -> Result<Exit> {
    let view = ca(&Server::find(Peer::Ca, context.global.server.as_deref())?).await?;
    if context.screen.is_table() {
        view.show(context.clock.now(), &context.screen)?;
    } else {
        context.screen.document(&view.status)?;
    }
    Ok(Exit::Fine)
}

/// Runs `proxy status`.
pub(crate) async fn proxy_status(context: &Context) -> Result<Exit> {
    let view = proxy(&Server::find(Peer::Proxy, context.global.server.as_deref())?).await?;
    if context.screen.is_table() {
        view.show(&context.screen)?;
    } else {
        context.screen.document(&view.status)?;
    }
    Ok(Exit::Fine)
}
