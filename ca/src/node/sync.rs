//! The stream of one host: state down, receipts and observations up.
//!
//! Nothing queues for a slow host. What is due is a set of flags, and a message is
//! made from the newest state at the moment when there is room for it.

mod inbox;
mod outbox;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use audit::EventKind;
use ca_api::Generation;
use ca_api::node::{CaMessage, GoodbyeReason, Hello, HostMessage, PROTOCOL_VERSION, ca_message, down, host_message};
use ca_api::rotation::RECIPIENT_BYTES_MAX;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::caller::Caller;
use super::endpoints::advertised;
use crate::alerts::{AlertKind, Opened};
use crate::core::Core;
use crate::refusals::HostRefusal;
use crate::world::Admitted;
use outbox::Outbox;

/// Messages between this task and the connection; more wait as flags.
const QUEUE: usize = 2;

/// The first message comes at once or never.
const HELLO_MAX: Duration = Duration::from_secs(10);

/// How often a host hears the CA's time when nothing else happens; it is also how a
/// host knows that the CA is there.
const TIME_INTERVAL: Duration = Duration::from_secs(5);

/// Words in `Hello.features`.
const FEATURES_MAX: usize = 32;

/// The longest of them.
const FEATURE_BYTES_MAX: usize = 64;

/// How long the last word may wait for room.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

type Sender = mpsc::Sender<Result<CaMessage, Status>>;

/// Takes a stream in; a task of the CA serves it to its end.
pub(super) fn open(
    core: &Arc<Core>,
    caller: Caller,
    inbound: Streaming<HostMessage>,
) -> ReceiverStream<Result<CaMessage, Status>> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let core = Arc::clone(core);
    let tasks = core.tasks.clone();
    tasks.spawn(async move {
        let goodbye = serve(&core, &caller, inbound, &sender).await;
        if let Some(reason) = goodbye {
            let last = down(ca_message::Message::Goodbye(ca_api::node::Goodbye {
                reason: reason.as_str().into(),
            }));
            // A host that has no room for it learns the same from the end of the stream.
            drop(sender.send_timeout(Ok(last), GOODBYE_MAX).await);
        }
    });
    ReceiverStream::new(receiver)
}

/// Serves the stream; `None` when the host ended it.
async fn serve(
    core: &Arc<Core>,
    caller: &Caller,
    mut inbound: Streaming<HostMessage>,
    sender: &Sender,
) -> Option<GoodbyeReason> {
    let hello = match tokio::time::timeout(HELLO_MAX, inbound.message()).await {
        Ok(Ok(Some(HostMessage {
            message: Some(host_message::Message::Hello(hello)),
        }))) => hello,
        Ok(Ok(None)) => return None,
        Ok(Err(status)) => return refuse_bytes(core, caller, &status),
        Ok(Ok(Some(_))) | Err(_) => {
            core.host_refused(&caller.host, caller.source, HostRefusal::NoHello, "");
            return Some(GoodbyeReason::Protocol);
        }
    };
    let admitted = match connect(core, caller, &hello).await {
        Ok(admitted) => admitted,
        Err(reason) => return Some(reason),
    };
    let Admitted {
        session,
        ended,
        record,
        replaced,
    } = admitted;
    let opened = Opened {
        source: caller.source,
        replaced,
    };
    core.stream_opened(&caller.host, opened);
    core.metrics.streams_opened.inc();
    let host = format!("host:{}", caller.host);
    if record {
        let applied = hello.applied.map(|applied| Generation::from(applied).to_string());
        let detail = [("source", json!(caller.source)), ("applied", json!(applied))];
        core.journal.note(EventKind::HostConnected, &host, &host, detail);
    }
    let mut stream = Stream {
        core,
        caller,
        session,
        outbox: Outbox::new(caller.host.clone(), &hello, *core.questions.watch().borrow()),
    };
    let goodbye = stream.run(inbound, ended, sender).await;
    core.world.disconnect(&caller.host, session, core.now());
    if record {
        let why = goodbye.map_or("closed", GoodbyeReason::as_str);
        core.journal
            .note(EventKind::HostDisconnected, &host, &host, [("reason", json!(why))]);
    }
    goodbye
}

/// Bytes that are no message, or too many for one; `None` for a connection that broke.
fn refuse_bytes(core: &Core, caller: &Caller, status: &Status) -> Option<GoodbyeReason> {
    let refusal = if status.code() == Code::OutOfRange {
        HostRefusal::MessageTooLong
    } else if status.code() == Code::Internal && status.message().starts_with("failed to decode Protobuf") {
        HostRefusal::MessageUnreadable
    } else {
        return None;
    };
    core.host_refused(&caller.host, caller.source, refusal, status.message());
    Some(GoodbyeReason::Protocol)
}

