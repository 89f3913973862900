//! Where the reader of a connection is while a request is answered: here, or with the body of the request.

use super::tunnel::Asking;
use super::{After, DRAIN_BYTES_MAX, drain};
use crate::call::RequestBody;
use crate::ends::ReadEnd;
use crate::http1::body::{Away, Body, Left};
use crate::http1::framing::Framing;
use crate::http1::head::RequestHead;
use crate::http1::read::Reader;
use crate::http1::target::Target;

/// Where the reader of a connection is while a request is answered.
pub(super) enum Whereabouts {
    /// Not away: the body was empty, or here whole already.
    Here(Box<Reader<ReadEnd>>),
    /// With the body.
    Away(Away<ReadEnd>),
    /// With the body, which the peer was told to send.
    Told(Away<ReadEnd>),
    /// Back, with what was not read of the body.
    Back(Box<Reader<ReadEnd>>, Left),
    /// Lost with a broken body.
    Lost,
}

/// Takes the body of a request, and what is kept while its reply is waited for.
pub(super) fn take(reader: Box<Reader<ReadEnd>>, head: &RequestHead) -> (RequestBody, Whereabouts, Option<Asking>) {
    let connects = matches!(head.target, Target::Authority) && head.framing == Framing::None;
    if head.upgrade.is_none() && !connects {
        let (body, at) = split(reader, head.framing);
        return (body, at, None);
    }
    let (body, later) = RequestBody::later();
    let asking = Asking {
        protocol: head.upgrade.clone(),
        later,
        count: body.count(),
    };
    (body, Whereabouts::Here(reader), Some(asking))
}

/// Takes the body out of the reader if it is there whole, or sends the reader away with it.
fn split(mut reader: Box<Reader<ReadEnd>>, framing: Framing) -> (RequestBody, Whereabouts) {
    match framing {
        Framing::None => (RequestBody::empty(), Whereabouts::Here(reader)),
        Framing::Length(length) if length <= reader.buffered().len() as u64 => {
            let length = usize::try_from(length).unwrap_or_default();
            let body = reader.buffered().split_to(length).freeze();
            (RequestBody::whole(body), Whereabouts::Here(reader))
        }
        Framing::Length(_) | Framing::Chunked => {
            let (body, away) = Body::new(*reader, Left::from(framing));
            (RequestBody::http1(body), Whereabouts::Away(away))
        }
    }
}

impl Whereabouts {
    pub(super) fn told(self) -> Self {
        match self {
            Self::Away(away) => Self::Told(away),
            other @ (Self::Here(_) | Self::Told(_) | Self::Back(..) | Self::Lost) => other,
        }
    }

    /// Looks, without waiting, whether the connection can go on after the answer: not when the peer may still send a
    /// body that nobody reads, for how much that is would depend on who counts.
    pub(super) fn settle(&mut self, expects: bool) -> bool {
        let was_told = matches!(self, Self::Told(_));
        if let Self::Away(away) | Self::Told(away) = self {
            match away.home.try_recv() {
                Ok(back) => *self = Self::Back(Box::new(back.reader), back.left),
                Err(tokio::sync::oneshot::error::TryRecvError::Empty) => return false,
                Err(tokio::sync::oneshot::error::TryRecvError::Closed) => *self = Self::Lost,
            }
        }
        match self {
            Self::Here(_) => true,
            // A peer that waits for `100 Continue` may send the body all the same, or may not (RFC 9110 §10.1.1).
            Self::Back(_, left) if expects && !was_told => left.is_done(),
            Self::Back(_, left) => left.size_hint().is_some_and(|rest| rest <= DRAIN_BYTES_MAX),
            Self::Away(_) | Self::Told(_) | Self::Lost => false,
        }
    }

    /// Brings the reader to the next request, or says that there is none.
    pub(super) async fn after(self, keeps_open: bool) -> After {
        match self {
            Self::Here(reader) if keeps_open => After::Next(reader),
            Self::Here(reader) => After::End(Some(reader)),
            Self::Back(reader, left) if left.is_done() && keeps_open => After::Next(reader),
            Self::Back(mut reader, left) if keeps_open => match drain(&mut reader, left).await {
                Some(()) => After::Next(reader),
                None => After::End(None),
            },
            Self::Back(reader, _) => After::End(Some(reader)),
            Self::Away(_) | Self::Told(_) | Self::Lost => After::End(None),
        }
    }
}
