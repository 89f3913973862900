//! One HTTP/1.1 connection, of a bot or of a foreign peer: request after request, answered in their order.

pub(crate) mod tunnel;
mod whereabouts;

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use http::{Method, StatusCode};
use tokio::time::timeout;

use crate::bots::BotSide;
use crate::call::{self, Answer, Asked, CALLER_GONE, Door, Opening, RequestBody, To};
use crate::ends::{ReadEnd, WriteEnd};
use crate::http1::answer::Answer as Head;
use crate::http1::body::Left;
use crate::http1::deadline::Deadline;
use crate::http1::framing::Version;
use crate::http1::head::{HeadError, RequestHead};
use crate::http1::read::{ReadError, Reader};
use crate::http1::target::Target;
use crate::http1::write::{Tail, WriteError, Writer};
use crate::http2;
use crate::live::Lane;
use crate::mesh;
use crate::proxy::Proxy;
use tunnel::Asking;
use whereabouts::{Whereabouts, take};

/// How much of a body that nobody wanted is read, so that the connection can go on.
const DRAIN_BYTES_MAX: u64 = 64 * 1024;

/// How long that may take, and how long the peer's last bytes are waited for when the connection ends.
const DRAIN: Duration = Duration::from_secs(2);

/// What answers the requests of a connection.
#[derive(Debug)]
pub(crate) enum Handler {
    /// Of a local process.
    Bots(BotSide),
    /// Of a foreign peer.
    Peer(Door),
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Reply {
    /// An answer.
    Answer(Answer),
    /// The connection is a tunnel from here on; its requests are read as before.
    Opened(http::HeaderMap),
    /// The connection is a tunnel from here on of which nothing is read.
    Line(Answer),
}

/// What a request asks for.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are calls, and to box those would cost each an allocation"
)]
pub(crate) enum Wanted {
    /// An answer.
    Call(Asked),
    /// A connection of which nothing is read.
    Line(Box<Opening>),
}

impl Handler {
    async fn reply(
        &mut self,
        proxy: &Arc<Proxy>,
        head: RequestHead,
        body: RequestBody,
        patience: &mut Deadline,
    ) -> Reply {
        // Nothing is waited for before the call is known: each step that waits would keep the head a second time.
        match self.asked(proxy, head, body) {
            Ok(Wanted::Call(asked)) => Reply::Answer(call::serve(proxy, self.door(), asked, patience).await),
            // Boxed, for few connections ever ask for it.
            Ok(Wanted::Line(opening)) => Box::pin(open(proxy, self.door(), *opening, patience)).await,
            Err(reply) => *reply,
        }
    }

    /// Says which call a request is; or answers it, where it is none.
    fn asked(&mut self, proxy: &Arc<Proxy>, head: RequestHead, body: RequestBody) -> Result<Wanted, Box<Reply>> {
        match self {
            Self::Bots(side) => side.asked(proxy, head, body),
            Self::Peer(door) => {
                let to = mesh::callee(door, std::iter::once(head.authority.host_bytes().as_ref())).map(To::Bot);
                let target = match head.target {
                    Target::Origin(target) | Target::Absolute(target) => target,
                    Target::Asterisk => Bytes::from_static(b"*"),
                    Target::AbsoluteTls | Target::Authority => {
                        let refused = call::refuse_head(proxy, door, HeadError::Target);
                        return Err(Box::new(Reply::Answer(refused)));
                    }
                };
                Ok(Wanted::Call(Asked {
                    to,
                    method: head.method,
                    target,
                    headers: head.headers,
                    body,
                    upgrade: head.upgrade,
                    grpc: false,
                }))
            }
        }
    }

    /// Tells, once for each connection or tunnel, that HTTP/2 may be spoken from here on.
    const fn may_turn(&mut self) -> bool {
        match self {
            Self::Bots(side) => side.begins(),
            // A peer has said by ALPN what it speaks.
            Self::Peer(_) => false,
        }
    }

