//! The stream: what the CA says is applied, what was applied is acknowledged, and
//! what was seen goes up.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use audit::EventKind;
use ca_api::node::{
    Applied, Bundle, CaMessage, Endpoints, GoodbyeReason, Hello, HostMessage, PROTOCOL_VERSION, Quarantines,
    QuarantinesApplied, Slice, ca_message, host_message, up,
};
use serde_json::Value;
use spiffe::time::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::dial::Dialed;
use super::link::{End, LinkError};
use super::shared::Shared;
use super::snapshot::{Change, OfferedSlice, SliceError, from_wire, to_wire};
use super::state_dir::SavedSlice;
use super::up::UpReader;
use super::{ask, cosign, issue, node};

/// How long the CA may take to open the stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the CA may leave a message unread before it is taken for dead.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the CA may say nothing. It says its time every few seconds, so one that
/// is silent for so long is gone, whatever TCP believes.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How many messages are under way up before the sender waits.
const UP_WINDOW: usize = 16;

/// The longest refusal of a slice that goes up, and into the ledger.
const ERROR_BYTES_MAX: usize = 1024;

/// Runs the stream on this connection until it ends, and beside it what lives only
/// while there is one: asking for SVIDs, and renewing the node's own.
pub(super) async fn run(shared: &Shared, dialed: Dialed, reader: &mut UpReader) -> Result<End, LinkError> {
    let Dialed {
        mut client, address, ..
    } = dialed;
    let (sender, receiver) = mpsc::channel(UP_WINDOW);
    let sender = Sender(sender);
    sender.send(hello(shared)).await?;
    let opening = tokio::time::timeout(OPEN_TIMEOUT, client.sync(ReceiverStream::new(receiver)));
    let down = match opening.await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => {
            return Err(LinkError::Stream {
                status: Box::new(status),
            });
        }
        Err(_elapsed) => {
            return Err(LinkError::Slow {
                what: "open the stream",
            });
        }
    };
    {
        let mut link = shared.link();
        link.connected = Some(address.to_string());
        link.error = None;
    }
    shared.set_client(Some(client.clone()));
    shared.touch();
    tracing::info!(%address, "the stream to the CA is up");
    // Whichever ends first ends the others: a slice is applied without an await in
    // the middle, an SVID that was asked for is asked for again, and so is a node
    // SVID, whose old key the CA still takes.
    tokio::select! {
        end = pump(shared, down, &sender, reader) => end,
        never = issue::keep_warm(shared, client.clone()) => match never {},
        never = cosign::keep_cosigned(shared, client.clone()) => match never {},
        never = ask::answer_all(shared, client) => match never {},
        () = node::renew(shared) => Ok(End::Renewed),
    }
}

fn hello(shared: &Shared) -> HostMessage {
    let snapshot = shared.snapshot();
    up(host_message::Message::Hello(Hello {
        version: PROTOCOL_VERSION,
        features: policy::feature::ENFORCED
            .iter()
            .map(|word| (*word).to_owned())
            .collect(),
        applied: snapshot.has_slice().then(|| to_wire(snapshot.generation)),
        bundle_sequence: snapshot.bundle.sequence(),
        advertise: shared.config.advertise.to_string(),
        applied_sha256: snapshot.slice_sha256().map(Vec::from).unwrap_or_default(),
        recipient: recipient(shared),
    }))
}

/// To whom values are sealed for this host. Without one it gets none, and everything else goes on.
fn recipient(shared: &Shared) -> String {
    let told = shared.config.sealer.recipient();
    let told = told
        .inspect_err(|error| tracing::error!(error = error as &dyn Error, "this host takes no values of credentials"));
    told.unwrap_or_default()
}

/// The way up; a CA that does not read ends the stream.
struct Sender(mpsc::Sender<HostMessage>);

