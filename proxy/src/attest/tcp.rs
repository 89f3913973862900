//! Callers over loopback TCP.
//!
//! The kernel does not say which process is at the other end of a TCP connection. It says which *socket* is: its inode
//! and the user who created it. Who holds a file descriptor for that socket is found in `/proc`.
//!
//! # What is guaranteed
//! When [`Attestor::tcp_caller`] answers, at one moment during the call
//! - the socket found was the other end of this very connection: before and after, it was the only one with these
//!   addresses and established, and this end was still this socket (by cookie), so no later connection with the same
//!   ports was looked at in its place;
//! - every process of the socket's cgroup and user (where the cgroup is known, else of its user) that held it was this
//!   bot and is pinned.
//!
//! Bytes that reached this end before the answer are the word of whoever held the socket then. Whoever may hold it is a
//! process to which a holder gave it: by `fork`, by `SCM_RIGHTS`, or that took it by `pidfd_getfd`, which needs the
//! right to trace. Another *user's* process to which the caller hands its own connection on purpose is found by
//! [`Attestor::watch`] within about a second, and by [`Caller::deep_recheck`] at once; until then it speaks as the bot
//! that let it. Over a Unix socket there is no such second: see [`super::Witnessed`].

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use rustix::net::sockopt::socket_cookie;
use spiffe::id::BotName;
use spiffe::selector::Facts;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::caller::{Caller, Held, Hold};
use super::cgroup::Place;
use super::diag::{SocketFact, canonical};
use super::entries::Entries;
use super::error::{KernelError, Unattested, Why};
use super::identify::{Identified, Patience};
use super::kernel::Kernel;
use super::lanes::Question;
use super::pin::Ask;
use super::scan::Holder;
use super::{Attestor, blocking};

/// With more holders than this the attestation is finished on a thread of its own.
const INLINE_HOLDERS_MAX: usize = 4;

/// Both ends of a connection of ours, and the number that the kernel gives to our socket and to no other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) own: SocketAddr,
    pub(super) other: SocketAddr,
    pub(super) cookie: u64,
}

impl Ends {
    pub(super) fn of(stream: &TcpStream) -> Result<Self, Why> {
        let gone = |_closed| Why::SocketGone;
        let other = canonical(stream.peer_addr().map_err(gone)?);
        let own = canonical(stream.local_addr().map_err(gone)?);
        if !other.ip().is_loopback() || !own.ip().is_loopback() {
            return Err(Why::NotLocal);
        }
        let cookie = socket_cookie(stream)
            .map_err(|error| KernelError::new("read the cookie of", format!("{own} -> {other}"), error))?;
        Ok(Self { own, other, cookie })
    }

    /// Finds the other end.
    pub(super) fn peer(&self, kernel: &Kernel) -> Result<SocketFact, Why> {
        kernel.diag.connection(self.other, self.own)?.ok_or(Why::SocketGone)
    }

    /// Checks that `peer` is still the other end of this very connection.
    ///
    /// The kernel keeps at most one socket per pair of ends on each side. That the peer is established between these
    /// ends, and that afterwards this side's is still this socket, means that the two are joined.
    pub(super) fn still_joined(&self, kernel: &Kernel, peer: &SocketFact) -> Result<(), Why> {
        let again = self.peer(kernel)?;
        let ours = kernel.diag.connection(self.own, self.other)?.ok_or(Why::SocketGone)?;
        if (again.inode, again.cookie, ours.cookie) == (peer.inode, peer.cookie, self.cookie) {
            return Ok(());
        }
        Err(Why::SocketGone)
    }
}

