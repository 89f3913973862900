//! One request and its answer on a connection to a callee.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::{Body, Frame, SizeHint};

use super::upload::{Upload, UploadEnd};
use super::{CalleeFault, CalleeRequest, Callees, Connection};
use crate::call::{RequestBody, RequestCount};
use crate::http1::body::{BodyError, Left};
use crate::http1::encode::{self, Form};
use crate::http1::read::ReadError;
use crate::http1::status::AnswerHead;
use crate::http1::write::Tail;

/// The most interim answers (RFC 9110 §15.2) before a final one.
pub(super) const INTERIM_MAX: usize = 8;

/// Sends the request and reads the head of its answer; the body may still be on its way when it comes.
pub(super) async fn exchange(
    home: &Arc<Callees>,
    mut connection: Box<Connection>,
    request: &CalleeRequest,
    body: RequestBody,
) -> Result<(AnswerHead, CalleeBody), CalleeFault> {
    let form = form(&request.method, &body);
    encode::request_head(
        connection.writer.out(),
        &request.method,
        &request.target,
        &request.headers,
        form,
    );
    let count = body.count();
    let mut upload = None;
    match body.as_whole() {
        Some(bytes) => {
            let sent = connection.writer.send(Tail::new(bytes)).await;
            // A callee that takes no more may have answered all the same; the reader finds out.
            sent.unwrap_or_else(|error| tracing::debug!(%error, "a callee took no more of a request"));
        }
        None => upload = Some(Upload::new(body, form)),
    }
    let head = answer(&mut connection, &mut upload, request, &count).await?;
    let persists = head.persists;
    let mut body = CalleeBody {
        connection: Some(connection),
        left: Left::from(head.body),
        upload,
        persists,
        home: Arc::clone(home),
    };
    body.go_home();
    Ok((head, body))
}

/// Chooses how the body is delimited: by its length wherever that is known. Methods that mostly have a body say so
/// even when theirs is empty (RFC 9110 §8.6).
fn form(method: &Method, body: &RequestBody) -> Form {
    match body.size_hint().exact() {
        Some(0) if body.is_empty() && !matches!(*method, Method::POST | Method::PUT | Method::PATCH) => Form::None,
        Some(length) => Form::Length(length),
        None => Form::Chunked,
    }
}

/// Reads answers until a final one, and sends the body meanwhile.
async fn answer(
    connection: &mut Connection,
    upload: &mut Option<Upload>,
    request: &CalleeRequest,
    count: &RequestCount,
) -> Result<AnswerHead, CalleeFault> {
    for _ in 0..=INTERIM_MAX {
        let head = next_head(connection, upload, request, count).await?;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(CalleeFault::Interim);
        }
        if !head.status.is_informational() {
            return Ok(head);
        }
    }
    Err(CalleeFault::Interim)
}

/// Reads the next head, interim or final.
pub(super) async fn next_head(
    connection: &mut Connection,
    upload: &mut Option<Upload>,
    request: &CalleeRequest,
    count: &RequestCount,
) -> Result<AnswerHead, CalleeFault> {
    let bytes = answer_bytes(connection, upload, request, count).await?;
    AnswerHead::parse(&bytes, &request.method).map_err(|source| CalleeFault::NotHttp { source })
}

/// Reads one head. It is waited for as long as the body moves, and `patience` after that.
async fn answer_bytes(
    connection: &mut Connection,
    upload: &mut Option<Upload>,
    request: &CalleeRequest,
    count: &RequestCount,
) -> Result<Bytes, CalleeFault> {
    let mut seen = count.get();
    loop {
        let Connection { reader, writer, .. } = &mut *connection;
        let read = {
            let mut reading = std::pin::pin!(reader.answer_head(request.patience));
            std::future::poll_fn(|cx| {
                if let Some(sending) = upload {
                    match sending.poll(writer, cx) {
                        Poll::Pending => {}
                        Poll::Ready(Ok(())) | Poll::Ready(Err(UploadEnd::Callee)) => *upload = None,
                        Poll::Ready(Err(UploadEnd::Caller(fault))) => return Poll::Ready(Err(fault)),
                    }
                }
                reading.as_mut().poll(cx).map(Ok)
            })
            .await?
        };
        match read {
            Ok(bytes) => return Ok(bytes),
            Err(ReadError::Slow) if count.get() != seen => seen = count.get(),
            Err(error) => return Err(fault(error, !connection.reader.buffered().is_empty())),
        }
    }
}

/// `begun` says whether some bytes of an answer had come.
fn fault(error: ReadError, begun: bool) -> CalleeFault {
    match error {
        ReadError::Head(source) => CalleeFault::NotHttp { source },
        ReadError::Slow => CalleeFault::Slow,
        ReadError::Ended => CalleeFault::Gone { begun: false },
        ReadError::Cut => CalleeFault::Gone { begun: true },
        ReadError::Io { source } => {
            tracing::debug!(error = &source as &dyn std::error::Error, "read from a callee");
            CalleeFault::Gone { begun }
        }
    }
}

/// The body of a callee's answer. With its end the connection goes back to wait for other calls.
#[derive(Debug)]
pub(crate) struct CalleeBody {
    connection: Option<Box<Connection>>,
    left: Left,
    upload: Option<Upload>,
    persists: bool,
    home: Arc<Callees>,
}

impl CalleeBody {
    /// The body of an answer on a connection that carries no other call.
    pub(super) fn alone(home: &Arc<Callees>, connection: Box<Connection>, left: Left) -> Self {
        Self {
            connection: Some(connection),
            left,
            upload: None,
            persists: false,
            home: Arc::clone(home),
        }
    }

    /// Takes the next frame, and sends what is left of the request meanwhile.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(None);
        };
        if let Some(upload) = &mut self.upload {
            match upload.poll(&mut connection.writer, cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.upload = None,
                Poll::Ready(Err(UploadEnd::Callee)) => (self.upload, self.persists) = (None, false),
                Poll::Ready(Err(UploadEnd::Caller(_))) => {
                    self.connection = None;
                    return Poll::Ready(Some(Err(BodyError::Cut)));
                }
            }
        }
        match self.left.poll_frame(&mut connection.reader, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Err(error))) => {
                self.connection = None;
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(frame) => {
                self.go_home();
                Poll::Ready(frame)
            }
        }
    }

    /// Gives the connection back once the answer is whole. One whose request was not read to its end is of no more use.
    fn go_home(&mut self) {
        if !self.left.is_done() {
            return;
        }
        if let Some(connection) = self.connection.take()
            && self.persists
            && self.upload.is_none()
        {
            self.home.keep(connection);
        }
    }

    pub(crate) const fn is_end_stream(&self) -> bool {
        self.left.is_done()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.left
            .size_hint()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
