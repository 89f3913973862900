//! The bytes of sock_diag(7): `inet_diag_req_v2`, `inet_diag_msg` and the netlink(7) headers around them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;
/// `TCP_SYN_SENT`: a connection that the other side has not answered.
pub(super) const SYN_SENT: u8 = 2;
/// `TCP_LISTEN`.
pub(super) const LISTEN: u8 = 10;

const IPPROTO_TCP: u8 = 6;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER_LENGTH: usize = 16;
const REQUEST_LENGTH: u32 = 72;
const MESSAGE_LENGTH: usize = 72;
const NO_COOKIE: [u8; 8] = [0xff; 8];
const ENOENT: i32 = 2;
const ATTRIBUTE_V6ONLY: u16 = 11;
const ATTRIBUTE_CGROUP_ID: u16 = 21;

/// One question, ready to send.
#[derive(Debug)]
pub(super) struct Request {
    bytes: Vec<u8>,
    sequence: u32,
    list: bool,
}

impl Request {
    /// Asks for the one socket with these ends, both canonical.
    pub(super) fn connection(own: SocketAddr, other: SocketAddr, sequence: u32) -> Self {
        let family = if own.is_ipv4() && other.is_ipv4() {
            AF_INET
        } else {
            AF_INET6
        };
        Self::new(family, u32::MAX, own, other, sequence, false)
    }

    /// Asks for the listeners of one port and family.
    pub(super) fn listeners(family: u8, port: u16, sequence: u32) -> Self {
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self::new(
            family,
            1 << LISTEN,
            SocketAddr::new(any, port),
            SocketAddr::new(any, 0),
            sequence,
            true,
        )
    }

    fn new(family: u8, states: u32, own: SocketAddr, other: SocketAddr, sequence: u32, list: bool) -> Self {
        let flags = NLM_F_REQUEST | if list { NLM_F_DUMP } else { 0 };
        let mut bytes = Vec::with_capacity(128);
        bytes.extend(REQUEST_LENGTH.to_ne_bytes());
        bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend([family, IPPROTO_TCP, 0, 0]);
        bytes.extend(states.to_ne_bytes());
        bytes.extend(own.port().to_be_bytes());
        bytes.extend(other.port().to_be_bytes());
        bytes.extend(sixteen(own.ip(), family));
        bytes.extend(sixteen(other.ip(), family));
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(NO_COOKIE);
        Self { bytes, sequence, list }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn sequence(&self) -> u32 {
        self.sequence
    }

    pub(super) fn is_list(&self) -> bool {
        self.list
    }
}

/// An IPv4 address stands in the first four of sixteen bytes, or written as IPv6 in a question about IPv6 sockets.
fn sixteen(ip: IpAddr, family: u8) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) if family == AF_INET => {
            let [a, b, c, d] = ip.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// What the kernel says about one TCP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::attest) struct Socket {
    /// The TCP state, one of the kernel's `TCP_*`.
    pub(in crate::attest) state: u8,
    /// Its own end, canonical.
    pub(in crate::attest) own: SocketAddr,
    /// The other end, canonical.
    pub(in crate::attest) other: SocketAddr,
    /// The user who created it, or who accepted it.
    pub(in crate::attest) uid: u32,
    /// Its inode; 0 when no process has a file for it: not yet accepted, or closed.
    pub(in crate::attest) inode: u64,
    /// A number that the kernel gives to this socket and to no other.
    pub(in crate::attest) cookie: u64,
    /// The inode of the cgroup (version 2) of the process that created it.
    pub(in crate::attest) cgroup: Option<u64>,
    /// Whether it refuses IPv4.
    pub(in crate::attest) v6_only: bool,
}

/// One message of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A socket; `torn` in a list that changed while the kernel wrote it.
    Socket { socket: Socket, torn: bool },
    /// The list ends here.
    Done { torn: bool },
    /// There is no such socket.
    Absent,
    /// The kernel refuses, with this error number.
    Failed(i32),
}

