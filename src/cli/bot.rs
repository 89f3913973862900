//! `bot list|show`.

mod show;

use anyhow::Result;
use ca_api::admin::{Bot as BotStatus, BotList, path};

use crate::args::Bot;
use crate::cli::Context;
use crate::client::{Peer, Server};
use crate::exit::Exit;

/// Runs it.
pub(crate) async fn run(command: Bot, context: &Context) -> Result<Exit> {
    let server = Server::find(Peer::Ca, context.global.server.as_deref())?;
    match command {
        Bot::List => list(&server, context).await,
        Bot::Show { bot } => show::run(&bot, &server, context).await,
    }
}

async fn list(server: &Server, context: &Context) -> Result<Exit> {
    let list: BotList = server.get(path::BOTS).await?;
    if context.screen.format == crate::args::Format::Json {
        context.screen.document(&list)?;
        return Ok(Exit::Fine);
    }
    context
        .screen
        .list(&list.bots, &["BOT", "OWNER", "HOSTS", "SERVES AT", "SVID UNTIL"], row)?;
    context.screen.note(format!("revision {}", list.generation));
    Ok(Exit::Fine)
}

fn row(bot: &BotStatus) -> Vec<String> {
    let hosts: Vec<String> = bot.hosts.iter().map(ToString::to_string).collect();
    let serves = match (bot.serves, bot.endpoints.is_empty()) {
        (false, _) => "-".to_owned(),
        (true, true) => "nowhere yet".to_owned(),
        (true, false) => bot.endpoints.join(", "),
    };
    vec![
        bot.bot.to_string(),
        bot.owner.clone(),
        hosts.join(", "),
        serves,
        bot.svid_not_after
            .map_or_else(|| "never issued".to_owned(), |end| end.to_string()),
    ]
}
