//! The hand that moves the clock of every process of a mesh.

use std::io::Write as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A clock at a Unix socket; it stands still until it is moved.
pub(crate) struct Hand {
    path: PathBuf,
    state: Arc<Mutex<(i64, Vec<UnixStream>)>>,
}

impl Hand {
    /// Starts at the time of the real clock.
    pub(crate) fn new(dir: &Path) -> Self {
        let path = dir.join("clock.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let state = Arc::new(Mutex::new((i64::try_from(now.as_millis()).unwrap(), Vec::new())));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for mut follower in listener.incoming().flatten() {
                let mut state = shared.lock().unwrap();
                if writeln!(follower, "set {}", state.0).is_ok() {
                    state.1.push(follower);
                }
            }
        });
        Self { path, state }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Moves every follower forward.
    pub(crate) fn forward(&self, by: Duration) {
        let mut state = self.state.lock().unwrap();
        state.0 += i64::try_from(by.as_millis()).unwrap();
        let line = format!("set {}\n", state.0);
        state
            .1
            .retain_mut(|follower| follower.write_all(line.as_bytes()).is_ok());
    }
}
