//! Records as the bytes of their lines.

use spiffe::selector::Facts;

use super::json::Json;
use super::{
    CallRecord, Callee, EndRecord, EventRecord, Party, RECORD_BYTES_MAX, RecordError, RefusalsRecord, SegmentRecord,
    StrangersRecord, once,
};
use crate::hash::{Hash, LEAF};

/// A line ready to be written: the leaf prefix, the JSON, the newline. The
/// prefix is there so that hashing needs no copy.
#[derive(Debug)]
pub(crate) struct Line {
    bytes: Vec<u8>,
}

impl Line {
    pub(crate) fn call(record: &CallRecord) -> Result<Self, RecordError> {
        Self::write(|json| {
            json.text("kind", "call");
            json.ascii("id", &record.id.text());
            json.time("time", record.time);
            json.text("direction", record.direction.as_str());
            json.text("actor", record.actor.as_str());
            party(json, "from", &record.from);
            callee(json, &record.to);
            if record.protocol != super::Protocol::Http {
                json.text("protocol", record.protocol.as_str());
            }
            if let Some(port) = record.port {
                json.bare("port", port);
            }
            if record.protocol.has_requests() {
                json.text("method", &record.method);
            }
            if record.protocol.has_path() {
                json.text("path", &record.path);
            }
            if !record.query.is_empty() {
                json.texts("query", &record.query);
            }
            json.text("verdict", record.verdict.as_str());
            json.text_if("rule", record.rule.as_deref());
            json.text_if("reason", record.reason.as_deref());
            json.text_if("nearest", record.nearest.as_deref());
            json.bare("epoch", record.epoch);
            json.bare("revision", record.revision);
            json.text_if("hop", record.hop.map(super::Hop::as_str));
            json.text_if("tls", record.tls.as_deref());
            if let Some(id) = record.peer_call {
                json.ascii("peer_call", &id.text());
            }
            json.text_if("trace", record.trace.as_deref());
            json.text_if("credential", record.credential.as_deref());
            if record.shortened {
                json.bare("shortened", true);
            }
            Ok(())
        })
    }

    pub(crate) fn end(record: &EndRecord) -> Result<Self, RecordError> {
        Self::write(|json| {
            json.text("kind", "end");
            json.ascii("id", &record.id.text());
            json.time("time", record.time);
            if let Some(status) = record.status {
                json.bare("status", status);
            }
            if let Some(status) = record.grpc_status {
                json.bare("grpc_status", status);
            }
            json.bare("request_bytes", record.request_bytes);
            json.bare("response_bytes", record.response_bytes);
            json.bare("duration_us", record.duration_us);
            json.bare("upstream_us", record.upstream_us);
            if record.tries != once() {
                json.bare("tries", record.tries);
            }
            if let Some(address) = record.address {
                json.plain("address", address);
            }
            json.text("outcome", &record.outcome);
            Ok(())
        })
    }

    pub(crate) fn event(record: &EventRecord) -> Result<Self, RecordError> {
        let line = Self::write(|json| {
            json.text("kind", record.kind.as_str());
            json.time("time", record.time);
            json.text("actor", &record.actor);
            json.text("subject", &record.subject);
            if record.detail.is_empty() {
                return Ok(());
            }
            json.serde("detail", &record.detail)
        })?;
        // A detail can be nested deeper than any reader follows.
        if !record.detail.is_empty() {
            super::decode::decode(line.json())?;
        }
        Ok(line)
    }

    pub(crate) fn refusals(record: &RefusalsRecord) -> Result<Self, RecordError> {
        Self::write(|json| {
            json.text("kind", "refusals");
            json.time("time", record.time);
            json.text("verdict", record.verdict.as_str());
            party(json, "from", &record.from);
            json.text("reason", &record.reason);
            json.text_if("rule", record.rule.as_deref());
            json.bare("count", record.count);
            json.time("first", record.first);
            json.time("last", record.last);
            Ok(())
        })
    }

