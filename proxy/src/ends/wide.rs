//! A TCP connection below TLS that is read in long pieces.
//!
//! rustls asks for 4 KiB at a time, which would be four system calls for each of its longest records, and one for every
//! three answers that come together. Here one system call brings all that is there, up to 64 KiB.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What one read may bring.
const READ_BYTES: usize = 64 * 1024;

/// The shortest piece for which it is not worth it.
const WORTH_BYTES: usize = 16 * 1024;

thread_local! {
    /// Where reads go first: a connection that waits needs no memory for them.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// A TCP connection that is read in long pieces.
#[derive(Debug)]
pub struct Wide {
    tcp: TcpStream,
    /// What was read and not taken yet.
    kept: Vec<u8>,
    taken: usize,
}

impl Wide {
    pub(crate) const fn new(tcp: TcpStream) -> Self {
        Self {
            tcp,
            kept: Vec::new(),
            taken: 0,
        }
    }

    pub(crate) const fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Takes of what is kept; `false` where nothing is.
    fn take(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let left = self.kept.get(self.taken..).unwrap_or_default();
        if left.is_empty() {
            return false;
        }
        let piece = left.get(..buf.remaining()).unwrap_or(left);
        buf.put_slice(piece);
        self.taken += piece.len();
        if self.taken == self.kept.len() {
            (self.kept, self.taken) = (Vec::new(), 0);
        }
        true
    }
}

impl AsyncRead for Wide {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.take(buf) {
            return Poll::Ready(Ok(()));
        }
        if buf.remaining() >= WORTH_BYTES {
            return Pin::new(&mut this.tcp).poll_read(cx, buf);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            ready!(Pin::new(&mut this.tcp).poll_read(cx, &mut read))?;
            let (now, later) = read
                .filled()
                .split_at_checked(buf.remaining())
                .unwrap_or((read.filled(), &[]));
            buf.put_slice(now);
            this.kept.extend_from_slice(later);
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncWrite for Wide {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_is_read_is_what_was_written_however_it_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (mut near, mut wide) = (near.unwrap(), Wide::new(far.unwrap().0));
        let written: Vec<u8> = (0..300_000u32)
            .map(|number| u8::try_from(number % 251).unwrap())
            .collect();
        let writing = async {
            near.write_all(&written).await.unwrap();
            near.shutdown().await.unwrap();
        };
        let reading = async {
            let mut read = Vec::new();
            for size in [1, 4096, 7, 20_000, 3].into_iter().cycle() {
                let mut piece = vec![0; size];
                let count = wide.read(&mut piece).await.unwrap();
                if count == 0 {
                    return read;
                }
                read.extend_from_slice(&piece[..count]);
            }
            read
        };
        let ((), read) = tokio::join!(writing, reading);
        assert_eq!(read, written);
        assert_eq!(wide.kept.capacity(), 0, "a connection that waits keeps nothing");
    }
}
