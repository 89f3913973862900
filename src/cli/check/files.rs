//! Folders and files of servers: who owns them, and who else gets in.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::Looks;

/// More files than a server keeps beside its ledger.
const FILES_MAX: usize = 1_000;

/// Others may write; with the sticky bit they cannot take away what is not theirs.
const WRITABLE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Says who owns a path, where that can be seen.
pub(super) fn owner(path: &Path) -> Option<u32> {
    std::fs::metadata(path).ok().map(|found| found.uid())
}

/// A folder that holds keys: the server's own. Its group may look in, for the ledger; nobody else may, and none may write.
pub(super) fn private_folder(part: &'static str, path: &Path, uid: u32, looks: &mut Looks) {
    let what = format!("state folder {}", path.display());
    match std::fs::metadata(path) {
        Err(error) => looks.untried(part, what, error.to_string()),
        Ok(found) if found.uid() != uid => {
            let seen = format!("belongs to uid {}, the server is uid {uid}", found.uid());
            looks.finding(part, what, seen, format!("chown -R {uid} {}", path.display()));
        }
        Ok(found) if found.mode() & 0o027 != 0 => {
            let seen = format!("mode {:04o}: others get in", found.mode() & 0o7777);
            looks.finding(part, what, seen, format!("chmod 0700 {}", path.display()));
        }
        Ok(_) => looks.ok(part, what, "closed to others"),
    }
}

/// Files with keys directly in a folder: for their owner alone.
pub(super) fn secrets(part: &'static str, folder: &Path, looks: &mut Looks) {
    match exposed(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => looks.untried(part, format!("keys in {}", folder.display()), error.to_string()),
        Ok(exposed) if exposed.is_empty() => {
            looks.ok(part, format!("keys in {}", folder.display()), "for their owner alone");
        }
        Ok(exposed) => {
            for (path, mode) in exposed {
                looks.finding(
                    part,
                    format!("key {}", path.display()),
                    format!("mode {mode:04o}: others may have read it"),
                    "chmod 0600, and replace the key: evict the host and let it join again, or make another CA",
                );
            }
        }
    }
}

/// The files with keys that others may read or write.
fn exposed(folder: &Path) -> io::Result<Vec<(PathBuf, u32)>> {
    let mut exposed = Vec::new();
    for entry in std::fs::read_dir(folder)?.take(FILES_MAX) {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let secret = name.ends_with(".key") || ["node.json", "svids.json", "kek"].contains(&name.as_ref());
        let found = entry.metadata()?;
        if secret && found.is_file() && found.mode() & 0o077 != 0 {
            exposed.push((entry.path(), found.mode() & 0o7777));
        }
    }
    exposed.sort();
    Ok(exposed)
}

/// A folder of sockets: nobody but root and the server may put a socket there, or move a folder above it away.
pub(super) fn socket_folder(part: &'static str, folder: &Path, uid: u32, looks: &mut Looks) {
    let what = format!("socket folder {}", folder.display());
    for (depth, above) in folder.ancestors().enumerate() {
        match std::fs::metadata(above) {
            Err(error) => return looks.untried(part, what, format!("{}: {error}", above.display())),
            Ok(found) => {
                if let Some(seen) = taken_over(&found, uid, depth == 0) {
                    let todo = "keep sockets in a folder of root with mode 0755, such as /run/botmesh";
                    return looks.finding(part, what, format!("{}: {seen}", above.display()), todo);
                }
            }
        }
    }
    looks.ok(part, what, "only root and the server can put sockets there");
}

/// Why somebody else could put a socket of his own into the folder; a sticky folder will do above it, and not as itself.
fn taken_over(found: &Metadata, uid: u32, itself: bool) -> Option<String> {
    let mode = found.mode();
    if found.uid() != 0 && found.uid() != uid {
        return Some(format!("belongs to uid {}", found.uid()));
    }
    let sticky = mode & STICKY != 0 && !itself;
    (mode & WRITABLE != 0 && !sticky).then(|| format!("mode {:04o}: others may write", mode & 0o7777))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn findings(look: impl FnOnce(&mut Looks)) -> usize {
        let mut looks = Looks::default();
        look(&mut looks);
        looks.findings()
    }

    #[test]
    fn a_state_folder_that_others_enter_or_own_is_a_finding() {
        let dir = tempfile::tempdir().unwrap();
        let me = owner(dir.path()).unwrap();
        for (mode, uid, count) in [
            (0o700, me, 0),
            (0o750, me, 0),
            (0o770, me, 1),
            (0o701, me, 1),
            (0o700, me + 1, 1),
        ] {
            fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
            let found = findings(|looks| private_folder("x", dir.path(), uid, looks));
            assert_eq!(found, count, "{mode:o} {uid}");
        }
    }

    #[test]
    fn a_key_that_others_may_read_is_a_finding_and_other_files_are_not() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["kek", "node.json", "svids.json", "log.key", "bundle.json"] {
            let file = dir.path().join(name);
            fs::write(&file, "x").unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        }
        assert_eq!(findings(|looks| secrets("x", dir.path(), looks)), 0);
        for (name, count) in [
            ("kek", 1),
            ("node.json", 2),
            ("log.key", 3),
            ("svids.json", 4),
            ("bundle.json", 4),
        ] {
            fs::set_permissions(dir.path().join(name), Permissions::from_mode(0o640)).unwrap();
            assert_eq!(findings(|looks| secrets("x", dir.path(), looks)), count, "{name}");
        }
    }

    #[test]
    fn a_socket_folder_that_others_write_is_a_finding_sticky_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let me = owner(dir.path()).unwrap();
        for (mode, count) in [(0o755, 0), (0o775, 1), (0o757, 1), (0o1777, 1)] {
            fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
            let found = findings(|looks| socket_folder("x", dir.path(), me, looks));
            assert_eq!(found, count, "{mode:o}");
        }
    }

    #[test]
    fn a_folder_above_may_be_sticky_and_not_open() {
        let dir = tempfile::tempdir().unwrap();
        let (me, inner) = (owner(dir.path()).unwrap(), dir.path().join("run"));
        fs::create_dir(&inner).unwrap();
        for (mode, count) in [(0o755, 0), (0o1777, 0), (0o777, 1)] {
            fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
            assert_eq!(
                findings(|looks| socket_folder("x", &inner, me, looks)),
                count,
                "{mode:o}"
            );
        }
    }
}
