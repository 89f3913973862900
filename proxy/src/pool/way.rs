//! What a call is sent by on a connection: what two proxies of this kind speak, or HTTP/2.

use bytes::BytesMut;
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::client::conn::http2::SendRequest;
use tokio_util::task::TaskTracker;

use super::again::{self, Chance};
use crate::call::{HopBody, HopError, RequestBody};
use crate::hop::{self, NotCalled};
use crate::http1::FIELDS_MAX;
use crate::http1::encode;
use crate::http1::head::HeadError;
use crate::http1::status::{AnswerFraming, AnswerHead};
use crate::mesh::FIELDS_OF_PROXY;

/// Sends calls on a connection.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// What two proxies of this kind speak.
    Own(hop::Caller, TaskTracker),
    /// HTTP/2.
    Http2(SendRequest<RequestBody>),
}

/// A call that was not answered: itself, where it may be sent again, and what happened.
pub(super) type Failed = Box<(Option<(Request<RequestBody>, Chance)>, HopError)>;

impl Way {
    /// Tells whether no call can begin on the connection any more.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Own(caller, _) => caller.is_closed(),
            Self::Http2(send) => send.is_closed(),
        }
    }

    /// Sends a call and waits for the head of its answer.
    pub(super) async fn call(self, request: Request<RequestBody>) -> Result<Response<HopBody>, Failed> {
        match self {
            Self::Own(caller, tasks) => call(&caller, &tasks, request).await,
            // Few connections are a foreign peer's, and none of the others needs the room.
            Self::Http2(send) => Box::pin(call_http2(send, request)).await,
        }
    }
}

async fn call(
    caller: &hop::Caller,
    tasks: &TaskTracker,
    request: Request<RequestBody>,
) -> Result<Response<HopBody>, Failed> {
    let (parts, body) = request.into_parts();
    let write = |out: &mut BytesMut| {
        let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
        let host = parts.uri.authority().map_or("", |authority| authority.as_str());
        encode::hop_request_head(out, &parts.method, target.as_bytes(), host.as_bytes(), &parts.headers);
    };
    let (head, body) = match caller.call(tasks, write, body).await {
        Ok(came) => came,
        Err(NotCalled { ended, body }) => {
            let chance = again::chance_of(ended, &parts.method);
            let spare = chance.and_then(|chance| Some((Request::from_parts(parts, *body?), chance)));
            return Err(Box::new((spare, HopError::own(ended))));
        }
    };
    let read = hop::check_whole(&head)
        .and_then(|()| AnswerHead::parse_with(&head, &parts.method, FIELDS_MAX + FIELDS_OF_PROXY));
    let (head, length) = read
        .and_then(|head| length_of(&head).map(|length| (head, length)))
        .map_err(|source| Box::new((None, HopError::Head { source })))?;
    let body = body
        .of_length(length)
        .map_err(|ended| Box::new((None, HopError::own(ended))))?;
    Ok(answer(head.status, head.headers, HopBody::Own(body)))
}

/// How long an answer's body is, where its head says so.
fn length_of(head: &AnswerHead) -> Result<Option<u64>, HeadError> {
    // What has switched is told otherwise, and nothing comes before an answer.
    if head.status.is_informational() {
        return Err(HeadError::StatusLine);
    }
    match head.body {
        AnswerFraming::None => Ok(Some(0)),
        AnswerFraming::Length(length) => Ok(Some(length)),
        // The frames of the hop delimit a body, and nothing else does.
        AnswerFraming::Chunked => Err(HeadError::Coding),
        AnswerFraming::Close => Ok(None),
    }
}

fn answer(status: StatusCode, headers: HeaderMap, body: HopBody) -> Response<HopBody> {
    let mut answer = Response::new(body);
    (*answer.status_mut(), *answer.headers_mut()) = (status, headers);
    answer
}

async fn call_http2(
    mut send: SendRequest<RequestBody>,
    request: Request<RequestBody>,
) -> Result<Response<HopBody>, Failed> {
    let spare = again::spare(&request);
    let answered = send.try_send_request(request).await;
    let answered = answered.map(|answer| answer.map(HopBody::Http2));
    answered.map_err(|mut failed| {
        // The connection ended before the request was sent: it comes back whole.
        let unsent = failed.take_message().map(|unsent| (unsent, Chance::NotBegun));
        let source = failed.into_error();
        let spare = || spare.and_then(|spare| Some((again::chance(&source, spare.method())?, spare)));
        let unsent = unsent.or_else(|| spare().map(|(chance, spare)| (spare, chance)));
        Box::new((unsent, HopError::Http2 { source }))
    })
}
