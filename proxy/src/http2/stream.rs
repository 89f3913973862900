//! One stream, and what it may not do: stand still for ever, or live on when its call may not go on.
//!
//! hyper takes the next piece of an answer only when the caller has room for it. So a caller that makes no room keeps
//! the call, its place among all calls and a connection to the callee; over HTTP/1.1 the writer's deadline ends that,
//! and here the task of the stream does.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use thiserror::Error;
use tokio::time::Instant;

use super::Shared;
use crate::call::{AnswerBody, AnswerError, CALLER_GONE};
use crate::http1::deadline::Deadline;
use crate::live::{Held, Lane};

/// The largest piece of an answer that is handed on at once: as much as a frame has that every peer takes (RFC 9113
/// §4.2). What was handed on waits in memory until the caller has room for it.
const PIECE_BYTES: usize = 16 * 1024;

/// The largest last piece that ends the answer together with it; the end of an answer waits until the caller has taken
/// a larger one, or nobody would look after what still waits.
const LAST_BYTES: usize = 4 * 1024;

tokio::task_local! {
    /// The stream whose task this is.
    static STREAM: Arc<Stream>;
}

/// What the task of a stream and the body of its answer tell each other.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// The call, once it is answered.
    held: OnceLock<Held>,
    /// Since when the caller has to make room.
    waits: Mutex<Option<Instant>>,
    /// Whether the connection is to end with this stream.
    last: AtomicBool,
}

impl Stream {
    /// A thread that panicked while it held the lock left a whole value.
    fn waits(&self) -> Option<Instant> {
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_waits(&self, since: Option<Instant>) {
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

/// Has the connection end with the stream whose task this is, after its answer.
pub(super) fn end_connection() {
    // Nobody answers outside of a stream's task.
    STREAM
        .try_with(|stream| stream.last.store(true, Ordering::Relaxed))
        .unwrap_or_default();
}

/// Has the streams of a connection be tasks of the proxy.
#[derive(Clone, Debug)]
pub(super) struct Streams(Arc<Shared>);

impl Streams {
    pub(super) fn of(shared: &Arc<Shared>) -> Self {
        Self(Arc::clone(shared))
    }
}

/// Counts a stream while it runs.
struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, work: F) {
        self.0.running.fetch_add(1, Ordering::Relaxed);
        let running = Running(Arc::clone(&self.0));
        let stall = self.0.proxy.limits.body_idle;
        drop(self.0.proxy.tasks.spawn(async move {
            let stream = Arc::<Stream>::default();
            run(Arc::clone(&stream), stall, work).await;
            if stream.last.load(Ordering::Relaxed) {
                running.0.over.cancel();
            }
            drop(running);
        }));
    }
}

/// Runs a stream to its end, or until its call may not go on, or its caller has made no room for `stall`. Whatever is
/// left of it then is dropped, which resets the stream.
async fn run<F: Future>(stream: Arc<Stream>, stall: Duration, work: F) {
    let mut work = std::pin::pin!(STREAM.scope(Arc::clone(&stream), work));
    let (mut patience, mut since) = (Deadline::default(), None);
    std::future::poll_fn(|cx| {
        if work.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if stream
            .held
            .get()
            .is_some_and(|held| held.poll_cut(cx, Lane::Writer).is_ready())
        {
            return Poll::Ready(());
        }
        let waits = stream.waits();
        if waits != since {
            since = waits;
            patience.set(stall);
        }
        match waits {
            Some(_) => patience.poll(cx),
            None => Poll::Pending,
        }
    })
    .await;
}

/// The body of an answer on its way to the caller.
#[derive(Debug)]
pub(super) struct Sent {
    body: AnswerBody,
    /// What was taken from it and not handed on yet.
    rest: Bytes,
    stream: Arc<Stream>,
    /// How long the callee may be silent.
    silence: Duration,
    quiet: Deadline,
    /// Whether the piece that was handed on last may still wait for room.
    large: bool,
    done: bool,
}

impl Sent {
    pub(super) fn new(body: AnswerBody, silence: Duration) -> Self {
        // Outside of a stream's task there is nobody to tell.
        let stream = STREAM.try_with(Arc::clone).unwrap_or_default();
        if let Some(held) = body.call_held() {
            // An answer comes once.
            stream.held.set(held).unwrap_or_default();
        }
        stream.set_waits(Some(Instant::now()));
        let mut quiet = Deadline::default();
        quiet.set(silence);
        Self {
            body,
            rest: Bytes::new(),
            stream,
            silence,
            quiet,
            large: false,
            done: false,
        }
    }

