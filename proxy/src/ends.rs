//! The two halves of every kind of connection that carries HTTP/1.1.

mod wide;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, UnixStream, tcp, unix};
use tokio_rustls::TlsStream;

use crate::attest::Witnessed;

pub use wide::Wide;

/// Where bytes come from.
#[derive(Debug)]
pub(crate) enum ReadEnd {
    /// TCP, of a bot, a callee or a destination outside.
    Tcp(tcp::OwnedReadHalf),
    /// A Unix socket, of a callee or of somebody who is no bot.
    Unix(unix::OwnedReadHalf),
    /// The Unix socket of an attested bot: each byte's sender is checked.
    Witnessed(ReadHalf<Witnessed>),
    /// A foreign peer, or a destination outside.
    Tls(Box<ReadHalf<TlsStream<Wide>>>),
}

/// Where bytes go.
#[derive(Debug)]
pub(crate) enum WriteEnd {
    /// TCP, of a bot, a callee or a destination outside.
    Tcp(tcp::OwnedWriteHalf),
    /// A Unix socket, of a callee or of somebody who is no bot.
    Unix(unix::OwnedWriteHalf),
    /// The Unix socket of an attested bot.
    Witnessed(WriteHalf<Witnessed>),
    /// A foreign peer, or a destination outside.
    Tls(Box<WriteHalf<TlsStream<Wide>>>),
}

/// The socket under an end, where it is one that a process of this host holds the other end of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Socket<'a> {
    /// On loopback.
    Tcp(&'a TcpStream),
    /// A Unix socket.
    Unix(&'a UnixStream),
}

impl ReadEnd {
    /// Returns the socket of a callee; nothing for other kinds of ends.
    pub(crate) fn socket(&self) -> Option<Socket<'_>> {
        match self {
            Self::Tcp(half) => Some(Socket::Tcp(half.as_ref())),
            Self::Unix(half) => Some(Socket::Unix(half.as_ref())),
            Self::Witnessed(_) | Self::Tls(_) => None,
        }
    }
}

impl WriteEnd {
    /// Returns the socket of a callee; nothing for other kinds of ends.
    pub(crate) fn socket(&self) -> Option<Socket<'_>> {
        match self {
            Self::Tcp(half) => Some(Socket::Tcp(half.as_ref())),
            Self::Unix(half) => Some(Socket::Unix(half.as_ref())),
            Self::Witnessed(_) | Self::Tls(_) => None,
        }
    }

    /// Ends a TCP connection by a reset, so that its peer cannot take what it has for all that was meant to come. A Unix
    /// socket knows no reset: it ends when both of its halves are dropped.
    ///
    /// Closing does not do it: the half that is dropped first says FIN, and a peer that waits reads that. `connect(2)` to
    /// no address ends the connection at once, whoever else holds a half of it.
    pub(crate) fn reset(&self) {
        if let Self::Tcp(half) = self
            && let Err(error) = rustix::net::connect_unspec(half.as_ref())
        {
            tracing::debug!(%error, "a connection was not reset");
        }
    }
}

/// Splits a TCP connection.
pub(crate) fn tcp(stream: TcpStream) -> (ReadEnd, WriteEnd) {
    let (read, write) = stream.into_split();
    (ReadEnd::Tcp(read), WriteEnd::Tcp(write))
}

/// Splits a connection over a Unix socket.
pub(crate) fn unix(stream: UnixStream) -> (ReadEnd, WriteEnd) {
    let (read, write) = stream.into_split();
    (ReadEnd::Unix(read), WriteEnd::Unix(write))
}

/// Splits the connection of an attested bot over a Unix socket.
pub(crate) fn witnessed(stream: Witnessed) -> (ReadEnd, WriteEnd) {
    let (read, write) = tokio::io::split(stream);
    (ReadEnd::Witnessed(read), WriteEnd::Witnessed(write))
}

/// Splits a connection over TLS: of a foreign peer, or to a destination outside.
pub(crate) fn tls(stream: impl Into<TlsStream<Wide>>) -> (ReadEnd, WriteEnd) {
    let (read, write) = tokio::io::split(stream.into());
    (ReadEnd::Tls(Box::new(read)), WriteEnd::Tls(Box::new(write)))
}

impl AsyncRead for ReadEnd {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Self::Unix(io) => Pin::new(io).poll_read(cx, buf),
            Self::Witnessed(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for WriteEnd {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write(cx, buf),
            Self::Unix(io) => Pin::new(io).poll_write(cx, buf),
            Self::Witnessed(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Unix(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Witnessed(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(io) => io.is_write_vectored(),
            Self::Unix(io) => io.is_write_vectored(),
            Self::Witnessed(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_flush(cx),
            Self::Unix(io) => Pin::new(io).poll_flush(cx),
            Self::Witnessed(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Self::Unix(io) => Pin::new(io).poll_shutdown(cx),
            Self::Witnessed(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io.as_mut()).poll_shutdown(cx),
        }
    }
}
