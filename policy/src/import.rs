//! What a bot has in its environment today, and what of the mesh file takes its place: `botmesh import env`.
//!
//! Three readers ([`dotenv`], [`mod@unit`], [`compose`]) give the variables of three kinds of files; [`propose`] turns them into
//! credentials, rules and what the environment becomes. What it does not know it says so of, and drops nothing.
//!
//! A value goes in and comes out of nothing that is written: it tells what a variable is, and is handed on to whoever puts
//! it on a host.

pub mod compose;
pub mod dotenv;
mod known;
mod propose;
pub mod unit;
mod write;

use std::fmt;

use thiserror::Error;
use zeroize::Zeroizing;

pub use propose::{About, Added, Leads, Looks, Proposal, Undecided, propose};
pub use write::{NOBODY, write};

/// The longest file that is read.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;

/// The most variables of one bot.
pub const VARIABLES_MAX: usize = 1000;

/// The longest name of one.
const NAME_BYTES_MAX: usize = 256;

/// The longest value of one: no credential may be longer, and what is longer is none.
const VALUE_BYTES_MAX: usize = 32 * 1024;

/// A variable of an environment.
#[derive(Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// What it is set to; nothing where it is taken from elsewhere.
    pub value: Option<Zeroizing<String>>,
    /// The line of its file, from 1.
    pub line: usize,
}

impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Variable({} of line {})", self.name, self.line)
    }
}

impl Variable {
    /// Gives the value, or an empty text.
    pub(crate) fn text(&self) -> &str {
        self.value.as_ref().map(|value| value.as_str()).unwrap_or_default()
    }
}

/// Why a file is not read. No error has a part of a value in it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {what}")]
pub struct ImportError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
}

impl ImportError {
    pub(crate) fn new(line: usize, what: impl Into<String>) -> Self {
        let what = what.into();
        Self { line, what }
    }
}

/// Variables as they are read, of which the last of a name counts.
#[derive(Debug, Default)]
pub(crate) struct Variables(Vec<Variable>);

impl Variables {
    /// Takes one.
    ///
    /// # Errors
    ///
    /// When its name is none, its value too long, or there are too many.
    pub(crate) fn set(&mut self, name: &str, value: Option<&str>, line: usize) -> Result<(), ImportError> {
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        let begins = name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
        if !begins || name.len() > NAME_BYTES_MAX || !name.bytes().all(letters) {
            let what = "a variable's name has letters, digits and `_`, and does not begin with a digit";
            return Err(ImportError::new(line, what));
        }
        if value.is_some_and(|value| value.len() > VALUE_BYTES_MAX) {
            return Err(ImportError::new(
                line,
                format!("{name} has more than {VALUE_BYTES_MAX} bytes"),
            ));
        }
        self.unset(name);
        if self.0.len() == VARIABLES_MAX {
            return Err(ImportError::new(
                line,
                format!("there are more than {VARIABLES_MAX} variables"),
            ));
        }
        self.0.push(Variable {
            name: name.to_owned(),
            value: value.map(|value| Zeroizing::new(value.to_owned())),
            line,
        });
        Ok(())
    }

    pub(crate) fn unset(&mut self, name: &str) {
        self.0.retain(|known| known.name != name);
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|known| known.name == name)
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn done(self) -> Vec<Variable> {
        self.0
    }
}

/// Refuses what is too long to be read.
pub(crate) fn fits(text: &str) -> Result<(), ImportError> {
    if text.len() > FILE_BYTES_MAX {
        return Err(ImportError::new(
            1,
            format!("the file has more than {FILE_BYTES_MAX} bytes"),
        ));
    }
    Ok(())
}

/// Puts what several files say together; a later one wins.
///
/// # Errors
///
/// When there are too many.
pub fn together(files: impl IntoIterator<Item = Vec<Variable>>) -> Result<Vec<Variable>, ImportError> {
    let mut all = Variables::default();
    for variable in files.into_iter().flatten() {
        let value = variable.value.as_ref().map(|value| value.as_str());
        all.set(&variable.name, value, variable.line)?;
    }
    Ok(all.done())
}
