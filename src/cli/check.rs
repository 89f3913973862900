//! `check`: the doctor of a host. It asks the servers that run here, looks at what they keep, and tries what must be refused.

mod ca;
mod doctor;
mod federation;
mod files;
mod guard;
mod listeners;
mod mesh;
mod privileges;
mod proxy;
mod stranger;
mod tries;

use anyhow::Result;
use serde::Serialize;
use spiffe::time::Timestamp;

pub(crate) use stranger::run as stranger;

use crate::cli::Context;
use crate::client::{Peer, Server};
use crate::exit::{Exit, Failure, code_of};
use crate::output::{Screen, bold, dim, green, printable, red};

/// How far two clocks of one machine, or of the CA and this host, may be apart; ten times that and a proxy is not ready.
const SKEW_MILLIS_MAX: u64 = 3_000;

/// What became of one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    /// A weakness of this version that no setting removes; it does not count as a finding.
    Note,
    /// It could not be looked at from here, and why is said.
    Untried,
    Finding,
}

/// One look: what at, what was seen, and what to do about it.
#[derive(Debug, Serialize)]
struct Look {
    part: &'static str,
    what: String,
    state: State,
    #[serde(skip_serializing_if = "String::is_empty")]
    seen: String,
    #[serde(rename = "do", skip_serializing_if = "String::is_empty")]
    todo: String,
}

/// Everything that was looked at, in order.
#[derive(Debug, Default)]
struct Looks(Vec<Look>);

impl Looks {
    fn add(&mut self, part: &'static str, state: State, what: impl Into<String>, seen: String, todo: String) {
        self.0.push(Look {
            part,
            what: what.into(),
            state,
            seen,
            todo,
        });
    }

    fn ok(&mut self, part: &'static str, what: impl Into<String>, seen: impl Into<String>) {
        self.add(part, State::Ok, what, seen.into(), String::new());
    }

    fn note(&mut self, part: &'static str, what: impl Into<String>, seen: impl Into<String>, todo: impl Into<String>) {
        self.add(part, State::Note, what, seen.into(), todo.into());
    }

    fn untried(&mut self, part: &'static str, what: impl Into<String>, why: impl Into<String>) {
        self.add(part, State::Untried, what, why.into(), String::new());
    }

    fn finding(
        &mut self,
        part: &'static str,
        what: impl Into<String>,
        seen: impl Into<String>,
        todo: impl Into<String>,
    ) {
        self.add(part, State::Finding, what, seen.into(), todo.into());
    }

    /// Puts the looks at one part together; of parts and in each the order stays.
    fn gather(&mut self) {
        let mut parts: Vec<&str> = Vec::new();
        for look in &self.0 {
            if !parts.contains(&look.part) {
                parts.push(look.part);
            }
        }
        self.0
            .sort_by_key(|look| parts.iter().position(|part| *part == look.part));
    }

    fn findings(&self) -> usize {
        self.0.iter().filter(|look| look.state == State::Finding).count()
    }

    /// Compares a server's time with this machine's.
    fn clock(&mut self, part: &'static str, theirs: Timestamp, ours: Timestamp) {
        let apart = theirs.unix_millis().abs_diff(ours.unix_millis());
        if apart <= SKEW_MILLIS_MAX {
            self.ok(part, "clock", format!("{apart} ms from this machine's"));
            return;
        }
        let word = if theirs > ours { "behind" } else { "ahead of" };
        self.finding(
            part,
            "clock",
            format!("this machine's clock is {} s {word} the mesh's time", apart / 1_000),
            "set the clock by NTP; rules and SVIDs that ended stay ended meanwhile",
        );
    }
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    findings: usize,
    looks: &'a [Look],
}