/// Splits an answer into its messages, leaving out those that answer another question.
///
/// # Errors
/// Once, and then no more, at the first message that is not well formed.
pub(super) fn parts(answer: &[u8], sequence: u32) -> impl Iterator<Item = io::Result<Part>> {
    let mut rest = answer;
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            let Some((message, after)) = cut(rest) else {
                rest = &[];
                return Some(Err(malformed()));
            };
            rest = after;
            if message.sequence != sequence {
                continue;
            }
            let part = message.part();
            if part.is_none() {
                rest = &[];
            }
            return Some(part.ok_or_else(malformed));
        }
    })
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed netlink answer")
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

/// Cuts the first message off (netlink(7)): a length that counts the header, and padding to four bytes.
fn cut(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let mut fields = Fields(bytes);
    let length = usize::try_from(fields.u32()?).ok()?;
    let (kind, flags, sequence) = (fields.u16()?, fields.u16()?, fields.u32()?);
    let body = bytes.get(HEADER_LENGTH..length)?;
    let after = bytes.get(length.checked_next_multiple_of(4)?..).unwrap_or_default();
    Some((
        Message {
            kind,
            flags,
            sequence,
            body,
        },
        after,
    ))
}

impl Message<'_> {
    fn part(&self) -> Option<Part> {
        let torn = self.flags & NLM_F_DUMP_INTR != 0;
        match self.kind {
            NLMSG_DONE => Some(Part::Done { torn }),
            NLMSG_ERROR => {
                let errno = Fields(self.body).u32()?.cast_signed().checked_neg()?;
                Some(if errno == ENOENT {
                    Part::Absent
                } else {
                    Part::Failed(errno)
                })
            }
            SOCK_DIAG_BY_FAMILY => {
                let socket = socket(self.body)?;
                Some(Part::Socket { socket, torn })
            }
            _ => None,
        }
    }
}

fn socket(body: &[u8]) -> Option<Socket> {
    let mut fields = Fields(body);
    let [family, state, _timer, _retransmits] = fields.array()?;
    let (own_port, other_port) = (u16::from_be_bytes(fields.array()?), u16::from_be_bytes(fields.array()?));
    let (own_ip, other_ip) = (address(family, fields.array()?)?, address(family, fields.array()?)?);
    let _interface = fields.u32()?;
    // Two words of the host's byte order, the low one first (sock_diag_save_cookie).
    let (low, high) = (fields.u32()?, fields.u32()?);
    let (_expires, _received, _sent) = (fields.u32()?, fields.u32()?, fields.u32()?);
    let (uid, inode) = (fields.u32()?, fields.u32()?);
    let mut socket = Socket {
        state,
        own: SocketAddr::new(own_ip, own_port),
        other: SocketAddr::new(other_ip, other_port),
        uid,
        inode: u64::from(inode),
        cookie: u64::from(high) << 32 | u64::from(low),
        cgroup: None,
        v6_only: false,
    };
    let mut attributes = body.get(MESSAGE_LENGTH..)?;
    while !attributes.is_empty() {
        let mut fields = Fields(attributes);
        let (length, kind) = (usize::from(fields.u16()?), fields.u16()?);
        let value = attributes.get(4..length)?;
        match kind {
            ATTRIBUTE_CGROUP_ID => socket.cgroup = Some(u64::from_ne_bytes(value.try_into().ok()?)),
            ATTRIBUTE_V6ONLY => socket.v6_only = value.first().is_some_and(|only| *only != 0),
            _ => {}
        }
        attributes = attributes
            .get(length.checked_next_multiple_of(4)?..)
            .unwrap_or_default();
    }
    Some(socket)
}

fn address(family: u8, bytes: [u8; 16]) -> Option<IpAddr> {
    match family {
        AF_INET => {
            let [a, b, c, d, ..] = bytes;
            Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
        }
        AF_INET6 => Some(IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()),
        _ => None,
    }
}

/// Reads fields off the front of some bytes.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_ne_bytes)
    }
}

#[cfg(test)]
mod tests;
