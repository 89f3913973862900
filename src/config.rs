//! Where settings come from: configuration files, and the few variables of the environment. Nothing else reads either.

use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

use crate::exit::Failure;

/// The largest configuration file; an honest one is a few KiB.
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// Names the server that commands ask when `--server` does not.
const SERVER: &str = "BOTMESH_SERVER";

/// `json` makes logs one JSON document a line.
const LOG_FORMAT: &str = "BOTMESH_LOG_FORMAT";

/// How many threads the runtime has.
const WORKER_THREADS: &str = "TOKIO_WORKER_THREADS";

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the environment"
)]
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The server that `BOTMESH_SERVER` names.
///
/// # Errors
///
/// A [`Failure`] when it is not of the form `unix:PATH`.
pub(crate) fn server_from_environment() -> Result<Option<PathBuf>> {
    let Some(value) = variable(SERVER) else { return Ok(None) };
    match value
        .to_str()
        .and_then(|text| text.strip_prefix("unix:"))
        .filter(|path| !path.is_empty())
    {
        Some(path) => Ok(Some(PathBuf::from(path))),
        None => Err(Failure::usage(format!("{SERVER} must be unix:PATH, not {}", value.display())).into()),
    }
}

/// Says whether logs are JSON.
pub(crate) fn log_as_json() -> bool {
    variable(LOG_FORMAT).is_some_and(|format| format == "json")
}

/// Says whether colours are unwanted (<https://no-color.org>).
pub(crate) fn no_color() -> bool {
    variable("NO_COLOR").is_some()
}

/// The folder of the default sockets.
pub(crate) fn runtime_dir() -> PathBuf {
    let user = nix::unistd::geteuid();
    if user.is_root() {
        return PathBuf::from("/run/botmesh");
    }
    variable("XDG_RUNTIME_DIR")
        .map_or_else(|| PathBuf::from(format!("/run/user/{user}")), PathBuf::from)
        .join("botmesh")
}

/// The folder in which commands remember what they did.
pub(crate) fn state_home() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/botmesh");
    }
    let home = || {
        variable("HOME")
            .map_or_else(|| PathBuf::from("."), PathBuf::from)
            .join(".local/state")
    };
    variable("XDG_STATE_HOME")
        .map_or_else(home, PathBuf::from)
        .join("botmesh")
}

/// How a service manager speaks to this process: which sockets it passes, and where it wants to be told.
pub(crate) fn service_manager() -> (proxy::Variables, Option<OsString>) {
    let variables = proxy::Variables {
        listen_pid: variable("LISTEN_PID"),
        listen_fds: variable("LISTEN_FDS"),
        listen_fdnames: variable("LISTEN_FDNAMES"),
    };
    (variables, variable("NOTIFY_SOCKET"))
}

/// How many threads a server may have for its work: `TOKIO_WORKER_THREADS`, which the runtime reads too, else one for each
/// processor that this process may use.
pub(crate) fn worker_threads() -> usize {
    let named = variable(WORKER_THREADS).and_then(|value| value.to_str()?.parse().ok());
    named.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// The whole environment, for a command that takes it over.
pub(crate) fn environment() -> Vec<(OsString, OsString)> {
    std::env::vars_os().collect()
}

/// How this program was called, so that a printed command works when it is pasted.
pub(crate) fn program_name() -> String {
    std::env::args_os()
        .next()
        .map_or_else(|| "botmesh".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Reads a configuration file into the server's own type.
///
/// # Errors
///
/// A [`Failure`] with exit code 3: the file cannot be read, or the message names file, line and column and points at the place.
pub(crate) fn load<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = read_bounded(path, CONFIG_BYTES_MAX)?;
    parse(&path.display().to_string(), &text).map_err(|invalid| Failure::invalid_file(invalid.to_string()).into())
}

/// Reads a text file that must not be larger than it can honestly be.
///
/// # Errors
///
/// A [`Failure`] with exit code 3.
pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> Result<String> {
    let read = || -> std::io::Result<String> {
        let mut text = String::new();
        std::fs::File::open(path)?
            .take(bytes_max + 1)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|error| Failure::invalid_file(format!("cannot read {}: {error}", path.display())))?;
    if u64::try_from(text.len()).context("measure the file")? > bytes_max {
        return Err(Failure::invalid_file(format!("{} is larger than {bytes_max} bytes", path.display())).into());
    }
    Ok(text)
}

/// What is wrong with a configuration file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Invalid {
    file: String,
    message: String,
    place: Option<Place>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
    text: String,
    marked: usize,
}

fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, Invalid> {
    serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let place = error.location().and_then(|location| place(text, location));
        Invalid {
            file: file.to_owned(),
            message: message_of(error),
            place,
        }
    })
}

