//! One call to a callee that serves gRPC: a stream of HTTP/2, each direction on its own.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::lines::{Lease, Whom};
use super::{CalleeFault, CalleeRequest, Callees};
use crate::call::RequestBody;
use crate::http1::FIELDS_MAX;
use crate::http1::head::HeadError;

/// How often a call is sent that the callee has not begun: it restarts, or its connections end one after another.
const TIMES: usize = 3;

/// What is sent to a callee as a stream.
#[derive(Debug)]
pub(crate) struct StreamRequest {
    pub(crate) request: CalleeRequest,
    /// The callee's mesh host.
    pub(crate) authority: http::uri::Authority,
}

/// The head of an answer, and what follows it.
pub(crate) type Streamed = (StatusCode, HeaderMap, StreamBody);

/// Why a call came to nothing, and its body if it is whole still: then the callee has not begun it.
type Failed = (CalleeFault, Option<RequestBody>);

impl Callees {
    /// Calls a bot of this host that serves gRPC. A call that is known not to have begun is sent again.
    pub(crate) async fn stream(
        &self,
        whom: Whom<'_>,
        asked: &StreamRequest,
        mut body: RequestBody,
    ) -> Result<Streamed, CalleeFault> {
        let mut times = TIMES;
        loop {
            let lease = self.lines.lease(whom).await?;
            match exchange(lease, asked, body, whom.tasks).await {
                Ok(streamed) => return Ok(streamed),
                Err((_, Some(unbegun))) if times > 1 => body = unbegun,
                Err((fault, _)) => return Err(fault),
            }
            times -= 1;
        }
    }
}

/// Sends one call and waits for the head of its answer, as long as its body moves and `patience` after that.
async fn exchange(
    mut lease: Lease,
    asked: &StreamRequest,
    body: RequestBody,
    tasks: &TaskTracker,
) -> Result<Streamed, Failed> {
    let head = match head(asked) {
        Ok(head) => head,
        Err(fault) => return Err((fault, None)),
    };
    if let Err(source) = std::future::poll_fn(|cx| lease.send.poll_ready(cx)).await {
        lease.retire();
        return Err((CalleeFault::Stream { source }, Some(body)));
    }
    let (mut answer, sending) = match lease.send.send_request(head, body.is_end_stream()) {
        Ok(sent) => sent,
        Err(source) => {
            lease.retire();
            return Err((CalleeFault::Stream { source }, Some(body)));
        }
    };
    let (count, none) = (body.count(), body.is_end_stream());
    let mut upload = Some(Upload::new(body, sending));
    let answered = loop {
        let moved = count.get();
        match timeout(asked.request.patience, answer_head(&mut answer, &mut upload)).await {
            Ok(answered) => break answered,
            Err(_elapsed) if count.get() != moved => {}
            Err(_elapsed) => return Err((CalleeFault::Slow, None)),
        }
    };
    let (parts, receive) = match answered {
        Ok(answer) => answer.into_parts(),
        Err(fault) => {
            let unbegun = was_not_begun(&fault).then(|| match upload {
                Some(upload) => upload.untouched(),
                None => none.then(RequestBody::empty),
            });
            let unbegun = unbegun.flatten();
            if unbegun.is_some() {
                lease.retire();
            }
            return Err((fault, unbegun));
        }
    };
    if parts.headers.len() > FIELDS_MAX {
        let source = HeadError::TooManyFields;
        return Err((CalleeFault::NotHttp { source }, None));
    }
    let stop = CancellationToken::new();
    if let Some(upload) = upload {
        drop(tasks.spawn(carry(upload, stop.clone())));
    }
    let body = StreamBody {
        receive,
        open: Some((lease, stop.drop_guard())),
        length: length(&parts.headers),
    };
    Ok((parts.status, parts.headers, body))
}

/// The head of the request: what was decided on, to the callee's own name.
fn head(asked: &StreamRequest) -> Result<Request<()>, CalleeFault> {
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(asked.authority.clone());
    let target = PathAndQuery::from_maybe_shared(asked.request.target.clone());
    uri.path_and_query = Some(target.map_err(|_invalid| CalleeFault::Target)?);
    let mut head = Request::new(());
    *head.method_mut() = asked.request.method.clone();
    *head.uri_mut() = Uri::from_parts(uri).map_err(|_invalid| CalleeFault::Target)?;
    *head.version_mut() = Version::HTTP_2;
    *head.headers_mut() = asked.request.headers.clone();
    Ok(head)
}

