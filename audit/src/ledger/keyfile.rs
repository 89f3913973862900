//! The file of the key that signs checkpoints.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use super::{LedgerConfig, OpenError, disk};
use crate::epoch;
use crate::key::{KeyName, SignerKey, VerifierKey};

/// Longest key file, in bytes.
const KEY_BYTES_MAX: u64 = 1024;

/// Name of the file, in the ledger's folder, that holds the verifier key.
pub(crate) const VKEY: &str = "ledger.vkey";

/// Reads the key, or makes it if the ledger is new, and writes the public half
/// into the ledger's folder. Both have the name of the epoch that the ledger is in.
pub(super) fn load(config: &LedgerConfig) -> Result<SignerKey, OpenError> {
    let path = &config.key_file;
    let wrong = |source| OpenError::Key {
        path: path.clone(),
        source,
    };
    let name = KeyName::parse(&config.origin).map_err(wrong)?;
    let other = || OpenError::OtherKey { path: path.clone() };
    let vkey = read_vkey(config)?;
    let key = match read_key(path)? {
        Some(key) => key,
        // A ledger that has a key must not silently get another one.
        None if vkey.is_some() => return Err(other()),
        None => make(path, name.clone())?,
    };
    let own = key.verifier();
    if epoch::of(&name, own.name()).is_none() {
        return Err(OpenError::OtherLedger {
            path: path.clone(),
            found: own.name().to_string(),
        });
    }
    let Some(vkey) = vkey else {
        write_vkey(config, &own)?;
        return Ok(key);
    };
    let text = std::str::from_utf8(&vkey).ok().and_then(|text| text.strip_suffix('\n'));
    let vkey = text.and_then(|text| VerifierKey::parse(text).ok()).ok_or_else(other)?;
    if !own.is_same_in_an_epoch(&vkey) {
        return Err(other());
    }
    // One of the two is ahead where a crash came between them, or one was set back.
    if own.in_epoch(vkey.name()).is_none() {
        let key = key.renamed(vkey.name().clone()).map_err(wrong)?;
        write_key(path, &key)?;
        return Ok(key);
    }
    if own != vkey {
        write_vkey(config, &own)?;
    }
    Ok(key)
}

/// Reads the key under the name of the ledger's first epoch, which what is said in all of them is signed with.
pub(super) fn first_name(config: &LedgerConfig) -> Result<SignerKey, OpenError> {
    let wrong = |source| OpenError::Key {
        path: config.key_file.clone(),
        source,
    };
    let name = KeyName::parse(&config.origin).map_err(wrong)?;
    load(config)?.renamed(name).map_err(wrong)
}

/// Gives the key the name of a new epoch, on the disk too: first the secret half, so that the public one is never ahead of
/// what can sign.
pub(super) fn rename(config: &LedgerConfig, key: &SignerKey, name: KeyName) -> Result<SignerKey, OpenError> {
    let path = &config.key_file;
    let key = key.renamed(name).map_err(|source| OpenError::Key {
        path: path.clone(),
        source,
    })?;
    write_key(path, &key)?;
    write_vkey(config, &key.verifier())?;
    Ok(key)
}

/// Says which epoch the ledger is known to be in, as far as its key files can be read.
pub(super) fn known_epoch(config: &LedgerConfig) -> u32 {
    let Ok(ledger) = KeyName::parse(&config.origin) else {
        return 1;
    };
    let key = read_key(&config.key_file).ok().flatten();
    let key = key.map(|key| key.verifier().name().clone());
    let vkey = read_vkey(config).ok().flatten();
    let vkey = vkey.and_then(|vkey| {
        let text = String::from_utf8(vkey).ok()?;
        Some(VerifierKey::parse(text.trim_end()).ok()?.name().clone())
    });
    let epochs = [key, vkey].into_iter().flatten();
    epochs.filter_map(|name| epoch::of(&ledger, &name)).max().unwrap_or(1)
}

/// Gives the key in the key file, if it is one of the ledger.
pub(super) fn usable(config: &LedgerConfig) -> Option<SignerKey> {
    let ledger = KeyName::parse(&config.origin).ok()?;
    let key = read_key(&config.key_file).ok().flatten()?;
    epoch::of(&ledger, key.verifier().name()).map(|_epoch| key)
}

/// Makes a key for an epoch in which there was none, in the place of whatever is there.
pub(super) fn make_anew(config: &LedgerConfig, name: KeyName) -> Result<SignerKey, OpenError> {
    let key = make(&config.key_file, name)?;
    write_vkey(config, &key.verifier())?;
    Ok(key)
}

/// Writes the public half into the ledger's folder.
fn write_vkey(config: &LedgerConfig, key: &VerifierKey) -> Result<(), OpenError> {
    let path = config.dir.join(VKEY);
    let draft = config.dir.join("ledger.tmp");
    disk::replace(&draft, &path, format!("{key}\n").as_bytes(), disk::FILE_MODE)
        .and_then(|()| disk::sync_folder(&config.dir))
        .map_err(|source| OpenError::File {
            doing: "write",
            path,
            source,
        })
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
    write_key(path, &key)?;
    Ok(key)
}

fn write_key(path: &Path, key: &SignerKey) -> Result<(), OpenError> {
    let text = Zeroizing::new(format!("{}\n", key.expose().as_str()));
    let draft = path.with_extension("tmp");
    disk::replace(&draft, path, text.as_bytes(), 0o600)
        .and_then(|()| path.parent().map_or(Ok(()), sync_named_folder))
        .map_err(|source| OpenError::File {
            doing: "write",
            path: path.to_owned(),
            source,
        })
}

fn sync_named_folder(folder: &Path) -> std::io::Result<()> {
    let here = Path::new(".");
    disk::sync_folder(if folder.as_os_str().is_empty() { here } else { folder })
}
