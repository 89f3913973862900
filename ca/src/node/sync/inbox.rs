//! What a host says, believed only as far as it goes.

use std::time::Duration;

use ca_api::admin::ToldBy;
use ca_api::node::host_message::Message;
use ca_api::node::{Applied, CredentialReport, EDGES_MAX, Edge, Edges, Event, GoodbyeReason, QuarantinesApplied};
use ca_api::observation::{ALERT, DENIED, DeniedCall, EVENTS_DROPPED, EventsDropped, TEXT_BYTES_MAX, ToldAlert};
use policy::{Mesh, RuleId};
use spiffe::id::{BotName, IdKind, SpiffeId};
use spiffe::time::Timestamp;
use tokio::time::Instant;

use super::outbox::Receipt;
use super::{Caller, Stream};
use crate::observed::{EdgeKey, shorten};
use crate::refusals::HostRefusal;
use crate::watch::Calls;
use crate::world::Cut;

/// Why a slice could not be applied, in the operator's list.
const ERROR_BYTES_MAX: usize = 1024;

/// The longest kind of an event.
const KIND_BYTES_MAX: usize = 64;

/// One event; the ledger of the host has it whole.
const EVENT_BYTES_MAX: usize = 8 * 1024;

/// Powers of two of microseconds: the last is longer than any call.
const BUCKETS_MAX: usize = 64;

/// What a proxy can have decided.
const VERDICTS: [&str; 5] = ["allow", "deny", "audit", "limited", "error"];

/// The longest word for a reason.
const WORD_BYTES_MAX: usize = 64;

/// What is charged for one message, and for each so many edges in it.
const EDGES_PER_MESSAGE: usize = 64;