    pub(crate) fn strangers(record: &StrangersRecord) -> Result<Self, RecordError> {
        Self::write(|json| {
            json.text("kind", "strangers");
            json.time("time", record.time);
            if let Some(source) = record.source {
                json.plain("source", source);
            }
            json.text("reason", &record.reason);
            json.bare("count", record.count);
            json.time("first", record.first);
            json.time("last", record.last);
            Ok(())
        })
    }

    pub(crate) fn segment(record: &SegmentRecord) -> Result<Self, RecordError> {
        Self::write(|json| {
            json.text("kind", "segment");
            json.time("time", record.time);
            json.bare("first", record.first);
            json.bare("calls_bytes", record.calls_bytes);
            json.bare("refusals_bytes", record.refusals_bytes);
            json.bare("strangers_bytes", record.strangers_bytes);
            Ok(())
        })
    }

    /// Returns the leaf: the JSON without its newline.
    pub(crate) fn json(&self) -> &[u8] {
        let with_newline = self.with_newline();
        with_newline.strip_suffix(b"\n").unwrap_or(with_newline)
    }

    /// Returns what is written to the segment.
    pub(crate) fn with_newline(&self) -> &[u8] {
        self.bytes.strip_prefix(&[LEAF]).unwrap_or(&self.bytes)
    }

    /// Returns the hash of the leaf.
    pub(crate) fn hash(&self) -> Hash {
        Hash::prefixed_leaf(self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes))
    }

    fn write(fill: impl FnOnce(&mut Json<'_>) -> serde_json::Result<()>) -> Result<Self, RecordError> {
        let mut bytes = Vec::with_capacity(1024);
        bytes.push(LEAF);
        let mut json = Json::open(&mut bytes);
        fill(&mut json).map_err(|source| RecordError::Encode { source })?;
        json.close();
        bytes.push(b'\n');
        let line = Self { bytes };
        match line.json().len() {
            bytes if bytes > RECORD_BYTES_MAX => Err(RecordError::TooLong { bytes }),
            _ => Ok(line),
        }
    }
}

fn party(json: &mut Json<'_>, key: &str, party: &Party) {
    let mut json = json.object(key);
    json.text_if("id", party.id.as_ref().map(spiffe::id::SpiffeId::as_str));
    if let Some(serial) = &party.serial {
        json.plain("serial", serial);
    }
    if let Some(facts) = &party.facts {
        write_facts(&mut json, facts);
    }
    json.close();
}

fn write_facts(json: &mut Json<'_>, facts: &Facts) {
    json.bare("pid", facts.pid);
    json.bare("uid", facts.uid);
    json.bare("gid", facts.gid);
    json.text_if("user", facts.user.as_deref());
    json.text_if("exe", facts.exe.as_deref());
    json.text_if("exe_seen", facts.exe_seen.as_deref());
    json.text_if("exe_sha256", facts.exe_sha256.as_deref());
    json.text_if("run", facts.run.as_ref().map(spiffe::id::BotName::as_str));
    if !facts.gids.is_empty() {
        json.numbers("gids", &facts.gids);
    }
    if !facts.groups.is_empty() {
        json.texts("groups", &facts.groups);
    }
    json.text_if("unit", facts.unit.as_deref());
    json.text_if("cgroup", facts.cgroup.as_deref());
    json.text_if("socket", facts.socket.as_ref().map(spiffe::id::BotName::as_str));
}

fn callee(json: &mut Json<'_>, callee: &Callee) {
    let mut json = json.object("to");
    json.text_if("id", callee.id.as_ref().map(spiffe::id::SpiffeId::as_str));
    if let Some(serial) = &callee.serial {
        json.plain("serial", serial);
    }
    json.text_if("host", callee.host.as_deref());
    json.text_if("outside", callee.outside.as_deref());
    json.close();
}