/// Runs it.
pub(crate) async fn run(context: &Context) -> Result<Exit> {
    let flag = context.global.server.as_deref();
    let (ca, proxy) = (Server::find(Peer::Ca, flag)?, Server::find(Peer::Proxy, flag)?);
    let mut looks = Looks::default();
    let proxy_told = proxy::look(&proxy, context, &mut looks).await;
    let ca_told = ca::look(&ca, context, &mut looks).await;
    if let (Err(proxy), Err(ca)) = (&proxy_told, &ca_told) {
        let message = format!("neither the proxy nor the CA of this host answers\n  proxy: {proxy:#}\n  CA: {ca:#}");
        return Err(Failure::new(code_of(proxy), message).into());
    }
    absent(&mut looks, "proxy", &proxy, proxy_told);
    absent(&mut looks, "ca", &ca, ca_told);
    looks.gather();
    show(&looks, &context.screen)?;
    Ok(if looks.findings() == 0 {
        Exit::Fine
    } else {
        Exit::Findings
    })
}

/// A server that is not here is no finding; one that left its socket, or a link to it, should answer on it.
fn absent(looks: &mut Looks, part: &'static str, server: &Server, told: Result<()>) {
    let Err(error) = told else { return };
    if std::fs::symlink_metadata(server.socket()).is_ok() {
        let unit = format!("systemctl status botmesh-{part}");
        looks.finding(part, "answers", format!("{error:#}"), unit);
    } else {
        looks.untried(
            part,
            "answers",
            format!("there is none here: no {}", server.socket().display()),
        );
    }
}

fn show(looks: &Looks, screen: &Screen) -> Result<()> {
    if !screen.is_table() {
        let report = Report {
            findings: looks.findings(),
            looks: &looks.0,
        };
        return Ok(screen.document(&report)?);
    }
    let mut part = "";
    for look in &looks.0 {
        if look.part != part {
            part = look.part;
            screen.line(bold(part))?;
        }
        let state = match look.state {
            State::Ok => green("ok     "),
            State::Note => "note   ".to_owned(),
            State::Untried => dim("untried"),
            State::Finding => red("FINDING"),
        };
        let seen = if look.seen.is_empty() {
            String::new()
        } else {
            format!(": {}", printable(&look.seen))
        };
        screen.line(format!("  {state}  {}{seen}", printable(&look.what)))?;
        if !look.todo.is_empty() {
            screen.line(format!("           do: {}", printable(&look.todo)))?;
        }
    }
    let count = looks.findings();
    Ok(screen.line(match count {
        0 => green("no findings"),
        1 => red("1 finding"),
        _ => red(&format!("{count} findings")),
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_a_minute_off_is_a_finding_either_way_and_a_second_is_not() {
        let at = Timestamp::from_unix_seconds;
        for (theirs, findings) in [(1_000, 0), (1_001, 0), (1_060, 1), (940, 1)] {
            let mut looks = Looks::default();
            looks.clock("proxy", at(theirs), at(1_000));
            assert_eq!(looks.findings(), findings, "{theirs}");
        }
        let mut looks = Looks::default();
        looks.clock("proxy", at(1_060), at(1_000));
        assert!(looks.0[0].seen.contains("60 s behind"), "{}", looks.0[0].seen);
    }

    #[test]
    fn looks_at_one_part_stand_together_in_their_order() {
        let mut looks = Looks::default();
        for (part, what) in [("b", "1"), ("a", "2"), ("b", "3"), ("a", "4")] {
            looks.ok(part, what, "");
        }
        looks.gather();
        let order: String = looks.0.iter().map(|look| look.what.as_str()).collect();
        assert_eq!(order, "1324");
    }

    #[test]
    fn a_server_that_left_its_socket_is_a_finding_and_one_that_never_was_here_is_not() {
        let dir = tempfile::tempdir().unwrap();
        for (left, findings) in [(false, 0), (true, 1)] {
            let socket = dir.path().join("ca.sock");
            if left {
                std::os::unix::fs::symlink("ca/ca.sock", &socket).unwrap();
            }
            let mut looks = Looks::default();
            absent(
                &mut looks,
                "ca",
                &Server::at(Peer::Ca, &socket),
                Err(anyhow::anyhow!("gone")),
            );
            assert_eq!(looks.findings(), findings, "{left}");
        }
    }
}