impl Sender {
    async fn send(&self, message: HostMessage) -> Result<(), LinkError> {
        match tokio::time::timeout(SEND_TIMEOUT, self.0.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_closed)) => Err(LinkError::Slow {
                what: "keep the stream open",
            }),
            Err(_elapsed) => Err(LinkError::Slow {
                what: "read from the stream",
            }),
        }
    }
}

async fn pump(
    shared: &Shared,
    mut down: Streaming<CaMessage>,
    sender: &Sender,
    reader: &mut UpReader,
) -> Result<End, LinkError> {
    let mut silent_at = Instant::now() + SILENCE_MAX;
    loop {
        // Every wait is cancel safe: a message that is not taken stays where it is.
        tokio::select! {
            message = down.message() => match message {
                Ok(Some(CaMessage { message: Some(message) })) => {
                    silent_at = Instant::now() + SILENCE_MAX;
                    if let Some(end) = heard(shared, message, sender).await? {
                        return Ok(end);
                    }
                }
                // A kind of message that this version does not know.
                Ok(Some(CaMessage { message: None })) => {}
                Ok(None) => return Ok(End::Closed),
                Err(status) => return Err(LinkError::Stream { status: Box::new(status) }),
            },
            () = tokio::time::sleep_until(silent_at) => return Err(LinkError::Slow { what: "say its time" }),
            report = shared.orders.next_report() => {
                sender.send(up(host_message::Message::CredentialReport(report))).await?;
            }
            Some(message) = reader.next() => {
                sender.send(shared.up.stamp(message)).await?;
                if let Some(report) = shared.up.report_dropped_events(shared.time.now()) {
                    sender.send(report).await?;
                }
            }
        }
    }
}

async fn heard(shared: &Shared, message: ca_message::Message, sender: &Sender) -> Result<Option<End>, LinkError> {
    shared.time.listened();
    let first = {
        let mut link = shared.link();
        link.heard.replace(shared.time.now()).is_none()
    };
    if first {
        shared.touch();
    }
    match message {
        ca_message::Message::Slice(slice) => {
            let (receipt, kept) = slice_heard(shared, slice).await;
            // Before the receipt: a rule that an operator was told is gone must not come back with a restart that the CA
            // does not see.
            if let Some(kept) = kept {
                shared.keep(move |files| files.save_slice(&kept)).await;
            }
            sender.send(receipt).await?;
        }
        ca_message::Message::Bundle(bundle) => bundle_heard(shared, bundle).await,
        ca_message::Message::Endpoints(endpoints) => endpoints_heard(shared, endpoints).await,
        ca_message::Message::Quarantines(quarantines) => quarantines_heard(shared, &quarantines, sender).await?,
        ca_message::Message::CredentialOrder(order) => {
            if !shared.orders.take(order) {
                tracing::error!("an order about a credential cannot be read and was not taken");
            }
        }
        ca_message::Message::LedgerQuestion(question) => shared.questions.take(question),
        ca_message::Message::CaTime(time) => shared.heard_time(Timestamp::from_unix_millis(time.unix_ms)).await,
        ca_message::Message::Goodbye(goodbye) => {
            return Ok(Some(End::Goodbye(GoodbyeReason::from_word(&goodbye.reason))));
        }
    }
    Ok(None)
}

/// Puts a list of quarantines into force; the receipt follows once whatever lived against it was ended, and the list was
/// kept: what an operator was told holds after a crash too, whether the CA is there or not. A list that is not taken has
/// no receipt.
async fn quarantines_heard(shared: &Shared, list: &Quarantines, sender: &Sender) -> Result<(), LinkError> {
    let Ok(cut) = shared.change(|now| now.with_quarantines(list).ok_or(Unreadable)) else {
        tracing::error!("quarantines with a name that does not parse were not taken");
        return Ok(());
    };
    if let Some(streams_cut) = cut {
        tracing::info!(streams_cut, bots = ?list.bots, hosts = ?list.hosts, "a new list of quarantines is in force");
        let saved = shared.snapshot().endpoints_to_save();
        // It is in force in any case: a disk that takes nothing is no reason to say nothing.
        shared.keep(move |files| files.save_endpoints(&saved)).await;
    }
    let streams_cut = cut.unwrap_or_default();
    let generation = Some(to_wire(shared.snapshot().quarantines_generation()));
    let receipt = QuarantinesApplied {
        generation,
        streams_cut,
    };
    sender
        .send(up(host_message::Message::QuarantinesApplied(receipt)))
        .await
}

