//! Bodies, streamed with backpressure: the body itself holds the reader, so no task and no channel stands between the
//! socket and whoever consumes it. When it is done, or dropped, the reader comes home.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use thiserror::Error;
use tokio::io::AsyncRead;
use tokio::sync::oneshot;

use super::chunk::{Chunk, ChunkReader};
use super::framing::Framing;
use super::head::HeadError;
use super::read::{ReadError, Reader};
use super::status::AnswerFraming;

/// What is left of a body on the wire.
#[derive(Debug)]
pub enum Left {
    /// So many bytes.
    Length(u64),
    /// Chunks, and how many bytes they have held.
    Chunked(ChunkReader, u64),
    /// All until the connection ends, and how many bytes that has been.
    Close(u64),
    /// Nothing.
    Done,
}

impl From<Framing> for Left {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(ChunkReader::default(), 0),
        }
    }
}

impl From<AnswerFraming> for Left {
    fn from(framing: AnswerFraming) -> Self {
        match framing {
            AnswerFraming::None | AnswerFraming::Length(0) => Self::Done,
            AnswerFraming::Length(length) => Self::Length(length),
            AnswerFraming::Chunked => Self::Chunked(ChunkReader::default(), 0),
            AnswerFraming::Close => Self::Close(0),
        }
    }
}

