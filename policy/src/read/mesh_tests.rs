//! The section `tests`.

use super::{Reader, TEST, TestDraft};
use crate::call::{self, Callee, HttpAsk, What};
use crate::code;
use crate::explain::Verdict;
use crate::grpc;
use crate::path::CanonicalPath;
use crate::read::fields::Fields;
use crate::tests_of_mesh::TestCall;
use crate::yaml::{Node, Value};

impl Reader {
    pub(super) fn mesh_tests(&mut self, node: Option<&Node>) {
        for node in self.records(node, "tests", self.most.tests, self.draft.tests.len()) {
            if let Some(test) = self.mesh_test(node) {
                self.draft.tests.push(test);
            }
        }
    }

    fn mesh_test(&mut self, node: &Node) -> Option<TestDraft> {
        let fields = self.fields(node, &TEST)?;
        let name_node = self.required(&fields, "name", node.span);
        let at_fault = name_node.map_or(node.span, |node| node.span);
        let name = name_node.and_then(|node| self.shown_text(node, code::TEST));
        let from = self
            .required(&fields, "from", at_fault)
            .and_then(|node| Some((self.bot_name(node)?, node.span)));
        let to = self
            .required(&fields, "to", at_fault)
            .and_then(|node| Some((self.test_callee(node)?, node.span)));
        let at = fields.get("at").and_then(|node| self.timestamp(node));
        let by = fields.get("by").and_then(|node| Some((self.rule_id(node)?, node.span)));
        let mut calls = self.test_calls(&fields, "allow", Verdict::Allow);
        calls.extend(self.test_calls(&fields, "audit", Verdict::Audit));
        calls.extend(self.test_calls(&fields, "deny", Verdict::Deny));
        let named = |key| {
            fields
                .get(key)
                .is_some_and(|node| !matches!(&node.value, Value::List(items) if items.is_empty()))
        };
        if !["allow", "audit", "deny"].into_iter().any(named) {
            self.error(
                code::TEST,
                at_fault,
                "the test has no calls",
                "none of `allow`, `audit` and `deny`",
            );
        }
        Some(TestDraft {
            name: name?.to_string(),
            from: from?,
            to: to?,
            at,
            by,
            calls,
        })
    }

    fn test_calls(&mut self, fields: &Fields<'_>, key: &str, expected: Verdict) -> Vec<TestCall> {
        let items = fields.get(key).map(|node| self.items(node)).unwrap_or_default();
        items
            .into_iter()
            .filter_map(|item| self.test_call(item, expected))
            .collect()
    }

    fn test_callee(&mut self, node: &Node) -> Option<Callee> {
        if let Value::Text(text) = &node.value
            && text.contains("://")
        {
            let Some(outside) = self.outside(node, text)?.exact().cloned() else {
                self.error(
                    code::TEST,
                    node.span,
                    "a test calls one destination, without wildcards",
                    "has a `*`",
                );
                return None;
            };
            return Some(outside.into());
        }
        self.bot_name(node).map(Callee::Bot)
    }

    fn grpc_call(&mut self, node: &Node, text: &str, expected: Verdict) -> Option<TestCall> {
        match grpc::path(text) {
            Ok(path) => {
                let what = What::Http(HttpAsk::new(self.method(node, "POST")?, path));
                let span = node.span;
                Some(TestCall { expected, what, span })
            }
            Err(error) => {
                self.error(code::TEST, node.span, error.to_string(), "not a call");
                None
            }
        }
    }

    fn test_call(&mut self, node: &Node, expected: Verdict) -> Option<TestCall> {
        let text = self.text(node)?;
        if let Some(what) = What::connection(text) {
            let span = node.span;
            return Some(TestCall { expected, what, span });
        }
        let Some((method, path)) = text.split_once(' ') else {
            self.error(
                code::TEST,
                node.span,
                "a call is METHOD, one space and a path",
                "not a call",
            );
            return None;
        };
        if method == call::TCP {
            self.error(
                code::TEST,
                node.span,
                "a connection is tcp and a port: tcp 5432",
                "not a port",
            );
            return None;
        }
        if method == call::POSTGRES {
            let message = "a session is postgres and a database: postgres orders";
            self.error(code::TEST, node.span, message, "not a database");
            return None;
        }
        if method == grpc::WORD {
            return self.grpc_call(node, path, expected);
        }
        let method = self.method(node, method);
        let path = match CanonicalPath::parse(path.as_bytes()) {
            Ok(_) if path.contains('*') => {
                self.error(
                    code::TEST,
                    node.span,
                    "a test calls one path, without wildcards",
                    "has a `*`",
                );
                None
            }
            Ok(path) => Some(path),
            Err(error) => {
                let message = format!("such a call is always refused: {error}");
                self.error(code::TEST, node.span, message, "not a path");
                None
            }
        };
        Some(TestCall {
            expected,
            what: What::Http(HttpAsk::new(method?, path?)),
            span: node.span,
        })
    }
}