/// A list has a name that cannot be read.
struct Unreadable;

/// Puts new endpoints into force.
async fn endpoints_heard(shared: &Shared, endpoints: Endpoints) {
    let Ok(cut) = shared.change(|now| Ok::<_, Infallible>(now.with_endpoints(endpoints)));
    if cut.is_some() {
        let saved = shared.snapshot().endpoints_to_save();
        shared.keep(move |files| files.save_endpoints(&saved)).await;
    }
}

/// Puts a slice into force, or refuses it whole; the receipt is made after that.
async fn slice_heard(shared: &Shared, slice: Slice) -> (HostMessage, Option<SavedSlice>) {
    let (generation, sha256) = (slice.generation, slice.sha256.clone());
    let receipt = |error: Option<&SliceError>| {
        up(host_message::Message::Applied(Applied {
            generation,
            sha256,
            ok: error.is_none(),
            error: error.map(|error| shorten(super::chain_of(error))).unwrap_or_default(),
        }))
    };
    match apply_slice(shared, slice).await {
        Ok(kept) => (receipt(None), kept),
        Err(error) => {
            tracing::error!(
                error = &error as &dyn Error,
                "a slice was refused; the one before it stays"
            );
            let refused = generation.map(from_wire).unwrap_or_default();
            shared.counts.slice_refused(refused.revision);
            let subject = refused.to_string();
            let detail = BTreeMap::from([("error".to_owned(), Value::from(shorten(error.to_string())))]);
            shared.record(EventKind::PolicyRefused, subject, detail);
            (receipt(Some(&error)), None)
        }
    }
}

/// What there is to keep afterwards, unless the slice was in force already.
async fn apply_slice(shared: &Shared, slice: Slice) -> Result<Option<SavedSlice>, SliceError> {
    let offered = OfferedSlice::from_wire(slice)?;
    let Change::Next(next) = shared.read_slice(&offered).await? else {
        return Ok(None);
    };
    let generation = next.generation;
    // A renewed node SVID may have brought a bundle while the slice was read.
    shared.publish(|now| now.with_policy_of(*next));
    shared.counts.slice_applied();
    tracing::info!(%generation, "a new policy is in force");
    let sha256: String = offered.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    let detail = BTreeMap::from([("slice_sha256".to_owned(), Value::from(sha256))]);
    shared.record(EventKind::PolicyApplied, generation.to_string(), detail);
    Ok(Some(offered.to_save()))
}

async fn bundle_heard(shared: &Shared, bundle: Bundle) {
    let epoch = bundle.generation.map(|generation| generation.epoch);
    match shared.change(|now| now.with_bundle(epoch, &bundle.jwks)) {
        Ok(Some(_cut)) => {
            let now = shared.snapshot();
            let (saved, sequence) = (now.bundle_to_save(), now.bundle.sequence());
            tracing::info!(sequence, "a new trust bundle is in use");
            let subject = shared.config.trust_domain.id().to_string();
            let detail = BTreeMap::from([("sequence".to_owned(), Value::from(sequence))]);
            shared.record(EventKind::BundleChanged, subject, detail);
            shared.keep(move |files| files.save_bundle(&saved)).await;
        }
        Ok(None) => {}
        Err(error) => tracing::error!(
            error = &error as &dyn Error,
            "a trust bundle was refused; the one before it stays"
        ),
    }
}

fn shorten(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(ERROR_BYTES_MAX));
    text
}
