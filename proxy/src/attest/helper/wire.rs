//! What the proxy asks and what the helper answers, as JSON.

use std::io;

use serde::{Deserialize, Serialize};

use super::super::error::{KernelError, Why};
use super::super::scan::{Among, Holder};
use super::super::sight::{Candidates, Glimpse, Look, Programs};

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Question {
    /// The map of a process, by file descriptor, and all that is asked of one that is pinned.
    Glance(Look),
    Programs(Candidates),
    /// The SHA-256 of its program; where it is not remembered the file is read only if `read`.
    Digest {
        pid: u32,
        read: bool,
    },
    Holders {
        among: Among,
        inodes: Vec<u64>,
        sweep: bool,
    },
    Holds {
        pid: u32,
        fd: u32,
        inode: u64,
    },
}

impl Question {
    /// Whether the answer can take longer than looking something up: such questions never wait in front of the others.
    pub(super) const fn is_slow(&self) -> bool {
        matches!(self, Self::Holders { .. } | Self::Digest { read: true, .. })
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Answer {
    Glance(Glimpse),
    Programs(Programs),
    Digest(Option<String>),
    /// Inode, process, number of the file descriptor.
    Holders(Vec<(u64, u32, u32)>),
    Holds(bool),
    Refused(Refused),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Refused {
    Exited(u32),
    NotVisible,
    Bound(String),
    /// What was asked of the kernel, and its error number, 0 where it gave none.
    Kernel {
        what: String,
        errno: i32,
    },
}

/// The bounds by name, as [`Why::ScanBound`] has them.
const BOUNDS: [&str; 5] = ["processes_max", "fds_max", "holders_max", "time_max", "exe_bytes_max"];

impl From<Why> for Refused {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other causes are found by the proxy itself"
    )]
    fn from(why: Why) -> Self {
        match why {
            Why::Exited(pid) => Self::Exited(pid),
            Why::PeerNotVisible => Self::NotVisible,
            Why::ScanBound(bound) => Self::Bound(bound.to_owned()),
            Why::Kernel(error) => Self::Kernel {
                errno: error.source.raw_os_error().unwrap_or(0),
                what: error.to_string(),
            },
            why => Self::Kernel {
                what: why.to_string(),
                errno: 0,
            },
        }
    }
}

impl From<Refused> for Why {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Exited(pid) => Self::Exited(pid),
            Refused::NotVisible => Self::PeerNotVisible,
            Refused::Bound(bound) => {
                Self::ScanBound(BOUNDS.into_iter().find(|known| *known == bound).unwrap_or("the helper"))
            }
            Refused::Kernel { what, errno } => {
                let source = if errno == 0 {
                    io::Error::from(io::ErrorKind::Other)
                } else {
                    io::Error::from_raw_os_error(errno)
                };
                Self::Kernel(KernelError::new("have the attest helper", what, source))
            }
        }
    }
}

/// Writes a holder.
pub(super) const fn flat(holder: &Holder) -> (u64, u32, u32) {
    (holder.inode, holder.pid, holder.fd)
}

/// Reads a holder.
pub(super) const fn holder((inode, pid, fd): (u64, u32, u32)) -> Holder {
    Holder { inode, pid, fd }
}

/// Says, for a fuzzer, whether bytes that are a question or an answer are written and read again as the same; bytes that
/// are neither are fine too.
#[must_use]
pub fn reads_back(bytes: &[u8]) -> bool {
    fn again<T: Serialize + for<'de> Deserialize<'de> + PartialEq>(bytes: &[u8]) -> bool {
        let Ok(read) = serde_json::from_slice::<T>(bytes) else {
            return true;
        };
        serde_json::to_vec(&read)
            .is_ok_and(|written| serde_json::from_slice(&written).is_ok_and(|same: T| same == read))
    }
    again::<Question>(bytes) && again::<Answer>(bytes)
}
