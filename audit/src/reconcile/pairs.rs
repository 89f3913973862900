//! Calls on their way to being paired, in bounded memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use spiffe::time::Timestamp;

use super::{Disagreement, FINDINGS_MAX, Finding, Open, Report};
use crate::record::{CallId, CallRecord, Direction, EndRecord, Hop, Record, RefusalsRecord, Verdict};

/// How long a call waits for its other end and for how it ended, by the time of the ledgers.
const PATIENCE: Duration = Duration::from_mins(5);

/// How far two hosts' clocks may be apart before a proxy is not ready; calls so near to the beginning or the end of the
/// other ledger may be on its other side.
const SKEW: Duration = Duration::from_secs(30);

/// Calls that wait, at most: the oldest is looked at as it is.
const WAITING_MAX: usize = 500_000;

/// Calls with one end that are looked at in the end, at most, and counts of refusals that are remembered.
const LONE_MAX: usize = 200_000;

/// The outcome of a call that went to its end.
const DONE: &str = "done";

/// One end of a call.
#[derive(Clone, Debug)]
struct Side {
    ledger: usize,
    index: u64,
    own: CallId,
    time: Timestamp,
    refused: bool,
    /// Whether a hash stands in the place of the path.
    hashed: bool,
    /// What both ends must have alike.
    content: Vec<(&'static str, String)>,
    end: Option<Ended>,
}

/// How it ended, as one end has it.
#[derive(Clone, Debug)]
struct Ended {
    index: u64,
    done: bool,
    /// The caller got a status that may be a refusal by the other proxy.
    refused: bool,
    tries: u32,
    content: Vec<(&'static str, String)>,
}

/// A call by the id that its caller gave it.
#[derive(Clone, Debug, Default)]
struct Pair {
    from: String,
    to: String,
    out: Option<Side>,
    /// One, but for calls that were sent again.
    ins: Vec<Side>,
}

/// Refusals that a callee counted, in place of a record each.
#[derive(Clone, Debug)]
struct Counted {
    first: Timestamp,
    last: Timestamp,
    /// How many of them no call was found for yet.
    left: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pairs {
    waiting: BTreeMap<CallId, Pair>,
    /// Their ids in the order in which they came, with the time.
    order: VecDeque<(Timestamp, CallId)>,
    /// Ids of calls as the callee's proxy has them, whose ends have to come.
    inside: BTreeMap<(usize, CallId), CallId>,
    /// Calls with one end.
    lone: Vec<(CallId, Pair)>,
    /// By ledger and caller, in the order of their ends; a caller beyond those that are tracked has no name.
    counted: BTreeMap<(usize, String), Vec<Counted>>,
    counts: usize,
    /// What each ledger covers.
    spans: Vec<Option<(Timestamp, Timestamp)>>,
    /// Which ledgers have calls of a bot, and calls to one.
    callers: BTreeMap<String, BTreeSet<usize>>,
    callees: BTreeMap<String, BTreeSet<usize>>,
    report: Report,
}

impl Pairs {
    pub(super) fn new(ledgers: usize) -> Self {
        Self {
            waiting: BTreeMap::new(),
            order: VecDeque::new(),
            inside: BTreeMap::new(),
            lone: Vec::new(),
            counted: BTreeMap::new(),
            counts: 0,
            spans: vec![None; ledgers],
            callers: BTreeMap::new(),
            callees: BTreeMap::new(),
            report: Report::default(),
        }
    }

