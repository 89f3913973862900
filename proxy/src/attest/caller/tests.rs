use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use spiffe::id::BotName;
use spiffe::time::Clock;

use super::{Held, Hold, Lost};
use crate::attest::AttestConfig;
use crate::attest::entries::Current;
use crate::attest::error::Why;
use crate::attest::kernel::Kernel;

/// This process, held as a bot over a Unix socket.
fn hold() -> Hold {
    let kernel = Kernel::new(AttestConfig::default(), Clock::system()).unwrap();
    let pin = kernel.pin(std::process::id()).unwrap();
    Hold {
        kernel: Arc::new(kernel),
        current: Arc::new(Current::new()),
        bot: BotName::parse("prod/orders").unwrap(),
        version: AtomicU64::new(0),
        run: false,
        held: vec![Held::new(pin, 0)],
        inode: None,
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
