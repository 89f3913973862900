use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use spiffe::id::BotName;
use spiffe::time::Clock;

use super::{Held, Hold, Lost};
use crate::attest::AttestConfig;
use crate::attest::entries::Current;
use crate::attest::error::Why;
use crate::attest::helper::tests::helper;
use crate::attest::kernel::Kernel;
use crate::attest::pin::Ask;
use crate::attest::scan::Holder;

/// This process, held as a bot over a Unix socket.
fn hold() -> Hold {
    hold_by(Kernel::new(AttestConfig::default(), Clock::system()).unwrap())
}

fn hold_by(kernel: Kernel) -> Hold {
    let pin = kernel.pin(std::process::id(), Ask::default()).unwrap();
    Hold {
        kernel: Arc::new(kernel),
        current: Arc::new(Current::new()),
        bot: BotName::parse("prod/orders").unwrap(),
        version: AtomicU64::new(0),
        run: false,
        held: vec![Held::new(pin, 0)],
        inode: None,
        over: None,
        lost: OnceLock::new(),
    }
}

#[test]
fn a_connection_that_a_sweep_could_not_look_after_is_refused() {
    let hold = hold();
    hold.check().unwrap();
    hold.lost.set(Lost::Unswept("fds_max")).unwrap();
    assert!(matches!(hold.check(), Err(Why::ScanBound("fds_max"))));
}

#[test]
fn what_a_sweep_found_stands() {
    let hold = hold();
    hold.lost
        .set(Lost::Foreign {
            pid: 7,
            what: "prod/quotes".to_owned(),
        })
        .unwrap();
    assert!(matches!(hold.check(), Err(Why::ForeignHolder { pid: 7, .. })));
}

#[test]
fn a_process_that_no_operator_bound_is_refused_where_a_binding_made_it_the_bot() {
    let hold = Hold { run: true, ..hold() };
    assert!(matches!(hold.check(), Err(Why::RunBroken(_))));
}

#[test]
fn a_socket_that_no_held_process_has_is_refused() {
    let hold = Hold {
        inode: Some(u64::MAX),
        ..hold()
    };
    assert!(matches!(hold.check(), Err(Why::NoHolder { .. })));
}

#[test]
fn a_socket_that_its_process_gave_away_is_found_by_the_sweep_where_a_helper_looks() {
    let (socket, _other) = UnixStream::pair().unwrap();
    let file = File::from(OwnedFd::from(socket.try_clone().unwrap()));
    let inode = file.metadata().unwrap().ino();
    drop(file);
    let hold = Hold {
        inode: Some(inode),
        ..hold_by(Kernel::with_helper(helper()).unwrap())
    };
    hold.judge(&[Holder {
        inode,
        pid: std::process::id(),
        fd: socket.as_raw_fd().cast_unsigned(),
    }]);
    hold.check().unwrap();
    // The sweep overlooked it: the process is looked at again.
    hold.judge(&[]);
    hold.check().unwrap();
    drop(socket);
    // Nothing is asked before each request.
    hold.check().unwrap();
    hold.judge(&[]);
    assert!(matches!(hold.check(), Err(Why::NoHolder { .. })));
}
