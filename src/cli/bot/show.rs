//! `bot show BOT`: what the live mesh, the CA and the proxy of this host know of one bot.

use anyhow::Result;
use ca_api::Generation;
use ca_api::admin::{Bot as BotStatus, BotList, MeshSources, path};
use ca_api::proxy_admin::{BotStatus as LocalStatus, BotsResponse, path as proxy_path};
use policy::{RuleAbout, Source, Target, Verdict};
use serde::Serialize;
use spiffe::id::BotName;
use spiffe::selector::SelectorSet;
use spiffe::time::Timestamp;

use crate::cli::Context;
use crate::cli::seen::{self, Seen, span};
use crate::client::{Peer, Server};
use crate::exit::{Exit, Failure};
use crate::output::{Screen, bold, dim, green, printable, red};
use crate::sources;

/// As many refusals as fit beside the rest.
const DENIED_SHOWN: usize = 5;

/// Runs it.
pub(super) async fn run(name: &BotName, server: &Server, context: &Context) -> Result<Exit> {
    let live: MeshSources = server.get(path::MESH).await?;
    let bots: BotList = server.get(path::BOTS).await?;
    let Some(status) = bots.bots.into_iter().find(|bot| bot.bot == *name) else {
        let message = format!("there is no bot {name} in revision {}", live.generation);
        return Err(Failure::new(Exit::Findings, message).hint("botmesh bot list").into());
    };
    let read = live.sources.into_iter().map(|source| Source {
        name: source.name,
        text: source.text,
    });
    let mesh = sources::load(&read.collect::<Vec<_>>(), &context.screen)?;
    let here = here(name, context).await;
    let mut shown = Shown::new(status, live.generation, &mesh, here);
    shown.seen = seen::ask(server, Some(name)).await;
    if context.screen.is_table() {
        shown.show(context.clock.now(), &context.screen)?;
    } else {
        context.screen.document(&shown)?;
    }
    Ok(Exit::Fine)
}

/// What the proxy of this host says of the bot, where there is a proxy and it may claim the bot.
async fn here(name: &BotName, context: &Context) -> Option<LocalStatus> {
    let server = Server::find(Peer::Proxy, context.global.server.as_deref()).ok()?;
    let bots: BotsResponse = server.get(proxy_path::BOTS).await.ok()?;
    bots.bots.into_iter().find(|bot| bot.bot == *name)
}

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    status: BotStatus,
    generation: Generation,
    attest: Vec<SelectorSet>,
    /// Where it serves on its hosts: `127.0.0.1:PORT` or `unix:PATH`.
    serve: Option<String>,
    /// It serves on a loopback port, which every process of its hosts can call unless a guard is loaded there.
    open_locally: bool,
    callers: Vec<Rule>,
    callees: Vec<Rule>,
    /// What the proxy of this host says of it.
    here: Option<LocalStatus>,
    /// What hosts told of its calls in the last hour.
    seen: Option<Seen>,
}

#[derive(Debug, Serialize)]
struct Rule {
    rule: String,
    verdict: &'static str,
    bots: Vec<BotName>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outside: Vec<String>,
    /// Empty for every call.
    calls: Vec<String>,
    until: Option<Timestamp>,
}

impl Shown {
    fn new(status: BotStatus, generation: Generation, mesh: &policy::Mesh, here: Option<LocalStatus>) -> Self {
        let bot = mesh.bots().get(&status.bot);
        let serve = bot.and_then(|bot| bot.serve.as_ref());
        let about = mesh.rules_about(&status.bot);
        Self {
            generation,
            attest: bot.map(|bot| bot.attest.clone()).unwrap_or_default(),
            serve: serve.map(ToString::to_string),
            open_locally: serve.is_some_and(|serve| serve.targets().any(|target| matches!(target, Target::Port(_)))),
            callers: about.to_it.into_iter().map(Rule::new).collect(),
            callees: about.by_it.into_iter().map(Rule::new).collect(),
            here,
            seen: None,
            status,
        }
    }

