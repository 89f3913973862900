//! What survives a restart, in files of the state directory.
//!
//! - `join.key`: the key that claims a join token, written before the first
//!   question so that a lost answer is asked for again with the same key;
//! - `node.json`: the node SVID and its key;
//! - `bundle.json`, `slice.json`, `endpoints.json`, `time.json`: what the CA said
//!   last, so that a restart while it is away enforces the same policy.
//! - `path.key`: what paths are hashed by that are not to be written;
//! - `quarantines.json`: what operators have quarantined on this host; no eviction removes it;
//! - `svids/svids.json`: the SVIDs of bots with their keys, see [`vault`].
//!
//! Every file is 0600, written beside its place, synced and renamed.

mod vault;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ca_api::admin::Quarantine;
use policy::Generation;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use spiffe::id::{BotName, HostName};
use spiffe::svid::Serial;
use zeroize::Zeroizing;

use super::quarantine::LocalList;

/// The largest file that is read back: a slice, twice its wire bound because JSON
/// inside JSON is escaped.
const FILE_BYTES_MAX: u64 = 2 * 4 * 1024 * 1024 + 64 * 1024;

const JOIN_KEY: &str = "join.key";
const NODE: &str = "node.json";
const BUNDLE: &str = "bundle.json";
const SLICE: &str = "slice.json";
const ENDPOINTS: &str = "endpoints.json";
const TIME: &str = "time.json";
const QUARANTINES: &str = "quarantines.json";
const PATH_KEY: &str = "path.key";

/// The folder.
#[derive(Clone, Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    /// One writer at a time: a write whose waiter has gone still finishes, and two
    /// would take each other's half-written file for their own.
    writing: Arc<Mutex<()>>,
}

/// An SVID with its key, as kept.
pub(super) struct SavedSvid {
    /// PKCS#8, DER.
    pub(super) key: Zeroizing<Vec<u8>>,
    /// Leaf first.
    pub(super) chain: Vec<Vec<u8>>,
}

/// A file, as read.
struct Found {
    bytes: Zeroizing<Vec<u8>>,
    /// Its permission bits.
    mode: u32,
}

/// The trust bundle, as kept.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedBundle {
    pub(super) epoch: u64,
    pub(super) jwks: String,
}

/// The slice, as kept.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedSlice {
    pub(super) generation: Generation,
    pub(super) json: String,
}

/// Endpoints and quarantines, as kept.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedEndpoints {
    pub(super) endpoints_generation: Generation,
    pub(super) endpoints: BTreeMap<BotName, Vec<std::net::SocketAddr>>,
    pub(super) quarantines_generation: Generation,
    pub(super) quarantined_bots: BTreeSet<BotName>,
    pub(super) quarantined_hosts: BTreeSet<HostName>,
    #[serde(default)]
    pub(super) quarantined_serials: BTreeSet<Serial>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SvidFile {
    #[serde(serialize_with = "write_secret", deserialize_with = "read_secret")]
    key: Zeroizing<String>,
    chain: Vec<String>,
}

/// The time, as kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedTime {
    /// The highest time that was seen.
    pub(super) seen_unix_ms: i64,
    /// When the CA was last heard; files of earlier versions do not say.
    #[serde(default)]
    pub(super) ca_heard_unix_ms: Option<i64>,
}

impl SvidFile {
    fn new(svid: &SavedSvid) -> Self {
        Self {
            key: Zeroizing::new(STANDARD.encode(&*svid.key)),
            chain: svid.chain.iter().map(|der| STANDARD.encode(der)).collect(),
        }
    }

