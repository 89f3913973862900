//! Pruning step by step: every moment at which it can be interrupted, and histories of all that can happen.

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;
use spiffe::time::ClockHand;

use super::*;
use crate::ledger::prune::Plan;
use crate::ledger::pruner::Pruner;
use crate::record::{Direction, EndRecord};
use crate::segment::{kept_name, kept_path};

const DAY: Duration = Duration::from_hours(24);

fn start() -> Timestamp {
    Timestamp::from_rfc3339("2026-11-05T10:00:00Z").unwrap()
}

/// A ledger whose pruning is done by hand.
struct Scene {
    folder: tempfile::TempDir,
    hand: ClockHand,
    clock: Clock,
    ledger: Option<Ledger>,
    written: u64,
}

impl Scene {
    fn new() -> Self {
        let (clock, hand) = Clock::fixed(start());
        let mut scene = Self {
            folder: tempfile::tempdir().unwrap(),
            hand,
            clock,
            ledger: None,
            written: 0,
        };
        scene.open();
        scene
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }

    fn open(&mut self) {
        self.ledger = None;
        let config = config(self.folder.path());
        let mut opened = open::open(&config, &self.clock).unwrap();
        opened.writer.segment_bytes_max = 4096;
        self.ledger = Some(Ledger::start(opened, &config, self.clock.clone()).unwrap().0);
    }

    fn ledger(&self) -> &Ledger {
        self.ledger.as_ref().unwrap()
    }

    fn pruner(&self) -> Pruner {
        Pruner {
            shared: Arc::clone(&self.ledger().owner.shared),
            retention: Retention {
                calls: 90 * DAY,
                events: 400 * DAY,
                under: Under::Checkpoint,
            },
            key: keyfile::first_name(&config(self.folder.path())).unwrap(),
            read: BTreeMap::new(),
        }
    }

    fn write(&mut self, calls: u64, events: u64) {
        let now = self.clock.now();
        // As the ledger's threads do each second.
        self.ledger().owner.shared.writer().age(now);
        for _ in 0..calls {
            self.written += 1;
            let id = CallId::from_bytes(u128::from(self.written).to_be_bytes());
            let mut call = CallRecord::new(id, now, Direction::Out);
            call.verdict = Verdict::Allow;
            let _receipt = self.ledger().call(&call).unwrap();
            self.ledger().end(&EndRecord {
                id,
                time: now,
                status: Some(200),
                grpc_status: None,
                request_bytes: 0,
                response_bytes: 0,
                duration_us: 1,
                upstream_us: 1,
                tries: 1,
                address: None,
                outcome: "done".to_owned(),
            });
        }
        for _ in 0..events {
            self.written += 1;
            let event = EventRecord {
                time: now,
                ..event(self.written)
            };
            self.ledger().event(&event).unwrap();
        }
    }

    /// Has all that was written sealed.
    fn seal(&self) {
        let pruner = self.pruner();
        // The ends wait for the keeper, which writes them before it seals.
        self.ledger().commit();
        let records = self.ledger().stats().records;
        assert!(pruner.sealed(records));
    }

    /// Prunes all that is past its time.
    fn prune(&self) -> usize {
        self.seal();
        let mut pruner = self.pruner();
        let mut all = 0;
        loop {
            let pruned = pruner.look(self.clock.now()).unwrap();
            all += pruned;
            if pruned == 0 {
                return all;
            }
        }
    }

    /// Every record that is there, by its index.
    fn kept(&self) -> BTreeMap<u64, Vec<u8>> {
        let tail = crate::tail(&self.dir(), crate::Start::First).unwrap();
        tail.map(|entry| entry.unwrap())
            .map(|entry| (entry.index, entry.line))
            .collect()
    }

    /// Verifies, and proves each record that is there.
    fn check(&self) {
        let report = verify(&self.dir(), None).unwrap_or_else(|failure| panic!("{failure}"));
        let kept = self.kept();
        assert_eq!(report.records, report.pruned + kept.len() as u64);
        for (index, line) in kept {
            if index < report.covered {
                let proof = crate::proof::prove(&self.dir(), index).unwrap();
                assert_eq!(proof.record, Some(line), "{index}");
            }
        }
    }
}