    /// Takes the next record.
    pub(super) fn add(&mut self, ledger: usize, index: u64, record: &Record) {
        let time = match record {
            Record::Call(call) => {
                self.call(ledger, index, call);
                call.time
            }
            Record::End(end) => {
                self.end(ledger, index, end);
                end.time
            }
            Record::Refusals(refusals) => {
                self.refusals(ledger, refusals);
                refusals.time
            }
            Record::Segment(segment) => segment.time,
            Record::Strangers(_) | Record::Event(_) => return,
        };
        if let Some(span) = self.spans.get_mut(ledger) {
            let first = span.map_or(time, |(first, _)| first.min(time));
            *span = Some((first, span.map_or(time, |(_, last)| last.max(time))));
        }
        while let Some((came, id)) = self.order.front().copied() {
            if self.waiting.len() <= WAITING_MAX && time < came + PATIENCE {
                return;
            }
            self.order.pop_front();
            self.settle(id);
        }
    }

    /// Looks at what is left, and says what was found.
    pub(super) fn finish(mut self) -> Report {
        while let Some((_, id)) = self.order.pop_front() {
            self.settle(id);
        }
        for (id, pair) in std::mem::take(&mut self.lone) {
            self.lone(id, pair);
        }
        self.report.findings.sort_by_key(|finding| (finding.time, finding.call));
        self.report
    }

    fn call(&mut self, ledger: usize, index: u64, call: &CallRecord) {
        let (Some(from), Some(to)) = (&call.from.id, &call.to.id) else {
            return;
        };
        let side = Side::new(ledger, index, call);
        let (from, to) = (from.to_string(), to.to_string());
        match call.direction {
            // What was refused here reached for nobody.
            Direction::Out if call.verdict == Verdict::Deny || call.hop.is_none() => {}
            Direction::Out => {
                self.report.outgoing = self.report.outgoing.saturating_add(1);
                self.callers.entry(from.clone()).or_default().insert(ledger);
                self.pair(call.id, call.time, (from, to)).out = Some(side);
            }
            Direction::In => {
                self.callees.entry(to.clone()).or_default().insert(ledger);
                let Some(peer) = call.peer_call else {
                    return self.report.count(Open::Foreign);
                };
                self.report.incoming = self.report.incoming.saturating_add(1);
                if !side.refused {
                    self.inside.insert((ledger, call.id), peer);
                }
                self.pair(peer, call.time, (from, to)).ins.push(side);
            }
        }
    }

    fn pair(&mut self, id: CallId, time: Timestamp, (from, to): (String, String)) -> &mut Pair {
        if !self.waiting.contains_key(&id) {
            self.order.push_back((time, id));
        }
        let pair = self.waiting.entry(id).or_default();
        if pair.from.is_empty() {
            (pair.from, pair.to) = (from, to);
        }
        pair
    }

    fn end(&mut self, ledger: usize, index: u64, end: &EndRecord) {
        let ended = Some(Ended::new(index, end));
        if let Some(peer) = self.inside.remove(&(ledger, end.id)) {
            let ins = self.waiting.get_mut(&peer).into_iter().flat_map(|pair| &mut pair.ins);
            let mut own = ins.filter(|side| side.ledger == ledger && side.own == end.id);
            if let Some(side) = own.next() {
                side.end = ended;
            }
        } else if let Some(side) = self.waiting.get_mut(&end.id).and_then(|pair| pair.out.as_mut())
            && side.ledger == ledger
        {
            side.end = ended;
        }
    }

    fn refusals(&mut self, ledger: usize, refusals: &RefusalsRecord) {
        let from = refusals.from.id.as_ref().map(ToString::to_string).unwrap_or_default();
        let counts = self.counted.entry((ledger, from)).or_default();
        let full = self.counts >= LONE_MAX;
        // One that ends before the last one, and one for which there is no room, widen that: it accuses nobody.
        if let Some(last) = counts.last_mut().filter(|last| full || refusals.last <= last.last) {
            last.first = last.first.min(refusals.first);
            last.last = last.last.max(refusals.last);
            last.left = last.left.saturating_add(refusals.count);
            return;
        }
        counts.push(Counted {
            first: refusals.first,
            last: refusals.last,
            left: refusals.count,
        });
        self.counts = self.counts.saturating_add(1);
    }

