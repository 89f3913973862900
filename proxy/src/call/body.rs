//! The bodies of calls, in both directions, whatever carries them.

mod answer;
mod hop;
mod request;

use bytes::Bytes;
use http_body::Frame;

use super::headers;
pub(crate) use answer::{AnswerBody, AnswerError};
pub(crate) use hop::{HopBody, HopError};
pub(crate) use request::{Later, RequestBody, RequestCount, RequestError, WholeError};

/// Removes from a frame of trailers what must not be passed on.
fn strip_trailers<E>(frame: &mut Option<Result<Frame<Bytes>, E>>) {
    if let Some(Ok(frame)) = frame
        && let Some(trailers) = frame.trailers_mut()
    {
        headers::strip_trailers(trailers);
    }
}