/// Sends what there is of the body until the head of the answer is there.
async fn answer_head(
    answer: &mut ResponseFuture,
    upload: &mut Option<Upload>,
) -> Result<Response<RecvStream>, CalleeFault> {
    std::future::poll_fn(|cx| {
        if let Some(sending) = upload {
            match sending.poll(cx) {
                Poll::Pending => {}
                // A callee that takes no more may have answered all the same.
                Poll::Ready(Ok(())) => *upload = None,
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
            }
        }
        Pin::new(&mut *answer)
            .poll(cx)
            .map_err(|source| CalleeFault::Stream { source })
    })
    .await
}

/// Tells whether the callee says that it did not begin the call: REFUSED_STREAM (RFC 9113 §8.7), or a stream above the
/// last one of a GOAWAY (§6.8). `h2` gives that error to no other stream.
fn was_not_begun(fault: &CalleeFault) -> bool {
    let CalleeFault::Stream { source } = fault else {
        return false;
    };
    let refused = source.is_reset() && source.reason() == Some(Reason::REFUSED_STREAM);
    let above = source.is_go_away() && source.reason() == Some(Reason::NO_ERROR);
    source.is_remote() && (refused || above)
}

/// The length that the head says; `h2` holds the data to it.
fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Sends the rest of a request whose answer has begun. It ends with the answer.
async fn carry(mut upload: Upload, stop: CancellationToken) {
    // What is not sent then is for nobody: dropped, it resets the stream.
    tokio::select! {
        sent = std::future::poll_fn(|cx| upload.poll(cx)) => {
            if let Err(fault) = sent {
                tracing::debug!(error = &fault as &dyn std::error::Error, "a request broke off");
            }
        }
        () = stop.cancelled() => {}
    }
}

/// The body of a request on its way to a callee.
#[derive(Debug)]
struct Upload {
    body: RequestBody,
    send: SendStream<Bytes>,
    /// What was taken from the body and not sent yet: the callee has to make room.
    rest: Bytes,
    /// Whether something of the body was taken.
    touched: bool,
    ended: bool,
}

impl Upload {
    fn new(body: RequestBody, send: SendStream<Bytes>) -> Self {
        let ended = body.is_end_stream();
        Self {
            body,
            send,
            rest: Bytes::new(),
            touched: false,
            ended,
        }
    }

    /// Gives the body back if nothing of it was taken.
    fn untouched(self) -> Option<RequestBody> {
        (!self.touched).then_some(self.body)
    }

    /// Sends on until the body is sent, or the callee takes no more of it.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CalleeFault>> {
        loop {
            if !self.rest.is_empty() {
                if !ready!(self.poll_room(cx)) {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            // An answer that needs no more of the request ends it so (RFC 9113 §8.1).
            if self.send.poll_reset(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            self.touched = true;
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.take(data),
                Some(Ok(Err(trailers))) => self.end(trailers.into_trailers().unwrap_or_default()),
                None => self.end(HeaderMap::new()),
                Some(Err(source)) => {
                    self.send.send_reset(Reason::CANCEL);
                    return Poll::Ready(Err(CalleeFault::Caller { source }));
                }
            }
        }
    }

    /// Waits for room and sends as much as it is for; `false` when the callee takes no more.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut room = self.send.capacity();
        if room == 0 {
            self.send.reserve_capacity(self.rest.len());
            room = match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(room)) => room,
                Some(Err(_)) | None => return Poll::Ready(false),
            };
        }
        let piece = self.rest.split_to(self.rest.len().min(room));
        let last = self.ended && self.rest.is_empty();
        Poll::Ready(self.send.send_data(piece, last).is_ok())
    }

    fn take(&mut self, data: Bytes) {
        self.rest = data;
        // The end goes with the last piece, where it is known by then.
        if self.body.is_end_stream() {
            if self.rest.is_empty() {
                return self.end(HeaderMap::new());
            }
            self.ended = true;
        }
    }

    fn end(&mut self, trailers: HeaderMap) {
        self.ended = true;
        let done = if trailers.is_empty() {
            self.send.send_data(Bytes::new(), true)
        } else {
            self.send.send_trailers(trailers)
        };
        if let Err(error) = done {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "a callee took no more of a request"
            );
        }
    }
}

