//! `whoami` and `whois PID`: what the proxy of this host sees.

use anyhow::Result;
use ca_api::proxy_admin::{WhoAmI, WhoisResponse, path};
use spiffe::selector::Facts;

use crate::args::Whois;
use crate::cli::Context;
use crate::client::{Peer, Server};
use crate::exit::Exit;
use crate::output::{bold, printable};

/// Asks on the bot socket, as this very process: the answer is about whoever started it.
pub(crate) async fn whoami(context: &Context) -> Result<Exit> {
    let server = Server::find(Peer::BotSide, context.global.server.as_deref())?;
    let me: WhoAmI = server.get(path::WHOAMI).await?;
    let exit = if me.bot.is_some() { Exit::Fine } else { Exit::Findings };
    let screen = &context.screen;
    if !screen.is_table() {
        screen.document(&me)?;
        return Ok(exit);
    }
    match (&me.bot, &me.id) {
        (Some(bot), Some(id)) => screen.line(format!("{}  {id}  on {}", bold(bot.as_str()), me.host))?,
        (Some(bot), None) => screen.line(format!("{}  on {}", bold(bot.as_str()), me.host))?,
        (None, _) => screen.line(format!("{}  on {}", bold("nobody"), me.host))?,
    }
    for (name, value) in facts(&me.facts) {
        screen.line(format!("  {name:<11} {value}"))?;
    }
    if let Some(end) = me.svid_not_after {
        screen.line(format!("  {:<11} {end}", "SVID until"))?;
    }
    if me.bot.is_some() {
        let may: Vec<&str> = me.may_call.iter().map(spiffe::id::BotName::as_str).collect();
        screen.line(format!(
            "  {:<11} {}",
            "may call",
            if may.is_empty() {
                "nobody".to_owned()
            } else {
                may.join(", ")
            }
        ))?;
    }
    if !me.message.is_empty() {
        screen.line(format!("  {}", printable(&me.message)))?;
    }
    Ok(exit)
}

/// Asks on the admin socket, as an operator.
pub(crate) async fn whois(args: &Whois, context: &Context) -> Result<Exit> {
    let server = Server::find(Peer::Proxy, context.global.server.as_deref())?;
    let found: WhoisResponse = server.get(&format!("{}?pid={}", path::WHOIS, args.pid)).await?;
    let exit = if found.bot.is_some() {
        Exit::Fine
    } else {
        Exit::Findings
    };
    let screen = &context.screen;
    if !screen.is_table() {
        screen.document(&found)?;
        return Ok(exit);
    }
    let name = found.bot.as_ref().map_or("nobody", spiffe::id::BotName::as_str);
    screen.line(format!("{}  process {}", bold(name), args.pid))?;
    for (name, value) in facts(&found.facts) {
        screen.line(format!("  {name:<11} {value}"))?;
    }
    if !found.message.is_empty() {
        screen.line(format!("  {}", printable(&found.message)))?;
    }
    if let Some(nearest) = &found.nearest {
        screen.line(format!("  {:<11} {nearest}", "nearest"))?;
    }
    if let Some(differs) = &found.differs {
        let (wanted, seen) = (printable(&differs.wanted), printable(&differs.found));
        screen.line(format!(
            "  {:<11} {}: the entry has {wanted}, the process has {seen}",
            "differs", differs.selector
        ))?;
    }
    if !found.entry.is_empty() {
        screen.line(format!(
            "\nAn entry for it, under `bots:` of the mesh file:\n\n{}",
            found.entry.trim_end()
        ))?;
    }
    Ok(exit)
}

/// The groups by number, then the names that are known.
fn groups(facts: &Facts) -> Option<String> {
    let gids: Vec<String> = facts.gids.iter().map(u32::to_string).collect();
    let names = match facts.groups.as_slice() {
        [] => String::new(),
        names => format!(" ({})", names.join(", ")),
    };
    (!gids.is_empty()).then(|| gids.join(", ") + &names)
}

/// The facts that selectors match, as name and value; what the process chose itself is escaped.
fn facts(facts: &Facts) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("pid", facts.pid.to_string()),
        ("uid", facts.uid.to_string()),
        ("gid", facts.gid.to_string()),
    ];
    let optional = [
        ("user", facts.user.clone()),
        ("exe", facts.exe.clone()),
        ("exe seen", facts.exe_seen.clone().filter(|_| facts.exe.is_none())),
        ("exe_sha256", facts.exe_sha256.clone()),
        ("run", facts.run.as_ref().map(ToString::to_string)),
        ("groups", groups(facts)),
        ("unit", facts.unit.clone()),
        ("cgroup", facts.cgroup.clone()),
        ("socket of", facts.socket.as_ref().map(ToString::to_string)),
    ];
    rows.extend(
        optional
            .into_iter()
            .filter_map(|(name, value)| Some((name, printable(&value?)))),
    );
    rows
}
