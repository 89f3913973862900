//! Names of databases of PostgreSQL.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// The longest name of a database, in bytes: what PostgreSQL keeps of one (`NAMEDATALEN`).
const NAME_BYTES_MAX: usize = 63;

/// The name of a database: 1 to 63 ASCII letters, digits, `_`, `-`, `.` and `$`. PostgreSQL takes more, of which much reads
/// in two ways where it is written into a rule or a record; such a database is not called through a proxy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Database(Arc<str>);

impl Database {
    /// Reads a name, or gives `None` when it is outside the grammar.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=NAME_BYTES_MAX).contains(&text.len());
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'$');
        (fits && text.bytes().all(known)).then(|| Self(Arc::from(text)))
    }

    /// Gives the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({:?})", &*self.0)
    }
}

impl Serialize for Database {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One `postgres` item of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DatabaseMatch {
    /// Written `*`.
    Any,
    Is(Database),
}

impl DatabaseMatch {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        Database::parse(text).map(Self::Is)
    }

    pub(crate) fn matches(&self, database: &Database) -> bool {
        match self {
            Self::Any => true,
            Self::Is(wanted) => wanted == database,
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Any => "*",
            Self::Is(database) => database.as_str(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_in_one_way_wherever_it_is_written() {
        for text in ["a", "orders", "Orders_2", "a-b.c$d", &"a".repeat(63)] {
            assert_eq!(Database::parse(text).unwrap().as_str(), text);
        }
        for text in ["", "*", "a b", "a/b", "a\n", "a\"b", "\u{e9}", &"a".repeat(64)] {
            assert_eq!(Database::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_star_is_every_database_and_a_name_is_one() {
        let database = |text| Database::parse(text).unwrap();
        let any = DatabaseMatch::parse("*").unwrap();
        let one = DatabaseMatch::parse("orders").unwrap();
        assert!(any.matches(&database("orders")) && any.matches(&database("postgres")));
        assert!(one.matches(&database("orders")) && !one.matches(&database("Orders")));
        assert_eq!(DatabaseMatch::parse("or*"), None);
    }
}
