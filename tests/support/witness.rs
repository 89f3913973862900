//! A witness for tests (C2SP tlog-witness, `add-checkpoint`), on a loopback port. It follows the standard, unless a test has it
//! do otherwise.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "the suite and that of the CA use it, each a part of it; tests fail by panicking"
)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit::hash::Hash;
use audit::key::KeyName;
use audit::note::Note;
use audit::proof::extends;
use audit::{Checkpoint, Cosigner, CosignerKey, VerifierKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use spiffe::time::Timestamp;

/// What it does otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Nothing.
    #[default]
    Honest,
    /// It hangs up.
    HangsUp,
    /// Whatever is asked, it answers so.
    Says(&'static str, &'static str, String),
    /// It cosigns by a key that is not the one that it is known by.
    OtherKey,
    /// It cosigns what it was not told.
    Lies,
    /// It cosigns as of an hour ago.
    Late,
}

#[derive(Default)]
struct State {
    manner: Manner,
    /// The keys of the ledgers that it knows, by origin.
    ledgers: BTreeMap<String, VerifierKey>,
    /// What it has cosigned last.
    seen: BTreeMap<String, (u64, Hash)>,
    questions: Vec<String>,
}

/// The witness; it stops when it is dropped.
pub(crate) struct Witness {
    key: Arc<CosignerKey>,
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    ended: Arc<AtomicBool>,
}

impl Witness {
    /// Starts one; `now` says its time in Unix milliseconds.
    pub(crate) fn start(name: &str, now: impl Fn() -> i64 + Send + 'static) -> Self {
        let key = Arc::new(CosignerKey::generate(KeyName::parse(name).unwrap()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let ended = Arc::new(AtomicBool::new(false));
        let (own_key, own_state, own_end) = (Arc::clone(&key), Arc::clone(&state), Arc::clone(&ended));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if own_end.load(Ordering::Relaxed) {
                    return;
                }
                let _answered = serve(stream, &own_key, &own_state, now());
            }
        });
        Self {
            key,
            address,
            state,
            ended,
        }
    }

    /// How `ca.yaml` names it.
    pub(crate) fn setting(&self) -> serde_json::Value {
        serde_json::json!({"url": format!("http://{}/w", self.address), "key": self.cosigner().to_string()})
    }

    pub(crate) fn cosigner(&self) -> Cosigner {
        self.key.verifier()
    }

    /// Tells it of a ledger, as its operator does.
    pub(crate) fn knows(&self, vkey: &str) {
        let key = VerifierKey::parse(vkey).unwrap();
        self.state.lock().unwrap().ledgers.insert(key.name().to_string(), key);
    }

    pub(crate) fn set(&self, manner: Manner) {
        self.state.lock().unwrap().manner = manner;
    }

    /// The size that it has cosigned last of a ledger.
    pub(crate) fn seen(&self, origin: &str) -> Option<u64> {
        self.state.lock().unwrap().seen.get(origin).map(|(size, _)| *size)
    }

    /// Has it have seen something else.
    pub(crate) fn pretend(&self, origin: &str, size: u64, root: Hash) {
        self.state.lock().unwrap().seen.insert(origin.to_owned(), (size, root));
    }

    /// What it was asked: the bodies.
    pub(crate) fn questions(&self) -> Vec<String> {
        self.state.lock().unwrap().questions.clone()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _woken = TcpStream::connect(self.address);
    }
}

/// A status, a type and a body.
type Answer = (String, String, String);

fn serve(stream: TcpStream, key: &CosignerKey, state: &Mutex<State>, now: i64) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim_end().is_empty() {
            break;
        }
        head.push(line.trim_end().to_owned());
    }
    let Some(first) = head.first() else { return Ok(()) };
    let length = head.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8(body).unwrap();
    let mut state = state.lock().unwrap();
    state.questions.push(body.clone());
    if state.manner == Manner::HangsUp {
        return Ok(());
    }
    let (status, kind, text) = if first == "POST /w/add-checkpoint HTTP/1.1" {
        answer(&mut state, key, &body, now)
    } else {
        ("400 Bad Request".to_owned(), "text/plain".to_owned(), first.clone())
    };
    drop(state);
    let length = text.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let mut writer = stream;
    writer.write_all(head.as_bytes())?;
    writer.write_all(text.as_bytes())
}

fn answer(state: &mut State, key: &CosignerKey, body: &str, now: i64) -> Answer {
    let plain = |status: &str| (status.to_owned(), "text/plain".to_owned(), String::new());
    let manner = state.manner.clone();
    if let Manner::Says(status, kind, text) = manner {
        return (status.to_owned(), kind.to_owned(), text);
    }
    let Some((old, proof, note)) = question(body) else {
        return plain("400 Bad Request");
    };
    let origin = note.text().lines().next().unwrap_or_default().to_owned();
    let Some(ledger) = state.ledgers.get(&origin) else {
        return plain("404 Not Found");
    };
    let Ok(checkpoint) = Checkpoint::open(note.to_string().as_bytes(), ledger) else {
        return plain("403 Forbidden");
    };
    if old > checkpoint.size {
        return plain("400 Bad Request");
    }
    let seen = state.seen.get(&origin).copied();
    let (size, root) = seen.unwrap_or((0, Hash::of_empty_tree()));
    let is_other = old == checkpoint.size && root != checkpoint.root && size > 0;
    if old != size || is_other {
        return (
            "409 Conflict".to_owned(),
            "text/x.tlog.size".to_owned(),
            format!("{size}\n"),
        );
    }
    if size > 0 && !extends((size, &root), (checkpoint.size, &checkpoint.root), &proof) {
        return plain("422 Unprocessable Entity");
    }
    state.seen.insert(origin, (checkpoint.size, checkpoint.root));
    let at = if manner == Manner::Late { now - 3_600_000 } else { now };
    let other = CosignerKey::generate(key.verifier().name().clone()).unwrap();
    let key = if manner == Manner::OtherKey { &other } else { key };
    let note = if manner == Manner::Lies {
        let text = note.to_string().replacen('\n', "/other\n", 1);
        Note::parse(text.as_bytes()).unwrap()
    } else {
        note
    };
    let cosigned = key.cosign(&note, Timestamp::from_unix_millis(at)).unwrap().to_string();
    let line = cosigned.lines().last().unwrap();
    ("200 OK".to_owned(), "text/plain".to_owned(), format!("{line}\n"))
}

/// Reads a question strictly.
fn question(body: &str) -> Option<(u64, Vec<Hash>, Note)> {
    let (head, note) = body.split_once("\n\n")?;
    let mut lines = head.split('\n');
    let digits = lines.next()?.strip_prefix("old ")?;
    let old: u64 = digits.parse().ok()?;
    let proof: Option<Vec<Hash>> = lines
        .map(|line| Some(Hash::from_bytes(BASE64.decode(line).ok()?.try_into().ok()?)))
        .collect();
    let proof = proof.filter(|proof| proof.len() <= 63 && (old > 0 || proof.is_empty()))?;
    let note = Note::parse(note.as_bytes()).ok()?;
    (old.to_string() == digits).then_some((old, proof, note))
}
