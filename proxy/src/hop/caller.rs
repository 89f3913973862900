//! The calling end of a connection.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::drive::Drive;
use super::first::First;
use super::frame::Last;
use super::link::{Body, Proofs, Sender, Shared, Unneeded};
use super::state::{End, Event, Id, NotOpened, State};
use super::{Ended, Reset, Room};
use crate::call::RequestBody;
use crate::windows::Window;

/// How many pieces of proofs wait to be looked at. More are a flood: renewals are minutes apart.
pub(crate) const PROOFS_MAX: usize = 16;

/// Calls on a connection.
#[derive(Clone, Debug)]
pub(crate) struct Caller(Arc<Shared>);

/// A call that was not answered.
#[derive(Debug)]
pub(crate) struct NotCalled {
    /// Why; [`Reset::Refused`] where the other end has not begun to carry it.
    pub(crate) ended: Ended,
    /// Its body, where it is here whole.
    pub(crate) body: Option<Box<RequestBody>>,
}

/// Makes the calling end of a connection, and what drives it until it ends. Pieces of the peer's proofs go to `proofs`.
pub(crate) fn begin<IO>(
    io: IO,
    proofs: mpsc::Sender<Bytes>,
    window: Window,
) -> (Caller, Proofs, Unneeded, impl Future<Output = Ended> + use<IO>)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let shared = Shared::new(End::Calling, Room::of(&window));
    let mut drive = Drive::new(io, Arc::clone(&shared));
    // Dropped with the task, wherever it ends.
    let ending = Ending(Arc::clone(&shared));
    let driving = async move {
        let (ending, _window) = (ending, window);
        let ended = std::future::poll_fn(|cx| drive.poll(cx, &mut |event| hear(&proofs, event))).await;
        ending.0.lock().end(ended);
        ended
    };
    (
        Caller(Arc::clone(&shared)),
        Proofs(Arc::clone(&shared)),
        Unneeded(shared),
        driving,
    )
}

/// Hands on a piece of a proof. Where too many wait it is lost, and the proof with it.
pub(super) fn hear(proofs: &mpsc::Sender<Bytes>, event: Event) {
    if let Event::Proof(piece) = event
        && proofs.try_send(piece).is_err()
    {
        tracing::debug!("a proof came that nobody takes");
    }
}

/// Tells everybody that a connection has ended, when what drove it is dropped.
#[derive(Debug)]
pub(super) struct Ending(pub(super) Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.lock().end(Ended::Broken);
    }
}

impl Caller {
    /// Tells whether no call can begin on the connection any more.
    pub(crate) fn is_closed(&self) -> bool {
        let state: &State = &self.0.lock();
        state.closing || state.ended.is_some()
    }

    /// Calls, with the head that `write` writes, and waits for the head of the answer. Dropped before that, it breaks the call
    /// off. What of the body is there leaves with the head; the rest is sent by a task of its own, so that neither direction
    /// waits for the other.
    pub(crate) async fn call(
        &self,
        tasks: &TaskTracker,
        write: impl FnOnce(&mut BytesMut),
        body: RequestBody,
    ) -> Result<(Bytes, Body), NotCalled> {
        let reserved = self.0.lock().reserve();
        let id = match reserved {
            Ok(id) => id,
            Err(not) => return Err(NotCalled::unsent(not, body)),
        };
        let mut stream = Asked {
            link: &self.0,
            id: Some(id),
        };
        let whole = body.as_whole();
        let begun = match &whole {
            // Asked for nothing, it stays whole.
            Some(bytes) => self.begin(tasks, id, write, (Part::of(bytes.clone()), RequestBody::empty())),
            None => self.begin_with(tasks, id, write, body).await,
        };
        let head = match begun {
            Ok(()) => std::future::poll_fn(|cx| self.0.lock().poll_answer(id, cx)).await,
            Err(ended) => Err(ended),
        };
        match head {
            Ok(head) => {
                stream.id = None;
                Ok((head, Body::new(Arc::clone(&self.0), id)))
            }
            Err(ended) => {
                let body = whole.map(|bytes| {
                    if bytes.is_empty() {
                        RequestBody::empty()
                    } else {
                        RequestBody::whole(bytes)
                    }
                });
                let body = body.map(Box::new);
                Err(NotCalled { ended, body })
            }
        }
    }

    /// Says the head, and what of the body is there.
    async fn begin_with(
        &self,
        tasks: &TaskTracker,
        id: Id,
        write: impl FnOnce(&mut BytesMut),
        mut body: RequestBody,
    ) -> Result<(), Ended> {
        let part = match First::of(&mut body).await {
            // Nothing was said of the call yet, and nothing will be.
            Err(_told_by_the_body) => return Err(Ended::Body),
            Ok(First::NotYet) => Part::NotYet,
            Ok(First::End) => Part::of(Bytes::new()),
            Ok(First::Frame(frame)) => match frame.into_data() {
                Ok(data) if body.is_end_stream() => Part::of(data),
                Ok(data) => Part::More(data),
                Err(frame) => Part::Trailers(frame.into_trailers().unwrap_or_default()),
            },
        };
        self.begin(tasks, id, write, (part, body))
    }

    /// Says the head and a part of the body under one lock, so that both leave together.
    fn begin(
        &self,
        tasks: &TaskTracker,
        id: Id,
        write: impl FnOnce(&mut BytesMut),
        (part, mut body): (Part, RequestBody),
    ) -> Result<(), Ended> {
        let mut state = self.0.lock();
        let last = Last::when(matches!(part, Part::None));
        state.open(id, last, write).map_err(Ended::from)?;
        let rest = match part {
            Part::None => return Ok(()),
            Part::Trailers(fields) => {
                state.send_trailers(id, &fields);
                return Ok(());
            }
            Part::Last(mut data) => {
                state.send(id, &mut data, Last::Yes);
                if data.is_empty() {
                    return Ok(());
                }
                data
            }
            Part::More(mut data) => {
                state.send(id, &mut data, Last::No);
                data
            }
            Part::NotYet => Bytes::new(),
        };
        drop(state);
        let sender = Sender::new(Arc::clone(&self.0), id);
        drop(tasks.spawn(async move { sender.pump(rest, &mut body).await }));
        Ok(())
    }
}

/// What of a body is there when its call begins.
#[derive(Debug)]
enum Part {
    /// There is no body.
    None,
    /// All of it.
    Last(Bytes),
    /// Some of it.
    More(Bytes),
    /// Fields after a body without bytes.
    Trailers(HeaderMap),
    NotYet,
}

impl Part {
    fn of(whole: Bytes) -> Self {
        if whole.is_empty() {
            Self::None
        } else {
            Self::Last(whole)
        }
    }
}

impl NotCalled {
    /// Of a call of which nothing was said.
    fn unsent(not: NotOpened, body: RequestBody) -> Self {
        Self {
            ended: not.into(),
            body: Some(Box::new(body)),
        }
    }
}

impl From<NotOpened> for Ended {
    fn from(not: NotOpened) -> Self {
        match not {
            NotOpened::Closing | NotOpened::Full => Self::Reset(Reset::Refused),
            NotOpened::TooLong => Self::Protocol,
        }
    }
}

/// A call whose answer is waited for.
struct Asked<'a> {
    link: &'a Shared,
    id: Option<Id>,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.link.lock().leave(id);
        }
    }
}
