//! What hosts told the CA of calls, as lines that people read.

use anyhow::Result;
use ca_api::admin::{Denied, EdgeCount, EdgeList, EventList, Host, path};
use serde::Serialize;
use spiffe::id::BotName;
use spiffe::time::Timestamp;

use crate::client::Server;
use crate::output::{bold, dim, green, printable, red};

/// What the CA keeps of an hour, of one bot or of all.
#[derive(Debug, Serialize)]
pub(crate) struct Seen {
    pub(crate) edges: EdgeList,
    pub(crate) events: EventList,
}

/// Asks the CA; nothing from one of an earlier version.
pub(crate) async fn ask(server: &Server, bot: Option<&BotName>) -> Option<Seen> {
    let of = bot.map_or_else(String::new, |bot| format!("?bot={bot}"));
    let ask = async |path: &str| -> Result<Seen> {
        Ok(Seen {
            edges: server.get(&format!("{path}{of}")).await?,
            events: server.get(&format!("{}{of}", path::EVENTS)).await?,
        })
    };
    ask(path::EDGES).await.ok()
}

/// How long ago, or in how long, in the largest unit that says something.
pub(crate) fn span(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.duration_since(from).as_secs();
    match seconds {
        0..=99 => format!("{seconds}s"),
        100..=5_999 => format!("{}m", seconds / 60),
        6_000..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The refused calls between two bots, most first: one line for each kind.
pub(crate) fn refused(edges: &EdgeList, most: usize, now: Timestamp) -> Vec<String> {
    let mut denied: Vec<&EdgeCount> = edges.edges.iter().filter(|edge| edge.verdict == "deny").collect();
    denied.sort_by_key(|edge| std::cmp::Reverse(edge.count));
    let line = |edge: &&EdgeCount| format!("{} → {}  {}", edge.from, edge.to, counted(edge, now));
    denied.iter().take(most).map(line).collect()
}

/// The calls of one bot, as `allow  prod/orders  12×  checkout-reads-orders  1m ago`.
pub(crate) fn calls(edges: &EdgeList, other_end: impl Fn(&EdgeCount) -> Option<&str>, now: Timestamp) -> Vec<String> {
    let line = |edge: &EdgeCount| {
        let verdict = match edge.verdict.as_str() {
            "allow" => green("allow"),
            "audit" => bold("audit"),
            other => red(&format!("{other:<5}")),
        };
        Some(format!("{verdict}  {}  {}", other_end(edge)?, counted(edge, now)))
    };
    edges.edges.iter().filter_map(line).collect()
}

fn counted(edge: &EdgeCount, now: Timestamp) -> String {
    let words = [edge.reason.as_str(), edge.rule.as_str()];
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    format!(
        "{}×  {}  {}",
        edge.count,
        words.join(" "),
        dim(&format!("{} ago", span(edge.last, now)))
    )
}

/// Refused calls, newest first, each with what would allow it.
pub(crate) fn denied(denied: &[Denied], most: usize, now: Timestamp) -> Vec<String> {
    denied
        .iter()
        .take(most)
        .flat_map(|denied| one_denied(denied, now))
        .collect()
}

fn one_denied(denied: &Denied, now: Timestamp) -> Vec<String> {
    let call = &denied.call;
    let bot = |bot: &Option<BotName>| bot.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
    let to = call.outside.as_deref().map_or_else(|| bot(&call.to), printable);
    let (method, path) = (printable(&call.method), printable(&call.path));
    let mut line = format!(
        "{} → {}  {method} {path}  {}",
        bot(&call.from),
        to,
        red(&printable(&call.reason))
    );
    let rule = [("by", &call.rule), ("nearest", &call.nearest)];
    for (word, rule) in rule.into_iter().filter_map(|(word, rule)| Some((word, rule.as_ref()?))) {
        line.push_str(&format!("  {word} {}", printable(rule)));
    }
    line.push_str(&dim(&format!("  {} ago at {}", span(denied.time, now), denied.host)));
    std::iter::once(line).chain(allow_with(denied)).collect()
}

/// The rule that would allow a call which no rule allows, to put below `allow:`.
fn allow_with(denied: &Denied) -> Option<String> {
    let call = &denied.call;
    let from = call.from.as_ref()?;
    let to = match (&call.to, &call.outside) {
        (Some(to), _) => to.to_string(),
        // A tunnel has no path to allow.
        (None, Some(outside)) if !call.path.is_empty() => format!("\"{}\"", printable(outside)),
        (None, _) => return None,
    };
    // A star would be a pattern in a rule, so such a path is left for a person to write.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'.' | b'_' | b'~');
    let may_be_allowed = matches!(call.reason.as_str(), "no_rule" | "rule_expired");
    if !may_be_allowed || !call.path.bytes().all(plain) || !call.method.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let rule = format!(
        "{{id: NEW-ID, from: {from}, to: {to}, http: [{} {}]}}",
        call.method, call.path
    );
    Some(format!("  would be allowed by: - {rule}"))
}

/// What to look at about hosts: one line says what, the next what to do.
pub(crate) fn alerts(hosts: &[Host], now: Timestamp) -> Vec<String> {
    let one = |host: &Host| {
        let of_host = host.alerts.iter().flat_map(|alert| {
            let addresses: Vec<String> = alert.addresses.iter().map(ToString::to_string).collect();
            let line = format!(
                "{} {}: {}  {}×, last {} ago, {}",
                red("ALERT"),
                host.host,
                bold(&printable(&alert.kind)),
                alert.count,
                span(alert.last, now),
                addresses.join(", ")
            );
            [
                line,
                format!("  {}", printable(&alert.hint)),
                format!("  to cut it off: {}", printable(&alert.command)),
            ]
        });
        of_host.collect::<Vec<_>>()
    };
    hosts.iter().flat_map(one).collect()
}

#[cfg(test)]
mod tests {
    use ca_api::admin::HostAlert;
    use ca_api::observation::DeniedCall;
    use spiffe::id::HostName;

    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_millis(10_000_000);

    fn before(seconds: i64) -> Timestamp {
        Timestamp::from_unix_millis(10_000_000 - seconds * 1000)
    }

    fn bot(name: &str) -> BotName {
        BotName::parse(name).unwrap()
    }

    fn plain(lines: &[String]) -> String {
        anstream::adapter::strip_str(&lines.join("\n")).to_string()
    }

    fn edge(from: &str, verdict: &str, reason: &str, rule: &str, count: u64) -> EdgeCount {
        EdgeCount {
            from: bot(from),
            to: "prod/orders".to_owned(),
            rule: rule.to_owned(),
            verdict: verdict.to_owned(),
            reason: reason.to_owned(),
            count,
            last: before(65),
            hosts: Vec::new(),
        }
    }

    #[test]
    fn calls_and_refusals_are_told_by_who_why_and_how_often() {
        let edges = EdgeList {
            since: before(3600),
            edges: vec![
                edge("prod/checkout", "allow", "", "reads-orders", 12),
                edge("prod/checkout", "deny", "no_rule", "", 3),
                edge("prod/report", "deny", "denied_by_rule", "no-admin", 7),
            ],
            dropped: 0,
        };
        let of = |edge: &EdgeCount| (edge.from == bot("prod/checkout")).then(|| edge.to.clone());
        let of_checkout = EdgeList {
            edges: edges.edges.iter().filter(|edge| of(edge).is_some()).cloned().collect(),
            ..edges.clone()
        };
        assert_eq!(
            plain(&calls(&of_checkout, |edge| Some(edge.to.as_str()), NOW)),
            "allow  prod/orders  12×  reads-orders  65s ago\ndeny   prod/orders  3×  no_rule  65s ago"
        );
        assert_eq!(
            plain(&refused(&edges, 5, NOW)),
            "prod/report → prod/orders  7×  denied_by_rule no-admin  65s ago\n\
             prod/checkout → prod/orders  3×  no_rule  65s ago"
        );
        assert_eq!(refused(&edges, 1, NOW).len(), 1);
    }

    #[test]
    fn a_refused_call_says_what_would_allow_it_where_a_rule_can() {
        let call = |path: &str, reason: &str| Denied {
            time: before(7),
            host: HostName::parse("web-1").unwrap(),
            call: DeniedCall {
                from: Some(bot("prod/checkout")),
                to: Some(bot("prod/orders")),
                method: "DELETE".to_owned(),
                path: path.to_owned(),
                reason: reason.to_owned(),
                nearest: Some("reads-orders".to_owned()),
                ..DeniedCall::default()
            },
        };
        assert_eq!(
            plain(&denied(&[call("/orders/17", "no_rule")], 5, NOW)),
            "prod/checkout → prod/orders  DELETE /orders/17  no_rule  nearest reads-orders  7s ago at web-1\n  \
             would be allowed by: - {id: NEW-ID, from: prod/checkout, to: prod/orders, http: [DELETE /orders/17]}"
        );
        for (path, reason) in [("/orders/*", "no_rule"), ("/orders/17", "denied_by_rule")] {
            assert_eq!(denied(&[call(path, reason)], 5, NOW).len(), 1, "{path} {reason}");
        }
        assert!(plain(&denied(&[call("/\u{1b}[2J", "no_rule")], 5, NOW)).contains("\\u{1b}"));
    }

    #[test]
    fn an_alert_says_what_it_means_and_what_to_do() {
        let host = Host {
            host: HostName::parse("web-1").unwrap(),
            state: "joined".to_owned(),
            connected: true,
            serial: String::new(),
            not_after: NOW,
            joined: NOW,
            last_seen: NOW,
            advertise: None,
            applied: None,
            failed: None,
            connected_since: None,
            source: None,
            features: Vec::new(),
            quarantined: false,
            alerts: vec![HostAlert {
                kind: "svid_from_two_addresses".to_owned(),
                first: before(700),
                last: before(180),
                count: 4,
                addresses: vec!["10.0.0.5".parse().unwrap(), "10.0.0.66".parse().unwrap()],
                hint: "two machines act with the key of this host".to_owned(),
                command: "botmesh quarantine --host web-1 --reason svid_from_two_addresses".to_owned(),
            }],
        };
        assert_eq!(
            plain(&alerts(&[host], NOW)),
            "ALERT web-1: svid_from_two_addresses  4×, last 3m ago, 10.0.0.5, 10.0.0.66\n  \
             two machines act with the key of this host\n  \
             to cut it off: botmesh quarantine --host web-1 --reason svid_from_two_addresses"
        );
    }

    #[test]
    fn spans_are_told_in_the_unit_that_says_something() {
        let spans = [5, 99, 100, 3_600, 7_200, 200_000].map(|seconds| span(before(seconds), NOW));
        assert_eq!(spans, ["5s", "99s", "1m", "60m", "2h", "2d"]);
        assert_eq!(span(NOW, before(5)), "0s", "a clock that is behind");
    }
}
