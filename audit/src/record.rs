//! What the ledger holds: one JSON object per line.
//!
//! The order of keys is fixed, absent values are left out, and no record has a
//! place for a header's value, a body or a query's value.

mod decode;
mod encode;
mod event;
mod id;
mod json;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::Deserialize;
use spiffe::id::SpiffeId;
use spiffe::selector::Facts;
use spiffe::svid::Serial;
use spiffe::time::Timestamp;
use thiserror::Error;

pub use event::{EventKind, EventRecord};
pub use id::{CallId, NotACallId};

pub(crate) use encode::Line;

/// Longest record, in bytes, without its newline.
pub const RECORD_BYTES_MAX: usize = 32 * 1024;

/// Any record of the ledger.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A decision about one call.
    Call(Box<CallRecord>),
    /// How an allowed call ended.
    End(EndRecord),
    /// Anything that is not a call.
    Event(EventRecord),
    /// Refusals of one caller, counted because they came too fast.
    Refusals(RefusalsRecord),
    /// Refused handshakes and the like of one unauthenticated source.
    Strangers(StrangersRecord),
    /// The first record of each segment.
    Segment(SegmentRecord),
}

/// The decision about one call, at one of its two ends. Made before the first
/// byte is forwarded or the refusal is answered.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallRecord {
    /// The call's id at this end.
    pub id: CallId,
    /// When it was decided.
    pub time: Timestamp,
    /// Whether this host's bot calls or is called.
    pub direction: Direction,
    /// What kind of caller it is.
    pub actor: Actor,
    /// Who calls.
    pub from: Party,
    /// Who is called.
    pub to: Callee,
    /// What was spoken; left out where it is HTTP.
    #[serde(default)]
    pub protocol: Protocol,
    /// The port that was called, of a TCP or TLS connection.
    #[serde(default)]
    pub port: Option<u16>,
    /// The method, upper case. Empty, and left out, for a connection that is no request.
    #[serde(default)]
    pub method: String,
    /// The canonical path, without the query, or [`HASHED_PATH`] and a hash of it where a rule says so; of a session of PostgreSQL the database. Empty, and left out, for other
    /// connections that are no requests.
    #[serde(default)]
    pub path: String,
    /// The *names* in the query, in their order; never a value.
    #[serde(default)]
    pub query: Vec<String>,
    /// What was decided.
    pub verdict: Verdict,
    /// The rule that decided.
    #[serde(default)]
    pub rule: Option<String>,
    /// The word for the refusal.
    #[serde(default)]
    pub reason: Option<String>,
    /// The nearest rule and what differed from it.
    #[serde(default)]
    pub nearest: Option<String>,
    /// Epoch of the policy that decided.
    pub epoch: u64,
    /// Revision of the policy that decided.
    pub revision: u64,
    /// How the call reaches the other end; absent when nothing was reached for.
    #[serde(default)]
    pub hop: Option<Hop>,
    /// The TLS session that the call came by, as the callee's proxy saw it:
    /// version and key exchange, `TLSv1.3 X25519MLKEM768`.
    #[serde(default)]
    pub tls: Option<Arc<str>>,
    /// The same call's id at the caller's proxy.
    #[serde(default)]
    pub peer_call: Option<CallId>,
    /// W3C trace id.
    #[serde(default)]
    pub trace: Option<String>,
    /// The name of the credential that the caller's proxy adds to the call.
    #[serde(default)]
    pub credential: Option<String>,
    /// Says that the ledger cut path and query of a refusal that would have
    /// been too long for a record. Callers leave it false.
    #[serde(default)]
    pub shortened: bool,
}

/// What is written before the hash of a path that a rule keeps out of records. No path begins so.
pub const HASHED_PATH: &str = "hashed:";

impl CallRecord {
    /// Says whether a hash stands in the place of the path: the same path has another one on every host.
    #[must_use]
    pub fn has_hashed_path(&self) -> bool {
        self.path.starts_with(HASHED_PATH)
    }

    /// A call of which nothing is known yet, and which is refused as long as nobody allows it.
    #[must_use]
    pub fn new(id: CallId, time: Timestamp, direction: Direction) -> Self {
        Self {
            id,
            time,
            direction,
            actor: Actor::Unknown,
            from: Party::default(),
            to: Callee::default(),
            protocol: Protocol::default(),
            port: None,
            method: String::new(),
            path: String::new(),
            query: Vec::new(),
            verdict: Verdict::Deny,
            rule: None,
            reason: None,
            nearest: None,
            epoch: 0,
            revision: 0,
            hop: None,
            tls: None,
            peer_call: None,
            trace: None,
            credential: None,
            shortened: false,
        }
    }
}

