//! A connection to a callee that carries bytes both ways, each direction to its own end.
//!
//! One task has the caller's direction, and with it the end of the connection: FIN where the caller came to the end of
//! what it says, a reset where anything broke off. So no callee takes the half of something for the whole. Who holds
//! the callee's end is checked again before anything is said to it, once a second at most, and each second in which it
//! says anything.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame};
use spiffe::id::BotName;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::TaskTracker;

use super::greeting::Greeting;
use super::{Connection, Whose, check};
use crate::attest::{Attestor, Callee};
use crate::call::{CALLER_GONE, End, RequestBody, RequestCount, RequestError};
use crate::ends::{ReadEnd, WriteEnd};
use crate::http1::body::{BodyError, Left};
use crate::http1::read::Reader;
use crate::http1::status::AnswerFraming;
use crate::http1::write::{Tail, WriteError, Writer};
use crate::live::Held;
use crate::reason::Reason;

/// How often it is looked at who is there while only the callee speaks; mostly somebody else has found out.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What the callee says in a tunnel.
#[derive(Debug)]
pub(crate) struct TunnelBody {
    reader: Reader<ReadEnd>,
    left: Left,
    /// Tells that the callee came to the end of what it says; dropped without it, the tunnel has broken off.
    whole: Option<oneshot::Sender<()>>,
    /// Takes the record of the call's end to where its last direction ends.
    over: Option<oneshot::Sender<Box<End>>>,
    seen: Arc<Seen>,
}

/// What the two directions know of each other.
#[derive(Debug, Default)]
struct Seen {
    /// How many bytes the callee has said.
    answered: AtomicU64,
    /// Whether the caller's direction broke off.
    caller_gone: AtomicBool,
}

/// What is looked at before anything is said in a tunnel.
#[derive(Debug)]
pub(super) enum Guard {
    /// Whether the callee is still the bot.
    Bot(Watch),
    /// Nothing: TLS said who the destination is, or nobody can.
    None,
    /// What the caller's own TLS says of whom it wants.
    Hello(Greeting),
}

/// Looks whether the callee is still the bot.
#[derive(Debug)]
pub(super) struct Watch {
    attestor: Attestor,
    bot: BotName,
    /// Who was found there last.
    end: Option<Callee>,
    /// How many bytes had passed then.
    moved: u64,
    /// The call, which ends where the callee is somebody else.
    held: Held,
}

impl TunnelBody {
    /// Has `body` be said to the callee from here on.
    pub(super) fn open(connection: Connection, body: RequestBody, guard: Guard, tasks: &TaskTracker) -> Self {
        let Connection {
            mut reader, mut writer, ..
        } = connection;
        reader.begin_tunnel();
        writer.begin_tunnel();
        let (whole, fate) = oneshot::channel();
        let (over, end) = oneshot::channel();
        let seen = Arc::new(Seen::default());
        let asking = Asking {
            count: body.count(),
            body: Some(body),
            writer,
            tail: Tail::default(),
            guard,
            seen: Arc::clone(&seen),
        };
        drop(tasks.spawn(carry(asking, fate, end)));
        Self {
            reader,
            left: Left::from(AnswerFraming::Close),
            whole: Some(whole),
            over: Some(over),
            seen,
        }
    }

    /// Takes the next frame.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = self.left.poll_frame(&mut self.reader, cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.seen.answered.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Poll::Ready(None) => {
                if let Some(whole) = self.whole.take() {
                    // Where nobody listens, the caller's direction broke off.
                    whole.send(()).unwrap_or_default();
                }
            }
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        frame
    }

    pub(crate) const fn is_end_stream(&self) -> bool {
        self.left.is_done()
    }

    /// Tells whether the caller's direction broke off, which breaks off the other one too.
    pub(crate) fn is_caller_gone(&self) -> bool {
        self.seen.caller_gone.load(Ordering::Acquire)
    }

    /// Has the call end with the caller's direction, if that goes on; else it ends here.
    pub(crate) fn hand_over(&mut self, mut end: Box<End>) {
        if self.left.is_done() {
            if let Some(over) = self.over.take() {
                // Where nobody takes it, it comes back and ends.
                drop(over.send(end));
            }
        } else if self.is_caller_gone() {
            end.ended(CALLER_GONE);
        }
    }
}

impl Guard {
    /// Starts with a connection that has just been checked.
    pub(super) fn new(attestor: &Attestor, connection: &Connection, held: Held) -> Self {
        match &connection.whose {
            Whose::Bot(of) => Self::Bot(Watch {
                attestor: attestor.clone(),
                bot: of.bot.clone(),
                end: of.end.clone(),
                moved: 0,
                held,
            }),
            Whose::Outside(_) => Self::None,
        }
    }
}

