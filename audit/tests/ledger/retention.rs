//! What is past its time goes, and everything else can be proven as before.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use audit::key::KeyName;
use audit::note::Note;
use audit::{CosignerKey, EventKind, Finding, Ledger, LedgerError, Retention, Under, VerifyFailure};
use serde_json::Value;

use crate::support::{Place, call, copy, end, event, id, refusal};

const DAY: Duration = Duration::from_hours(24);

/// Calls are kept for 90 days, events for 400.
fn place() -> Place {
    let mut place = Place::new();
    place.retention = Some(Retention {
        calls: 90 * DAY,
        events: 400 * DAY,
        under: Under::Checkpoint,
    });
    place
}

/// Waits for what the ledger's threads do.
#[expect(clippy::disallowed_methods, reason = "a test that waits has an end in real time")]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Goes on by some time, and waits until the ledger has looked for what is past then.
fn looked_after(place: &Place, ledger: &Ledger, time: Duration) {
    until("it looked", || ledger.stats().looks > 0);
    let looks = ledger.stats().looks;
    place.hand.advance(time);
    until("it looked again", || ledger.stats().looks > looks);
}

/// How much was pruned when the next minute begins.
fn pruned_by(place: &Place, ledger: &Ledger) -> u64 {
    place.hand.advance(Duration::from_mins(2));
    ledger.stats().pruned
}

