use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use audit::{CallId, CallRecord, Direction, Ledger, LedgerConfig, LedgerError, Receipt, Verdict};
use spiffe::time::{Clock, Timestamp};
use tempfile::TempDir;

use super::Turn;

fn ledger() -> (TempDir, Ledger) {
    let folder = tempfile::tempdir().unwrap();
    let config = LedgerConfig {
        dir: folder.path().join("ledger"),
        key_file: folder.path().join("ledger.key"),
        origin: "acme.internal/host/web-1".to_owned(),
        // Longer than a test: the thread of the ledger writes nothing meanwhile.
        sync: Duration::from_secs(10),
        max_bytes: 1 << 30,
        retention: None,
    };
    let (ledger, _report) = Ledger::open(config, Clock::system()).unwrap();
    (folder, ledger)
}

fn call(number: u8) -> CallRecord {
    CallRecord {
        method: "GET".to_owned(),
        path: format!("/orders/{number}"),
        verdict: Verdict::Allow,
        ..CallRecord::new(
            CallId::from_bytes([number; 16]),
            Timestamp::from_unix_millis(0),
            Direction::Out,
        )
    }
}

/// What a future has come to, if it has.
async fn poll<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        })
    })
    .await
}

fn index(written: Option<Result<Receipt, LedgerError>>) -> u64 {
    written.expect("the turn is written").unwrap().index()
}

#[tokio::test]
async fn the_first_of_a_turn_writes_for_all_when_it_comes_to_its_turn_again() {
    let ((_folder, ledger), turn) = (ledger(), Turn::default());
    let mut first = pin!(turn.written(&ledger, ledger.stage(&call(1)).unwrap()));
    assert!(poll(first.as_mut()).await.is_none(), "others go before it");
    let mut second = pin!(turn.written(&ledger, ledger.stage(&call(2)).unwrap()));
    let mut third = pin!(turn.written(&ledger, ledger.stage(&call(3)).unwrap()));
    for _ in 0..3 {
        assert!(poll(second.as_mut()).await.is_none(), "nothing is written");
        assert!(poll(third.as_mut()).await.is_none());
    }
    assert_eq!(ledger.stats().records, 0);
    let at = index(poll(first.as_mut()).await);
    assert_eq!(index(poll(second.as_mut()).await), at + 1);
    assert_eq!(index(poll(third.as_mut()).await), at + 2);
    assert_eq!(ledger.stats().records, at + 3);
}

#[tokio::test]
async fn calls_that_wait_are_woken_by_the_first_and_a_lone_call_by_itself() {
    let ((_folder, ledger), turn) = (ledger(), Turn::default());
    let lone = turn.written(&ledger, ledger.stage(&call(0)).unwrap());
    let at = lone.await.unwrap().index();
    let staged = (1..=8).map(|number| ledger.stage(&call(number)).unwrap());
    let mut written: Vec<_> = staged.map(|staged| turn.written(&ledger, staged)).collect();
    // The first comes last: the others wait until then.
    let first = written.remove(0);
    let others = async {
        let mut found = Vec::new();
        for one in written {
            found.push(one.await.unwrap().index());
        }
        found
    };
    let (others, first) = tokio::join!(others, first);
    assert_eq!(first.unwrap().index(), at + 1);
    assert_eq!(others, (at + 2..at + 9).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_first_that_is_given_up_writes_for_the_others() {
    let ((_folder, ledger), turn) = (ledger(), Turn::default());
    for polled in [false, true] {
        for carried in [false, true] {
            let mut first = Box::pin(turn.written(&ledger, ledger.stage(&call(1)).unwrap()));
            let second = turn.written(&ledger, ledger.stage(&call(2)).unwrap());
            if polled {
                assert!(poll(first.as_mut()).await.is_none());
            }
            let second = async {
                let mut second = pin!(second);
                assert!(poll(second.as_mut()).await.is_none());
                if carried {
                    // A record of another kind takes the turn along, and wakes nobody.
                    let _receipt = ledger.call(&call(3)).unwrap();
                }
                drop(first);
                second.await
            };
            let _receipt = second.await.unwrap();
        }
    }
}

#[tokio::test]
async fn without_the_ledger_nobody_is_given_a_receipt() {
    let ((_folder, ledger), turn) = (ledger(), Turn::default());
    let first = turn.written(&ledger, ledger.stage(&call(1)).unwrap());
    ledger.shutdown();
    assert!(matches!(ledger.stage(&call(2)), Err(LedgerError::Closed)));
    // What was handed over before it ended was written by its end.
    let _receipt = first.await.unwrap();
}
