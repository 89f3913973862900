//! Why a process is nobody, in words for the operator and, apart, for the peer.

use std::io;

use spiffe::entry::Nearest;
use spiffe::id::BotName;
use spiffe::selector::Facts;
use thiserror::Error;

/// A question that the kernel did not answer.
#[derive(Debug, Error)]
#[error("{operation} {subject}")]
pub struct KernelError {
    /// What was asked, as a verb phrase.
    pub operation: &'static str,
    /// Of what.
    pub subject: String,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

impl KernelError {
    pub(super) fn new(operation: &'static str, subject: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self {
            operation,
            subject: subject.into(),
            source: source.into(),
        }
    }
}

/// The entry that came closest and what was missing, owned, so that it outlives the entries.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NearestEntry {
    /// The bot of that entry.
    pub bot: BotName,
    /// The selector that does not hold: its key in the mesh file.
    pub selector: String,
    /// What the mesh file asks for.
    pub wanted: String,
    /// What the process is.
    pub found: String,
}

impl From<&Nearest<'_>> for NearestEntry {
    fn from(nearest: &Nearest<'_>) -> Self {
        Self {
            bot: nearest.entry.bot.clone(),
            selector: nearest.mismatch.selector.to_owned(),
            wanted: nearest.mismatch.wanted.clone(),
            found: nearest.mismatch.found.clone(),
        }
    }
}

/// A caller that is no bot of this host, or is one no longer.
///
/// Its `Display` is for the operator. The peer reads [`Unattested::for_peer`], which tells it nothing about the mesh
/// file.
#[derive(Debug, Error)]
#[error("{why}")]
pub struct Unattested {
    /// What exactly was found.
    #[source]
    pub why: Box<Why>,
    /// What is known about the process, where it was found.
    pub facts: Option<Box<Facts>>,
}

/// The single reason a check of a caller failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Why {
    /// No entry of this host matches the process.
    #[error("no entry matches the process{}{}", nearest_text(.nearest.as_ref()), note_text(.note.as_deref()))]
    NoEntry {
        /// The entry that came closest.
        nearest: Option<NearestEntry>,
        /// Why a program path that has the right inode was not accepted.
        note: Option<String>,
    },
    /// Two entries match the process, so it cannot be said who it is.
    #[error("the process matches both {0} and {1}")]
    TwoEntries(BotName, BotName),
    /// The process that opened the connection has exited.
    #[error("process {0} has exited")]
    Exited(u32),
    /// The process has replaced its program since it was attested.
    #[error("process {0} has executed another program since it connected")]
    ImageChanged(u32),
    /// The process runs under other credentials than at connect.
    #[error("process {pid} has changed its credentials: uid {was_uid} gid {was_gid}, now uid {uid} gid {gid}")]
    CredentialsChanged {
        /// The process.
        pid: u32,
        /// Effective user id at connect.
        was_uid: u32,
        /// Effective group id at connect.
        was_gid: u32,
        /// Effective user id now.
        uid: u32,
        /// Effective group id now.
        gid: u32,
    },
    /// The process is in other supplementary groups than when it was attested.
    #[error("process {0} has changed its groups since it was attested")]
    GroupsChanged(u32),
    /// The process is in another cgroup than when it was attested, or when it made its socket.
    #[error("process {0} has moved to another cgroup")]
    CgroupChanged(u32),
    /// Real, effective, saved and file-system user ids are not one and the same, as in a set-user-ID program.
    #[error("process {0} has mixed user ids (a set-user-ID program?)")]
    MixedCredentials(u32),
    /// The peer lives in a PID namespace that this proxy cannot see into.
    #[error("the peer is in a process namespace that this proxy cannot see")]
    PeerNotVisible,
    /// The connection does not come from a loopback address.
    #[error("the connection does not come from this host")]
    NotLocal,
    /// The other end of the connection is gone, or is another connection by now.
    #[error("the caller's end of the connection is gone")]
    SocketGone,
    /// No process of the socket's user holds it.
    #[error("no process of uid {uid} holds the caller's socket")]
    NoHolder {
        /// The user that created the socket.
        uid: u32,
    },
    /// The processes that hold the socket are not all the same bot.
    #[error("the socket is held by processes of different bots: {one} (pid {one_pid}) and {other} (pid {other_pid})")]
    HoldersDiffer {
        /// The first bot.
        one: BotName,
        /// A process that is it.
        one_pid: u32,
        /// The second bot.
        other: BotName,
        /// A process that is it.
        other_pid: u32,
    },
    /// The socket is also held by a process that is not this bot.
    #[error("the socket is also held by pid {pid}, which is not {bot}: {what}")]
    ForeignHolder {
        /// The bot that the connection was attested as.
        bot: BotName,
        /// The other holder.
        pid: u32,
        /// What it is.
        what: String,
    },
    /// Bytes came from another process than the one that connected: the socket was passed on or inherited.
    #[error("pid {sender} sent on the connection of pid {connector}")]
    OtherSender {
        /// The process that connected.
        connector: u32,
        /// The process that sent; 0 when it is not visible here.
        sender: u32,
    },
    /// Looking through the processes met a bound; what was not looked at cannot be vouched for.
    #[error("looking for the socket's holders met its bound of {0}")]
    ScanBound(&'static str),
    /// The operator's binding of this process, or the chain of parents up to it, is broken.
    #[error("process {0} no longer descends from the process that an operator bound")]
    RunBroken(u32),
    /// New entries ask for a fact that was not established when the caller connected.
    #[error("the entries have changed and the process must connect again")]
    EntriesChanged,
    /// The kernel did not answer.
    #[error("cannot attest the process")]
    Kernel(#[from] KernelError),
}

fn nearest_text(nearest: Option<&NearestEntry>) -> String {
    nearest.map_or_else(String::new, |near| {
        format!(
            "; nearest is {}: {} should be {}, is {}",
            near.bot, near.selector, near.wanted, near.found
        )
    })
}

fn note_text(note: Option<&str>) -> String {
    note.map_or_else(String::new, |note| format!(" ({note})"))
}

impl Unattested {
    pub(super) fn new(why: Why, facts: Option<&Facts>) -> Self {
        Self {
            why: Box::new(why),
            facts: facts.map(|facts| Box::new(facts.clone())),
        }
    }

    /// Returns the reason word of the refusal, the same for every cause, so that a stranger learns nothing from it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        "unknown_caller"
    }

    /// Returns the finer word for metrics and records.
    #[must_use]
    pub fn word(&self) -> &'static str {
        self.why.word()
    }

    /// Returns the entry that came closest, where there is one.
    #[must_use]
    pub fn nearest(&self) -> Option<&NearestEntry> {
        let Why::NoEntry { nearest, .. } = self.why.as_ref() else {
            return None;
        };
        nearest.as_ref()
    }

    /// Returns what the peer may read.
    #[must_use]
    pub fn for_peer(&self) -> String {
        let pid = self
            .facts
            .as_ref()
            .map_or_else(|| "PID".to_owned(), |facts| facts.pid.to_string());
        format!("this process is no bot that this host knows; an operator sees why with `botmesh whois {pid}`")
    }
}

