//! One call to a callee that serves gRPC: a stream of HTTP/2, each direction on its own.

mod body;
mod upload;

use std::pin::Pin;
use std::task::Poll;

use h2::client::ResponseFuture;
use h2::{Reason, RecvStream};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::lines::{Lease, Whom};
use super::{CalleeFault, CalleeRequest, Callees};
use crate::call::RequestBody;
use crate::http1::FIELDS_MAX;
use crate::http1::head::HeadError;

pub(crate) use body::StreamBody;
use upload::{Upload, carry};

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

#[cfg(test)]
mod tests;
