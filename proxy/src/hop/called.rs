//! The called end of a connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::caller::{Ending, hear};
use super::drive::Drive;
use super::first::First;
use super::frame::Last;
use super::link::{Body, Proofs, Sender, Shared};
use super::state::{End, Event};
use super::{Ended, Room};
use crate::call::AnswerBody;
use crate::live::Lane;
use crate::windows::Window;

/// How long a peer that was told that no more calls are begun has to close the connection once its last call has ended.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the called end of a connection needs.
#[derive(Debug)]
pub(crate) struct Called {
    /// Whose tasks answer.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when no more calls are to be begun.
    pub(crate) closing: CancellationToken,
    /// How long after that calls are begun all the same: the peer is told with each answer to call elsewhere.
    pub(crate) said: Duration,
    /// Takes pieces of the peer's proofs.
    pub(crate) proofs: mpsc::Sender<Bytes>,
    /// How much of bodies may be under way to this end.
    pub(crate) window: Window,
}

/// A call, as it comes.
#[derive(Debug)]
pub(crate) struct Call {
    /// As HTTP/1.1 writes it.
    pub(crate) head: Bytes,
    pub(crate) body: Body,
    pub(crate) reply: Reply,
}

/// Answers a call. Dropped, it tells that there is no answer.
#[derive(Debug)]
pub(crate) struct Reply(Sender);

/// Serves a connection to its end; each call is answered by a task of its own, made by `answer`.
pub(crate) async fn serve<IO, F>(
    io: IO,
    called: Called,
    began: impl FnOnce(Proofs),
    answer: impl Fn(Call) -> F,
) -> Ended
where
    IO: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = ()> + Send + 'static,
{
    let shared = Shared::new(End::Called, Room::of(&called.window));
    began(Proofs(Arc::clone(&shared)));
    let mut drive = Drive::new(io, Arc::clone(&shared));
    let ending = Ending(Arc::clone(&shared));
    let Called {
        tasks,
        closing,
        said,
        proofs,
        // Another's once this connection has ended.
        window: _window,
    } = called;
    let mut on = |event| match event {
        Event::Opened { id, head, last } => {
            let call = Call {
                head,
                body: Body::opened(Arc::clone(&shared), id, last),
                reply: Reply(Sender::new(Arc::clone(&shared), id)),
            };
            let (running, answering) = (Running(Arc::clone(&shared)), answer(call));
            let task = tasks.spawn(async move {
                answering.await;
                drop(running);
            });
            shared.lock().answered_by(id, task.abort_handle());
        }
        Event::Proof(_) => hear(&proofs, event),
    };
    let mut driving = std::pin::pin!(std::future::poll_fn(|cx| drive.poll(cx, &mut on)));
    let close = async {
        closing.cancelled().await;
        tokio::time::sleep(said).await;
    };
    // The connection is driven on after the other arm was taken: nothing of it is lost.
    let ended = tokio::select! {
        biased;
        ended = driving.as_mut() => ended,
        () = close => {
            shared.lock().close();
            farewell(&shared, driving).await
        }
    };
    ending.0.lock().end(ended);
    ended
}

/// Drives a connection on until the peer closes it; a peer that does not is left once no call runs.
async fn farewell(shared: &Shared, mut driving: Pin<&mut impl Future<Output = Ended>>) -> Ended {
    loop {
        if let Ok(ended) = timeout(FAREWELL, driving.as_mut()).await {
            return ended;
        }
        if shared.lock().is_idle() {
            return Ended::Closed;
        }
    }
}

/// Counts a call while its task runs.
#[derive(Debug)]
struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().task_ended();
    }
}

impl Reply {
    /// Answers with the head that `write` writes and with `body`. What of the body is there leaves with the head.
    pub(crate) async fn send(self, write: impl FnOnce(&mut BytesMut), mut body: AnswerBody) {
        let Self(mut sender) = self;
        let (mut data, none) = match First::of(&mut body).await {
            // The stream is broken off, for the head speaks of a body that does not come.
            Err(error) => return sender.failed(&error),
            Ok(First::End) => (Bytes::new(), true),
            Ok(First::NotYet) => (Bytes::new(), false),
            Ok(First::Frame(frame)) => match frame.into_data() {
                Ok(data) => (data, false),
                Err(frame) => {
                    let answered = sender.link().lock().answer(sender.id(), Last::No, write);
                    if matches!(answered, Ok(true)) {
                        let _ended: Poll<()> = sender.end(frame.into_trailers().ok());
                    }
                    return;
                }
            },
        };
        let last = Last::when(none || (!data.is_empty() && body.is_end_stream()));
        {
            let mut state = sender.link().lock();
            let answered = state.answer(sender.id(), Last::when(none), write);
            if !matches!(answered, Ok(true)) {
                return;
            }
            if !data.is_empty() {
                state.send(sender.id(), &mut data, last);
            }
        }
        if data.is_empty() && last.is() {
            return sender.finish();
        }
        let held = body.call_held();
        let cut = {
            let mut pumping = std::pin::pin!(sender.pump(data, &mut body));
            std::future::poll_fn(|cx| {
                // First, for what may not go on may say why.
                if pumping.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                match &held {
                    // A caller that takes nothing must not keep it alive. Then the stream breaks off.
                    Some(held) => held.poll_cut(cx, Lane::Writer).map(Some),
                    None => Poll::Pending,
                }
            })
            .await
        };
        if let Some(reason) = cut {
            body.ended(reason.as_str());
        }
    }
}
