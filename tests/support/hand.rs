//! The hand that moves the clock of every process of a mesh.

use std::io::Write as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A clock at a Unix socket; it stands still until it is moved. Clones are the same clock.
#[derive(Clone)]
pub(crate) struct Hand {
    path: PathBuf,
    state: Arc<Mutex<(i64, Vec<UnixStream>)>>,
}

impl Hand {
    /// Starts at the time of the real clock.
    pub(crate) fn new(dir: &Path) -> Self {
        Self::named(dir, "clock.sock")
    }

    /// One of several clocks in a folder.
    pub(crate) fn named(dir: &Path, name: &str) -> Self {
        let path = dir.join(name);
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

    /// What the clock shows, in Unix milliseconds.
    pub(crate) fn shows(&self) -> i64 {
        self.state.lock().unwrap().0
    }

    /// Moves every follower forward.
    pub(crate) fn forward(&self, by: Duration) {
        self.step(i64::try_from(by.as_millis()).unwrap());
    }

    /// Moves every follower back.
    pub(crate) fn back(&self, by: Duration) {
        self.step(-i64::try_from(by.as_millis()).unwrap());
    }

    /// Has whoever reads the time panic, until the clock is moved.
    pub(crate) fn end_whoever_reads_it(&self) {
        self.say(i64::MIN);
    }

    fn step(&self, by_ms: i64) {
        let shows = {
            let mut state = self.state.lock().unwrap();
            state.0 += by_ms;
            state.0
        };
        self.say(shows);
    }

    fn say(&self, millis: i64) {
        let line = format!("set {millis}\n");
        let followers = &mut self.state.lock().unwrap().1;
        followers.retain_mut(|follower| follower.write_all(line.as_bytes()).is_ok());
    }
}
