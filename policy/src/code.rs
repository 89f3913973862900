//! The codes of diagnostics. A code never changes its meaning.

mod pages;

use std::fmt;

use serde::{Serialize, Serializer};

use crate::diagnostics::Severity;

/// The code of a diagnostic, such as `BM0120`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(&'static str);

impl Code {
    /// Gives the code.
    pub fn as_str(self) -> &'static str {
        self.0
    }

    /// Says whether diagnostics with this code refuse the file. Codes from `BM0400` are warnings.
    pub(crate) fn severity(self) -> Severity {
        if self.0 < "BM0400" {
            Severity::Error
        } else {
            Severity::Warning
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({})", self.0)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

/// Explains a code at length: the text of `botmesh help CODE`. `None` for a code that does not exist.
pub fn explain_code(code: &str) -> Option<&'static str> {
    pages::PAGES
        .iter()
        .find(|(known, _)| known.0 == code)
        .map(|(_, page)| *page)
}

pub(crate) const SYNTAX: Code = Code("BM0100");
pub(crate) const YAML_FEATURE: Code = Code("BM0101");
pub(crate) const DUPLICATE_KEY: Code = Code("BM0102");
pub(crate) const TOO_LARGE: Code = Code("BM0103");
pub(crate) const UNKNOWN_KEY: Code = Code("BM0104");
pub(crate) const MISSING_KEY: Code = Code("BM0105");
pub(crate) const WRONG_KIND: Code = Code("BM0106");
pub(crate) const ONE_DOCUMENT: Code = Code("BM0107");
pub(crate) const VERSION: Code = Code("BM0108");
pub(crate) const TRUST_DOMAIN: Code = Code("BM0109");
pub(crate) const BOT_NAME: Code = Code("BM0110");
pub(crate) const HOSTS: Code = Code("BM0111");
pub(crate) const OWNER: Code = Code("BM0112");
pub(crate) const SELECTOR: Code = Code("BM0113");
pub(crate) const NO_BOUNDARY: Code = Code("BM0114");
pub(crate) const SERVE: Code = Code("BM0115");
pub(crate) const SVID_TTL: Code = Code("BM0116");
pub(crate) const TEXT: Code = Code("BM0117");
pub(crate) const WAIT: Code = Code("BM0118");
pub(crate) const DESTINATION_NUMBER: Code = Code("BM0119");
pub(crate) const UNKNOWN_GROUP: Code = Code("BM0120");
pub(crate) const UNKNOWN_BOT: Code = Code("BM0121");
pub(crate) const GROUP: Code = Code("BM0122");
pub(crate) const NAME_PATTERN: Code = Code("BM0123");
pub(crate) const RULE_ID: Code = Code("BM0130");
pub(crate) const DUPLICATE_ID: Code = Code("BM0131");
pub(crate) const HTTP_ITEM: Code = Code("BM0132");
pub(crate) const METHOD: Code = Code("BM0133");
pub(crate) const PATH: Code = Code("BM0134");
pub(crate) const UNTIL_REASON: Code = Code("BM0135");
pub(crate) const NO_MATCH: Code = Code("BM0136");
pub(crate) const SERVES_NOTHING: Code = Code("BM0137");
pub(crate) const TIME: Code = Code("BM0138");
pub(crate) const LIMIT: Code = Code("BM0139");
pub(crate) const SAME_PROCESS: Code = Code("BM0140");
pub(crate) const GRPC_ITEM: Code = Code("BM0145");
pub(crate) const OTHER_PROTOCOL: Code = Code("BM0146");
pub(crate) const OUTSIDE: Code = Code("BM0147");
pub(crate) const TCP_PORT: Code = Code("BM0148");
pub(crate) const CREDENTIAL: Code = Code("BM0149");
pub(crate) const TEST: Code = Code("BM0150");
pub(crate) const SLICE: Code = Code("BM0160");
pub(crate) const NOT_ENFORCED: Code = Code("BM0190");
pub(crate) const TEST_FAILED: Code = Code("BM0301");
pub(crate) const INTERPRETER: Code = Code("BM0401");
pub(crate) const SHARED_USER: Code = Code("BM0402");
pub(crate) const EMPTY_PATTERN: Code = Code("BM0403");
pub(crate) const UNUSED_GROUP: Code = Code("BM0404");
pub(crate) const AUDIT_ONLY: Code = Code("BM0405");
pub(crate) const WIDE_DENIAL: Code = Code("BM0406");
pub(crate) const SHARED_CREDENTIAL: Code = Code("BM0407");
pub(crate) const UNUSED_CREDENTIAL: Code = Code("BM0408");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_page_that_starts_with_it() {
        let mut codes: Vec<&str> = pages::PAGES.iter().map(|(code, _)| code.as_str()).collect();
        for code in &codes {
            let page = explain_code(code).unwrap();
            assert!(page.starts_with(&format!("{code}: ")), "{code}");
            assert!(
                page.ends_with('\n') && page.lines().count() >= 3,
                "{code} says why and what to do"
            );
            assert!(
                page.lines().all(|line| line.chars().count() <= 100),
                "{code} fits a terminal"
            );
        }
        let count = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!((codes.len(), count), (count, 52));
    }

    #[test]
    fn an_unknown_code_has_no_page() {
        assert_eq!(explain_code("BM9999"), None);
        assert_eq!(explain_code("bm0120"), None, "the caller upper-cases");
    }

    #[test]
    fn codes_from_400_are_warnings() {
        assert_eq!(
            (TEST_FAILED.severity(), INTERPRETER.severity()),
            (Severity::Error, Severity::Warning)
        );
        assert_eq!(
            (format!("{SYNTAX}"), format!("{SYNTAX:?}")),
            ("BM0100".to_owned(), "Code(BM0100)".to_owned())
        );
    }
}
