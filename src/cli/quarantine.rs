//! `quarantine` and `release`: the kill switch, of the mesh or of this host alone.

use std::time::Duration;

use anyhow::Result;
use ca_api::Generation;
use ca_api::admin::{
    HostGeneration, HostState, Quarantine as Row, QuarantineRequest, QuarantineStatus, Quarantined, ReleaseRequest,
    WAIT_SECONDS_MAX, path,
};
use ca_api::proxy_admin::LocalQuarantines;
use serde::{Deserialize, Serialize};

use crate::args::{Quarantine, Release, Whom};
use crate::cli::Context;
use crate::client::{Peer, Refused, Server};
use crate::exit::{Exit, Failure};
use crate::output::{Screen, green, printable, red};

/// How long the CA may take beyond what it was asked to wait.
const BEYOND_WAIT: Duration = Duration::from_secs(10);

/// What either server answers: CA and proxy have the same paths, and the answer says which one it was.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Answer {
    Mesh(QuarantineStatus),
    Host(LocalQuarantines),
}

/// Runs `quarantine`; without a name it lists.
pub(crate) async fn quarantine(args: Quarantine, context: &Context) -> Result<Exit> {
    let server = server(args.whom.local, context)?;
    let Some(whom) = named(&args.whom) else {
        return list(&server, &context.screen).await;
    };
    let Some(reason) = args.reason else {
        return Err(Failure::usage("say why: --reason REASON, for whoever finds it").into());
    };
    let request = QuarantineRequest {
        whom: whom.clone(),
        reason,
        for_seconds: args.for_.map(|duration| duration.as_secs()),
    };
    let answer = server.try_post(path::QUARANTINE, &request).await?;
    finish(&format!("quarantined {whom}"), answer, &server, &context.screen).await
}

/// Runs `release`.
pub(crate) async fn release(args: Release, context: &Context) -> Result<Exit> {
    let server = server(args.whom.local, context)?;
    let Some(whom) = named(&args.whom) else {
        return Err(Failure::usage("say whom: `botmesh release BOT` or `botmesh release --host HOST`").into());
    };
    let request = ReleaseRequest { whom: whom.clone() };
    let answer = server.try_post(path::RELEASE, &request).await?;
    finish(&format!("released {whom}"), answer, &server, &context.screen).await
}

fn server(local: bool, context: &Context) -> Result<Server> {
    let peer = if local { Peer::Proxy } else { Peer::Ca };
    Server::find(peer, context.global.server.as_deref())
}

fn named(whom: &Whom) -> Option<Quarantined> {
    let bot = whom.bot.clone().map(Quarantined::Bot);
    bot.or_else(|| whom.host.clone().map(Quarantined::Host))
}

async fn list(server: &Server, screen: &Screen) -> Result<Exit> {
    let rows = match server.get::<Answer>(path::QUARANTINES).await? {
        Answer::Mesh(status) => status.quarantines,
        Answer::Host(host) => {
            if !host.mesh.is_empty() {
                let mesh = host.mesh.iter().map(ToString::to_string).collect::<Vec<_>>();
                screen.note(format!("set at the CA and enforced here too: {}", mesh.join(", ")));
            }
            host.local
        }
    };
    screen.list(&rows, &["WHOM", "SINCE", "UNTIL", "BY", "REASON"], row)?;
    if rows.is_empty() {
        screen.note("nobody is quarantined");
    }
    Ok(Exit::Fine)
}

fn row(row: &Row) -> Vec<String> {
    vec![
        row.whom.to_string(),
        row.since.to_string(),
        row.until.map_or_else(|| "-".to_owned(), |until| until.to_string()),
        printable(&row.actor),
        printable(&row.reason),
    ]
}

async fn finish(
    done: &str,
    answer: std::result::Result<Answer, Refused>,
    server: &Server,
    screen: &Screen,
) -> Result<Exit> {
    let status = match answer.map_err(|refused| refusal(refused, server))? {
        Answer::Mesh(status) => enforced(status.generation, server, screen).await?,
        Answer::Host(host) => {
            if screen.is_table() {
                screen.line(format!(
                    "{} {done} on this host; {} cut",
                    green("ok"),
                    streams(host.streams_cut)
                ))?;
            } else {
                screen.document(&host)?;
            }
            return Ok(Exit::Fine);
        }
    };
    if screen.is_table() {
        screen.line(summary(done, &status))?;
    } else {
        screen.document(&status)?;
    }
    everywhere(done, &status)
}