/// The names in the folder of segments.
fn names(place: &Place) -> Vec<String> {
    let entries = fs::read_dir(place.dir().join("segments")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A segment of ten calls and one event, closed by its age, and the beginning of the next.
fn two_days(place: &Place) -> Ledger {
    let ledger = place.open();
    for number in 1..=5 {
        let now = place.clock.now();
        let _receipt = ledger
            .call(&audit::CallRecord {
                time: now,
                ..call(number)
            })
            .unwrap();
        ledger.end(&audit::EndRecord {
            time: now,
            ..end(number)
        });
    }
    let at = place.clock.now();
    ledger
        .event(&audit::EventRecord {
            time: at,
            ..event(EventKind::Quarantined)
        })
        .unwrap();
    ledger.shutdown();
    drop(ledger);
    place.hand.advance(DAY);
    let ledger = place.open();
    let now = place.clock.now();
    let _receipt = ledger.call(&audit::CallRecord { time: now, ..call(6) }).unwrap();
    until("a checkpoint", || ledger.stats().synced == ledger.stats().records);
    ledger
}

/// The two days, and the first of them pruned of its calls.
fn pruned() -> (Place, Ledger) {
    let place = place();
    let ledger = two_days(&place);
    place.hand.advance(89 * DAY + DAY / 2);
    until("the calls of the first day are pruned", || ledger.stats().pruned == 11);
    (place, ledger)
}

fn found(place: &Place) -> VerifyFailure {
    place.verify().expect_err("a changed ledger must not verify")
}

fn kept(place: &Place) -> PathBuf {
    place.dir().join("segments/00000000000000000000.kept")
}

#[test]
fn a_day_ends_a_segment() {
    let place = place();
    let ledger = two_days(&place);
    assert_eq!(
        names(&place),
        ["00000000000000000000.jsonl", "00000000000000000012.jsonl"]
    );
    ledger.shutdown();
    assert_eq!(place.verify().unwrap().segments, 2);
}

#[test]
fn calls_go_after_their_time_and_events_stay() {
    let (place, ledger) = pruned();
    let days = [
        "00000000000000000000.kept",
        "00000000000000000012.jsonl",
        "00000000000000000014.jsonl",
    ];
    assert_eq!(names(&place), days);
    let kinds: Vec<Value> = place.lines().iter().map(|line| line["kind"].clone()).collect();
    assert_eq!(kinds, ["quarantined", "segment", "call", "segment", "pruned"]);
    let told = &place.lines_of("pruned")[0]["detail"];
    assert_eq!((&told["first"], &told["last"]), (&Value::from(0), &Value::from(11)));
    assert_eq!(told["counts"], serde_json::json!({"call": 5, "end": 5, "segment": 1}));
    assert_eq!((&told["pruned"], &told["kept"]), (&Value::from(11), &Value::from(1)));
    assert_eq!(told["until"], "2026-11-05T10:00:00.000Z");
    assert_eq!(told["why"], "calls are kept for 2160 h");
    ledger.shutdown();
    let report = place.verify().unwrap();
    assert_eq!((report.records, report.pruned, report.covered), (16, 11, 16));
    assert_eq!(report.pruned_until.unwrap().to_string(), "2026-11-05T10:00:00.000Z");
    // Nothing of the calls is left in any file.
    for (path, _) in crate::support::files(&place.dir()) {
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        for number in 1..=5 {
            assert!(!text.contains(&id(number).to_string()), "{}", path.display());
        }
    }
}

#[test]
fn everything_that_is_kept_has_a_proof_and_what_is_not_says_so() {
    let (place, ledger) = pruned();
    ledger.shutdown();
    let key = audit::Head::read(&place.dir()).unwrap();
    let tail = audit::tail(&place.dir(), audit::Start::First).unwrap();
    let mut proven = Vec::new();
    for entry in tail {
        let entry = entry.unwrap();
        let logged = audit::proof::prove(&place.dir(), entry.index).unwrap();
        assert_eq!(logged.record.as_ref(), Some(&entry.line));
        logged.verify(key.key()).unwrap();
        proven.push(entry.index);
    }
    assert_eq!(proven, [11, 12, 13, 14, 15]);
    let error = audit::proof::prove(&place.dir(), 3).unwrap_err();
    assert!(error.to_string().contains("record 3 was pruned"), "{error}");
}

#[test]
fn what_is_kept_is_found_by_asking_with_an_index_and_without() {
    let (place, ledger) = pruned();
    ledger.shutdown();
    for indexes in [
        audit::query::Indexes::Write,
        audit::query::Indexes::Read,
        audit::query::Indexes::Ignore,
    ] {
        let asked = |filter: &str| {
            let filter = audit::query::parse(filter, place.clock.now()).unwrap();
            let found = audit::query::run(&place.dir(), filter, None, indexes).unwrap();
            found.map(|record| record.unwrap()["kind"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(asked("kind=quarantined"), ["quarantined"]);
        assert_eq!(asked("kind=call"), ["call"]);
        assert_eq!(asked(""), ["quarantined", "segment", "call", "segment", "pruned"]);
    }
}

#[test]
fn a_ledger_that_was_pruned_opens_and_goes_on() {
    let (place, ledger) = pruned();
    let before = ledger.stats();
    drop(ledger);
    let (ledger, report) = place.try_open().unwrap();
    assert_eq!((report.records, report.unsealed, report.tiles_rebuilt), (16, 0, false));
    assert_eq!(
        ledger.stats().shares,
        before.shares,
        "what was given back stays given back"
    );
    let now = place.clock.now();
    let _receipt = ledger.call(&audit::CallRecord { time: now, ..call(7) }).unwrap();
    // The tail begins with what is behind a record that was pruned, and counts as before.
    for (start, first) in [
        (audit::Start::First, 11),
        (audit::Start::Index(2), 11),
        (audit::Start::Index(12), 12),
        (audit::Start::Last(5), 12),
        (audit::Start::Last(16), 11),
    ] {
        let mut tail = audit::tail(&place.dir(), start).unwrap();
        assert_eq!(tail.next().unwrap().unwrap().index, first, "{start:?}");
    }
    ledger.shutdown();
    place.verify().unwrap();
}

#[test]
fn events_go_after_their_own_time_and_the_word_of_it_stays() {
    let (place, ledger) = pruned();
    place.hand.advance(311 * DAY);
    until("the event is pruned", || {
        place.lines_of("quarantined").is_empty()
            && names(&place).iter().filter(|name| name.ends_with("kept")).count() >= 2
    });
    ledger.shutdown();
    let report = place.verify().unwrap();
    // The second day went too: one call and the head of its segment.
    assert_eq!(report.pruned, 14);
    assert_eq!(place.lines_of("pruned").len(), 3);
    drop(ledger);
    place.open().shutdown();
    place.verify().unwrap();
}

#[test]
fn the_budget_gets_back_what_was_pruned() {
    let mut place = place();
    place.max_bytes = 64 * 1024;
    let ledger = place.open();
    let mut number = 0;
    let full = |number: &mut u64, ledger: &Ledger| loop {
        *number += 1;
        let now = place.clock.now();
        match ledger.call(&audit::CallRecord {
            time: now,
            ..call(*number)
        }) {
            Ok(_receipt) => {}
            Err(error) => return error,
        }
    };
    assert!(matches!(full(&mut number, &ledger), LedgerError::Full { .. }));
    let written = number;
    place.hand.advance(91 * DAY);
    until("there is room again", || pruned_by(&place, &ledger) > 0);
    assert!(matches!(full(&mut number, &ledger), LedgerError::Full { .. }));
    let again = number - written;
    assert!(again * 10 > written * 8, "{again} after {written}");
    ledger.shutdown();
    place.verify().unwrap();
}

#[test]
fn nothing_is_pruned_that_the_witness_has_not_cosigned() {
    let mut place = place();
    place.retention.as_mut().unwrap().under = Under::Cosigned;
    let ledger = two_days(&place);
    looked_after(&place, &ledger, 200 * DAY);
    assert_eq!(ledger.stats().pruned, 0);
    until("a checkpoint", || ledger.stats().sealed > 12);
    // Its own word is not enough, wherever it lies.
    let ca = CosignerKey::generate(KeyName::parse("acme.internal/ca").unwrap()).unwrap();
    let note = cosigned(&place, &ca);
    let head = audit::Head::read(&place.dir()).unwrap();
    fs::write(place.dir().join("cosigned"), head.note()).unwrap();
    looked_after(&place, &ledger, Duration::from_mins(2));
    assert_eq!(ledger.stats().pruned, 0);
    audit::kept::keep_cosigned(&place.dir(), &note, &ca.verifier()).unwrap();
    place.hand.advance(DAY);
    until("it is pruned", || ledger.stats().pruned >= 11);
    ledger.shutdown();
    place.verify().unwrap();
}

/// The newest head, cosigned.
fn cosigned(place: &Place, ca: &CosignerKey) -> Note {
    let head = audit::Head::read(&place.dir()).unwrap();
    let note = Note::parse(head.note().as_bytes()).unwrap();
    ca.cosign(&note, place.clock.now()).unwrap()
}

#[test]
fn what_was_cosigned_of_an_epoch_before_lets_nothing_be_pruned() {
    let mut place = place();
    place.retention.as_mut().unwrap().under = Under::Cosigned;
    let ledger = two_days(&place);
    let ca = CosignerKey::generate(KeyName::parse("acme.internal/ca").unwrap()).unwrap();
    audit::kept::keep_cosigned(&place.dir(), &cosigned(&place, &ca), &ca.verifier()).unwrap();
    ledger.begin_epoch(1, "forked");
    until("a head of the next epoch", || {
        let head = audit::Head::read(&place.dir());
        head.is_ok_and(|head| head.checkpoint().origin.as_str().ends_with("/epoch/2"))
    });
    looked_after(&place, &ledger, 200 * DAY);
    looked_after(&place, &ledger, Duration::from_mins(2));
    assert_eq!(ledger.stats().pruned, 0);
    audit::kept::keep_cosigned(&place.dir(), &cosigned(&place, &ca), &ca.verifier()).unwrap();
    place.hand.advance(DAY);
    until("it is pruned", || ledger.stats().pruned >= 11);
    ledger.shutdown();
}

#[test]
fn a_hold_keeps_everything_until_it_is_let_go() {
    let place = place();
    let ledger = two_days(&place);
    let hold = ledger.hold("case 4711", None, "operator:root").unwrap();
    assert_eq!(ledger.held(), Some(hold.clone()));
    drop(ledger);
    let ledger = place.open();
    assert_eq!(ledger.held(), Some(hold), "it outlives the process");
    looked_after(&place, &ledger, 200 * DAY);
    assert_eq!((ledger.stats().pruned, place.lines_of("call").len()), (0, 6));
    assert_eq!(place.lines_of("pruned").len(), 0, "nothing is said that is not done");
    ledger.release_hold("operator:root").unwrap();
    assert_eq!(ledger.held(), None);
    assert!(ledger.release_hold("operator:root").is_err());
    place.hand.advance(Duration::from_mins(2));
    until("it is pruned", || ledger.stats().pruned >= 11);
    ledger.shutdown();
    let told: Vec<Value> = place
        .lines_of("held")
        .iter()
        .map(|line| line["detail"]["reason"].clone())
        .collect();
    assert_eq!(told, ["case 4711"]);
    assert_eq!(place.lines_of("hold_released").len(), 1);
    assert!(!place.dir().join("hold").exists());
    place.verify().unwrap();
}

#[test]
fn a_hold_ends_at_its_time_and_a_false_one_is_refused() {
    let place = place();
    let ledger = two_days(&place);
    let now = place.clock.now();
    assert!(ledger.hold("", None, "operator:root").is_err());
    assert!(ledger.hold(&"x".repeat(1025), None, "operator:root").is_err());
    assert!(ledger.hold("case", Some(now), "operator:root").is_err());
    ledger.hold("case", Some(now + 100 * DAY), "operator:root").unwrap();
    looked_after(&place, &ledger, 99 * DAY);
    assert_eq!(ledger.stats().pruned, 0);
    place.hand.advance(DAY);
    until("it is pruned", || ledger.stats().pruned >= 11);
    assert_eq!(ledger.held(), None);
}

#[test]
fn a_hold_that_cannot_be_read_holds() {
    let place = place();
    drop(two_days(&place));
    fs::write(place.dir().join("hold"), "{").unwrap();
    let ledger = place.open();
    assert!(ledger.held().unwrap().reason.contains("cannot be read"));
    looked_after(&place, &ledger, 200 * DAY);
    assert_eq!(ledger.stats().pruned, 0);
}

#[test]
fn a_segment_deleted_by_hand_is_not_taken_for_pruned() {
    let (place, ledger) = pruned();
    ledger.shutdown();
    fs::remove_file(kept(&place)).unwrap();
    let failure = found(&place);
    assert!(matches!(failure.what, Finding::Gap { expected: 0 }), "{failure}");
    assert_eq!(failure.index, Some(0));
}

/// The words of what is kept of nothing, as somebody without the ledger's key can write them.
fn emptied(place: &Place, first: u64, end: u64) {
    let segments = place.dir().join("segments");
    fs::remove_file(segments.join(format!("{first:020}.jsonl"))).unwrap();
    let head = format!(
        "{{\"first\":{first},\"end\":{end},\"began\":\"2026-11-05T10:00:00Z\",\"newest\":null,\"freed\":[0,0,0]}}\n"
    );
    fs::write(segments.join(format!("{first:020}.kept")), head).unwrap();
}

#[test]
fn a_segment_that_somebody_emptied_is_not_taken_for_pruned() {
    let place = place();
    two_days(&place).shutdown();
    place.verify().unwrap();
    emptied(&place, 0, 12);
    let failure = found(&place);
    assert!(matches!(failure.what, Finding::NotPruned { last: 11 }), "{failure}");
    assert_eq!(failure.index, Some(0));
}

#[test]
fn a_record_of_pruning_that_the_ledger_did_not_sign_is_found() {
    let (other, ledger) = pruned();
    ledger.shutdown();
    let foreign = other.lines_of("pruned")[0].to_string();
    for line in [
        foreign.as_str(),
        r#"{"kind":"pruned","time":"2026-11-06T10:00:00.000Z","actor":"ledger","subject":"records 0 to 11"}"#,
    ] {
        let place = place();
        two_days(&place).shutdown();
        let last = place.dir().join("segments/00000000000000000012.jsonl");
        let text = fs::read_to_string(&last).unwrap();
        fs::write(&last, format!("{text}{line}\n")).unwrap();
        let failure = found(&place);
        assert!(matches!(failure.what, Finding::ForgedPruning), "{failure}");
        assert_eq!(failure.index, Some(14));
        // Sealed by the ledger itself after that, it is found all the same.
        emptied(&place, 0, 12);
        place.open().shutdown();
        assert!(matches!(found(&place).what, Finding::ForgedPruning));
    }
}

#[test]
fn what_is_kept_cannot_be_changed() {
    let (place, ledger) = pruned();
    ledger.shutdown();
    let text = fs::read_to_string(kept(&place)).unwrap();
    let (head, lines) = text.split_once('\n').unwrap();
    assert!(lines.starts_with("11 {\"kind\":\"quarantined\""), "{lines}");
    for (changed, index) in [
        // The line is cut out.
        (format!("{head}\n"), Some(0)),
        // The budget gets back more.
        (text.replace("\"freed\":[", "\"freed\":[9"), Some(0)),
        // It says something else.
        (text.replace("web-1", "web-2"), Some(11)),
        (text.replace("11 {", "10 {"), Some(10)),
        (text.replace("11 {", "12 {"), Some(0)),
        (text.trim_end().to_owned(), Some(0)),
        (text.replace("\"end\":12", "\"end\":13"), Some(13)),
        (text.replace("\"end\":12", "\"end\":11"), Some(0)),
        (text.replace("\"first\":0", "\"first\":1"), Some(0)),
        (format!("{text}\n"), Some(12)),
        (String::new(), Some(0)),
    ] {
        fs::write(kept(&place), &changed).unwrap();
        let failure = found(&place);
        assert_eq!(failure.index, index, "{failure}: {changed}");
    }
    fs::write(kept(&place), text).unwrap();
    place.verify().unwrap();
}

#[test]
fn words_of_an_epoch_before_hold_for_nothing() {
    // Eleven records of which nothing is kept.
    let place = place();
    let ledger = place.open();
    for number in 1..=5 {
        let _receipt = ledger.call(&call(number)).unwrap();
        ledger.end(&end(number));
    }
    ledger.shutdown();
    drop(ledger);
    place.hand.advance(91 * DAY);
    let ledger = place.open();
    until("it is pruned", || pruned_by(&place, &ledger) == 11);
    ledger.shutdown();
    drop(ledger);
    let (word, what) = (place.lines_of("pruned")[0].to_string(), fs::read(kept(&place)).unwrap());
    // All is lost but the key and its public half.
    for name in ["segments", "tile"] {
        fs::remove_dir_all(place.dir().join(name)).unwrap();
    }
    let begin = || Ledger::open_or_begin(place.config(), place.clock.clone()).unwrap().0;
    let now = place.clock.now();
    let write = |ledger: &Ledger, number| {
        let _receipt = ledger
            .call(&audit::CallRecord {
                time: now,
                ..call(number)
            })
            .unwrap();
    };
    let ledger = begin();
    (1..=9).for_each(|number| write(&ledger, number));
    ledger.shutdown();
    drop(ledger);
    place.hand.advance(DAY);
    let ledger = place.open();
    write(&ledger, 10);
    ledger.shutdown();
    drop(ledger);
    // The eleven of this epoch give way to what was said of those before.
    let segments = place.dir().join("segments");
    fs::remove_file(segments.join("00000000000000000000.jsonl")).unwrap();
    fs::write(kept(&place), what).unwrap();
    let rest = segments.join("00000000000000000011.jsonl");
    let text = fs::read_to_string(&rest).unwrap();
    fs::write(&rest, format!("{text}{word}\n")).unwrap();
    place.open().shutdown();
    let failure = found(&place);
    assert!(matches!(failure.what, Finding::NotPruned { last: 10 }), "{failure}");
}

#[test]
fn tiles_over_what_was_pruned_are_looked_after() {
    let (place, ledger) = pruned();
    ledger.shutdown();
    let good = place.folder.path().join("good");
    copy(&place.dir(), &good);
    let tiles = place.dir().join("tile/0/000.p");
    // Changed: the hash of a record that is gone.
    for entry in fs::read_dir(&tiles).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        bytes[3 * 32] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    assert!(found(&place).index.is_some());
    fs::remove_dir_all(&tiles).unwrap();
    let failure = found(&place);
    assert!(matches!(failure.what, Finding::TileMissing), "{failure}");
    assert_eq!(failure.index, Some(0));
    // There is nothing to make it from again.
    let error = place.try_open().unwrap_err();
    assert!(error.to_string().contains("record 0 was pruned"), "{error}");
}

#[test]
fn refusals_count_as_calls_and_give_back_to_their_own_share() {
    let place = place();
    let ledger = place.open();
    let now = place.clock.now();
    ledger
        .deny(&audit::CallRecord {
            time: now,
            ..refusal(1, "prod/other")
        })
        .unwrap();
    let before = ledger.stats().shares[1].spent;
    place.hand.advance(91 * DAY);
    until("it is pruned", || pruned_by(&place, &ledger) > 0);
    let after = ledger.stats().shares[1].spent;
    assert_eq!(after, 32, "of {before} the hash");
}

#[test]
fn times_out_of_bounds_are_refused() {
    let mut place = place();
    place.retention.as_mut().unwrap().calls = 401 * DAY;
    let error = place.try_open().unwrap_err();
    assert!(error.to_string().contains("keep"), "{error}");
}

/// Days of one call each, every one a segment of its own.
fn many_days(place: &Place, days: u64) {
    for number in 1..=days {
        let ledger = place.open();
        let now = place.clock.now();
        let _receipt = ledger
            .call(&audit::CallRecord {
                time: now,
                ..call(number)
            })
            .unwrap();
        ledger.end(&audit::EndRecord {
            time: now,
            ..end(number)
        });
        ledger.shutdown();
        place.hand.advance(DAY);
    }
}

#[test]
fn what_is_pruned_while_a_question_is_answered_fails_nobody_and_leaves_no_index() {
    let place = place();
    many_days(&place, 30);
    let filter = || audit::query::parse("kind=call", place.clock.now()).unwrap();
    let mut asked = audit::query::run(&place.dir(), filter(), None, audit::query::Indexes::Write).unwrap();
    assert!(asked.next().unwrap().is_ok());
    place.hand.advance(200 * DAY);
    let ledger = place.open();
    until("all days are pruned", || {
        let whole = names(&place).iter().filter(|name| name.ends_with("jsonl")).count();
        place.hand.advance(Duration::from_mins(2));
        whole <= 2
    });
    let rest: Vec<Value> = asked.map(|record| record.unwrap()).collect();
    assert!(rest.len() < 29, "most were not read before: {}", rest.len());
    ledger.shutdown();
    let index = place.dir().join("index");
    for entry in fs::read_dir(index).into_iter().flatten() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("checkout-reads-orders"), "an index of what is gone");
    }
    place.verify().unwrap();
}

#[test]
fn what_was_put_aside_or_torn_goes_with_the_calls_of_its_time_unless_it_is_held() {
    let place = place();
    let ledger = two_days(&place);
    let aside = place.dir().join("set-aside/1");
    fs::create_dir_all(&aside).unwrap();
    fs::write(aside.join("checkpoint"), "x").unwrap();
    fs::write(place.dir().join("torn-3.bin"), "x").unwrap();
    ledger.hold("case 4711", None, "operator:root").unwrap();
    // The files are of the time at which the test runs, which may be years later.
    place.hand.set(spiffe::time::Clock::system().now() + 89 * DAY);
    looked_after(&place, &ledger, Duration::from_mins(2));
    ledger.release_hold("operator:root").unwrap();
    looked_after(&place, &ledger, Duration::from_mins(2));
    assert!(aside.exists(), "not past its time");
    ledger.hold("case 4711", None, "operator:root").unwrap();
    looked_after(&place, &ledger, 2 * DAY);
    assert!(aside.exists() && place.dir().join("torn-3.bin").exists(), "it is held");
    ledger.release_hold("operator:root").unwrap();
    until("it is gone", || {
        place.hand.advance(Duration::from_mins(2));
        !aside.exists() && !place.dir().join("torn-3.bin").exists()
    });
    ledger.shutdown();
    let told = place.lines_of("aside_removed");
    let subjects: Vec<&str> = told.iter().map(|line| line["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects.len(), 2);
    assert!(
        subjects.contains(&"set-aside/1") && subjects.contains(&"torn-3.bin"),
        "{subjects:?}"
    );
    place.verify().unwrap();
}

#[test]
fn who_hands_records_on_gets_what_is_kept_and_is_told_what_went_while_he_was_away() {
    let place = place();
    let ledger = two_days(&place);
    let mut follow = audit::Follow::open(&place.dir(), None).unwrap();
    for _ in 0..3 {
        follow.read().unwrap().unwrap();
    }
    let away = follow.cursor("").unwrap();
    drop(follow);
    place.hand.advance(89 * DAY + DAY / 2);
    until("the calls of the first day are pruned", || ledger.stats().pruned == 11);
    ledger.shutdown();
    let error = audit::Follow::open(&place.dir(), Some(&away)).unwrap_err();
    let told = error.to_string();
    assert!(told.contains("begins with record 11, and record 2 is gone"), "{told}");
    let mut follow = audit::Follow::open(&place.dir(), None).unwrap();
    let read = std::iter::from_fn(|| follow.read().unwrap());
    assert_eq!(
        read.map(|sealed| sealed.index).collect::<Vec<_>>(),
        [11, 12, 13, 14, 15]
    );
}

/// An event, and then ten records of calls that are pruned later; gives the place behind the event, as one has it who had read
/// no further when nothing was pruned yet.
fn pruned_behind_an_event() -> (Place, Ledger, audit::Cursor) {
    let place = place();
    let ledger = place.open();
    let time = place.clock.now();
    let deed = audit::EventRecord {
        time,
        ..event(EventKind::Quarantined)
    };
    ledger.event(&deed).unwrap();
    drop(ledger);
    let ledger = two_days(&place);
    let mut follow = audit::Follow::open(&place.dir(), None).unwrap();
    while follow.read().unwrap().unwrap().index < 1 {}
    let cursor = follow.cursor("").unwrap();
    place.hand.advance(89 * DAY + DAY / 2);
    until("the calls of the first day are pruned", || ledger.stats().pruned == 11);
    (place, ledger, cursor)
}

#[test]
fn records_that_are_pruned_before_they_are_handed_on_are_missed_and_not_passed_over() {
    let (place, _ledger, cursor) = pruned_behind_an_event();
    let mut follow = audit::Follow::open(&place.dir(), Some(&cursor)).unwrap();
    for _again in 0..2 {
        let missed = follow.read().unwrap_err();
        assert!(
            matches!(missed, audit::FollowError::Gone { record: 2, first, .. } if first > 2),
            "{missed:?}"
        );
    }
}

#[test]
fn who_begins_after_the_pruning_reads_what_is_kept_and_goes_on_from_there() {
    let (place, ledger, _) = pruned_behind_an_event();
    ledger.shutdown();
    let read = |follow: &mut audit::Follow| {
        let mut found = Vec::new();
        while let Some(sealed) = follow.read().unwrap() {
            found.push((sealed.index, follow.cursor("").unwrap()));
        }
        found
    };
    let whole = read(&mut audit::Follow::open(&place.dir(), None).unwrap());
    assert!(whole.len() > 3 && whole[0].0 == 1 && whole[1].0 > 2);
    for (number, (_, cursor)) in whole.iter().enumerate() {
        let rest = read(&mut audit::Follow::open(&place.dir(), Some(cursor)).unwrap());
        assert_eq!(rest, whole[number + 1..]);
    }
}
