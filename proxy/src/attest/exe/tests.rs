use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Doubt, Suspect, check_unwritable, file_id};
use crate::attest::procfs::Credentials;

/// Nobody that owns anything here.
const BOT: u32 = 61_009;

/// A folder `way/bin` with the program `orders` in it, as an administrator would have made it.
fn installed() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("way/bin/orders");
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    fs::write(&program, "program").unwrap();
    mode(folder.path(), 0o755);
    mode(&folder.path().join("way"), 0o755);
    mode(&folder.path().join("way/bin"), 0o755);
    mode(&program, 0o755);
    (folder, program)
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn check_as(path: &Path, uid: u32, groups: &[u32]) -> Result<(), Doubt> {
    let credentials = Credentials {
        uids: [uid; 4],
        gids: [BOT; 4],
        groups: groups.to_vec(),
    };
    check_unwritable(path, &Suspect::new(uid, &credentials))
}

fn check(path: &Path) -> Result<(), Doubt> {
    check_as(path, BOT, &[])
}

fn own_gid() -> u32 {
    rustix::process::getegid().as_raw()
}

#[test]
fn a_program_of_the_administrator_is_believed() {
    let (_folder, program) = installed();
    check(&program).unwrap();
}

#[test]
fn a_program_that_all_can_write_is_not() {
    let (_folder, program) = installed();
    mode(&program, 0o757);
    assert!(matches!(check(&program), Err(Doubt::Writable(path)) if path == program));
}

#[test]
fn a_folder_on_the_way_that_all_can_write_is_found() {
    let (folder, program) = installed();
    let way = folder.path().join("way");
    mode(&way, 0o757);
    assert!(matches!(check(&program), Err(Doubt::Writable(path)) if path == way));
    // In a sticky folder only the owner of an entry may replace it.
    mode(&way, 0o1777);
    check(&program).unwrap();
}

#[test]
fn a_group_that_can_write_counts_for_its_members() {
    let (folder, program) = installed();
    mode(&folder.path().join("way"), 0o775);
    check(&program).unwrap();
    assert!(matches!(
        check_as(&program, BOT, &[5, own_gid()]),
        Err(Doubt::Writable(_))
    ));
}

#[test]
fn what_the_bot_owns_it_can_write() {
    let (_folder, program) = installed();
    let owner = rustix::process::geteuid().as_raw();
    assert!(matches!(check_as(&program, owner, &[]), Err(Doubt::Writable(_))));
}

#[test]
fn a_link_is_followed_through_the_folders_that_it_leads_through() {
    let (folder, program) = installed();
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    mode(&other, 0o755);
    symlink(&program, other.join("second")).unwrap();
    symlink("../other/second", folder.path().join("way/first")).unwrap();
    let first = folder.path().join("way/first");
    check(&first).unwrap();
    assert_eq!(file_id(&first), file_id(&program));
    // The folder in the middle is neither on the path that is configured nor on that of the program.
    mode(&other, 0o757);
    assert!(matches!(check(&first), Err(Doubt::Writable(path)) if path.ends_with("other")));
    check(&program).unwrap();
}

#[test]
fn a_way_up_does_not_lead_around_the_check() {
    let (folder, program) = installed();
    let open = folder.path().join("open");
    fs::create_dir(&open).unwrap();
    mode(&open, 0o757);
    let around = folder.path().join("open/../way/bin/orders");
    assert_eq!(file_id(&around), file_id(&program));
    assert!(matches!(check(&around), Err(Doubt::Writable(path)) if path.ends_with("open")));
}

#[test]
fn links_that_lead_in_a_circle_end() {
    let (folder, _program) = installed();
    let circle = folder.path().join("circle");
    symlink("circle", &circle).unwrap();
    assert!(matches!(check(&circle), Err(Doubt::TooManyLinks(_))));
}

#[test]
fn a_relative_or_absent_path_is_not_believed() {
    let (folder, _program) = installed();
    assert!(matches!(check(Path::new("bin/orders")), Err(Doubt::NotAbsolute(_))));
    assert!(matches!(
        check(&folder.path().join("absent")),
        Err(Doubt::Unreadable(..))
    ));
}
