//! Callers over a Unix socket.
//!
//! # What is guaranteed
//! The kernel noted at connect(2) which process connected, and under which credentials (SO_PEERCRED, SO_PEERPIDFD).
//! When [`Attestor::unix_caller`] answers, that very process was alive and was this bot, with the same effective user
//! and group as at connect.
//!
//! The socket may be passed on or inherited. So reads go through [`Witnessed`]: the kernel writes on each piece of data
//! which process sent it (SCM_CREDENTIALS), and data from any other process than the one that connected is not handed
//! out. There is no moment in which a process that was given the socket can speak as the bot.
//!
//! What remains: the kernel notes the process and not its program. A process that connects, sends, and *then* executes
//! the bot's program before it is attested, sends as the bot. It must be the bot's user to do so, and `exe` only narrows
//! what a user may be.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::pin::Pin as Pinned;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, getsockopt, recvmsg, setsockopt, sockopt};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use spiffe::id::BotName;
use spiffe::selector::Facts;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{UnixListener, UnixStream};

use super::caller::{Caller, Held, Hold};
use super::entries::Entries;
use super::error::{KernelError, Unattested, Why};
use super::identify::{Identified, Patience};
use super::kernel::Kernel;
use super::pin::{Ask, Pin, asked};
use super::{Attestor, blocking};

/// Asks the kernel to write the sender on all that comes over connections of this listener, from their first byte on.
///
/// # Errors
/// When the kernel refuses.
pub fn prepare_listener(listener: &UnixListener) -> io::Result<()> {
    setsockopt(listener, sockopt::PassCred, &true)?;
    Ok(())
}

impl Attestor {
    /// Finds out which bot connected to a Unix socket. The stream must then be read through [`Witnessed`] only.
    ///
    /// Takes some twenty microseconds and does not block, except for the first connection of a user whose name, or
    /// whose program's hash, is not known yet.
    ///
    /// # Errors
    /// When the process that connected has exited, has other credentials than at connect, cannot be seen, or when no
    /// entry or more than one matches.
    pub async fn unix_caller(&self, stream: &UnixStream) -> Result<Caller, Unattested> {
        self.unix_caller_over(stream, None).await
    }

    /// Finds out which bot connected to a Unix socket, like [`Attestor::unix_caller`]; `own` is the bot whose own socket
    /// it is, which is then a fact about the process.
    ///
    /// # Errors
    /// Like [`Attestor::unix_caller`].
    pub async fn unix_caller_over(&self, stream: &UnixStream, own: Option<&BotName>) -> Result<Caller, Unattested> {
        let entries = self.0.current.get();
        let pin = peer(&self.0.kernel, stream, &entries)?;
        let over = own.cloned();
        let version = entries.version;
        let (pin, identified) = match self.0.kernel.identify(&pin, own, &entries, Patience::None)? {
            Identified::Later => {
                let (kernel, over) = (Arc::clone(&self.0.kernel), over.clone());
                let slow = move || {
                    let identified = kernel.identify(&pin, over.as_ref(), &entries, Patience::Anything);
                    (pin, identified)
                };
                let (pin, identified) = blocking(slow).await?;
                (pin, identified?)
            }
            identified @ Identified::Bot(..) => (pin, identified),
        };
        let Identified::Bot(bot, facts) = identified else {
            return Err(Why::Exited(pin.pid).into());
        };
        let hold = Hold {
            kernel: Arc::clone(&self.0.kernel),
            current: Arc::clone(&self.0.current),
            bot: bot.clone(),
            version: AtomicU64::new(version),
            run: facts.run.as_ref() == Some(&bot),
            held: vec![Held::new(pin, 0)],
            inode: None,
            over,
            lost: OnceLock::new(),
        };
        Ok(Caller::new(bot, *facts, hold))
    }
}

/// Pins the process at the other end, as it was noted at connect or, for a client, at listen.
pub(super) fn peer(kernel: &Kernel, stream: &UnixStream, entries: &Entries) -> Result<Arc<Pin>, Why> {
    let failed = |error: Errno| KernelError::new("ask for the peer of", "a Unix socket", error);
    let noted: UnixCredentials = getsockopt(stream, sockopt::PeerCredentials).map_err(failed)?;
    // A process that is in no namespace of ours has the number 0 here.
    let pid = u32::try_from(noted.pid())
        .ok()
        .filter(|pid| *pid != 0)
        .ok_or(Why::PeerNotVisible)?;
    let pin = kernel.pin_of(pid, peer_pidfd(stream, noted.pid())?, Ask::of(entries))?;
    if (pin.uid, pin.gid) == (noted.uid(), noted.gid()) {
        return Ok(pin);
    }
    Err(Why::CredentialsChanged {
        pid,
        was_uid: noted.uid(),
        was_gid: noted.gid(),
        uid: pin.uid,
        gid: pin.gid,
    })
}

