//! A value that a program writes.

use std::ffi::OsString;
use std::process::Stdio;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use zeroize::Zeroizing;

use super::super::secret::SECRET_BYTES_MAX;
use super::SourceError;

/// Where programs are that a program calls by name.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a program and gives what it writes. It gets no input, no file and nothing of the proxy's environment but `HOME`; what
/// it says on its standard error is not read, for it may be the value.
pub(super) async fn output(words: &[String], home: Option<OsString>) -> Result<Vec<u8>, SourceError> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(failed("", "has no name".to_owned()));
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", PATH).current_dir("/");
    if let Some(home) = home {
        command.env("HOME", home);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    // Whoever no longer waits for it has it killed.
    command.kill_on_drop(true);
    let mut child = command
        .spawn()
        .map_err(|error| failed(program, format!("did not start: {error}")))?;
    let mut out = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 3));
    if let Some(stdout) = child.stdout.take() {
        let read = stdout.take(SECRET_BYTES_MAX as u64 + 3).read_to_end(&mut out).await;
        read.map_err(|error| failed(program, format!("could not be read: {error}")))?;
        if out.len() > SECRET_BYTES_MAX + 2 {
            // No value, whatever else it would write: it is not waited for.
            return Ok(std::mem::take(&mut *out));
        }
    }
    let status = child
        .wait()
        .await
        .map_err(|error| failed(program, format!("could not be waited for: {error}")))?;
    if status.success() {
        return Ok(std::mem::take(&mut *out));
    }
    Err(failed(program, format!("failed: {status}")))
}

fn failed(program: &str, problem: String) -> SourceError {
    SourceError::Command {
        program: program.to_owned(),
        problem,
    }
}
