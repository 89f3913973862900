//! The two halves of a connection as one, with what was read of it before it was known to be HTTP/2.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Shared;
use crate::connection;
use crate::ends::{ReadEnd, WriteEnd};
use crate::http1::read::Reader;
use crate::http1::write::Writer;

/// A connection from its first byte on.
#[derive(Debug)]
pub(super) struct Ends {
    early: BytesMut,
    read: ReadEnd,
    write: WriteEnd,
    shared: Arc<Shared>,
}

impl Ends {
    pub(super) fn new(reader: Reader<ReadEnd>, writer: Writer<WriteEnd>, shared: &Arc<Shared>) -> Self {
        let (read, early) = reader.into_parts();
        Self {
            early,
            read,
            write: writer.into_io(),
            shared: Arc::clone(shared),
        }
    }
}

impl AsyncRead for Ends {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.early.is_empty() {
            let length = this.early.len().min(buf.remaining());
            buf.put_slice(&this.early.split_to(length));
            if this.early.is_empty() {
                this.early = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        // h2 keeps the kind of an error and not its cause, so whose byte it was is noted here.
        Pin::new(&mut this.read).poll_read(cx, buf).map_err(|error| {
            connection::somebody_else(&this.shared.proxy, &error);
            error
        })
    }
}

impl AsyncWrite for Ends {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().write).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().write).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.write.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().write).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().write).poll_shutdown(cx)
    }
}
