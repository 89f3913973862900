//! Step 7: one table turns a refusal into a status, and every answer names its call.

use std::fmt::Write as _;
use std::sync::Arc;

use audit::Verdict;
use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};
use policy::{Difference, Nearest, RuleId, Serve, ServeKind};
use serde_json::{Map, Value, json};
use spiffe::id::BotName;

use super::Answer;
use super::body::AnswerBody;
use super::draft::Draft;
use super::forward::Reached;
use super::headers::{self, BOTMESH_CALL, BOTMESH_DENIED};
use super::identify::Door;
use super::refusal::Refusal;
use super::route::Called;
use crate::config::Disclose;
use crate::grpc;
use crate::http1::date;
use crate::metrics::SeriesKey;
use crate::places::COME_AGAIN;
use crate::proxy::Proxy;
use crate::reason::Reason;
use crate::seldom::Seldom;

/// A full disk must not be told of once a refusal, on the same disk perhaps.
static UNRECORDED: Seldom = Seldom::new();

/// RFC 9457 §3.
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Makes an answer that came fit for the caller.
pub(super) fn answer(draft: &Draft, reached: Reached) -> Answer {
    let Reached {
        status,
        mut headers,
        body,
        denied,
        end,
    } = reached;
    headers::strip_answer(&mut headers);
    if status == StatusCode::NO_CONTENT {
        // RFC 9110 §8.6: such an answer has no length, whatever the callee says.
        headers.remove(header::CONTENT_LENGTH);
    }
    name(draft, &mut headers, denied);
    Answer {
        status,
        headers,
        body: body.ending(end),
        last: false,
    }
}

/// Refuses a call: records the refusal, unless the call was recorded before it failed, and says why as far as the
/// host discloses it.
pub(super) fn refuse(mut draft: Draft, door: &Door, mut refusal: Refusal) -> Answer {
    if !draft.recorded {
        note(&mut draft, &refusal);
        if let Err(error) = draft.proxy().ledger.deny(&draft.record) {
            if let Some(left_out) = UNRECORDED.due() {
                tracing::error!(
                    left_out,
                    error = &error as &dyn std::error::Error,
                    "a refusal could not be recorded"
                );
            }
            refusal = Refusal {
                last: refusal.last,
                ..Refusal::new(Reason::LedgerUnavailable, "")
            };
        }
        let proxy = draft.proxy();
        proxy.metrics.denied(refusal.reason);
        let mut key = draft.series.clone();
        key.denied = Some(refusal.reason);
        key.rule.clone_from(&refusal.rule);
        key.class = SeriesKey::class_of(refusal.reason.status(door.side()));
        proxy.metrics.series(&key).observe(draft.started.elapsed());
        super::tell::denied(&draft, &refusal);
    }
    if draft.grpc {
        return refuse_grpc(&draft, &refusal);
    }
    let status = refusal.reason.status(door.side());
    let mut headers = HeaderMap::with_capacity(6);
    headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
    if let Some(seconds) = refusal.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    name(&draft, &mut headers, true);
    let problem = problem(&draft, &refusal, status);
    let body = AnswerBody::whole(Bytes::from(problem.to_string()));
    Answer {
        status,
        headers,
        body,
        last: refusal.last,
    }
}

/// Refuses a call of gRPC: by a head without a body whose status its client reads as it reads a bot's own.
fn refuse_grpc(draft: &Draft, refusal: &Refusal) -> Answer {
    let mut headers = HeaderMap::with_capacity(8);
    let mut text = format!("{}: {}", refusal.reason, refusal.reason.title());
    let disclose = draft.proxy().disclose;
    for more in [Some(detail(refusal, disclose)), allow_with_disclosed(draft, refusal)] {
        if let Some(more) = more.filter(|more| !more.is_empty()) {
            text.push_str("; ");
            text.push_str(&more);
        }
    }
    grpc::refuse(&mut headers, refusal.reason, &text, refusal.retry_after);
    name(draft, &mut headers, true);
    Answer {
        status: StatusCode::OK,
        headers,
        body: AnswerBody::default(),
        last: refusal.last,
    }
}