impl From<Why> for Unattested {
    fn from(why: Why) -> Self {
        Self::new(why, None)
    }
}

impl From<KernelError> for Unattested {
    fn from(error: KernelError) -> Self {
        Self::new(Why::Kernel(error), None)
    }
}

impl Why {
    /// Returns the word of this cause for metrics and records.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::NoEntry { .. } => "no_entry",
            Self::TwoEntries(..) => "two_entries",
            Self::Exited(_) => "exited",
            Self::ImageChanged(_) => "image_changed",
            Self::CredentialsChanged { .. } => "credentials_changed",
            Self::GroupsChanged(_) => "groups_changed",
            Self::CgroupChanged(_) => "cgroup_changed",
            Self::MixedCredentials(_) => "mixed_credentials",
            Self::PeerNotVisible => "peer_not_visible",
            Self::NotLocal => "not_local",
            Self::SocketGone => "socket_gone",
            Self::NoHolder { .. } => "no_holder",
            Self::HoldersDiffer { .. } => "holders_differ",
            Self::ForeignHolder { .. } => "foreign_holder",
            Self::OtherSender { .. } => "other_sender",
            Self::ScanBound(_) => "scan_bound",
            Self::RunBroken(_) => "run_broken",
            Self::EntriesChanged => "entries_changed",
            Self::Kernel(_) => "kernel",
        }
    }
}

/// Finds the refusal inside an I/O error of a [`super::Witnessed`] stream.
#[must_use]
pub fn refusal_of(error: &io::Error) -> Option<&Unattested> {
    error.get_ref()?.downcast_ref::<Unattested>()
}

/// The process behind a callee's port or socket is not the bot that the call is for.
#[derive(Debug, Error)]
#[error("{expected} should listen there, but {found}")]
pub struct CalleeMismatch {
    /// The bot that the call is for.
    pub expected: BotName,
    /// What is there, for the operator.
    pub found: CalleeFound,
    /// What is known about the process, where it was found.
    pub facts: Option<Box<Facts>>,
}

/// What was found in place of the callee.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CalleeFound {
    /// Another bot.
    #[error("{bot} (pid {pid}) holds the socket")]
    OtherBot {
        /// That bot.
        bot: BotName,
        /// Its process.
        pid: u32,
    },
    /// A process that is no bot.
    #[error("pid {pid} (uid {uid}) holds the socket, which is no bot of this host")]
    Nobody {
        /// The process.
        pid: u32,
        /// Its user.
        uid: u32,
        /// Why it is nobody.
        #[source]
        source: Box<Unattested>,
    },
    /// A user none of whose processes is the bot accepted the connection.
    #[error("a process of uid {uid} accepted the connection")]
    OtherUser {
        /// That user.
        uid: u32,
    },
    /// Nothing is there to be checked.
    #[error("no process that can be checked holds the socket")]
    NoHolder,
    /// The connection ended before it was checked.
    #[error("the connection ended before it was checked")]
    SocketGone,
    /// The process could not be looked at.
    #[error("the holder could not be checked")]
    Unknown(#[source] Box<Unattested>),
}

impl CalleeMismatch {
    /// Returns the reason word of the refusal.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        "callee_mismatch"
    }
}
