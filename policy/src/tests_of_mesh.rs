//! The tests that a mesh file carries, and their outcome.

use std::sync::Arc;

use serde::Serialize;
use spiffe::id::{BotName, SpiffeId};
use spiffe::time::Timestamp;

use crate::call::{Call, Callee, What};
use crate::code;
use crate::diagnostics::{Diag, Diagnostics, Mark, Severity};
use crate::explain::Verdict;
use crate::generation::Generation;
use crate::mesh::Mesh;
use crate::policy::Policy;
use crate::rule::RuleId;
use crate::source::{Excerpt, Place, Span};

/// One test of the mesh file.
#[derive(Clone, Debug)]
pub(crate) struct MeshTest {
    pub(crate) name: String,
    pub(crate) from: BotName,
    pub(crate) to: Callee,
    pub(crate) at: Option<Timestamp>,
    pub(crate) by: Option<RuleId>,
    pub(crate) calls: Vec<PlacedCall>,
}

impl PartialEq for MeshTest {
    /// Compares what the test says, not where it stands.
    fn eq(&self, other: &Self) -> bool {
        let calls = |test: &Self| -> Vec<(Verdict, What)> {
            let calls = test.calls.iter();
            calls.map(|call| (call.expected, call.what.clone())).collect()
        };
        (&self.name, &self.from, &self.to, self.at, &self.by)
            == (&other.name, &other.from, &other.to, other.at, &other.by)
            && calls(self) == calls(other)
    }
}

/// A call of a test as it was read.
#[derive(Clone, Debug)]
pub(crate) struct TestCall {
    pub(crate) expected: Verdict,
    pub(crate) what: What,
    pub(crate) span: Span,
}

/// A call of a test, with the line that shows it.
#[derive(Clone, Debug)]
pub(crate) struct PlacedCall {
    pub(crate) expected: Verdict,
    pub(crate) what: What,
    pub(crate) excerpt: Excerpt,
}

/// What one call of one test came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TestOutcome {
    /// The name of the test.
    pub name: String,
    /// The caller.
    pub from: BotName,
    /// The callee.
    pub to: Callee,
    /// The call, `GET /orders/17`.
    pub call: String,
    /// What the test expects.
    pub expected: Verdict,
    /// What the policy says.
    pub got: Verdict,
    /// Whether both agree, and the rule is the one that `by` names.
    pub passed: bool,
    /// The rule that decided, if one did.
    pub rule: Option<RuleId>,
    /// The rule that the test wants to decide.
    pub by: Option<RuleId>,
    /// Where the call stands.
    #[serde(flatten)]
    pub place: Place,
    #[serde(skip)]
    excerpt: Excerpt,
}

/// The outcomes of all tests of a mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TestReport {
    /// One outcome for each call, in the order of the tests.
    pub outcomes: Vec<TestOutcome>,
}

impl TestReport {
    /// Counts all calls.
    pub fn total(&self) -> usize {
        self.outcomes.len()
    }

    /// Counts the calls that came out as expected.
    pub fn passed(&self) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.passed).count()
    }

    /// Counts the others.
    pub fn failed(&self) -> usize {
        self.total() - self.passed()
    }

    /// Gives the failures as diagnostics, `BM0301`.
    pub fn failures(&self) -> Diagnostics {
        Diagnostics::of(
            self.outcomes
                .iter()
                .filter(|outcome| !outcome.passed)
                .map(TestOutcome::diag)
                .collect(),
        )
    }

    /// Renders the failures for people, with carets; empty when all passed.
    pub fn render(&self, color: bool) -> String {
        self.failures().render(color)
    }
}

impl TestOutcome {
    fn diag(&self) -> Diag {
        let Self {
            name,
            from,
            to,
            call,
            expected,
            got,
            rule,
            ..
        } = self;
        let rule = rule
            .as_ref()
            .map_or_else(|| "without a rule".to_owned(), |rule| format!("by {rule}"));
        let label = if expected == got {
            let by = self.by.as_ref().map(RuleId::as_str).unwrap_or_default();
            format!("expected {expected} by {by}, got it {rule}")
        } else {
            format!("expected {expected}, got {got} {rule}")
        };
        Diag {
            code: code::TEST_FAILED,
            severity: Severity::Error,
            message: format!("test `{name}`: {from} -> {to} {call}"),
            file: self.place.file.to_string(),
            line: self.place.line,
            column: self.excerpt.column,
            help: Some(format!("botmesh policy explain {from} {to} '{call}'")),
            marks: vec![Mark {
                excerpt: self.excerpt.clone(),
                label,
            }],
        }
    }
}

/// Runs the tests of a mesh.
pub(crate) fn run(mesh: &Mesh, now: Timestamp) -> TestReport {
    let policy = mesh.compile(Generation::default());
    let outcomes = mesh
        .tests
        .iter()
        .flat_map(|test| {
            test.calls
                .iter()
                .map(|call| outcome(mesh, &policy, test, call, test.at.unwrap_or(now)))
        })
        .collect();
    TestReport { outcomes }
}

fn outcome(mesh: &Mesh, policy: &Policy, test: &MeshTest, call: &PlacedCall, now: Timestamp) -> TestOutcome {
    let asked = Call {
        from: SpiffeId::for_bot(&mesh.trust_domain, &test.from),
        to: test.to.clone(),
        what: call.what.clone(),
    };
    let (got, rule) = match policy.decide(now, asked) {
        Ok(permit) => (permit.verdict(), permit.rule().cloned()),
        Err(denial) => (Verdict::Deny, denial.rule),
    };
    // `by` names an allow or a deny rule, and so speaks of the calls that such a rule decides.
    let by = test.by.as_ref().filter(|by| {
        mesh.rules
            .get(*by)
            .is_some_and(|rule| call.expected == rule.effect.into())
    });
    let passed = got == call.expected && by.is_none_or(|by| rule.as_ref() == Some(by));
    TestOutcome {
        name: test.name.clone(),
        from: test.from.clone(),
        to: test.to.clone(),
        call: call.what.to_string(),
        expected: call.expected,
        got,
        passed,
        rule,
        by: by.cloned(),
        place: Place {
            file: Arc::clone(&call.excerpt.file),
            line: call.excerpt.line,
        },
        excerpt: call.excerpt.clone(),
    }
}