    const fn door(&self) -> &Door {
        match self {
            Self::Bots(side) => side.door(),
            Self::Peer(door) => door,
        }
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve(proxy: &Arc<Proxy>, read: ReadEnd, write: WriteEnd, mut handler: Handler) {
    // Boxed once: it is handed from step to step of every request.
    let mut reader = Box::new(Reader::new(read, proxy.limits));
    let mut writer = Writer::new(write, proxy.limits.body_idle);
    let mut patience = Deadline::default();
    let mut closing = std::pin::pin!(proxy.closing.cancelled());
    let (mut late, late_again) = proxy.bounds.late;
    loop {
        if handler.may_turn() {
            // Cancel safe, as the head; boxed, for it is done once and has no place in the room of a call.
            let begins = tokio::select! {
                biased;
                begins = Box::pin(reader.begins_with(http2::PREFACE)) => begins,
                // What still comes then is waited for below.
                () = closing.as_mut() => Ok(Some(false)),
            };
            match begins {
                Ok(Some(true)) => return Box::pin(turn(proxy, reader, writer, handler)).await,
                Ok(Some(false)) => {}
                Ok(None) => return,
                Err(error) => return gone(proxy, &handler, &error),
            }
        }
        // Reading a head is cancel safe.
        let head = tokio::select! {
            biased;
            head = reader.head() => Some(head),
            () = closing.as_mut() => None,
        };
        let head = match head {
            Some(head) => head,
            // Boxed, for this room is needed once and every connection would keep it.
            None => match Box::pin(late_head(&mut reader, &mut writer, late)).await {
                Some(head) => head,
                None => return,
            },
        };
        late = late_again;
        let head = match head {
            Ok(Some(head)) => RequestHead::parse(&head),
            Ok(None) => return,
            Err(ReadError::Head(error)) => Err(error),
            Err(error) => return gone(proxy, &handler, &error),
        };
        let head = match head {
            Ok(head) => head,
            // Boxed as all that ends a connection: done once, it has no place in the room of a call.
            Err(error) => return Box::pin(refuse(proxy, &handler, reader, writer, error)).await,
        };
        let conversation = Conversation {
            proxy,
            writer: &mut writer,
            patience: &mut patience,
        };
        match conversation.hold(&mut handler, reader, head).await {
            After::Next(same) => reader = same,
            After::End(Some(same)) => return Box::pin(linger(same, writer)).await,
            After::End(None) => return,
        }
    }
}

/// Waits for a request that may be on its way to a proxy that ends: a peer that gets no answer cannot know whether it was
/// carried. Where none comes the connection is closed between two calls (RFC 9112 §9.6).
async fn late_head(
    reader: &mut Reader<ReadEnd>,
    writer: &mut Writer<WriteEnd>,
    late: Duration,
) -> Option<Result<Option<Bytes>, ReadError>> {
    match timeout(late, reader.head()).await {
        Ok(head) => Some(head),
        Err(_none) => {
            writer.shutdown().await.unwrap_or_default();
            None
        }
    }
}

/// Serves what speaks HTTP/2 from here on.
async fn turn(proxy: &Arc<Proxy>, reader: Box<Reader<ReadEnd>>, writer: Writer<WriteEnd>, handler: Handler) {
    // A peer has said by ALPN what it speaks, and is not asked a second time.
    if let Handler::Bots(side) = handler {
        http2::serve(proxy, *reader, writer, side).await;
    }
}

/// Notes why a connection broke inside a head: for a bot's socket it can mean that another process spoke on it.
fn gone(proxy: &Proxy, handler: &Handler, error: &ReadError) {
    if let ReadError::Io { source } = error
        && somebody_else(proxy, source)
    {
        return;
    }
    tracing::debug!(side = ?handler.door().side(), error = error as &dyn std::error::Error, "a connection ended");
}

/// Tells whether reading failed because another process than the bot spoke on its connection, and notes it.
pub(crate) fn somebody_else(proxy: &Proxy, error: &std::io::Error) -> bool {
    let Some(unattested) = crate::attest::refusal_of(error) else {
        return false;
    };
    tracing::warn!(why = %unattested, "ended a connection on which somebody else spoke");
    proxy.metrics.denied(crate::reason::Reason::UnknownCaller);
    true
}

enum After {
    /// The connection goes on.
    Next(Box<Reader<ReadEnd>>),
    /// It ends; what the peer still sends is read for a while, if it can be.
    End(Option<Box<Reader<ReadEnd>>>),
}

struct Conversation<'a> {
    proxy: &'a Arc<Proxy>,
    writer: &'a mut Writer<WriteEnd>,
    patience: &'a mut Deadline,
}

impl Conversation<'_> {
    /// Answers one request.
    async fn hold(mut self, handler: &mut Handler, reader: Box<Reader<ReadEnd>>, head: RequestHead) -> After {
        let (method, version, persists) = (head.method.clone(), head.version, head.persists);
        let expects = head.expects_continue;
        let (body, at, asking) = take(reader, &head);
        let (reply, mut at) = self.reply(handler, head, body, at, expects).await;
        let answer = match reply {
            Reply::Answer(answer) if answer.status == StatusCode::SWITCHING_PROTOCOLS => {
                return self.switched(handler, answer, at, asking).await;
            }
            Reply::Line(answer) => return self.switched(handler, answer, at, asking).await,
            Reply::Answer(answer) => answer,
            Reply::Opened(headers) => return self.open(&headers, at).await,
        };
        drop(asking);
        let goes_on = persists && !answer.last && !self.proxy.closing.is_cancelled() && at.settle(expects);
        let Answer {
            status,
            headers,
            mut body,
            ..
        } = answer;
        let head = Head {
            version,
            method: &method,
            status,
            headers: &headers,
            persists: goes_on,
        };
        let keeps_open = head.keeps_open();
        let held = body.call_held();
        let written = {
            let silence = self.proxy.bounds.answer_silence;
            let mut writing = std::pin::pin!(self.writer.answer(head, &mut body, silence));
            match &held {
                // A caller that takes nothing must not keep alive what may not go on.
                Some(held) => held.while_allowed(Lane::Writer, writing.as_mut()).await,
                None => Ok(writing.await),
            }
        };
        let written = match written {
            Ok(written) => written,
            Err(reason) => {
                body.ended(reason.as_str());
                return After::End(None);
            }
        };
        if let Err(error) = written {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "an answer was not written whole"
            );
            if matches!(error, WriteError::Ended | WriteError::Slow | WriteError::Io { .. }) {
                body.ended(CALLER_GONE);
            }
            return After::End(None);
        }
        // With the body, the call ends: the record of its end does not wait for the next request.
        drop(body);
        at.after(keeps_open).await
    }

    /// Becomes a tunnel, where that was asked for; the connection ends with it.
    async fn switched(self, handler: &Handler, answer: Answer, at: Whereabouts, asking: Option<Asking>) -> After {
        if let (Whereabouts::Here(reader), Some(asking)) = (at, asking) {
            // Few connections ever switch, and none needs the room before.
            Box::pin(self.tunnel(handler, answer, reader, asking)).await;
        }
        After::End(None)
    }

    /// Waits for the reply, and says `100 Continue` when somebody wants the body first.
    async fn reply(
        &mut self,
        handler: &mut Handler,
        head: RequestHead,
        body: RequestBody,
        mut at: Whereabouts,
        expects: bool,
    ) -> (Reply, Whereabouts) {
        let mut replying = std::pin::pin!(handler.reply(self.proxy, head, body, self.patience));
        if let (Whereabouts::Away(away), true) = (&mut at, expects) {
            // The reply is waited for again after the other arm; the other arm is taken once.
            tokio::select! {
                biased;
                reply = replying.as_mut() => return (reply, at),
                Ok(()) = &mut away.wanted => {}
            }
            self.writer.out().put_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            if let Err(error) = self.writer.send(Tail::default()).await {
                // The body will not come then, and whoever waits for it finds out.
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a caller did not wait to be told to go on"
                );
            }
            at = at.told();
        }
        (replying.await, at)
    }

    async fn open(self, headers: &http::HeaderMap, at: Whereabouts) -> After {
        tunnel::opened_head(self.writer, headers);
        match (self.writer.send(Tail::default()).await, at) {
            (Ok(()), Whereabouts::Here(reader)) => After::Next(reader),
            _ => After::End(None),
        }
    }
}