/// Fails where a host, connected or not, does not enforce the list, and names it.
pub(super) fn everywhere(done: &str, status: &QuarantineStatus) -> Result<Exit> {
    let lag = laggards(status);
    if lag.is_empty() {
        return Ok(Exit::Fine);
    }
    let message = format!("{done} at the CA, but that is not enforced by {lag}");
    Err(Failure::new(Exit::Unreachable, message)
        .hint("a host enforces it as soon as it is back; on that host, `botmesh quarantine … --local` needs no CA")
        .into())
}

/// Waits, at most as long as the CA does, until every connected host enforces the list.
pub(super) async fn enforced(list: Generation, server: &Server, screen: &Screen) -> Result<QuarantineStatus> {
    screen.note("waiting until every connected host enforces it");
    let question = format!(
        "{}?epoch={}&revision={}&wait_seconds={WAIT_SECONDS_MAX}",
        path::QUARANTINES,
        list.epoch,
        list.revision
    );
    server
        .get_within(&question, Duration::from_secs(WAIT_SECONDS_MAX) + BEYOND_WAIT)
        .await
}

pub(super) fn summary(done: &str, status: &QuarantineStatus) -> String {
    let live = status.hosts.iter().filter(|host| host.state == HostState::Live).count();
    let total = status.hosts.len();
    let word = if live == total {
        green("ok")
    } else {
        red("not everywhere")
    };
    let slowest = status
        .slowest_ms
        .map_or_else(String::new, |millis| format!(", the slowest after {millis} ms"));
    format!(
        "{word} {done}, enforced on {live} of {total} hosts{slowest}; {} cut",
        streams(status.streams_cut)
    )
}

fn streams(count: u64) -> String {
    match count {
        1 => "1 call under way".to_owned(),
        count => format!("{count} calls under way"),
    }
}

/// Whoever does not enforce the list, connected or not: a host that is away was not told.
fn laggards(status: &QuarantineStatus) -> String {
    let lag = |host: &HostGeneration| {
        if host.connected {
            host.host.to_string()
        } else {
            format!("{} (not connected)", host.host)
        }
    };
    let behind = status.hosts.iter().filter(|host| host.state != HostState::Live);
    behind.map(lag).collect::<Vec<_>>().join(", ")
}

fn refusal(refused: Refused, server: &Server) -> anyhow::Error {
    match refused.problem.code.as_str() {
        "no_such_bot" | "no_such_host" | "not_quarantined" | "bad_request" => {
            Failure::new(Exit::Usage, refused.to_string()).into()
        }
        _ => server.failure(refused),
    }
}

#[cfg(test)]
mod tests {
    use spiffe::id::HostName;

    use super::*;

    fn host(name: &str, connected: bool, state: HostState) -> HostGeneration {
        HostGeneration {
            host: HostName::parse(name).unwrap(),
            connected,
            state,
            applied: None,
            error: String::new(),
            quarantined: false,
        }
    }

    fn status(hosts: Vec<HostGeneration>) -> QuarantineStatus {
        QuarantineStatus {
            generation: Generation { epoch: 1, revision: 3 },
            quarantines: Vec::new(),
            hosts,
            slowest_ms: Some(12),
            streams_cut: 1,
        }
    }

    #[test]
    fn the_summary_says_where_how_fast_and_what_was_cut() {
        let hosts = vec![
            host("web-1", true, HostState::Live),
            host("web-2", true, HostState::Live),
        ];
        let told = summary("quarantined bot prod/orders", &status(hosts));
        assert_eq!(
            anstream::adapter::strip_str(&told).to_string(),
            "ok quarantined bot prod/orders, enforced on 2 of 2 hosts, the slowest after 12 ms; 1 call under way cut"
        );
    }

    #[test]
    fn a_host_that_was_not_told_is_named_connected_or_not() {
        let hosts = vec![
            host("web-1", true, HostState::Live),
            host("web-2", true, HostState::Behind),
            host("web-3", false, HostState::Behind),
            host("web-4", false, HostState::Live),
        ];
        assert_eq!(laggards(&status(hosts)), "web-2, web-3 (not connected)");
    }

    #[test]
    fn the_answer_says_which_server_it_is() {
        let mesh = serde_json::to_string(&status(Vec::new())).unwrap();
        assert!(matches!(serde_json::from_str(&mesh), Ok(Answer::Mesh(_))));
        let host = r#"{"local": [], "mesh": [{"bot": "prod/orders"}], "streams_cut": 0}"#;
        assert!(matches!(serde_json::from_str(host), Ok(Answer::Host(_))));
    }
}