/// The reader's message without the position that it repeats: we point at it ourselves.
fn message_of(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    match first.rfind(" at line ") {
        Some(end) => first.get(..end).unwrap_or(first).trim_end_matches(':').to_owned(),
        None => first.to_owned(),
    }
}

fn place(text: &str, location: serde_saphyr::Location) -> Option<Place> {
    let (line, column) = (
        usize::try_from(location.line()).ok()?,
        usize::try_from(location.column()).ok()?,
    );
    let content = text.lines().nth(line.checked_sub(1)?)?;
    let rest = content.chars().skip(column.checked_sub(1)?);
    let marked = rest
        .take_while(|c| !matches!(c, ' ' | ':' | ',' | '}' | ']' | '#'))
        .count()
        .max(1);
    Some(Place {
        line,
        column,
        text: content.to_owned(),
        marked,
    })
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        let Some(place) = &self.place else {
            return write!(f, "\n --> {}", self.file);
        };
        let gutter = " ".repeat(place.line.to_string().len());
        write!(f, "\n{gutter}--> {}:{}:{}", self.file, place.line, place.column)?;
        write!(f, "\n{gutter} |\n{} | {}", place.line, place.text)?;
        let indent = " ".repeat(place.column.saturating_sub(1));
        write!(f, "\n{gutter} | {indent}{}", "^".repeat(place.marked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{Exit, code_of};

    fn wrong_ca(text: &str) -> String {
        match parse::<ca::Config>("ca.yaml", text) {
            Ok(_) => panic!("{text} was read"),
            Err(invalid) => invalid.to_string(),
        }
    }

    #[test]
    fn a_misspelt_key_is_shown_where_it_stands() {
        let text = wrong_ca("trust_domain: acme.internal\nadmin: {socket: /run/ca.sock, operatrs: [root]}\n");
        assert_eq!(
            text,
            "error: unknown field `operatrs`, expected one of socket, operators\n \
             --> ca.yaml:2:31\n  \
             |\n\
             2 | admin: {socket: /run/ca.sock, operatrs: [root]}\n  \
             |                               ^^^^^^^^"
        );
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_shown_where_it_stands() {
        let text = wrong_ca("trust_domain: acme.internal\nnode_api: {listen: everywhere}\n");
        assert!(text.contains("--> ca.yaml:2:20"), "{text}");
        assert!(text.contains("^^^^^^^^^^"), "{text}");
    }

    #[test]
    fn a_missing_key_names_the_file() {
        let text = wrong_ca("state_dir: /x\n");
        assert!(text.contains("trust_domain") && text.contains("ca.yaml"), "{text}");
    }

    #[test]
    fn the_same_key_twice_is_refused() {
        let text = wrong_ca("trust_domain: acme.internal\ntrust_domain: evil.internal\n");
        assert!(text.contains("ca.yaml:2:1"), "{text}");
    }

    #[test]
    fn a_file_that_is_missing_or_too_large_is_invalid_input() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.yaml");
        assert_eq!(code_of(&load::<ca::Config>(&file).unwrap_err()), Exit::InvalidFile);
        std::fs::write(&file, "# ".repeat(600_000)).unwrap();
        assert_eq!(code_of(&load::<ca::Config>(&file).unwrap_err()), Exit::InvalidFile);
    }
}