impl Watch {
    /// Checks who holds the other end, unless that was done in this second; the call ends where it is not the bot.
    async fn check(&mut self, writer: &mut Writer<WriteEnd>, moved: u64) -> Result<(), Broken> {
        if self.end.as_ref().is_some_and(Callee::is_fresh) {
            return Ok(());
        }
        self.moved = moved;
        let checked = check(&self.attestor, &self.bot, writer.io().socket()).await;
        self.end = Some(checked.map_err(|fault| {
            tracing::warn!(bot = %self.bot, error = &fault as &dyn std::error::Error, "a callee is somebody else than it was");
            self.held.end(Reason::CalleeMismatch);
            Broken
        })?);
        Ok(())
    }
}

/// The caller's direction.
#[derive(Debug)]
struct Asking {
    /// Until it has been said whole.
    body: Option<RequestBody>,
    count: RequestCount,
    writer: Writer<WriteEnd>,
    tail: Tail,
    guard: Guard,
    seen: Arc<Seen>,
}

/// The tunnel ends before both of its directions did.
#[derive(Debug)]
pub(super) struct Broken;

/// What comes next in the caller's direction.
#[derive(Debug)]
enum Next {
    /// The callee has said everything, or what it said broke off.
    Answered(Result<(), Broken>),
    /// A second has passed.
    Tick,
    /// A frame has been said.
    Said(Result<(), WriteError>),
    /// The caller says a frame, or that it has said everything.
    Frame(Option<Result<Frame<Bytes>, RequestError>>),
}

/// Carries the caller's direction to its end, and holds the connection until the other one has ended too.
async fn carry(mut asking: Asking, mut fate: oneshot::Receiver<()>, mut end: oneshot::Receiver<Box<End>>) {
    let carried = asking.carry(&mut fate).await;
    if carried.is_err() {
        asking.writer.io().reset();
    }
    drop(asking);
    end.close();
    // If this direction was the last, the call ends here.
    if let (Ok(mut end), Err(Broken)) = (end.try_recv(), carried) {
        end.ended(CALLER_GONE);
    }
}

impl Asking {
    async fn carry(&mut self, fate: &mut oneshot::Receiver<()>) -> Result<(), Broken> {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut answering = true;
        while answering || self.body.is_some() {
            // No arm loses anything when another is taken: what is being said is kept here, and frames are taken whole.
            let next = tokio::select! {
                biased;
                whole = &mut *fate, if answering => Next::Answered(whole.map_err(|_dropped| Broken)),
                _tick = ticks.tick() => Next::Tick,
                said = std::future::poll_fn(|cx| self.writer.poll_send(&mut self.tail, cx)), if !self.tail.is_empty() => {
                    Next::Said(said)
                }
                frame = next_frame(&mut self.body), if self.tail.is_empty() && self.body.is_some() => Next::Frame(frame),
            };
            match next {
                Next::Answered(whole) => {
                    whole?;
                    answering = false;
                }
                Next::Tick => self.look().await?,
                // Whatever the callee says all the same is still read.
                Next::Said(Err(gone)) => self.stop(&gone),
                Next::Said(Ok(())) => {}
                Next::Frame(frame) => self.frame(frame).await?,
            }
        }
        Ok(())
    }

    /// Checks the callee, if anything has moved since that was done.
    async fn look(&mut self) -> Result<(), Broken> {
        let moved = self.moved();
        match &mut self.guard {
            Guard::Bot(watch) if watch.moved != moved => watch.check(&mut self.writer, moved).await,
            Guard::Hello(greeting) => greeting.in_time(),
            Guard::Bot(_) | Guard::None => Ok(()),
        }
    }

    /// Lets what the caller says pass, or keeps it until more has come.
    async fn pass(&mut self, data: Bytes) -> Result<Option<Bytes>, Broken> {
        let moved = self.moved();
        match &mut self.guard {
            Guard::Bot(watch) => watch.check(&mut self.writer, moved).await.map(|()| Some(data)),
            Guard::Hello(greeting) => greeting.pass(data),
            Guard::None => Ok(Some(data)),
        }
    }

    async fn frame(&mut self, frame: Option<Result<Frame<Bytes>, RequestError>>) -> Result<(), Broken> {
        match frame {
            Some(Ok(frame)) => {
                // No protocol but HTTP has trailers.
                if let Ok(data) = frame.into_data()
                    && let Some(data) = self.pass(data).await?
                {
                    self.tail = Tail::new(data);
                    self.writer.begin();
                }
                Ok(())
            }
            Some(Err(error)) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a caller's direction broke off"
                );
                self.seen.caller_gone.store(true, Ordering::Release);
                Err(Broken)
            }
            None => {
                if let Err(gone) = self.writer.shutdown().await {
                    self.stop(&gone);
                }
                self.body = None;
                Ok(())
            }
        }
    }

    /// Says no more: the callee takes nothing.
    fn stop(&mut self, gone: &WriteError) {
        tracing::debug!(error = gone as &dyn std::error::Error, "a callee takes no more");
        (self.body, self.tail) = (None, Tail::default());
    }

    fn moved(&self) -> u64 {
        let answered = self.seen.answered.load(Ordering::Relaxed);
        self.count.get().wrapping_add(answered)
    }
}

async fn next_frame(body: &mut Option<RequestBody>) -> Option<Result<Frame<Bytes>, RequestError>> {
    let body = body.as_mut()?;
    std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}
