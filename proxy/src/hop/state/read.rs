//! What whoever reads takes of what the peer sent, and the room that it gives back.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::super::frame::Kind;
use super::super::stream::Taken;
use super::super::{Ended, Reset};
use super::{End, Id, State, cost};

impl State {
    /// Takes the head of an answer.
    pub(in crate::hop) fn poll_answer(&mut self, id: Id, cx: &Context<'_>) -> Poll<Result<Bytes, Ended>> {
        let ended = self.ended.unwrap_or(Ended::Broken);
        let Some(stream) = self.find(id) else {
            return Poll::Ready(Err(ended));
        };
        match stream.head.take() {
            Some(head) => Poll::Ready(Ok(head)),
            None => stream.wait_to_read(cx).map(Err),
        }
    }

    /// Takes the next piece of a body.
    pub(in crate::hop) fn poll_body(&mut self, id: Id, cx: &Context<'_>) -> Poll<Result<Taken, Ended>> {
        let ended = self.ended.unwrap_or(Ended::Broken);
        let Some(stream) = self.find(id) else {
            return Poll::Ready(Err(ended));
        };
        let taken = std::task::ready!(stream.poll_take(cx))?;
        if let Taken::Data(data) = &taken {
            let cost = cost(data.len());
            self.credit_stream(id, cost);
            self.credit_all(cost);
        }
        Poll::Ready(Ok(taken))
    }

    /// Tells whether nothing more comes of a body.
    pub(in crate::hop) fn is_read_out(&mut self, id: Id) -> bool {
        self.find(id).is_none_or(|stream| stream.is_read_out())
    }

    /// Whoever read the body of a stream reads no more of it.
    pub(in crate::hop) fn leave(&mut self, id: Id) {
        let is_calling = self.end == End::Calling;
        let Some(stream) = self.find(id) else { return };
        if is_calling && stream.is_broken() {
            return self.remove(id);
        }
        if is_calling && !stream.is_read_out() {
            return self.reset(id, Reset::Cancel);
        }
        let unread = stream.leave();
        self.credit_all(unread);
        self.settle(id);
    }

    fn credit_stream(&mut self, id: Id, cost: usize) {
        let half = self.ours.one / 2;
        let Some(stream) = self.find(id) else { return };
        stream.taken += cost;
        if stream.taken < half || stream.got_last {
            return;
        }
        let told = std::mem::take(&mut stream.taken);
        stream.expected += told;
        self.tell_credit(id.0, told);
    }

    pub(super) fn credit_all(&mut self, cost: usize) {
        self.taken += cost;
        if self.taken >= self.ours.all / 2 {
            let told = std::mem::take(&mut self.taken);
            self.expected += told;
            self.tell_credit(0, told);
        }
    }

    fn tell_credit(&mut self, stream: u32, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
        self.out.frame(Kind::Credit, stream, &bytes);
        self.kick();
    }
}
