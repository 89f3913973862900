//! `bot list|show|blast`.

mod blast;
mod show;

use anyhow::Result;
use ca_api::admin::{Bot as BotStatus, BotList, path};

use crate::args::Bot;
use crate::cli::Context;
use crate::cli::seen::span;
use crate::client::{Peer, Server};
use crate::exit::Exit;
use spiffe::time::Timestamp;

/// Runs it.
pub(crate) async fn run(command: Bot, context: &Context) -> Result<Exit> {
    let server = Server::find(Peer::Ca, context.global.server.as_deref())?;
    match command {
        Bot::List => list(&server, context).await,
        Bot::Show { bot } => show::run(&bot, &server, context).await,
        Bot::Blast(args) => blast::run(args, &server, context).await,
    }
}

async fn list(server: &Server, context: &Context) -> Result<Exit> {
    let list: BotList = server.get(path::BOTS).await?;
    if context.screen.format == crate::args::Format::Json {
        context.screen.document(&list)?;
        return Ok(Exit::Fine);
    }
    let now = context.clock.now();
    let headings = ["BOT", "STATE", "OWNER", "HOSTS", "SERVES AT", "SVID"];
    context.screen.list(&list.bots, &headings, |bot| row(bot, now))?;
    context.screen.note(format!("revision {}", list.generation));
    Ok(Exit::Fine)
}

/// One word for how the bot is.
fn state(bot: &BotStatus, now: Timestamp) -> &'static str {
    if bot.quarantined {
        return "quarantined";
    }
    match bot.svid_not_after {
        _ if bot.connected_hosts.is_empty() => "no host",
        None => "no SVID yet",
        Some(end) if end <= now => "SVID ended",
        Some(_) => "ok",
    }
}

fn row(bot: &BotStatus, now: Timestamp) -> Vec<String> {
    let hosts: Vec<String> = bot.hosts.iter().map(ToString::to_string).collect();
    let serves = match (bot.serves, bot.endpoints.is_empty()) {
        (false, _) => "-".to_owned(),
        (true, true) => "nowhere yet".to_owned(),
        (true, false) => bot.endpoints.join(", "),
    };
    let svid = match (bot.last_issued, bot.svid_not_after) {
        (Some(issued), Some(end)) if end > now => {
            format!("{} old, ends in {}", span(issued, now), span(now, end))
        }
        (_, Some(end)) => format!("ended {} ago", span(end, now)),
        (_, None) => "never issued".to_owned(),
    };
    vec![
        bot.bot.to_string(),
        state(bot, now).to_owned(),
        bot.owner.clone(),
        format!("{} ({} up)", hosts.join(", "), bot.connected_hosts.len()),
        serves,
        svid,
    ]
}

#[cfg(test)]
mod tests {
    use spiffe::id::{BotName, HostName, HostPattern};

    use super::*;
    use crate::output::table;

    const NOW: Timestamp = Timestamp::from_unix_millis(10_000_000);

    fn bot(name: &str, change: impl FnOnce(&mut BotStatus)) -> BotStatus {
        let mut bot = BotStatus {
            bot: BotName::parse(name).unwrap(),
            id: String::new(),
            owner: "shop@acme.internal".to_owned(),
            hosts: vec![HostPattern::parse("web-*").unwrap()],
            serves: true,
            endpoints: vec!["10.0.0.5:15443".to_owned()],
            svid_ttl_seconds: 3600,
            last_issued: Some(Timestamp::from_unix_millis(10_000_000 - 600_000)),
            svid_not_after: Some(Timestamp::from_unix_millis(10_000_000 + 3_000_000)),
            quarantined: false,
            connected_hosts: vec![HostName::parse("web-1").unwrap()],
        };
        change(&mut bot);
        bot
    }

    #[test]
    fn the_list_says_of_each_bot_in_a_word_how_it_is() {
        let bots = [
            bot("prod/a", |_| ()),
            bot("prod/b", |bot| bot.quarantined = true),
            bot("prod/c", |bot| bot.connected_hosts.clear()),
            bot("prod/d", |bot| {
                (bot.serves, bot.svid_not_after, bot.last_issued) = (false, None, None);
            }),
            bot("prod/e", |bot| {
                bot.svid_not_after = Some(Timestamp::from_unix_millis(9_000_000))
            }),
        ];
        let rows: Vec<Vec<String>> = bots.iter().map(|bot| row(bot, NOW)).collect();
        let text = table(&["BOT", "STATE", "OWNER", "HOSTS", "SERVES AT", "SVID"], &rows);
        assert_eq!(
            text,
            "BOT     STATE        OWNER               HOSTS         SERVES AT       SVID\n\
             prod/a  ok           shop@acme.internal  web-* (1 up)  10.0.0.5:15443  10m old, ends in 50m\n\
             prod/b  quarantined  shop@acme.internal  web-* (1 up)  10.0.0.5:15443  10m old, ends in 50m\n\
             prod/c  no host      shop@acme.internal  web-* (0 up)  10.0.0.5:15443  10m old, ends in 50m\n\
             prod/d  no SVID yet  shop@acme.internal  web-* (1 up)  -               never issued\n\
             prod/e  SVID ended   shop@acme.internal  web-* (1 up)  10.0.0.5:15443  ended 16m ago\n"
        );
    }
}
