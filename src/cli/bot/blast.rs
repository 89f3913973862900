//! `bot blast BOT`: what somebody who had a bot would have reached, by the ledgers of its hosts, and could have reached, by the
//! live mesh.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use ca_api::Generation;
use ca_api::admin::{BotList, MeshSources, path};
use policy::{Mesh, Source, Verdict};
use serde::Serialize;
use serde_json::Value;
use spiffe::id::BotName;
use spiffe::time::Timestamp;

use crate::args::Blast;
use crate::cli::Context;
use crate::cli::audit;
use crate::client::Server;
use crate::exit::{Exit, Failure};
use crate::output::{bold, dim, printable, red};
use crate::sources;

/// Runs it.
pub(super) async fn run(args: Blast, server: &Server, context: &Context) -> Result<Exit> {
    let live: MeshSources = server.get(path::MESH).await?;
    let bots: BotList = server.get(path::BOTS).await?;
    let Some(status) = bots.bots.into_iter().find(|bot| bot.bot == args.bot) else {
        let message = format!("there is no bot {} in revision {}", args.bot, live.generation);
        return Err(Failure::new(Exit::Findings, message).hint("botmesh bot list").into());
    };
    let read = live.sources.into_iter().map(|source| Source {
        name: source.name,
        text: source.text,
    });
    let mesh = sources::load(&read.collect::<Vec<_>>(), &context.screen)?;
    let now = context.clock.now();
    let mut shown = Shown {
        bot: args.bot.clone(),
        generation: live.generation,
        since: args.since.clone(),
        ledgers: audit::ledgers(args.dirs, context).await?,
        hosts: status.connected_hosts.iter().map(ToString::to_string).collect(),
        quarantined: status.quarantined,
        svid_not_after: status.svid_not_after,
        ..Shown::default_of(&args.bot)
    };
    for dir in &shown.ledgers {
        let filter = format!("kind=call direction=out from={} since={}", args.bot, args.since);
        let filter = ::audit::query::parse(&filter, now).map_err(|error| Failure::usage(error.to_string()))?;
        let found = ::audit::query::run(dir, filter, None, audit::indexes(dir, false))
            .with_context(|| format!("read {}", dir.display()))?;
        for record in found {
            let record = record.with_context(|| format!("read {}", dir.display()))?;
            add(&mut shown.tally, &record);
        }
    }
    shown.could_reach = could_reach(&mesh, &args.bot, &shown.tally, now);
    show(&shown, context)?;
    Ok(Exit::Fine)
}

/// All that is said.
#[derive(Debug, Serialize)]
struct Shown {
    bot: BotName,
    generation: Generation,
    since: String,
    ledgers: Vec<PathBuf>,
    /// The hosts that may claim it and whose stream is up.
    hosts: Vec<String>,
    quarantined: bool,
    svid_not_after: Option<Timestamp>,
    #[serde(flatten)]
    tally: Tally,
    could_reach: Vec<Way>,
}

impl Shown {
    fn default_of(bot: &BotName) -> Self {
        Self {
            bot: bot.clone(),
            generation: Generation::default(),
            since: String::new(),
            ledgers: Vec::new(),
            hosts: Vec::new(),
            quarantined: false,
            svid_not_after: None,
            tally: Tally::default(),
            could_reach: Vec::new(),
        }
    }
}

/// What the ledgers have of it.
#[derive(Debug, Default, Serialize)]
struct Tally {
    reached: Vec<Reached>,
    /// What it was refused, by destination and reason.
    refused: BTreeMap<String, BTreeMap<String, u64>>,
    /// Credentials that were added to its calls.
    credentials: BTreeSet<String>,
    #[serde(skip)]
    places: BTreeMap<(String, String), usize>,
}

/// A destination that it called, by one rule.
#[derive(Debug, Serialize)]
struct Reached {
    to: String,
    rule: String,
    /// How often, by method; of what is no request by its protocol.
    calls: BTreeMap<String, u64>,
    first: String,
    last: String,
}

/// A destination that a rule lets it call, and that it did not.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Way {
    to: String,
    rule: String,
    calls: Vec<String>,
    until: Option<Timestamp>,
    /// The credential that would be added.
    credential: Option<String>,
    /// Deny rules that speak of that destination: some of these calls would be refused.
    denied_by: Vec<String>,
}

fn text<'a>(record: &'a Value, key: &str) -> &'a str {
    record.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The callee as rules name it: a bot, or a destination outside.
fn callee(record: &Value) -> String {
    let to = record.get("to").unwrap_or(&Value::Null);
    let id = text(to, "id")
        .strip_prefix("spiffe://")
        .and_then(|id| id.split_once('/'));
    let bot = id.map(|(_, bot)| bot);
    let named = bot.or_else(|| {
        ["outside", "host"]
            .into_iter()
            .map(|key| text(to, key))
            .find(|name| !name.is_empty())
    });
    named.unwrap_or("?").to_owned()
}