/// How an allowed call ended.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndRecord {
    /// The call's id at this end.
    pub id: CallId,
    /// When it ended.
    pub time: Timestamp,
    /// The status that the caller got.
    #[serde(default)]
    pub status: Option<u16>,
    /// What a call of gRPC ended with; HTTP says 200 of each. Absent where it ended without, and of other calls.
    #[serde(default)]
    pub grpc_status: Option<u8>,
    /// Body bytes from the caller.
    pub request_bytes: u64,
    /// Body bytes to the caller.
    pub response_bytes: u64,
    /// Microseconds from the decision to the end.
    pub duration_us: u64,
    /// Microseconds until the upstream's first byte; 0 when there was none.
    pub upstream_us: u64,
    /// How often it was sent, or was to be and nobody could be reached. Once is not written.
    #[serde(default = "once")]
    pub tries: u32,
    /// The address outside of the mesh that was connected to.
    #[serde(default)]
    pub address: Option<SocketAddr>,
    /// One word for why it ended.
    pub outcome: String,
}

const fn once() -> u32 {
    1
}

/// An end of a call, as far as it is known. All empty for a caller that could
/// not be named at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Party {
    /// The SPIFFE ID.
    pub id: Option<SpiffeId>,
    /// Serial of the SVID that was presented.
    pub serial: Option<Serial>,
    /// What the kernel said about a local caller.
    pub facts: Option<Arc<Facts>>,
}

/// The end that is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Callee {
    /// The SPIFFE ID, when the name stands for one.
    #[serde(default)]
    pub id: Option<SpiffeId>,
    /// Serial of the SVID that it presented.
    #[serde(default)]
    pub serial: Option<Serial>,
    /// The host as the caller named it, when it stands for no SPIFFE ID.
    #[serde(default)]
    pub host: Option<String>,
    /// The destination outside of the mesh, as rules name it: `https://api.example.com`.
    #[serde(default)]
    pub outside: Option<String>,
}

/// Refusals of one caller that came faster than they are recorded one by one.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusalsRecord {
    /// When the count was written.
    pub time: Timestamp,
    /// Always deny.
    pub verdict: Verdict,
    /// Who called; empty for callers beyond those that are tracked.
    pub from: Party,
    /// The word for the refusals; `other` when `from` is empty.
    pub reason: String,
    /// The rule that refused.
    #[serde(default)]
    pub rule: Option<String>,
    /// How many, exactly.
    pub count: u64,
    /// Time of the first.
    pub first: Timestamp,
    /// Time of the last.
    pub last: Timestamp,
}

/// What one unauthenticated source did in one minute.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StrangersRecord {
    /// When the count was written.
    pub time: Timestamp,
    /// The address; absent for sources beyond those that are tracked.
    #[serde(default)]
    pub source: Option<IpAddr>,
    /// The word for what was refused; `other` when `source` is absent.
    pub reason: String,
    /// How many, exactly.
    pub count: u64,
    /// Time of the first.
    pub first: Timestamp,
    /// Time of the last.
    pub last: Timestamp,
}

/// The first record of a segment: what the byte budget stood at, so that
/// opening a ledger reads one segment and not all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentRecord {
    /// When the segment was begun.
    pub time: Timestamp,
    /// Index of this record.
    pub first: u64,
    /// Bytes spent on calls, their ends and events before it.
    pub calls_bytes: u64,
    /// Bytes spent on refusals before it.
    pub refusals_bytes: u64,
    /// Bytes spent on unauthenticated peers before it.
    pub strangers_bytes: u64,
}

/// Why a record cannot be written or a line is no record.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The line would be longer than [`RECORD_BYTES_MAX`].
    #[error("the record has {bytes} bytes; a record has at most 32768")]
    TooLong {
        /// Length of the line.
        bytes: usize,
    },
    /// The line is no JSON object of a known kind.
    #[error("the line is no record of this version")]
    Decode {
        /// What serde_json found.
        #[source]
        source: serde_json::Error,
    },
    /// A value in the record cannot be JSON.
    #[error("the record's detail cannot be written as JSON")]
    Encode {
        /// What serde_json found.
        #[source]
        source: serde_json::Error,
    },
}

