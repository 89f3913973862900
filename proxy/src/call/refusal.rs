//! A call that is not carried, with what its caller and what its operator may read.

use std::borrow::Cow;
use std::sync::Arc;

use policy::{Denial, Nearest, RuleId};
use spiffe::selector::Facts;

use super::route::To;
use crate::attest::Unattested;
use crate::places::COME_AGAIN;
use crate::reason::Reason;

/// Why a call is not carried.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    /// What the caller reads beside the reason's own line.
    pub(crate) detail: Cow<'static, str>,
    /// The rule that refused.
    pub(crate) rule: Option<RuleId>,
    /// That rule's own reason.
    pub(crate) why: Option<Arc<str>>,
    /// The rule that came nearest.
    pub(crate) nearest: Option<Box<Nearest>>,
    /// After how many seconds the same call may be made again.
    pub(crate) retry_after: Option<u64>,
    /// What the kernel said about a caller that is nobody.
    pub(crate) facts: Option<Box<Facts>>,
    /// Who was meant, where that is known.
    pub(crate) to: Option<To>,
    /// The host that was meant, where it stands for nobody.
    pub(crate) host: Option<String>,
    /// Whether the connection must end: what follows on it cannot be trusted.
    pub(crate) last: bool,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            rule: None,
            why: None,
            nearest: None,
            retry_after: (reason == Reason::Overloaded).then_some(COME_AGAIN.as_secs()),
            facts: None,
            to: None,
            host: None,
            last: false,
        }
    }

    /// The same, on the heap: refusals are rare and calls are not.
    pub(crate) fn boxed(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Box<Self> {
        Box::new(Self::new(reason, detail))
    }

    pub(crate) fn to(mut self: Box<Self>, to: impl Into<To>) -> Box<Self> {
        self.to = Some(to.into());
        self
    }

    pub(crate) fn host(mut self: Box<Self>, host: &str) -> Box<Self> {
        self.host = Some(host.to_owned());
        self
    }

    /// The caller is nobody, or is nobody any more. The connection ends, so that the next one is looked at afresh.
    pub(crate) fn unattested(unattested: &Unattested) -> Box<Self> {
        let mut refusal = Self::new(Reason::UnknownCaller, unattested.for_peer());
        refusal.facts.clone_from(&unattested.facts);
        refusal.last = true;
        Box::new(refusal)
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        let mut refusal = Self::new(denial.reason.into(), "");
        refusal.rule = denial.rule;
        refusal.why = denial.why;
        refusal.nearest = denial.nearest;
        refusal
    }
}
