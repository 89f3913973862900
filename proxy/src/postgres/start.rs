//! What a bot asks for as its session begins, and what it is told.

use std::sync::OnceLock;

use bytes::Bytes;
use policy::Database;
use thiserror::Error;

use super::keys::Given;
use super::wire::{self, Asked};

/// The parameters that are passed on, by their names in lower case: those that drivers send, all of which a session may set
/// at any time by SET. `options` would be a command line, `replication` another protocol, and others can be set at the start
/// alone, or give a role.
const PASSED: [&str; 11] = [
    "application_name",
    "client_encoding",
    "datestyle",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "intervalstyle",
    "jit",
    "lock_timeout",
    "search_path",
    "statement_timeout",
    "timezone",
];

/// With what the names of the protocol's own options begin.
const OF_THE_PROTOCOL: &str = "_pq_.";

/// A session that a bot begins.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) database: Database,
    /// What else it says of itself.
    parameters: Vec<(String, String)>,
    /// What it reads before all else, where it asks for more of the protocol than 3.0 has.
    pub(crate) negotiated: Bytes,
    /// What it reads first: the server's side of the start-up, or the server's error.
    pub(crate) told: OnceLock<Bytes>,
    /// The key of the session, while it goes on.
    pub(crate) given: OnceLock<Given>,
}

/// Why a bot's start-up begins no session.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum StartError {
    /// It names none.
    #[error("the start-up names neither a database nor a user")]
    NoDatabase,
    /// It names one that no rule can name.
    #[error("the name of the database is not 1 to 63 letters, digits, `_`, `-`, `.` and `$`")]
    Database,
    /// It says what is not passed on.
    #[error(
        "the proxy does not pass on parameter {name:?} of a start-up; say it by SET once the session has begun, where that is meant"
    )]
    Parameter { name: String },
}

impl Start {
    /// Takes what a start-up asks for. The user is the credential's, whatever the bot says.
    ///
    /// # Errors
    ///
    /// When it asks for what is not carried.
    pub(crate) fn new(asked: Asked) -> Result<Self, StartError> {
        let Asked { minor, parameters } = asked;
        let (mut user, mut database, mut passed, mut unknown) = (None, None, Vec::new(), Vec::new());
        for (name, value) in parameters {
            match name.as_str() {
                "user" => user = Some(value),
                "database" => database = Some(value),
                _ if name.starts_with(OF_THE_PROTOCOL) => unknown.push(name),
                _ if PASSED.contains(&name.to_ascii_lowercase().as_str()) => passed.push((name, value)),
                _ => {
                    let name = name.chars().take(64).collect();
                    return Err(StartError::Parameter { name });
                }
            }
        }
        // As the server has it.
        let named = database.filter(|name| !name.is_empty()).or(user);
        let named = named.ok_or(StartError::NoDatabase)?;
        let negotiated = if minor == 0 && unknown.is_empty() {
            Bytes::new()
        } else {
            wire::negotiate(unknown.iter().map(String::as_str))
        };
        Ok(Self {
            database: Database::parse(&named).ok_or(StartError::Database)?,
            parameters: passed,
            negotiated,
            told: OnceLock::new(),
            given: OnceLock::new(),
        })
    }

    /// Writes the start-up for the server.
    pub(crate) fn as_user(&self, user: &str) -> Bytes {
        let own = [("user", user), ("database", self.database.as_str())];
        let others = self
            .parameters
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        wire::startup(own.into_iter().chain(others))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(pairs: &[(&str, &str)]) -> Result<Start, StartError> {
        of_minor(0, pairs)
    }

    fn of_minor(minor: u16, pairs: &[(&str, &str)]) -> Result<Start, StartError> {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let parameters = pairs.collect();
        Start::new(Asked { minor, parameters })
    }

    #[test]
    fn who_asks_for_more_of_the_protocol_than_there_is_is_told_and_goes_on() {
        let known = start(&[("user", "a")]).unwrap();
        assert!(known.negotiated.is_empty());
        let newer = of_minor(2, &[("user", "a")]).unwrap();
        assert_eq!(newer.negotiated, wire::negotiate([].into_iter()));
        let more = start(&[("user", "a"), ("_pq_.x", "1")]).unwrap();
        assert_eq!(more.negotiated, wire::negotiate(["_pq_.x"].into_iter()));
        for start in [newer, more] {
            assert_eq!(start.as_user("b"), known.as_user("b"));
        }
    }

    #[test]
    fn the_server_reads_the_credentials_user_and_what_changes_how_it_writes() {
        let start = start(&[
            ("user", "root"),
            ("database", "orders"),
            ("application_name", "psql"),
            ("DateStyle", "ISO"),
        ])
        .unwrap();
        let wanted = [
            ("user", "robot"),
            ("database", "orders"),
            ("application_name", "psql"),
            ("DateStyle", "ISO"),
        ];
        assert_eq!(start.as_user("robot"), wire::startup(wanted));
    }

    #[test]
    fn what_is_no_plain_session_is_refused() {
        for name in [
            "options",
            "replication",
            "Replication",
            "_PQ_.x",
            "session_authorization",
            "log_connections",
            "USER",
            "Database",
            "role",
            "x",
        ] {
            let refused = start(&[("user", "a"), (name, "1")]).unwrap_err();
            assert_eq!(refused, StartError::Parameter { name: name.to_owned() });
        }
        assert_eq!(start(&[]).unwrap_err(), StartError::NoDatabase);
        assert_eq!(start(&[("user", "a b")]).unwrap_err(), StartError::Database);
        assert_eq!(start(&[("database", "*")]).unwrap_err(), StartError::Database);
        assert_eq!(
            start(&[("user", "a"), ("database", "")]).unwrap().database.as_str(),
            "a"
        );
    }
}
