//! The question, and its two answers.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use spiffe::time::Timestamp;

use crate::call::Call;
use crate::explain::Verdict;
use crate::generation::Generation;
use crate::rule::RuleId;

/// A call that may be carried. It owns the call, and only [`Policy::decide`](crate::Policy::decide) makes one.
#[derive(Debug)]
#[must_use = "a permit is there to be recorded and forwarded"]
pub struct Permit {
    call: Call,
    grounds: Grounds,
    generation: Generation,
}

/// Why a call may be carried.
#[derive(Debug)]
pub(crate) enum Grounds {
    /// A rule allows it.
    Rule(RuleId),
    /// No rule allows it, and its callee is `audit_only`.
    Audit(Box<Audit>),
}

/// What carries a call that no rule allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// When the callee's `audit_only` ends, and with it the permission.
    pub until: Timestamp,
    /// Its `reason` text.
    pub why: Arc<str>,
    /// The allow rule that comes closest. Absent if no rule links the two.
    pub nearest: Option<Nearest>,
}

impl Permit {
    pub(crate) fn new(call: Call, grounds: Grounds, generation: Generation) -> Self {
        Self {
            call,
            grounds,
            generation,
        }
    }

    /// Gives the call that may be carried.
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// Says whether a rule allows the call, or `audit_only` alone carries it; never [`Verdict::Deny`].
    pub fn verdict(&self) -> Verdict {
        match self.grounds {
            Grounds::Rule(_) => Verdict::Allow,
            Grounds::Audit(_) => Verdict::Audit,
        }
    }

    /// Gives the rule that allows it: of several, the one with the least id. Absent for an audit permit.
    pub fn rule(&self) -> Option<&RuleId> {
        match &self.grounds {
            Grounds::Rule(rule) => Some(rule),
            Grounds::Audit(_) => None,
        }
    }

    /// Gives what carries the call where no rule does.
    pub fn audit(&self) -> Option<&Audit> {
        match &self.grounds {
            Grounds::Rule(_) => None,
            Grounds::Audit(audit) => Some(audit),
        }
    }

    /// Gives the generation of the policy that decided.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Gives the call up, to forward it; the permission ends with it.
    pub fn into_call(self) -> Call {
        self.call
    }
}

/// A refused call, with what an operator needs to see why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a refusal is there to be recorded and answered"]
pub struct Denial {
    /// The call that is refused.
    pub call: Box<Call>,
    /// Why.
    pub reason: DenyReason,
    /// The rule that refused it, or that would allow it if it had not ended or also took browsers.
    pub rule: Option<RuleId>,
    /// The `reason` text of that rule.
    pub why: Option<Arc<str>>,
    /// The allow rule that comes closest. Absent if no rule links the two, or if a deny rule decided.
    pub nearest: Option<Box<Nearest>>,
}

/// Why a call is refused. The words are the same in answers, records and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DenyReason {
    /// No rule allows it.
    NoRule,
    /// A deny rule forbids it.
    DeniedByRule,
    /// The rule that would allow it has ended.
    RuleExpired,
    /// The call looks like a browser's, and the rule that would allow it does not say `browser: true`.
    BrowserRefused,
}

impl DenyReason {
    /// Gives the reason as its one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRule => "no_rule",
            Self::DeniedByRule => "denied_by_rule",
            Self::RuleExpired => "rule_expired",
            Self::BrowserRefused => "browser_refused",
        }
    }
}

impl fmt::Display for DenyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for DenyReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The allow rule that comes closest to a refused call.
///
/// It is chosen only among the allow rules whose `from` matches the caller and whose `to` matches the callee, by fewest
/// differing attributes, then by id. Both hosts' slices hold all of those, so every place names the same rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Nearest {
    /// The rule.
    pub rule: RuleId,
    /// What differs: at least one attribute, in the order of [`Attribute`].
    pub differs: Vec<Difference>,
}

/// One attribute in which a rule and a call differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The attribute.
    pub attribute: Attribute,
    /// What the rule has.
    pub rule_has: String,
    /// What the call has.
    pub call_has: String,
}

/// An attribute of a rule, in the order in which they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attribute {
    /// The caller.
    From,
    /// The callee.
    To,
    /// The method.
    Method,
    /// The path.
    Path,
    /// The time at which the rule ends.
    Until,
    /// The port of a TCP connection.
    Port,
    /// The database of a session of PostgreSQL.
    Database,
    /// The protocol, where it is another one.
    Protocol,
    /// Whether the rule takes calls that look like a browser's.
    Browser,
    /// The protocols that the rule lets a caller switch to.
    Upgrade,
}

impl Attribute {
    /// Gives the key of the attribute in the mesh file, or `method` and `path` for the two halves of `http`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::From => "from",
            Self::To => "to",
            Self::Method => "method",
            Self::Path => "path",
            Self::Until => "until",
            Self::Port => "port",
            Self::Database => "database",
            Self::Protocol => "protocol",
            Self::Browser => "browser",
            Self::Upgrade => "upgrade",
        }
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Attribute {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_and_attributes_have_the_words_that_users_see() {
        let reasons = [
            DenyReason::NoRule,
            DenyReason::DeniedByRule,
            DenyReason::RuleExpired,
            DenyReason::BrowserRefused,
        ];
        assert_eq!(
            reasons.map(|r| r.to_string()),
            ["no_rule", "denied_by_rule", "rule_expired", "browser_refused"]
        );
        assert_eq!(serde_json::to_string(&reasons[0]).unwrap(), "\"no_rule\"");
        let attributes = [
            Attribute::From,
            Attribute::To,
            Attribute::Method,
            Attribute::Path,
            Attribute::Until,
            Attribute::Port,
            Attribute::Database,
            Attribute::Protocol,
            Attribute::Browser,
            Attribute::Upgrade,
        ];
        assert_eq!(
            attributes.map(|a| a.to_string()),
            [
                "from", "to", "method", "path", "until", "port", "database", "protocol", "browser", "upgrade"
            ]
        );
        assert_eq!(serde_json::to_string(&attributes[4]).unwrap(), "\"until\"");
    }
}
