//! Writes an answer and streams its body.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{Method, StatusCode};
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;

use super::deadline::Deadline;
use super::encode::{self, Form};
use super::framing::Version;
use super::write::{Tail, WriteError, Writer};

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Writes an answer and its body, taking each frame as the peer takes the one before.
    ///
    /// The first frame, if it is there already, leaves with the head. `silence` is the longest time that the body may
    /// stand still.
    ///
    /// # Errors
    ///
    /// When the peer fails, when the body fails, and when it is not as long as `answer` says. After any of them the
    /// connection is of no use: what was written cannot be taken back.
    pub async fn answer<B>(&mut self, answer: Answer<'_>, body: &mut B, silence: Duration) -> Result<(), WriteError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let first = if answer.is_bodiless() {
            First::End
        } else {
            First::of(body).await?
        };
        let form = answer.form(body, &first);
        let persists = answer.persists && form != Form::Close;
        encode::answer_head(
            self.out(),
            answer.version,
            answer.status,
            answer.headers,
            form,
            persists,
        );
        let mut count = Count {
            form,
            written: 0,
            ended: false,
        };
        let done = match first {
            First::Frame(frame) => {
                self.frame(frame, &mut count).await?;
                body.is_end_stream()
            }
            First::End => true,
            First::NotYet => {
                self.send(Tail::default()).await?;
                false
            }
        };
        if !done {
            self.stream(body, silence, &mut count).await?;
        }
        self.end(&count).await
    }

    async fn stream<B>(&mut self, body: &mut B, silence: Duration, count: &mut Count) -> Result<(), WriteError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let mut quiet = Deadline::default();
        loop {
            quiet.set(silence);
            let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
            match quiet.race(frame).await {
                None => return Err(WriteError::Silent),
                Some(None) => return Ok(()),
                Some(Some(Err(_told_by_the_body))) => return Err(WriteError::Body),
                Some(Some(Ok(frame))) => self.frame(frame, count).await?,
            }
            if body.is_end_stream() {
                return Ok(());
            }
        }
    }

    async fn frame(&mut self, frame: Frame<Bytes>, count: &mut Count) -> Result<(), WriteError> {
        match frame.into_data() {
            Ok(data) if data.is_empty() => Ok(()),
            Ok(data) => {
                count.add(data.len() as u64)?;
                let tail = encode::frame(self.out(), data, count.form);
                self.send(tail).await
            }
            Err(frame) => {
                // Trailers have a place after chunks only; RFC 9110 §6.5.1 lets them be dropped elsewhere.
                if let Ok(trailers) = frame.into_trailers() {
                    encode::end(self.out(), &trailers, count.form);
                    count.ended = true;
                }
                Ok(())
            }
        }
    }

    async fn end(&mut self, count: &Count) -> Result<(), WriteError> {
        if let Form::Length(length) = count.form
            && count.written < length
        {
            return Err(WriteError::Length);
        }
        if !count.ended {
            encode::end(self.out(), &HeaderMap::new(), count.form);
        }
        if self.out().is_empty() {
            Ok(())
        } else {
            self.send(Tail::default()).await
        }
    }
}

/// What a body has at once.
enum First {
    NotYet,
    Frame(Frame<Bytes>),
    End,
}

impl First {
    /// Asks for a frame without waiting for it.
    async fn of<B: Body<Data = Bytes> + Unpin>(body: &mut B) -> Result<Self, WriteError> {
        if body.is_end_stream() {
            return Ok(Self::End);
        }
        std::future::poll_fn(|cx| {
            Poll::Ready(match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => Ok(Self::Frame(frame)),
                Poll::Ready(Some(Err(_told_by_the_body))) => Err(WriteError::Body),
                Poll::Ready(None) => Ok(Self::End),
                Poll::Pending => Ok(Self::NotYet),
            })
        })
        .await
    }
}

/// The head of an answer to write.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The version of the request.
    pub version: Version,
    /// The method of the request.
    pub method: &'a Method,
    /// The status.
    pub status: StatusCode,
    /// The fields, without those of this connection.
    pub headers: &'a HeaderMap,
    /// Whether the connection goes on afterwards.
    pub persists: bool,
}

impl Answer<'_> {
    /// RFC 9112 §6.3, point 1.
    fn is_bodiless(&self) -> bool {
        self.method == Method::HEAD
            || self.status.is_informational()
            || self.status == StatusCode::NO_CONTENT
            || self.status == StatusCode::NOT_MODIFIED
    }

    /// Tells how the body will be delimited, from what is known of it once its first frame was asked for.
    fn form<B: Body<Data = Bytes>>(&self, body: &B, first: &First) -> Form {
        if self.is_bodiless() {
            return Form::None;
        }
        if let Some(length) = self
            .headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok())
        {
            return Form::Length(length);
        }
        match first {
            First::End => return Form::Length(0),
            First::Frame(frame) if body.is_end_stream() => {
                if let Some(data) = frame.data_ref() {
                    return Form::Length(data.len() as u64);
                }
            }
            First::Frame(_) | First::NotYet => {}
        }
        match self.version {
            Version::Http11 => Form::Chunked,
            Version::Http10 => Form::Close,
        }
    }

    /// Tells whether the connection can go on after this answer as it will be written; it cannot when only its end
    /// ends the body.
    #[must_use]
    pub fn keeps_open(&self) -> bool {
        self.persists
            && (self.version == Version::Http11
                || self.is_bodiless()
                || self.headers.contains_key(header::CONTENT_LENGTH))
    }
}

struct Count {
    form: Form,
    written: u64,
    /// Whether trailers have ended it already.
    ended: bool,
}

impl Count {
    /// Refuses to write more than the head promised: the rest would be read as another answer.
    fn add(&mut self, bytes: u64) -> Result<(), WriteError> {
        self.written += bytes;
        match self.form {
            Form::Length(length) if self.written > length => Err(WriteError::Length),
            Form::None | Form::Length(_) | Form::Chunked | Form::Close => Ok(()),
        }
    }
}