fn add(tally: &mut Tally, record: &Value) {
    let to = callee(record);
    if text(record, "verdict") == "deny" {
        let reasons = tally.refused.entry(to).or_default();
        let count = reasons.entry(text(record, "reason").to_owned()).or_default();
        *count = count.saturating_add(1);
        return;
    }
    let credential = text(record, "credential");
    if !credential.is_empty() {
        tally.credentials.insert(credential.to_owned());
    }
    let (rule, time) = (text(record, "rule").to_owned(), text(record, "time").to_owned());
    let next = tally.reached.len();
    let place = *tally.places.entry((to.clone(), rule.clone())).or_insert(next);
    if place == next {
        tally.reached.push(Reached {
            to,
            rule,
            calls: BTreeMap::new(),
            first: time.clone(),
            last: time.clone(),
        });
    }
    let Some(reached) = tally.reached.get_mut(place) else {
        return;
    };
    let word = [text(record, "method"), text(record, "protocol")];
    let word = word.into_iter().find(|word| !word.is_empty()).unwrap_or("call");
    let count = reached.calls.entry(word.to_owned()).or_default();
    *count = count.saturating_add(1);
    // RFC 3339 in one zone and with equal digits sorts as time does.
    reached.first = reached.first.clone().min(time.clone());
    reached.last = reached.last.clone().max(time);
}

/// What rules let it call that it has not called.
fn could_reach(mesh: &Mesh, bot: &BotName, tally: &Tally, now: Timestamp) -> Vec<Way> {
    let about = mesh.rules_about(bot).by_it;
    let targets = |rule: &policy::RuleAbout| {
        let bots = rule.bots.iter().map(ToString::to_string);
        bots.chain(rule.outside.iter().cloned()).collect::<Vec<_>>()
    };
    let mut ways = Vec::new();
    for rule in about.iter().filter(|rule| rule.verdict != Verdict::Deny) {
        if rule.until.is_some_and(|until| until <= now) {
            continue;
        }
        for to in targets(rule) {
            let id = rule.rule.to_string();
            if tally.places.contains_key(&(to.clone(), id.clone())) {
                continue;
            }
            let denies = about.iter().filter(|deny| deny.verdict == Verdict::Deny);
            let denies = denies.filter(|deny| targets(deny).contains(&to));
            ways.push(Way {
                rule: id,
                calls: rule.calls.clone(),
                until: rule.until,
                credential: mesh.credential_named_by(&rule.rule).map(ToString::to_string),
                denied_by: denies.map(|deny| deny.rule.to_string()).collect(),
                to,
            });
        }
    }
    ways
}

fn show(shown: &Shown, context: &Context) -> Result<()> {
    let screen = &context.screen;
    if !screen.is_table() {
        return Ok(screen.document(shown)?);
    }
    let title = format!("{}  in the last {}", bold(shown.bot.as_str()), printable(&shown.since));
    screen.line(title)?;
    for (heading, lines, none) in [
        ("reached", reached(&shown.tally), "nothing, by these ledgers"),
        (
            "could have reached too",
            shown.could_reach.iter().map(Way::told).collect(),
            "nothing: no other rule lets it",
        ),
        ("credentials added for it", credentials(&shown.tally), "none"),
        ("was refused", refused(&shown.tally), "nothing"),
    ] {
        screen.line(bold(heading))?;
        if lines.is_empty() {
            screen.line(format!("  {none}"))?;
        }
        lines
            .into_iter()
            .try_for_each(|line| screen.line(format!("  {line}")))?;
    }
    let ledgers: Vec<String> = shown.ledgers.iter().map(|dir| dir.display().to_string()).collect();
    let hosts = match shown.hosts.join(", ") {
        none if none.is_empty() => "none".to_owned(),
        hosts => hosts,
    };
    screen.line(dim(&format!(
        "by {}; hosts that may claim it and are connected: {hosts}; revision {}",
        ledgers.join(", "),
        shown.generation
    )))?;
    if !shown.quarantined {
        screen.note(format!("to cut it off: botmesh quarantine {} --reason …", shown.bot));
    }
    Ok(())
}

fn reached(tally: &Tally) -> Vec<String> {
    let line = |reached: &Reached| {
        let calls: Vec<String> = reached
            .calls
            .iter()
            .map(|(word, count)| format!("{count} {word}"))
            .collect();
        let (to, calls) = (printable(&reached.to), printable(&calls.join(", ")));
        let about = format!("{}, last {}", reached.rule, reached.last);
        format!("{to}  {calls}  {}", dim(&printable(&about)))
    };
    tally.reached.iter().map(line).collect()
}

