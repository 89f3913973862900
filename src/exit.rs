//! How a command ends: the exit code that scripts rely on, and the one message that a person reads.

use std::fmt;
use std::process::ExitCode;

/// The exit codes, the same for every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, nothing found.
    Fine = 0,
    /// Done, with findings: a failed test, a DENY under `--exit-code`, a broken ledger.
    Findings = 1,
    /// The command line itself is wrong.
    Usage = 2,
    /// A file that was given cannot be read or is not valid.
    InvalidFile = 3,
    /// The server cannot be reached, or did not get there in time.
    Unreachable = 4,
    /// The server does not let this user do that.
    NotAuthorised = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An end with a message: what went wrong, in words for the person at the keyboard, and what to do next.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn invalid_file(message: impl Into<String>) -> Self {
        Self::new(Exit::InvalidFile, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// The exit code of an error that came up to `main`; an error that nobody classified is 1.
pub(crate) fn code_of(error: &anyhow::Error) -> Exit {
    if is_broken_pipe(error) {
        return Exit::Fine;
    }
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Failure>())
        .map_or(Exit::Findings, |failure| failure.exit)
}

/// Says whether the reader of stdout went away, as `head` does: that is no error.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn the_code_of_a_failure_survives_context() {
        let error = anyhow!(Failure::new(Exit::NotAuthorised, "no")).context("apply");
        assert_eq!(code_of(&error), Exit::NotAuthorised);
    }

    #[test]
    fn an_unclassified_error_is_a_finding_and_a_closed_pipe_is_none() {
        assert_eq!(code_of(&anyhow!("x")), Exit::Findings);
        let closed: Result<(), _> = Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!(code_of(&closed.context("write").unwrap_err()), Exit::Fine);
    }

    #[test]
    fn a_hint_is_on_its_own_line() {
        let failure = Failure::usage("which?").hint("this one");
        assert_eq!(failure.to_string(), "which?\n  hint: this one");
    }
}