    /// Looks at a call that has waited.
    fn settle(&mut self, id: CallId) {
        let Some(pair) = self.waiting.remove(&id) else { return };
        for side in &pair.ins {
            self.inside.remove(&(side.ledger, side.own));
        }
        match (&pair.out, pair.ins.as_slice()) {
            (Some(out), [first, ..]) => {
                self.report.paired = self.report.paired.saturating_add(1);
                let hashed = u64::from(!has_one_key(out, first));
                self.report.hashed = self.report.hashed.saturating_add(hashed);
                for what in pair.disagreements(out, first) {
                    self.report.find(pair.finding(id, what));
                }
            }
            _ if self.lone.len() < LONE_MAX => self.lone.push((id, pair)),
            _ => self.report.count(Open::TooMany),
        }
    }

    /// Says what is to be made of a call with one end, now that it is known which ledgers there are.
    fn lone(&mut self, id: CallId, pair: Pair) {
        let why = match (&pair.out, pair.ins.first()) {
            (Some(out), _) => self.open_out(&pair, out),
            (None, Some(side)) => self.open_in(&pair, side),
            (None, None) => return,
        };
        let what = if pair.out.is_some() {
            Disagreement::NotAtCallee
        } else {
            Disagreement::NotAtCaller
        };
        match why {
            Some(why) => self.report.count(why),
            None => self.report.find(pair.finding(id, what)),
        }
    }

    /// Why a call need not be at its callee.
    fn open_out(&mut self, pair: &Pair, out: &Side) -> Option<Open> {
        let Some(ledgers) = self.callees.get(&pair.to) else {
            return Some(Open::NotGiven);
        };
        match &out.end {
            None => Some(Open::Edge),
            Some(end) if !end.done => Some(Open::NotReached),
            Some(_) if !self.covered(ledgers, out.time) => Some(Open::Edge),
            Some(end) if end.refused => {
                let ledgers = ledgers.clone();
                self.was_counted(&ledgers, &pair.from, out.time)
                    .then_some(Open::Counted)
            }
            Some(_) => None,
        }
    }

    /// Takes one of the refusals that one of these ledgers counted of a caller at a time, if there is one left.
    fn was_counted(&mut self, ledgers: &BTreeSet<usize>, from: &str, time: Timestamp) -> bool {
        ledgers.iter().any(|ledger| {
            [from, ""].into_iter().any(|from| {
                let Some(counts) = self.counted.get_mut(&(*ledger, from.to_owned())) else {
                    return false;
                };
                let near = counts.partition_point(|counted| counted.last + SKEW < time);
                let mut near = counts
                    .iter_mut()
                    .skip(near)
                    .take_while(|counted| counted.first <= time + SKEW);
                let found = near.find(|counted| counted.left > 0);
                found.is_some_and(|counted| {
                    counted.left = counted.left.saturating_sub(1);
                    true
                })
            })
        })
    }

    /// Why a call need not be at its caller.
    fn open_in(&self, pair: &Pair, side: &Side) -> Option<Open> {
        match self.callers.get(&pair.from) {
            None => Some(Open::NotGiven),
            Some(ledgers) if !self.covered(ledgers, side.time) => Some(Open::Edge),
            Some(_) => None,
        }
    }

