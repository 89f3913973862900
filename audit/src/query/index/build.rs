//! Making an index from its segment: each line is read once.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader};

use serde::Serialize;

use super::{BuildError, Index, NO_RECORD, NO_STATUS, NO_TIME, number_of};
use crate::query::filter::time_of;
use crate::query::view::{Party, View};
use crate::segment::{Form, Held, Lines, Step};

/// Bytes that are read of a segment at once.
const READ_BYTES: usize = 256 * 1024;

/// Opens a segment to be read line by line, or at a place. All queries read segments by it.
pub(in crate::query) fn lines(held: &Held, buffer: usize) -> io::Result<Lines<BufReader<File>>> {
    let form = held.segment().form;
    Ok(form.lines(BufReader::with_capacity(buffer, held.file()?)))
}

/// Makes the index of the whole lines that a segment has.
pub(in crate::query) fn build(held: &Held) -> Result<Index, BuildError> {
    let read = |source| BuildError::Read { source };
    let mut lines = lines(held, READ_BYTES).map_err(read)?;
    let form = held.segment().form;
    let mut builder = Builder::new();
    let mut line = Vec::new();
    loop {
        let offset = lines.offset();
        match lines.read(&mut line).map_err(read)? {
            Step::Whole => builder.add(&line, form),
            Step::Torn | Step::End => return Ok(builder.index),
            Step::TooLong => {
                return Err(BuildError::TooLong {
                    lines: builder.index.rows() as u64,
                    offset,
                });
            }
        }
    }
}

#[derive(Debug)]
struct Builder {
    index: Index,
    shapes: HashMap<Box<[u8]>, u32>,
    parties: HashMap<Box<[u8]>, u32>,
    scratch: Vec<u8>,
}

impl Builder {
    fn new() -> Self {
        let none = || Box::from([].as_slice());
        Self {
            index: Index {
                parties: vec![none()],
                ..Index::default()
            },
            shapes: HashMap::new(),
            parties: HashMap::from([(none(), 0)]),
            scratch: Vec::new(),
        }
    }

    fn add(&mut self, line: &[u8], form: Form) {
        let view = View::read(form.record(line));
        let index = &mut self.index;
        // No line is longer than 32 KiB.
        index.length.push(u16::try_from(line.len()).unwrap_or(u16::MAX));
        let time = view.as_ref().and_then(time_of);
        index.time.push(time.map_or(NO_TIME, |time| time.unix_millis()));
        let id = |id: Option<&str>| id.map_or(0, number_of);
        let ids = view
            .as_ref()
            .map(|view| (view.id.as_deref(), view.peer_call.as_deref()));
        let (own, peer) = ids.unwrap_or_default();
        index.id.push(id(own));
        index.peer.push(id(peer));
        let status = view.as_ref().and_then(|view| view.status);
        index.status.push(status.unwrap_or(NO_STATUS));
        let from = self.party(view.as_ref().and_then(|view| view.from.as_ref()));
        self.index.from.push(from);
        let to = self.party(view.as_ref().and_then(|view| view.to.as_ref()));
        self.index.to.push(to);
        let shape = view.map_or(NO_RECORD, |view| self.shape(view));
        self.index.shape.push(shape);
    }

    fn shape(&mut self, view: View<'_>) -> u32 {
        self.scratch.clear();
        let detail = view
            .detail
            .as_ref()
            .map(|detail| detail.serial.as_deref().unwrap_or_default());
        for text in [
            Some(&*view.kind),
            view.direction.as_deref(),
            view.protocol.as_deref(),
            view.method.as_deref(),
            view.verdict.as_deref(),
            view.rule.as_deref(),
            view.credential.as_deref(),
            view.reason.as_deref(),
            detail,
        ] {
            put(&mut self.scratch, text);
        }
        known(&self.scratch, &mut self.shapes, &mut self.index.shapes, || View {
            id: None,
            peer_call: None,
            time: None,
            path: None,
            status: None,
            from: None,
            to: None,
            ..view
        })
    }

    fn party(&mut self, party: Option<&Party<'_>>) -> u32 {
        self.scratch.clear();
        let Some(party) = party else { return 0 };
        for text in [&party.id, &party.host, &party.outside] {
            put(&mut self.scratch, text.as_deref());
        }
        put(&mut self.scratch, party.serial.as_deref());
        self.scratch
            .extend_from_slice(&party.uid.map_or(u64::MAX, u64::from).to_le_bytes());
        known(&self.scratch, &mut self.parties, &mut self.index.parties, || party)
    }
}

/// Writes a text that no other text, and no beginning of one, is written as.
fn put(out: &mut Vec<u8>, text: Option<&str>) {
    let length = text.map_or(u32::MAX, |text| u32::try_from(text.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.unwrap_or_default().as_bytes());
}

/// Returns the number of what is written as `key`, which is kept as JSON where it is new.
fn known<T: Serialize>(
    key: &[u8],
    numbers: &mut HashMap<Box<[u8]>, u32>,
    kept: &mut Vec<Box<[u8]>>,
    make: impl FnOnce() -> T,
) -> u32 {
    if let Some(known) = numbers.get(key) {
        return *known;
    }
    let number = u32::try_from(kept.len()).unwrap_or(NO_RECORD);
    // Texts and numbers can be written.
    kept.push(serde_json::to_vec(&make()).unwrap_or_default().into());
    numbers.insert(key.into(), number);
    number
}
