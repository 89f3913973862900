//! A disk or budget without room: calls are refused, and taken again when
//! there is room.

use std::fs;
use std::process::Command;

use audit::LedgerError;

use crate::support::{Place, call, end};

#[test]
fn a_used_up_budget_refuses_calls_but_takes_the_ends_of_admitted_ones() {
    let mut place = Place::new();
    place.max_bytes = 100_000;
    let ledger = place.open();
    let mut admitted = 0;
    let refused = loop {
        match ledger.call(&call(admitted)) {
            Ok(_) => admitted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, LedgerError::Full { .. }), "{refused}");
    assert!((100..200).contains(&admitted), "{admitted}");
    ledger.end(&end(0));
    ledger.end(&end(1));
    ledger.shutdown();
    assert_eq!(place.lines_of("end").len(), 2);
    // It stays full, and says so, when it is opened again.
    drop(ledger);
    assert!(matches!(place.open().call(&call(0)), Err(LedgerError::Full { .. })));
}

#[test]
fn the_calls_of_a_turn_share_the_budget_before_they_are_written() {
    let mut place = Place::new();
    place.max_bytes = 100_000;
    let ledger = place.open();
    let mut staged = Vec::new();
    let refused = loop {
        match ledger.stage(&call(staged.len() as u64)) {
            Ok(one) => staged.push(one),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, LedgerError::Full { .. }), "{refused}");
    assert!((100..200).contains(&staged.len()), "{}", staged.len());
    ledger.commit();
    for one in &staged {
        let _receipt = one.receipt().unwrap().unwrap();
    }
    assert!(matches!(ledger.call(&call(0)), Err(LedgerError::Full { .. })));
}

/// A file system of a megabyte, where this machine lets us make one.
struct Small(Place);

impl Small {
    fn mount() -> Option<Self> {
        let place = Place::new();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(place.folder.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(Self(place))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(self.0.folder.path()).status();
        assert!(done.unwrap().success());
    }
}

#[test]
fn a_full_disk_refuses_calls_and_takes_them_again_when_there_is_room() {
    let Some(small) = Small::mount() else {
        eprintln!("skipped: mounting a file system takes root");
        return;
    };
    let place = &small.0;
    let ledger = place.open();
    let ballast = place.folder.path().join("ballast");
    fs::write(&ballast, vec![0; 700 * 1024]).unwrap();
    let mut answered = Vec::new();
    let refused = loop {
        match ledger.call(&call(answered.len() as u64)) {
            Ok(receipt) => answered.push(receipt.index()),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, LedgerError::Append { .. }), "{refused}");
    assert!(
        matches!(ledger.call(&call(0)), Err(LedgerError::Append { .. })),
        "still full"
    );
    fs::remove_file(&ballast).unwrap();
    for _ in 0..100 {
        answered.push(ledger.call(&call(answered.len() as u64)).unwrap().index());
    }
    ledger.shutdown();
    let calls = place.lines_of("call");
    assert_eq!(calls.len(), answered.len());
    for (number, line) in calls.iter().enumerate() {
        assert_eq!(line["path"], format!("/orders/{number}"));
    }
    assert_eq!(place.verify().unwrap().torn_bytes, 0);
    assert_eq!(ledger.stats().trouble, None);
}

#[test]
fn a_full_disk_refuses_all_calls_of_a_turn_and_keeps_none_of_them() {
    let Some(mut small) = Small::mount() else {
        eprintln!("skipped: mounting a file system takes root");
        return;
    };
    // Longer than the test: the ledger's own thread writes nothing meanwhile.
    small.0.sync = std::time::Duration::from_secs(10);
    let place = &small.0;
    let ledger = place.open();
    let ballast = place.folder.path().join("ballast");
    fs::write(&ballast, vec![0; 700 * 1024]).unwrap();
    let mut answered = 0;
    let mut turn = || {
        let staged: Vec<_> = (0..64).map(|n| ledger.stage(&call(answered + n)).unwrap()).collect();
        assert!(
            staged.iter().all(|one| one.receipt().is_none()),
            "nothing is written yet"
        );
        ledger.commit();
        let receipts: Vec<_> = staged.iter().map(|one| one.receipt().unwrap()).collect();
        let written = receipts.iter().filter(|receipt| receipt.is_ok()).count() as u64;
        answered += written;
        let refused = receipts.into_iter().filter_map(Result::err);
        (written, refused.map(|error| error.to_string()).collect::<Vec<_>>())
    };
    let refused = loop {
        let (written, refused) = turn();
        assert!(written == 64 || written == 0, "{written} of a turn");
        if written == 0 {
            break refused;
        }
    };
    assert_eq!(refused, vec!["the records of a turn were not written"; 64]);
    fs::remove_file(&ballast).unwrap();
    assert_eq!(turn().0, 64);
    ledger.shutdown();
    let calls = place.lines_of("call");
    assert_eq!(calls.len() as u64, answered);
    for (number, line) in calls.iter().enumerate() {
        assert_eq!(line["path"], format!("/orders/{number}"));
    }
    place.verify().unwrap();
}