/// Refuses a call that could not even be given an id.
pub(super) fn unnamed(proxy: &Arc<Proxy>, door: &Door) -> Answer {
    proxy.metrics.denied(Reason::Overloaded);
    tracing::error!("this host has no randomness to name calls by");
    let status = Reason::Overloaded.status(door.side());
    Answer {
        status,
        headers: HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from(COME_AGAIN.as_secs()))]),
        body: AnswerBody::default(),
        last: true,
    }
}

/// Puts the call's name and the date on an answer.
fn name(draft: &Draft, headers: &mut HeaderMap, denied: bool) {
    if let Ok(id) = HeaderValue::from_maybe_shared(Bytes::from(draft.record.id.to_string())) {
        if denied {
            headers.insert(BOTMESH_DENIED, id.clone());
        }
        headers.insert(BOTMESH_CALL, id);
    }
    // RFC 9110 §6.6.1: who passes an answer without a date on has to put one there.
    if !headers.contains_key(header::DATE) {
        headers.insert(
            header::DATE,
            date::header(u64::try_from(draft.now.unix_seconds()).unwrap_or_default()),
        );
    }
}

/// Writes the refusal into the record.
fn note(draft: &mut Draft, refusal: &Refusal) {
    if let Some(to) = &refusal.to {
        draft.meant(to);
    }
    let record = &mut draft.record;
    record.verdict = Verdict::Deny;
    record.reason = Some(refusal.reason.as_str().to_owned());
    record.rule = refusal.rule.as_ref().map(|rule| rule.as_str().to_owned());
    record.nearest = refusal.nearest.as_ref().map(|nearest| nearest.rule.as_str().to_owned());
    if record.to.id.is_none() && record.to.outside.is_none() {
        record.to.host.clone_from(&refusal.host);
    }
}

/// The refusal as RFC 9457 has it, with as much as the host discloses.
fn problem(draft: &Draft, refusal: &Refusal, status: StatusCode) -> Value {
    let disclose = draft.proxy().disclose;
    let mut problem = Map::new();
    problem.insert(
        "type".to_owned(),
        format!("urn:botmesh:reason:{}", refusal.reason).into(),
    );
    problem.insert("title".to_owned(), refusal.reason.title().into());
    problem.insert("status".to_owned(), status.as_u16().into());
    problem.insert("detail".to_owned(), detail(refusal, disclose).into());
    problem.insert("reason".to_owned(), refusal.reason.as_str().into());
    problem.insert("call".to_owned(), draft.record.id.to_string().into());
    if let Some(seconds) = refusal.retry_after {
        problem.insert("retry_after".to_owned(), seconds.into());
    }
    if let Some(facts) = &refusal.facts {
        // What the kernel says about a process is no secret to that process.
        problem.insert("caller".to_owned(), serde_json::to_value(facts).unwrap_or_default());
    }
    if disclose >= Disclose::Rule {
        if let Some(rule) = &refusal.rule {
            problem.insert("rule".to_owned(), rule.as_str().into());
        }
        if let Some(near) = &refusal.nearest {
            problem.insert("nearest".to_owned(), nearest(near, disclose));
        }
    }
    if let Some(rule) = allow_with_disclosed(draft, refusal) {
        problem.insert("allow_with".to_owned(), rule.into());
    }
    Value::Object(problem)
}

/// The nearest rule and what differed. What the rule has is the policy's; what the call has the caller knows.
fn nearest(nearest: &Nearest, disclose: Disclose) -> Value {
    let difference = |difference: &Difference| {
        let mut told = json!({ "attribute": difference.attribute.as_str(), "call_has": difference.call_has });
        if let (Disclose::Full, Some(told)) = (disclose, told.as_object_mut()) {
            told.insert("rule_has".to_owned(), difference.rule_has.as_str().into());
        }
        told
    };
    json!({
        "rule": nearest.rule.as_str(),
        "differs": nearest.differs.iter().map(difference).collect::<Vec<_>>(),
    })
}

