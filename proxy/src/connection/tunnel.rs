//! A connection that has become another protocol's: bytes both ways until both have ended, or until they may not go on.

use std::future::poll_fn;
use std::time::Duration;

use http::StatusCode;
use http_body::Frame;
use http_body_util::BodyExt as _;
use policy::Protocol;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Conversation, Handler};
use crate::call::{Answer, AnswerBody, CALLER_GONE, Door, Later, RequestCount};
use crate::ends::{ReadEnd, WriteEnd};
use crate::http1::body::{Body, Left};
use crate::http1::encode;
use crate::http1::framing::Version;
use crate::http1::read::Reader;
use crate::http1::status::AnswerFraming;
use crate::http1::write::{Tail, Writer};
use crate::live::{Held, Lane};
use crate::reason::Reason;

/// How often the caller's process is looked at, and whether anything has moved.
const TICK: Duration = Duration::from_secs(1);

/// What a connection keeps while it waits to hear whether its callee switches.
#[derive(Debug)]
pub(super) struct Asking {
    /// What the connection switches to; where it is CONNECT that it asks by, nothing.
    pub(super) protocol: Option<Protocol>,
    pub(super) later: Later,
    /// Counts the caller's bytes.
    pub(super) count: RequestCount,
}

/// Why a tunnel does not go on, as its record tells it; nothing where both directions came to their end.
pub(crate) type Outcome = Option<&'static str>;

impl Conversation<'_> {
    /// Tells the caller that the protocol is another, and carries bytes until the end. The connection ends with it.
    pub(super) async fn tunnel(
        self,
        handler: &Handler,
        mut answer: Answer,
        reader: Box<Reader<ReadEnd>>,
        asking: Asking,
    ) {
        let mut line = Line {
            door: handler.door(),
            writer: self.writer,
            silence: asking.protocol.as_ref().map(|_| self.proxy.bounds.answer_silence),
        };
        match &asking.protocol {
            Some(protocol) => encode::switch_head(line.writer.out(), &answer.headers, protocol.as_str()),
            None => opened_head(line.writer, &answer.headers),
        }
        if let Err(outcome) = line.opened(&answer.body).await {
            return answer.body.ended(outcome.unwrap_or(CALLER_GONE));
        }
        line.carry(reader, answer.body, asking.later, &asking.count).await;
    }
}

/// RFC 9110 §9.3.6: an answer of 2xx to CONNECT has neither a body nor fields that speak of one.
pub(super) fn opened_head(writer: &mut Writer<WriteEnd>, headers: &http::HeaderMap) {
    encode::answer_head(
        writer.out(),
        Version::Http11,
        StatusCode::OK,
        headers,
        encode::Form::None,
        true,
    );
}

/// The caller's end of a tunnel.
pub(crate) struct Line<'a> {
    pub(crate) door: &'a Door,
    pub(crate) writer: &'a mut Writer<WriteEnd>,
    /// For how long nothing may move; where it is not said, the registry of calls bounds it.
    pub(crate) silence: Option<Duration>,
}

