//! Callees to which calls without a rule are carried and recorded for a time, instead of refused.

use std::sync::Arc;

use serde::Serialize;
use spiffe::time::Timestamp;

use crate::bits::Bits;
use crate::mesh::Mesh;
use crate::rule::Subject;
use crate::source::Place;

/// One entry of `audit_only`.
#[derive(Clone, Debug)]
pub(crate) struct AuditOnly {
    pub(crate) to: Vec<Subject>,
    pub(crate) until: Timestamp,
    pub(crate) reason: Arc<str>,
    pub(crate) place: Place,
}

impl PartialEq for AuditOnly {
    /// Compares what the entry says, not where it stands.
    fn eq(&self, other: &Self) -> bool {
        (&self.to, self.until, &self.reason) == (&other.to, other.until, &other.reason)
    }
}

impl AuditOnly {
    /// Orders entries, which have no ids, by what they say.
    pub(crate) fn key(&self) -> (Timestamp, Vec<String>, Arc<str>) {
        let to = self.to.iter().map(ToString::to_string).collect();
        (self.until, to, Arc::clone(&self.reason))
    }
}

/// An entry of `audit_only`, as people are told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditOnlyAbout {
    /// Bots, patterns and groups, as written.
    pub to: Vec<String>,
    /// When it ends: at that very moment calls without a rule are refused again.
    pub until: Timestamp,
    /// Why it is there.
    pub reason: Arc<str>,
    /// Where it stands.
    pub at: Place,
}

impl Mesh {
    /// Gives the entries of `audit_only`, ended or not, by their ends.
    pub fn audit_only(&self) -> impl ExactSizeIterator<Item = AuditOnlyAbout> {
        self.audit_only.iter().map(|entry| AuditOnlyAbout {
            to: entry.to.iter().map(ToString::to_string).collect(),
            until: entry.until,
            reason: Arc::clone(&entry.reason),
            at: entry.place.clone(),
        })
    }
}

/// The entries by callee, ready to decide.
#[derive(Debug, Default)]
pub(crate) struct Audits {
    /// For each bot the entry that lasts longest: while any lasts, that one does. Empty where the mesh has no entry.
    of: Box<[Option<Lasting>]>,
}

/// How long an entry lasts, and why.
#[derive(Clone, Debug)]
pub(crate) struct Lasting {
    pub(crate) until: Timestamp,
    pub(crate) reason: Arc<str>,
}

impl Audits {
    pub(crate) fn new(mesh: &Mesh) -> Self {
        if mesh.audit_only.is_empty() {
            return Self::default();
        }
        let mut roster = mesh.roster();
        let mut of = vec![None; mesh.bots.len()].into_boxed_slice();
        // The entries are in the order of their ends, so the one that lasts longest comes last.
        for entry in &mesh.audit_only {
            let to: Bits = roster.expand(&entry.to);
            for number in to.iter() {
                if let Some(lasting) = of.get_mut(number) {
                    *lasting = Some(Lasting {
                        until: entry.until,
                        reason: Arc::clone(&entry.reason),
                    });
                }
            }
        }
        Self { of }
    }

    /// Gives the entry of a callee that has not ended: one with `until` has ended at that very moment.
    pub(crate) fn of(&self, callee: usize, now: Timestamp) -> Option<&Lasting> {
        let lasting = self.of.get(callee)?.as_ref()?;
        (now < lasting.until).then_some(lasting)
    }

    /// The earliest end of an entry after `now`.
    pub(crate) fn next_end(&self, now: Timestamp) -> Option<Timestamp> {
        let ends = self.of.iter().flatten().map(|lasting| lasting.until);
        ends.filter(|end| *end > now).min()
    }
}
