//! The frames between proxy and helper: a length in four bytes, big-endian, and a body; with the first byte, at most one
//! file descriptor.
//!
//! Each side waits for the other's frame before it sends its own, so whatever follows a frame is an error.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use thiserror::Error;

/// The longest body: the holders of all sockets of a busy host.
pub const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

const HEAD: usize = 4;
const CHUNK: usize = 16 * 1024;

/// Bytes that are no frame.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length says more than [`BODY_BYTES_MAX`].
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
    /// More bytes came than the length says.
    #[error("{0} bytes follow a frame")]
    Trailing(usize),
}

/// Writes a frame.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn encode(body: &[u8]) -> Result<Vec<u8>, FrameError> {
    let length = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= BODY_BYTES_MAX)
        .ok_or(FrameError::TooLong(body.len()))?;
    let mut bytes = Vec::with_capacity(HEAD + body.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(body);
    Ok(bytes)
}

/// Returns the body of the frame that `bytes` are, or `None` while more must come.
///
/// # Errors
/// See [`FrameError`].
pub fn body(bytes: &[u8]) -> Result<Option<&[u8]>, FrameError> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
    if length > BODY_BYTES_MAX {
        return Err(FrameError::TooLong(length));
    }
    match rest.len().checked_sub(length) {
        None => Ok(None),
        Some(0) => Ok(Some(rest)),
        Some(more) => Err(FrameError::Trailing(more)),
    }
}

fn odd(error: FrameError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Sends a frame, with a file descriptor where there is one.
pub(super) fn send(stream: &UnixStream, body: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let bytes = encode(body).map_err(odd)?;
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::from(io::ErrorKind::OutOfMemory));
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let sent = rustix::io::retry_on_intr(|| {
            sendmsg(stream.as_fd(), &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL)
        })?;
        control.clear();
        rest = rest.get(sent..).unwrap_or_default();
    }
    Ok(())
}

/// Receives a frame; `None` when the other end has closed before one began.
pub(super) fn receive(stream: &UnixStream) -> io::Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut fd = None;
    let mut chunk = [0u8; CHUNK];
    loop {
        let read = part(stream, &mut chunk, &mut fd)?;
        if read == 0 {
            return if bytes.is_empty() {
                Ok(None)
            } else {
                Err(io::Error::from(io::ErrorKind::UnexpectedEof))
            };
        }
        bytes.extend_from_slice(chunk.get(..read).unwrap_or_default());
        if body(&bytes).map_err(odd)?.is_some() {
            bytes.drain(..HEAD);
            return Ok(Some((bytes, fd)));
        }
    }
}

fn part(stream: &UnixStream, chunk: &mut [u8], fd: &mut Option<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(chunk)];
        recvmsg(stream.as_fd(), &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            for one in fds {
                if fd.replace(one).is_some() {
                    return Err(io::Error::from(io::ErrorKind::InvalidData));
                }
            }
        }
    }
    // A descriptor that found no room was closed by the kernel: more came than belongs to a frame.
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    Ok(received.bytes)
}
