use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{Among, Bounds, Holder, Why, holders};

const WIDE: Bounds = Bounds {
    processes_max: 1 << 16,
    fds_max: 1 << 20,
    holders_max: 64,
    time_max: Duration::from_secs(60),
    skip_unreadable: true,
};

fn find(among: &Among, inode: u64, bounds: Bounds) -> Result<Vec<Holder>, Why> {
    holders(
        File::open("/proc").unwrap().as_fd(),
        among,
        &BTreeSet::from([inode]),
        bounds,
    )
}

/// A socket that this process holds under two numbers.
fn twice() -> (UnixStream, UnixStream, u64) {
    let (one, _) = UnixStream::pair().unwrap();
    let two = one.try_clone().unwrap();
    let inode = File::from(OwnedFd::from(one.try_clone().unwrap()))
        .metadata()
        .unwrap()
        .ino();
    (one, two, inode)
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[test]
fn every_way_of_looking_finds_the_process_once() {
    let (one, two, inode) = twice();
    let pid = std::process::id();
    let numbers = [&one, &two].map(|socket| socket.as_raw_fd().cast_unsigned());
    for among in [
        Among::User(own_uid()),
        Among::Listed(vec![1, pid], own_uid()),
        Among::One(pid),
        Among::Everyone,
    ] {
        let mut found = find(&among, inode, WIDE).unwrap();
        // A child that another test starts holds all that this process holds until it executes.
        found.retain(|holder| holder.pid == pid);
        assert_eq!(found.len(), 1, "{among:?}");
        assert!(found[0].inode == inode && numbers.contains(&found[0].fd), "{among:?}");
    }
}

#[test]
fn processes_of_another_user_are_left_out_where_only_one_user_is_meant() {
    let (_one, _two, inode) = twice();
    assert_eq!(find(&Among::User(own_uid() + 1), inode, WIDE).unwrap(), []);
    assert_eq!(
        find(&Among::Listed(vec![std::process::id()], own_uid() + 1), inode, WIDE).unwrap(),
        []
    );
}

#[test]
fn a_bound_that_is_met_is_an_error_and_not_a_shorter_answer() {
    let (_one, _two, inode) = twice();
    let this = Among::One(std::process::id());
    let word = |among: &Among, bounds| match find(among, inode, bounds) {
        Err(Why::ScanBound(bound)) => bound,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        word(
            &Among::Everyone,
            Bounds {
                processes_max: 0,
                ..WIDE
            }
        ),
        "processes_max"
    );
    assert_eq!(word(&this, Bounds { fds_max: 2, ..WIDE }), "fds_max");
    assert_eq!(word(&this, Bounds { holders_max: 0, ..WIDE }), "holders_max");
    assert_eq!(
        word(
            &this,
            Bounds {
                time_max: Duration::ZERO,
                ..WIDE
            }
        ),
        "time_max"
    );
}

#[test]
fn a_process_that_is_gone_holds_nothing() {
    assert_eq!(find(&Among::One(u32::MAX), 1, WIDE).unwrap(), []);
}