/// Opens a connection of which nothing is read.
async fn open(proxy: &Arc<Proxy>, door: &Door, opening: Opening, patience: &mut Deadline) -> Reply {
    let answer = call::open(proxy, door, opening, patience).await;
    if answer.status == StatusCode::OK {
        return Reply::Line(answer);
    }
    // What follows is meant for another end, so it must not be read as requests to this one.
    Reply::Answer(Answer { last: true, ..answer })
}

/// Reads the rest of a body that nobody wants.
async fn drain(reader: &mut Reader<ReadEnd>, mut left: Left) -> Option<()> {
    let draining = std::future::poll_fn(|cx| {
        loop {
            match std::task::ready!(left.poll_frame(reader, cx)) {
                None => return std::task::Poll::Ready(Some(())),
                Some(Ok(_)) => {}
                Some(Err(_)) => return std::task::Poll::Ready(None),
            }
        }
    });
    timeout(DRAIN, draining).await.ok().flatten()
}

/// Refuses a request whose head could not be read; nothing after it on the connection can be trusted.
async fn refuse(
    proxy: &Arc<Proxy>,
    handler: &Handler,
    reader: Box<Reader<ReadEnd>>,
    mut writer: Writer<WriteEnd>,
    error: HeadError,
) {
    let Answer {
        status,
        headers,
        mut body,
        ..
    } = call::refuse_head(proxy, handler.door(), error);
    let head = Head {
        version: Version::Http11,
        method: &Method::GET,
        status,
        headers: &headers,
        persists: false,
    };
    if let Err(error) = writer.answer(head, &mut body, proxy.bounds.answer_silence).await {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "a refusal was not written whole"
        );
        return;
    }
    linger(reader, writer).await;
}

/// Ends a connection so that the peer can read what was written last: closing with bytes unread would reset the
/// connection, and a reset can take the answer with it (RFC 9112 §9.6).
async fn linger(mut reader: Box<Reader<ReadEnd>>, mut writer: Writer<WriteEnd>) {
    if writer.shutdown().await.is_err() {
        return;
    }
    reader.buffered().clear();
    // The end of a connection whose peer sends on is not waited for.
    drain(&mut reader, Left::Length(DRAIN_BYTES_MAX))
        .await
        .unwrap_or_default();
}

/// Waits a little after `accept` failed: what it lacks (files, memory) does not come back at once.
pub(crate) async fn accept_failed(listener: &str, error: &std::io::Error) {
    tracing::error!(listener, %error, "cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(20)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of<'a, F>(_serve: impl Fn(&'a Arc<Proxy>, ReadEnd, WriteEnd, Handler) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_costs_little_memory() {
        let bytes = bytes_of(serve);
        assert!(bytes <= 14 * 1024, "the future of a connection has {bytes} bytes");
    }
}
