//! What of a body is there at once: it leaves with its head.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};

/// What a body has at once.
#[derive(Debug)]
pub(super) enum First {
    NotYet,
    Frame(Frame<Bytes>),
    End,
}

impl First {
    /// Asks for a frame without waiting for it.
    pub(super) async fn of<B: Body<Data = Bytes> + Unpin>(body: &mut B) -> Result<Self, B::Error> {
        std::future::poll_fn(|cx| Poll::Ready(Self::ask(body, cx))).await
    }

    fn ask<B: Body<Data = Bytes> + Unpin>(body: &mut B, cx: &mut Context<'_>) -> Result<Self, B::Error> {
        if body.is_end_stream() {
            return Ok(Self::End);
        }
        match Pin::new(body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => Ok(Self::Frame(frame)),
            Poll::Ready(Some(Err(told))) => Err(told),
            Poll::Ready(None) => Ok(Self::End),
            Poll::Pending => Ok(Self::NotYet),
        }
    }
}