impl Attestor {
    /// Finds out which bot is at the other end of a loopback TCP connection that this process accepted.
    ///
    /// See the module for what is guaranteed. Takes some hundred microseconds: it looks through the processes of the
    /// caller's cgroup or user, one scan at a time for each user.
    ///
    /// # Errors
    /// When the connection is not local or has ended, when no entry or more than one matches, when the processes that
    /// hold the socket are not all the same bot, or when a bound is met.
    pub async fn tcp_caller(&self, stream: &TcpStream) -> Result<Caller, Unattested> {
        let ends = Ends::of(stream)?;
        let kernel = &self.0.kernel;
        let peer = ends.peer(kernel)?;
        if peer.inode == 0 {
            return Err(Why::SocketGone.into());
        }
        let question = Question {
            uid: peer.uid,
            cgroup: peer.cgroup,
            inode: peer.inode,
        };
        let asked = Instant::now();
        let holders = self.0.lanes.ask(kernel, question).await.map_err(unshared)?;
        let holders = Found { asked, holders };
        let entries = self.0.current.get();
        let version = entries.version;
        let mut joined = None;
        if holders.holders.len() <= INLINE_HOLDERS_MAX {
            joined = join(kernel, &entries, &ends, &peer, &holders, Patience::None)?;
        }
        let (bot, facts, held) = match joined {
            Some(joined) => joined,
            None => {
                let (kernel, inode) = (Arc::clone(kernel), peer.clone());
                let joined =
                    blocking(move || join(&kernel, &entries, &ends, &inode, &holders, Patience::Anything)).await??;
                joined.ok_or(Why::SocketGone)?
            }
        };
        let hold = Hold {
            kernel: Arc::clone(kernel),
            current: Arc::clone(&self.0.current),
            bot: bot.clone(),
            version: AtomicU64::new(version),
            run: facts.run.as_ref() == Some(&bot),
            held,
            inode: Some(peer.inode),
            over: None,
            lost: OnceLock::new(),
        };
        let caller = Caller::new(bot, facts, hold);
        self.0.live.add(&caller.hold);
        Ok(caller)
    }
}

/// An error that several connections share is told to each in its own words.
fn unshared(why: Arc<Why>) -> Unattested {
    match Arc::try_unwrap(why) {
        Ok(why) => why.into(),
        Err(why) => {
            if let Why::ScanBound(bound) = why.as_ref() {
                return Why::ScanBound(bound).into();
            }
            KernelError::new("look for", "the holders of the socket", std::io::Error::other(why)).into()
        }
    }
}

/// What a scan found that began after `asked`.
struct Found {
    asked: Instant,
    holders: Vec<Holder>,
}

type Joined = (BotName, Facts, Vec<Held>);

/// Pins and identifies each holder; `None` when that takes more patience.
fn join(
    kernel: &Kernel,
    entries: &Entries,
    ends: &Ends,
    peer: &SocketFact,
    found: &Found,
    patience: Patience,
) -> Result<Option<Joined>, Unattested> {
    let mut first: Option<(BotName, Facts)> = None;
    let mut held: Vec<Held> = Vec::new();
    for holder in &found.holders {
        // A process that holds two descriptors for it is one holder.
        if held.iter().any(|held| held.pin.pid == holder.pid) {
            continue;
        }
        let pin = match kernel.pin(holder.pid, Ask::of(entries).and(holder)) {
            Ok(pin) => pin,
            Err(Why::Exited(_)) => continue,
            Err(why) => return Err(why.into()),
        };
        if !pin.is_holder(kernel, holder, found.asked) {
            continue;
        }
        if pin.uid != peer.uid {
            let (was_uid, was_gid) = (peer.uid, pin.gid);
            let (pid, uid, gid) = (pin.pid, pin.uid, pin.gid);
            return Err(Why::CredentialsChanged {
                pid,
                was_uid,
                was_gid,
                uid,
                gid,
            }
            .into());
        }
        let (bot, facts) = match kernel.identify(&pin, None, entries, patience) {
            Ok(Identified::Bot(bot, facts)) => (bot, *facts),
            Ok(Identified::Later) => return Ok(None),
            // A child between fork and exec that has given the socket up by now is of no account.
            Err(_) if !pin.holds(kernel, holder.fd, peer.inode) => continue,
            Err(refused) => return Err(refused),
        };
        // The socket was made in a cgroup, and stays counted there when its maker moves on.
        let elsewhere = |place: &Place| peer.cgroup.is_some_and(|made_in| place.inode != Some(made_in));
        if pin.place().is_some_and(|place| place.of_root && elsewhere(&place)) {
            return Err(Unattested::new(Why::CgroupChanged(pin.pid), Some(&facts)));
        }
        match &first {
            Some((one, at)) if *one != bot => {
                let (one, one_pid, other_pid) = (one.clone(), at.pid, pin.pid);
                return Err(Unattested::new(
                    Why::HoldersDiffer {
                        one,
                        one_pid,
                        other: bot,
                        other_pid,
                    },
                    Some(&facts),
                ));
            }
            Some(_) => {}
            None => first = Some((bot, facts)),
        }
        held.push(Held::new(pin, holder.fd));
    }
    let Some((bot, facts)) = first else {
        return Err(Why::NoHolder { uid: peer.uid }.into());
    };
    ends.still_joined(kernel, peer)
        .map_err(|why| Unattested::new(why, Some(&facts)))?;
    Ok(Some((bot, facts, held)))
}

#[cfg(test)]
mod tests;