#[test]
fn every_moment_of_pruning_can_be_killed() {
    let mut scene = Scene::new();
    scene.write(30, 3);
    scene.hand.advance(DAY);
    scene.write(1, 0);
    scene.hand.advance(90 * DAY - DAY / 2);
    scene.seal();
    let before = scene.kept();
    let mut pruner = scene.pruner();
    let now = scene.clock.now();
    let dir = scene.dir();
    let moments = scene.folder.path().join("moments");
    let moment = |name: &str| copy(&dir, &moments.join(name));
    moment("nothing was done");
    let segments = crate::segment::list(&dir).unwrap();
    let due = pruner.due(&dir, &segments, now).unwrap();
    assert!(due.len() > 1, "{}", due.len());
    let plans: Vec<Plan> = due.iter().map(|due| pruner::plan(&dir, due).unwrap()).collect();
    moment("what is kept is drafted");
    let recorded = pruner.record(&plans, now).unwrap().unwrap();
    moment("it is recorded and not sealed");
    assert!(pruner.sealed(recorded));
    moment("it is sealed");
    let first = &plans[0];
    let (draft, kept) = (dir.join("prune-0.tmp"), kept_path(&dir, 0));
    fs::copy(&draft, &kept).unwrap();
    moment("what is kept is there twice");
    fs::remove_file(&draft).unwrap();
    moment("what is kept is in its place");
    fs::remove_file(&first.segment.path).unwrap();
    moment("one of two is deleted");
    scene.ledger = None;
    for entry in fs::read_dir(&moments).unwrap() {
        let path = entry.unwrap().path();
        fs::remove_dir_all(&dir).unwrap();
        copy(&path, &dir);
        taken_up_from(&mut scene, &path.file_name().unwrap().to_string_lossy(), &before);
    }
}

/// Takes up what a crash left behind. All that is not past its time is there, before and after it is done once more.
fn taken_up_from(scene: &mut Scene, moment: &str, before: &BTreeMap<u64, Vec<u8>>) {
    scene.check();
    scene.open();
    assert!(!scene.dir().join("prune-0.tmp").exists(), "{moment}");
    let whole = scene.dir().join("segments").join(crate::segment::file_name(0)).exists();
    assert_eq!(whole, moment != "one of two is deleted", "{moment}");
    assert_eq!(kept_path(&scene.dir(), 0).exists(), !whole, "{moment}");
    scene.check();
    let lasting = |scene: &Scene| {
        let there = scene.kept();
        for (index, line) in before {
            let of_call = ["call", "end", "segment"].map(|kind| format!("{{\"kind\":\"{kind}\""));
            let of_call = of_call.iter().any(|begin| line.starts_with(begin.as_bytes()));
            assert!(of_call || there.get(index) == Some(line), "{moment}: {index}");
        }
    };
    lasting(scene);
    assert!(scene.prune() > 0, "{moment}");
    lasting(scene);
    let calls = scene
        .kept()
        .into_values()
        .filter(|line| line.starts_with(b"{\"kind\":\"call\""));
    assert_eq!(calls.count(), 1, "{moment}: the one of the last day");
    scene.check();
    let used = scene.ledger().stats().shares;
    scene.open();
    assert_eq!(scene.ledger().stats().shares, used, "{moment}");
    scene.ledger = None;
}

#[test]
fn an_index_of_what_was_pruned_is_removed() {
    let mut scene = Scene::new();
    let index = scene.dir().join("index");
    fs::create_dir(&index).unwrap();
    for name in ["00000000000000000000.idx", "00000000000000009999.idx"] {
        fs::write(index.join(name), "").unwrap();
    }
    scene.write(3, 0);
    scene.hand.advance(91 * DAY);
    assert_eq!(scene.prune(), 1);
    assert!(!index.join("00000000000000000000.idx").exists());
    assert!(index.join("00000000000000009999.idx").exists());
}

#[test]
fn a_damaged_segment_is_left_to_be_found() {
    let mut scene = Scene::new();
    scene.write(30, 0);
    scene.hand.advance(91 * DAY);
    scene.seal();
    let first = segments(scene.folder.path()).remove(0);
    let text = fs::read_to_string(&first.path).unwrap();
    let without_its_last = text.trim_end().rsplit_once('\n').unwrap().0;
    for damaged in [
        format!("{without_its_last}\n"),
        text.replacen("{\"kind\":\"call\"", "{\"kind\":call", 1),
        text.split_once('\n').unwrap().1.to_owned(),
    ] {
        fs::write(&first.path, damaged).unwrap();
        let error = scene.pruner().look(scene.clock.now()).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
        assert!(first.path.exists());
    }
}