impl Left {
    /// Tells whether the body is whole.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Takes the next frame of the body off `reader`; nothing once it is whole.
    ///
    /// # Errors
    ///
    /// For a body that breaks its framing or a bound, is cut off, or stands still too long.
    pub fn poll_frame<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut Reader<R>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match self.take(reader) {
                Ok(Taken::Frame(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(Taken::End) => return Poll::Ready(None),
                Ok(Taken::Nothing) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            match ready!(reader.poll_fill_body(cx)) {
                Ok(0) if matches!(self, Self::Close(_)) => *self = Self::Done,
                Ok(0) => return Poll::Ready(Some(Err(BodyError::Cut))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }

    /// Takes what is buffered already.
    fn take<R: AsyncRead + Unpin>(&mut self, reader: &mut Reader<R>) -> Result<Taken, BodyError> {
        let bytes_max = reader.limits().body_bytes_max;
        let buf = reader.buffered();
        match self {
            Self::Done => Ok(Taken::End),
            Self::Length(left) if *left > bytes_max => Err(BodyError::TooLong),
            Self::Length(_) | Self::Close(_) if buf.is_empty() => Ok(Taken::Nothing),
            Self::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len());
                let data = buf.split_to(here).freeze();
                *left -= here as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(Taken::Frame(Frame::data(data)))
            }
            Self::Close(count) => {
                *count += buf.len() as u64;
                if *count > bytes_max {
                    return Err(BodyError::TooLong);
                }
                Ok(Taken::Frame(Frame::data(buf.split().freeze())))
            }
            Self::Chunked(chunks, count) => match chunks.next(buf)? {
                Chunk::More => Ok(Taken::Nothing),
                Chunk::Data(data) => {
                    *count += data.len() as u64;
                    if *count > bytes_max {
                        Err(BodyError::TooLong)
                    } else {
                        Ok(Taken::Frame(Frame::data(data)))
                    }
                }
                Chunk::End(trailers) => {
                    *self = Self::Done;
                    if trailers.is_empty() {
                        Ok(Taken::End)
                    } else {
                        Ok(Taken::Frame(Frame::trailers(trailers)))
                    }
                }
            },
        }
    }

    /// Says how long the body will be, as far as its framing tells.
    #[must_use]
    pub const fn size_hint(&self) -> Option<u64> {
        match self {
            Self::Done => Some(0),
            Self::Length(left) => Some(*left),
            Self::Chunked(..) | Self::Close(_) => None,
        }
    }
}

enum Taken {
    Frame(Frame<Bytes>),
    Nothing,
    End,
}

/// The body of a request. It holds the reader of its connection and sends it home at its end.
#[derive(Debug)]
pub struct Body<R: AsyncRead + Unpin> {
    inner: Option<(Reader<R>, Left)>,
    home: Option<oneshot::Sender<Returned<R>>>,
    wanted: Option<oneshot::Sender<()>>,
}

/// A reader that came home, and what it did not read of the body.
#[derive(Debug)]
pub struct Returned<R> {
    /// The reader.
    pub reader: Reader<R>,
    /// Done, or the rest that nobody wanted.
    pub left: Left,
}

/// What the owner of the connection keeps while its reader is away.
#[derive(Debug)]
pub struct Away<R> {
    /// Brings the reader back; closed when the body broke, after which the connection is of no use.
    pub home: oneshot::Receiver<Returned<R>>,
    /// Tells when somebody first wants the body: the moment for `100 Continue`.
    pub wanted: oneshot::Receiver<()>,
}

impl<R: AsyncRead + Unpin> Body<R> {
    /// Makes the body that `left` describes out of `reader`.
    pub fn new(mut reader: Reader<R>, left: Left) -> (Self, Away<R>) {
        reader.begin_body();
        let (home, come_home) = oneshot::channel();
        let (wanted, is_wanted) = oneshot::channel();
        let body = Self {
            inner: Some((reader, left)),
            home: Some(home),
            wanted: Some(wanted),
        };
        (
            body,
            Away {
                home: come_home,
                wanted: is_wanted,
            },
        )
    }

    /// Sends the reader home. The owner may be gone; then the reader goes too.
    fn go_home(&mut self) {
        if let (Some((mut reader, left)), Some(home)) = (self.inner.take(), self.home.take()) {
            reader.end_body();
            drop(home.send(Returned { reader, left }));
        }
    }
}

impl<R: AsyncRead + Unpin> HttpBody for Body<R> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(wanted) = this.wanted.take() {
            // Nobody listens when the caller does not wait for `100 Continue`.
            wanted.send(()).ok();
        }
        let Some((reader, left)) = &mut this.inner else {
            return Poll::Ready(None);
        };
        let frame = ready!(left.poll_frame(reader, cx));
        match &frame {
            Some(Ok(_)) if !left.is_done() => {}
            Some(Ok(_)) | None => this.go_home(),
            // The rest of the connection cannot be read any more: it is dropped, not sent home.
            Some(Err(_)) => {
                this.inner = None;
                this.home = None;
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(|(_, left)| left.is_done())
    }

    fn size_hint(&self) -> SizeHint {
        match self.inner.as_ref().map_or(Some(0), |(_, left)| left.size_hint()) {
            Some(length) => SizeHint::with_exact(length),
            None => SizeHint::default(),
        }
    }
}

impl<R: AsyncRead + Unpin> Drop for Body<R> {
    fn drop(&mut self) {
        self.go_home();
    }
}

/// Why a body could not be read to its end.
#[derive(Debug, Error)]
pub enum BodyError {
    /// A chunk's size is none, or its line is too long.
    #[error("a chunk does not start with its size in hexadecimal")]
    ChunkSize,
    /// A chunk extension is malformed or too long.
    #[error("a chunk extension is malformed or longer than 256 bytes")]
    ChunkExtension,
    /// A chunk is longer than it said.
    #[error("a chunk does not end where its size says")]
    ChunkEnd,
    /// A trailer is no field line.
    #[error("read the trailers")]
    Trailers {
        /// What is wrong with it.
        #[source]
        source: HeadError,
    },
    /// The trailers are longer than their bound.
    #[error("the trailers are longer than 8 KiB")]
    TrailersTooLong,
    /// The body is longer than its bound.
    #[error("the body is longer than is carried")]
    TooLong,
    /// The connection ended inside it.
    #[error("the connection ended inside a body")]
    Cut,
    /// Nothing came for too long.
    #[error("a body stood still for too long")]
    Slow,
    /// The connection failed.
    #[error("read a body from the connection")]
    Io {
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl From<ReadError> for BodyError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Slow => Self::Slow,
            ReadError::Io { source } => Self::Io { source },
            ReadError::Cut | ReadError::Ended | ReadError::Head(_) => Self::Cut,
        }
    }
}
