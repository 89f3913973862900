//! Names to addresses, bounded.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// The most look-ups at a time. Each takes a thread until the system's resolver gives up, however long a call waits.
const LOOKUPS_MAX: usize = 64;

/// The most addresses of one name that are looked at.
const ADDRESSES_MAX: usize = 16;

/// The largest file of names.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why a name has no address.
#[derive(Debug, Error)]
pub enum ResolveError {
    /// The resolver says so, or fails.
    #[error("look up the name")]
    System {
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// It takes too long.
    #[error("the resolver takes too long")]
    Slow,
    /// Too many names are being looked up.
    #[error("too many names are being looked up")]
    Busy,
    /// It has none.
    #[error("the name has no address")]
    NoAddress,
    /// The file of names cannot be read.
    #[error("read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Looks names up: by the system's resolver, or in a file alone.
#[derive(Debug)]
pub struct Resolver {
    /// In the form of hosts(5). Where there is one, nothing else is asked, so no name leaves the host.
    file: Option<PathBuf>,
    lookups: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Resolver {
    /// Makes one whose look-ups are tasks of `tasks`.
    #[must_use]
    pub fn new(file: Option<PathBuf>, tasks: TaskTracker) -> Self {
        Self {
            file,
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            tasks,
        }
    }

    /// Gives the addresses of a name, at least one, in the order in which they are to be tried.
    ///
    /// # Errors
    ///
    /// When there is none within `limit`.
    pub async fn look_up(&self, host: &str, port: u16, limit: Duration) -> Result<Vec<SocketAddr>, ResolveError> {
        let addresses = match &self.file {
            Some(path) => in_file(path, host, port).await?,
            None => self.system(host, port, limit).await?,
        };
        if addresses.is_empty() {
            return Err(ResolveError::NoAddress);
        }
        Ok(addresses)
    }

    async fn system(&self, host: &str, port: u16, limit: Duration) -> Result<Vec<SocketAddr>, ResolveError> {
        let place = Arc::clone(&self.lookups).try_acquire_owned();
        let place = place.map_err(|_full| ResolveError::Busy)?;
        let host = host.to_owned();
        // In a task of its own: its place is free when the resolver is done, not when nobody waits any more.
        let looking = self.tasks.spawn(async move {
            let found = tokio::net::lookup_host((host, port)).await;
            let found = found.map(|found| found.take(ADDRESSES_MAX).collect::<Vec<_>>());
            drop(place);
            found
        });
        match timeout(limit, looking).await {
            Ok(Ok(Ok(addresses))) => Ok(addresses),
            Ok(Ok(Err(source))) => Err(ResolveError::System { source }),
            Ok(Err(failed)) => Err(ResolveError::System {
                source: io::Error::other(failed),
            }),
            Err(_elapsed) => Err(ResolveError::Slow),
        }
    }
}

/// Looks in a file, afresh each time: it is small, and whoever changes it means the next connection.
async fn in_file(path: &Path, host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
    let failed = |source| ResolveError::File {
        path: path.to_owned(),
        source,
    };
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX).read_to_string(&mut text).await;
    read.map_err(failed)?;
    Ok(addresses_in(&text, host)
        .map(|address| SocketAddr::new(address, port))
        .collect())
}

/// Finds a name in the text of a hosts(5) file: an address and its names in each line, `#` and what follows left out.
fn addresses_in<'t>(text: &'t str, host: &'t str) -> impl Iterator<Item = IpAddr> + 't {
    let line = move |line: &'t str| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    };
    text.lines().filter_map(line).take(ADDRESSES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_names_is_read_as_hosts_is() {
        let text =
            "# none\n10.0.0.1 a.example b.example # c.example\n\nx a.example\n::1\tB.EXAMPLE\n10.0.0.2 bb.example";
        let found = |host: &str| {
            addresses_in(text, host)
                .map(|found| found.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(found("a.example"), ["10.0.0.1"]);
        assert_eq!(found("b.example"), ["10.0.0.1", "::1"]);
        assert!(found("c.example").is_empty() && found("example").is_empty() && found("10.0.0.1").is_empty());
    }

    #[tokio::test]
    async fn names_are_looked_up_in_the_file_alone_and_afresh() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        std::fs::write(&path, "10.0.0.1 a.example").unwrap();
        let resolver = Resolver::new(Some(path.clone()), TaskTracker::new());
        let look = async |host| resolver.look_up(host, 443, Duration::from_secs(5)).await;
        assert_eq!(look("a.example").await.unwrap(), ["10.0.0.1:443".parse().unwrap()]);
        assert!(matches!(look("localhost").await, Err(ResolveError::NoAddress)));
        std::fs::write(&path, "10.0.0.2 a.example").unwrap();
        assert_eq!(look("a.example").await.unwrap(), ["10.0.0.2:443".parse().unwrap()]);
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(look("a.example").await, Err(ResolveError::File { .. })));
    }

    #[tokio::test]
    async fn no_more_names_are_looked_up_at_a_time_than_there_are_places() {
        let resolver = Resolver::new(None, TaskTracker::new());
        let all = u32::try_from(LOOKUPS_MAX).unwrap();
        let taken = Arc::clone(&resolver.lookups).try_acquire_many_owned(all).unwrap();
        let look = || resolver.look_up("localhost", 1, Duration::from_secs(5));
        assert!(matches!(look().await, Err(ResolveError::Busy)));
        drop(taken);
        assert!(look().await.unwrap().iter().all(|found| found.ip().is_loopback()));
        assert_eq!(resolver.lookups.available_permits(), LOOKUPS_MAX);
    }
}