#[test]
fn nothing_is_deleted_before_the_record_of_it_is_sealed() {
    let mut scene = Scene::new();
    scene.write(3, 0);
    scene.hand.advance(91 * DAY);
    scene.seal();
    scene.ledger().owner.shared.writer().begin_segment().unwrap();
    scene.seal();
    // No checkpoint can be written: a folder stands where it would be drafted.
    fs::create_dir(scene.dir().join("checkpoint.tmp")).unwrap();
    let records = scene.ledger().stats().records;
    let (mut pruner, now) = (scene.pruner(), scene.clock.now());
    let pruning = std::thread::spawn(move || pruner.look(now).unwrap());
    while scene.ledger().stats().records == records {
        std::thread::yield_now();
    }
    scene.ledger().shutdown();
    assert_eq!(pruning.join().unwrap(), 0);
    assert!(scene.dir().join("segments").join(crate::segment::file_name(0)).exists());
}

#[test]
fn a_hold_that_comes_between_the_record_and_the_deed_is_kept_to() {
    let mut scene = Scene::new();
    scene.write(3, 0);
    scene.hand.advance(91 * DAY);
    scene.seal();
    let mut pruner = scene.pruner();
    let (dir, now) = (scene.dir(), scene.clock.now());
    scene.ledger().owner.shared.writer().begin_segment().unwrap();
    scene.seal();
    let due = pruner.due(&dir, &crate::segment::list(&dir).unwrap(), now).unwrap();
    let plans: Vec<Plan> = due.iter().map(|due| pruner::plan(&dir, due).unwrap()).collect();
    assert_eq!(plans.len(), 1);
    scene.ledger().hold("case", None, "operator:root").unwrap();
    assert_eq!(pruner.carry_out(&plans, now).unwrap(), 0);
    assert!(!dir.join("segments").join(kept_name(0)).exists());
    scene.ledger().release_hold("operator:root").unwrap();
    assert_eq!(pruner.carry_out(&plans, now).unwrap(), 1);
}

#[test]
fn a_hold_that_comes_before_what_was_put_aside_is_removed_is_kept_to() {
    let scene = Scene::new();
    let torn = scene.dir().join("torn-3.bin");
    fs::write(&torn, "x").unwrap();
    // The file is of the time at which the test runs.
    scene.hand.set(Clock::system().now() + 91 * DAY);
    scene.ledger().hold("case 4711", None, "operator:root").unwrap();
    let (pruner, now) = (scene.pruner(), scene.clock.now());
    pruner.clear_aside(&scene.dir(), now).unwrap();
    assert!(torn.exists());
    scene.ledger().release_hold("operator:root").unwrap();
    pruner.clear_aside(&scene.dir(), now).unwrap();
    assert!(!torn.exists());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Write(u64, u64),
    Days(u32),
    Prune,
    /// The process ends in good order and begins again.
    Restart,
    /// It is killed: what it leaves behind is what was there a moment before.
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..40_u64, 0..6_u64).prop_map(|(calls, events)| Act::Write(calls, events)),
        3 => (0..120_u32).prop_map(Act::Days),
        3 => Just(Act::Prune),
        1 => Just(Act::Restart),
        1 => Just(Act::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_any_history_all_that_is_kept_has_a_proof(acts in proptest::collection::vec(act(), 1..14)) {
        let mut scene = Scene::new();
        let mut events = BTreeMap::new();
        for act in acts {
            match act {
                Act::Write(calls, count) => {
                    let first = scene.written + calls;
                    scene.write(calls, count);
                    events.extend((first..first + count).map(|number| (number + 1, scene.clock.now())));
                }
                Act::Days(days) => scene.hand.advance(DAY * days),
                Act::Prune => {
                    scene.prune();
                    scene.check();
                }
                Act::Restart => scene.open(),
                Act::Crash => {
                    let (dir, aside) = (scene.dir(), scene.folder.path().join("aside"));
                    scene.ledger().commit();
                    copy(&dir, &aside);
                    scene.ledger = None;
                    fs::remove_dir_all(&dir).unwrap();
                    fs::rename(&aside, &dir).unwrap();
                    scene.open();
                }
            }
        }
        scene.prune();
        scene.check();
        let now = scene.clock.now();
        let kept = scene.kept();
        let subjects: Vec<String> = kept.values().filter_map(|line| match Record::decode(line) {
            Ok(Record::Event(event)) if event.kind == EventKind::Operator => Some(event.subject),
            _ => None,
        }).collect();
        for (number, time) in events {
            if time + 400 * DAY > now {
                prop_assert!(subjects.contains(&number.to_string()), "event {number} of {time}");
            }
        }
        for line in kept.values() {
            if let Ok(Record::Call(call)) = Record::decode(line) {
                // It goes with its segment, which is not older than a day.
                prop_assert!(call.time + 91 * DAY > now, "a call of {}", call.time);
            }
        }
    }
}