/// The body of a callee's answer, with its trailers. Dropped before its end, it cancels the call at the callee.
#[derive(Debug)]
pub(crate) struct StreamBody {
    receive: RecvStream,
    /// Until the answer has ended: its place on the connection, and what the request is sent by.
    open: Option<(Lease, DropGuard)>,
    length: Option<u64>,
}

impl StreamBody {
    /// Takes the next frame.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if self.open.is_none() {
            return Poll::Ready(None);
        }
        loop {
            match ready!(self.receive.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Room is made for as much as is handed on, so what is under way is bounded by the window.
                    self.receive.flow_control().release_capacity(data.len())?;
                    if data.is_empty() {
                        continue;
                    }
                    self.length = self.length.map(|left| left.saturating_sub(data.len() as u64));
                    if self.receive.is_end_stream() {
                        self.open = None;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return self.failed(error),
                None => break,
            }
        }
        match ready!(self.receive.poll_trailers(cx)) {
            Ok(trailers) => {
                self.open = None;
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Err(error) => self.failed(error),
        }
    }

    fn failed(&mut self, error: h2::Error) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        self.open = None;
        Poll::Ready(Some(Err(error)))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.open.is_none() || self.receive.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.length {
            Some(length) => SizeHint::with_exact(length),
            None if self.is_end_stream() => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use h2::server::{self, SendResponse};
    use http::HeaderValue;
    use tokio::net::UnixStream;

    use super::super::lines::tests::lease;
    use super::*;

    /// The callee's end of a connection.
    type Far = server::Connection<UnixStream, Bytes>;

    async fn connected() -> (Lease, Far, TaskTracker) {
        let (near, far) = UnixStream::pair().unwrap();
        let tasks = TaskTracker::new();
        let (lease, far) = tokio::join!(lease(near, &tasks), server::handshake(far));
        (lease, far.unwrap(), tasks)
    }

    fn asked() -> StreamRequest {
        StreamRequest {
            request: CalleeRequest {
                method: http::Method::POST,
                target: Bytes::from_static(b"/a.B/C"),
                headers: HeaderMap::from_iter([(http::header::TE, HeaderValue::from_static("trailers"))]),
                patience: Duration::from_secs(30),
                connect: None,
            },
            authority: http::uri::Authority::from_static("orders.prod.mesh"),
        }
    }

    async fn next(far: &mut Far) -> (Request<RecvStream>, SendResponse<Bytes>) {
        far.accept().await.unwrap().unwrap()
    }

    /// Serves the connection until the call has come to something.
    async fn with<T>(far: &mut Far, call: impl Future<Output = T>) -> T {
        let mut call = std::pin::pin!(call);
        std::future::poll_fn(|cx| {
            drop(far.poll_closed(cx));
            call.as_mut().poll(cx)
        })
        .await
    }

    #[tokio::test]
    async fn a_call_is_the_request_that_was_decided_on_and_its_answer_ends_with_trailers() {
        let (lease, mut far, tasks) = connected().await;
        let body = RequestBody::whole(Bytes::from_static(b"hello"));
        let asked = asked();
        let callee = async {
            let (request, mut answer) = next(&mut far).await;
            let uri = request.uri().to_string();
            assert_eq!(
                (request.method().as_str(), uri.as_str()),
                ("POST", "http://orders.prod.mesh/a.B/C")
            );
            assert_eq!(request.headers()["te"], "trailers");
            let mut send = answer.send_response(Response::new(()), false).unwrap();
            send.send_data(Bytes::from_static(b"hi"), false).unwrap();
            send.send_trailers(HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                HeaderValue::from_static("0"),
            )]))
            .unwrap();
            std::future::poll_fn(|cx| far.poll_closed(cx)).await.unwrap();
        };
        let call = async {
            let (status, _, mut body) = exchange(lease, &asked, body, &tasks).await.map_err(|(f, _)| f).unwrap();
            assert_eq!(status, StatusCode::OK);
            let mut frames = Vec::new();
            while let Some(frame) = std::future::poll_fn(|cx| body.poll_frame(cx)).await {
                frames.push(frame.unwrap());
            }
            assert!(body.is_end_stream());
            assert_eq!(frames[0].data_ref().unwrap(), "hi");
            assert_eq!(frames[1].trailers_ref().unwrap()["grpc-status"], "0");
        };
        tokio::join!(callee, call);
    }

    /// Has the callee do something with the first call, and tells whether the caller has its body back.
    async fn unbegun(body: RequestBody, callee: impl FnOnce(&mut Far, SendResponse<Bytes>)) -> bool {
        let (lease, mut far, tasks) = connected().await;
        let asked = asked();
        let mut call = std::pin::pin!(exchange(lease, &asked, body, &tasks));
        let answer = tokio::select! {
            (_, answer) = next(&mut far) => answer,
            _ = call.as_mut() => panic!("answered by nobody"),
        };
        callee(&mut far, answer);
        let (_, body) = with(&mut far, call).await.unwrap_err();
        body.is_some()
    }

    #[tokio::test]
    async fn only_a_call_that_the_callee_has_not_begun_is_given_back_to_be_sent_again() {
        let refused = |_: &mut Far, mut answer: SendResponse<Bytes>| answer.send_reset(Reason::REFUSED_STREAM);
        let reset = |_: &mut Far, mut answer: SendResponse<Bytes>| answer.send_reset(Reason::CANCEL);
        assert!(unbegun(RequestBody::empty(), refused).await);
        assert!(
            !unbegun(RequestBody::empty(), reset).await,
            "CANCEL says nothing about what was done"
        );
        let whole = RequestBody::whole(Bytes::from_static(b"hi"));
        assert!(
            !unbegun(whole, refused).await,
            "of a body that was taken nothing is left to send"
        );
        let gone = |far: &mut Far, _| far.abrupt_shutdown(Reason::INTERNAL_ERROR);
        assert!(
            !unbegun(RequestBody::empty(), gone).await,
            "it was begun, and then the connection failed"
        );
    }

    #[tokio::test]
    async fn a_connection_that_is_over_sends_nothing() {
        let (lease, far, tasks) = connected().await;
        drop(far);
        // The end of the connection is seen by its own task.
        tasks.close();
        tasks.wait().await;
        let whole = RequestBody::whole(Bytes::from_static(b"hi"));
        let (_, body) = exchange(lease, &asked(), whole, &tasks).await.unwrap_err();
        assert!(body.is_some(), "what was not sent is sent again");
    }

    #[tokio::test]
    async fn an_answer_that_nobody_wants_is_cancelled_at_the_callee() {
        let (lease, mut far, tasks) = connected().await;
        let asked = asked();
        let (waits, later) = RequestBody::later();
        let callee = async {
            let (_, mut answer) = next(&mut far).await;
            let mut send = answer.send_response(Response::new(()), false).unwrap();
            let mut reset = std::pin::pin!(std::future::poll_fn(|cx| send.poll_reset(cx)));
            std::future::poll_fn(|cx| {
                drop(far.poll_closed(cx));
                reset.as_mut().poll(cx)
            })
            .await
        };
        let call = async {
            let (_, _, body) = exchange(lease, &asked, waits, &tasks)
                .await
                .map_err(|(f, _)| f)
                .unwrap();
            drop(body);
        };
        let (reset, ()) = tokio::join!(callee, call);
        assert_eq!(reset.unwrap(), Reason::CANCEL, "although the request has not ended");
        drop(later);
        tasks.close();
        tasks.wait().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_callee_that_does_not_answer_is_given_up_after_the_callers_patience() {
        let (lease, mut far, tasks) = connected().await;
        let asked = asked();
        let started = tokio::time::Instant::now();
        let call = exchange(lease, &asked, RequestBody::empty(), &tasks);
        let (fault, _) = with(&mut far, call).await.unwrap_err();
        assert!(matches!(fault, CalleeFault::Slow), "{fault:?}");
        assert_eq!(started.elapsed(), Duration::from_secs(30));
    }
}
