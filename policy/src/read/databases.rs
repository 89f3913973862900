//! The databases of a rule about PostgreSQL.

use super::Reader;
use super::rules::Calls;
use crate::code;
use crate::database::DatabaseMatch;
use crate::diagnostics::Draft;
use crate::read::fields::Fields;
use crate::rule::Effect;
use crate::source::Span;

impl Reader {
    /// Reads the databases of a rule about PostgreSQL. A deny rule without them covers every one.
    pub(super) fn databases(&mut self, fields: &Fields<'_>, effect: Effect, at: Span) -> Calls {
        let (mut calls, mut other) = (Calls::default(), false);
        for key in ["http", "grpc", "tcp", "upgrade"] {
            if let Some(node) = fields.get(key) {
                let message = format!("a rule about postgres:// has no `{key}`");
                self.error(code::OUTSIDE, node.span, message, "another protocol's");
                other = true;
            }
        }
        let Some(node) = fields.get("postgres") else {
            if effect == Effect::Allow && !other && !fields.refused() {
                let message = "the rule says who but not what";
                let draft = Draft::new(code::NO_MATCH, at, message, "`postgres` is missing");
                self.push(draft.help("name databases, as in postgres: [orders]; `*` is every one"));
            }
            return calls;
        };
        let items = self.items(node);
        if items.is_empty() {
            self.error(code::NO_MATCH, node.span, "`postgres` has no items", "empty");
        }
        for item in items {
            let Some(text) = self.text(item) else { continue };
            match DatabaseMatch::parse(text) {
                Some(database) => calls.postgres.push(database),
                None => self.error(
                    code::OUTSIDE,
                    item.span,
                    "a database is `*`, or 1 to 63 letters, digits, `_`, `-`, `.` and `$`",
                    "not such a name",
                ),
            }
        }
        calls.postgres.sort();
        calls.postgres.dedup();
        calls
    }
}
