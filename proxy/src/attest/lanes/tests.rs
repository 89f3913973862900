use std::sync::Arc;

use spiffe::time::Clock;
use tokio::task::JoinSet;

use super::{Kernel, LANES, Lanes, Question, WAITING_MAX, Why, lock};
use crate::attest::AttestConfig;

/// Users that have no processes, all in the same lane.
fn question(number: usize) -> Question {
    let uid = u32::try_from(3_000_000_000 / LANES * LANES + number % 4 * LANES).unwrap();
    Question {
        uid,
        cgroup: None,
        inode: 1,
    }
}

#[tokio::test]
async fn those_who_wait_are_all_answered_by_one_scan_and_there_is_a_bound_to_them() {
    let kernel = Arc::new(Kernel::new(AttestConfig::default(), Clock::system()).unwrap());
    let lanes = Arc::new(Lanes::new());
    let busy = lanes.0[0].turn.lock().await;
    let mut asking = JoinSet::new();
    for number in 0..WAITING_MAX {
        let (lanes, kernel) = (Arc::clone(&lanes), Arc::clone(&kernel));
        asking.spawn(async move { lanes.ask(&kernel, question(number)).await });
    }
    while lock(&lanes.0[0].waiting).len() < WAITING_MAX {
        tokio::task::yield_now().await;
    }
    let refused = lanes.ask(&kernel, question(0)).await.unwrap_err();
    assert!(matches!(*refused, Why::ScanBound("waiting_max")));
    drop(busy);
    while let Some(answer) = asking.join_next().await {
        assert_eq!(answer.unwrap().unwrap(), []);
    }
    assert!(lock(&lanes.0[0].waiting).is_empty());
}

#[tokio::test]
async fn who_stops_waiting_does_not_stop_the_others() {
    let kernel = Arc::new(Kernel::new(AttestConfig::default(), Clock::system()).unwrap());
    let lanes = Lanes::new();
    // Polled once, so that its scan is under way, and dropped.
    tokio::select! {
        biased;
        _answer = lanes.ask(&kernel, question(0)) => {}
        () = std::future::ready(()) => {}
    }
    assert_eq!(lanes.ask(&kernel, question(0)).await.unwrap(), []);
}