    /// Whether a time is well within what one of these ledgers covers.
    fn covered(&self, ledgers: &BTreeSet<usize>, time: Timestamp) -> bool {
        let mut spans = ledgers
            .iter()
            .filter_map(|ledger| self.spans.get(*ledger).copied().flatten());
        spans.any(|(first, last)| first + SKEW <= time && time + SKEW <= last)
    }
}

impl Side {
    fn new(ledger: usize, index: u64, call: &CallRecord) -> Self {
        let id = |id: Option<&spiffe::id::SpiffeId>| id.map(ToString::to_string).unwrap_or_default();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let mut content = vec![
            ("from", id(call.from.id.as_ref())),
            ("to", id(call.to.id.as_ref())),
            ("protocol", call.protocol.as_str().to_owned()),
            ("method", call.method.clone()),
            ("trace", text(&call.trace)),
        ];
        // A refusal that was too long has lost some of these.
        if !call.shortened {
            content.push(("path", call.path.clone()));
            content.push(("query", call.query.join("&")));
        }
        if call.hop == Some(Hop::Mtls) {
            let serial = call.from.serial.as_ref();
            content.push(("serial", serial.map(ToString::to_string).unwrap_or_default()));
        }
        Self {
            ledger,
            index,
            own: call.id,
            time: call.time,
            refused: call.verdict == Verdict::Deny,
            hashed: call.has_hashed_path(),
            content,
            end: None,
        }
    }
}

impl Ended {
    fn new(index: u64, end: &EndRecord) -> Self {
        let status = end.status.map(|status| status.to_string()).unwrap_or_default();
        Self {
            index,
            done: end.outcome == DONE,
            refused: end.status.is_none_or(|status| status >= 400),
            tries: end.tries,
            content: vec![
                ("status", status),
                ("request_bytes", end.request_bytes.to_string()),
                ("response_bytes", end.response_bytes.to_string()),
            ],
        }
    }
}

impl Pair {
    /// What the ends do not have alike.
    fn disagreements(&self, out: &Side, first: &Side) -> Vec<Disagreement> {
        let mut found = Vec::new();
        let tries = out.end.as_ref().map_or(u32::MAX, |end| end.tries);
        let times = self.ins.len();
        if u32::try_from(times).unwrap_or(u32::MAX) > tries.max(1) {
            found.push(Disagreement::Repeated { times, tries });
        }
        let compared = |differs: &Disagreement| match differs {
            Disagreement::Differs { key, .. } => has_one_key(out, first) || !["path", "query"].contains(key),
            Disagreement::NotAtCallee | Disagreement::NotAtCaller | Disagreement::Repeated { .. } => true,
        };
        found.extend(differing(&out.content, &first.content).into_iter().filter(compared));
        // The last of them is the one whose answer the caller got.
        let last = self.ins.last().and_then(|side| side.end.as_ref());
        if let (Some(caller), Some(callee)) = (&out.end, last)
            && caller.done
            && callee.done
        {
            found.extend(differing(&caller.content, &callee.content));
        }
        found
    }

    fn finding(&self, call: CallId, what: Disagreement) -> Finding {
        let sides = self.out.iter().chain(&self.ins);
        let records = sides.clone().flat_map(|side| {
            let end = side.end.as_ref().map(|end| (side.ledger, end.index));
            [Some((side.ledger, side.index)), end].into_iter().flatten()
        });
        Finding {
            what,
            call,
            time: sides
                .clone()
                .map(|side| side.time)
                .min()
                .unwrap_or(Timestamp::from_unix_millis(0)),
            from: self.from.clone(),
            to: self.to.clone(),
            records: records.collect(),
        }
    }
}

/// Whether both ends write a path alike: each host hashes by a key of its own, and an end that refuses may hash what the other
/// does not.
const fn has_one_key(out: &Side, first: &Side) -> bool {
    out.ledger == first.ledger || !(out.hashed || first.hashed)
}

fn differing(caller: &[(&'static str, String)], callee: &[(&'static str, String)]) -> Vec<Disagreement> {
    let of_callee = |key: &str| callee.iter().find(|(known, _)| *known == key).map(|(_, value)| value);
    let differs = |(key, value): &(&'static str, String)| {
        let other = of_callee(key).filter(|other| *other != value)?;
        Some(Disagreement::Differs {
            key,
            caller: value.clone(),
            callee: other.clone(),
        })
    };
    caller.iter().filter_map(differs).collect()
}

impl Report {
    fn count(&mut self, why: Open) {
        let count = self.open.entry(why).or_default();
        *count = count.saturating_add(1);
    }

    fn find(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }
}