impl Stream<'_> {
    /// Takes one message; `Err` ends the stream.
    pub(super) fn take(&mut self, message: Message) -> Result<(), GoodbyeReason> {
        self.lives(true);
        self.afford(&message)?;
        match message {
            // Only the first message of a stream is one.
            Message::Hello(_) => self.end(HostRefusal::SecondHello, ""),
            Message::Applied(applied) => {
                self.applied(applied);
                Ok(())
            }
            Message::Edges(edges) => self.edges(&edges),
            Message::Event(event) => self.event(&event),
            Message::QuarantinesApplied(applied) => {
                self.quarantines_applied(&applied);
                Ok(())
            }
            Message::CredentialReport(report) => {
                self.credential_report(report);
                Ok(())
            }
        }
    }

    /// Takes a sign of life.
    pub(super) fn lives(&self, spoke: bool) {
        let Caller { host, source, .. } = self.caller;
        self.core.stream_lives(host, self.session, *source, spoke);
    }

    fn afford(&self, message: &Message) -> Result<(), GoodbyeReason> {
        let more = match message {
            Message::Edges(edges) => edges.edges.len() / EDGES_PER_MESSAGE,
            Message::Hello(_)
            | Message::Applied(_)
            | Message::Event(_)
            | Message::CredentialReport(_)
            | Message::QuarantinesApplied(_) => 0,
        };
        let cost = 1 + u64::try_from(more).unwrap_or(u64::MAX - 1);
        if self.core.messages.take(&self.caller.host, cost, Instant::now()) {
            return Ok(());
        }
        self.end(HostRefusal::TooManyMessages, "")
    }

    /// A receipt counts only for the slice that was sent, whole.
    fn applied(&self, applied: Applied) {
        let Some(generation) = applied.generation.map(ca_api::Generation::from) else {
            return self.refuse(HostRefusal::ReceiptNotSent, "no generation");
        };
        match self.outbox.receipt(generation, &applied.sha256) {
            Receipt::Current => {}
            Receipt::Overtaken => return,
            Receipt::NeverSent => return self.refuse(HostRefusal::ReceiptNotSent, &generation.to_string()),
        }
        let outcome = if applied.ok {
            Ok(())
        } else {
            Err(shorten(applied.error, ERROR_BYTES_MAX))
        };
        if let Err(error) = &outcome {
            let error = error.escape_debug();
            tracing::warn!(host = %self.caller.host, %generation, %error, "a host could not apply its slice");
        }
        self.core
            .world
            .receipt(&self.caller.host, self.session, self.core.now(), generation, outcome);
    }

    /// Word of a value that was not sent to the host counts for nothing.
    fn credential_report(&self, report: CredentialReport) {
        let name = report.name.clone();
        if !self.core.rotation_reported(&self.caller.host, report) {
            self.refuse(HostRefusal::CredentialNotSent, &name);
        }
    }

    /// A receipt for a list that was never sent counts for nothing.
    fn quarantines_applied(&self, applied: &QuarantinesApplied) {
        let Some(generation) = applied.generation.map(ca_api::Generation::from) else {
            return self.refuse(HostRefusal::QuarantinesNotSent, "no generation");
        };
        if self.outbox.quarantines_sent().is_none_or(|sent| generation > sent) {
            return self.refuse(HostRefusal::QuarantinesNotSent, &generation.to_string());
        }
        let cut = Cut {
            generation,
            at: Instant::now(),
            streams_cut: applied.streams_cut,
        };
        let now = self.core.now();
        self.core
            .world
            .quarantines_receipt(&self.caller.host, self.session, now, cut);
    }

    fn edges(&self, edges: &Edges) -> Result<(), GoodbyeReason> {
        if edges.edges.len() > EDGES_MAX {
            return self.end(HostRefusal::TooManyEdges, &edges.edges.len().to_string());
        }
        for edge in &edges.edges {
            let told = self.told(edge);
            self.count("edges", told.is_ok());
            match told {
                Ok(key) => {
                    self.watch(&key, edge.count, Duration::from_millis(edges.waited_ms));
                    let host = &self.caller.host;
                    self.core.observed.edge(host, key, edge.count, self.core.now());
                }
                Err(refusal) => self.refuse(refusal, &format!("{} → {}", edge.from, edge.to)),
            }
        }
        self.core.observed.edges_dropped(edges.dropped);
        Ok(())
    }

    /// What a bot does is believed of a host that may run it, and of no other: the host of a callee could make a caller's
    /// calls look usual.
    fn watch(&self, key: &EdgeKey, count: u64, waited: Duration) {
        if self.is_own(&key.from) {
            let calls = Calls {
                from: &key.from,
                to: &key.to,
                rule: &key.rule,
                verdict: &key.verdict,
                reason: &key.reason,
                count,
                waited,
            };
            self.core.watched(&self.caller.host, calls);
        }
    }

    /// Refused calls to names that nobody has are in no edge. They are of a bot of this host, or would not have come so far.
    fn watch_denied(&self, time: Timestamp, call: &DeniedCall) {
        let (None, None, Some(from)) = (&call.to, &call.outside, &call.from) else {
            return;
        };
        if call.direction == "out" {
            let calls = Calls {
                from,
                to: "",
                rule: "",
                verdict: "deny",
                reason: &call.reason,
                count: 1,
                waited: self.core.now().duration_since(time),
            };
            self.core.watched(&self.caller.host, calls);
        }
    }

    fn event(&self, event: &Event) -> Result<(), GoodbyeReason> {
        if event.json.len() > EVENT_BYTES_MAX || event.kind.len() > KIND_BYTES_MAX {
            self.count("events", false);
            return self.end(HostRefusal::EventTooLong, &event.kind);
        }
        let told = self.told_event(event);
        self.count("events", told.is_ok());
        if let Err(refusal) = told {
            self.refuse(refusal, &format!("{} {}", event.kind, event.json));
        }
        Ok(())
    }

    /// A kind of event that this version does not know is passed over, not believed.
    fn told_event(&self, event: &Event) -> Result<(), HostRefusal> {
        let unreadable = |_error: serde_json::Error| HostRefusal::EventUnreadable;
        // A host's time is believed, but not in the future.
        let time = Timestamp::from_unix_millis(event.unix_ms).min(self.core.now());
        match event.kind.as_str() {
            DENIED => {
                let call: DeniedCall = serde_json::from_str(&event.json).map_err(unreadable)?;
                let ends = [&call.from, &call.to];
                if !ends.into_iter().flatten().any(|bot| self.is_own(bot)) {
                    return Err(HostRefusal::EventNotYours);
                }
                let named = call.outside.as_ref().is_none_or(|outside| self.is_named(outside));
                let bots = ends.into_iter().flatten().collect::<Vec<_>>();
                let known = bots
                    .into_iter()
                    .all(|bot| self.by_mesh(|mesh| mesh.bots().contains_key(bot)));
                if !known || !named {
                    return Err(HostRefusal::EventUnreadable);
                }
                self.watch_denied(time, &call);
                self.core.observed.denied(&self.caller.host, time, call);
            }
            ALERT => {
                let alert: ToldAlert = serde_json::from_str(&event.json).map_err(unreadable)?;
                self.core.observed.alert(ToldBy {
                    time,
                    host: self.caller.host.clone(),
                    reason: alert.reason,
                    message: alert.message,
                });
            }
            EVENTS_DROPPED => {
                let dropped: EventsDropped = serde_json::from_str(&event.json).map_err(unreadable)?;
                self.core.observed.events_dropped(dropped.count);
            }
            _unknown => {
                let is_object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&event.json);
                is_object.map_err(unreadable)?;
            }
        }
        Ok(())
    }

    /// A host may tell of calls that one of its own bots made or got, with a rule and words that exist.
    fn told(&self, edge: &Edge) -> Result<EdgeKey, HostRefusal> {
        let (from, to) = self.ends(edge).ok_or(HostRefusal::EdgeNotYours)?;
        let is_known = match &to {
            End::Bot(to) => self.by_mesh(|mesh| mesh.bots().contains_key(to)),
            End::Outside(to) => self.is_named(to),
        };
        let has_ends = is_known && self.by_mesh(|mesh| mesh.bots().contains_key(&from));
        let has_rule = |mesh: &Mesh| RuleId::parse(&edge.rule).is_some_and(|rule| mesh.rule_place(&rule).is_some());
        let has_rule = edge.rule.is_empty() || self.by_mesh(has_rule);
        let short = edge.latency_us_buckets.len() <= BUCKETS_MAX && edge.route.len() <= TEXT_BYTES_MAX;
        if !has_ends || !has_rule || !short || !VERDICTS.contains(&edge.verdict.as_str()) || !is_word(&edge.reason) {
            return Err(HostRefusal::EdgeUnreadable);
        }
        Ok(EdgeKey {
            from,
            to: match to {
                End::Bot(to) => to.to_string(),
                End::Outside(to) => to,
            },
            rule: edge.rule.clone(),
            verdict: edge.verdict.clone(),
            reason: edge.reason.clone(),
        })
    }

    /// Both ends of an edge, one of which is a bot of the host.
    fn ends(&self, edge: &Edge) -> Option<(BotName, End)> {
        let from = self.bot(&edge.from)?;
        if edge.to.contains("://") && SpiffeId::parse(&edge.to).is_err() {
            return self.is_own(&from).then(|| (from, End::Outside(edge.to.clone())));
        }
        let to = self.bot(&edge.to)?;
        (self.is_own(&from) || self.is_own(&to)).then_some((from, End::Bot(to)))
    }

    /// Whether a rule names a destination outside so.
    fn is_named(&self, outside: &str) -> bool {
        self.by_mesh(|mesh| mesh.outside_names().contains(outside))
    }

    /// The bot that an end of an edge names, by its ID or its name.
    fn bot(&self, end: &str) -> Option<BotName> {
        let Ok(id) = SpiffeId::parse(end) else {
            return BotName::parse(end).ok();
        };
        if !id.is_member_of(self.core.trust_domain()) {
            return None;
        }
        match id.kind() {
            IdKind::Bot(bot) => Some(bot),
            IdKind::TrustDomain | IdKind::Host(_) | IdKind::Ca(_) | IdKind::Operator(_) | IdKind::Foreign => None,
        }
    }

    fn is_own(&self, bot: &BotName) -> bool {
        let host = &self.caller.host;
        self.by_mesh(|mesh| mesh.bots().get(bot).is_some_and(|bot| bot.may_run_on(host)))
    }

    /// Asks the live mesh, and the one of the host's slice before it: what it saw then may be under way yet.
    fn by_mesh(&self, ask: impl Fn(&Mesh) -> bool) -> bool {
        let live = self.core.world.live();
        live.mesh.as_deref().is_some_and(&ask) || self.outbox.before().is_some_and(&ask)
    }

    fn count(&self, kind: &str, accepted: bool) {
        let result = if accepted { "accepted" } else { "refused" };
        self.core.metrics.observed.with_label_values(&[kind, result]).inc();
    }

    /// Passes over what was said.
    fn refuse(&self, refusal: HostRefusal, what: &str) {
        self.core
            .host_refused(&self.caller.host, self.caller.source, refusal, what);
    }

    /// Ends the stream for what was said.
    fn end(&self, refusal: HostRefusal, what: &str) -> Result<(), GoodbyeReason> {
        self.refuse(refusal, what);
        Err(GoodbyeReason::Protocol)
    }
}

/// Who is called, as an edge tells it.
enum End {
    /// A bot.
    Bot(BotName),
    /// A destination outside.
    Outside(String),
}

/// Whether a text can be a reason; the list of them is longer with each version.
fn is_word(text: &str) -> bool {
    text.len() <= WORD_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}