    fn piece(&mut self) -> Frame<Bytes> {
        let piece = self.rest.split_to(self.rest.len().min(PIECE_BYTES));
        self.large = piece.len() > LAST_BYTES;
        self.stream.set_waits(Some(Instant::now()));
        Frame::data(piece)
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = SentError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, SentError>>> {
        let this = self.get_mut();
        this.stream.set_waits(None);
        if !this.rest.is_empty() {
            // What may not go on must not go out either.
            if this.stream.held.get().and_then(Held::cut).is_none() {
                return Poll::Ready(Some(Ok(this.piece())));
            }
            this.rest = Bytes::new();
        }
        this.large = false;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Pending => this.quiet.poll(cx).map(|()| {
                this.done = true;
                Some(Err(SentError::Silent))
            }),
            Poll::Ready(None) => {
                this.done = true;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(source))) => {
                this.done = true;
                Poll::Ready(Some(Err(SentError::Answer { source })))
            }
            Poll::Ready(Some(Ok(frame))) => {
                this.quiet.set(this.silence);
                Poll::Ready(Some(Ok(match frame.into_data() {
                    Ok(data) => {
                        this.rest = data;
                        this.piece()
                    }
                    Err(trailers) => trailers,
                })))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && !self.large && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.body.size_hint().exact() {
            Some(length) => SizeHint::with_exact(length.saturating_add(self.rest.len() as u64)),
            None => SizeHint::default(),
        }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if self.done || (self.rest.is_empty() && self.body.is_end_stream()) {
            return;
        }
        let cut = self.stream.held.get().and_then(Held::cut);
        self.body.ended(cut.map_or(CALLER_GONE, crate::reason::Reason::as_str));
    }
}

/// Why the rest of an answer was not sent.
#[derive(Debug, Error)]
pub(super) enum SentError {
    /// The callee's body broke off, or may not go on.
    #[error(transparent)]
    Answer {
        /// Why.
        source: AnswerError,
    },
    /// The callee said nothing for too long.
    #[error("the answer stood still for too long")]
    Silent,
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_makes_no_room_loses_its_stream_and_one_that_waits_for_the_callee_does_not() {
        let stall = Duration::from_secs(30);
        let start = Instant::now();
        let stuck = async {
            let mut body = Sent::new(AnswerBody::whole(Bytes::from_static(b"hello")), stall);
            body.frame().await.unwrap().unwrap();
            std::future::pending::<()>().await;
        };
        run(Arc::default(), stall, stuck).await;
        assert!(start.elapsed() >= stall && start.elapsed() < stall * 2);
        let start = Instant::now();
        let waits = async {
            // The call is not answered yet, so its caller has nothing to take.
            tokio::time::sleep(stall * 10).await;
            Sent::new(AnswerBody::default(), stall)
        };
        run(Arc::default(), stall, waits).await;
        assert!(start.elapsed() >= stall * 10);
    }

    #[tokio::test]
    async fn an_answer_is_handed_on_in_pieces_and_ends_only_once_the_last_large_one_was_taken() {
        let bytes = Bytes::from(vec![7; PIECE_BYTES + LAST_BYTES + 1]);
        let mut body = Sent::new(AnswerBody::whole(bytes), Duration::from_secs(1));
        assert_eq!(body.size_hint().exact(), Some((PIECE_BYTES + LAST_BYTES + 1) as u64));
        for expected in [PIECE_BYTES, LAST_BYTES + 1] {
            let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(piece.len(), expected);
            assert!(!body.is_end_stream());
        }
        assert!(body.frame().await.is_none());
        let mut body = Sent::new(AnswerBody::whole(Bytes::from_static(b"hi")), Duration::from_secs(1));
        body.frame().await.unwrap().unwrap();
        assert!(body.is_end_stream(), "a small answer ends with its one piece");
    }
}
