//! What a host says, believed only as far as it goes.

use ca_api::node::host_message::Message;
use ca_api::node::{Applied, Checkpoint, EDGES_MAX, Edge, Edges, Event, GoodbyeReason, QuarantinesApplied};
use spiffe::id::{BotName, HostName, IdKind, SpiffeId};
use tokio::time::Instant;

use super::Stream;
use crate::world::Cut;

/// Why a slice could not be applied, in the operator's list.
const ERROR_BYTES_MAX: usize = 1024;

/// One event; the ledger of the host has it whole.
const EVENT_BYTES_MAX: usize = 8 * 1024;

/// A C2SP signed note over a checkpoint is a few hundred bytes.
const NOTE_BYTES_MAX: usize = 4 * 1024;

impl Stream<'_> {
    /// Takes one message; `Err` ends the stream.
    pub(super) fn take(&mut self, message: Message) -> Result<(), GoodbyeReason> {
        match message {
            // Only the first message of a stream is one.
            Message::Hello(_) => Err(GoodbyeReason::Protocol),
            Message::Applied(applied) => {
                self.applied(applied);
                Ok(())
            }
            Message::Edges(edges) => self.edges(&edges),
            Message::Event(event) => self.event(&event),
            Message::Checkpoint(checkpoint) => self.checkpoint(&checkpoint),
            Message::QuarantinesApplied(applied) => {
                self.quarantines_applied(&applied);
                Ok(())
            }
        }
    }

    /// A receipt counts only for the slice that was sent, whole.
    fn applied(&self, applied: Applied) {
        let Some(generation) = applied.generation.map(ca_api::Generation::from) else {
            return;
        };
        let sent = self.outbox.sent(generation);
        if sent.is_none_or(|sha256| applied.sha256 != sha256) {
            // A slice that a newer one has overtaken, or one that was never sent.
            tracing::debug!(host = %self.caller.host, %generation, "a receipt for another slice");
            return;
        }
        let outcome = if applied.ok {
            Ok(())
        } else {
            Err(shorten(applied.error, ERROR_BYTES_MAX))
        };
        if let Err(error) = &outcome {
            tracing::warn!(host = %self.caller.host, %generation, error, "a host could not apply its slice");
        }
        self.core
            .world
            .receipt(&self.caller.host, self.session, self.core.now(), generation, outcome);
    }

    /// A receipt for a list that was never sent counts for nothing.
    fn quarantines_applied(&self, applied: &QuarantinesApplied) {
        let Some(generation) = applied.generation.map(ca_api::Generation::from) else {
            return;
        };
        if self.outbox.quarantines_sent().is_none_or(|sent| generation > sent) {
            tracing::debug!(host = %self.caller.host, %generation, "a receipt for quarantines that were not sent");
            return;
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
            return Err(GoodbyeReason::Protocol);
        }
        for edge in &edges.edges {
            self.count("edges", self.may_tell(edge));
        }
        Ok(())
    }

    fn event(&self, event: &Event) -> Result<(), GoodbyeReason> {
        if event.json.len() > EVENT_BYTES_MAX || event.kind.len() > 64 {
            return Err(GoodbyeReason::Protocol);
        }
        let is_object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&event.json).is_ok();
        self.count("events", is_object);
        Ok(())
    }

    fn checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), GoodbyeReason> {
        if checkpoint.note.len() > NOTE_BYTES_MAX {
            return Err(GoodbyeReason::Protocol);
        }
        self.count("checkpoints", true);
        Ok(())
    }

    /// A host may tell of calls that one of its own bots made or got.
    fn may_tell(&self, edge: &Edge) -> bool {
        self.is_own(&edge.from) || self.is_own(&edge.to)
    }

    fn is_own(&self, end: &str) -> bool {
        let bot = match SpiffeId::parse(end) {
            Ok(id) if id.is_member_of(self.core.trust_domain()) => match id.kind() {
                IdKind::Bot(bot) => bot,
                IdKind::TrustDomain | IdKind::Host(_) | IdKind::Ca(_) | IdKind::Operator(_) | IdKind::Foreign => {
                    return false;
                }
            },
            Ok(_foreign) => return false,
            Err(_) => match BotName::parse(end) {
                Ok(bot) => bot,
                Err(_) => return false,
            },
        };
        self.outbox.mentions(&bot) && may_claim(self, &bot, &self.caller.host)
    }

    fn count(&self, kind: &str, accepted: bool) {
        let result = if accepted { "accepted" } else { "refused" };
        self.core.metrics.observed.with_label_values(&[kind, result]).inc();
    }
}

fn may_claim(stream: &Stream<'_>, bot: &BotName, host: &HostName) -> bool {
    let live = stream.core.world.live();
    let mesh = live.mesh.as_deref();
    mesh.and_then(|mesh| mesh.bots().get(bot))
        .is_some_and(|bot| bot.may_run_on(host))
}

/// Cuts a text at a character boundary.
fn shorten(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}
