use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

use spiffe::time::{Clock, Timestamp};

use super::{Digests, Key, Why};

#[test]
fn a_program_larger_than_the_bound_is_not_hashed() {
    let this = File::open("/proc/self").unwrap();
    let refused = Digests::new(10, Clock::system()).find(this.as_fd(), 1).unwrap_err();
    assert!(matches!(refused, Why::ScanBound("exe_bytes_max")));
}

#[test]
fn a_hash_is_remembered_once_the_file_has_settled() {
    let this = File::open("/proc/self").unwrap();
    let far = Timestamp::from_unix_millis(32_503_680_000_000);
    let digests = Digests::new(u64::MAX, Clock::fixed(far).0);
    assert_eq!(digests.known(this.as_fd(), 1).unwrap(), None);
    let hash = digests.find(this.as_fd(), 1).unwrap();
    assert_eq!(hash.len(), 64);
    assert_eq!(digests.known(this.as_fd(), 1).unwrap(), Some(hash));
}

#[test]
fn a_hash_of_a_file_that_has_just_changed_is_not_remembered() {
    let this = File::open("/proc/self").unwrap();
    let exe = File::open("/proc/self/exe").unwrap();
    let (seconds, nanos) = Key::of(&exe).unwrap().changed;
    let changed = Timestamp::from_unix_millis(seconds * 1000 + nanos / 1_000_000);
    for (later, remembered) in [(Duration::from_millis(900), false), (Duration::from_millis(1100), true)] {
        let digests = Digests::new(u64::MAX, Clock::fixed(changed + later).0);
        digests.find(this.as_fd(), 1).unwrap();
        assert_eq!(digests.known(this.as_fd(), 1).unwrap().is_some(), remembered);
    }
}
