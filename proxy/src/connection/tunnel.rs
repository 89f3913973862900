//! A connection that has become another protocol's: bytes both ways until both have ended, or until they may not go on.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::BodyExt as _;
use policy::Protocol;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Conversation, Handler};
use crate::call::{Answer, AnswerBody, CALLER_GONE, Door, Later, RequestCount};
use crate::ends::ReadEnd;
use crate::http1::body::{Body, Left};
use crate::http1::encode;
use crate::http1::read::Reader;
use crate::http1::status::AnswerFraming;
use crate::http1::write::Tail;
use crate::live::Lane;
use crate::reason::Reason;

/// How often the caller's process is looked at, and whether anything has moved.
const TICK: Duration = Duration::from_secs(1);

/// What a connection keeps while it waits to hear whether its callee switches.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) protocol: Protocol,
    pub(super) later: Later,
    /// Counts the caller's bytes.
    pub(super) count: RequestCount,
}

/// Why a tunnel does not go on, as its record tells it; nothing where both directions came to their end.
type Outcome = Option<&'static str>;

impl Conversation<'_> {
    /// Tells the caller that the protocol is another, and carries bytes until the end. The connection ends with it.
    pub(super) async fn tunnel(
        mut self,
        handler: &Handler,
        answer: Answer,
        mut reader: Box<Reader<ReadEnd>>,
        asking: Asking,
    ) {
        let Asking { protocol, later, count } = asking;
        let Answer { headers, mut body, .. } = answer;
        if let Err(outcome) = self.switch(&headers, &protocol, &body).await {
            return body.ended(outcome);
        }
        reader.begin_tunnel();
        // From here on the caller's bytes are read, and not before.
        let (said, mut away) = Body::new(*reader, Left::from(AnswerFraming::Close));
        let _stop = later.begin(said);
        let mut moves = Moves::new(&count);
        let (mut ticks, mut answering, mut asking) = (interval(TICK), true, true);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while answering || asking {
            // No arm loses anything when another is taken: frames are taken whole, and the other two only tell.
            let outcome = tokio::select! {
                frame = body.frame(), if answering => {
                    answering = frame.is_some();
                    match frame {
                        // The body has noted why it broke off.
                        Some(Err(_noted)) => return,
                        frame => self.pass(frame.and_then(Result::ok), &body).await,
                    }
                }
                _home = &mut away.home, if asking => {
                    asking = false;
                    None
                }
                _tick = ticks.tick() => self.look(handler, &mut moves, &body),
            };
            if let Some(outcome) = outcome {
                return body.ended(outcome);
            }
        }
    }

    async fn switch(
        &mut self,
        headers: &HeaderMap,
        protocol: &Protocol,
        body: &AnswerBody,
    ) -> Result<(), &'static str> {
        encode::switch_head(self.writer.out(), headers, protocol.as_str());
        self.write(Tail::default(), body).await.map_or(Ok(()), Err)
    }

    /// Passes on what the callee said, or that it has said everything.
    async fn pass(&mut self, frame: Option<Frame<Bytes>>, body: &AnswerBody) -> Outcome {
        match frame.map(Frame::into_data) {
            Some(Ok(data)) => self.write(Tail::new(data), body).await,
            // No protocol but HTTP has trailers.
            Some(Err(_trailers)) => None,
            // The caller may say more all the same; one that is gone says so by its own direction.
            None => {
                self.writer.shutdown().await.unwrap_or_else(|error| {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "a caller was gone before its callee"
                    );
                });
                None
            }
        }
    }

    async fn write(&mut self, tail: Tail, body: &AnswerBody) -> Outcome {
        let mut writing = std::pin::pin!(self.writer.send(tail));
        let written = match body.call_held() {
            // A caller that takes nothing must not keep alive what may not go on.
            Some(held) => held.while_allowed(Lane::Writer, writing.as_mut()).await,
            None => Ok(writing.await),
        };
        match written {
            Ok(Ok(())) => None,
            Ok(Err(_gone)) => Some(CALLER_GONE),
            Err(reason) => Some(reason.as_str()),
        }
    }

    /// Looks whether the caller is still who it was, whether the call may go on, and whether anything moves.
    fn look(&self, handler: &Handler, moves: &mut Moves<'_>, body: &AnswerBody) -> Outcome {
        if let Door::Bot { caller, .. } = handler.door()
            && let Err(unattested) = caller.recheck()
        {
            tracing::info!(why = %unattested, "the caller in a tunnel is nobody any more");
            return Some(Reason::UnknownCaller.as_str());
        }
        if let Some(reason) = body.held_cut() {
            return Some(reason.as_str());
        }
        (moves.quiet(body.wrote()) >= self.proxy.bounds.answer_silence).then_some(Reason::Timeout.as_str())
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
