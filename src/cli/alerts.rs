//! `alerts`: what the CA noticed about calls that is unlike the days before.

use std::time::Duration;

use anyhow::Result;
use ca_api::admin::{WAIT_SECONDS_MAX, WatchAlert, WatchAlerts, path};
use spiffe::time::Timestamp;

use crate::args::Alerts;
use crate::cli::Context;
use crate::cli::seen::span;
use crate::client::{Peer, Server};
use crate::exit::Exit;
use crate::output::{bold, dim, printable, red};
use crate::signals::Stop;

/// How much longer than it was asked to wait the CA may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the command.
pub(super) async fn run(args: Alerts, context: &Context) -> Result<Exit> {
    let server = Server::find(Peer::Ca, context.global.server.as_deref())?;
    if args.follow {
        return follow(&server, context).await;
    }
    let found: WatchAlerts = server.get(path::ALERTS).await?;
    if context.screen.is_table() {
        let now = context.clock.now();
        for text in lines(&found.alerts, usize::MAX, now) {
            context.screen.line(text)?;
        }
        if found.alerts.is_empty() {
            context
                .screen
                .note("nothing since the CA started; its ledger has what was before: kind=alert");
        }
    } else {
        context.screen.list(&found.alerts, &[], |_| Vec::new())?;
    }
    Ok(Exit::Fine)
}

/// Shows what there is and what comes, each once.
async fn follow(server: &Server, context: &Context) -> Result<Exit> {
    let mut stop = Stop::watch()?;
    let mut after = 0;
    loop {
        let question = format!("{}?after={after}&wait_seconds={WAIT_SECONDS_MAX}", path::ALERTS);
        let patience = Duration::from_secs(WAIT_SECONDS_MAX) + PATIENCE;
        // A question that is dropped is asked again, or nobody wants to know any more.
        let found: WatchAlerts = tokio::select! {
            found = server.get_within(&question, patience) => found?,
            _name = stop.wait() => return Ok(Exit::Fine),
        };
        after = found.newest;
        for alert in &found.alerts {
            if context.screen.is_table() {
                for text in lines(std::slice::from_ref(alert), 1, context.clock.now()) {
                    context.screen.line(text)?;
                }
            } else {
                context.screen.document_line(alert)?;
            }
        }
    }
}

/// The newest alerts, oldest first: one line says what, the next what would end it.
pub(super) fn lines(alerts: &[WatchAlert], most: usize, now: Timestamp) -> Vec<String> {
    let first = alerts.len().saturating_sub(most);
    let of_alert = |alert: &WatchAlert| {
        let ago = dim(&format!("{} ago, told by {}", span(alert.time, now), alert.host));
        let (kind, message) = (printable(&alert.kind), printable(&alert.message));
        [
            format!("{} {}: {message}  {ago}", red("ALERT"), bold(&kind)),
            format!("  if it should not be: {}", printable(&alert.command)),
        ]
    };
    alerts.iter().skip(first).flat_map(of_alert).collect()
}

#[cfg(test)]
mod tests {
    use spiffe::id::{BotName, HostName};

    use super::*;

    #[test]
    fn the_newest_are_shown_with_what_would_end_them() {
        let now = Timestamp::from_unix_millis(100_000);
        let alert = |id: u64| WatchAlert {
            id,
            time: Timestamp::from_unix_millis(40_000),
            kind: "first_seen".to_owned(),
            from: BotName::parse("prod/a").unwrap(),
            to: "prod/b".to_owned(),
            route: "all".to_owned(),
            host: HostName::parse("web-1").unwrap(),
            seen: None,
            expected: None,
            destinations: Vec::new(),
            count: 1,
            message: format!("prod/a called {id}\u{7}"),
            command: "botmesh quarantine prod/a --reason first_seen".to_owned(),
        };
        let shown = lines(&[alert(1), alert(2)], 1, now).join("\n");
        assert_eq!(
            anstream::adapter::strip_str(&shown).to_string(),
            "ALERT first_seen: prod/a called 2\\u{7}  60s ago, told by web-1\n  \
             if it should not be: botmesh quarantine prod/a --reason first_seen"
        );
    }
}
