//! A clock that a test of the real binary moves through a Unix socket. Never in a shipped build.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Clock, Timestamp};

/// The longest line that is read, with its newline: `set ` and the twenty characters of an `i64`.
const LINE_BYTES_MAX: u64 = 32;

/// Says why the clock of a test could not be followed.
#[derive(Debug, Error)]
pub enum FollowError {
    /// The socket could not be reached.
    #[error("connect to the clock at {path}", path = path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The first line, without which there is no time, did not come.
    #[error("read the first time from the clock at {path}", path = path.display())]
    FirstLine {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
}

impl Clock {
    /// Connects to the Unix socket at `path` and shows the time last received: each line `set NNN` is an absolute time
    /// in Unix milliseconds. At the earliest of all, every read panics until the next line. The clock stands still between lines, and for ever after a line of another form or the end
    /// of the connection.
    ///
    /// Returns once the first line is here.
    ///
    /// # Errors
    /// When the socket cannot be reached or its first line is not a time.
    pub async fn follow(path: impl AsRef<Path>) -> Result<Self, FollowError> {
        let path = path.as_ref();
        let stream = UnixStream::connect(path).await.map_err(|source| FollowError::Connect {
            path: path.to_owned(),
            source,
        })?;
        let mut lines = BufReader::new(stream);
        let first = read_time(&mut lines).await.map_err(|source| FollowError::FirstLine {
            path: path.to_owned(),
            source,
        })?;
        let (sender, time) = watch::channel(first);
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            while let Ok(next) = read_time(&mut lines).await {
                sender.send_replace(next);
            }
            // Keeps the channel open, so that waiters wait instead of seeing an end.
            std::future::pending::<()>().await;
        });
        Ok(Self::driven(time, reader))
    }
}

/// Reads one line of at most 32 bytes.
async fn read_time(lines: &mut BufReader<UnixStream>) -> io::Result<Timestamp> {
    let mut line = String::new();
    lines.take(LINE_BYTES_MAX).read_line(&mut line).await?;
    line.strip_suffix('\n')
        .and_then(|line| line.strip_prefix("set "))
        .and_then(|millis| millis.parse().ok())
        .map(Timestamp::from_unix_millis)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the line is not `set NNN`"))
}
