//! A request that asks a callee to switch to another protocol, and the tunnel after it.
//!
//! Nothing that the caller says is read before the callee has answered 101 (RFC 9110 §7.8): what follows a request that
//! was not granted is no request of anybody (CVE-2026-2833). After it, each direction goes its own way to its own end.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body::Frame;
use policy::{Protocol, Target};
use spiffe::id::BotName;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::exchange::{INTERIM_MAX, next_head};
use super::upload::Upload;
use super::{CalleeBody, CalleeFault, CalleeRequest, Callees, Connection};
use crate::attest::Attestor;
use crate::call::{End, RequestBody};
use crate::ends::{ReadEnd, WriteEnd};
use crate::http1::body::{BodyError, Left};
use crate::http1::encode::{self, Form};
use crate::http1::field;
use crate::http1::head::HeadError;
use crate::http1::read::Reader;
use crate::http1::status::{AnswerFraming, AnswerHead};
use crate::http1::write::{Tail, Writer};

/// What is asked of a callee.
#[derive(Debug)]
pub(crate) struct Wish {
    /// With the fields that ask for it.
    pub(crate) request: CalleeRequest,
    /// The protocol to switch to.
    pub(crate) protocol: Protocol,
    /// Where the task of the caller's direction belongs.
    pub(crate) tasks: TaskTracker,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Switched {
    /// The callee speaks the protocol.
    Tunnel(TunnelBody),
    /// It answered as if it had not been asked.
    Not(CalleeBody),
}

impl Callees {
    /// Asks a bot of this host to switch, on a connection of its own.
    pub(crate) async fn switch(
        self: &Arc<Self>,
        attestor: &Attestor,
        bot: &BotName,
        target: &Target,
        wish: Wish,
        body: RequestBody,
    ) -> Result<(AnswerHead, Switched), CalleeFault> {
        let mut connection = self.connect(attestor, bot, target, wish.request.connect).await?;
        let request = &wish.request;
        encode::request_head(
            connection.writer.out(),
            &request.method,
            &request.target,
            &request.headers,
            Form::None,
        );
        let sent = connection.writer.send(Tail::default()).await;
        sent.unwrap_or_else(|error| tracing::debug!(%error, "a callee took no more of a request"));
        let count = body.count();
        for _ in 0..=INTERIM_MAX {
            let head = next_head(&mut connection, &mut None, request, &count).await?;
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                if !says(&head.headers, &wish.protocol) {
                    return Err(CalleeFault::Interim);
                }
                return Ok((head, Switched::Tunnel(TunnelBody::open(*connection, body, &wish.tasks))));
            }
            if !head.status.is_informational() {
                let left = Left::from(head.body);
                return Ok((head, Switched::Not(CalleeBody::alone(self, connection, left))));
            }
        }
        Err(CalleeFault::Interim)
    }
}

/// Tells whether an answer switches to what was asked for and to nothing else.
fn says(headers: &HeaderMap, asked: &Protocol) -> bool {
    let said = field::one(headers, &header::UPGRADE, HeadError::Upgrade).ok().flatten();
    said.and_then(Protocol::parse).is_some_and(|said| said == *asked)
}

/// What the callee says in a tunnel.
#[derive(Debug)]
pub(crate) struct TunnelBody {
    reader: Reader<ReadEnd>,
    left: Left,
    /// Ends the caller's direction, where this one does not come to its end.
    stop: Option<DropGuard>,
    /// Takes the record of the call's end to where its last direction ends.
    over: Option<oneshot::Sender<Box<End>>>,
}

impl TunnelBody {
    fn open(connection: Connection, body: RequestBody, tasks: &TaskTracker) -> Self {
        let Connection { mut reader, writer, .. } = connection;
        reader.begin_tunnel();
        let (stop, (over, end)) = (CancellationToken::new(), oneshot::channel());
        drop(tasks.spawn(carry(body, writer, stop.clone(), end)));
        Self {
            reader,
            left: Left::from(AnswerFraming::Close),
            stop: Some(stop.drop_guard()),
            over: Some(over),
        }
    }

    /// Takes the next frame.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = self.left.poll_frame(&mut self.reader, cx);
        if matches!(frame, Poll::Ready(None))
            && let Some(stop) = self.stop.take()
        {
            // The other direction goes on to its own end.
            drop(stop.disarm());
        }
        frame
    }

    pub(crate) const fn is_end_stream(&self) -> bool {
        self.left.is_done()
    }

    /// Has the call end with the caller's direction, if that goes on; else it ends here.
    pub(crate) fn hand_over(&mut self, end: Box<End>) {
        if let (true, Some(over)) = (self.left.is_done(), self.over.take()) {
            // Where nobody takes it, it comes back and ends.
            drop(over.send(end));
        }
    }
}

/// Carries the caller's direction to its end, and tells the callee of it.
async fn carry(
    body: RequestBody,
    mut writer: Writer<WriteEnd>,
    stop: CancellationToken,
    mut end: oneshot::Receiver<Box<End>>,
) {
    let mut upload = Upload::new(body, Form::Close);
    let carrying = async {
        if std::future::poll_fn(|cx| upload.poll(&mut writer, cx)).await.is_ok()
            && let Err(error) = writer.shutdown().await
        {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "a callee was gone before its caller"
            );
        }
    };
    // What is lost on the way was to be lost: the tunnel has been cut.
    tokio::select! {
        () = carrying => {}
        () = stop.cancelled() => {}
    }
    drop(upload);
    end.close();
    // If this direction was the last, the call ends here.
    drop(end.try_recv());
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_callee_switches_to_what_was_asked_for_and_to_nothing_else() {
        let websocket = Protocol::parse(b"websocket").unwrap();
        let says = |values: &[&'static str]| {
            let values = values
                .iter()
                .map(|value| (header::UPGRADE, HeaderValue::from_static(value)));
            says(&HeaderMap::from_iter(values), &websocket)
        };
        assert!(says(&["websocket"]) && says(&["WebSocket"]));
        assert!(!says(&[]) && !says(&["h2c"]) && !says(&["websocket, h2c"]));
        let mut twice = HeaderMap::new();
        twice.append(header::UPGRADE, HeaderValue::from_static("websocket"));
        twice.append(header::UPGRADE, HeaderValue::from_static("websocket"));
        assert!(!super::says(&twice, &websocket));
    }
}
