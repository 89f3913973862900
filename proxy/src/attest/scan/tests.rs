use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{Among, Bounds, Holder, Near, Why, holders};

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
        (bounds, &Near::default()),
    )
}

/// A socket of this process at a number from `least` on.
fn at_number(least: i32) -> (OwnedFd, u64, u32) {
    let (one, _) = UnixStream::pair().unwrap();
    let high = rustix::io::fcntl_dupfd_cloexec(&one, least).unwrap();
    let number = high.as_raw_fd().cast_unsigned();
    let inode = File::from(high.try_clone().unwrap()).metadata().unwrap().ino();
    (high, inode, number)
}

#[test]
fn the_next_socket_of_a_process_with_many_files_is_found_where_the_last_one_was() {
    let files: Vec<File> = (0..200).map(|_| File::open("/proc/version").unwrap()).collect();
    let near = Near::default();
    let few = Bounds { fds_max: 16, ..WIDE };
    let among = Among::One(std::process::id());
    let look = |inode: u64, bounds| {
        let folder = File::open("/proc").unwrap();
        holders(folder.as_fd(), &among, &BTreeSet::from([inode]), (bounds, &near))
    };
    let (_first, inode, number) = at_number(700);
    assert!(
        matches!(look(inode, few), Err(Why::ScanBound("fds_max"))),
        "all must be listed at first"
    );
    assert_eq!(look(inode, WIDE).unwrap()[0].fd, number);
    let (_second, inode, next) = at_number(700);
    assert!(next > number && next <= number + 6, "{next}");
    assert_eq!(
        look(inode, few).unwrap(),
        [Holder {
            inode,
            pid: std::process::id(),
            fd: next
        }]
    );
    // What is not near is found by listing, and what is no more held is not found at all.
    let (far, inode, number) = at_number(900);
    assert!(matches!(look(inode, few), Err(Why::ScanBound("fds_max"))));
    assert_eq!(look(inode, WIDE).unwrap()[0].fd, number);
    drop(far);
    assert_eq!(look(inode, WIDE).unwrap(), []);
    drop(files);
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