/// Returns the pidfd that the kernel noted.
///
/// Kernels before 6.5 do not hand it out. There the number is turned into a pidfd at once, and what is lost is this:
/// when the process that connected has exited and its number was given to another process *of the same user and group*
/// between connect and this call, that other process is taken for it.
fn peer_pidfd(stream: &UnixStream, pid: i32) -> Result<OwnedFd, Why> {
    let number = u32::try_from(pid).unwrap_or_default();
    match getsockopt(stream, sockopt::PeerPidfd) {
        Ok(process) => Ok(process),
        Err(Errno::ENOPROTOOPT) => {
            let raw = Pid::from_raw(pid).ok_or(Why::PeerNotVisible)?;
            pidfd_open(raw, PidfdFlags::empty()).map_err(|error| asked("open a pidfd of", number, error))
        }
        // What the kernel answers for a process that was reaped: ESRCH since 6.5, EINVAL in some versions.
        Err(Errno::ESRCH | Errno::EINVAL | Errno::ENODATA) => Err(Why::Exited(number)),
        Err(error) => Err(KernelError::new("ask for the pidfd of", format!("pid {pid}"), error).into()),
    }
}

/// The stream of an attested caller, from which only the caller's own process can be heard.
///
/// The sender of each piece of data is compared with the process that connected. Anything else ends the stream: data
/// from another process, data of which the kernel does not tell the sender, files passed along. The error's inner
/// error is an [`Unattested`], which [`super::refusal_of`] finds.
#[derive(Debug)]
pub struct Witnessed {
    stream: UnixStream,
    facts: Arc<Facts>,
}

impl Witnessed {
    /// Wraps the stream of which `caller` is the attested other end.
    ///
    /// # Errors
    /// When the kernel will not tell who sends.
    pub fn new(stream: UnixStream, caller: &Caller) -> io::Result<Self> {
        // Set on the listener too (see `prepare_listener`); without it what was sent earlier has no sender, and is
        // refused when it is read.
        setsockopt(&stream, sockopt::PassCred, &true)?;
        Ok(Self {
            stream,
            facts: Arc::clone(&caller.facts),
        })
    }

    /// Returns the stream, from which nothing must be read.
    #[must_use]
    pub fn get_ref(&self) -> &UnixStream {
        &self.stream
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let received = receive(&self.stream, buffer)?;
        let sender = match received {
            Received::Nothing => return Ok(0),
            Received::From { bytes, sender } if sender == self.facts.pid => return Ok(bytes),
            Received::From { sender, .. } => sender,
            Received::FromUnknown => 0,
        };
        let why = Why::OtherSender {
            connector: self.facts.pid,
            sender,
        };
        let refused = Unattested::new(why, Some(&self.facts));
        Err(io::Error::new(io::ErrorKind::PermissionDenied, refused))
    }
}

/// Room for one `struct ucred` and nothing more: files that a peer passes along find no room and are closed by the
/// kernel instead of filling up this process's file table.
#[repr(align(8))]
struct Control([u8; nix::sys::socket::cmsg_space::<UnixCredentials>()]);

enum Received {
    Nothing,
    From { bytes: usize, sender: u32 },
    FromUnknown,
}

/// Reads data of one sender; the kernel does not join data of two in one call (unix(7)).
fn receive(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = Control([0; _]);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let received = recvmsg::<()>(stream.as_fd().as_raw_fd(), &mut parts, Some(&mut control.0), flags)?;
    if received.bytes == 0 {
        return Ok(Received::Nothing);
    }
    // A control message that found no room makes this an error: something was passed along.
    let Ok(mut messages) = received.cmsgs() else {
        return Ok(Received::FromUnknown);
    };
    match (messages.next(), messages.next()) {
        (Some(ControlMessageOwned::ScmCredentials(sender)), None) => {
            let sender = u32::try_from(sender.pid()).unwrap_or_default();
            Ok(Received::From {
                bytes: received.bytes,
                sender,
            })
        }
        _ => Ok(Received::FromUnknown),
    }
}

impl AsyncRead for Witnessed {
    fn poll_read(self: Pinned<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let read = self
                .stream
                .try_io(Interest::READABLE, || self.receive(buf.initialize_unfilled()));
            match read {
                Ok(read) => {
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Witnessed {
    fn poll_write(mut self: Pinned<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pinned::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pinned<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pinned::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pinned<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pinned::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pinned<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pinned::new(&mut self.stream).poll_shutdown(cx)
    }
}
