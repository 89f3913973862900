//! Lines read back as records.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::Error as _;
use spiffe::id::{BotName, SpiffeId};
use spiffe::selector::Facts;
use spiffe::svid::Serial;

use super::{CallRecord, EndRecord, Party, Record, RecordError, RefusalsRecord, SegmentRecord, StrangersRecord};

/// Reads one line, as [`Record::decode`] says.
pub(super) fn decode(line: &[u8]) -> Result<Record, RecordError> {
    if line.len() > super::RECORD_BYTES_MAX {
        return Err(RecordError::TooLong { bytes: line.len() });
    }
    read(line).map_err(|source| RecordError::Decode { source })
}

fn read(line: &[u8]) -> serde_json::Result<Record> {
    let tag: Tag<'_> = serde_json::from_slice(line)?;
    if !["call", "end", "refusals", "strangers", "segment"].contains(&&*tag.kind) {
        return serde_json::from_slice(line).map(Record::Event);
    }
    Ok(match serde_json::from_slice(line)? {
        Plain::Call(record) => Record::Call(record),
        Plain::End(record) => Record::End(record),
        Plain::Refusals(record) => Record::Refusals(record),
        Plain::Strangers(record) => Record::Strangers(record),
        Plain::Segment(record) => Record::Segment(record),
    })
}

#[derive(Deserialize)]
struct Tag<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
}

/// The kinds whose tag is the type's name; an event's kind is its content.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Plain {
    Call(Box<CallRecord>),
    End(EndRecord),
    Refusals(RefusalsRecord),
    Strangers(StrangersRecord),
    Segment(SegmentRecord),
}

/// A party as it is written: the facts beside the name, for `jq`'s sake.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FlatParty {
    id: Option<SpiffeId>,
    serial: Option<Serial>,
    pid: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    user: Option<String>,
    exe: Option<String>,
    exe_seen: Option<String>,
    exe_sha256: Option<String>,
    run: Option<BotName>,
    #[serde(default)]
    gids: Vec<u32>,
    #[serde(default)]
    groups: Vec<String>,
    unit: Option<String>,
    cgroup: Option<String>,
    socket: Option<BotName>,
}

impl<'de> Deserialize<'de> for Party {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let flat = FlatParty::deserialize(deserializer)?;
        let (id, serial) = (flat.id.clone(), flat.serial);
        let facts = flat.facts().map_err(D::Error::custom)?;
        Ok(Self {
            id,
            serial,
            facts: facts.map(Arc::new),
        })
    }
}

impl FlatParty {
    fn facts(self) -> Result<Option<Facts>, &'static str> {
        match (self.pid, self.uid, self.gid) {
            (Some(pid), Some(uid), Some(gid)) => Ok(Some(Facts {
                pid,
                uid,
                gid,
                user: self.user,
                exe: self.exe,
                exe_seen: self.exe_seen,
                exe_sha256: self.exe_sha256,
                run: self.run,
                gids: self.gids,
                groups: self.groups,
                unit: self.unit,
                cgroup: self.cgroup,
                socket: self.socket,
            })),
            (None, None, None) if self.has_no_more() => Ok(None),
            _ => Err("facts of a caller hold its pid, uid and gid"),
        }
    }

    const fn has_no_more(&self) -> bool {
        self.user.is_none()
            && self.exe.is_none()
            && self.exe_seen.is_none()
            && self.exe_sha256.is_none()
            && self.run.is_none()
            && self.gids.is_empty()
            && self.groups.is_empty()
            && self.unit.is_none()
            && self.cgroup.is_none()
            && self.socket.is_none()
    }
}