    fn read(&self) -> Result<SavedSvid, base64::DecodeError> {
        Ok(SavedSvid {
            key: Zeroizing::new(STANDARD.decode(&*self.key)?),
            chain: self
                .chain
                .iter()
                .map(|der| STANDARD.decode(der))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// Why the state directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It could not be made.
    #[error("make the state directory {}", path.display())]
    Make {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be written.
    #[error("write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file with a key can be read by others, so the key may be known to them.
    #[error("{} holds a key and has mode {mode:03o}: others may have read it; it must be 0600", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file does not hold what was once written to it.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl StateDir {
    /// Opens the folder, making it (0700) where it is missing.
    pub(super) fn open(path: PathBuf) -> Result<Self, StateError> {
        match DirBuilder::new().recursive(true).mode(0o700).create(&path) {
            Ok(()) => Ok(Self {
                path,
                writing: Arc::default(),
            }),
            Err(source) => Err(StateError::Make { path, source }),
        }
    }

    /// The file of the node SVID, for messages.
    pub(super) fn node_file(&self) -> PathBuf {
        self.path.join(NODE)
    }

    pub(super) fn join_key(&self) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
        self.read_secret(JOIN_KEY)
    }

    pub(super) fn save_join_key(&self, pkcs8: &[u8]) -> Result<(), StateError> {
        self.write(JOIN_KEY, pkcs8)
    }

    pub(super) fn node(&self) -> Result<Option<SavedSvid>, StateError> {
        let Some(bytes) = self.read_secret(NODE)? else {
            return Ok(None);
        };
        let file: SvidFile = self.parse(NODE, &bytes)?;
        let damaged = |error: base64::DecodeError| StateError::Damaged {
            path: self.node_file(),
            what: error.to_string(),
        };
        file.read().map(Some).map_err(damaged)
    }

    /// Keeps the node SVID; the key that claimed a token has done its work.
    pub(super) fn save_node(&self, node: &SavedSvid) -> Result<(), StateError> {
        self.write_json(NODE, &SvidFile::new(node))?;
        self.remove(JOIN_KEY)
    }

    /// Forgets every identity and the slice: the CA has evicted this host.
    pub(super) fn forget(&self) -> Result<(), StateError> {
        self.forget_svids()?;
        [NODE, JOIN_KEY, SLICE, ENDPOINTS]
            .into_iter()
            .try_for_each(|name| self.remove(name))
    }

    pub(super) fn bundle(&self) -> Result<Option<SavedBundle>, StateError> {
        self.read_json(BUNDLE)
    }

    pub(super) fn save_bundle(&self, bundle: &SavedBundle) -> Result<(), StateError> {
        self.write_json(BUNDLE, bundle)
    }

    pub(super) fn slice(&self) -> Result<Option<SavedSlice>, StateError> {
        self.read_json(SLICE)
    }

    pub(super) fn save_slice(&self, slice: &SavedSlice) -> Result<(), StateError> {
        self.write_json(SLICE, slice)
    }

    pub(super) fn endpoints(&self) -> Result<Option<SavedEndpoints>, StateError> {
        self.read_json(ENDPOINTS)
    }

    pub(super) fn save_endpoints(&self, endpoints: &SavedEndpoints) -> Result<(), StateError> {
        self.write_json(ENDPOINTS, endpoints)
    }

    /// What operators have quarantined on this host.
    pub(super) fn local_quarantines(&self) -> Result<LocalList, StateError> {
        let kept: Option<Vec<Quarantine>> = self.read_json(QUARANTINES)?;
        let kept = kept.unwrap_or_default().into_iter();
        Ok(kept.map(|quarantine| (quarantine.whom.clone(), quarantine)).collect())
    }

    pub(super) fn save_local_quarantines(&self, list: &LocalList) -> Result<(), StateError> {
        self.write_json(QUARANTINES, &list.values().collect::<Vec<_>>())
    }

    /// The time that was written last.
    pub(super) fn time(&self) -> Result<Option<SavedTime>, StateError> {
        self.read_json(TIME)
    }

    pub(super) fn save_time(&self, time: &SavedTime) -> Result<(), StateError> {
        self.write_json(TIME, time)
    }

    /// The key by which paths are hashed.
    pub(super) fn path_key(&self) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
        self.read_secret(PATH_KEY)
    }

    pub(super) fn save_path_key(&self, key: &[u8]) -> Result<(), StateError> {
        self.write(PATH_KEY, key)
    }

    /// Says why there is no such key.
    pub(super) fn no_path_key(&self, what: String) -> StateError {
        StateError::Damaged {
            path: self.path.join(PATH_KEY),
            what,
        }
    }

    fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        let Some(found) = self.read(name)? else {
            return Ok(None);
        };
        self.parse(name, &found.bytes).map(Some)
    }

    fn parse<T: DeserializeOwned>(&self, name: &str, bytes: &[u8]) -> Result<T, StateError> {
        // The reader's own message could quote a key: it says where, and not what.
        serde_json::from_slice(bytes).map_err(|error| StateError::Damaged {
            path: self.path.join(name),
            what: format!(
                "no valid JSON of its kind, at line {} column {}",
                error.line(),
                error.column()
            ),
        })
    }

    fn read_secret(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
        match self.read(name)? {
            Some(found) if found.mode & 0o077 != 0 => Err(StateError::Exposed {
                path: self.path.join(name),
                mode: found.mode,
            }),
            Some(found) => Ok(Some(found.bytes)),
            None => Ok(None),
        }
    }

    fn read(&self, name: &str) -> Result<Option<Found>, StateError> {
        let path = self.path.join(name);
        let read = || -> io::Result<Found> {
            let file = File::open(&path)?;
            let mode = file.metadata()?.permissions().mode() & 0o777;
            let room = file.metadata()?.len().min(FILE_BYTES_MAX).saturating_add(1);
            // Room for all of it from the start: a vector that grows leaves copies behind.
            let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(room).unwrap_or_default()));
            file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
            Ok(Found { bytes, mode })
        };
        match read() {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::Read { path, source }),
        }
    }

    fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        let bytes = serde_json::to_vec(value).map_err(|source| StateError::Write {
            path: self.path.join(name),
            source: source.into(),
        })?;
        self.write(name, &Zeroizing::new(bytes))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let path = self.path.join(name);
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        replace(&path, bytes).map_err(|source| StateError::Write { path, source })
    }

    fn remove(&self, name: &str) -> Result<(), StateError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(StateError::Write { path, source }),
        }
    }
}

fn write_secret<S: Serializer>(text: &Zeroizing<String>, output: S) -> Result<S::Ok, S::Error> {
    output.serialize_str(text)
}

fn read_secret<'de, D: Deserializer<'de>>(input: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(input).map(Zeroizing::new)
}

/// Replaces a file so that a reader, or a power loss, sees the old or the new one.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // `create_new` follows no link that somebody put there.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
