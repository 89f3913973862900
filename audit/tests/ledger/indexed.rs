//! Asking by indexes comes to what reading every line comes to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use audit::query::{self, Bounds, CountError, Counts, Filter, Group, Indexes, Key, Stop, parse};
use proptest::prelude::*;
use serde_json::Value;
use spiffe::time::Timestamp;

use crate::support::time;

/// A ledger of lines, in segments of so many.
struct Lines(tempfile::TempDir);

impl Lines {
    fn new(segments: &[Vec<String>]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("segments")).unwrap();
        let lines = Self(folder);
        let mut first = 0;
        for segment in segments {
            fs::write(lines.segment(first), segment.concat()).unwrap();
            first += segment.len();
        }
        lines
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }

    fn segment(&self, first: usize) -> PathBuf {
        self.dir().join(format!("segments/{first:020}.jsonl"))
    }

    fn index(&self, first: usize) -> PathBuf {
        self.dir().join(format!("index/{first:020}.index"))
    }

    fn scan(&self, filter: &str) -> Vec<Value> {
        query::scan(self.dir(), read(filter), None)
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    fn asked(&self, filter: &str, indexes: Indexes) -> Vec<Value> {
        query::run(self.dir(), read(filter), None, indexes)
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    fn counted(&self, filter: &str, keys: &[Key], indexes: Indexes) -> Vec<Group> {
        let mut counts = Counts::by(keys);
        counts.add(self.dir(), &read(filter), indexes).unwrap();
        counts.groups()
    }

    /// Asks in each way, twice with stored indexes, and wants the same.
    fn check(&self, filter: &str, keys: &[Key]) {
        let wanted = self.scan(filter);
        let groups = grouped(&wanted, keys);
        for indexes in [
            Indexes::Ignore,
            Indexes::Read,
            Indexes::Write,
            Indexes::Write,
            Indexes::Read,
        ] {
            assert_eq!(self.asked(filter, indexes), wanted, "{filter} {indexes:?}");
            assert_eq!(
                self.counted(filter, keys, indexes),
                groups,
                "{filter} {keys:?} {indexes:?}"
            );
        }
    }
}

fn read(filter: &str) -> Filter {
    parse(filter, time(10_000)).unwrap()
}

/// What counting has to come to, from the records that were found.
fn grouped(records: &[Value], keys: &[Key]) -> Vec<Group> {
    let mut groups: BTreeMap<Vec<Option<String>>, Group> = BTreeMap::new();
    for record in records {
        let values: Vec<_> = keys.iter().map(|key| value(record, *key)).collect();
        let at = record["time"]
            .as_str()
            .and_then(|time| Timestamp::from_rfc3339(time).ok());
        let group = groups.entry(values.clone()).or_insert(Group {
            values,
            count: 0,
            first: None,
            last: None,
        });
        group.count += 1;
        group.first = [group.first, at].into_iter().flatten().min();
        group.last = group.last.max(at);
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    groups
}

fn value(record: &Value, key: Key) -> Option<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let at = |part: std::ops::RangeTo<usize>| {
        let at = Timestamp::from_rfc3339(record["time"].as_str()?).ok()?;
        at.to_string().get(part).map(str::to_owned)
    };
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others are fields of their names")]
    match key {
        Key::From | Key::To => {
            let party = &record[key.as_str()];
            let names = ["id", "outside", "host"]
                .into_iter()
                .find_map(|name| text(&party[name]));
            names.or_else(|| party["uid"].as_u64().map(|uid| format!("uid {uid}")))
        }
        Key::Status => record["status"].as_u64().map(|status| status.to_string()),
        Key::Protocol if record["kind"] == "call" && record["protocol"].is_null() => Some("http".to_owned()),
        Key::Day => at(..10),
        Key::Hour => at(..13),
        Key::Minute => at(..16),
        other => text(&record[other.as_str()]),
    }
}

/// Lines as ledgers have them, with few ids, so that they come again in all orders.
fn line() -> impl Strategy<Value = String> {
    let id = prop_oneof![
        (0..12_u8).prop_map(|id| format!("01990000-0000-7000-8000-0000000000{id:02}")),
        (0..3_u8).prop_map(|id| format!("no-uuid-{id}")),
    ];
    let at = (0..400_000_u64).prop_map(|at| time(at).to_string());
    let party = prop_oneof![
        (0..3_u8).prop_map(|bot| format!(r#"{{"id":"spiffe://acme.internal/prod/b{bot}","serial":"0{bot}","uid":7}}"#)),
        Just(r#"{"outside":"https://api.example","serial":17}"#.to_owned()),
        Just(r#"{"host":"a\u001b\"b"}"#.to_owned()),
        Just(r#"{"uid":1001}"#.to_owned()),
        Just("{}".to_owned()),
    ];
    let call = (id.clone(), at.clone(), party.clone(), party, 0..3_usize, 0..2_usize, any::<u8>()).prop_map(
        |(id, at, from, to, verdict, direction, more)| {
            let verdict = ["allow", "deny", "audit"][verdict];
            let direction = ["in", "out"][direction];
            let peer = if more & 1 == 0 { "" } else { r#""peer_call":"01990000-0000-7000-8000-000000000003","# };
            let protocol = if more & 2 == 0 { "" } else { r#""protocol":"grpc","# };
            let method = if more & 4 == 0 { "GET" } else { "POST" };
            let reason = if more & 8 == 0 { "" } else { r#","reason":"no_rule","credential":"c""# };
            let path = more >> 6;
            format!(
                r#"{{"kind":"call","id":"{id}","time":"{at}","direction":"{direction}",{peer}{protocol}"from":{from},"to":{to},"method":"{method}","path":"/p/{path}","verdict":"{verdict}","rule":"r{path}"{reason}}}"#
            )
        },
    );
    let end = (id, at.clone(), 0..4_usize).prop_map(|(id, at, status)| {
        let status = ["", r#""status":200,"#, r#""status":503,"#, r#""status":404,"#][status];
        format!(r#"{{"kind":"end","id":"{id}","time":"{at}",{status}"outcome":"done"}}"#)
    });
    let event = at.prop_map(|at| format!(r#"{{"kind":"issued","time":"{at}","detail":{{"serial":"01","epoch":1}}}}"#));
    let other = prop_oneof![
        Just("{".to_owned()),
        Just(String::new()),
        Just("[]".to_owned()),
        Just(r#"{"kind":"x"}"#.to_owned()),
        Just(r#"{"kind":"x","time":"never","status":200,"id":""}"#.to_owned()),
        Just(r#"{"kind":"call","verdict":"allow"}"#.to_owned()),
    ];
    prop_oneof![4 => call, 4 => end, 1 => event, 1 => other].prop_map(|line| line + "\n")
}

fn filter() -> impl Strategy<Value = String> {
    let term = prop::sample::select(vec![
        "verdict=deny",
        "verdict=allow",
        "from=prod/*",
        "from=prod/b1",
        "to=api.example",
        "to=spiffe://**",
        "protocol=http",
        "protocol=grpc",
        "method=GET",
        "path=/p/1",
        "path=/p/*",
        "rule=r2",
        "credential=c",
        "reason=no_rule",
        "kind=call",
        "kind=end",
        "direction=in",
        "id=01990000-0000-7000-8000-000000000003",
        "serial=01",
        "since=2026-11-05T10:02:00Z",
        "until=2026-11-05T10:04:00Z",
        "status=2xx",
        "status=503",
    ]);
    prop::collection::vec(term, 0..4).prop_map(|terms| terms.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_way_of_asking_comes_to_the_same(
        segments in prop::collection::vec(prop::collection::vec(line(), 1..24), 1..6),
        filters in prop::collection::vec(filter(), 3),
        keys in prop::sample::subsequence(Key::ALL.to_vec(), 1..4),
    ) {
        let lines = Lines::new(&segments);
        for filter in filters {
            lines.check(&filter, &keys);
        }
    }
}

fn call(id: u8, at: u64) -> String {
    format!(
        "{{\"kind\":\"call\",\"id\":\"01990000-0000-7000-8000-0000000000{id:02}\",\"time\":\"{}\",\"from\":{{\"id\":\"spiffe://acme.internal/prod/b{id}\"}},\"verdict\":\"allow\"}}\n",
        time(at)
    )
}

fn three() -> Lines {
    Lines::new(&[
        vec![call(1, 0), call(2, 1)],
        vec![call(3, 100_000)],
        vec![call(4, 200_000)],
    ])
}

#[test]
fn closed_segments_have_their_indexes_stored_and_the_open_one_has_none() {
    let lines = three();
    assert_eq!(lines.asked("from=prod/b3", Indexes::Read).len(), 1);
    assert!(
        !lines.dir().join("index").exists(),
        "only reading leaves nothing behind"
    );
    assert_eq!(lines.asked("from=prod/b3", Indexes::Write).len(), 1);
    let stored = [0, 2, 3].map(|first| lines.index(first).exists());
    assert_eq!(stored, [true, true, false]);
}

#[test]
fn a_damaged_index_is_made_again_wherever_it_is_damaged() {
    let lines = three();
    lines.asked("", Indexes::Write);
    let whole = fs::read(lines.index(0)).unwrap();
    for at in (0..whole.len()).step_by(7) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(lines.index(0), &damaged).unwrap();
        assert_eq!(lines.asked("from=prod/b*", Indexes::Read).len(), 4, "byte {at}");
        // Of a head that is damaged, the times are not believed either.
        assert_eq!(
            lines.asked("until=2026-11-05T10:01:00Z", Indexes::Read).len(),
            2,
            "byte {at}"
        );
    }
    for cut in [0, 20, 150, whole.len() - 1] {
        fs::write(lines.index(0), &whole[..cut]).unwrap();
        assert_eq!(lines.asked("from=prod/b*", Indexes::Write).len(), 4, "cut at {cut}");
        assert_eq!(fs::read(lines.index(0)).unwrap(), whole, "and it is whole again");
    }
}

#[test]
fn the_index_of_other_bytes_is_not_used() {
    let lines = three();
    lines.asked("", Indexes::Write);
    // As long as it was, and of the same times.
    let modified = fs::metadata(lines.segment(0)).unwrap().modified().unwrap();
    let other = fs::read_to_string(lines.segment(0))
        .unwrap()
        .replace("prod/b1", "prod/b9");
    fs::write(lines.segment(0), other).unwrap();
    let file = fs::File::options().write(true).open(lines.segment(0)).unwrap();
    file.set_modified(modified).unwrap();
    for (filter, wanted) in [("from=prod/b9", 1), ("from=prod/b1", 0)] {
        assert_eq!(lines.asked(filter, Indexes::Read).len(), wanted, "{filter}");
        assert_eq!(
            lines.counted(filter, &[Key::From], Indexes::Read).len(),
            wanted,
            "{filter}"
        );
    }
    // And one of another segment is not.
    fs::copy(lines.index(2), lines.index(0)).unwrap();
    assert_eq!(lines.asked("from=prod/b9", Indexes::Read).len(), 1);
}

#[test]
fn a_segment_that_was_changed_in_its_middle_is_not_asked_by_its_old_index() {
    let many: Vec<String> = (0..99).map(|number| call(number, 0)).collect();
    let lines = Lines::new(&[many, vec![call(1, 0)]]);
    lines.asked("", Indexes::Write);
    let text = fs::read_to_string(lines.segment(0)).unwrap();
    fs::write(lines.segment(0), text.replace("prod/b50", "prod/xxx")).unwrap();
    // Files have times of some nanoseconds; the clock of the kernel ticks in milliseconds.
    let later = fs::metadata(lines.index(0)).unwrap().modified().unwrap() + std::time::Duration::from_secs(1);
    let file = fs::File::options().write(true).open(lines.segment(0)).unwrap();
    file.set_modified(later).unwrap();
    assert_eq!(lines.asked("from=prod/xxx", Indexes::Read).len(), 1);
}

#[test]
fn indexes_of_segments_that_are_gone_are_removed() {
    let lines = three();
    lines.asked("", Indexes::Write);
    fs::remove_file(lines.segment(0)).unwrap();
    fs::write(lines.dir().join("index/notes.txt"), "").unwrap();
    lines.asked("", Indexes::Read);
    assert!(lines.index(0).exists());
    lines.asked("", Indexes::Write);
    assert!(!lines.index(0).exists() && lines.index(2).exists());
    assert!(
        lines.dir().join("index/notes.txt").exists(),
        "what is no index is let be"
    );
}

#[test]
fn a_folder_that_cannot_be_written_is_asked_all_the_same() {
    let lines = three();
    fs::write(lines.dir().join("index"), "a file").unwrap();
    assert_eq!(lines.asked("from=prod/*", Indexes::Write).len(), 4);
}

#[test]
fn ends_in_segments_of_other_times_are_found() {
    let end = |id: u8, at: u64, status: u16| {
        format!(
            "{{\"kind\":\"end\",\"id\":\"01990000-0000-7000-8000-0000000000{id:02}\",\"time\":\"{}\",\"status\":{status}}}\n",
            time(at)
        )
    };
    let lines = Lines::new(&[
        vec![call(1, 0), call(2, 1)],
        vec![call(3, 100_000), end(1, 100_001, 503)],
        vec![call(4, 200_000), end(2, 200_001, 200), end(3, 200_002, 200)],
        vec![call(5, 300_000)],
    ]);
    lines.asked("", Indexes::Write);
    let early = "until=2026-11-05T10:01:00Z";
    lines.check(early, &[Key::Status]);
    assert_eq!(lines.asked(&format!("{early} status=503"), Indexes::Read).len(), 1);
    assert_eq!(lines.asked("since=2026-11-05T10:05:00Z", Indexes::Read).len(), 1);
}

#[test]
fn more_groups_than_are_kept_are_refused() {
    let many = |from: u32| {
        (from..from + 50_001)
            .map(|number| format!("{{\"kind\":\"x{number}\"}}\n"))
            .collect()
    };
    let lines = Lines::new(&[many(0), many(50_001)]);
    let mut counts = Counts::by(&[Key::Kind]);
    let refused = counts.add(lines.dir(), &read(""), Indexes::Ignore).unwrap_err();
    assert!(matches!(refused, CountError::TooManyGroups), "{refused:?}");
}

#[test]
fn an_answer_is_bounded_in_rows_in_bytes_and_in_time() {
    let lines = three();
    let stop = Stop::default();
    let ask = |keys: &[Key], rows, bytes, stop: &Stop| {
        let bounds = Bounds { rows, bytes };
        query::answer(lines.dir(), &read(""), keys, bounds, Indexes::Ignore, stop)
    };
    for keys in [&[][..], &[Key::From]] {
        let whole = ask(keys, 4, 10_000, &stop).unwrap();
        assert_eq!((whole.rows.len(), whole.more), (4, false), "{keys:?}");
        let short = ask(keys, 3, 10_000, &stop).unwrap();
        assert_eq!(
            (short.rows.as_slice(), short.more),
            (&whole.rows[..3], true),
            "{keys:?}"
        );
        let bytes = whole.rows[0].len() + whole.rows[1].len();
        let narrow = ask(keys, 4, bytes + 1, &stop).unwrap();
        assert_eq!(
            (narrow.rows.as_slice(), narrow.more),
            (&whole.rows[..2], true),
            "{keys:?}"
        );
    }
    let gone = stop.on_drop();
    assert!(ask(&[], 4, 10_000, &stop).is_ok());
    drop(gone);
    for keys in [&[][..], &[Key::From]] {
        assert!(
            matches!(ask(keys, 4, 10_000, &stop), Err(CountError::Stopped)),
            "{keys:?}"
        );
    }
}

#[test]
fn a_line_that_is_too_long_is_named_after_what_is_before_it() {
    let lines = Lines::new(&[
        vec![call(1, 0)],
        vec![call(2, 0), format!("{}\n", "x".repeat(40_000))],
        vec![call(3, 0)],
    ]);
    for indexes in [Indexes::Ignore, Indexes::Write] {
        let mut found = query::run(lines.dir(), read("verdict=deny"), None, indexes).unwrap();
        let error = found.next().unwrap().unwrap_err();
        assert!(error.to_string().contains("record 2 "), "{error}");
    }
}