/// Defines an enum that is one word in JSON.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
        pub enum $name { $($(#[$doc])* #[serde(rename = $word)] $variant,)+ }

        impl $name {
            /// All variants.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Returns the word in records.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use words;

words! {
    /// Which end of the call this host is.
    Direction {
        /// A bot of this host calls.
        Out = "out",
        /// A bot of this host is called.
        In = "in",
    }
}

words! {
    /// What was decided about a call.
    Verdict {
        /// A rule allows it, and it was forwarded.
        Allow = "allow",
        /// No rule allows it; it was forwarded for all that, because its callee is `audit_only`.
        Audit = "audit",
        /// It was refused.
        Deny = "deny",
    }
}

words! {
    /// How the call reaches the other end.
    Hop {
        /// Over mutual TLS.
        Mtls = "mtls",
        /// Inside this proxy: both ends are on this host.
        Local = "local",
        /// Out of the mesh.
        Outside = "outside",
    }
}

words! {
    /// What is spoken in a call.
    #[derive(Default)]
    Protocol {
        /// Requests and answers.
        #[default]
        Http = "http",
        /// The same, by the rules of gRPC.
        Grpc = "grpc",
        /// Bytes of which nothing is read.
        Tcp = "tcp",
        /// TLS to the outside, of which the name is read.
        Tls = "tls",
        /// PostgreSQL outside, of which the start-up is read. The path is the database.
        Postgres = "postgres",
    }
}

impl Protocol {
    /// Says whether calls have a method and a path.
    #[must_use]
    pub const fn has_requests(self) -> bool {
        match self {
            Self::Http | Self::Grpc => true,
            Self::Tcp | Self::Tls | Self::Postgres => false,
        }
    }

    /// Says whether calls have a path: of a session of PostgreSQL it is the database.
    #[must_use]
    pub const fn has_path(self) -> bool {
        match self {
            Self::Http | Self::Grpc | Self::Postgres => true,
            Self::Tcp | Self::Tls => false,
        }
    }
}

words! {
    /// What kind of caller it is.
    Actor {
        /// A bot of this trust domain.
        Bot = "bot",
        /// A host's proxy in its own name.
        Host = "host",
        /// A person.
        Operator = "operator",
        /// A SPIFFE ID that is none of botmesh's.
        Foreign = "foreign",
        /// A caller that could not be named.
        Unknown = "unknown",
    }
}

impl Record {
    /// Writes the record as the bytes of its line, without the newline: the
    /// leaf of the tree.
    ///
    /// # Errors
    ///
    /// When the line would be longer than 32 KiB.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        let line = match self {
            Self::Call(record) => Line::call(record),
            Self::End(record) => Line::end(record),
            Self::Event(record) => Line::event(record),
            Self::Refusals(record) => Line::refusals(record),
            Self::Strangers(record) => Line::strangers(record),
            Self::Segment(record) => Line::segment(record),
        }?;
        Ok(line.json().to_vec())
    }

    /// Reads the bytes of a line, without the newline.
    ///
    /// # Errors
    ///
    /// When they are not one JSON object of a kind and form that this version
    /// writes.
    pub fn decode(line: &[u8]) -> Result<Self, RecordError> {
        decode::decode(line)
    }

    /// Returns the time of the record.
    #[must_use]
    pub const fn time(&self) -> Timestamp {
        match self {
            Self::Call(record) => record.time,
            Self::End(record) => record.time,
            Self::Event(record) => record.time,
            Self::Refusals(record) => record.time,
            Self::Strangers(record) => record.time,
            Self::Segment(record) => record.time,
        }
    }
}

impl Party {
    /// Names the caller in counts: its ID, else its uid, else nothing known.
    pub(crate) fn key(&self) -> PartyKey {
        match (&self.id, &self.facts) {
            (Some(id), _) => PartyKey::Id(id.clone()),
            (None, Some(facts)) => PartyKey::Uid(facts.uid),
            (None, None) => PartyKey::Nobody,
        }
    }
}

/// What refusals are counted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PartyKey {
    /// A named caller.
    Id(SpiffeId),
    /// A local process that could not be named.
    Uid(u32),
    /// Nothing is known.
    Nobody,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.encode() {
            Ok(line) => f.write_str(&String::from_utf8_lossy(&line)),
            Err(error) => error.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