impl Line<'_> {
    /// Carries bytes both ways until both directions have ended. Where the tunnel ends before that the caller's connection
    /// is reset, for the end of the one that it has would look like the end of what it was to get.
    pub(crate) async fn carry(
        mut self,
        reader: Box<Reader<ReadEnd>>,
        mut body: AnswerBody,
        later: Later,
        count: &RequestCount,
    ) {
        if let Err(outcome) = self.both_ways(reader, &mut body, later, count).await {
            self.writer.io().reset();
            if let Some(outcome) = outcome {
                body.ended(outcome);
            }
        }
    }

    async fn both_ways(
        &mut self,
        mut reader: Box<Reader<ReadEnd>>,
        body: &mut AnswerBody,
        later: Later,
        count: &RequestCount,
    ) -> Result<(), Outcome> {
        reader.begin_tunnel();
        self.writer.begin_tunnel();
        // From here on the caller's bytes are read, and not before.
        let (said, mut away) = Body::new(*reader, Left::from(AnswerFraming::Close));
        let _stop = later.begin(said);
        let mut moves = Moves::new(count);
        let held = body.call_held();
        let (mut ticks, mut tail, mut answering, mut asking) = (interval(TICK), Tail::default(), true, true);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while answering || asking || !tail.is_empty() {
            // No arm loses anything when another is taken: what is being written is kept here, frames are taken whole, and
            // the others only tell.
            tokio::select! {
                biased;
                home = &mut away.home, if asking => {
                    // Lost with a caller that broke off; back early from a callee that takes no more.
                    home.map_err(|_lost| Some(CALLER_GONE))?;
                    asking = false;
                }
                _tick = ticks.tick() => self.look(&mut moves, body)?,
                // A caller that takes nothing must not keep alive what may not go on.
                reason = cut(held.as_ref()), if !tail.is_empty() => return Err(Some(reason.as_str())),
                written = poll_fn(|cx| self.writer.poll_send(&mut tail, cx)), if !tail.is_empty() => {
                    written.map_err(|_gone| Some(CALLER_GONE))?;
                }
                frame = body.frame(), if answering && tail.is_empty() => {
                    // A body that broke off has noted why.
                    match frame.transpose().map_err(|_noted| None)?.map(Frame::into_data) {
                        Some(Ok(data)) => {
                            tail = Tail::new(data);
                            self.writer.begin();
                        }
                        // No protocol but HTTP has trailers.
                        Some(Err(_trailers)) => {}
                        None => {
                            answering = false;
                            self.said().await;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Tells the caller that the callee has said everything. The caller may say more all the same; one that is gone says
    /// so by its own direction.
    async fn said(&mut self) {
        self.writer.shutdown().await.unwrap_or_else(|error| {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "a caller was gone before its callee"
            );
        });
    }

    /// Tells the caller that the tunnel is open.
    pub(crate) async fn opened(&mut self, body: &AnswerBody) -> Result<(), Outcome> {
        let mut writing = std::pin::pin!(self.writer.send(Tail::default()));
        let written = match body.call_held() {
            Some(held) => held.while_allowed(Lane::Writer, writing.as_mut()).await,
            None => Ok(writing.await),
        };
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_gone)) => Err(Some(CALLER_GONE)),
            Err(reason) => Err(Some(reason.as_str())),
        }
    }

    /// Looks whether the caller is still who it was, whether the call may go on, and whether anything moves.
    fn look(&self, moves: &mut Moves<'_>, body: &AnswerBody) -> Result<(), Outcome> {
        if let Door::Bot { caller, .. } = self.door
            && let Err(unattested) = caller.recheck()
        {
            tracing::info!(why = %unattested, "the caller in a tunnel is nobody any more");
            return Err(Some(Reason::UnknownCaller.as_str()));
        }
        if let Some(reason) = body.held_cut() {
            return Err(Some(reason.as_str()));
        }
        match self.silence {
            Some(silence) if moves.quiet(body.wrote()) >= silence => Err(Some(Reason::Timeout.as_str())),
            Some(_) | None => Ok(()),
        }
    }
}

/// Waits for the end of the call's right.
async fn cut(held: Option<&Held>) -> Reason {
    match held {
        Some(held) => poll_fn(|cx| held.poll_cut(cx, Lane::Writer)).await,
        None => std::future::pending().await,
    }
}

/// When anything moved last, in either direction.
struct Moves<'a> {
    count: &'a RequestCount,
    seen: (u64, u64),
    at: Instant,
}

impl<'a> Moves<'a> {
    fn new(count: &'a RequestCount) -> Self {
        Self {
            count,
            seen: (0, 0),
            at: Instant::now(),
        }
    }

    /// For how long nothing has moved.
    fn quiet(&mut self, answered: u64) -> Duration {
        let now = (self.count.get(), answered);
        if now != self.seen {
            (self.seen, self.at) = (now, Instant::now());
        }
        self.at.elapsed()
    }
}
