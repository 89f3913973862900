//! What those who call and those who answer hold of a connection.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use super::frame::{Last, PROOF_BYTES_MAX};
use super::state::{End, Id, State};
use super::stream::Taken;
use super::{Ended, Reset, Room};

/// The state of one end, which its task and all its calls share. Held for no longer than a few frames take.
#[derive(Debug)]
pub(super) struct Shared(Mutex<State>);

impl Shared {
    pub(super) fn new(end: End, room: Room) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State::new(end, room))))
    }

    /// Nothing that runs while the lock is held waits; what panics there is a defect of this program, and the state it
    /// leaves is bounded like any other.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body that comes by a stream. Dropped before its end, it tells the other end that nobody reads on.
#[derive(Debug)]
pub(crate) struct Body {
    link: Arc<Shared>,
    id: Id,
    over: bool,
    /// How much is to come, where the head says so.
    left: Option<u64>,
}

impl Body {
    /// The body of a stream whose head was taken.
    pub(super) fn new(link: Arc<Shared>, id: Id) -> Self {
        let mut body = Self {
            link,
            id,
            over: false,
            left: None,
        };
        body.look();
        body
    }

    /// Takes a body of that length and no other.
    ///
    /// # Errors
    ///
    /// Where no body comes, and one was to come.
    pub(crate) fn of_length(mut self, length: Option<u64>) -> Result<Self, Ended> {
        self.left = length;
        if self.over && matches!(length, Some(1..)) {
            return Err(Ended::Length);
        }
        Ok(self)
    }

    /// How much is to come, where the head says so.
    pub(crate) const fn left(&self) -> Option<u64> {
        if self.over { Some(0) } else { self.left }
    }

    /// The body of a call that was just opened.
    pub(super) const fn opened(link: Arc<Shared>, id: Id, last: Last) -> Self {
        Self {
            link,
            id,
            over: last.is(),
            left: None,
        }
    }

    fn look(&mut self) {
        let mut state = self.link.lock();
        if state.is_read_out(self.id) {
            state.leave(self.id);
            self.over = true;
        }
    }

    /// Takes the next piece.
    pub(crate) fn poll_frame(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Ended>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let mut state = self.link.lock();
        let taken = ready!(state.poll_body(self.id, cx));
        let whole = state.is_read_out(self.id);
        let taken = taken.and_then(|taken| checked(&mut self.left, taken, whole));
        if whole || !matches!(taken, Ok(Taken::Data(_))) {
            state.leave(self.id);
            self.over = true;
        }
        drop(state);
        Poll::Ready(match taken {
            Ok(Taken::Data(data)) => Some(Ok(Frame::data(data))),
            Ok(Taken::Trailers(fields)) => Some(Ok(Frame::trailers(fields))),
            Ok(Taken::End) => None,
            Err(ended) => Some(Err(ended)),
        })
    }

    /// Tells whether nothing more comes, where that is known.
    pub(crate) const fn is_over(&self) -> bool {
        self.over
    }
}

/// Counts a piece of a body off what is to come; `whole` says that it is the last.
fn checked(left: &mut Option<u64>, taken: Taken, whole: bool) -> Result<Taken, Ended> {
    if let (Taken::Data(data), Some(left)) = (&taken, &mut *left) {
        *left = left.checked_sub(data.len() as u64).ok_or(Ended::Length)?;
    }
    let is_last = whole || !matches!(taken, Taken::Data(_));
    if is_last && matches!(left, Some(1..)) {
        return Err(Ended::Length);
    }
    Ok(taken)
}

impl Drop for Body {
    fn drop(&mut self) {
        if !self.over {
            self.link.lock().leave(self.id);
        }
    }
}

/// One direction of a stream, for whoever sends. Dropped before the last piece, it breaks the stream off.
#[derive(Debug)]
pub(super) struct Sender {
    link: Arc<Shared>,
    id: Id,
    over: bool,
    /// Why it does not go on, where it does not.
    why: Reset,
}

impl Sender {
    pub(super) const fn new(link: Arc<Shared>, id: Id) -> Self {
        Self {
            link,
            id,
            over: false,
            why: Reset::Failed,
        }
    }

    /// What was to be sent broke off.
    pub(super) fn failed(&mut self, error: &(dyn std::error::Error + 'static)) {
        self.why = Reset::by(error);
    }

    pub(super) const fn link(&self) -> &Arc<Shared> {
        &self.link
    }

    pub(super) const fn id(&self) -> Id {
        self.id
    }

    /// The last of this direction was sent, or nobody takes it.
    pub(super) const fn finish(&mut self) {
        self.over = true;
    }

    /// Sends `rest` and then a body piece by piece, each when there is room for it; its failure breaks the stream off.
    pub(super) async fn pump<B>(mut self, mut rest: Bytes, body: &mut B)
    where
        B: http_body::Body<Data = Bytes, Error: std::error::Error + 'static> + Unpin,
    {
        std::future::poll_fn(|cx| self.poll_pump(body, &mut rest, cx)).await;
    }

    fn poll_pump<B>(&mut self, body: &mut B, rest: &mut Bytes, cx: &mut Context<'_>) -> Poll<()>
    where
        B: http_body::Body<Data = Bytes, Error: std::error::Error + 'static> + Unpin,
    {
        loop {
            // Room first: what is taken from a body waits in memory.
            if ready!(self.link.lock().poll_room(self.id, cx)).is_none() {
                self.over = true;
                return Poll::Ready(());
            }
            if rest.is_empty() {
                match ready!(std::pin::Pin::new(&mut *body).poll_frame(cx)) {
                    None => return self.end(None),
                    Some(Err(error)) => {
                        self.failed(&error);
                        return Poll::Ready(());
                    }
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) if data.is_empty() && !body.is_end_stream() => continue,
                        Ok(data) => *rest = data,
                        Err(frame) => return self.end(frame.into_trailers().ok()),
                    },
                }
            }
            let last = Last::when(body.is_end_stream());
            self.link.lock().send(self.id, rest, last);
            if rest.is_empty() && last.is() {
                self.over = true;
                return Poll::Ready(());
            }
        }
    }

    pub(super) fn end(&mut self, trailers: Option<HeaderMap>) -> Poll<()> {
        self.over = true;
        let mut state = self.link.lock();
        match trailers {
            Some(fields) => state.send_trailers(self.id, &fields),
            None => state.send(self.id, &mut Bytes::new(), Last::Yes),
        }
        Poll::Ready(())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if !self.over {
            self.link.lock().break_off(self.id, self.why);
        }
    }
}

/// Says proofs on a connection.
#[derive(Clone, Debug)]
pub(crate) struct Proofs(pub(super) Arc<Shared>);

impl Proofs {
    pub(crate) fn say(&self, proof: &[u8]) {
        let mut state = self.0.lock();
        proof.chunks(PROOF_BYTES_MAX).for_each(|piece| state.prove(piece));
    }
}

/// Has a connection end once the last call on it has.
#[derive(Debug)]
pub(crate) struct Unneeded(pub(super) Arc<Shared>);

impl Drop for Unneeded {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.unneeded = true;
        state.kick();
    }
}
