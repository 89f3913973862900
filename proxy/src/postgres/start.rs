//! What a bot asks for as its session begins, and what it is told.

use std::sync::OnceLock;

use bytes::Bytes;
use policy::Database;
use thiserror::Error;

use super::keys::Given;
use super::wire;

/// The parameters that are passed on, by their names in lower case. What they change is how the server writes; `options`
/// would be a command line, and `replication` another protocol.
const PASSED: [&str; 6] = [
    "application_name",
    "client_encoding",
    "datestyle",
    "extra_float_digits",
    "intervalstyle",
    "timezone",
];

/// A session that a bot begins.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) database: Database,
    /// What else it says of itself.
    parameters: Vec<(String, String)>,
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
    /// Takes the parameters of a start-up. The user is the credential's, whatever the bot says.
    ///
    /// # Errors
    ///
    /// When it asks for what is not carried.
    pub(crate) fn new(parameters: Vec<(String, String)>) -> Result<Self, StartError> {
        let (mut user, mut database, mut passed) = (None, None, Vec::new());
        for (name, value) in parameters {
            match name.as_str() {
                "user" => user = Some(value),
                "database" => database = Some(value),
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
        Ok(Self {
            database: Database::parse(&named).ok_or(StartError::Database)?,
            parameters: passed,
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
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Start::new(pairs.collect())
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
            "_pq_.x",
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
