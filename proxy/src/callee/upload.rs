//! A request's body on its way to a callee, pumped by whoever waits for the answer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::HeaderMap;
use http_body::Body;

use super::CalleeFault;
use crate::call::RequestBody;
use crate::ends::WriteEnd;
use crate::http1::encode::{self, Form};
use crate::http1::write::{Tail, Writer};

/// A body that is not sent yet.
#[derive(Debug)]
pub(super) struct Upload {
    body: RequestBody,
    form: Form,
    tail: Tail,
    sent: u64,
    ended: bool,
}

/// Why a body was not sent to its end.
#[derive(Debug)]
pub(super) enum UploadEnd {
    /// The callee takes no more. It may have answered all the same.
    Callee,
    /// The caller's body broke off, or was not as long as it said.
    Caller(CalleeFault),
}

impl Upload {
    pub(super) fn new(body: RequestBody, form: Form) -> Self {
        Self {
            body,
            form,
            tail: Tail::default(),
            sent: 0,
            ended: false,
        }
    }

    /// Sends on until the body is sent.
    pub(super) fn poll(&mut self, writer: &mut Writer<WriteEnd>, cx: &mut Context<'_>) -> Poll<Result<(), UploadEnd>> {
        loop {
            if ready!(writer.poll_send(&mut self.tail, cx)).is_err() {
                return Poll::Ready(Err(UploadEnd::Callee));
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => self.frame(frame, writer)?,
                Some(Err(source)) => return Poll::Ready(Err(UploadEnd::Caller(CalleeFault::Caller { source }))),
                None => self.end(&HeaderMap::new(), writer)?,
            }
            writer.begin();
        }
    }

    fn frame(&mut self, frame: http_body::Frame<bytes::Bytes>, writer: &mut Writer<WriteEnd>) -> Result<(), UploadEnd> {
        match frame.into_data() {
            Ok(data) => {
                self.sent += data.len() as u64;
                self.tail = encode::frame(writer.out(), data, self.form);
                match self.form {
                    Form::Length(length) if self.sent > length => Err(UploadEnd::Caller(CalleeFault::Length)),
                    // Nothing follows on the wire, so the body's own end need not be waited for.
                    Form::Length(length) => {
                        self.ended = self.sent == length;
                        Ok(())
                    }
                    Form::None | Form::Chunked | Form::Close => Ok(()),
                }
            }
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => self.end(&trailers, writer),
                Err(_other) => Ok(()),
            },
        }
    }

    /// Ends the body; what it promised must have been sent, or the callee would wait for ever.
    fn end(&mut self, trailers: &HeaderMap, writer: &mut Writer<WriteEnd>) -> Result<(), UploadEnd> {
        if matches!(self.form, Form::Length(length) if self.sent < length) {
            return Err(UploadEnd::Caller(CalleeFault::Length));
        }
        self.ended = true;
        encode::end(writer.out(), trailers, self.form);
        Ok(())
    }
}
