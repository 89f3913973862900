//! Asks the kernel about sockets by NETLINK_SOCK_DIAG (sock_diag(7)).

mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as NetlinkAddr};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::error::KernelError;
use super::kernel::lock;
pub(super) use wire::Socket as SocketFact;
use wire::{Part, Request};

/// How many idle netlink sockets are kept.
const IDLE_MAX: usize = 8;
/// The most bytes of one datagram of a list; the kernel's own use at most 32 KiB.
const LIST_BYTES_MAX: usize = 64 * 1024;
/// The most bytes of an answer about one socket.
const ANSWER_BYTES_MAX: usize = 4 * 1024;
/// The most sockets read of one list of listeners.
const LISTENERS_MAX: usize = 4096;
/// How often a list is asked for again when sockets came or went while the kernel wrote it.
const DUMP_TRIES: u32 = 3;
/// The kernel answers within the call, so waiting longer than this means that no answer comes.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// A small pool of netlink sockets. One is used by one question at a time; after any failure it is closed, so that a
/// late answer is never read as the answer to another question.
#[derive(Debug, Default)]
pub(super) struct Diag {
    idle: Mutex<Vec<Socket>>,
    sequence: AtomicU32,
}

impl Diag {
    /// Finds the one TCP socket whose own end is `own` and whose other end is `other`.
    ///
    /// Where there is no such connection the kernel answers with a listener that would take one: that is not it, so the
    /// addresses and the state of the answer are compared.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub(super) fn connection(&self, own: SocketAddr, other: SocketAddr) -> Result<Option<SocketFact>, KernelError> {
        let (own, other) = (canonical(own), canonical(other));
        let failed = |error| KernelError::new("look up the socket", format!("{own} -> {other}"), error);
        let request = Request::connection(own, other, self.next());
        let found = self.ask(&request, 1).map_err(failed)?;
        Ok(found.into_iter().find(|socket| {
            socket.own == own && socket.other == other && socket.state != wire::LISTEN && socket.state != wire::SYN_SENT
        }))
    }

    /// Lists the TCP sockets that listen on `port`, on any address of either family.
    ///
    /// # Errors
    /// When the kernel does not answer, or the list is longer than its bound.
    pub(super) fn listeners(&self, port: u16) -> Result<Vec<SocketFact>, KernelError> {
        let mut found = Vec::new();
        for family in [wire::AF_INET, wire::AF_INET6] {
            let failed = |error| KernelError::new("list the listeners of", format!("port {port}"), error);
            let request = Request::listeners(family, port, self.next());
            found.extend(self.ask(&request, LISTENERS_MAX).map_err(failed)?);
        }
        found.retain(|socket| socket.own.port() == port && socket.state == wire::LISTEN);
        Ok(found)
    }

    fn next(&self) -> u32 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    fn ask(&self, request: &Request, sockets_max: usize) -> io::Result<Vec<SocketFact>> {
        for _ in 0..DUMP_TRIES {
            let socket = match lock(&self.idle).pop() {
                Some(socket) => socket,
                None => open()?,
            };
            let answer = exchange(&socket, request, sockets_max)?;
            let mut idle = lock(&self.idle);
            if idle.len() < IDLE_MAX {
                idle.push(socket);
            }
            drop(idle);
            if let Some(sockets) = answer {
                return Ok(sockets);
            }
        }
        Err(io::Error::from(io::ErrorKind::Interrupted))
    }
}

fn open() -> io::Result<Socket> {
    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    let wait = TimeVal::new(i64::try_from(ANSWER_WAIT.as_secs()).unwrap_or(1), 0);
    setsockopt(&socket, sockopt::ReceiveTimeout, &wait)?;
    Ok(socket)
}

/// Sends one question and reads its whole answer; `None` when a list changed under the kernel's pen.
fn exchange(socket: &Socket, request: &Request, sockets_max: usize) -> io::Result<Option<Vec<SocketFact>>> {
    let kernel = NetlinkAddr::new(0, 0);
    socket.send_to(request.bytes(), &kernel, 0)?;
    let mut found = Vec::new();
    let mut torn = false;
    loop {
        let mut answer = BytesMut::with_capacity(if request.is_list() {
            LIST_BYTES_MAX
        } else {
            ANSWER_BYTES_MAX
        });
        let (length, from) = socket.recv_from(&mut answer, 0)?;
        // Only the kernel has the port number 0; another process cannot answer in its place.
        if from.port_number() != 0 || length > answer.len() {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        for part in wire::parts(&answer, request.sequence()) {
            match part? {
                Part::Socket { socket, torn: now } => {
                    torn |= now;
                    found.push(socket);
                }
                Part::Done { torn: now } => return Ok((!(torn || now)).then_some(found)),
                Part::Absent => return Ok(Some(Vec::new())),
                Part::Failed(errno) => return Err(io::Error::from_raw_os_error(errno)),
            }
            if found.len() > sockets_max {
                return Err(io::Error::from(io::ErrorKind::QuotaExceeded));
            }
        }
        if !request.is_list() && !found.is_empty() {
            return Ok(Some(found));
        }
    }
}

/// An IPv4 address written as IPv6 (RFC 4291 §2.5.5.2) names the same socket as the IPv4 address.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests;
