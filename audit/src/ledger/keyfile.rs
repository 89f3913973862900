//! The file of the key that signs checkpoints.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use super::{LedgerConfig, OpenError, disk};
use crate::key::{KeyName, SignerKey};

/// Longest key file, in bytes.
const KEY_BYTES_MAX: u64 = 1024;

/// Name of the file, in the ledger's folder, that holds the verifier key.
pub(crate) const VKEY: &str = "ledger.vkey";

/// Reads the key, or makes it if the ledger is new, and writes the public half
/// into the ledger's folder.
pub(super) fn load(config: &LedgerConfig) -> Result<SignerKey, OpenError> {
    let path = &config.key_file;
    let wrong = |source| OpenError::Key {
        path: path.clone(),
        source,
    };
    let name = KeyName::parse(&config.origin).map_err(wrong)?;
    let vkey = read_vkey(config)?;
    let key = match read_key(path)? {
        Some(key) => key,
        // A ledger that has a key must not silently get another one.
        None if vkey.is_some() => return Err(OpenError::OtherKey { path: path.clone() }),
        None => make(path, name.clone())?,
    };
    let public = format!("{}\n", key.verifier());
    let same = vkey.as_ref().is_none_or(|vkey| *vkey == public.as_bytes());
    if *key.verifier().name() != name || !same {
        return Err(OpenError::OtherKey { path: path.clone() });
    }
    if vkey.is_none() {
        let path = config.dir.join(VKEY);
        disk::replace(
            &config.dir.join("ledger.tmp"),
            &path,
            public.as_bytes(),
            disk::FILE_MODE,
        )
        .map_err(|source| OpenError::File {
            doing: "write",
            path,
            source,
        })?;
    }
    Ok(key)
}

fn read_vkey(config: &LedgerConfig) -> Result<Option<Vec<u8>>, OpenError> {
    let path = config.dir.join(VKEY);
    disk::read(&path, KEY_BYTES_MAX).map_err(|source| OpenError::File {
        doing: "read",
        path,
        source,
    })
}

fn read_key(path: &Path) -> Result<Option<SignerKey>, OpenError> {
    let file = |source| OpenError::File {
        doing: "read",
        path: path.to_owned(),
        source,
    };
    let Some(bytes) = disk::read(path, KEY_BYTES_MAX).map_err(file)? else {
        return Ok(None);
    };
    let bytes = Zeroizing::new(bytes);
    let mode = fs::metadata(path).map_err(file)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(OpenError::KeyMode { path: path.to_owned() });
    }
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    let text = text.strip_suffix('\n').unwrap_or(text);
    match SignerKey::parse(text) {
        Ok(key) => Ok(Some(key)),
        Err(source) => Err(OpenError::Key {
            path: path.to_owned(),
            source,
        }),
    }
}

fn make(path: &Path, name: KeyName) -> Result<SignerKey, OpenError> {
    let key = SignerKey::generate(name).map_err(|source| OpenError::Key {
        path: path.to_owned(),
        source,
    })?;
    let text = Zeroizing::new(format!("{}\n", key.expose().as_str()));
    let draft = path.with_extension("tmp");
    disk::replace(&draft, path, text.as_bytes(), 0o600)
        .and_then(|()| path.parent().map_or(Ok(()), sync_named_folder))
        .map_err(|source| OpenError::File {
            doing: "write",
            path: path.to_owned(),
            source,
        })?;
    Ok(key)
}

fn sync_named_folder(folder: &Path) -> std::io::Result<()> {
    let here = Path::new(".");
    disk::sync_folder(if folder.as_os_str().is_empty() { here } else { folder })
}