/// Where the host can be reached, unless that is somebody else's place.
///
/// Of two hosts that tell the same address it is that one's which connects from there; where neither or both do, the one
/// that told it first keeps it.
fn address(core: &Core, caller: &Caller, hello: &Hello) -> Result<Option<SocketAddr>, GoodbyeReason> {
    let refuse = |what: &str| {
        core.host_refused(&caller.host, caller.source, HostRefusal::AdvertiseNotYours, what);
        Err(GoodbyeReason::Protocol)
    };
    let Ok(address) = advertised(&hello.advertise, caller.source) else {
        return refuse(&hello.advertise);
    };
    let Some(told) = address else { return Ok(None) };
    let Some(other) = core.world.advertised_by_another(&caller.host, told) else {
        return Ok(address);
    };
    let is_here = other.session.is_some_and(|session| session.source == told.ip());
    if caller.source != told.ip() || is_here {
        return refuse(&format!("{told}, the address of {}", other.row.name));
    }
    core.alert(&other.row.name, AlertKind::AddressTaken, vec![told.ip()]);
    Ok(address)
}

async fn connect(core: &Core, caller: &Caller, hello: &Hello) -> Result<Admitted, GoodbyeReason> {
    let too_long = |word: &String| word.len() > FEATURE_BYTES_MAX;
    let too_much = hello.features.len() > FEATURES_MAX
        || hello.features.iter().any(too_long)
        || hello.recipient.len() > RECIPIENT_BYTES_MAX
        || !hello.recipient.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if hello.version != PROTOCOL_VERSION || too_much || !matches!(hello.applied_sha256.len(), 0 | 32) {
        let what = format!("version {}", hello.version);
        core.host_refused(&caller.host, caller.source, HostRefusal::BadHello, &what);
        return Err(GoodbyeReason::Protocol);
    }
    let advertise = address(core, caller, hello)?;
    let rows = core
        .store
        .host_seen(caller.host.clone(), caller.key, core.now(), advertise)
        .await
        .map_err(|error| {
            tracing::error!(host = %caller.host, error = &error as &dyn std::error::Error, "take in a stream");
            GoodbyeReason::Shutdown
        })?
        .ok_or(GoodbyeReason::Evicted)?;
    for row in rows {
        core.world.put_row(row);
    }
    let applied = hello.applied.map(Generation::from);
    let admitted = core
        .world
        .connect(&caller.host, &caller.key, caller.source, core.now(), applied)
        .ok_or(GoodbyeReason::Evicted)?;
    // At once: a host that is connected and has not said yet what it enforces would stop an `apply`.
    let features = hello.features.iter().cloned().collect();
    let recipient = Some(hello.recipient.clone()).filter(|told| !told.is_empty());
    core.world
        .enforces(&caller.host, admitted.session, (features, recipient));
    Ok(admitted)
}

struct Stream<'a> {
    core: &'a Arc<Core>,
    caller: &'a Caller,
    session: u64,
    outbox: Outbox,
}

impl Stream<'_> {
    async fn run(
        &mut self,
        mut inbound: Streaming<HostMessage>,
        mut ended: watch::Receiver<Option<GoodbyeReason>>,
        sender: &Sender,
    ) -> Option<GoodbyeReason> {
        let core = Arc::clone(self.core);
        let mut live = core.world.watch_live();
        let mut routes = core.world.watch_routes();
        let mut quarantines = core.quarantines.watch();
        let mut rotations = core.rotations.watch();
        let mut questions = core.questions.watch();
        let expiry = core.clock.sleep_until(self.caller.not_after);
        let mut expiry = std::pin::pin!(expiry);
        let mut tick = tokio::time::interval(TIME_INTERVAL);
        loop {
            // Cancel safe: `message`, `changed`, `tick` and `reserve` lose nothing when
            // dropped, and the expiry is polled by reference. Biased, so that nothing
            // that a host sends can delay the end of its stream.
            tokio::select! {
                biased;
                () = core.cancel.cancelled() => return Some(GoodbyeReason::Shutdown),
                reason = ended.wait_for(Option::is_some) => {
                    return reason.map_or(Some(GoodbyeReason::Shutdown), |reason| *reason);
                }
                () = expiry.as_mut() => return Some(GoodbyeReason::SvidExpired),
                Ok(()) = quarantines.changed() => self.outbox.quarantines_changed(),
                room = sender.reserve(), if self.outbox.is_due() => {
                    let Ok(room) = room else { return None };
                    if let Some(message) = self.outbox.next(&core) {
                        room.send(Ok(down(message)));
                    }
                }
                Ok(()) = live.changed() => self.outbox.live_changed(),
                Ok(()) = routes.changed() => self.outbox.routes_changed(),
                Ok(()) = rotations.changed() => self.outbox.rotations_changed(),
                Ok(()) = questions.changed() => self.outbox.questions_changed(),
                _ = tick.tick() => {
                    self.lives(false);
                    self.outbox.time_due();
                }
                message = inbound.message() => match message {
                    Ok(Some(HostMessage { message: Some(message) })) => {
                        if let Err(reason) = self.take(message) {
                            return Some(reason);
                        }
                    }
                    // A kind of message that this version does not know.
                    Ok(Some(HostMessage { message: None })) => {}
                    Ok(None) => return None,
                    Err(status) => return refuse_bytes(&core, self.caller, &status),
                },
            }
        }
    }
}