fn credentials(tally: &Tally) -> Vec<String> {
    let names: Vec<&str> = tally.credentials.iter().map(String::as_str).collect();
    if names.is_empty() {
        return Vec::new();
    }
    let names = printable(&names.join(", "));
    vec![format!(
        "{names}: it never held them, so there is nothing of them to replace"
    )]
}

fn refused(tally: &Tally) -> Vec<String> {
    let line = |(to, reasons): (&String, &BTreeMap<String, u64>)| {
        let reasons: Vec<String> = reasons
            .iter()
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        format!("{}  {}", printable(to), red(&printable(&reasons.join(", "))))
    };
    tally.refused.iter().map(line).collect()
}

impl Way {
    fn told(&self) -> String {
        let calls = if self.calls.is_empty() {
            "every call".to_owned()
        } else {
            self.calls.join(", ")
        };
        let mut line = format!("{}  {calls}  {}", self.to, dim(&self.rule));
        if let Some(credential) = &self.credential {
            line.push_str(&format!("  with the credential {credential}"));
        }
        if !self.denied_by.is_empty() {
            line.push_str(&format!("  less what {} refuses", self.denied_by.join(", ")));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MESH: &str = r#"version: 1
trust_domain: acme.internal
bots:
  prod/a: {owner: a@b.c, hosts: [h], attest: {uid: 1}}
  prod/b: {owner: a@b.c, hosts: [h], attest: {uid: 2}, serve: {http: 8080}}
  prod/c: {owner: a@b.c, hosts: [h], attest: {uid: 3}, serve: {http: 8081}}
credentials:
  llm: {bearer: true, owner: a@b.c}
allow:
  - {id: read, from: prod/a, to: [prod/b, prod/c], http: [GET /x/*]}
  - {id: over, from: prod/a, to: prod/c, http: [GET /z], until: 2020-01-01T00:00:00Z, reason: over}
  - {id: ask, from: prod/a, to: "https://api.example.com", http: [POST /v1], inject: llm}
deny:
  - {id: never, from: "**", to: prod/c, http: [GET /x/secret], reason: no}
"#;

    fn call(to: Value, more: Value) -> Value {
        let mut record = json!({
            "kind": "call", "time": "2026-11-05T10:00:00.000Z", "verdict": "allow", "rule": "read", "method": "GET", "to": to,
        });
        let (Some(all), Some(more)) = (record.as_object_mut(), more.as_object()) else {
            panic!("objects")
        };
        all.extend(more.clone());
        record
    }

    #[test]
    fn what_was_reached_is_told_from_what_could_have_been() {
        let mut tally = Tally::default();
        let b = || json!({"id": "spiffe://acme.internal/prod/b"});
        add(&mut tally, &call(b(), json!({})));
        add(
            &mut tally,
            &call(b(), json!({"method": "POST", "time": "2026-11-05T11:00:00.000Z"})),
        );
        add(
            &mut tally,
            &call(
                json!({"host": "evil.example"}),
                json!({"verdict": "deny", "reason": "no_rule"}),
            ),
        );
        assert_eq!(tally.reached.len(), 1);
        let reached = &tally.reached[0];
        assert_eq!(
            (reached.to.as_str(), reached.calls["GET"], reached.calls["POST"]),
            ("prod/b", 1, 1)
        );
        assert_eq!(
            (&*reached.first, &*reached.last),
            ("2026-11-05T10:00:00.000Z", "2026-11-05T11:00:00.000Z")
        );
        assert_eq!(tally.refused["evil.example"]["no_rule"], 1);

        let source = Source {
            name: "mesh.yaml".to_owned(),
            text: MESH.to_owned(),
        };
        let mesh = policy::load(&[source]).unwrap();
        let now = Timestamp::from_rfc3339("2026-11-05T12:00:00Z").unwrap();
        let ways = could_reach(&mesh, &BotName::parse("prod/a").unwrap(), &tally, now);
        let way = |to: &str, rule: &str, calls: &str, credential: Option<&str>, denied_by: &[&str]| Way {
            to: to.to_owned(),
            rule: rule.to_owned(),
            calls: vec![calls.to_owned()],
            until: None,
            credential: credential.map(ToOwned::to_owned),
            denied_by: denied_by.iter().map(|rule| (*rule).to_owned()).collect(),
        };
        assert_eq!(
            ways,
            [
                way("https://api.example.com", "ask", "POST /v1", Some("llm"), &[]),
                way("prod/c", "read", "GET /x/*", None, &["never"]),
            ]
        );
    }

    #[test]
    fn a_credential_that_was_added_is_named_once() {
        let mut tally = Tally::default();
        for _ in 0..2 {
            let outside = json!({"outside": "https://api.example.com"});
            add(&mut tally, &call(outside, json!({"rule": "ask", "credential": "llm"})));
        }
        assert_eq!(tally.credentials.iter().collect::<Vec<_>>(), ["llm"]);
        assert_eq!(tally.reached[0].calls["GET"], 2);
    }
}