    fn show(&self, now: Timestamp, screen: &Screen) -> Result<()> {
        let status = &self.status;
        let hosts: Vec<String> = status.hosts.iter().map(ToString::to_string).collect();
        let never = || "never issued".to_owned();
        screen.line(format!("{}  {}", bold(status.bot.as_str()), status.id))?;
        if status.quarantined {
            let text = format!("quarantined; `botmesh release {}` ends it", status.bot);
            screen.line(format!("  state      {}", red(&text)))?;
        }
        screen.line(format!("  owner      {}", printable(&status.owner)))?;
        screen.line(format!("  hosts      {}", hosts.join(", ")))?;
        for (number, set) in self.attest.iter().enumerate() {
            let word = if number == 0 { "attest" } else { "or" };
            screen.line(format!("  {word:<9}  {}", selectors(set)))?;
        }
        screen.line(format!(
            "  SVID       until {}, lives {} s, last issued {}",
            status.svid_not_after.map_or_else(never, |end| end.to_string()),
            status.svid_ttl_seconds,
            status.last_issued.map_or_else(never, |at| at.to_string())
        ))?;
        screen.line(format!("  serves     {}", self.serve.as_deref().unwrap_or("nothing")))?;
        if self.open_locally {
            let text = "open locally: any process of its hosts can call it without the proxy, unless `botmesh host guard` is loaded";
            screen.line(format!("             {}", red(text)))?;
        }
        for endpoint in &status.endpoints {
            screen.line(format!("  reached at {endpoint}"))?;
        }
        if let Some(here) = &self.here {
            let ready = if here.ready { green("ready") } else { red("no SVID") };
            screen.line(format!("  here       {ready}"))?;
            for note in &here.notes {
                screen.line(format!("             note: {}", printable(note)))?;
            }
        }
        rules("who may call it", &self.callers, now, screen)?;
        rules("whom it may call", &self.callees, now, screen)?;
        if let Some(seen) = &self.seen {
            calls(&status.bot, seen, now, screen)?;
        }
        Ok(screen.line(dim(&format!(
            "revision {}; a deny rule wins over every allow",
            self.generation
        )))?)
    }
}

impl Rule {
    fn new(rule: RuleAbout) -> Self {
        Self {
            rule: rule.rule.to_string(),
            verdict: match rule.verdict {
                Verdict::Allow => "allow",
                Verdict::Audit => "audit",
                Verdict::Deny => "deny",
            },
            bots: rule.bots,
            outside: rule.outside,
            calls: rule.calls,
            until: rule.until,
        }
    }
}

/// Who called it and whom it called, as far as hosts told, and what was refused.
fn calls(bot: &BotName, seen: &Seen, now: Timestamp, screen: &Screen) -> Result<()> {
    let since = span(seen.edges.since, now);
    let by_it = seen::calls(&seen.edges, |edge| (edge.from == *bot).then_some(edge.to.as_str()), now);
    let to_it = seen::calls(
        &seen.edges,
        |edge| (edge.to == bot.as_str()).then_some(edge.from.as_str()),
        now,
    );
    for (title, lines) in [("who called it", to_it), ("whom it called", by_it)] {
        screen.line(bold(&format!("{title} in the last {since}")))?;
        if lines.is_empty() {
            screen.line("  nobody, as far as hosts have told")?;
        }
        lines
            .into_iter()
            .try_for_each(|line| screen.line(format!("  {line}")))?;
    }
    let denied = seen::denied(&seen.events.denied, DENIED_SHOWN, now);
    if !denied.is_empty() {
        screen.line(bold("last refusals"))?;
    }
    denied
        .into_iter()
        .try_for_each(|line| screen.line(format!("  {line}")))?;
    Ok(())
}

/// Writes what must hold, as `user=orders exe=/srv/orders/bin/orders`.
fn selectors(set: &SelectorSet) -> String {
    let value = serde_json::to_value(set).unwrap_or_default();
    let fields = value
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, value)| !value.is_null() && **value != false);
    let words = fields.map(|(name, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        format!("{name}={}", printable(&text))
    });
    words.collect::<Vec<_>>().join(" ")
}

fn rules(title: &str, rules: &[Rule], now: Timestamp, screen: &Screen) -> Result<()> {
    screen.line(bold(title))?;
    if rules.is_empty() {
        screen.line("  nobody: no rule says so")?;
    }
    for rule in rules {
        let bots = rule.bots.iter().map(BotName::as_str);
        let bots: Vec<&str> = bots.chain(rule.outside.iter().map(String::as_str)).collect();
        let calls = if rule.calls.is_empty() {
            "every call".to_owned()
        } else {
            rule.calls.join(", ")
        };
        let until = match rule.until {
            None => String::new(),
            Some(end) if end <= now => red(&format!("  ended {end}")),
            Some(end) => format!("  until {end}"),
        };
        let verdict = if rule.verdict == "allow" {
            green("allow")
        } else {
            red("deny ")
        };
        screen.line(format!(
            "  {verdict}  {}  {calls}  {}{until}",
            bots.join(", "),
            dim(&rule.rule)
        ))?;
    }
    Ok(())
}