fn detail(refusal: &Refusal, disclose: Disclose) -> String {
    let mut detail = refusal.detail.to_string();
    let mut add = |part: std::fmt::Arguments<'_>| {
        if !detail.is_empty() {
            detail.push_str("; ");
        }
        // Writing to a string cannot fail.
        detail.write_fmt(part).unwrap_or_default();
    };
    if disclose < Disclose::Rule {
        return detail;
    }
    if let (Some(rule), why) = (&refusal.rule, &refusal.why) {
        match why {
            Some(why) => add(format_args!("rule {rule}: {why}", rule = RuleId::as_str(rule))),
            None => add(format_args!("rule {rule}", rule = RuleId::as_str(rule))),
        }
    }
    if let Some(nearest) = &refusal.nearest {
        let differs: Vec<_> = nearest
            .differs
            .iter()
            .map(|difference| difference.attribute.as_str())
            .collect();
        add(format_args!(
            "nearest is rule {}, which differs in: {}",
            nearest.rule.as_str(),
            differs.join(", ")
        ));
    }
    detail
}

fn allow_with_disclosed(draft: &Draft, refusal: &Refusal) -> Option<String> {
    let told = draft.proxy().disclose == Disclose::Full;
    told.then(|| allow_with(draft, refusal.reason)).flatten()
}

/// The rule that would allow the call, to put below `allow:`, and how to put it into force.
fn allow_with(draft: &Draft, reason: Reason) -> Option<String> {
    if !matches!(reason, Reason::NoRule | Reason::RuleExpired) {
        return None;
    }
    let from = draft.series.from.as_ref()?;
    let to = draft.series.to.as_ref()?;
    if draft.record.protocol == audit::Protocol::Tls {
        return Some(rule_line(from, to, "justify: WHY"));
    }
    if draft.record.protocol == audit::Protocol::Postgres {
        let calls = format!("postgres: [{}], inject: CREDENTIAL", draft.record.path);
        return (!draft.record.path.is_empty()).then(|| rule_line(from, to, &calls));
    }
    if let (audit::Protocol::Tcp, Some(port)) = (draft.record.protocol, draft.record.port) {
        return Some(rule_line(from, to, &format!("tcp: [{port}]")));
    }
    if draft.hushed {
        return None;
    }
    let (method, path) = (&draft.record.method, &draft.record.path);
    // A star would be a pattern in a rule, so such a path is left for a person to write; so is one of which only a hash is noted.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'.' | b'_' | b'~');
    if !path.bytes().all(plain) {
        return None;
    }
    let upgrade = draft
        .upgrade
        .as_ref()
        .map(|protocol| format!(", upgrade: [{protocol}]"))
        .unwrap_or_default();
    let served = to.bot().and_then(|bot| served(draft, bot));
    let calls = match (served, path.strip_prefix('/')) {
        (Some(ServeKind::Grpc), Some(asked)) if method == "POST" => format!("grpc: [{asked}]"),
        // No rule can allow anything else of such a bot.
        (Some(ServeKind::Grpc | ServeKind::Tcp), _) => return None,
        (Some(ServeKind::Http) | None, _) => format!("http: [{method} {path}]{upgrade}"),
    };
    Some(rule_line(from, to, &calls))
}

fn rule_line(from: &BotName, to: &Called, calls: &str) -> String {
    let to = match to {
        Called::Bot(bot) => bot.to_string(),
        // In a flow mapping YAML takes a `:` for its own where it is not quoted.
        Called::Outside(named) => format!("\"{named}\""),
    };
    format!("botmesh apply mesh.yaml, with this below `allow:` - {{id: NEW-ID, from: {from}, to: {to}, {calls}}}")
}

fn served(draft: &Draft, bot: &BotName) -> Option<ServeKind> {
    let bot = draft.snapshot.mesh.bots().get(bot)?;
    bot.serve.as_ref().map(Serve::kind)
}
